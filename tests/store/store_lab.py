"""What the store's tests share: a clock that stands still, and ways to look at watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from playground.store.api import Conflict, Events, LeaseLost, Put, Revision, Store

DEADLINE_S = 30.0
"""For what must happen at all; no test says how fast."""


class Clock:
    """Monotonic seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def events_up_to(store: Store, prefix: str, after: Revision, revision: int) -> Events:
    """All events that a new watch gives, up to one of `revision`, which must exist and carry the prefix."""
    seen: Events = []
    async for events in store.watch(prefix, after):
        seen += events
        if seen[-1].revision >= revision:
            return seen
    raise AssertionError("the watch ended")


@contextlib.asynccontextmanager
async def collecting(store: Store, prefix: str, after: Revision) -> AsyncIterator[list[Events]]:
    """The batches of a watch that runs in a task of its own."""
    batches: list[Events] = []

    async def collect() -> None:
        async for events in store.watch(prefix, after):
            batches.append(events)

    task = asyncio.create_task(collect())
    try:
        yield batches
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def put_for_a_moment(store: Store, key: str) -> Revision:
    """Puts a key under a lease that soon ends by itself; the longer, the busier the machine is."""
    ttl_s = 0.02
    while True:
        try:
            revision = await store.commit([], [Put(key, b"", await store.lease(ttl_s))])
        except LeaseLost:
            ttl_s *= 2
        else:
            assert not isinstance(revision, Conflict)
            return revision


async def until(claim: Callable[[], bool]) -> None:
    """Lets other tasks run until `claim` holds; the test's deadline bounds it."""
    while not claim():
        await asyncio.sleep(0.002)
