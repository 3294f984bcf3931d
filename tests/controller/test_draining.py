"""Hosts are emptied by moves, a few at a time, whoever dies meanwhile; what stays says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from plain_moves import NoCarrier, no_meter

from playground.controller import draining as draining_module
from playground.controller.draining import Draining
from playground.controller.events import EventLog
from playground.controller.moves import Moves, Refused
from playground.controller.placing import Placing
from playground.controller.preflight import Preflight
from playground.controller.status import hosts
from playground.controller.world import World
from playground.inventory import Neighbours
from playground.machine import Disk, Machine
from playground.records import (
    AliveRecord,
    BindingRecord,
    Driver,
    HostRecord,
    MigrationRecord,
    ObservedHost,
    ObservedWorkspace,
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
from playground.workspaces.migration import ENDED, State


class Said(EventLog):
    """Keeps what was said."""

    def __init__(self, store: MemoryStore, world: World) -> None:
        super().__init__(store, world)
        self.said: list[tuple[str, str]] = []

    def add(self, kind: str, object: str, text: str) -> None:
        self.said.append((kind, text))


class Site:
    """A controller's moves, placement and drains over a store; and hosts that do what a move asks of them.

    refusing: hosts that can't prepare anything. most: how many moves were open at a time.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.world = World(store)
        self.events = Said(store, self.world)
        preflight = Preflight(self.world, None, no_meter)  # type: ignore[arg-type]
        self.moves = Moves(store, self.world, self.events, no_meter, NoCarrier(), preflight)
        self.placing = Placing(store, self.world, self.moves, self.events)
        self.draining = Draining(store, self.world, self.events, self.placing)
        self.refusing: set[str] = set()
        self.is_slow = False
        self.most = 0

    async def put(self, *records: Record) -> None:
        revision = await self.store.commit([], [Put(key_of(record), encode(record)) for record in records])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def delete(self, *keys: str) -> None:
        revision = await self.store.commit([], [Delete(key) for key in keys])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def play(self) -> None:
        """What agents do, for ever."""
        while True:
            revision = self.world.revision
            moving = [move for move in self.world.moving.values() if State(move.state) not in ENDED]
            self.most = max(self.most, len(moving))
            for move in moving if not self.is_slow else ():
                await self._play(move)
            await self._report()
            if self.world.revision == revision:
                await self.world.moved(revision)

    async def _play(self, move: MigrationRecord) -> None:
        state = {"requested": "failed" if move.target in self.refusing else "prepared", "copying": "running"}
        if move.state in state:
            seen = observed(move.workspace, move.target, move.generation, state[move.state], "no room on disk")
            if self.world.items.get(key_of(seen), (None, 0))[0] != seen:
                await self.put(seen)
        if move.state == "activated":
            applied = self.world.revision
            said = [ObservedHost(host=host, version="1", applied=applied) for host in self.world.alive]
            seen_at = self.world.observed_workspaces.get((move.playground, move.workspace), {})
            if move.source in seen_at:
                await self.delete(f"observed/workspace/lab/{move.workspace}/{move.source}")
            if any(self.world.observed_hosts.get(one.host) is None for one in said) or any(
                seen.applied < self.world.modified(f"claim/active/{port_of(move.workspace)}")
                for seen in self.world.observed_hosts.values()
            ):
                await self.put(*said)

    async def _report(self) -> None:
        """Whatever is placed runs there, or is stopped."""
        for workspace in list(self.world.grids["lab"].workspaces.values()):
            move = self.world.grids["lab"].migrations.get(workspace.name)
            is_moving = move is not None and State(move.state) not in ENDED
            if workspace.host is None or is_moving:
                continue
            state = "running" if workspace.desired == "running" else "stopped"
            for host in self.world.observed_workspaces.get(("lab", workspace.name), {}).keys() - {workspace.host}:
                await self.delete(f"observed/workspace/lab/{workspace.name}/{host}")
            seen = observed(workspace.name, workspace.host, workspace.generation, state)
            if self.world.items.get(key_of(seen), (None, 0))[0] != seen:
                await self.put(seen)

    def where(self) -> dict[str, str | None]:
        return {name: one.host for name, one in self.world.grids["lab"].workspaces.items()}

    def left(self, host: str) -> dict[str, tuple[str, str]]:
        return {one.workspace.name: (one.state, one.cause) for one in self.draining.left(host)}

    async def until(self, what: Callable[[], bool], said: str) -> None:
        try:
            async with asyncio.timeout(10):
                while not what():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pytest.fail(f"{said}: {self.where()}, {self.events.said[-8:]}")

    async def until_empty(self, host: str) -> None:
        await self.until(lambda: self.draining.report(host)["drain"] == "drained", f"{host} is empty")


