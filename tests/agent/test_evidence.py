"""What a host shows of its policies: each verdict once, what was counted, and flows of its own ports only."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from playground import wire
from playground.agent import evidence
from playground.agent.evidence import Evidence, InForce
from playground.derive.policing import Tracked
from playground.questions import (
    Checked,
    CheckPolicies,
    Counted,
    CountVerdicts,
    Flows,
    FollowVerdicts,
    Mended,
    PortFlows,
    Question,
    TakeFlows,
    Taken,
    TellFlows,
    Verdicts,
)
from playground.spec import load_playground, scene
from policies.compile.judges import counter_name
from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import compile_playground
from policies.compile.tables import Ruleset, Table
from policies.flows import SEEN_REPLY, TCP, Flow, Tuple
from policies.kernel.conntrack import Conntrack
from policies.kernel.memory import MemoryEnforcement
from policies.kernel.netlink import inside
from policies.kernel.nft import NftError
from policies.model import Direction, Tier
from policies.prove import Claim
from policies.resolve import resolve
from policies.verdicts import Judgement, log_prefix

T = TypeVar("T")

JUDGED = Judgement("atlas", Tier.OWNER, ("p",), Direction.EGRESS, 1, False)
OTHERS = Judgement("beta", Tier.OWNER, ("p",), Direction.EGRESS, 1, False)
PORT, OWN = "0123456789ab", "10.0.0.1"


IN_FORCE = InForce(judgements={one.id: one for one in (JUDGED, OTHERS)}, tracked={PORT: Tracked(7, (OWN, "fd00::1"))})


class Rules(MemoryEnforcement):
    """A door to tables as they are told to be. fails: why they can't be read. news: what is in force after a look."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ["chain p lacks a rule"]
        self.fails = ""
        self.known = IN_FORCE
        self.news: list[InForce] = []
        self.looks = 0
        self.packets = {
            ("playground_policy", counter_name(JUDGED)): (3, 180),
            ("playground_policy", counter_name(OTHERS)): (1, 60),
            ("playground_policy", "of no rule any more"): (9, 9),
            ("playground_guard", counter_name(JUDGED)): (7, 7),
        }

    def differences(
        self, ruleset: Ruleset, policed: frozenset[str] = frozenset(), claims: Sequence[tuple[Table, Claim]] = ()
    ) -> list[str]:
        self.looks += 1
        if self.fails:
            raise NftError(self.fails)
        if self.news:
            self.known = self.news.pop()
        return self.found


