"""What an agent may say: of its own host and of what concerns it. Everything else is dropped, and harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import pytest

from playground import wire
from playground.controller import sessions as sessions_module
from playground.controller.events import EventLog
from playground.controller.sessions import Sessions
from playground.controller.world import World
from playground.records import (
    BindingRecord,
    HostRecord,
    ObservedHost,
    ObservedPort,
    ObservedWorkspace,
    PortRecord,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
    port_id,
    workspace_id,
)
from playground.store.api import Put
from playground.store.memory import MemoryStore

PORT, REMOVED = port_id("atlas", "w", "grid"), "0123456789ab"


def records() -> list[Record]:
    found: list[Record] = [
        HostRecord(name=name, site="lab", underlay=f"192.0.2.{number}", token_sha256="0" * 64)
        for number, name in enumerate(("mine", "other"), 1)
    ]
    id = workspace_id("atlas", "w")
    found.append(WorkspaceRecord(playground="atlas", name="w", id=id, driver="netns", ports=(PORT,), host="mine"))
    found.append(
        PortRecord(
            playground="atlas",
            workspace="w",
            network="grid",
            network_id="0" * 12,
            id=PORT,
            mac="02:00:00:00:00:01",
            addresses=("10.0.0.2",),
        )
    )
    found.append(BindingRecord(port=PORT, playground="atlas", workspace="w", active="mine", source="mine"))
    return found


def a_port(host: str, port: str = PORT, leased: Sequence[str] = ("10.0.0.2",)) -> ObservedPort:
    return ObservedPort(port=port, host=host, generation=1, programmed="forwarding", leased=tuple(leased))


def a_workspace(host: str, name: str = "w") -> ObservedWorkspace:
    return ObservedWorkspace(playground="atlas", workspace=name, host=host, generation=1, state="running")


def kept(host: str, *reports: wire.Report) -> set[str]:
    """Keys of what the store holds as observed, once an agent of `host` has said all this; `mine` spoke before."""

    async def told() -> set[str]:
        store = MemoryStore()
        world = World(store)
        await store.commit([], [Put(key_of(record), encode(record)) for record in records()])
        await store.commit([], [Put(key_of(a), encode(a)) for a in (a_port("mine"), a_workspace("mine"))])
        await world.load()
        following = asyncio.create_task(world.follow())
        sessions = Sessions(store, world, EventLog(store, world), "internal", [], "lab")
        hello = wire.Hello(
            host=host,
            protocol=wire.PROTOCOL,
            version="0",
            underlay=world.hosts[host].underlay,
            underlay_mtu=1500,
            drivers=[],
            cpus=1.0,
            memory_mib=1,
        )
        waiting = iter(reports)

        async def send(text: str) -> None:
            pass

        async def receive() -> wire.FromAgent:
            report = next(waiting, None)
            if report is None:
                raise EOFError
            return report

        with suppress(EOFError):
            await sessions.serve(hello, "0" * 64, send, receive)
        items, _ = await store.list("observed/")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()
        return {item.key for item in items}

    return asyncio.run(told())


def saying(*observed: wire.Observation, gone: Sequence[str] = (), whole: bool = False) -> wire.Report:
    return wire.Report(whole=whole, observed=list(observed), gone=list(gone))


BEFORE = {key_of(a_port("mine")), key_of(a_workspace("mine"))}


@pytest.mark.parametrize(
    "lie",
    [
        a_port("other"),
        a_port("mine"),
        a_workspace("other"),
        a_workspace("mine"),
        a_workspace("other", "w" * 64),
        a_workspace("other", "w/x"),
        ObservedHost(host="mine", version="0"),
        a_port("other", REMOVED, ["no address"]),
        a_port("other", REMOVED, ["fe80::1%eth0"]),
        a_port("other", "../../claim"),
        a_port("other", "A" * 12),
    ],
)
def test_a_host_is_not_believed_of_what_is_not_its_own(lie: wire.Observation) -> None:
    assert kept("other", saying(lie)) == BEFORE


def test_a_lease_of_what_is_no_address_is_dropped_with_its_report() -> None:
    first = saying(a_port("mine", leased=["10.0.0.2", "\x00"]), a_workspace("mine"))
    assert kept("mine", first) == BEFORE


def test_a_host_can_only_say_of_its_own_that_it_is_gone() -> None:
    others = [key_of(a_port("mine")), "claim/vni/4096", f"port/atlas/w/{PORT}", "observed/", "host/other"]
    assert kept("other", saying(gone=others), saying(whole=True)) == BEFORE
    assert kept("mine", saying(gone=[key_of(a_port("mine"))])) == {key_of(a_workspace("mine"))}


def test_what_is_said_and_said_to_be_gone_at_once_is_there() -> None:
    assert kept("mine", saying(a_port("mine", leased=[]), gone=[key_of(a_port("mine"))])) == BEFORE


def test_what_is_left_of_a_removed_port_is_believed() -> None:
    """Its address is given to nobody else until it is gone from there."""
    left = a_port("other", REMOVED)
    assert kept("other", saying(left)) == {*BEFORE, key_of(left)}


def test_no_host_fills_the_store_with_what_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "STRAYS", 4)
    names = [msgspec.structs.replace(a_workspace("other"), playground=f"p{n}") for n in range(3)]
    ports = [a_port("other", f"{n:012x}") for n in range(3)]
    expected = {key_of(told) for told in (*names, ports[0])}
    assert kept("other", saying(*names), saying(*ports), saying(*names, *ports)) == {*BEFORE, *expected}
    assert kept("other", saying(*names), saying(*ports[:1], gone=[key_of(names[0])]), saying(ports[1])) == {
        *BEFORE,
        *map(key_of, (names[1], names[2], ports[0], ports[1])),
    }