def port_of(workspace: str) -> str:
    return port_id("lab", workspace, "grid")


def observed(workspace: str, host: str, generation: int, state: str, cause: str = "") -> ObservedWorkspace:
    return ObservedWorkspace(
        playground="lab",
        workspace=workspace,
        host=host,
        generation=generation,
        state=state,
        cause=cause if state == "failed" else "",
    )


def a_host(name: str, cpus: float | None = None, **drivers: str) -> HostRecord:
    """drivers: name → kernel; netns on one kernel by default."""
    offered = tuple(Driver(one, "same-kernel", domain) for one, domain in (drivers or {"netns": "kernel"}).items())
    extra = (Driver("external", "live"), Driver("libvirt", "live", peer="qemu+tcp://x/system"))
    return HostRecord(name=name, site="s", underlay="192.0.2.1", cpus=cpus, drivers=(*offered, *extra))


def a_workspace(name: str, host: str | None, **more: object) -> list[Record]:
    """Its record, its port's, and the binding."""
    port = port_of(name)
    workspace = WorkspaceRecord(
        playground="lab", name=name, id=workspace_id("lab", name), driver="netns", ports=(port,), host=host
    )
    return [
        msgspec.structs.replace(workspace, **more),
        PortRecord(
            playground="lab",
            workspace=name,
            network="grid",
            network_id="0" * 12,
            id=port,
            mac="02:00:00:00:00:01",
            addresses=(),
        ),
        BindingRecord(port=port, playground="lab", workspace=name, active=str(host), source=str(host)),
    ]


