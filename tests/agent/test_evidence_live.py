"""What is shown of policies that are really in force: two guests on a bridge, and every kind of evidence of them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from playground import wire
from playground.agent.evidence import Evidence, InForce
from playground.derive.policing import Tracked
from playground.questions import Checked, CheckPolicies, Counted, CountVerdicts, FollowVerdicts, Verdicts
from playground.spec import load_playground
from playground.spec.scene import scene
from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import compile_playground, policy_table
from policies.compile.ways import TABLE
from policies.kernel.enforcement import Enforcement
from policies.kernel.netlink import inside
from policies.resolve import resolve

T = TypeVar("T")
PLANE, A, B = "shown-plane", "shown-a", "shown-b"
ADDRESSES = {A: "10.0.0.2", B: "10.0.0.3"}
FILE = """
name: lab
networks: {grid: {subnets: [10.0.0.0/24]}}
workspaces:
  shown-a: {networks: [grid]}
  shown-b: {networks: [grid]}
policies:
  - {name: only-ssh, mode: log, subject: shown-b, ingress: [{from: shown-a, ports: [tcp/22]}]}
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture(scope="module")
def plane() -> Iterator[tuple[Path, Enforcement, InForce]]:
    """A data plane with both guests on a bridge, and the file's policies in force."""
    try:
        for name in (PLANE, A, B):
            ip("netns", "add", name)
        ip("-n", PLANE, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip("-n", PLANE, "link", "set", "br0", "up")
        for guest, address in ADDRESSES.items():
            ip("-n", guest, "link", "add", "eth0", "type", "veth", "peer", "name", guest, "netns", PLANE)
            ip("-n", guest, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", guest, "link", "set", "eth0", "up")
            ip("-n", PLANE, "link", "set", guest, "master", "br0", "up")
        path = Path("/run/netns") / PLANE
        compiled = compile_playground(
            resolve(scene(load_playground(FILE, "lab.yaml"))),
            "lab",
            "00000000000a",
            (PolicedNetwork("grid", "br0", 7, (), ("10.0.0.0/24",)),),
            tuple(PolicedEnd(name, "grid", (address,), is_local=True) for name, address in ADDRESSES.items()),
        )
        assert compiled is not None
        ruleset = {TABLE: policy_table([compiled])}
        enforcement = Enforcement(path)
        outcome = enforcement.converge(ruleset, compiled.bridges)
        assert (outcome.cause, outcome.refused, outcome.unpoliced) == ("", {}, frozenset())
        tracked = {name: Tracked(7, (address,)) for name, address in ADDRESSES.items()}
        yield path, enforcement, InForce(ruleset, compiled.bridges, compiled.judgements, tracked)
        enforcement.close()
    finally:
        for name in (A, B, PLANE):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def within(plane: tuple[Path, Enforcement, InForce], claim: Callable[[Evidence, Ask], Awaitable[None]]) -> None:
    async def hold() -> None:
        path, enforcement, in_force = plane
        answers = Ask()
        shown = Evidence(path, enforcement, lambda: in_force, answers.say)
        answers.shown = shown
        shown.listen()
        try:
            async with asyncio.timeout(20):
                await claim(shown, answers)
        finally:
            shown.close()

    asyncio.run(hold())


class Ask:
    """A controller that asks one question at a time."""

    shown: Evidence

    def __init__(self) -> None:
        self.answers: asyncio.Queue[wire.Answer] = asyncio.Queue()

    async def say(self, answer: wire.Answer) -> bool:
        self.answers.put_nowait(answer)
        return True

    async def next(self, kind: type[T]) -> T:
        answer = await self.answers.get()
        assert not answer.problem
        return msgspec.json.decode(answer.body, type=kind)


def connects(port: int) -> str:
    """What becomes of a connection from one guest to the other."""

    def dial() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.3)
            try:
                sock.connect((ADDRESSES[B], port))
            except ConnectionRefusedError:
                return "refused"
            except TimeoutError:
                return "nothing"
            return "connected"

    return inside(Path("/run/netns") / A, dial)


@pytest.mark.system
def test_what_passed_and_what_did_not_is_logged_and_counted(plane: tuple[Path, Enforcement, InForce]) -> None:
    async def claim(shown: Evidence, ask: Ask) -> None:
        assert await asyncio.to_thread(connects, 22) == "refused"  # by the other guest: nobody listens there
        assert await asyncio.to_thread(connects, 23) == "nothing"
        shown.asked(wire.Ask("log", FollowVerdicts(0)))
        seen: dict[int, tuple[bool, int, str, str]] = {}
        while len(seen) < 2:
            for row in (await ask.next(Verdicts)).rows:
                assert row.ports is not None and (row.playground, row.policies) == ("lab", ("only-ssh",))
                seen[row.ports[1]] = row.is_allowed, row.rule, row.source, row.destination
        ends = ADDRESSES[A], ADDRESSES[B]
        assert seen == {22: (True, 1, *ends), 23: (False, 0, *ends)}
        shown.enough(wire.Enough("log"))
        shown.asked(wire.Ask("count", CountVerdicts("lab")))
        rows = (await ask.next(Counted)).rows
        assert {(row.rule, row.is_allowed) for row in rows if row.packets} == {(1, True), (0, False)}
        assert all(row.bytes >= 40 * row.packets for row in rows)

    within(plane, claim)


@pytest.mark.system
def test_the_flow_that_passed_is_told_of_both_of_its_ports(plane: tuple[Path, Enforcement, InForce]) -> None:
    listener = inside(Path("/run/netns") / B, lambda: socket.create_server((ADDRESSES[B], 22)))

    async def claim(shown: Evidence, ask: Ask) -> None:
        assert await asyncio.to_thread(connects, 22) == "connected"
        told = await asyncio.to_thread(shown.flows, [A, B, "elsewhere"])
        assert {one.port for one in told.flows} == {A, B}
        for one in told.flows:
            ends = {(flow.original.source, flow.original.destination, flow.original.numbers[1]) for flow in one.flows}
            assert (ADDRESSES[A], ADDRESSES[B], 22) in ends
            assert all(flow.mark for flow in one.flows)

    with listener:
        within(plane, claim)


@pytest.mark.system
def test_a_rule_that_somebody_changed_is_told(plane: tuple[Path, Enforcement, InForce]) -> None:
    _, enforcement, in_force = plane

    async def claim(shown: Evidence, ask: Ask) -> None:
        shown.asked(wire.Ask("before", CheckPolicies()))
        assert await ask.next(Checked) == Checked([])
        ip("netns", "exec", PLANE, "nft", "insert", "rule", *TABLE, "pass", "accept")
        shown.asked(wire.Ask("after", CheckPolicies()))
        (difference, *_) = (await ask.next(Checked)).differences
        assert "chain pass: it has 3 rules, and should have 2" in difference

    within(plane, claim)
    enforcement.converge(in_force.ruleset, in_force.policed, is_doubted=True)
