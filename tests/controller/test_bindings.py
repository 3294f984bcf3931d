"""The two-phase binding of ports: each verb says the same again, an older generation moves nothing, and against a dumb
model of it, over random histories, a running workspace has one active binding at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playground.controller import moves as moves_module
from playground.controller.bindings import Bindings, NoBinding
from playground.controller.events import EventLog
from playground.controller.moves import Metering, Moves, Refused
from playground.controller.preflight import Preflight
from playground.controller.world import World
from playground.records import (
    AliveRecord,
    BindingRecord,
    Driver,
    HostRecord,
    MigrationRecord,
    ObservedHost,
    ObservedWorkspace,
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

PORTS = tuple(port_id("atlas", "w", network) for network in ("grid", "wan"))
PORT = PORTS[0]
HOSTS = ("n1", "n2", "n3")


def records(driver: str = "external") -> Iterable[Record]:
    for host in HOSTS:
        yield HostRecord(name=host, site="lab", underlay="192.0.2.1", drivers=(Driver(driver, "live"),))
        yield AliveRecord(host=host, session="s")
    yield WorkspaceRecord(
        playground="atlas",
        name="w",
        id=workspace_id("atlas", "w"),
        driver=driver,
        ports=PORTS,
        host="n1",
        placed=1,
    )
    for number, network in enumerate(("grid", "wan")):
        yield PortRecord(
            playground="atlas",
            workspace="w",
            network=network,
            network_id=f"{number}" * 12,
            id=PORTS[number],
            mac=f"02:00:00:00:00:0{number}",
            addresses=(f"10.0.{number}.2",),
        )
        yield BindingRecord(port=PORTS[number], playground="atlas", workspace="w", active="n1", source="n1")
    yield ObservedWorkspace(playground="atlas", workspace="w", host="n1", generation=1, state="running")


class NothingCarried:
    def is_needed(self, move: MigrationRecord) -> bool:
        return False

    async def carry(self, move: MigrationRecord) -> None:
        raise AssertionError


async def no_meter(move: MigrationRecord) -> Metering | None:
    raise AssertionError("a tool's move is not measured by us")


class Site:
    """The verbs over a store in memory, and hosts that do what they are told when they are asked to."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.load()

    def load(self) -> None:
        self.world = World(self.store)
        preflight = Preflight(self.world, None, no_meter)  # type: ignore[arg-type]
        events = EventLog(self.store, self.world)
        self.moves = Moves(self.store, self.world, events, no_meter, NothingCarried(), preflight)
        self.bindings = Bindings(self.world, self.moves)

    async def restart(self) -> None:
        """Another controller over the same store."""
        self.end()
        self.load()
        await self.begin()

    async def begin(self) -> None:
        await self.world.load()
        self.tasks = [asyncio.create_task(self.world.follow()), asyncio.create_task(self.moves.run())]

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def say(self, *what: Record) -> None:
        revision = await self.store.commit([], [Put(key_of(r), encode(r)) for r in what])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def gone(self, host: str) -> None:
        revision = await self.store.commit([], [Delete(f"alive/{host}")])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    @property
    def move(self) -> MigrationRecord | None:
        return self.world.grids["atlas"].migrations.get("w")

    @property
    def workspace(self) -> WorkspaceRecord:
        return self.world.grids["atlas"].workspaces["w"]

    @property
    def active(self) -> str:
        """The one host where all its ports are."""
        (host,) = {binding.active for binding in self.world.grids["atlas"].bindings.values()}
        assert host == self.workspace.host
        return host

    async def host_says(self, host: str, state: str, cause: str = "") -> None:
        """What a host reports of the move that it was shown."""
        move = self.move
        if move is not None and host == move.target:
            seen = ObservedWorkspace(
                playground="atlas", workspace="w", host=host, generation=move.generation, state=state, cause=cause
            )
            await self.say(seen)

    async def until(self, state: str) -> None:
        async with asyncio.timeout(5):
            while self.move is None or self.move.state != state:
                await self.world.moved(self.world.revision)

    async def settle(self) -> None:
        await self.until("activated")
        revision = self.world.revision
        await self.say(*(ObservedHost(host=host, version="1", applied=revision) for host in HOSTS))
        await self.until("settled")