@asynccontextmanager
async def a_controller(store: MemoryStore) -> AsyncIterator[Site]:
    site = Site(store)
    await site.world.load()
    loops = (site.world.follow, site.moves.run, site.placing.run, site.draining.run, site.play)
    tasks = [asyncio.create_task(loop()) for loop in loops]
    try:
        yield site
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def run(records: list[Record], work: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = MemoryStore()
        root = PlaygroundRecord(name="lab", file="f", change="c")
        names = [record.name for record in records if isinstance(record, HostRecord)]
        alive = [AliveRecord(host=name, session="s") for name in names if name != "dead"]
        await store.commit([], [Put(key_of(record), encode(record)) for record in (root, *alive, *records)])
        async with asyncio.timeout(30), a_controller(store) as site:
            workspaces = site.world.grids["lab"].workspaces
            await site.until(
                lambda: all(
                    ("lab", name) in site.world.observed_workspaces
                    for name, one in workspaces.items()
                    if one.host != "dead"
                ),
                "all run",
            )
            await work(site)
        await store.close()

    asyncio.run(whole())


def three_hosts(*more: Record) -> list[Record]:
    return [a_host("n1"), a_host("n2"), a_host("n3"), *more]


def several(host: str, number: int, **more: object) -> list[Record]:
    return [record for n in range(number) for record in a_workspace(f"w-{n}", host, **more)]


@pytest.mark.parametrize("parallel", [1, 3])
def test_all_leave_a_drained_host_so_many_at_a_time_and_it_stays_empty(parallel: int) -> None:
    async def work(site: Site) -> None:
        await site.draining.drain("n1", parallel)
        await site.until_empty("n1")
        assert set(site.where().values()) == {"n2", "n3"}
        assert 1 <= site.most <= parallel
        await site.put(*a_workspace("new", None)[:2])
        await site.until(lambda: site.where()["new"] is not None, "the new one is placed")
        assert site.where()["new"] in ("n2", "n3")
        assert [row["drain"] for row in hosts(site.world)] == ["drained", None, None]
        await site.until(lambda: site.draining.is_at_rest("n1"), "nothing leaves any more")
        said = [kind for kind, _ in site.events.said if kind.startswith("drain")]
        assert said == ["drain-begun", "drained"]

    run(three_hosts(*several("n1", 5)), work)


def test_a_drain_asked_for_twice_is_one_and_resume_ends_it() -> None:
    async def work(site: Site) -> None:
        await site.draining.drain("n1", 2)
        await site.until_empty("n1")
        revision = site.world.revision
        await site.draining.drain("n1", 2)
        assert site.world.revision == revision
        await site.draining.drain("n1", 5)
        assert site.world.drains["n1"].parallel == 5
        await site.draining.resume("n1")
        await site.draining.resume("n1")
        assert site.draining.report("n1")["drain"] is None
        await site.put(*a_workspace("new", None)[:2])
        await site.until(lambda: site.where()["new"] == "n1", "the emptiest host is used again")

    run(three_hosts(*several("n1", 2)), work)


def test_resume_stops_a_drain_and_moves_under_way_go_on() -> None:
    async def work(site: Site) -> None:
        site.is_slow = True
        await site.draining.drain("n1", 1)
        await site.until(lambda: site.most == 1, "one moves")
        await site.draining.resume("n1")
        site.is_slow = False
        await site.put(AliveRecord(host="n2", session="again"))
        await site.until(lambda: list(site.where().values()).count("n1") == 2, "the one has arrived")
        await site.put(AliveRecord(host="n2", session="once more"))
        assert list(site.where().values()).count("n1") == 2

    run(three_hosts(*several("n1", 3)), work)


def test_what_cannot_leave_says_why() -> None:
    machine = Machine(disks=(Disk(base="/srv/base.qcow2"),))
    records = [
        *[a_host("n1", cpus=8), a_host("n2", cpus=2), a_host("far", netns="another kernel")],
        *a_workspace("fits", "n1", cpus=1.0, pin="n2"),
        *a_workspace("large", "n1", cpus=4.0, pin="gone=no"),
        *a_workspace("pinned", "n1", pin="n1"),
        *a_workspace("theirs", "n1", driver="external"),
        *a_workspace("disk", "n1", driver="libvirt", desired="stopped", machine=machine),
        *a_workspace("held", "n1", driver="libvirt", desired="suspended"),
    ]
    records[0] = msgspec.structs.replace(records[0], labels={"gone": "no"})
    records[1] = msgspec.structs.replace(records[1], labels={"gone": "no"})

    async def work(site: Site) -> None:
        await site.draining.drain("n1", 2)
        await site.until(
            lambda: all(state == "stuck" for state, _ in site.left("n1").values()) and site.where()["fits"] == "n2",
            "all that can leave has left",
        )
        causes = {name: cause for name, (_, cause) in site.left("n1").items()}
        assert causes == {
            "large": "no host fits; far: not selected by gone=no; n1: draining; n2: 1 of 2 cpus free, 4 wanted",
            "pinned": "it is pinned to n1, and n1: draining",
            "theirs": "it is run by somebody else, who alone can move it",
            "disk": "it is stopped, and its disks are on n1; start it, then it can move",
            "held": "it is stopped; only what runs is moved",
        }
        await site.until(lambda: any(kind == "drain-stuck" for kind, _ in site.events.said), "it is told")
        stuck = [text for kind, text in site.events.said if kind == "drain-stuck"]
        assert len(stuck) == 1 and stuck[0].startswith("lab/disk: ") and stuck[0].endswith("; and 2 more")

    run(records, work)


def test_a_namespace_stays_on_its_kernel() -> None:
    async def work(site: Site) -> None:
        await site.draining.drain("n1", 2)
        said = "no host fits; far: is another machine, and a netns workspace stays on its kernel; n1: draining"
        await site.until(lambda: site.left("n1") == {"w-0": ("stuck", said)}, "it says so")

    run([a_host("n1"), a_host("far", netns="another kernel"), *several("n1", 1)], work)


def test_two_drains_at_once_swap_nobody_and_the_last_host_keeps_its_own() -> None:
    async def work(site: Site) -> None:
        await site.draining.drain("n1", 2)
        await site.draining.drain("n2", 2)
        await site.until_empty("n1")
        await site.until_empty("n2")
        assert set(site.where().values()) == {"n3"}
        requested = [text for kind, text in site.events.said if kind == "move-requested"]
        assert len(requested) == 4 and all(text.endswith("to n3") for text in requested)
        await site.draining.drain("n3", 2)
        said = {("stuck", "no host fits; n1, n2, n3: draining")}
        await site.until(lambda: set(site.left("n3").values()) == said, "they stay")

    more = [*several("n1", 2), *a_workspace("x", "n2"), *a_workspace("y", "n2")]
    run(three_hosts(*more), work)


def test_a_wish_outlives_the_controller() -> None:
    async def whole() -> None:
        store = MemoryStore()
        records = three_hosts(PlaygroundRecord(name="lab", file="f", change="c"), *several("n1", 4))
        records += [AliveRecord(host=name, session="s") for name in ("n1", "n2", "n3")]
        await store.commit([], [Put(key_of(record), encode(record)) for record in records])
        async with a_controller(store) as first:
            await first.until(lambda: len(first.world.observed_workspaces) == 4, "all run")
            first.is_slow = True
            await first.draining.drain("n1", 2)
            await first.until(lambda: first.most == 2, "two move")
        async with a_controller(store) as second:
            await second.until_empty("n1")
            assert second.most <= 2
        await store.close()

    asyncio.run(whole())


def test_where_a_move_has_failed_another_host_is_tried_and_the_same_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining_module, "LOOK_S", 0.05)

    async def work(site: Site) -> None:
        site.refusing = {"n2"}
        await site.draining.drain("n1", 1)
        await site.until_empty("n1")
        assert set(site.where().values()) == {"n3"}
        await site.draining.drain("n3", 1)
        await site.draining.resume("n1")
        site.refusing = {"n1", "n2"}
        await site.until(lambda: len(site.left("n3")) == 1, "tried")
        failed = "its move there failed: no room on disk"
        await site.until(
            lambda: site.left("n3")["w-0"] == ("waiting", f"no host fits; n1, n2: {failed}; n3: draining"), ""
        )
        monkeypatch.setattr(draining_module, "RETRY_S", 0.0)
        site.refusing = set()
        await site.until_empty("n3")

    run(three_hosts(*several("n1", 1)), work)