class Said:
    """What the controller hears; not connected once `is_lost`."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[wire.Answer] = asyncio.Queue()
        self.is_lost = False

    async def __call__(self, answer: wire.Answer) -> bool:
        self.answers.put_nowait(answer)
        return not self.is_lost

    async def next(self, kind: type[T]) -> T:
        async with asyncio.timeout(10):
            answer = await self.answers.get()
        assert not answer.problem
        return msgspec.json.decode(answer.body, type=kind)


def within(claim: Callable[[Evidence, Said, Rules], Awaitable[None]], namespace: Path = Path("/nowhere")) -> None:
    async def hold() -> None:
        rules, said = Rules(), Said()
        shown = Evidence(namespace, rules, lambda: rules.known, said)
        try:
            await claim(shown, said, rules)
        finally:
            shown.close()
            rules.close()

    asyncio.run(hold())


def answered(question: Question, kind: type[T], namespace: Path = Path("/nowhere")) -> T:
    found: list[T] = []

    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        shown.asked(wire.Ask("q", question))
        found.append(await said.next(kind))

    within(claim, namespace)
    return found[0]


def make(name: str) -> Path:
    subprocess.run(["ip", "netns", "add", name], check=True)
    rules = f"""
        table inet t {{
          chain c {{
            type filter hook input priority 0
            ct state invalid drop
            udp dport 5000 log prefix "{log_prefix(JUDGED.id)}" group 1
            udp dport 5001 log prefix "somebody else's" group 1
          }}
        }}
        """
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=rules, text=True, check=True)
    return Path("/run/netns") / name


@pytest.fixture
def namespace() -> Iterator[Path]:
    try:
        yield make("evidence")
    finally:
        subprocess.run(["ip", "netns", "delete", "evidence"], check=True)


def send(namespace: Path, port: int, count: int = 1) -> None:
    with inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for _ in range(count):
            sock.sendto(b"x", ("127.0.0.1", port))


def test_what_the_kernel_should_hold_and_does_not_is_told() -> None:
    assert answered(CheckPolicies(), Checked) == Checked(["chain p lacks a rule"])


def test_whom_a_chain_judges_and_what_a_counter_counts_is_told_with_it() -> None:
    ends = tuple(PolicedEnd(name, "grid", (f"10.0.0.{number}",), True) for number, name in enumerate(("a", "b"), 1))
    spec = load_playground(
        "name: lab\nnetworks: {grid: {subnets: [10.0.0.0/24]}}\n"
        "workspaces: {a: {networks: grid}, b: {networks: grid}}\n"
        "policies: [{name: shut, subject: a, ingress: []}]\n",
        "lab.yaml",
    )
    compiled = compile_playground(resolve(scene(spec)), "lab", "a" * 12, (PolicedNetwork("grid", "br1", 5),), ends)
    assert compiled is not None
    chains = sorted(name for part in compiled.parts.values() for name in part.chains)
    [counter] = sorted(counter_name(one) for one in compiled.judgements.values())

    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        rules.known = InForce(compiled=(compiled,))
        rules.found = [*(f"chain {name} is missing" for name in chains), f"counter {counter} should not be there"]
        shown.asked(wire.Ask("q", CheckPolicies()))
        told = [text.partition("(")[2] for text in (await said.next(Checked)).differences]
        assert told == [
            "ingress of a) is missing",
            "playground lab) is missing",
            "policy shut, ingress: no rule allows it) should not be there",
        ]

    within(claim)


def test_what_was_put_back_is_told() -> None:
    async def hold() -> None:
        rules, said = Rules(), Said()
        rules.found = []
        mended = Mended(5.0, "counter x should not be there")
        shown = Evidence(Path("/nowhere"), rules, lambda: rules.known, said, lambda: [mended])
        shown.asked(wire.Ask("q", CheckPolicies()))
        assert await said.next(Checked) == Checked([], [mended])
        shown.close()
        rules.close()

    asyncio.run(hold())


def test_what_a_ports_guard_has_stopped_of_its_questions_is_told_of_that_port() -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        rules.packets |= {("playground_guard", f"questions_pg{PORT}"): (12, 900), ("other", "questions_pgb"): (5, 5)}
        assert await shown.stopped([PORT, "b"]) == {PORT: 12}

    within(claim)


def test_what_hinders_a_look_is_told() -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        rules.fails = "no such table"
        shown.asked(wire.Ask("q", CheckPolicies()))
        assert (await said.answers.get()).problem == "no such table"

    within(claim)


def test_of_many_differences_some_are_told_and_how_many_more() -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        rules.found = [str(number) for number in range(evidence.TOLD + 7)]
        shown.asked(wire.Ask("q", CheckPolicies()))
        assert (await said.next(Checked)).differences[-2:] == [str(evidence.TOLD - 1), "and 7 more"]

    within(claim)


def test_what_changed_while_it_was_read_is_read_again() -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        rules.news = [InForce()]
        shown.asked(wire.Ask("q", CheckPolicies()))
        await said.next(Checked)
        assert rules.looks == 2

    within(claim)


def test_counts_are_those_of_the_playground_that_was_asked_for() -> None:
    counted = answered(CountVerdicts("atlas"), Counted)
    assert [(row.policies, row.rule, row.packets, row.bytes) for row in counted.rows] == [(("p",), 1, 3, 180)]


@pytest.mark.system
def test_who_follows_is_told_what_was_kept_and_then_what_comes(namespace: Path) -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        shown.listen()
        send(namespace, 5001)
        send(namespace, 5000)
        shown.asked(wire.Ask("q", FollowVerdicts(0)))
        first = await said.next(Verdicts)
        if not first.rows:  # nothing was heard yet when that was said
            first = await said.next(Verdicts)
        (kept,) = first.rows
        assert (kept.playground, kept.policies, kept.is_allowed) == ("atlas", ("p",), False)
        assert (kept.protocol, kept.destination) == (17, "127.0.0.1")
        send(namespace, 5000)
        (news,) = (await said.next(Verdicts)).rows
        assert news.number > kept.number
        shown.asked(wire.Ask("later", FollowVerdicts(kept.number)))
        assert [row.number for row in (await said.next(Verdicts)).rows] == [news.number]

    within(claim, namespace)


@pytest.mark.system
def test_a_namespace_that_takes_the_place_of_another_is_heard(namespace: Path) -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        shown.listen()
        subprocess.run(["ip", "netns", "delete", namespace.name], check=True)
        shown.listen()
        make(namespace.name)
        shown.listen()
        send(namespace, 5000)
        shown.asked(wire.Ask("q", FollowVerdicts(0)))
        while not (await said.next(Verdicts)).rows:
            continue

    within(claim, namespace)


@pytest.mark.system
def test_only_so_many_verdicts_are_kept(namespace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "KEPT", 10)

    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        shown.listen()
        send(namespace, 5000, 50)
        async with asyncio.timeout(10):
            while len(shown._kept) < 10:
                await asyncio.sleep(0.01)
        shown.asked(wire.Ask("q", FollowVerdicts(0)))
        assert len((await said.next(Verdicts)).rows) == 10

    within(claim, namespace)


@pytest.mark.parametrize("how", ["enough", "forget", "lost"])
def test_what_nobody_follows_is_said_no_more(how: str) -> None:
    async def claim(shown: Evidence, said: Said, rules: Rules) -> None:
        said.is_lost = how == "lost"
        shown.asked(wire.Ask("q", FollowVerdicts(0)))
        await said.next(Verdicts)
        if how == "enough":
            shown.enough(wire.Enough("q"))
        elif how == "forget":
            shown.forget()
        async with asyncio.timeout(5):
            while shown._answering:
                await asyncio.sleep(0.01)

    within(claim)


# flows


def a_flow(source: str = OWN, destination: str = "10.0.0.2", zone: int = 7, **other: int) -> Flow:
    there, back = Tuple(source, destination, TCP, (40000, 22)), Tuple(destination, source, TCP, (22, 40000))
    return Flow(there, back, zone=zone, timeout_s=300, state=3, **{"status": SEEN_REPLY, **other})


def put(namespace: Path, *flows: Flow) -> None:
    door = Conntrack(namespace)
    assert door.put(flows) == []
    door.close()


def held(namespace: Path) -> set[tuple[int, Tuple]]:
    door = Conntrack(namespace)
    try:
        return {(flow.zone, flow.original) for flow in door.flows()}
    finally:
        door.close()


@pytest.mark.system
def test_the_flows_of_a_port_are_told_and_no_others(namespace: Path) -> None:
    mine, others = a_flow(), (a_flow("10.0.0.3"), a_flow(zone=8))
    put(namespace, mine, *others)
    told = answered(TellFlows([PORT, "of another host"]), Flows, namespace)
    assert [(one.port, [flow.original for flow in one.flows]) for one in told.flows] == [(PORT, [mine.original])]


@pytest.mark.system
def test_of_too_many_flows_those_that_were_answered_go(namespace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_FLOWS", 2)
    put(namespace, *(a_flow(destination=f"10.0.1.{number}", status=0) for number in range(1, 4)), a_flow())
    told = answered(TellFlows([PORT]), Flows, namespace)
    assert told.left == 2
    assert told.flows[0].flows[0].original == a_flow().original


@pytest.mark.system
def test_flows_that_come_are_of_this_hosts_zone_and_of_their_port(namespace: Path) -> None:
    mine, strange = a_flow(zone=99), a_flow("10.0.0.3", zone=99)
    taken = answered(
        TakeFlows([PortFlows(PORT, [mine, strange]), PortFlows("of another host", [mine])]), Taken, namespace
    )
    assert (taken.taken, taken.refused, taken.cause) == (1, 1, "they are none of their port's")
    assert held(namespace) == {(7, mine.original)}


@pytest.mark.system
def test_what_is_no_flow_is_refused_and_the_rest_is_taken(namespace: Path) -> None:
    mine = a_flow()
    nonsense = [
        a_flow(destination="nonsense"),
        a_flow(destination="fd00::2"),
        Flow(Tuple(OWN, "10.0.0.9", TCP), mine.reply, status=1 << 40, timeout_s=-1, mark=-1, state=999),
    ]
    taken = answered(TakeFlows([PortFlows(PORT, [*nonsense, mine])]), Taken, namespace)
    assert (taken.taken, taken.refused) == (1, 3)
    assert held(namespace) == {(7, mine.original)}
