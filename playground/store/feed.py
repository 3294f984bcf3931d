"""The latest events, kept in memory, and who waits for the next. Pure: one event loop calls it; knows no disk."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from playground.store.api import Event, Events

KEPT_BYTES = 8 << 20
"""Memory for watchers that are a little behind; who is further behind reads the disk. It is full after some fifteen
thousand changes, so for so long a controller grows by it."""

_EVENT_BYTES, _BATCH_BYTES = 270, 150
"""Memory of an event beside its key and value, and of a batch beside its events (CPython 3.11, measured)."""


class Place:
    """A watcher's place in history: it has seen every event of `prefix` up to revision `after`."""

    __slots__ = ("after", "prefix", "wake")

    def __init__(self, prefix: str, after: int) -> None:
        self.prefix = prefix
        self.after = after
        self.wake: asyncio.Future[None] | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    last: int
    events: Events
    size: int


class Feed:
    """Holds the events of the revisions in (start, end]."""

    def __init__(self, revision: int) -> None:
        self.start = revision
        self.end = revision
        self.is_closed = False
        self._batches: deque[_Batch] = deque()
        self._size = 0
        self._waiting: set[Place] = set()

    def publish(self, events: Events) -> None:
        """Appends whole revisions, in order and at least one; wakes whom they concern.

        After a gap (revisions that were never published) memory starts anew, and everybody is woken to read the disk.
        """
        first, last = events[0].revision, events[-1].revision
        is_gap = first != self.end + 1
        if is_gap:
            self._batches.clear()
            self._size = 0
            self.start = first - 1
        size = _BATCH_BYTES + sum(map(_size, events))
        self._batches.append(_Batch(last, events, size))
        self._size += size
        self.end = last
        while self._size > KEPT_BYTES and len(self._batches) > 1:
            gone = self._batches.popleft()
            self._size -= gone.size
            self.start = gone.last
        keys = sorted(event.key for event in events)
        for place in self._waiting:
            at = bisect_left(keys, place.prefix)
            if is_gap or (at < len(keys) and keys[at].startswith(place.prefix)):
                _wake(place)
            else:
                place.after = max(place.after, last)

    def read(self, place: Place) -> Events:
        """All that `place` has not seen yet, and moves it to the end. It must not be behind `start`."""
        events: Events = []
        if place.after < self.end:
            for batch in self._batches:
                if batch.last > place.after:
                    events += (e for e in batch.events if e.revision > place.after and e.key.startswith(place.prefix))
            place.after = self.end
        return events

    async def wait(self, place: Place) -> None:
        """Returns when there may be news for `place`, which has seen all so far; at once when closed."""
        if self.is_closed:
            return
        place.wake = asyncio.get_running_loop().create_future()
        self._waiting.add(place)
        try:
            await place.wake
        finally:
            self._waiting.discard(place)

    def close(self) -> None:
        """Wakes everybody; nothing is published any more."""
        self.is_closed = True
        for place in self._waiting:
            _wake(place)


def _size(event: Event) -> int:
    return _EVENT_BYTES + len(event.key) + (len(event.item.value) if event.item else 0)


def _wake(place: Place) -> None:
    if place.wake is not None and not place.wake.done():
        place.wake.set_result(None)