@asynccontextmanager
async def a_site(driver: str = "external") -> AsyncIterator[Site]:
    site = Site()
    await site.store.commit([], [Put(key_of(r), encode(r)) for r in records(driver)])
    await site.begin()
    try:
        yield site
    finally:
        site.end()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*site.tasks)
        await site.store.close()


def run(claim: Callable[[Site], Awaitable[None]], driver: str = "external") -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), a_site(driver) as site:
            await claim(site)

    asyncio.run(whole())


async def prepared(site: Site, host: str = "n2") -> int:
    """The generation of a binding that is prepared on a host."""
    begun = await site.bindings.prepare(PORT, host, 0)
    await site.host_says(host, "prepared")
    await site.until("prepared")
    return int(begun["generation"])


def test_a_port_goes_where_it_was_prepared_and_each_verb_says_the_same_again() -> None:
    async def claim(site: Site) -> None:
        assert [(b["host"], b["state"], b["generation"]) for b in site.bindings.list(PORT)] == [("n1", "active", 1)]
        begun = await site.bindings.prepare(PORT, "n2", 0)
        assert begun["state"] == "preparing"
        assert await site.bindings.prepare(PORT, "n2", 0) == begun
        await site.host_says("n2", "prepared")
        ready = await site.bindings.prepare(f"pg{PORT}", "n2", 5)
        assert ready == {**begun, "state": "prepared"} and site.active == "n1"
        generation = begun["generation"]
        activating = asyncio.create_task(site.bindings.activate(PORT, "n2", generation, 5))
        await site.until("copying")
        assert site.active == "n1"
        await site.host_says("n2", "running")
        active = await activating
        assert active == {**begun, "state": "active"} and site.active == "n2"
        assert {(b["host"], b["state"]) for b in site.bindings.list(PORT)} == {("n1", "leaving"), ("n2", "active")}
        for again in (
            site.bindings.activate(PORT, "n2", generation, 0),
            site.bindings.prepare(PORT, "n2", 0),
            site.bindings.show(PORT, "n2", 0),
        ):
            assert await again == active
        await site.settle()
        assert site.bindings.list(PORT) == [active]

    run(claim)


def test_what_is_said_of_one_port_of_a_workspace_is_said_of_all() -> None:
    async def claim(site: Site) -> None:
        generation = await prepared(site)
        other = await site.bindings.prepare(PORTS[1], "n2", 0)
        assert (other["state"], other["generation"]) == ("prepared", generation)
        await site.bindings.activate(PORTS[1], "n2", generation, 0)
        await site.host_says("n2", "running")
        assert (await site.bindings.activate(PORT, "n2", generation, 5))["state"] == "active"

    run(claim)


def test_an_abort_leaves_it_where_it_was_and_is_refused_once_it_is_active() -> None:
    async def claim(site: Site) -> None:
        generation = await prepared(site)
        gone = await site.bindings.abort(PORT, "n2", generation)
        assert (gone["state"], gone["cause"], site.active) == ("aborted", "aborted on request", "n1")
        assert await site.bindings.abort(PORT, "n2", generation) == gone
        with pytest.raises(Refused, match="was aborted: aborted on request; prepare it anew"):
            await site.bindings.activate(PORT, "n2", generation, 0)
        second = await prepared(site)
        assert second > generation
        await site.bindings.activate(PORT, "n2", second, 0)
        await site.host_says("n2", "running")
        await site.bindings.activate(PORT, "n2", second, 5)
        with pytest.raises(Refused, match=f"generation {second} on n2 is active already"):
            await site.bindings.abort(PORT, "n2", second)
        assert site.active == "n2"

    run(claim)


