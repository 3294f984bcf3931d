"""How full hosts are, kept by the change; who waits for a host, and that it is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_moves import NoCarrier, no_meter

from playground.admit import Known, admit
from playground.controller.events import EventLog
from playground.controller.moves import Moves
from playground.controller.placing import TOLD, Foreseen, Placing
from playground.controller.preflight import Preflight
from playground.controller.rooms import Rooms
from playground.controller.status import hosts
from playground.controller.world import World
from playground.placement import HostView
from playground.records import (
    AliveRecord,
    DrainRecord,
    Driver,
    HostRecord,
    MigrationRecord,
    PlaygroundRecord,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.spec import load_playground
from playground.store.api import Change, Delete, Put
from playground.store.memory import MemoryStore


def a_host(name: str, cpus: float = 4.0) -> HostRecord:
    return HostRecord(
        name=name, site="s", underlay="192.0.2.1", found_cpus=cpus, drivers=(Driver("netns", "same-kernel"),)
    )


def a_workspace(name: str, host: str | None = None, cpus: float = 1.0, **labels: str) -> WorkspaceRecord:
    return WorkspaceRecord(
        playground="lab", name=name, id="0" * 12, driver="netns", ports=(), host=host, cpus=cpus, labels=labels
    )


def a_move(name: str, source: str, target: str, state: str) -> MigrationRecord:
    return MigrationRecord(
        playground="lab",
        workspace=name,
        source=source,
        target=target,
        state=state,
        generation=1,
        started_utc_s=0.0,
        deadline_utc_s=1e12,
    )


class Site:
    """Hosts n1 and n2 of four cpus, and a placement loop that is turned by hand."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.world = World(self.store)
        self.events = EventLog(self.store, self.world)
        preflight = Preflight(self.world, None, no_meter)  # type: ignore[arg-type]
        moves = Moves(self.store, self.world, self.events, no_meter, NoCarrier(), preflight)
        self.placing = Placing(self.store, self.world, moves, self.events)

    async def put(self, *records: Record) -> None:
        await self.change([Put(key_of(record), encode(record)) for record in records])

    async def change(self, changes: list[Change]) -> None:
        revision = await self.store.commit([], changes)
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def settle(self) -> None:
        async with asyncio.timeout(5):
            while await self.placing.once():
                pass


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(whole())


def sited(site: Site, work: Awaitable[None]) -> None:
    async def whole() -> None:
        follow = asyncio.create_task(site.world.follow())
        events = asyncio.create_task(site.events.run())
        await site.put(a_host("n1"), a_host("n2"), *(AliveRecord(host=name, session="s") for name in ("n1", "n2")))
        await site.put(PlaygroundRecord(name="lab", file="f", change="c"))
        try:
            await work
        finally:
            follow.cancel()
            events.cancel()
            await asyncio.gather(follow, events, return_exceptions=True)
            await site.store.close()

    run(whole())


hosts_or_none = st.sampled_from([None, "n1", "n2"])
events_of_histories = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), hosts_or_none, st.sampled_from([0.0, 0.5, 2.0]), st.booleans()),
        st.tuples(
            st.just("move"),
            st.integers(0, 3),
            st.sampled_from(["n1", "n2"]),
            st.sampled_from(["requested", "activated", "settled", "aborted"]),
        ),
        st.tuples(st.just("delete"), st.integers(0, 3)),
        st.tuples(st.just("drain"), st.booleans()),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(events_of_histories)
def test_what_is_kept_of_rooms_is_what_a_fresh_look_finds(history: list[tuple[object, ...]]) -> None:
    site = Site()

    async def work() -> None:
        for what, *rest in history:
            name = f"w{rest[0]}"
            match what:
                case "put":
                    _, host, cpus, is_web = rest
                    labels = {"app": "web"} if is_web else {}
                    await site.put(msgspec.structs.replace(a_workspace(name, host, cpus), labels=labels))  # type: ignore[arg-type]
                case "move":
                    await site.put(a_move(name, "n1", str(rest[1]), str(rest[2])))
                case "drain" if rest[0]:
                    await site.put(DrainRecord(host="n1", began_utc_s=0.0))
                case "drain":
                    await site.change([Delete("drain/n1")])
                case _:
                    await site.change([Delete(f"workspace/lab/{name}")])
        kept, fresh = site.placing.views(), Rooms(site.world).views()
        assert [plain(view) for view in kept] == [plain(view) for view in fresh]
        taken = {row["name"]: row["cpus"]["taken"] for row in hosts(site.world)}
        assert taken == {view.record.name: view.used_cpus for view in fresh}

    sited(site, work())


