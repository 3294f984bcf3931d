"""A store in this process's memory: for tests, for `demo`, and as the oracle of the other engines.

Deliberately dumb: a dict, a list of revisions, and a scan of both wherever one is needed. Nothing outlives it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

from playground.store.admit import admit_commit, admit_text, admit_ttl
from playground.store.api import (
    HISTORY,
    Change,
    Compacted,
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
from playground.store.election import elect


class MemoryStore:
    """See `playground.store.api.Store`. history: revisions kept for watches. clock: seconds, monotonic."""

    def __init__(self, *, history: int = HISTORY, clock: Callable[[], float] = time.monotonic) -> None:
        self._history = history
        self._clock = clock
        self._items: dict[str, Item] = {}
        self._revisions: list[Events] = []
        self._compacted = 0
        self._ttl_s: dict[LeaseId, float] = {}
        self._deadline_s: dict[LeaseId, float] = {}
        self._changed = asyncio.Event()
        self._closed = False

    async def get(self, key: str) -> Item | None:
        self._begin()
        admit_text(key)
        return self._items.get(key)

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        self._begin()
        admit_text(prefix)
        items = [item for key, item in sorted(self._items.items()) if key.startswith(prefix)]
        return items, Revision(self._revision)

    async def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        admit_commit(compares, changes)
        self._begin()
        failed = tuple(c.key for c in compares if c.modified != self._modified(c.key))
        if failed:
            return Conflict(failed)
        for change in changes:
            if isinstance(change, Put) and change.lease is not None and change.lease not in self._ttl_s:
                raise LeaseLost(f"lease {change.lease} of {change.key} has ended")
        revision = self._write(changes)
        await asyncio.sleep(0)  # as every other engine: one who commits in a loop lets the watchers run
        return revision

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Events]:
        admit_text(prefix)
        return _Watch(self, prefix, after)

    async def lease(self, ttl_s: float) -> LeaseId:
        admit_ttl(ttl_s)
        self._begin()
        lease = LeaseId(secrets.token_hex(8))
        self._ttl_s[lease] = ttl_s
        self._restart(lease)
        return lease

    async def keepalive(self, lease: LeaseId) -> None:
        self._begin()
        if lease not in self._ttl_s:
            raise LeaseLost(f"lease {lease} has ended")
        self._restart(lease)

    async def revoke(self, lease: LeaseId) -> None:
        self._begin()
        self._end(lease)

    async def elect(self, name: str, candidate: str, ttl_s: float) -> LeaseId:
        return await elect(self, name, candidate, ttl_s)

    async def close(self) -> None:
        self._closed = True
        self._wake()

    @property
    def _revision(self) -> int:
        return self._compacted + len(self._revisions)

    def _modified(self, key: str) -> int:
        return self._items[key].modified if key in self._items else 0

    def _begin(self) -> None:
        """What every verb does first."""
        if self._closed:
            raise StoreError("the store is closed")
        self._expire()

    def _write(self, changes: Sequence[Change]) -> Revision:
        revision = Revision(self._revision + 1)
        events = []
        for change in sorted(changes, key=lambda change: change.key):
            old = self._items.get(change.key)
            if isinstance(change, Put):
                created = old.created if old else revision
                item = Item(change.key, change.value, created, revision, change.lease)
                self._items[change.key] = item
                events.append(Event(change.key, item, revision))
            elif old:
                del self._items[change.key]
                events.append(Event(change.key, None, revision))
        if events:
            self._revisions.append(events)
            while len(self._revisions) > self._history:
                del self._revisions[0]
                self._compacted += 1
            self._wake()
        return Revision(self._revision)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _restart(self, lease: LeaseId) -> None:
        ttl_s = self._ttl_s[lease]
        self._deadline_s[lease] = self._clock() + ttl_s
        # Verbs expire leases by themselves; the timer is for watchers while nobody calls a verb. Old timers do no harm.
        asyncio.get_running_loop().call_later(ttl_s, self._expire)

    def _expire(self) -> None:
        now_mono_s = self._clock()
        for lease, deadline_s in list(self._deadline_s.items()):
            if deadline_s <= now_mono_s and not self._closed:
                self._end(lease)

    def _end(self, lease: LeaseId) -> None:
        self._ttl_s.pop(lease, None)
        self._deadline_s.pop(lease, None)
        self._write([Delete(item.key) for item in self._items.values() if item.lease == lease])


class _Watch:
    """One watcher's place in history: `after` is the last revision that it has seen."""

    def __init__(self, store: MemoryStore, prefix: str, after: int) -> None:
        self._store = store
        self._prefix = prefix
        self._after = after

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> Events:
        store = self._store
        while True:
            if not store._compacted <= self._after <= store._revision:
                raise Compacted(f"revision {self._after} is not in {store._compacted}…{store._revision}; list again")
            revisions = store._revisions[self._after - store._compacted :]
            self._after = store._revision
            events = [event for events in revisions for event in events if event.key.startswith(self._prefix)]
            if events:
                return events
            if store._closed:
                raise StopAsyncIteration
            await store._changed.wait()
