"""A host's responder as a process of a doubled site: what it answers, what its file keeps, and an agent's hold on it.

It says nothing on any wire: a client that asks has its addresses. What the file does not hold, a new life finds out by
asking at the ports, as the real one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from doubled_processes import Effects, Process

from playground.responder.protocol import Leased, Value

SAVE_S = 0.2
RETRY_S = 0.2


@dataclass(eq=False)
class Answering:
    """What of a host's responder outlives it, and its present life.

    answers, leases: what the living one knows; file: what a new one begins with. ask: has all clients here ask.
    """

    effects: Effects
    ask: Callable[[], None]
    answers: dict[str, Value] = field(default_factory=dict)
    leases: dict[str, list[Leased]] = field(default_factory=dict)
    file: tuple[dict[str, Value], dict[str, list[Leased]]] = field(default_factory=lambda: ({}, {}))
    process: Process | None = None
    agent: Responder | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, process: Process) -> None:
        """A new life."""
        self.process = process
        answers, leases = self.file
        self.answers, self.leases = dict(answers), dict(leases)
        self.ended.clear()
        self.ask()

    def end(self) -> None:
        """It is dead: nobody answers."""
        self.process = None
        self.answers, self.leases = {}, {}
        self.ended.set()

    def lose_file(self) -> None:
        """As in a reboot."""
        self.file = ({}, {})

    def hear(self, document: Mapping[str, Value], in_effect: Callable[[], None]) -> None:
        """A map from the agent: taken, told, and some time later written."""
        if self.process is not None:
            self.process.spawn(self._take(self.process, dict(document), in_effect))

    async def _take(self, process: Process, document: dict[str, Value], in_effect: Callable[[], None]) -> None:
        self.effects.take(process, "map taken", lambda: setattr(self, "answers", document))
        in_effect()
        self.ask()
        await asyncio.sleep(SAVE_S)
        self.effects.take(process, "file written", lambda: setattr(self, "file", (document, self.file[1])))

    def lease(self, port: str, leased: list[Leased]) -> None:
        """A client asks."""
        if self.process is not None:
            self.process.spawn(self._lease(self.process, port, leased))

    async def _lease(self, process: Process, port: str, leased: list[Leased]) -> None:
        if port in self.leases:
            return
        self.effects.take(process, "lease told", lambda: self.leases.update({port: leased}))
        for one in leased:
            if self.agent is not None:
                self.agent.leased(one)
        self.effects.take(process, "lease noted", lambda: self.file[1].update({port: leased}))

    def forget(self, ports: Iterable[str]) -> None:
        """Others come in the place of these ports' clients."""
        for port in ports:
            self.leases.pop(port, None)
            self.file[1].pop(port, None)


class Responder:
    """An agent's hold on the responder, which outlives it and may die before it."""

    def __init__(self, answering: Answering, process: Process, effects: Effects) -> None:
        self._answering = answering
        self._process = process
        self._effects = effects
        self._wanted: dict[str, Value] | None = None
        self._is_connected = False
        self.leased: Callable[[Leased], None] = lambda leased: None
        self.effect: Callable[[], None] = lambda: None
        self.has_told = False

    def replace(self, document: Mapping[str, Value]) -> None:
        if self._wanted != document:
            self._wanted = dict(document)
            self._tell()

    def _tell(self) -> None:
        if self._is_connected and (wanted := self._wanted) is not None:
            self._effects.take(
                self._process, "responder map", lambda: self._answering.hear(wanted, lambda: self._told(wanted))
            )

    def _told(self, document: Mapping[str, Value]) -> None:
        if self._wanted == document and self._is_connected:
            self.has_told = True
            self.effect()

    def forget(self, keys: Iterable[str]) -> None:
        self._answering.forget(key.removeprefix("port/") for key in keys)

    def fence(self, utc_s: float) -> None:
        """No pools are given from here."""

    @property
    def has_caught_up(self) -> bool:
        return self.has_told and self._is_connected

    def answers(self, key: str) -> bool:
        is_given = self._is_connected and self._wanted is not None
        return is_given and self._answering.answers.get(key) == (self._wanted or {}).get(key)

    async def run(self) -> None:
        while True:
            if self._answering.process is not None:
                self._is_connected = True
                for held in list(self._answering.leases.values()):
                    for leased in held:
                        self.leased(leased)
                self._tell()
                await self._answering.ended.wait()
                self._is_connected = False
            await asyncio.sleep(RETRY_S)
