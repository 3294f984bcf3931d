"""Policies in changes: together or not at all, in the store and before the eyes of hosts, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec
import pytest

from playground.controller import batches as batches_module
from playground.controller import changes as changes_module
from playground.controller import status
from playground.controller.batches import batches
from playground.controller.events import EventLog
from playground.controller.moves import Moves
from playground.controller.placing import Placing
from playground.controller.preflight import Preflight
from playground.controller.progress import Progress
from playground.controller.shown import Shown, Touched
from playground.controller.tiers import Tiers
from playground.controller.world import World
from playground.records import AliveRecord, BindingRecord, Driver, HostRecord, ObservedHost, Record, encode, key_of
from playground.spec import PlaygroundSpec, load_playground
from playground.store.api import Delete, Put
from playground.store.memory import MemoryStore
from playground.view import SITE, View, playground_scope
from playground.wire import Complete
from tests.controller.test_changes import Died, Dying, Writer
from tests.controller.test_moves import FakeCarrier, no_meter

LAB = playground_scope("lab")


def a_file(ports: Sequence[int], *, role: str = "idle", workers: int = 2) -> PlaygroundSpec:
    """A policy for each port, and workers with a role."""
    policies = "".join(f"  - {{name: p{port}, subject: w, ingress: [{{ports: tcp/{port}}}]}}\n" for port in ports)
    return load_playground(
        "name: lab\nnetworks: {grid: {subnets: [10.20.0.0/24]}}\n"
        f"workspaces: {{w: {{scale: {workers}, networks: [grid], labels: {{role: {role}}}}}}}\npolicies:\n{policies}",
        "lab.yaml",
    )


class Host:
    """What one host is shown, as its agent would hold it."""

    def __init__(self, world: World) -> None:
        self.world, self.shown, self.view = world, Shown("n1"), View()
        self.sets: list[tuple[tuple[str, ...], frozenset[str]]] = []
        world.listen(self._changed)
        for message in self.shown.whole(world):
            self.view.take(message)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        touched = Touched()
        for key, before, after in changes:
            touched.add(key, before, after)
        self.shown.note(self.world, touched)
        self.look()

    def look(self) -> None:
        """Takes what is to be said, and notes policies and roles, if they are others than before."""
        for message in self.shown.difference(self.world):
            self.view.take(message)
        self.view.take(Complete(self.shown.revision(self.world)))
        scope = self.view.scopes.get(LAB)
        if scope is not None:
            now = tuple(sorted(scope.policies)), frozenset(port.labels["role"] for port in scope.ports.values())
            if not self.sets or self.sets[-1] != now:
                self.sets.append(now)


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few policies are many commits, and what a dead writer left counts as abandoned at once."""
    monkeypatch.setattr(batches_module, "BATCH", 4)
    monkeypatch.setattr(changes_module, "ABANDONED_S", 0.0)


async def bound(writer: Writer, store: MemoryStore) -> Host:
    """A host that takes part in the playground."""
    grid = writer.world.grids["lab"]
    records: list[Record] = [HostRecord(name="n1", site="s", underlay="192.0.2.1"), AliveRecord(host="n1", session="x")]
    records += [
        BindingRecord(port=port.id, playground="lab", workspace=port.workspace, active="n1", source="n1")
        for port in grid.ports.values()
    ]
    for record in records:
        await store.commit([], [Put(key_of(record), encode(record))])
    await writer.world.load()
    return Host(writer.world)


def test_many_policies_and_labels_come_before_a_hosts_eyes_at_once() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file(range(1, 12)))
            host = await bound(writer, store)
            host.look()
            await writer.changes.accept(a_file(range(9, 30), role="busy"))
            names = [tuple(sorted(f"p{port}" for port in ports)) for ports in (range(1, 12), range(9, 30))]
            assert host.sets == [(names[0], frozenset({"idle"})), (names[1], frozenset({"busy"}))]

    run(work())


def test_a_host_that_is_shown_all_anew_meanwhile_sees_the_policies_as_they_were() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file([1, 2]))
            host = await bound(writer, store)
            with writer.world.withhold("lab"):
                before = writer.world.revision
                await store.commit([], [Delete("policy/lab/p1")])
                await writer.world.load()
                anew = Host(writer.world)
                assert set(anew.view.scopes[LAB].policies) == {"p1", "p2"}
                assert anew.view.revision == before < writer.world.revision
            assert [set(one.view.scopes[LAB].policies) for one in (host, anew)] == [{"p2"}] * 2
            assert anew.view.revision == writer.world.revision

    run(work())


def test_the_sites_policies_come_before_a_hosts_eyes_at_once() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file([1]))
            host = await bound(writer, store)
            tiers = Tiers(store, writer.world, EventLog(store, writer.world), "here")
            seen: set[frozenset[str]] = set()
            writer.world.listen(lambda changes, revision: seen.add(frozenset(host.view.scopes[SITE].policies)))
            line = "- {{name: s{}, priority: {}, subject: role=none, ingress: []}}\n"
            sets = [frozenset(f"s{number}" for number in numbers) for numbers in (range(80), range(70, 150))]
            for names in sets:
                text = "".join(line.format(name[1:], name[1:]) for name in sorted(names))
                await tiers.apply("site.yaml", f"name: here\npolicies:\n{text}")
            assert seen == {frozenset(), *sets}

    run(work())


