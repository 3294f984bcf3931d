"""Questions to agents, and what people are told of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from playground import wire
from playground.controller import carrying, evidence
from playground.controller.asking import WAITING, Asking
from playground.controller.carrying import Carrying
from playground.controller.events import EventLog
from playground.controller.evidence import Evidence
from playground.controller.execution import NotPossible
from playground.controller.sessions import Session, Sessions
from playground.controller.shown import Shown
from playground.controller.world import World
from playground.questions import (
    Checked,
    CheckPolicies,
    Count,
    Counted,
    Flows,
    FollowVerdicts,
    Mended,
    PortFlows,
    Question,
    TakeFlows,
    Taken,
    TellFlows,
    Verdict,
    Verdicts,
)
from playground.records import (
    BindingRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    PolicyRecord,
    PortRecord,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.store.api import LeaseId, Put
from playground.store.memory import MemoryStore
from policies.flows import Flow, Tuple

Answers = Callable[[Question], list[wire.Answer]]


def an_answer(body: object, is_last: bool = True) -> wire.Answer:
    return wire.Answer("", msgspec.Raw(msgspec.json.encode(body)), is_last)


class Agents:
    """Hosts that answer as they are told. enough: ids that nobody wants more of."""

    def __init__(self) -> None:
        store = MemoryStore()
        self.store = store
        self.world = World(store)
        self.events = EventLog(store, self.world)
        self.sessions = Sessions(store, self.world, self.events, "internal", [], "lab")
        self.asking = Asking(self.world, self.sessions)
        self.evidence = Evidence(self.world, self.sessions, self.asking)
        self.questions: list[Question] = []
        self.enough: list[str] = []

    def connect(self, host: str, answers: Answers) -> Session:
        async def send(text: str) -> None:
            said = wire.decode_from_controller(text)
            if isinstance(said, wire.Enough):
                self.enough.append(said.id)
            elif isinstance(said, wire.Ask):
                self.questions.append(said.question)
                for answer in answers(said.question):
                    session.answered(msgspec.structs.replace(answer, id=said.id))

        session = Session(host, host, "a", "", send, LeaseId("l"), 0.0, Shown(host))
        self.sessions.connected[host] = session
        return session

    def lose(self, session: Session) -> None:
        del self.sessions.connected[session.host]
        session.end_answers()

    def told(self) -> list[str]:
        """Texts of events."""
        return [event.text for event in self.events._pending]

    async def put(self, *records: Any) -> None:
        await self.store.commit([], [Put(key_of(record), encode(record)) for record in records])
        await self.world.load()


@asynccontextmanager
async def agents() -> AsyncIterator[Agents]:
    made = Agents()
    hosts = [HostRecord(name=f"n{number}", site="lab", underlay=f"192.0.2.{number}") for number in (1, 2)]
    ports = [
        PortRecord(
            playground="atlas", workspace=name, network="grid", network_id="00000000000a", id=f"00000000000{number}",
            mac=f"02:00:00:00:00:0{number}", addresses=(f"10.20.0.{number}",), index=0,
        )
        for number, name in ((1, "head"), (2, "worker-0"))
    ]  # fmt: skip
    network = NetworkRecord(
        playground="atlas",
        name="grid",
        id="00000000000a",
        vni=1,
        mtu=1450,
        subnets=("10.20.0.0/24",),
        gateways=("10.20.0.254",),
    )
    bindings = [
        BindingRecord(
            port=port.id, playground="atlas", workspace=port.workspace, generation=1, phase="bound",
            active=host.name, source=host.name, target=None,
        )
        for port, host in zip(ports, hosts, strict=True)
    ]  # fmt: skip
    head = WorkspaceRecord(playground="atlas", name="head", id="h", driver="netns", ports=(ports[0].id,), host="n1")
    await made.put(*hosts, *ports, network, head, *bindings)
    try:
        yield made
    finally:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await made.store.close()


def within(claim: Callable[[Agents], Awaitable[None]]) -> None:
    async def hold() -> None:
        async with asyncio.timeout(10), agents() as made:
            await claim(made)

    asyncio.run(hold())


def a_verdict(number: int = 1, **changes: Any) -> Verdict:
    made = Verdict(
        number=number,
        utc_s=float(number),
        playground="atlas",
        tier="owner",
        policies=("p",),
        direction="egress",
        rule=1,
        is_allowed=False,
        is_staged=False,
        protocol=6,
        source="10.20.0.2",
        destination="10.20.0.1",
        ports=(40000, 22),
        icmp_type=None,
    )
    return msgspec.structs.replace(made, **changes)


# questions


def test_a_host_that_is_not_connected_is_told_of_as_it_is() -> None:
    async def claim(made: Agents) -> None:
        with pytest.raises(NotPossible, match="n1 has never connected"):
            await made.asking.ask("n1", CheckPolicies(), Checked)

    within(claim)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (wire.Answer("", msgspec.Raw(b"null"), problem="no such table"), "n1: no such table"),
        (an_answer({"differences": 3}), "words that we don't know"),
        (wire.Answer("", msgspec.Raw(b"[" * 10000)), "words that we don't know"),
    ],
)
def test_what_hinders_an_answer_is_said(answer: wire.Answer, said: str) -> None:
    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [answer])
        with pytest.raises(NotPossible, match=said):
            await made.asking.ask("n1", CheckPolicies(), Checked)

    within(claim)


def test_a_host_that_is_silent_is_not_waited_for_for_ever_and_told_so() -> None:
    async def claim(made: Agents) -> None:
        session = made.connect("n1", lambda question: [])
        with pytest.raises(NotPossible, match="did not answer within"):
            await made.asking.ask("n1", CheckPolicies(), Checked, 0.01)
        assert len(made.enough) == 1
        assert not session.asked

    within(claim)


def test_whoever_waits_for_a_host_hears_that_its_connection_ended() -> None:
    async def claim(made: Agents) -> None:
        session = made.connect("n1", lambda question: [])
        asked = asyncio.create_task(made.asking.ask("n1", CheckPolicies(), Checked))
        while not session.asked:
            await asyncio.sleep(0)
        made.lose(session)
        with pytest.raises(NotPossible, match="ended before it answered"):
            await asked

    within(claim)


def test_answers_that_nobody_reads_take_no_more_room_and_none_that_nobody_asked_for() -> None:
    async def claim(made: Agents) -> None:
        many = [an_answer(Verdicts([a_verdict(number)]), is_last=False) for number in range(WAITING + 10)]
        session = made.connect("n1", lambda question: many)
        session.answered(an_answer(Verdicts([])))
        async for first in made.asking.follow("n1", FollowVerdicts(0), Verdicts):
            assert first.rows[0].number == 10
            break

    within(claim)


# flows


FLOW = Flow(Tuple("10.20.0.1", "10.20.0.2", 6, (1, 22)), Tuple("10.20.0.2", "10.20.0.1", 6, (22, 1)))
MOVE = MigrationRecord(
    playground="atlas", workspace="head", source="n1", target="n2", state="prepared", generation=1, started_utc_s=0.0,
    deadline_utc_s=60.0,
)  # fmt: skip


def test_what_the_source_tells_the_target_takes() -> None:
    async def claim(made: Agents) -> None:
        flows = [PortFlows("000000000001", [FLOW])]
        made.connect("n1", lambda question: [an_answer(Flows(flows))])
        made.connect("n2", lambda question: [an_answer(Taken(1))])
        await Carrying(made.world, made.asking, made.events).carry(MOVE)
        assert made.questions == [TellFlows(["000000000001"]), TakeFlows(flows)]
        assert made.told() == []

    within(claim)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ([], [], "n1 did not answer within"),
        ([an_answer(Flows([PortFlows("000000000001", [FLOW])], left=2))], [an_answer(Taken(0, 1, "full"))], "3 conn"),
        ([an_answer(Flows([PortFlows("000000000001", [FLOW])]))], [], "n2 did not answer within"),
    ],
)
def test_what_did_not_go_along_is_said_and_not_raised(
    source: list[wire.Answer], target: list[wire.Answer], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "CARRY_S", 0.01)

    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: source)
        made.connect("n2", lambda question: target)
        await Carrying(made.world, made.asking, made.events).carry(MOVE)
        (text,) = made.told()
        assert said in text

    within(claim)


def test_flows_go_along_only_where_somebody_polices() -> None:
    async def claim(made: Agents) -> None:
        carrying = Carrying(made.world, made.asking, made.events)
        assert not carrying.is_needed(MOVE)
        made.world.site_policies["p"] = PolicyRecord(playground="@site", name="p", body=None)  # type: ignore[arg-type]
        assert carrying.is_needed(MOVE)

    within(claim)


# what people are told


def test_counts_are_sums_over_hosts_and_tell_of_those_that_are_missing() -> None:
    row = Count("owner", ("p",), "egress", 1, True, False, 3, 180)

    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Counted([row]))])
        made.connect("n2", lambda question: [an_answer(Counted([row, msgspec.structs.replace(row, rule=2)]))])
        found = await made.evidence.counters("atlas")
        assert [(one["rule"], one["packets"], one["bytes"]) for one in found["counters"]] == [(1, 6, 360), (2, 3, 180)]
        assert found["unobserved"] == []
        made.lose(made.sessions.connected["n2"])
        found = await made.evidence.counters("atlas")
        assert [one["packets"] for one in found["counters"]] == [3]
        assert [one["host"] for one in found["unobserved"]] == ["n2"]

    within(claim)


def test_a_difference_is_told_with_its_host() -> None:
    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Checked([]))])
        mended = [Mended(5.0, "chain from_pg000000000001 is missing"), Mended(4.0, "bridge br00000000000a is missing")]
        made.connect("n2", lambda question: [an_answer(Checked(["chain p lacks a rule"], mended))])
        expected = {
            "hosts": 2,
            "differences": [{"host": "n2", "difference": "chain p lacks a rule"}],
            "mended": [
                {"host": "n2", "at": 4.0, "difference": "bridge br00000000000a (network atlas/grid) is missing"},
                {"host": "n2", "at": 5.0, "difference": "chain from_pg000000000001 (head on grid) is missing"},
            ],
            "unobserved": [],
        }
        assert await made.evidence.verify(None) == await made.evidence.verify("atlas") == expected

    within(claim)


def test_verdicts_of_all_hosts_are_told_by_time_and_by_name() -> None:
    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Verdicts([a_verdict(3)]), is_last=False)])
        outside = a_verdict(2, source="203.0.113.9", destination="10.20.0.254", protocol=17, ports=(1, 53))
        made.connect("n2", lambda question: [an_answer(Verdicts([outside], lost=4), is_last=False)])
        found = await made.evidence.verdicts("atlas", "", 0.0)
        assert [(row["host"], row["from"], row["to"], row["port"]) for row in found["verdicts"]] == [
            ("n2", "203.0.113.9", "@services", "udp/53"),
            ("n1", "worker-0", "head", "tcp/22"),
        ]
        assert found["lost"] == 4
        assert found["verdicts"][1] == {
            "at": 3.0,
            "playground": "atlas",
            "from": "worker-0",
            "to": "head",
            "from_address": "10.20.0.2",
            "to_address": "10.20.0.1",
            "port": "tcp/22",
            "tier": "owner",
            "policies": ["p"],
            "direction": "egress",
            "rule": 1,
            "verdict": "deny",
            "staged": False,
            "host": "n1",
        }

    within(claim)


@pytest.mark.parametrize(
    ("changes", "port"),
    [
        ({"protocol": 1, "ports": None, "icmp_type": 8}, "icmp/echo"),
        ({"protocol": 58, "ports": None, "icmp_type": 128}, "icmp/echo"),
        ({"protocol": 58, "ports": None, "icmp_type": 143}, "icmpv6/143"),
        ({"protocol": 1, "ports": None}, "icmp"),
        ({"protocol": 47, "ports": None}, "ip/47"),
        ({"protocol": 132}, "sctp/22"),
        ({"ports": None}, "tcp"),
    ],
)
def test_a_port_is_told_as_files_write_it(changes: dict[str, Any], port: str) -> None:
    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Verdicts([a_verdict(**changes)]), is_last=False)])
        found = await made.evidence.verdicts(None, "", 0.0)
        assert [row["port"] for row in found["verdicts"]] == [port]

    within(claim)


def test_who_follows_is_told_what_comes_and_each_once() -> None:
    async def claim(made: Agents) -> None:
        session = made.connect("n1", lambda question: [an_answer(Verdicts([a_verdict(1)]), is_last=False)])
        first = await made.evidence.verdicts("atlas", "", 0.0)
        waiting = asyncio.create_task(made.evidence.verdicts("atlas", first["last"], 5.0))
        await asyncio.sleep(0)
        (id,) = session.asked
        session.answered(msgspec.structs.replace(an_answer(Verdicts([a_verdict(2)]), is_last=False), id=id))
        assert [row["at"] for row in (await waiting)["verdicts"]] == [2.0]
        assert (await made.evidence.verdicts("beta", "", 0.0))["verdicts"] == []

    within(claim)


def test_a_host_that_comes_back_is_asked_for_what_was_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LOOK_S", 0.01)

    async def claim(made: Agents) -> None:
        session = made.connect("n1", lambda question: [an_answer(Verdicts([a_verdict(7)]), is_last=False)])
        first = await made.evidence.verdicts("atlas", "", 0.0)
        made.lose(session)
        made.connect("n1", lambda question: [an_answer(Verdicts([a_verdict(8)]), is_last=False)])
        after = await made.evidence.verdicts("atlas", first["last"], 5.0)
        assert [row["at"] for row in after["verdicts"]] == [8.0]
        assert made.questions == [FollowVerdicts(0), FollowVerdicts(7)]

    within(claim)


def test_another_controller_goes_on_where_the_first_was_and_says_what_is_lost() -> None:
    rows = [a_verdict(number) for number in range(103, 107)]

    async def first(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Verdicts(rows[:2], begun=102), is_last=False)])
        made.connect("n2", lambda question: [an_answer(Verdicts([], begun=50), is_last=False)])
        marks.append((await made.evidence.verdicts("atlas", "", 0.0))["last"])

    async def second(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Verdicts(rows, begun=102), is_last=False)])
        made.connect("n2", lambda question: [an_answer(Verdicts([a_verdict(60)], begun=50), is_last=False)])
        made.connect("n3", lambda question: [an_answer(Verdicts([a_verdict(9)], begun=0), is_last=False)])
        found = await made.evidence.verdicts("atlas", marks[0], 0.0)
        assert [(row["host"], row["at"]) for row in found["verdicts"]] == [
            *(("n3", 9.0), ("n2", 60.0), ("n1", 105.0), ("n1", 106.0))
        ]
        assert found["missed"] == [{"host": "n2", "verdicts": 9, "restarted": False}]
        again = await made.evidence.verdicts("atlas", found["last"], 0.0)
        assert (again["verdicts"], again["missed"]) == ([], [])

    marks: list[str] = []
    within(first)
    within(second)


def test_an_agent_that_was_started_again_is_told_of_once() -> None:
    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Verdicts([a_verdict(203)], begun=200), is_last=False)])
        found = await made.evidence.verdicts("atlas", "n1:107", 0.0)
        assert found["missed"] == [{"host": "n1", "verdicts": 2, "restarted": True}]
        assert (await made.evidence.verdicts("atlas", found["last"], 0.0))["missed"] == []

    within(claim)


def test_when_nobody_asks_any_more_hosts_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LOOK_S", 0.01)
    monkeypatch.setattr(evidence, "IDLE_S", 0.02)

    async def claim(made: Agents) -> None:
        made.connect("n1", lambda question: [an_answer(Verdicts([]), is_last=False)])
        await made.evidence.verdicts("atlas", "", 0.0)
        while not made.enough:
            await asyncio.sleep(0.01)

    within(claim)
