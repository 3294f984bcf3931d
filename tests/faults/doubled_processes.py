"""Processes of one event loop that can be killed before or after any of their effects. Knows nothing of what they do.

Nothing of a killed process has an effect any more: whatever it still tries raises `Killed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

_process: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(BaseException):
    """kill -9: no handler of the code under test may stop it, and what it does on the way out has no effect."""


@dataclass(frozen=True)
class Boundary:
    """The moment before (or after) the effect with this number, counted from when the effects were last told to be.
    also: a process that dies with who reaches it."""

    number: int
    side: str
    also: str = ""


class Effects:
    """Counts every effect of every process, and kills who reaches the boundary. done: what was counted, as text."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.boundary: Boundary | None = None
        self.living: dict[str, Process] = {}
        """The last life of each process, by name."""
        self.on_effect: list[Callable[[], None]] = []

    def begin(self, boundary: Boundary | None) -> None:
        self.done.clear()
        self.boundary = boundary

    def before(self, process: Process, what: str) -> int:
        if process.is_dead:
            raise Killed(process.name)
        self.done.append(f"{process.name}: {what}")
        number = len(self.done) - 1
        self._reach(process, number, "before")
        return number

    def after(self, process: Process, number: int) -> None:
        if process.is_dead:
            raise Killed(process.name)
        for check in self.on_effect:
            check()
        self._reach(process, number, "after")

    def _reach(self, process: Process, number: int, side: str) -> None:
        if self.boundary is not None and (self.boundary.number, self.boundary.side) == (number, side):
            process.kill()
            if self.boundary.also:
                self.living[self.boundary.also].kill()
            raise Killed(process.name)

    def take(self, process: Process, what: str, work: Callable[[], T]) -> T:
        number = self.before(process, what)
        result = work()
        self.after(process, number)
        return result

    async def wait(self, process: Process, what: str, work: Callable[[], Awaitable[T]]) -> T:
        number = self.before(process, what)
        result = await work()
        self.after(process, number)
        return result


@dataclass(eq=False)
class Process:
    """One life of a program: every task that it starts, and theirs. ended: called once when it dies."""

    name: str
    ended: Callable[[], None]
    is_dead: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        token = _process.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            _process.reset(token)

    def kill(self) -> None:
        if not self.is_dead:
            self.is_dead = True
            for task in self.tasks:
                task.cancel()
            asyncio.get_running_loop().call_soon(self.ended)


def task_factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **words: Any) -> asyncio.Task[T]:
    task = asyncio.Task(work, loop=loop, **words)
    if (process := _process.get()) is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task
