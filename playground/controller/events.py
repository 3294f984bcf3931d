"""What happened at the site, for people: a bounded list in memory, each event also one line of the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

log = logging.getLogger("events")

KEPT = 2000


@dataclass(frozen=True, slots=True)
class Happened:
    """One event. id grows by one; at is UTC seconds; object is like `workspace atlas/worker-1`."""

    id: int
    at: float
    kind: str
    object: str
    text: str


class EventLog:
    """The last `KEPT` events since the controller started."""

    def __init__(self) -> None:
        self._events: deque[Happened] = deque(maxlen=KEPT)
        self._last = 0
        self._more = asyncio.Event()

    def add(self, kind: str, object: str, text: str) -> None:
        """Notes one event."""
        self._last += 1
        self._events.append(Happened(self._last, time.time(), kind, object, text))
        log.info("%s object=%r text=%r", kind, object, text)
        self._more.set()
        self._more = asyncio.Event()

    def after(self, number: int) -> list[Happened]:
        """Events with a larger id, oldest first."""
        return [event for event in self._events if event.id > number]

    async def wait(self, timeout_s: float) -> None:
        """Returns when there is a new event, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._more.wait()
        except TimeoutError:
            return
