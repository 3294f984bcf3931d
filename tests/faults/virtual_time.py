"""An event loop whose clock jumps to the next timer whenever nothing is left to do: minutes pass in milliseconds.

Knows nothing of what runs on it. Only for code that waits for nothing outside: no sockets, no threads.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_S = 1_700_000_000.0
"""What the clock on the wall shows when the loop starts, seconds since the epoch."""


class _Selector(selectors.SelectSelector):
    """Never waits: what it was to wait for is added to the clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits, and no timer is left that would wake anybody"
            self.now_s += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; everything that it started is ended with it."""
    try:
        return loop.run_until_complete(work)
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
