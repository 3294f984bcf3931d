"""What happened at the site, for people: the last `KEPT` events, in the store, each also one line of the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

import msgspec

from playground.controller.world import World
from playground.records import EventRecord, encode, key_of
from playground.store.api import Compare, Conflict, Delete, Put, Store

log = logging.getLogger("events")

KEPT = 1000
PRUNE = 50
"""How many of the oldest go at once."""


class EventLog:
    """Events in order. `add` never waits; `run` writes what was added."""

    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world
        self._pending: deque[EventRecord] = deque()
        self._added = asyncio.Event()

    def add(self, kind: str, object: str, text: str) -> None:
        """Notes one event."""
        log.info("%s object=%r text=%r", kind, object, text)
        self._pending.append(EventRecord(id=0, at_utc_s=time.time(), what=kind, object=object, text=text))
        self._added.set()

    async def run(self) -> None:
        """Writes for ever. A number that another controller took is passed over."""
        while True:
            await self._added.wait()
            self._added.clear()
            while self._pending:
                last = max(self._world.events, default=0)
                event = msgspec.structs.replace(self._pending[0], id=last + 1)
                key = key_of(event)
                result = await self._store.commit([Compare(key, 0)], [Put(key, encode(event)), *self._old()])
                if isinstance(result, Conflict):
                    await self._world.load()
                    continue
                await self._world.reached(result)
                self._pending.popleft()

    def _old(self) -> list[Delete]:
        if len(self._world.events) < KEPT + PRUNE:
            return []
        return [Delete(key_of(self._world.events[number])) for number in sorted(self._world.events)[:PRUNE]]

    def after(self, number: int) -> list[dict[str, Any]]:
        """Events with a larger id, oldest first, as in docs/api.md."""
        return [
            {"id": event.id, "at": event.at_utc_s, "kind": event.what, "object": event.object, "text": event.text}
            for event in (self._world.events[n] for n in sorted(self._world.events) if n > number)
        ]

    async def wait(self, number: int, timeout_s: float) -> None:
        """Returns when there is an event with a larger id, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while max(self._world.events, default=0) <= number:
                    await self._world.moved(self._world.revision)
        except TimeoutError:
            return