def test_what_is_said_of_an_older_binding_moves_nothing() -> None:
    async def claim(site: Site) -> None:
        first = await prepared(site)
        await site.bindings.abort(PORT, "n2", first)
        second = await prepared(site)
        for late in (site.bindings.activate(PORT, "n2", first, 0), site.bindings.abort(PORT, "n2", first)):
            with pytest.raises(Refused, match=f"{first} on n2 is not the one that counts, {second} is"):
                await late
        assert site.move is not None and (site.move.state, site.active) == ("prepared", "n1")
        with pytest.raises(NoBinding, match="no binding on n3; it is active on n1, generation 1"):
            await site.bindings.activate(PORT, "n3", second, 0)

    run(claim)


def test_its_generation_is_the_move_that_brought_it_also_while_another_is_prepared() -> None:
    async def claim(site: Site) -> None:
        first = await prepared(site)
        await site.bindings.activate(PORT, "n2", first, 0)
        await site.host_says("n2", "running")
        await site.settle()
        second = await prepared(site, "n3")
        assert {b["host"]: b["generation"] for b in site.bindings.list(PORT)} == {"n2": first, "n3": second}
        assert (await site.bindings.activate(PORT, "n2", first, 0))["state"] == "active"
        await site.bindings.abort(PORT, "n3", second)
        assert site.bindings.list(PORT)[0]["generation"] == first

    run(claim)


def test_before_it_is_prepared_it_is_not_activated_and_what_it_waits_for_is_said() -> None:
    async def claim(site: Site) -> None:
        begun = await site.bindings.prepare(PORT, "n2", 0)
        await site.host_says("n2", "failed", "waits for a tap")
        with pytest.raises(Refused, match="is not prepared on n2 yet: waits for a tap"):
            await site.bindings.activate(PORT, "n2", begun["generation"], 0)
        assert (await site.bindings.show(PORT, "n2", 0))["cause"] == "waits for a tap"
        with pytest.raises(Refused, match="being moved to n2"):
            await site.bindings.prepare(PORT, "n3", 0)

    run(claim)


@pytest.mark.parametrize("dead", ["n1", "n2"])
def test_a_host_that_is_away_for_a_while_ends_no_binding(dead: str) -> None:
    async def claim(site: Site) -> None:
        generation = await prepared(site)
        await site.gone(dead)
        await site.bindings.activate(PORT, "n2", generation, 0)
        await asyncio.sleep(0.15)
        assert site.move is not None and site.move.state == "copying"
        await site.say(AliveRecord(host=dead, session="t"))
        await site.host_says("n2", "running")
        assert (await site.bindings.activate(PORT, "n2", generation, 5))["state"] == "active"

    run(claim)


def test_a_port_comes_up_again_where_its_tool_brings_it_after_its_host_died() -> None:
    async def claim(site: Site) -> None:
        await site.gone("n1")
        with pytest.raises(Refused, match="host n1 is not up"):
            await site.moves.request(site.workspace, "n2", measure=False)
        generation = await prepared(site)
        await site.bindings.activate(PORT, "n2", generation, 0)
        await site.host_says("n2", "running")
        assert (await site.bindings.activate(PORT, "n2", generation, 5))["state"] == "active"

    run(claim)


def test_one_that_nobody_activates_is_given_back_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "TOLD_DEADLINE_S", 0.1)

    async def claim(site: Site) -> None:
        begun = await site.bindings.prepare(PORT, "n2", 0)
        over = await site.bindings.show(PORT, "n2", 5)
        assert over["state"] == "aborted" and "nobody said within" in over["cause"]
        assert (over["generation"], site.active) == (begun["generation"], "n1")

    run(claim)


def test_a_workspace_that_we_run_is_moved_by_us() -> None:
    async def claim(site: Site) -> None:
        with pytest.raises(Refused, match="not of the driver external: `playground migrate atlas/w n2` moves it"):
            await site.bindings.prepare(PORT, "n2", 0)

    run(claim, "netns")


def test_a_port_that_there_is_not_has_no_binding() -> None:
    async def claim(site: Site) -> None:
        with pytest.raises(NoBinding, match="no port pgffffffffffff"):
            site.bindings.list("pgffffffffffff")

    run(claim)


@dataclass
class Dumb:
    """What the verbs mean, for one workspace: where it is, by which number, and what is prepared. bound: number → host
    of every binding that there was."""

    host: str = "n1"
    number: int = 1
    open: tuple[int, str, str] | None = None
    """(number, host, `preparing`, `prepared` or `activating`)."""
    aborted: tuple[int, str] | None = None
    bound: dict[int, str] = field(default_factory=lambda: {1: "n1"})


