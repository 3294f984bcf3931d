"""Virtual routers' MACs: at the port where one spoke last, of those that may have it, whoever writes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from playground.controller.routers import Routers
from playground.controller.world import World
from playground.records import BindingRecord, ObservedPort, PortRecord, Record, encode, key_of, port_id
from playground.store.api import Put
from playground.store.memory import MemoryStore

ROUTER, OTHER = "00:00:5e:00:01:07", "52:54:00:00:00:01"
NAMES = ("one", "two", "third", "elsewhere")


def a_port(name: str) -> PortRecord:
    """`third` may be no router; `elsewhere` is on another network, where it may be one of that MAC, too."""
    network = "other" if name == "elsewhere" else "grid"
    return PortRecord(
        playground="lab",
        workspace=name,
        network=network,
        network_id=network,
        id=port_id("lab", name, "nic"),
        mac=f"02:00:00:00:00:0{NAMES.index(name)}",
        addresses=("10.0.0.9",),
        allowed_macs=() if name == "third" else (ROUTER, OTHER),
    )


def a_binding(name: str) -> BindingRecord:
    return BindingRecord(port=a_port(name).id, playground="lab", workspace=name, active="n1", source="n1")


def heard(name: str, at_s: float, mac: str = ROUTER, host: str = "n1") -> ObservedPort:
    return ObservedPort(
        port=a_port(name).id, host=host, generation=1, programmed="forwarding", routers={mac: at_s}
    )  # fmt: skip


@dataclass
class Site:
    store: MemoryStore
    world: World
    routers: Routers

    async def put(self, *records: Record) -> None:
        await self.store.commit([], [Put(key_of(one), encode(one)) for one in records])
        await self.world.load()

    async def hear(self, *observed: ObservedPort) -> list[str]:
        """Who has the MAC once these have been said."""
        await self.put(*observed)
        await self.routers.once()
        await self.world.load()
        bindings = self.world.grids["lab"].bindings
        return [name for name in NAMES if bindings[a_port(name).id].routers]


def on(work: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        store = MemoryStore()
        world = World(store)
        await world.load()
        site = Site(store, world, Routers(store, world))
        follows = asyncio.create_task(world.follow())
        await site.put(*map(a_port, NAMES), *map(a_binding, NAMES))
        await work(site)
        follows.cancel()

    asyncio.run(run())


def test_it_is_where_it_spoke_last() -> None:
    async def work(site: Site) -> None:
        assert await site.hear(heard("one", 1.0)) == ["one"]
        assert await site.hear(heard("two", 0.5)) == ["two"]
        assert await site.hear(heard("two", 0.5)) == ["two"]
        assert await site.hear(heard("one", 2.0)) == ["one"]

    on(work)


def test_networks_have_one_each() -> None:
    async def work(site: Site) -> None:
        assert await site.hear(heard("one", 1.0), heard("elsewhere", 1.0)) == ["one", "elsewhere"]
        assert await site.hear(heard("two", 1.0)) == ["two", "elsewhere"]

    on(work)


def test_who_may_not_have_it_and_whom_a_host_speaks_for_that_does_not_carry_it_take_nothing() -> None:
    async def work(site: Site) -> None:
        assert await site.hear(heard("one", 1.0)) == ["one"]
        assert await site.hear(heard("third", 2.0)) == ["one"]
        assert await site.hear(heard("two", 2.0, host="n2")) == ["one"]
        assert await site.hear(heard("two", 2.0, mac=OTHER)) == ["one"]

    on(work)


def test_a_binding_that_another_wrote_meanwhile_is_read_again() -> None:
    async def work(site: Site) -> None:
        await site.put(heard("one", 1.0))
        moved = msgspec.structs.replace(a_binding("one"), leased=("10.0.0.9",))
        await site.store.commit([], [Put(key_of(moved), encode(moved))])  # not seen yet
        await site.routers.once()
        await site.world.load()
        assert await site.hear() == ["one"]
        assert site.world.grids["lab"].bindings[moved.port].leased == ("10.0.0.9",)

    on(work)
