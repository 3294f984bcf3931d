"""What hosts say of clients, put beside the records; and what is shown where they don't say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from dhcp.decide import LeaseKind
from dhcp.leases import Lease, State
from playground.controller.clients import ClientsAsked
from playground.controller.execution import NotPossible
from playground.controller.world import World
from playground.questions import Clients, TellClients
from playground.records import (
    AliveRecord,
    BindingRecord,
    HostRecord,
    NetworkRecord,
    ObservedPort,
    PlaygroundRecord,
    PortRecord,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.responder.protocol import Leased, PoolClient, PortTold
from playground.store.api import Put
from playground.store.memory import MemoryStore

ID = "000000000001"
RECORDS = (
    HostRecord(name="n1", site="lab", underlay="192.0.2.1"),
    AliveRecord(host="n1", session="s"),
    PlaygroundRecord(name="lab", file="lab.yaml", change="c"),
    NetworkRecord(
        playground="lab", name="grid", id="g", vni=1, mtu=1450, subnets=("10.0.0.0/24",), gateways=("10.0.0.1",)
    ),
    WorkspaceRecord(playground="lab", name="w", id="w", driver="netns", ports=(ID,), host="n1"),
    PortRecord(
        playground="lab", workspace="w", network="grid", network_id="g", id=ID, mac="02:00:00:00:00:01",
        addresses=("10.0.0.5",),
    ),
    BindingRecord(port=ID, playground="lab", workspace="w", active="n1", source="n1"),
    ObservedPort(port=ID, host="n1", generation=1, programmed="forwarding", leased=("10.0.0.5",)),
)  # fmt: skip


class FakeAsking:
    """One host's answer, or why there is none."""

    def __init__(self, answer: Clients | NotPossible) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Any]] = []

    async def ask(self, host: str, question: TellClients, kind: type, timeout_s: float) -> Clients:
        self.asked.append((host, question))
        if isinstance(self.answer, NotPossible):
            raise self.answer
        return self.answer


def asked(
    answer: Clients | NotPossible,
    work: Callable[[ClientsAsked], Awaitable[Any]],
    addresses: tuple[str, ...] = ("10.0.0.5",),
) -> Any:
    records = [
        msgspec.structs.replace(record, addresses=addresses) if isinstance(record, PortRecord) else record
        for record in RECORDS
    ]

    async def whole() -> Any:
        store = MemoryStore()
        await store.commit([], [Put(key_of(record), encode(record)) for record in records])
        world = World(store)
        await world.load()
        try:
            return await work(ClientsAsked(world, FakeAsking(answer)))  # type: ignore[arg-type]
        finally:
            await store.close()

    return asyncio.run(whole())


def a_lease(**changes: Any) -> Leased:
    lease = Leased(
        port=ID,
        address="10.0.0.5",
        mac="02:00:00:00:00:01",
        at_utc_s=100.0,
        kind=LeaseKind.BOUND,
        since_utc_s=50.0,
        until_utc_s=700.0,
    )
    return msgspec.structs.replace(lease, **changes)


TOLD = PortTold(
    port=ID,
    since_utc_s=1.0,
    counts={"ACK": 1},
    lease=a_lease(),
    seen_utc_s=100.0,
    client_id="01",
    vendor="v",
)


def test_a_lease_has_its_times_and_its_client() -> None:
    (row,) = asked(Clients([TOLD], {}), lambda clients: clients.leases(None))
    assert (row["address"], row["state"], row["since"], row["until"]) == ("10.0.0.5", "bound", 50.0, 700.0)
    assert (row["client_id"], row["vendor"], row["seen"]) == ("01", "v", 100.0)


def test_leases_of_clients_that_nobody_declared_stand_beside_their_ports() -> None:
    until = time.time() + 60
    lease = Lease(0x0A0000C8, "pg", b"\xff\1\2", bytes(5) + b"\x99", State.DECLINED, 40.0, until)
    told = msgspec.structs.replace(TOLD, pool=(PoolClient(lease=lease, seen_utc_s=50.0, vendor="udhcp"),))
    own, other = asked(Clients([told], {}), lambda clients: clients.leases("lab"))
    assert own["address"] == "10.0.0.5"
    assert (other["address"], other["mac"], other["state"]) == ("10.0.0.200", "00:00:00:00:00:99", "declined")
    assert (other["since"], other["until"]) == (40.0, round(until, 3))
    assert (other["client_id"], other["vendor"], other["seen"]) == ("0102", "udhcp", 50.0)


def test_each_ipv6_address_of_a_client_is_shown_also_one_that_it_formed_beside() -> None:
    six = a_lease(address="fd00::5", until_utc_s=1000.0)
    formed = a_lease(address="fd00::77", kind=LeaseKind.FORMED, until_utc_s=None)
    told = msgspec.structs.replace(TOLD, leases6=(six, formed), duid="0004")
    rows = asked(Clients([told], {}), lambda clients: clients.leases(None), addresses=("10.0.0.5", "fd00::5"))
    assert [(row["address"], row["state"], row["until"], row["client_id"]) for row in rows] == [
        ("10.0.0.5", "bound", 700.0, "01"),
        ("fd00::5", "offered", 1000.0, "0004"),
        ("fd00::77", "formed", None, ""),
    ]


def test_a_host_that_does_not_answer_leaves_its_columns_empty() -> None:
    (row,) = asked(NotPossible("host n1 is gone"), lambda clients: clients.leases(None))
    assert (row["state"], row["since"], row["seen"], row["vendor"]) == ("bound", None, None, "")


def why(answer: Clients | NotPossible) -> Any:
    return asked(answer, lambda clients: clients.why(clients.ports_of("10.0.0.5") or []))


def test_why_says_what_its_host_has_seen() -> None:
    (row,) = why(Clients([TOLD], {"view/lab": "no socket"}))
    assert row["findings"][-1] == "names are not answered on its host: no socket"
    assert (row["workspace"], row["counts"]) == ("w", {"ACK": 1})


def test_why_says_that_its_host_can_not_be_asked() -> None:
    (row,) = why(NotPossible("host n1 is gone"))
    assert row["findings"] == ["its host can't be asked: host n1 is gone"]


def test_what_is_no_address_is_none_and_nobodys_address_is_nobodys() -> None:
    async def found(clients: ClientsAsked) -> Any:
        return clients.ports_of("w"), clients.ports_of("10.0.0.6")

    assert asked(NotPossible(""), found) == (None, [])
