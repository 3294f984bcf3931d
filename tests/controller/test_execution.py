"""Commands that the controller runs itself, beside an agent that answers nonsense."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from playground import wire
from playground.controller.events import EventLog
from playground.controller.execution import EXIT, STDOUT, Channel, Execution, NotPossible
from playground.controller.sessions import Session, Sessions
from playground.controller.world import World
from playground.records import AliveRecord, Driver, HostRecord, Record, encode, key_of
from playground.store.api import Put
from playground.store.memory import MemoryStore

NETNS = Driver("netns", "same-kernel", "kernel")


def finished(*frames: bytes) -> bytes:
    """What a command wrote, whose agent sent these frames."""

    async def finish() -> bytes:
        store = MemoryStore()
        world = World(store)
        execution = Execution(world, Sessions(store, world, EventLog(store, world), "internal", [], "lab"))
        channel = Channel()
        for frame in (*frames, None):
            channel.from_agent.put_nowait(frame)
        return (await execution.finish(channel, timeout_s=5)).stdout

    return asyncio.run(finish())


def test_frames_of_no_known_channel_are_passed_over() -> None:
    assert finished(b"", b"\xff", b"\x09what", bytes([STDOUT]) + b"said", bytes([EXIT]) + b'{"code": 0}') == b"said"


@pytest.mark.parametrize("end", [b"", b"{", b"{}", b"[]", b'{"code": "x"}', b'{"code": []}', b"\xff", b"[" * 100_000])
def test_an_end_that_is_not_understood_is_an_end(end: bytes) -> None:
    with pytest.raises(NotPossible):
        finished(bytes([EXIT]) + end)


@pytest.mark.parametrize(
    ("drivers", "is_alive", "said"),
    [
        ((), False, "has never connected; start its agent"),
        ((NETNS,), True, "not connected at the moment"),
        ((NETNS,), False, "host n1 is gone"),
    ],
)
def test_who_can_not_be_reached_is_told_as_it_is(
    drivers: tuple[Driver, ...], is_alive: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.controller.execution.RETURN_S", 0.05)

    async def ask() -> None:
        store = MemoryStore()
        world = World(store)
        records = [HostRecord(name="n1", site="lab", underlay="192.0.2.1", drivers=drivers)]
        await store.commit([], [Put(key_of(r), encode(r)) for r in records])
        if is_alive:
            alive = AliveRecord(host="n1", session="s")
            await store.commit([], [Put(key_of(alive), encode(alive))])
        await world.load()
        execution = Execution(world, Sessions(store, world, EventLog(store, world), "internal", [], "lab"))
        with pytest.raises(NotPossible, match=said):
            await execution.start(["true"], host="n1")

    asyncio.run(ask())


def test_an_agent_that_starts_anew_is_waited_for() -> None:
    async def ask() -> None:
        store = MemoryStore()
        world = World(store)
        records: list[Record] = [
            HostRecord(name="n1", site="lab", underlay="192.0.2.1", drivers=(NETNS,)),
            AliveRecord(host="n1", session="s"),
        ]
        await store.commit([], [Put(key_of(r), encode(r)) for r in records])
        await world.load()
        sessions = Sessions(store, world, EventLog(store, world), "internal", [], "lab")
        execution = Execution(world, sessions)
        orders: list[wire.Execute] = []

        class Agent:
            """Dials back at once."""

            async def send(self, text: str) -> None:
                order = wire.decode_from_controller(text)
                assert isinstance(order, wire.Execute)
                orders.append(order)
                channel = execution.waiting(order.id)
                assert channel is not None
                channel.dialled.set()

        started = asyncio.create_task(execution.start(["true"], host="n1"))
        await asyncio.sleep(0.1)
        assert not started.done()
        sessions.connected["n1"] = cast(Session, Agent())
        await started
        assert [order.argv for order in orders] == [["true"]]

    asyncio.run(ask())
