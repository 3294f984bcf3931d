"""Probes beside workspaces that can't be asked: what was not observed is said so, and is no mismatch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from playground.controller import knocking
from playground.controller.execution import Channel, Finished, NotPossible
from playground.controller.knocking import Knocking
from playground.controller.probing import Probing
from playground.controller.trying import Try
from playground.controller.world import World
from playground.records import NetworkRecord, PortRecord, ProbeRecord, Record, WorkspaceRecord, encode, key_of, port_id
from playground.store.api import Put
from playground.store.memory import MemoryStore

NAMES = ("a", "b", "c")


def records() -> list[Record]:
    found: list[Record] = [
        NetworkRecord(
            playground="lab", name="grid", id="0" * 12, vni=5000, subnets=("10.0.0.0/24",), gateways=(), mtu=1450
        )
    ]
    for number, name in enumerate(NAMES):
        port = port_id("lab", name, "grid")
        found.append(
            WorkspaceRecord(playground="lab", name=name, id=f"{number:012x}", driver="netns", ports=(port,), host="n1")
        )
        found.append(
            PortRecord(
                playground="lab",
                workspace=name,
                network="grid",
                network_id="0" * 12,
                id=port,
                mac=f"02:00:00:00:00:0{number}",
                addresses=(f"10.0.0.{number + 2}",),
            )
        )
    return found


class FakeExecution:
    """Commands that end as a prober does. away: how often a workspace still can't be asked."""

    def __init__(self, away: dict[str, int]) -> None:
        self.away = away

    async def run(self, argv: list[str], *, workspace: tuple[str, str], stdin: bytes, timeout_s: float) -> Finished:
        if self.away.get(workspace[1], 0) > 0:
            self.away[workspace[1]] -= 1
            raise NotPossible("the agent of host n1 is not connected at the moment")
        answers = [{"id": asked["id"], "reachable": True} for asked in json.loads(stdin)]
        return Finished(0, json.dumps(answers).encode(), b"")


async def probed(away: dict[str, int]) -> tuple[dict[str, Any], ProbeRecord]:
    store = MemoryStore()
    world = World(store)
    await store.commit([], [Put(key_of(r), encode(r)) for r in records()])
    await world.load()
    answer = await Probing(store, world, FakeExecution(away)).probe("lab")  # type: ignore[arg-type]
    await world.load()
    return answer, world.probes["lab"]


def run(work: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "AGAIN_S", 0.01)

    async def whole() -> None:
        async with asyncio.timeout(10):
            await work()

    asyncio.run(whole())


def test_a_workspace_whose_agent_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        answer, record = await probed({"b": 3})
        assert answer == {"pairs": 6, "mismatches": []}
        assert (record.pairs, record.mismatches, record.unobserved) == (6, 0, 0)

    run(work, monkeypatch)


def test_what_nobody_could_ask_is_not_observed_and_no_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "BACK_S", 0.1)

    async def work() -> None:
        answer, record = await probed({"b": 1000})
        assert (answer["pairs"], answer["mismatches"]) == (4, [])
        assert answer["unobserved"] == [
            {"from": "b", "pairs": 2, "cause": "the agent of host n1 is not connected at the moment"}
        ]
        assert (record.pairs, record.mismatches, record.unobserved) == (4, 0, 2)

    run(work, monkeypatch)


# knocking

GRANTED, DENIED, UDP = (
    Try("a", "b", "10.0.0.3", "tcp/22", is_allowed=True),
    Try("a", "b", "10.0.0.3", "tcp/23", is_allowed=False),
    Try("a", "b", "10.0.0.3", "udp/53", is_allowed=True),
)


class Knockers:
    """Commands of the knocking tool. said: of each port what the source says; seen: what the destination saw."""

    def __init__(self, said: dict[str, Any], seen: list[list[Any]], watches: bool = True) -> None:
        self.said, self.seen, self.watches = said, seen, watches
        self.asked_to_end = asyncio.Event()

    async def start(self, argv: list[str], *, workspace: tuple[str, str]) -> Channel:
        if not self.watches:
            raise NotPossible("the agent of host n1 is not connected at the moment")
        return Channel()

    async def finish(
        self, channel: Channel, stdin: bytes, timeout_s: float, on_stderr: Callable[[bytes], None]
    ) -> Finished:
        on_stderr(b"watching\n")
        await self.asked_to_end.wait()
        return Finished(0, json.dumps(self.seen).encode(), b"")

    async def signal(self, channel: Channel, name: str) -> None:
        self.asked_to_end.set()

    async def run(self, argv: list[str], *, workspace: tuple[str, str], stdin: bytes, timeout_s: float) -> Finished:
        rows = [{"id": one["id"], **self.said[one["port"]]} for one in json.loads(stdin)]
        return Finished(0, json.dumps(rows).encode(), b"")


def knocked(knockers: Knockers) -> dict[Try, bool | str]:
    async def work() -> dict[Try, bool | str]:
        async with asyncio.timeout(10):
            return await Knocking(knockers, asyncio.Semaphore(1)).knock("lab", [GRANTED, DENIED, UDP])  # type: ignore[arg-type]

    return asyncio.run(work())


SENT = {"sent": ["10.0.0.2", 40000], "answered": True}


def test_a_knock_has_passed_when_it_was_seen_and_answered() -> None:
    said = {"tcp/22": SENT, "tcp/23": SENT, "udp/53": {"sent": ["10.0.0.2", 40001], "answered": None}}
    seen = [[6, "10.0.0.2", 40000, "10.0.0.3", 22], [17, "10.0.0.2", 40001, "10.0.0.3", 53]]
    # 23 was answered by whoever refused it on the way: nobody saw it arrive
    assert knocked(Knockers(said, seen)) == {GRANTED: True, DENIED: False, UDP: True}


def test_a_knock_without_an_answer_or_that_could_not_go_out_has_not_passed() -> None:
    unsent = {"sent": None, "answered": None}
    said = {"tcp/22": SENT | {"answered": False}, "tcp/23": unsent, "udp/53": unsent}
    seen = [[6, "10.0.0.2", 40000, "10.0.0.3", 22]]
    assert set(knocked(Knockers(said, seen)).values()) == {False}


def test_who_can_not_watch_leaves_knocks_unobserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "BACK_S", 0.05)
    monkeypatch.setattr(knocking, "AGAIN_S", 0.01)
    said = dict.fromkeys(("tcp/22", "tcp/23", "udp/53"), SENT)
    found = knocked(Knockers(said, [], watches=False))
    assert {str(one) for one in found.values()} == {
        "b could not watch: the agent of host n1 is not connected at the moment"
    }
