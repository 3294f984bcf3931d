"""Addresses that clients formed: a claim and a place in the binding for each that nobody else has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from overlay.mac import link_local
from overlay.pools import address_hex, parse_address
from playground.controller.changes import Changes
from playground.controller.events import EventLog
from playground.controller.learning import MOST, Learning
from playground.controller.world import World
from playground.records import (
    LEARNED,
    BindingRecord,
    ClaimRecord,
    NetworkRecord,
    ObservedPort,
    PortRecord,
    Record,
    address_claim,
    encode,
    key_of,
    mac_claim,
    port_id,
)
from playground.store.api import Delete, Put
from playground.store.memory import MemoryStore

NETWORK = "0" * 12
MACS = {name: f"02:00:00:00:00:0{number}" for number, name in enumerate(("w", "v"), 1)}
PORTS = {name: port_id("atlas", name, "grid") for name in MACS}
OWN = {"w": "fd00::ff:fe00:1", "v": "fd00::ff:fe00:2"}


def claim_of(address: str) -> str:
    return address_claim(NETWORK, address_hex(*parse_address(address)))


def port(name: str, *allowed: str) -> PortRecord:
    return PortRecord(
        playground="atlas", workspace=name, network="grid", network_id=NETWORK, id=PORTS[name], mac=MACS[name],
        addresses=(OWN[name],), allowed_addresses=allowed,
    )  # fmt: skip


def binding(name: str, target: str | None = None) -> BindingRecord:
    return BindingRecord(
        port=PORTS[name], playground="atlas", workspace=name, active="n1", source="n1", target=target
    )  # fmt: skip


def seen(name: str, *leased: str, generation: int = 1) -> ObservedPort:
    return ObservedPort(
        port=PORTS[name], host="n1", generation=generation, programmed="forwarding", leased=leased
    )  # fmt: skip


def network(ipv6: str = "slaac") -> NetworkRecord:
    return NetworkRecord(
        playground="atlas", name="grid", id=NETWORK, vni=5, mtu=1450, subnets=("10.0.0.0/24", "fd00::/64"),
        gateways=("10.0.0.1", "fd00::1"), ipv6=ipv6,
    )  # fmt: skip


@dataclass
class Site:
    store: MemoryStore
    world: World
    learning: Learning
    changes: Changes

    async def put(self, *records: Record) -> None:
        await self.store.commit([], [Put(key_of(one), encode(one)) for one in records])
        await self.learn()

    async def learn(self) -> None:
        await self.world.load()
        await self.learning.once()
        await self.world.load()

    def learned(self, name: str) -> Sequence[str]:
        return self.world.grids["atlas"].bindings[PORTS[name]].learned

    def owner(self, address: str) -> str | None:
        claim = self.world.claim(claim_of(address))
        return claim.owner if claim is not None else None


def on(work: Callable[[Site], object], *records: Record) -> None:
    async def run() -> None:
        store = MemoryStore()
        world = World(store)
        owned = {claim_of(OWN[name]): PORTS[name] for name in PORTS}
        owned |= {mac_claim(NETWORK, MACS[name]): PORTS[name] for name in PORTS} | {claim_of("fd00::1"): NETWORK}
        claims = [
            Put(key, encode(ClaimRecord(owner=owner, playground="atlas", change="c"))) for key, owner in owned.items()
        ]
        await store.commit([], claims)
        await world.load()
        events = EventLog(store, world)
        site = Site(store, world, Learning(store, world, events), Changes(store, world, events))
        follows = asyncio.create_task(world.follow())
        await site.put(*(records or (network(),)), *map(binding, PORTS))
        for name in PORTS:
            if PORTS[name] not in world.homes:
                await site.put(port(name))
        await work(site)  # type: ignore[misc]
        follows.cancel()

    asyncio.run(run())


def test_what_a_client_formed_is_claimed_for_it_and_stands_in_its_binding() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", OWN["w"], "fd00::5", "fe80::5", "10.0.0.9"))
        assert site.learned("w") == ("fd00::5", "fe80::5")
        assert site.owner("fd00::5") == site.owner("fe80::5") == PORTS["w"]
        await site.changes.release()
        assert site.owner("fd00::5") == PORTS["w"]

    on(work)


@pytest.mark.parametrize("address", [OWN["v"], "fd00::1", "fe80::1", link_local(MACS["v"]), "fd00::", "fd01::5"])
def test_what_another_has_or_makes_of_its_mac_is_not_learned(address: str) -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", address))
        assert site.learned("w") == ()

    on(work)


def test_of_two_that_form_one_address_the_first_has_it_until_it_lets_go() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", "fd00::5"))
        await site.put(seen("v", "fd00::5"))
        assert (site.learned("w"), site.learned("v")) == (("fd00::5",), ())
        await site.put(seen("w"))
        assert site.learned("w") == ()
        await site.changes.release()
        assert site.owner("fd00::5") is None
        await site.put(seen("v", "fd00::5", "fd00::6"))
        assert site.learned("v") == ("fd00::5", "fd00::6")

    on(work)


def test_what_another_nic_allows_is_not_learned() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", "fd00::77"))
        assert site.learned("w") == ()

    on(work, network(), port("v", "fd00::70/124"))


def test_what_the_ports_own_nic_allows_needs_no_learning() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("v", "fd00::77", "fe80::77", "fd00::5"))
        assert site.learned("v") == ("fd00::5",)

    on(work, network(), port("v", "fd00::70/124", "fe80::77"))


def test_a_network_whose_addresses_are_given_learns_link_local_ones_alone() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", "fd00::5", "fe80::5"))
        assert site.learned("w") == ("fe80::5",)

    on(work, network("dhcp"))


def test_in_a_move_and_of_another_generation_nothing_changes() -> None:
    async def work(site: Site) -> None:
        await site.put(binding("w", "n2"), seen("w", "fd00::5"))
        await site.put(seen("v", "fd00::6", generation=2))
        assert site.learned("w") == site.learned("v") == ()

    on(work)


def test_whatever_a_host_says_a_port_has_so_many_at_most() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", *(f"fd00::5:{number:x}" for number in range(100))))
        assert len(site.learned("w")) == MOST

    on(work)


def test_what_goes_over_to_a_port_that_a_file_gives_it_to_is_learned_no_more() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", "fd00::5"))
        over = ClaimRecord(owner=PORTS["v"], playground="atlas", change=LEARNED, previous=PORTS["w"])
        await site.store.commit([], [Put(claim_of("fd00::5"), encode(over))])
        await site.learn()
        assert site.learned("w") == ()

    on(work)


def test_with_its_port_all_that_it_formed_goes() -> None:
    async def work(site: Site) -> None:
        await site.put(seen("w", "fd00::5"))
        gone = (key_of(port("w")), key_of(binding("w")), key_of(seen("w")))
        await site.store.commit([], [Delete(key) for key in gone])
        await site.learn()
        await site.changes.release()
        assert site.owner("fd00::5") is None

    on(work)