def test_new_ports_come_after_the_policies_about_them() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file([], workers=1))
            host = await bound(writer, store)
            seen: list[tuple[int, int]] = []

            def look() -> None:
                grid = writer.world.grids["lab"]
                seen.append((len(host.view.scopes[LAB].policies), len(grid.ports)))

            writer.world.listen(lambda changes, revision: look())
            await writer.changes.accept(a_file(range(1, 12), workers=6))
            assert all(policies == 11 for policies, ports in seen if ports > 1)

    run(work())


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(("before", "after"), [((), range(1, 9)), (range(1, 9), range(5, 16)), (range(1, 9), ())])
def test_a_writer_that_dies_at_any_commit_leaves_all_policies_or_those_of_before(
    before: Sequence[int], after: Sequence[int], done: bool
) -> None:
    async def once(at: int) -> bool:
        store = Dying()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file(before))
            store.at, store.done, store.count = at, done, 0
            died = False
            try:
                await writer.changes.accept(a_file(after))
            except Died:
                died = True
        store.at = -1
        async with Writer(store) as heir:
            await heir.changes.recover()
            allowed = [{f"p{port}" for port in ports} for ports in (before, after)]
            assert set(heir.world.grids["lab"].policies) in allowed  # before any host is shown it
            await heir.clean()
            assert set(heir.world.grids["lab"].policies) == set(heir.changes.written["lab"])
            assert set(heir.world.grids["lab"].policies) in allowed
            assert not heir.world.changes
        return died

    async def work() -> None:
        at = 0
        while await once(at):
            at += 1
        assert at >= 2, "the change was not made of several commits"

    run(work())


@pytest.mark.parametrize("after", [[1, 2, 3], [1], [2, 3], []])
def test_a_playground_has_not_converged_before_its_hosts_have_applied_its_policies(after: list[int]) -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file([1, 2], workers=0))
            spec = a_file([1, 2], workers=1)
            await writer.changes.accept(spec)
            host = await bound(writer, store)
            progress = Progress(writer.world, lambda name: True)

            async def applied() -> bool:
                """Whether a host waits for nothing once it says what it has applied."""
                seen = ObservedHost(host="n1", version="1", applied=host.view.revision)
                await store.commit([], [Put(key_of(seen), encode(seen))])
                await writer.world.load()
                return not behind()

            def behind() -> bool:
                progress.of("lab")
                return writer.world.observed_hosts["n1"].applied < progress._kept["lab"].newest

            host.look()
            assert await applied()
            await writer.changes.accept(a_file(after, workers=1))
            assert behind()
            host.look()
            assert await applied()

    run(work())


def test_a_removed_playground_leaves_no_policy_in_the_store() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file([1, 2]))
            await writer.changes.remove("lab")
            await writer.clean()
            items, _ = await store.list("")
            assert [item.key for item in items if "lab" in item.key] == []
            assert writer.changes.written == {}

    run(work())


def test_commits_are_bounded_in_operations_and_bytes() -> None:
    small_ones = [(None, Put(f"k{number}", b"x")) for number in range(9)]
    assert [len(part) for part in batches(small_ones)] == [4, 4, 1]
    large_ones = [(None, Put(f"k{number}", b"x" * 400_000)) for number in range(5)]
    assert [len(part) for part in batches(large_ones)] == [2, 2, 1]
    assert list(batches([])) == []


def test_a_host_that_says_it_can_enforce_now_is_given_what_waited() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            world = writer.world
            drivers = (Driver("netns", "same-kernel", "k"),)
            records: list[Record] = [
                HostRecord(name="n1", site="s", underlay="192.0.2.1", drivers=drivers),
                AliveRecord(host="n1", session="x"),
                ObservedHost(host="n1", version="1", cannot_police="no nftables"),
            ]
            for record in records:
                await store.commit([], [Put(key_of(record), encode(record))])
            await world.load()
            await writer.changes.accept(a_file([1], workers=1))
            events = EventLog(store, world)
            preflight = Preflight(world, None, no_meter)  # type: ignore[arg-type]
            placing = Placing(store, world, Moves(store, world, events, no_meter, FakeCarrier(), preflight), events)
            while await placing.once():
                pass
            workspace = world.grids["lab"].workspaces["w-0"]
            assert (workspace.host, workspace.reason) == (None, "no host fits; n1: can't enforce policies: no nftables")
            assert status.hosts(world)[0]["problems"] == ["can't enforce policies: no nftables"]
            able = ObservedHost(host="n1", version="1")
            await store.commit([], [Put(key_of(able), encode(able))])
            await world.load()
            while await placing.once():
                pass
            assert world.grids["lab"].workspaces["w-0"].host == "n1"

    run(work())


def test_ports_of_a_store_of_before_there_were_policies_get_all_their_labels() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await writer.changes.accept(a_file([]))
            labels = {id: port.labels for id, port in writer.world.grids["lab"].ports.items()}
            for port in writer.world.grids["lab"].ports.values():
                old = msgspec.structs.replace(port, schema=1, labels={})
                await store.commit([], [Put(key_of(old), encode(old))])
        async with Writer(store) as heir:
            await heir.clean()
            grid = heir.world.grids["lab"]
            assert {id: port.labels for id, port in grid.ports.items()} == labels
            assert {port.schema for port in grid.ports.values()} == {2}
            assert {workspace.generation for workspace in grid.workspaces.values()} == {1}

    run(work())