def test_what_is_stopped_is_placed_anew_and_never_over_the_room_of_a_host() -> None:
    async def work(site: Site) -> None:
        await site.draining.drain("n1", 4)
        await site.until(
            lambda: (
                list(site.where().values()).count("n1") == 1
                and all(state == "stuck" for state, _ in site.left("n1").values())
            ),
            "two have left",
        )
        assert sorted(filter(None, site.where().values())) == ["n1", "n2", "n3"]
        assert [view.used_cpus for view in site.placing.views()] == [2.0, 2.0, 2.0]

    hosts_of_two = [a_host("n1", cpus=6), a_host("n2", cpus=2), a_host("n3", cpus=3)]
    run([*hosts_of_two, *several("n1", 2, cpus=2.0), *a_workspace("s", "n1", cpus=2.0, desired="stopped")], work)


def test_a_host_that_is_gone_cannot_be_emptied_and_says_so() -> None:
    async def work(site: Site) -> None:
        await site.draining.drain("dead", 2)
        said = "host dead is gone: what it runs there can't be moved"
        assert site.left("dead") == {"w-0": ("stuck", said)}

    run(three_hosts(a_host("dead"), *several("dead", 1)), work)


def test_a_playground_that_is_removed_leaves_a_drained_host_empty() -> None:
    async def work(site: Site) -> None:
        site.is_slow = True
        await site.draining.drain("n1", 2)
        await site.until(lambda: site.most == 2, "two move")
        names = list(site.where())
        site.is_slow = False
        await site.delete(*(f"{kind}/lab/{name}" for name in names for kind in ("workspace", "migration")))
        await site.delete(*(f"observed/workspace/lab/{name}/n1" for name in names))
        await site.until_empty("n1")

    run(three_hosts(*several("n1", 3)), work)


def test_nobody_is_moved_by_hand_to_a_drained_host_or_to_one_that_lacks_what_it_requires() -> None:
    hosts = [a_host("n1"), a_host("n2"), msgspec.structs.replace(a_host("n3"), facts={"kvm": "yes"})]

    async def work(site: Site) -> None:
        workspace = site.world.grids["lab"].workspaces["w-0"]
        await site.draining.drain("n3", 2)
        with pytest.raises(Refused, match="host n3 is drained; `playground host resume n3`"):
            await site.moves.request(workspace, "n3", measure=False)
        with pytest.raises(Refused, match="host n2 has no kvm, which lab/w-0 requires"):
            await site.moves.request(workspace, "n2", measure=False)

    run([*hosts, *several("n1", 1, requires=("kvm",))], work)


def test_those_that_keep_together_leave_together_for_one_host() -> None:
    together = {"labels": {"app": "db"}, "neighbours": Neighbours(affinity="app=db")}

    async def work(site: Site) -> None:
        await site.draining.drain("n1", 1)
        await site.until_empty("n1")
        assert len(set(site.where().values())) == 1

    run(three_hosts(*several("n1", 3, **together)), work)
