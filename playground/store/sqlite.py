"""The store in one SQLite file: the embedded default. Owns readers and watches; all writing is the writer's."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import TypeVar, cast

from playground.store.admit import admit_commit, admit_text, admit_ttl
from playground.store.api import (
    HISTORY,
    Change,
    Compacted,
    Compare,
    Conflict,
    Event,
    Events,
    Item,
    LeaseId,
    Revision,
    StoreError,
)
from playground.store.check import check
from playground.store.election import elect
from playground.store.feed import Feed, Place
from playground.store.file import FileLock, Head, connect, explain, prepare, read_head
from playground.store.writer import Batch, Done, Request, Writer

__all__ = ["SqliteStore", "check"]

T = TypeVar("T")

LIST_ON_LOOP = 256
"""A list of up to so many items is read at once (0.5 ms); a longer one in a thread, so that the event loop goes on."""
WATCH_WINDOW = 256
"""Revisions of history that a watcher reads from the disk at a time."""


class SqliteStore:
    """See `playground.store.api.Store`; made by `open`. One process at a time has the file; it may use many tasks."""

    def __init__(self, path: Path, lock: FileLock, history: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._lock = lock
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._reader = connect(path, may_write=False)
        self._scanner = connect(path, may_write=False)
        self._scans = ThreadPoolExecutor(1, "store-reader")
        self._feed = Feed(read_head(self._reader).revision)
        self._writer = Writer(path, history=history, clock=clock, deliver=self._deliver)

    @classmethod
    def open(
        cls, path: str | PathLike[str], *, history: int = HISTORY, clock: Callable[[], float] = time.monotonic
    ) -> SqliteStore:
        """Opens the store in file `path`, making it (and its folder) when it is not there. Blocks; needs no event loop.

        history: revisions kept for watches, at least. clock: seconds, monotonic. Raises StoreError: the file is open in
        another process (named by pid), is not a store, is newer than this program, or the disk refuses.
        """
        file = Path(path).resolve()
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise explain(error, file) from error
        lock = FileLock(file)
        try:
            prepare(file)
            return cls(file, lock, history, clock)
        except sqlite3.Error as error:
            lock.release()
            raise explain(error, file) from error
        except BaseException:
            lock.release()
            raise

    async def get(self, key: str) -> Item | None:
        admit_text(key)
        self._bind()
        with self._reading():
            row = self._reader.execute(
                "SELECT key, value, created, modified, lease FROM item WHERE key = ?", (key,)
            ).fetchone()
        return Item(*row) if row else None

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        admit_text(prefix)
        loop = self._bind()
        with self._reading():
            items, revision = _scan(self._reader, prefix, LIST_ON_LOOP + 1)
            if len(items) > LIST_ON_LOOP:
                items, revision = await loop.run_in_executor(self._scans, _scan, self._scanner, prefix, -1)
        return items, revision

    async def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        size = admit_commit(compares, changes)
        compares, changes = tuple(compares), tuple(changes)
        return await self._ask(lambda batch: batch.commit(compares, changes), size)

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Events]:
        admit_text(prefix)
        return _Watch(self, prefix, after)

    async def lease(self, ttl_s: float) -> LeaseId:
        admit_ttl(ttl_s)
        lease = LeaseId(secrets.token_hex(8))
        return await self._ask(lambda batch: batch.grant(lease, ttl_s))

    async def keepalive(self, lease: LeaseId) -> None:
        now_mono_s = self._clock()
        await self._ask(lambda batch: batch.renew(lease, now_mono_s), renews=lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self._ask(lambda batch: batch.end(lease))

    async def elect(self, name: str, candidate: str, ttl_s: float) -> LeaseId:
        return await elect(self, name, candidate, ttl_s)

    async def close(self) -> None:
        self._is_closing = True
        await asyncio.to_thread(self._scans.shutdown)
        self._reader.close()
        self._scanner.close()
        await asyncio.to_thread(self._writer.stop)  # last: who closes last folds the WAL into the file
        self._feed.close()
        self._lock.release()

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The event loop of this store: the first to call a verb (or the next, once that one is closed)."""
        if self._is_closing:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("a store belongs to one event loop")
            self._loop = loop
        return loop

    async def _ask(self, work: Callable[[Batch], T], size: int = 0, renews: LeaseId | None = None) -> T:
        future: asyncio.Future[object] = self._bind().create_future()
        self._writer.submit(Request(future, self._clock(), size, work, renews))
        return cast(T, await future)

    def _deliver(self, done: Done) -> None:
        """In the writer's thread."""
        if self._loop is not None:
            # A closed loop has nobody left who waits; a later loop's watchers find the gap and read the disk.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrive, done)

    def _arrive(self, done: Done) -> None:
        if done.events:
            self._feed.publish(done.events)
        for request, answer in done.answers:
            if request.future.done():
                continue  # its caller was cancelled
            if isinstance(answer, Exception):
                request.future.set_exception(answer)
            else:
                request.future.set_result(answer)

    async def _read_history(self, place: Place) -> tuple[Events, bool]:
        """The next window of events for `place`, from the disk; moves it, and tells whether that was all there is."""
        loop = self._bind()
        with self._reading():
            head = read_head(self._reader)
            if place.after != head.revision:
                events, reached, head = await loop.run_in_executor(
                    self._scans, _scan_log, self._scanner, place.prefix, place.after
                )
                place.after = reached
                return events, reached == head.revision
        return [], True

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, self._path) from error


