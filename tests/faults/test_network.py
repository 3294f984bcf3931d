"""Whatever the network does to the connection of agent and controller, both know the same in the end.

In one process, over loopback: the production controller behind its server, the production link and agent, doubles of
kernel, guests and responder.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxy import Proxy

from overlay.state import bridge_device
from playground import wire
from playground.agent import link as link_module
from playground.agent.link import Link
from playground.api.app import make_app
from playground.api.serving import Serving, tcp_socket
from playground.controller import sessions as sessions_module
from playground.controller.controller import Controller
from playground.controller.hosts import admit_hosts
from playground.derive import Derivation, Setting
from playground.derive.rules import POLICY
from playground.records import Driver, key_of
from playground.spec import load_site
from playground.store.memory import MemoryStore
from playground.view import View, playground_scope
from playground.workspaces.drivers.memory import Machine
from policies.compile.playground import policy_table
from tests.agent.test_agent import Host, running
from tests.derive.test_derive import UNDERLAY

PEER = "127.0.0.1"
SITE = load_site("name: lab\nhosts: {n1: {underlay: 192.0.2.11}}\n", "site.yaml")


def a_file(members: str) -> str:
    """Each member is reached by the first alone."""
    lines = [f"  {name}: {{networks: [grid], host: n1}}" for name in members]
    rules = [f"  - {{name: of-{name}, subject: {name}, ingress: [{{from: {members[0]}}}]}}" for name in members]
    head = ["name: atlas", "networks: {grid: {subnets: [10.0.0.0/24]}}", "workspaces:"]
    return "\n".join([*head, *lines, "policies:", *rules, ""])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noticed by the clock is noticed soon."""
    dialling = link_module.connect
    monkeypatch.setattr(wire, "BEAT_S", 0.2)
    monkeypatch.setattr(sessions_module, "LEASE_S", 1.0)
    monkeypatch.setattr(
        link_module,
        "connect",
        lambda url, **words: dialling(
            url, **(words | {"ping_interval": 0.2, "ping_timeout": 0.6, "open_timeout": 0.6})
        ),
    )


