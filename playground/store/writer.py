"""The one thread that writes the SQLite file: requests that wait together share one transaction. Knows no watchers.

Each request keeps its own revision and its own answer, and sees what the earlier ones of its transaction did; nobody is
answered before the COMMIT has reached the disk. Leases are judged here too, so that everything about the store happens
in one order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue

from playground.store.api import (
    Change,
    Compare,
    Conflict,
    Delete,
    Event,
    Events,
    Item,
    LeaseId,
    LeaseLost,
    Put,
    Revision,
    StoreError,
)
from playground.store.file import connect, explain, read_head
from playground.store.leases import Leases

log = logging.getLogger(__name__)

BATCH_REQUESTS = 512
BATCH_BYTES = 4 << 20
COMPACT_EVERY = 64
"""Revisions of history to let pile up before they are deleted together."""
RETRY_S = 1.0
"""How long leases that are over wait when the disk would not take their end."""


class Batch:
    """One transaction. It begins with the first request that needs the disk and ends in `finish`."""

    def __init__(self, connection: sqlite3.Connection, leases: Leases) -> None:
        self._connection = connection
        self._leases = leases
        self.is_begun = False
        self._first = self._revision = self._compacted = 0
        self.events: Events = []
        self.ended: set[LeaseId] = set()
        self.granted: list[tuple[LeaseId, float]] = []

    def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        """See `Store.commit`. Raises LeaseLost; every refusal comes before the first write."""
        self._begin()
        failed = tuple(compare.key for compare in compares if self._modified(compare.key) != compare.modified)
        if failed:
            return Conflict(failed)
        for change in changes:
            if isinstance(change, Put) and change.lease is not None and not self._runs(change.lease):
                raise LeaseLost(f"lease {change.lease} of {change.key} has ended")
        return self._write(changes)

    def grant(self, lease: LeaseId, ttl_s: float) -> LeaseId:
        """Writes a lease down; it runs from the moment the batch is on the disk."""
        self._begin()
        self._connection.execute("INSERT INTO lease VALUES (?, ?)", (lease, ttl_s))
        self.granted.append((lease, ttl_s))
        return lease

    def renew(self, lease: LeaseId, now_mono_s: float) -> None:
        """See `Store.keepalive`: needs no disk."""
        if lease in self.ended or not self._leases.renew(lease, now_mono_s):
            raise LeaseLost(f"lease {lease} has ended")

    def end(self, lease: LeaseId) -> None:
        """Removes a lease and its keys in one revision; no error when it has ended."""
        if self._runs(lease):
            self._begin()
            keys = self._connection.execute("SELECT key FROM item WHERE lease = ?", (lease,)).fetchall()
            self._write([Delete(key) for (key,) in keys])
            self._connection.execute("DELETE FROM lease WHERE id = ?", (lease,))
            self.ended.add(lease)

    def expire(self, now_mono_s: float) -> None:
        """Ends the leases whose time is over."""
        for lease in self._leases.due(now_mono_s):
            self.end(lease)

    def finish(self, history: int) -> None:
        """Makes it durable; keeps at least `history` revisions."""
        if not self.is_begun:
            return
        if self._revision > self._first:
            if self._revision - self._compacted >= history + COMPACT_EVERY:
                self._compacted = self._revision - history
                self._connection.execute("DELETE FROM log WHERE revision <= ?", (self._compacted,))
            self._connection.execute("UPDATE head SET revision = ?, compacted = ?", (self._revision, self._compacted))
        self._connection.execute("COMMIT")

    def _begin(self) -> None:
        if not self.is_begun:
            self._connection.execute("BEGIN IMMEDIATE")
            self.is_begun = True
            self._revision, self._compacted = read_head(self._connection)
            self._first = self._revision

    def _runs(self, lease: LeaseId) -> bool:
        return lease in self._leases and lease not in self.ended

    def _modified(self, key: str) -> int:
        row = self._connection.execute("SELECT modified FROM item WHERE key = ?", (key,)).fetchone()
        return row[0] if row else 0

    def _write(self, changes: Sequence[Change]) -> Revision:
        revision = Revision(self._revision + 1)
        execute = self._connection.execute
        events: Events = []
        for change in sorted(changes, key=_by_key):
            key = change.key
            row = execute("SELECT created FROM item WHERE key = ?", (key,)).fetchone()
            if isinstance(change, Put):
                item = Item(key, change.value, row[0] if row else revision, revision, change.lease)
                execute(
                    "INSERT OR REPLACE INTO item (key, value, created, modified, lease) VALUES (?, ?, ?, ?, ?)",
                    (key, item.value, item.created, revision, item.lease),
                )
                execute(
                    "INSERT INTO log (revision, key, value, created, lease) VALUES (?, ?, ?, ?, ?)",
                    (revision, key, item.value, item.created, item.lease),
                )
                events.append(Event(key, item, revision))
            elif row:
                execute("DELETE FROM item WHERE key = ?", (key,))
                execute("INSERT INTO log (revision, key) VALUES (?, ?)", (revision, key))
                events.append(Event(key, None, revision))
        if events:
            self._revision = revision
            self.events += events
        return Revision(self._revision)


def _by_key(change: Change) -> str:
    return change.key


@dataclass(slots=True, eq=False)
class Request:
    """Work for the writer, and who waits for it. at_mono_s: when it was asked, which is when it counts for leases.

    renews: the lease of a keepalive, which is answered even while the disk takes nothing.
    """

    future: asyncio.Future[object]
    at_mono_s: float
    size: int
    work: Callable[[Batch], object]
    renews: LeaseId | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A finished batch: each request with its answer (an exception is raised to the caller), and what happened."""

    answers: list[tuple[Request, object]]
    events: Events


