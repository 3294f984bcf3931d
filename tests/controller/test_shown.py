"""What a host is shown, kept by the change, is at any time what a deliberately dumb reading of all records gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.controller.shown import Shown, Touched, public
from playground.controller.world import Grid, World
from playground.records import (
    SITE_POLICIES,
    BindingRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    ObservedWorkspace,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.store.api import Item, Revision
from playground.store.memory import MemoryStore
from playground.view import SITE, View, host_scope, playground_scope
from playground.wire import Changed, Complete, Enter, Leave, Viewed
from playground.workspaces.migration import ENDED, State
from policies.codec import PackedPolicy

HOSTS = ("n1", "n2", "n3")
GRIDS = ("a", "b")
NAMES = ("u", "v", "@wan")

hosts = st.sampled_from(HOSTS)
grids = st.sampled_from(GRIDS)
names = st.sampled_from(NAMES)
maybe_host = st.none() | hosts

some_records: st.SearchStrategy[Record] = st.one_of(
    st.builds(lambda h, u: HostRecord(name=h, site="s", underlay=u, token_sha256="x"), hosts, st.sampled_from("12")),
    st.builds(
        lambda p, m: NetworkRecord(
            playground=p, name="n", id=f"net-{p}", vni=7, mtu=m, subnets=("10.0.0.0/24",), gateways=("10.0.0.1",)
        ),
        grids,
        st.sampled_from((1400, 1450)),
    ),
    st.builds(
        lambda p, w, h, g: WorkspaceRecord(
            playground=p, name=w, id=f"{p}-{w}", driver="netns", ports=(f"port-{p}-{w}",), host=h, generation=g
        ),
        grids,
        names,
        maybe_host,
        st.integers(1, 2),
    ),
    st.builds(
        lambda p, w, a: PortRecord(
            playground=p, workspace=w, network="n", network_id=f"net-{p}", id=f"port-{p}-{w}", mac="m", addresses=(a,)
        ),
        grids,
        names,
        st.sampled_from(("10.0.0.2", "10.0.0.3")),
    ),
    st.builds(
        lambda p, w, priority: PolicyRecord(playground=p, name=w, body=PackedPolicy((), (), priority=priority)),
        st.sampled_from((*GRIDS, SITE_POLICIES)),
        names,
        st.integers(0, 1),
    ),
    st.builds(
        lambda p, w, a, s, t: BindingRecord(
            port=f"port-{p}-{w}", playground=p, workspace=w, active=a, source=s, target=t
        ),
        grids,
        names,
        hosts,
        hosts,
        maybe_host,
    ),
    st.builds(
        lambda p, w, s, t, state: MigrationRecord(
            playground=p,
            workspace=w,
            source=s,
            target=t,
            state=state.value,
            generation=1,
            started_utc_s=0.0,
            deadline_utc_s=0.0,
        ),
        grids,
        names,
        hosts,
        hosts,
        st.sampled_from(State),
    ),
    st.builds(
        lambda p, w, h, s: ObservedWorkspace(playground=p, workspace=w, host=h, generation=1, state=s),
        grids,
        names,
        hosts,
        st.sampled_from(("running", "leaving")),
    ),
)
steps = st.tuples(some_records, st.booleans())
batches = st.lists(steps, min_size=1, max_size=4)


def naive_scopes(world: World, host: str) -> dict[str, dict[str, Viewed]]:
    """The host's view, from nothing but the records."""

    def concerns(grid: Grid, workspace: WorkspaceRecord) -> bool:
        move = grid.migrations.get(workspace.name)
        moving = move is not None and State(move.state) not in ENDED and host in (move.source, move.target)
        seen = world.observed_workspaces.get((workspace.playground, workspace.name), {})
        return workspace.host == host or moving or host in seen

    found: dict[str, list[Viewed]] = {
        SITE: [*(public(h) for h in world.hosts.values()), *world.site_policies.values()],
        host_scope(host): [],
    }
    for name, grid in world.grids.items():
        own = [w for w in grid.workspaces.values() if concerns(grid, w)]
        if own or any(host in (b.active, b.source, b.target) for b in grid.bindings.values()):
            found[playground_scope(name)] = [
                *grid.networks.values(),
                *grid.policies.values(),
                *grid.ports.values(),
                *grid.bindings.values(),
            ]
        for workspace in own:
            found[host_scope(host)].append(workspace)
            move = grid.migrations.get(workspace.name)
            if move is not None and host in (move.source, move.target):
                found[host_scope(host)].append(move)
    return {scope: {key_of(record): record for record in records} for scope, records in found.items()}


@dataclass
class Site:
    """A world that is fed by hand, and each host's view as its agent would hold it."""

    world: World = field(default_factory=lambda: World(MemoryStore()))
    shown: dict[str, Shown] = field(default_factory=lambda: {host: Shown(host) for host in HOSTS})
    views: dict[str, View] = field(default_factory=lambda: {host: View() for host in HOSTS})
    revision: int = 0

    def __post_init__(self) -> None:
        self.world.listen(self._changed)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        touched = Touched()
        for key, before, after in changes:
            touched.add(key, before, after)
        for shown in self.shown.values():
            shown.note(self.world, touched)

    def take(self, batch: list[tuple[Record, bool]]) -> None:
        self.revision += 1
        revision = Revision(self.revision)
        items = [
            (key_of(record), None if is_gone else Item(key_of(record), encode(record), revision, revision))
            for record, is_gone in batch
        ]
        self.world._take(items, revision)

    def tell(self, host: str, messages: list[Enter] | list[Enter | Changed | Leave]) -> int:
        for message in messages:
            self.views[host].take(msgspec.json.decode(msgspec.json.encode(message), type=type(message)))
        if messages:
            self.views[host].take(Complete(self.revision))
        return len(messages)


def held(view: View) -> dict[str, dict[str, Viewed]]:
    return {name: dict(scope.records) for name, scope in view.scopes.items()}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(batches, st.sets(hosts)), max_size=12))
def test_a_view_kept_by_the_change_is_the_view_made_from_nothing(history: list) -> None:
    site = Site()
    for host in HOSTS:
        site.tell(host, site.shown[host].whole(site.world))
    for batch, told in history:
        site.take(batch)
        for host in told:  # others hear of several batches at once, later
            site.tell(host, site.shown[host].difference(site.world))
    for host in HOSTS:
        site.tell(host, site.shown[host].difference(site.world))
        assert held(site.views[host]) == naive_scopes(site.world, host)
        assert site.shown[host].difference(site.world) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(batches, max_size=8))
def test_a_new_session_is_shown_what_the_old_one_had(history: list) -> None:
    site = Site()
    for batch in history:
        site.take(batch)
    for host in HOSTS:
        site.tell(host, site.shown[host].whole(site.world))
        assert held(site.views[host]) == naive_scopes(site.world, host)


def test_what_changes_in_one_playground_costs_nothing_in_another() -> None:
    site = Site()
    site.take(
        [
            (BindingRecord(port=f"port-a-{i}", playground="a", workspace="u", active="n1", source="n1"), False)
            for i in range(100)
        ]
    )
    for host in HOSTS:
        site.shown[host].whole(site.world)
    site.take([(BindingRecord(port="port-b-u", playground="b", workspace="u", active="n2", source="n2"), False)])
    assert not site.shown["n1"].difference(site.world)
    said = site.shown["n2"].difference(site.world)
    assert [type(message) for message in said] == [Enter] and len(said[0].records) == 1