class Line:
    """A controller, a proxy before it, and one host whose agent dials the proxy."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.controller = Controller(self.store, SITE)
        self.host = Host("n1", Machine(), folder)
        self.reported: dict[str, wire.Observation] = {}

    async def up(self, members: str) -> None:
        await self.controller.up("a.yaml", a_file(members))

    def agree(self, members: str) -> bool:
        """The agent was shown what is, what it observed is what the store has, and all of that is as asked for."""
        agent, world = self.host.agent, self.controller.world
        observed = {k: v for k, (v, _) in world.items.items() if k.startswith("observed/") and k.endswith("/n1")}
        running = {o.workspace for o in self.reported.values() if getattr(o, "state", "") == "running"}
        return (
            "n1" in self.controller.sessions.connected
            and shown(agent._view) == {r.name for g in world.grids.values() for r in g.workspaces.values()}
            and observed == self.reported
            and running == set(members)
            and self.are_rules_in_force(members)
        )

    def are_rules_in_force(self, members: str) -> bool:
        """The kernel holds what a host without a past makes of the policies of this file."""
        agent = self.host.agent
        scope = agent._view.scopes.get(playground_scope("atlas"))
        setting = Setting("n1", UNDERLAY["n1"], "internal", arrived=agent._guests.arrived())
        policing = Derivation().derive(agent._view, setting).rules.policing
        wanted = policy_table([one.compiled for one in policing.values()])
        return (
            scope is not None
            and scope.policies.keys() == {f"of-{name}" for name in members}
            and self.host.rules.in_force[POLICY] == wanted
            and self.host.rules.policed == {bridge_device(id) for id in agent._derived.state.networks}
        )

    async def agreed(self, members: str, seconds: float = 12.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not self.agree(members):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            observed = {k: v for k, (v, _) in self.controller.world.items.items() if k.startswith("observed/")}
            raise AssertionError(
                f"view {shown(self.host.agent._view)}, said {self.reported}, stored {observed}, "
                f"connected {self.controller.sessions.connected.keys()}"
            ) from None


def shown(view: View) -> set[str]:
    return {workspace.name for workspace in view.workspaces("n1")}


@asynccontextmanager
async def a_line(folder: Path) -> AsyncIterator[tuple[Line, Proxy]]:
    line = Line(folder)
    controller, agent = line.controller, line.host.agent
    await controller.world.load()
    await admit_hosts(line.store, controller.world, SITE, {"n1": hashlib.sha256(b"t").hexdigest()})
    await controller.world.load()
    door = tcp_socket(f"{PEER}:0")
    serving = Serving(make_app(controller, None), door)
    tasks = [asyncio.create_task(controller.run()), asyncio.create_task(serving.run())]
    proxy = Proxy(door.getsockname())
    server = await proxy.listen(PEER, 0)
    port = server.sockets[0].getsockname()[1]

    async def hello() -> wire.Hello:
        drivers = [Driver("netns", "same-kernel", "here")]
        return wire.Hello("n1", wire.PROTOCOL, "1", UNDERLAY["n1"], 1500, drivers, 4.0, 4096, "one process")

    link = Link([f"http://{PEER}:{port}"], "n1", "t", None, hello, agent.said, agent.connection_changed)
    say = link.say

    async def said(message: wire.FromAgent) -> bool:
        """Remembers what the agent has said, as it is to be believed."""
        is_said = await say(message)
        if isinstance(message, wire.Report) and is_said:
            if message.whole:
                line.reported.clear()
            line.reported.update((key_of(o), o) for o in message.observed)
            for key in message.gone:
                line.reported.pop(key, None)
        return is_said

    link.say = said  # type: ignore[method-assign]
    agent._link = link
    try:
        async with running(line.host):
            yield line, proxy
    finally:
        serving.end()
        tasks[0].cancel()
        server.close()
        for passages in [*proxy.passages.values(), proxy.late]:
            for passage in list(passages):
                passage.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await line.store.close()


Fault = Callable[[Line, Proxy], Awaitable[None]]


async def broken(line: Line, proxy: Proxy) -> None:
    proxy.reset(PEER)
    await line.up("bc")


async def cut_in_a_report(line: Line, proxy: Proxy) -> None:
    proxy.rules[PEER].cut_after = 40
    await line.up("bc")


async def cut_in_a_view(line: Line, proxy: Proxy) -> None:
    """In the middle of what the controller shows: half of a change is no change."""
    proxy.rules[PEER].cut_back_after = 700
    await line.up("bc")


async def slow(line: Line, proxy: Proxy) -> None:
    proxy.rules[PEER].delay_s = 0.05
    await line.up("bc")
    await line.agreed("bc")


async def doubled(line: Line, proxy: Proxy) -> None:
    """Every byte that the agent says is heard twice."""
    proxy.rules[PEER].doubled = True
    proxy.reset(PEER)
    await line.up("bc")
    await asyncio.sleep(1.0)


async def dark(line: Line, proxy: Proxy) -> None:
    """Half-open: neither side is told anything. Both find out, and what was on its way arrives after all."""
    proxy.darken(PEER)
    await line.up("bc")
    async with asyncio.timeout(5):
        while "n1" in line.controller.world.alive or line.host.agent._connected:
            await asyncio.sleep(0.02)
    await proxy.heal(PEER)


async def late(line: Line, proxy: Proxy) -> None:
    """What was said by the old connection arrives when the new one has said newer things."""
    proxy.hold(PEER)
    await line.up("b")
    await asyncio.sleep(0.5)
    proxy.lose(PEER)
    await line.up("bc")
    await line.agreed("bc")
    proxy.release()
    await asyncio.sleep(0.3)


async def again_and_again(line: Line, proxy: Proxy) -> None:
    for members in ("b", "abc", "c", "bc"):
        proxy.reset(PEER)
        await line.up(members)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "fault",
    [broken, cut_in_a_report, cut_in_a_view, slow, doubled, dark, late, again_and_again],
    ids=lambda fault: fault.__name__,
)
def test_agent_and_controller_know_the_same_in_the_end(fault: Fault, tmp_path: Path) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30), a_line(tmp_path) as (line, proxy):
            await line.up("ab")
            await line.agreed("ab")
            await fault(line, proxy)
            await proxy.heal(PEER)
            await line.agreed("bc")

    asyncio.run(whole())


@pytest.mark.long
@pytest.mark.parametrize("back", [False, True], ids=["report", "view"])
def test_a_connection_may_break_at_any_byte(back: bool, tmp_path: Path) -> None:
    async def whole() -> None:
        async with a_line(tmp_path) as (line, proxy):
            for after in range(1, 1600, 23):
                await line.up("ab")
                await line.agreed("ab")
                setattr(proxy.rules[PEER], "cut_back_after" if back else "cut_after", after)
                await line.up("bc")
                await line.agreed("bc")

    asyncio.run(whole())


def test_of_two_agents_with_one_name_and_token_one_wins_and_both_are_told(tmp_path: Path) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), a_line(tmp_path) as (line, proxy):
            await line.up("ab")
            await line.agreed("ab")
            told: list[str] = []

            async def changed(connected: bool, cause: str) -> None:
                told.append("connected" if connected else cause)

            async def said(message: wire.FromController) -> None:
                return None

            async def hello() -> wire.Hello:
                return wire.Hello("n1", wire.PROTOCOL, "1", UNDERLAY["n1"], 1500, [], 4.0, 4096, "another process")

            host, port = proxy._to
            other = Link([f"http://{host}:{port}"], "n1", "t", None, hello, said, changed)
            dialling = asyncio.create_task(other.run())
            while not told:
                await asyncio.sleep(0.02)
            assert "another agent of this host is connected; end one of the two" in told[0]
            events = [e["kind"] for e in line.controller.events.after(0)]
            assert events.count("agent-refused") == 1
            await line.up("bc")
            await line.agreed("bc")
            assert "connected" not in told
            proxy.refuse(PEER)  # the first is gone: now the second may
            while "connected" not in told:
                await asyncio.sleep(0.02)
            dialling.cancel()

    asyncio.run(whole())
