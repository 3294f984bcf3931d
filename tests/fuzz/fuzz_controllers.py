"""The agent's side of the watch stream: what a controller may say that is no controller of ours. In process.

Claims: the agent never ends and never stops dialling, and once an honest controller has shown it a whole view, it
carries exactly that: whatever was said before has left nothing.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from fuzz_lab import Json, Target, as_json, bounded, edited, garbled, steps_from_file, steps_to_file
from hypothesis import strategies as st

from playground import wire
from playground.agent import agent as agent_module
from playground.agent import link as link_module
from playground.agent.link import Link
from playground.records import Driver, ObservedHost
from playground.view import host_scope, playground_scope
from playground.workspaces.drivers.memory import Machine
from tests.agent.test_agent import SITE, FakeLink, Host
from tests.derive.test_derive import GRID, P0, P1, a_binding, a_workspace

HOST = "n1"
PLAYGROUND: list[wire.Viewed] = [GRID, P0, a_binding(P0, HOST), P1, a_binding(P1, "n2")]
HERE: list[wire.Viewed] = [a_workspace(P0, HOST)]
VIEW: list[wire.FromController] = [
    wire.Welcome("lab", "s", "internal", [], 3600.0),
    wire.Enter("site", 9, list(SITE)),
    wire.Enter(host_scope(HOST), 9, HERE),
    wire.Enter(playground_scope("atlas"), 9, PLAYGROUND),
    wire.Complete(9),
]
MORE: list[wire.FromController] = [
    wire.Changed(playground_scope("atlas"), 10, [a_binding(P1, HOST)], [f"port/atlas/{P1.workspace}/grid"]),
    wire.Changed(host_scope(HOST), 11, [], [f"workspace/atlas/{P0.workspace}"]),
    wire.Leave(playground_scope("atlas")),
    wire.Execute("abc", None, "", ["true"], False, 24, 80, {}),
]
SEEDS: list[Json] = [json.loads(wire.encode(message)) for message in (*VIEW, *VIEW, *MORE)]
MESSAGE = garbled(edited(SEEDS, most=6).map(as_json))
HONEST_REVISION = 9
HONEST = [wire.encode(message).encode() for message in VIEW]


@st.composite
def _connection(draw: st.DrawFn) -> list[bytes]:
    """A proper view with some of it changed, left out, said twice or in another order; or anything."""
    said = list(HONEST) if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(said)))
        match draw(st.sampled_from(("put", "put", "drop", "swap", "twice"))):
            case "put":
                said.insert(at, draw(MESSAGE))
            case "drop" if at < len(said):
                del said[at]
            case "swap" if at < len(said):
                said.append(said.pop(at))
            case "twice" if at < len(said):
                said.append(said[at])
            case _:
                pass
    return said


CONNECTIONS: st.SearchStrategy[list[list[bytes]]] = st.lists(_connection(), min_size=1, max_size=3)


class Scripted:
    """Connections that say one script each, and the last one for ever nothing more."""

    def __init__(self, scripts: Sequence[Sequence[bytes]]) -> None:
        self._scripts: Iterator[Sequence[bytes]] = iter(scripts)
        self.left = len(scripts)

    def __call__(self, *_: object, **__: object) -> Scripted:
        return self

    async def __aenter__(self) -> Scripted:
        self._script = next(self._scripts, None)
        if self._script is None:
            await asyncio.Event().wait()
        self.left -= 1
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, text: str) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[str]:
        for raw in self._script or ():
            await asyncio.sleep(0)
            yield raw.decode("utf-8", "replace")
        if not self.left:
            await asyncio.Event().wait()
        await asyncio.sleep(0.02)  # so that a pass begins with what was said


class DialledLink(FakeLink):
    """The real link dials; what the agent says is kept by the double."""

    dialled: Link
    applied = 0

    async def run(self) -> None:
        await self.dialled.run()

    async def say(self, message: wire.FromAgent) -> bool:
        wire.encode(message)  # a real connection would
        if isinstance(message, wire.Report):
            self.applied = next((o.applied for o in message.observed if isinstance(o, ObservedHost)), self.applied)
        return await super().say(message)


async def _hello() -> wire.Hello:
    drivers = [Driver(name="netns", move="same-kernel")]
    return wire.Hello(HOST, wire.PROTOCOL, "1", "192.0.2.11", 1500, drivers, 1.0, 1024)


def check_connections(scripts: Sequence[Sequence[bytes]]) -> None:
    """An agent that dials each of these, one after the other, and then an honest one."""

    async def executed(*_: object) -> None:
        """Commands are not run here: what they may be is for whoever orders them."""

    scripted = Scripted([*scripts, HONEST])
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(link_module, "connect", scripted),
        patch.object(link_module, "RETRY_MAX_S", 0.01),
        patch.object(agent_module, "execute", executed),
        patch.object(agent_module, "PERIOD_S", 0.2),
        patch.object(agent_module, "RETRY_S", 0.05),
        bounded(),
    ):
        asyncio.run(_check(Path(folder)))


async def _check(folder: Path) -> None:
    host = Host(HOST, Machine(), folder)
    link = DialledLink()
    link.dialled = Link(["http://x:1"], HOST, "t", None, _hello, host.agent.said, host.agent.connection_changed)
    host.link = host.agent._link = link  # type: ignore[assignment]
    running = asyncio.create_task(host.agent.run())
    try:
        async with asyncio.timeout(10):
            while not (host.is_said("running") and host.forwards(P0.id) and set(link.ports) == {P0.id}):
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
            while link.applied != HONEST_REVISION:  # all else may have been so before the honest one spoke
                await asyncio.sleep(0.01)
        assert set(link.workspaces) == {P0.workspace}
        assert not link.problems, link.problems
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


CONTROLLERS = Target("controllers", CONNECTIONS, check_connections, steps_to_file, steps_from_file)