def plain(view: HostView) -> HostView:
    kinds = {playground: dict(counts) for playground, counts in view.kinds.items()}
    return HostView(
        view.record,
        view.is_up,
        view.used_cpus,
        view.used_memory_mib,
        dict(view.placed),
        view.cannot_police,
        kinds,
        view.is_draining,
    )


def test_a_workspace_that_moves_takes_room_at_both_ends_until_it_is_there() -> None:
    site = Site()

    async def work() -> None:
        await site.put(a_workspace("w", "n1", 3.0), a_move("w", "n1", "n2", "requested"))
        assert [view.used_cpus for view in site.placing.views()] == [3.0, 3.0]
        await site.put(a_workspace("w", "n2", 3.0), a_move("w", "n1", "n2", "activated"))
        assert [view.used_cpus for view in site.placing.views()] == [0.0, 3.0]

    sited(site, work())


def test_who_finds_no_host_is_told_once_and_placed_when_there_is_room() -> None:
    site = Site()

    async def work() -> None:
        await site.put(a_workspace("old", "n2", 2.0), DrainRecord(host="n1", began_utc_s=0.0), a_workspace("w", cpus=3))
        await site.settle()
        reason = "no host fits; n1: draining; n2: 2 of 4 cpus free, 3 wanted"
        assert told(site) == [("unplaced", "workspace lab/w", reason)]
        found = site.world.workspace("lab", "w")
        assert found is not None and (found.host, found.reason) == (None, reason)
        await site.put(a_workspace("more", "n2", 1.0))
        await site.settle()
        assert len(told(site)) == 1
        await site.change([Delete("drain/n1")])
        await site.settle()
        found = site.world.workspace("lab", "w")
        assert found is not None and (found.host, found.reason) == ("n1", "")

    sited(site, work())


def test_many_that_find_no_host_are_told_in_few_lines() -> None:
    site = Site()

    async def work() -> None:
        await site.put(*(a_workspace(f"w-{number}", cpus=5) for number in range(TOLD + 5)))
        await site.settle()
        assert len(told(site)) == TOLD + 1
        assert "5 more workspaces find no host" in told(site)[-1][2]

    sited(site, work())


def told(site: Site) -> list[tuple[str, str, str]]:
    pending = [(event.what, event.object, event.text) for event in site.events._pending]
    return [(row["kind"], row["object"], row["text"]) for row in site.events.after(0)] + pending


def test_a_plan_says_who_would_find_no_host_and_counts_what_the_edit_frees() -> None:
    site = Site()

    async def work() -> None:
        await site.put(a_workspace("big", "n1", 4.0), a_workspace("other", "n2", 4.0))
        text = "name: lab\nnetworks: {grid: {subnets: [10.0.0.0/24]}}\nworkspaces:\n"
        grid = site.world.grids["lab"]
        known = Known(workspaces=dict(grid.workspaces), hosts=dict(site.world.hosts))
        keeps = text + "  big: {networks: grid, cpus: 4}\n  other: {networks: grid, cpus: 4}\n"
        adds = admit(load_playground(keeps + "  w: {networks: grid, cpus: 1}\n", "f"), known, "c")
        cause = "no host fits; n1, n2: 0 of 4 cpus free, 1 wanted"
        assert site.placing.foresee(adds, is_policed=False).unplaced == {"w": cause}
        swaps = text + "  other: {networks: grid, cpus: 4}\n  w: {networks: grid, cpus: 1}\n"
        assert site.placing.foresee(admit(load_playground(swaps, "f"), known, "c"), is_policed=False) == Foreseen(
            {}, {}
        )
        grown = text + "  other: {networks: grid, cpus: 5}\n  big: {networks: grid, cpus: 4}\n"
        foreseen = site.placing.foresee(admit(load_playground(grown, "f"), known, "c"), is_policed=False)
        assert foreseen == Foreseen({}, {"other": "n2: 4 of 4 cpus free, 5 wanted"})
        assert [view.used_cpus for view in site.placing.views()] == [4.0, 4.0]

    sited(site, work())