class Writer:
    """Runs from `start` to `stop`. deliver is called in the writer's thread, in order, once a batch."""

    def __init__(
        self, path: Path, *, history: int, clock: Callable[[], float], deliver: Callable[[Done], None]
    ) -> None:
        self._path = path
        self._history = history
        self._clock = clock
        self._deliver = deliver
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = connect(path, may_write=True)
        self._leases = Leases()
        now_mono_s = clock()
        for lease, ttl_s in self._connection.execute("SELECT id, ttl_s FROM lease"):
            self._leases.grant(lease, ttl_s, now_mono_s)  # its full time anew: an outage of ours ends nobody
        self._failed_at_mono_s = -inf
        self._is_failing = False
        # A daemon: a process that forgets to close the store must still be able to end; what was answered is durable.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queues a request; never blocks."""
        self._queue.put(request)

    def stop(self) -> None:
        """Blocks until all that was submitted is done; nothing may be submitted after. May be repeated."""
        self._queue.put(None)
        self._thread.join()
        self._disconnect()

    def _run(self) -> None:
        is_stopping = False
        while not is_stopping:
            requests, now_mono_s, is_stopping = self._gather()
            self._execute(requests, now_mono_s)

    def _gather(self) -> tuple[list[Request], float, bool]:
        """Waits for the first request or the next lease that is due, and takes what else is queued, up to a limit.

        Returns the requests, the time up to which leases can be judged, and whether to stop after these.
        """
        due_mono_s = self._leases.next_due_mono_s
        if self._is_failing:
            due_mono_s = max(due_mono_s, self._failed_at_mono_s + RETRY_S)
        timeout_s = None if due_mono_s == inf else min(max(due_mono_s - self._clock(), 0.0), threading.TIMEOUT_MAX)
        taken: list[Request | None] = []
        size = 0
        # The time is read before the queue is emptied: a keepalive that came in time is seen before its lease is
        # judged, however long the disk kept it waiting.
        with contextlib.suppress(Empty):
            taken.append(self._queue.get(timeout=timeout_s))
        now_mono_s = self._clock()
        with contextlib.suppress(Empty):
            while len(taken) < BATCH_REQUESTS and size < BATCH_BYTES:
                request = self._queue.get_nowait()
                taken.append(request)
                size += request.size if request else 0
            now_mono_s = -inf  # there may be more in the queue, to be seen first
        return [request for request in taken if request], now_mono_s, None in taken

    def _execute(self, requests: Sequence[Request], now_mono_s: float) -> None:
        answers: list[tuple[Request, object]] = []
        try:
            if self._connection is None:
                self._connection = connect(self._path, may_write=True)
            batch = Batch(self._connection, self._leases)
            for request in requests:
                batch.expire(request.at_mono_s)
                answers.append((request, _answer(request, batch)))
            batch.expire(now_mono_s)
            batch.finish(self._history)
        except Exception as error:
            self._fail(requests, error)
            return
        if self._is_failing and batch.is_begun:
            self._is_failing = False
            log.info("store writes again file=%s", self._path)
        for lease in batch.ended:
            self._leases.drop(lease)
        for lease, ttl_s in batch.granted:
            self._leases.grant(lease, ttl_s, self._clock())
        if answers or batch.events:
            self._deliver(Done(answers, batch.events))

    def _fail(self, requests: Sequence[Request], error: Exception) -> None:
        """Nothing of the batch happened. Keepalives hold all the same: whose end can't be written has not ended."""
        self._disconnect()  # which rolls back; the next batch starts from what the disk holds
        self._failed_at_mono_s = self._clock()
        if not isinstance(error, sqlite3.Error):
            log.error("store failed by a bug file=%s requests=%d", self._path, len(requests), exc_info=error)
        elif not self._is_failing:
            log.warning("store can't write file=%s requests=%d cause=%s", self._path, len(requests), error)
        self._is_failing = True
        answers: list[tuple[Request, object]] = []
        for request in requests:
            is_kept = request.renews is not None and self._leases.renew(request.renews, request.at_mono_s)
            cause = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
            answers.append((request, None if is_kept else cause))
        if answers:
            self._deliver(Done(answers, []))

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            except sqlite3.Error as error:
                log.warning("store can't close its file file=%s cause=%s", self._path, error)


def _answer(request: Request, batch: Batch) -> object:
    try:
        return request.work(batch)
    except StoreError as refusal:
        return refusal
