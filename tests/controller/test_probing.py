"""Probes beside workspaces that can't be asked: what was not observed is said so, and is no mismatch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from playground.controller import probing as probing_module
from playground.controller.execution import Finished, NotPossible
from playground.controller.probing import Probing
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
    monkeypatch.setattr(probing_module, "AGAIN_S", 0.01)

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
    monkeypatch.setattr(probing_module, "BACK_S", 0.1)

    async def work() -> None:
        answer, record = await probed({"b": 1000})
        assert (answer["pairs"], answer["mismatches"]) == (4, [])
        assert answer["unobserved"] == [
            {"from": "b", "pairs": 2, "cause": "the agent of host n1 is not connected at the moment"}
        ]
        assert (record.pairs, record.mismatches, record.unobserved) == (4, 0, 2)

    run(work, monkeypatch)
