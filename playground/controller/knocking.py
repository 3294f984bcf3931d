"""Has workspaces knock at each other's ports, and sees which knocks arrive: from inside of both. Decides no verdict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from playground.controller.execution import Channel, Execution, Finished, NotPossible
from playground.controller.trying import Try

log = logging.getLogger("controller")

BACK_S = 10.0
"""How long a workspace that can't be asked is tried: a host's agent that has died is back within a few seconds."""

AGAIN_S = 0.25

WATCH_S = 10.0
"""How long a workspace may take to begin to watch, and to say what it saw."""

MOST_S = 240.0
"""How long all knocks may take."""

_NUMBERS = {"tcp": 6, "udp": 17}

Arrivals = set[tuple[int, str, int, str, int]]
"""Protocol, source, its port, destination, its port; addresses as the kernel writes them."""


async def asked(
    execution: Execution,
    workspace: tuple[str, str],
    argv: Sequence[str],
    question: list[dict[str, Any]],
    at_once: asyncio.Semaphore,
    timeout_s: float = 30.0,
) -> list[dict[str, Any]] | str:
    """What a tool in a workspace answers to a JSON list; why, when it could not be asked for `BACK_S`."""
    until = time.monotonic() + BACK_S
    while True:
        async with at_once:
            answer = await _asked_now(execution, workspace, argv, question, timeout_s)
        if not isinstance(answer, str) or time.monotonic() >= until:
            return answer
        await asyncio.sleep(AGAIN_S)


async def _asked_now(
    execution: Execution, workspace: tuple[str, str], argv: Sequence[str], question: object, timeout_s: float
) -> list[dict[str, Any]] | str:
    try:
        finished = await execution.run(
            argv, workspace=workspace, stdin=msgspec.json.encode(question), timeout_s=timeout_s
        )
    except NotPossible as error:
        log.warning("probe not possible workspace=%s/%s cause=%s", *workspace, error)
        return str(error)
    return _rows(finished, workspace, f"its {argv[0].removeprefix('@')}")


def _rows(finished: Finished, workspace: tuple[str, str], what: str) -> list[Any] | str:
    if finished.code != 0:
        said = finished.stderr.decode(errors="replace").strip().rpartition("\n")[2][-200:]
        log.warning("probe failed workspace=%s/%s error=%s", *workspace, said)
        return f"{what} ended with {finished.code}" + (f": {said}" if said else "")
    try:
        return msgspec.json.decode(finished.stdout, type=list[Any])
    except msgspec.DecodeError:
        return f"{what} said nothing that we understand"


class Knocking:
    """Of one probe."""

    def __init__(self, execution: Execution, at_once: asyncio.Semaphore) -> None:
        """at_once: how many workspaces knock at the same time. All that are knocked at watch at the same time."""
        self._execution = execution
        self._at_once = at_once

    async def knock(self, playground: str, tries: Sequence[Try]) -> dict[Try, bool | str]:
        """Whether each knock arrived and, of TCP, was answered; why, where nobody could see that."""
        by_source: dict[str, list[Try]] = {}
        for one in tries:
            by_source.setdefault(one.source, []).append(one)
        async with AsyncExitStack() as stack:
            watched = dict.fromkeys(one.destination for one in tries)
            watches = await asyncio.gather(*(self._watch(stack, playground, name) for name in watched))
            said = await asyncio.gather(*(self._knock(playground, name, these) for name, these in by_source.items()))
            seen = await asyncio.gather(*(one.arrivals() if isinstance(one, _Watch) else _same(one) for one in watches))
        arrivals = dict(zip(watched, seen, strict=True))
        found: dict[Try, bool | str] = {}
        for these, answer in zip(by_source.values(), said, strict=True):
            for place, one in enumerate(these):
                arrived = arrivals[one.destination]
                if isinstance(answer, str):
                    found[one] = answer
                elif isinstance(arrived, str):
                    found[one] = f"{one.destination} could not watch: {arrived}"
                else:
                    found[one] = _has_arrived(one, answer[place], arrived)
        return found

    async def _knock(self, playground: str, name: str, tries: Sequence[Try]) -> list[dict[str, Any]] | str:
        question = [{"id": place, "address": one.address, "port": one.port} for place, one in enumerate(tries)]
        return await asked(self._execution, (playground, name), ["@knock", "knock"], question, self._at_once, MOST_S)

    async def _watch(self, stack: AsyncExitStack, playground: str, name: str) -> _Watch | str:
        until = time.monotonic() + BACK_S
        while True:
            try:
                return await stack.enter_async_context(_Watch(self._execution, (playground, name)))
            except NotPossible as error:
                if time.monotonic() >= until:
                    return str(error)
            await asyncio.sleep(AGAIN_S)


async def _same(cause: str) -> str:
    return cause


def _has_arrived(one: Try, said: dict[str, Any], arrived: Arrivals) -> bool:
    if said["sent"] is None or said["answered"] is False:
        return False
    word, _, number = one.port.partition("/")
    source, source_port = said["sent"]
    return (_NUMBERS[word], source, source_port, one.address, int(number)) in arrived


class _Watch:
    """A workspace that sees what arrives, for as long as a block lasts."""

    def __init__(self, execution: Execution, workspace: tuple[str, str]) -> None:
        self._execution = execution
        self._workspace = workspace
        self._channel: Channel | None = None
        self._ended: asyncio.Task[Finished] | None = None

    async def __aenter__(self) -> _Watch:
        """Once it sees. Raises NotPossible."""
        self._channel = await self._execution.start(["@knock", "watch"], workspace=self._workspace)
        is_watching = asyncio.Event()
        self._ended = asyncio.create_task(
            self._execution.finish(self._channel, b"", MOST_S + 2 * WATCH_S, lambda said: is_watching.set())
        )
        watching = asyncio.create_task(is_watching.wait())
        await asyncio.wait([watching, self._ended], timeout=WATCH_S, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        if self._ended.done() or not is_watching.is_set():
            self._ended.cancel()
            raise NotPossible("it does not begin to watch")
        return self

    async def arrivals(self) -> Arrivals | str:
        """All that it saw; it sees no more."""
        assert self._channel is not None and self._ended is not None
        try:
            await self._execution.signal(self._channel, "TERM")
            async with asyncio.timeout(WATCH_S):
                rows = _rows(await self._ended, self._workspace, "its watch")
        except (NotPossible, TimeoutError) as error:
            return str(error) or "it does not say what it saw"
        return rows if isinstance(rows, str) else {tuple(row) for row in rows}

    async def __aexit__(self, *_: object) -> None:
        if self._ended is not None:
            self._ended.cancel()
