"""How far a playground is, kept by the change, is at any time what a reading of all records says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from playground.controller.progress import Progress, whole
from playground.controller.world import World
from playground.records import (
    SITE_POLICIES,
    AliveRecord,
    BindingRecord,
    ClaimRecord,
    HostRecord,
    ObservedHost,
    ObservedPort,
    ObservedWorkspace,
    PlaygroundRecord,
    PoliciesRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
    address_claim,
    encode,
    key_of,
)
from playground.store.api import Item, Revision
from playground.store.memory import MemoryStore
from tests.controller.test_shown import GRIDS, HOSTS, NAMES, grids, hosts, names, some_records

A_CLAIM = address_claim("net-a", "0a000002")

more_records: st.SearchStrategy[Record] = st.one_of(
    st.builds(lambda h: AliveRecord(host=h, session="x"), hosts),
    st.builds(
        lambda p, c: PoliciesRecord(playground=p, change=c),
        st.sampled_from((*GRIDS, SITE_POLICIES)),
        st.sampled_from("cd"),
    ),
    st.builds(lambda p: PlaygroundRecord(name=p, file="f", change="c"), grids),
    st.builds(lambda h, a: ObservedHost(host=h, version="1", applied=a), hosts, st.sampled_from((0, 1_000_000))),
    st.builds(
        lambda p, w, h, s, held: ObservedPort(
            port=f"port-{p}-{w}", host=h, generation=1, programmed=s, leased=("10.0.0.2",) if held else ()
        ),
        grids,
        names,
        hosts,
        st.sampled_from(("forwarding", "waiting", "failed")),
        st.booleans(),
    ),
    st.builds(
        lambda w, v: ClaimRecord(owner=f"port-a-{w}", playground="a", change="c", previous=f"port-a-{v}"), names, names
    ),
)
batches = st.lists(
    st.tuples(some_records | more_records, st.sampled_from((False, False, True))), min_size=1, max_size=4
)


def at_rest() -> list[tuple[Record, bool]]:
    """A site as it should be: everything placed, bound, reported; what changes from here is seen."""
    found: list[Record] = []
    for host in HOSTS:
        found += [HostRecord(name=host, site="s", underlay="1", token_sha256="x"), AliveRecord(host=host, session="x")]
        found.append(ObservedHost(host=host, version="1", applied=1_000_000))
    for p in GRIDS:
        found.append(PlaygroundRecord(name=p, file="f", change="c"))
        for w, host in zip(NAMES, HOSTS, strict=False):
            port = f"port-{p}-{w}"
            found += [
                WorkspaceRecord(playground=p, name=w, id=f"{p}-{w}", driver="netns", ports=(port,), host=host),
                PortRecord(
                    playground=p,
                    workspace=w,
                    network="n",
                    network_id=f"net-{p}",
                    id=port,
                    mac="m",
                    addresses=("10.0.0.2",),
                ),
                BindingRecord(port=port, playground=p, workspace=w, active=host, source=host),
                ObservedPort(port=port, host=host, generation=1, programmed="forwarding", leased=("10.0.0.2",)),
                ObservedWorkspace(playground=p, workspace=w, host=host, generation=1, state="running"),
            ]
    return [(record, False) for record in found]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(batches, st.sets(grids)), max_size=8))
def test_progress_kept_by_the_change_is_what_a_reading_of_everything_says(history: list) -> None:
    world = World(MemoryStore())
    progress = Progress(world, lambda name: True)
    for number, (batch, asked) in enumerate([(at_rest(), set(GRIDS)), *history], 1):
        revision = Revision(number)
        keyed = [(A_CLAIM if isinstance(r, ClaimRecord) else key_of(r), r, gone) for r, gone in batch]
        world._take(
            [(key, None if gone else Item(key, encode(r), revision, revision)) for key, r, gone in keyed], revision
        )
        for name in asked:
            assert progress.of(name) == whole(world, name)
        if number == 1:
            assert all(progress.of(name)["converged"] for name in GRIDS)
    for name in GRIDS:
        assert progress.of(name) == whole(world, name)
        assert Progress(world, lambda name: True).of(name) == whole(world, name)
