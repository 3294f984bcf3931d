"""Which host a gateway is on, over hosts that go and come back: in one place, seldom changed, and said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from playground.controller import gateways as gateways_module
from playground.controller.events import EventLog
from playground.controller.gateways import AWAY_S, LATELY_S, Handovers
from playground.controller.status import status
from playground.controller.world import World
from playground.placement import HostView
from playground.records import (
    AliveRecord,
    BindingRecord,
    DrainRecord,
    Driver,
    HostRecord,
    PlaygroundRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
    port_id,
    workspace_id,
)
from playground.store.api import Delete, Put
from playground.store.memory import MemoryStore

HOSTS = ("n1", "n2", "n3")
PORTS = tuple(port_id("atlas", "@wan", network) for network in ("dmz", "grid"))


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Said(EventLog):
    """Keeps what was said."""

    def __init__(self, store: MemoryStore, world: World) -> None:
        super().__init__(store, world)
        self.said: list[tuple[str, str, str]] = []

    def add(self, kind: str, object: str, text: str) -> None:
        self.said.append((kind, object, text))


class Site:
    """A gateway with two legs on n1, all hosts alive; `look` is one turn of the loop."""

    def __init__(self, clock: Clock, pin: str | None) -> None:
        self.clock = clock
        self.store = MemoryStore()
        self.world = World(self.store)
        self.pin = pin

    async def begin(self) -> None:
        records: list[Record] = []
        for number, name in enumerate(HOSTS):
            offers = (Driver("netns", "same-kernel"), Driver("nat", "cold"))
            records.append(
                HostRecord(name=name, site="s", underlay="192.0.2.1", labels={"edge": str(number % 2)}, drivers=offers)
            )
            records.append(AliveRecord(host=name, session="s"))
        records.append(PlaygroundRecord(name="atlas", file="f", change="c"))
        id = workspace_id("atlas", "@wan")
        records.append(
            WorkspaceRecord(playground="atlas", name="@wan", id=id, driver="nat", ports=PORTS, host="n1", pin=self.pin)
        )
        for port, network in zip(PORTS, ("dmz", "grid"), strict=True):
            place = {"playground": "atlas", "workspace": "@wan", "network": network, "network_id": network}
            records.append(PortRecord(**place, id=port, mac="02:00:00:00:00:09", addresses=()))
            records.append(BindingRecord(port=port, playground="atlas", workspace="@wan", active="n1", source="n1"))
        await self.say(*records)
        await self.world.load()
        self.following = asyncio.create_task(self.world.follow())
        self.events = Said(self.store, self.world)
        self.handovers = self.anew()

    def anew(self) -> Handovers:
        """As a controller that begins."""

        def views() -> list[HostView]:
            world = self.world
            return [
                HostView(host, is_up=name in world.alive, is_draining=name in world.drains)
                for name, host in sorted(world.hosts.items())
            ]

        return Handovers(self.store, self.world, self.events, views)

    async def say(self, *what: Record) -> None:
        revision = await self.store.commit([], [Put(key_of(r), encode(r)) for r in what])
        assert isinstance(revision, int)
        if self.world.revision:
            await self.world.reached(revision)

    async def goes(self, host: str) -> None:
        revision = await self.store.commit([], [Delete(f"alive/{host}")])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def comes(self, host: str) -> None:
        await self.say(AliveRecord(host=host, session="t"))

    async def look(self, after_s: float = 0.0) -> None:
        self.clock.now += after_s
        while await self.handovers.once():
            pass

    async def loses(self, host: str) -> None:
        """It goes, and is away for long enough."""
        await self.goes(host)
        await self.look()
        await self.look(AWAY_S + 0.1)

    @property
    def gateway(self) -> WorkspaceRecord:
        found = self.world.workspace("atlas", "@wan")
        assert found is not None
        return found

    @property
    def bindings(self) -> set[tuple[str, str, int]]:
        found = self.world.grids["atlas"].bindings
        return {(found[port].active, found[port].source, found[port].generation) for port in PORTS}


Claim = Callable[[Site], Awaitable[None]]


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(claim: Claim, pin: str | None = None) -> None:
        clock = Clock()
        monkeypatch.setattr(gateways_module, "time", clock)

        async def work() -> None:
            site = Site(clock, pin)
            await site.begin()
            try:
                async with asyncio.timeout(10):
                    await claim(site)
            finally:
                site.following.cancel()

        asyncio.run(work())

    return run


def test_a_gateway_goes_to_another_host_when_its_own_is_gone_for_long(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.loses("n1")
        assert (site.gateway.host, site.gateway.generation) == ("n2", 2)
        assert site.bindings == {("n2", "n2", 2)}
        [(kind, object, text)] = site.events.said
        assert (kind, object) == ("gateway-moved", "gateway atlas/wan")
        assert "n1 → n2" in text and "broken" in text

    within(claim)


def test_a_host_that_is_back_soon_keeps_it(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        for _ in range(5):
            await site.goes("n1")
            await site.look()
            await site.look(AWAY_S - 0.1)
            await site.comes("n1")
            await site.look(1.0)
        assert (site.gateway.host, site.gateway.generation) == ("n1", 1)

    within(claim)


def test_a_host_that_comes_back_gets_none_back(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.loses("n1")
        await site.comes("n1")
        await site.look(10 * AWAY_S)
        assert site.gateway.host == "n2"

    within(claim)


def test_a_host_that_went_lately_is_the_last_choice(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.loses("n1")
        await site.comes("n1")
        await site.loses("n2")
        assert site.gateway.host == "n3"  # n1 is first by name
        await site.comes("n2")
        await site.look(LATELY_S)
        await site.loses("n3")
        assert site.gateway.host == "n1"

    within(claim)


def test_with_nowhere_else_it_goes_to_a_host_that_went_lately(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.goes("n3")
        await site.loses("n1")
        await site.comes("n1")
        await site.loses("n2")
        assert site.gateway.host == "n1"

    within(claim)


def test_a_gateway_that_may_go_nowhere_waits_and_says_why(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.loses("n1")
        assert (site.gateway.host, site.bindings) == ("n1", {("n1", "n1", 1)})
        assert site.gateway.reason.startswith("host n1 is gone; it is pinned to n1")
        answer = status(site.world, "s", 0.0, lambda name: {"converged": False, "failed": [], "waiting": []})
        [row] = answer["playgrounds"][0]["gateways"]
        assert (row["state"], row["cause"]) == ("unknown", site.gateway.reason)
        assert not site.events.said
        await site.comes("n1")
        await site.look()
        assert site.gateway.reason == ""

    within(claim, "n1")


def test_a_selector_bounds_the_choice(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.loses("n1")
        assert site.gateway.host == "n3"

    within(claim, "edge=0")


def test_another_host_line_hands_over_at_once(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.say(msgspec.structs.replace(site.gateway, pin="n3"))
        await site.look()
        assert (site.gateway.host, site.bindings) == ("n3", {("n3", "n3", 2)})

    within(claim)


def test_a_host_that_is_none_of_the_sites_any_more_is_left_at_once(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.store.commit([], [Delete("host/n1"), Delete("alive/n1")])
        await site.world.load()
        await site.look()
        assert site.gateway.host == "n2"

    within(claim)


def test_a_controller_that_begins_waits_for_hosts_to_come_back(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        for host in HOSTS:
            await site.goes(host)
        site.handovers = site.anew()
        await site.look()
        for host in ("n2", "n3"):
            await site.comes(host)
        await site.look(AWAY_S - 0.1)
        await site.comes("n1")
        await site.look(10 * AWAY_S)
        assert (site.gateway.host, site.gateway.generation) == ("n1", 1)

    within(claim)


def test_what_somebody_changed_meanwhile_is_looked_at_again(within: Callable[..., None]) -> None:
    """A commit whose compares no longer hold writes nothing: neither the record nor one of two bindings."""

    async def claim(site: Site) -> None:
        await site.goes("n1")
        await site.look()
        commit, changed = site.store.commit, [site.gateway]

        async def raced(compares: object, changes: object) -> object:
            if changed:
                gateway = changed.pop()
                await commit([], [Put(key_of(gateway), encode(msgspec.structs.replace(gateway, pin="n3")))])
            return await commit(compares, changes)  # type: ignore[arg-type]

        site.store.commit = raced  # type: ignore[method-assign, assignment]
        await site.look(AWAY_S + 0.1)
        assert (site.gateway.host, site.gateway.pin, site.bindings) == ("n3", "n3", {("n3", "n3", 2)})

    within(claim)


def test_a_gateway_leaves_a_drained_host_at_once_and_stays_where_no_other_may_have_it(
    within: Callable[..., None],
) -> None:
    async def claim(site: Site) -> None:
        await site.say(DrainRecord(host="n1", began_utc_s=0.0), DrainRecord(host="n2", began_utc_s=0.0))
        await site.look()
        assert (site.gateway.host, site.bindings) == ("n3", {("n3", "n3", 2)})
        assert site.events.said[-1][2].startswith("n1 → n3: host n1 is drained; ")
        await site.say(DrainRecord(host="n3", began_utc_s=0.0))
        await site.look()
        assert site.gateway.host == "n3"
        assert site.gateway.reason == "host n3 is drained; no host fits; n1, n2: draining"

    within(claim)


def test_a_drained_host_that_is_gone_is_waited_for_as_any_other(within: Callable[..., None]) -> None:
    async def claim(site: Site) -> None:
        await site.goes("n1")
        await site.say(DrainRecord(host="n1", began_utc_s=0.0))
        await site.look()
        assert site.gateway.host == "n1"
        await site.look(AWAY_S + 0.1)
        assert site.gateway.host != "n1"

    within(claim)