Step = tuple[str, str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["prepare", "activate", "abort", "ready", "runs", "settled", "late runs", "restart", "dies"]),
        st.sampled_from(HOSTS),
        st.integers(0, 3),
    ),
    max_size=24,
)


async def history(site: Site, steps: list[Step]) -> None:
    model = Dumb()
    for verb, host, back in steps:
        number = sorted(model.bound)[-1 - back % len(model.bound)]  # the newest one, or one of before
        if verb == "prepare":
            await check_prepare(site, model, host)
        elif verb == "activate":
            await check_activate(site, model, host, number)
        elif verb == "abort":
            await check_abort(site, model, host, number)
        elif verb == "ready" and model.open is not None:
            await site.host_says(model.open[1], "prepared")
            if model.open[2] == "preparing":
                await site.until("prepared")
                model.open = (*model.open[:2], "prepared")
        elif verb == "runs" and model.open is not None and model.open[2] == "activating":
            await site.host_says(model.open[1], "running")
            await site.until("activated")
            model.number, model.host, _ = model.open
            model.open = None
        elif verb == "late runs" and (model.open is None or model.open[2] != "activating" or number != model.open[0]):
            # of a move that is over, or before its tool has said so
            late = ObservedWorkspace(playground="atlas", workspace="w", host=host, generation=number, state="running")
            await site.moves.arrived(late)
            if model.open is None or host != model.open[1]:
                await site.say(late)
        elif verb == "settled" and model.open is None and site.move is not None and site.move.state == "activated":
            await site.settle()
        elif verb == "restart":
            await site.restart()
        elif verb == "dies":
            await site.gone(host)
            await site.say(AliveRecord(host=host, session=f"{site.world.revision}"))
        assert site.active == model.host  # exactly one host, for all its ports
        shown = {(b["host"], b["generation"]): b["state"] for b in site.bindings.list(PORT) if b["state"] != "leaving"}
        wanted = {(model.host, model.number): "active"}
        if model.open is not None:
            wanted[(model.open[1], model.open[0])] = model.open[2]
        assert shown == wanted


async def check_prepare(site: Site, model: Dumb, host: str) -> None:
    if model.open is not None and model.open[1] != host:
        with pytest.raises(Refused):
            await site.bindings.prepare(PORT, host, 0)
        return
    shown = await site.bindings.prepare(PORT, host, 0)
    if model.open is None and model.host != host:
        assert shown["generation"] > max(model.bound)
        model.open = (shown["generation"], host, "preparing")
        model.bound[shown["generation"]] = host
        model.aborted = None
    wanted = (model.open[0], model.open[2]) if model.open is not None else (model.number, "active")
    assert (shown["generation"], shown["state"]) == wanted


async def check_activate(site: Site, model: Dumb, host: str, number: int) -> None:
    if (model.number, model.host) == (number, host):
        assert (await site.bindings.activate(PORT, host, number, 0))["state"] == "active"
    elif model.open is not None and model.open[:2] == (number, host) and model.open[2] != "preparing":
        assert (await site.bindings.activate(PORT, host, number, 0))["state"] == "activating"
        model.open = (number, host, "activating")
    else:
        with pytest.raises((Refused, NoBinding)):
            await site.bindings.activate(PORT, host, number, 0)


async def check_abort(site: Site, model: Dumb, host: str, number: int) -> None:
    if model.open is not None and model.open[:2] == (number, host):
        assert (await site.bindings.abort(PORT, host, number))["state"] == "aborted"
        model.open, model.aborted = None, (number, host)
    elif model.aborted == (number, host):
        assert (await site.bindings.abort(PORT, host, number))["state"] == "aborted"
    else:
        with pytest.raises((Refused, NoBinding)):
            await site.bindings.abort(PORT, host, number)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_over_any_history_a_running_workspace_has_one_active_binding(steps: list[Step]) -> None:
    run(lambda site: history(site, steps))