class _Watch:
    """One watcher. It reads the disk until it has caught up, then the feed's memory, and the disk when left behind."""

    def __init__(self, store: SqliteStore, prefix: str, after: int) -> None:
        self._store = store
        self._feed = store._feed
        self._place = Place(prefix, after)
        self._is_caught_up = False
        self._turn = asyncio.Lock()  # tasks that share one watch share its events out

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> Events:
        async with self._turn:
            while True:
                if self._is_caught_up and self._place.after >= self._feed.start:
                    if events := self._feed.read(self._place):
                        return events
                    if self._feed.is_closed:
                        raise StopAsyncIteration
                    await self._feed.wait(self._place)
                elif self._store._is_closing:
                    raise StopAsyncIteration
                else:
                    events, self._is_caught_up = await self._store._read_history(self._place)
                    if events:
                        return events


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All reads inside see one state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _scan(connection: sqlite3.Connection, prefix: str, limit: int) -> tuple[list[Item], Revision]:
    """The items of a prefix, as many as `limit` (-1: all), and the revision of which they are."""
    with _snapshot(connection):
        rows = connection.execute(
            "SELECT key, value, created, modified, lease FROM item WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (prefix, key_after(prefix), limit),
        )
        return [Item(*row) for row in rows], Revision(read_head(connection).revision)


def _scan_log(connection: sqlite3.Connection, prefix: str, after: int) -> tuple[Events, int, Head]:
    """A prefix's events in the next `WATCH_WINDOW` revisions, the last of these, and the head. Raises Compacted."""
    with _snapshot(connection):
        head = read_head(connection)
        if not head.compacted <= after <= head.revision:
            raise Compacted(f"revision {after} is not in {head.compacted}…{head.revision}; list again")
        last = min(after + WATCH_WINDOW, head.revision)
        rows = connection.execute(
            "SELECT revision, key, value, created, lease FROM log"
            " WHERE revision > ? AND revision <= ? AND key >= ? AND key < ? ORDER BY revision, key",
            (after, last, prefix, key_after(prefix)),
        )
        events = [
            Event(key, None if value is None else Item(key, value, created, revision, lease), revision)
            for revision, key, value, created, lease in rows
        ]
        return events, last, head


def key_after(prefix: str) -> str | bytes:
    """The least text above all that starts with `prefix`; b"" where there is none: SQLite sorts it above all text."""
    for at in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[at]) + 1
        if point <= 0x10FFFF:
            # U+D800…U+DFFF are surrogates, which no text in UTF-8 has.
            return prefix[:at] + chr(0xE000 if point == 0xD800 else point)
    return b""
