"""Where workspaces go, and why they don't."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from playground.placement import HostView, Refusal, place
from playground.records import Driver, HostRecord, WorkspaceRecord

NETNS = (Driver("netns", "same-kernel", "k"),)


def a_view(
    name: str,
    *placed: tuple[str, str],
    is_up: bool = True,
    cpus: float | None = None,
    memory_mib: int | None = None,
    used_cpus: float = 0.0,
    used_memory_mib: int = 0,
    drivers: tuple[Driver, ...] = NETNS,
    **labels: str,
) -> HostView:
    record = HostRecord(
        name=name, site="s", underlay="192.0.2.1", labels=labels, cpus=cpus, memory_mib=memory_mib, drivers=drivers
    )
    return HostView(record, is_up, used_cpus, used_memory_mib, Counter(playground for playground, _ in placed))


def a_workspace(
    name: str, playground: str = "lab", pin: str | None = None, cpus: float = 0.0, memory_mib: int = 0
) -> WorkspaceRecord:
    return WorkspaceRecord(
        playground=playground,
        name=name,
        id="0" * 12,
        driver="netns",
        ports=(),
        pin=pin,
        cpus=cpus,
        memory_mib=memory_mib,
    )


def answer(workspace: WorkspaceRecord, *hosts: HostView) -> str | Refusal:
    return place([workspace], hosts)[workspace.playground, workspace.name]


def test_workspaces_spread_over_hosts() -> None:
    workspaces = [a_workspace(f"worker-{n}") for n in range(6)]
    found = place(workspaces, [a_view("n3"), a_view("n1"), a_view("n2")])
    assert [found["lab", f"worker-{n}"] for n in range(6)] == ["n1", "n2", "n3", "n1", "n2", "n3"]


def test_the_playgrounds_own_spread_comes_before_that_of_all() -> None:
    crowded = a_view("n1", ("other", "a"), ("other", "b"))
    assert answer(a_workspace("w"), crowded, a_view("n2", ("lab", "v"))) == "n1"
    assert answer(a_workspace("w"), crowded, a_view("n2", ("other", "v"))) == "n2"


def test_pins_and_selectors_choose_among_hosts() -> None:
    hosts = (a_view("n1", room="a"), a_view("n2", room="b"), a_view("n3", room="b", gpu="yes"))
    assert answer(a_workspace("w", pin="n2"), *hosts) == "n2"
    assert answer(a_workspace("w", pin="room=b, has(gpu)"), *hosts) == "n3"
    assert answer(a_workspace("w", pin="n9"), *hosts) == Refusal(
        "it is pinned to n9, which is no host of this site; hosts are n1, n2, n3"
    )
    assert answer(a_workspace("w", pin="room=c"), *hosts) == Refusal("no host fits; n1, n2, n3: not selected by room=c")


def test_a_refusal_names_each_hosts_reason() -> None:
    hosts = (
        a_view("n1", is_up=False),
        a_view("n2", drivers=(Driver("external", "cold"),)),
        a_view("n3", cpus=4, used_cpus=3.5),
        a_view("n4", memory_mib=1024, used_memory_mib=1000),
        a_view("n5", drivers=()),
    )
    assert answer(a_workspace("w", cpus=1, memory_mib=512), *hosts) == Refusal(
        "no host fits; n1: its agent is not connected; n2: has no driver netns (offers external); "
        "n3: 0.5 of 4 cpus free, 1 wanted; n4: 24 of 1024 MiB memory free, 512 MiB wanted; "
        "n5: has no driver netns (offers none)"
    )
    assert answer(a_workspace("w", pin="n1"), *hosts) == Refusal(
        "it is pinned to n1, and n1: its agent is not connected"
    )
    assert answer(a_workspace("w")) == Refusal("the site has no hosts; start an agent on one")


def test_what_declares_nothing_fits_on_a_full_host() -> None:
    assert answer(a_workspace("w"), a_view("n1", cpus=1, used_cpus=1, memory_mib=1, used_memory_mib=1)) == "n1"


def test_tenths_of_cpus_add_up() -> None:
    workspaces = [a_workspace(f"w-{n}", cpus=0.1) for n in range(11)]
    found = place(workspaces, [a_view("n1", cpus=1)])
    assert [found["lab", f"w-{n}"] for n in range(10)] == ["n1"] * 10
    assert isinstance(found["lab", "w-10"], Refusal)


def test_a_pinned_workspace_gets_its_host_before_others_fill_it() -> None:
    found = place([a_workspace("a", cpus=2), a_workspace("b", cpus=1, pin="n1")], [a_view("n1", cpus=2), a_view("n2")])
    assert found == {("lab", "a"): "n2", ("lab", "b"): "n1"}


sizes = st.integers(0, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(sizes, st.sampled_from([None, "n0", "room=a", "room!=a"]), st.sampled_from("pq")), max_size=8),
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from("ab"), st.booleans()), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_placement_is_within_every_bound_and_blind_to_order(
    wanted: list[tuple[int, str | None, str]], offered: list[tuple[int, str, bool]], random: object
) -> None:
    workspaces = [a_workspace(f"w{n}", playground, pin, size) for n, (size, pin, playground) in enumerate(wanted)]
    hosts = [a_view(f"n{n}", cpus=cpus, is_up=is_up, room=room) for n, (cpus, room, is_up) in enumerate(offered)]
    found = place(workspaces, hosts)
    assert found == place(random_order(random, workspaces), random_order(random, hosts))
    for host in hosts:
        there = [w for w in workspaces if found[w.playground, w.name] == host.record.name]
        assert host.record.cpus is not None
        assert sum(w.cpus for w in there) <= host.record.cpus
        assert host.is_up or not there
        assert all(
            w.pin in (None, host.record.name, "room=a" if host.record.labels["room"] == "a" else "room!=a")
            for w in there
        )
    for workspace in workspaces:
        # refused only when, after all placements, really nothing fits
        if isinstance(found[workspace.playground, workspace.name], Refusal):
            assert not any(would_fit(workspace, host, workspaces, found) for host in hosts)


def random_order(random: object, some: list[object] | list[WorkspaceRecord] | list[HostView]) -> list:  # type: ignore[type-arg]
    return random.sample(some, len(some))  # type: ignore[attr-defined,no-any-return]


def would_fit(workspace: WorkspaceRecord, host: HostView, workspaces: list[WorkspaceRecord], found: dict) -> bool:  # type: ignore[type-arg]
    used = sum(w.cpus for w in workspaces if found[w.playground, w.name] == host.record.name)
    room = host.record.labels["room"]
    is_selected = workspace.pin in (None, host.record.name, "room=a" if room == "a" else "room!=a")
    return host.is_up and is_selected and used + workspace.cpus <= (host.record.cpus or 0)


def test_a_policed_workspace_goes_to_no_host_that_cannot_enforce_policies() -> None:
    blind = replace(a_view("n1"), cannot_police="no nftables")
    assert place([a_workspace("w")], [blind, a_view("n2")], {"lab"})["lab", "w"] == "n2"
    assert place([a_workspace("w", "open")], [blind, a_view("n2")], {"lab"})["open", "w"] == "n1"
    refused = place([a_workspace("w")], [blind], {"lab"})["lab", "w"]
    assert refused == Refusal("no host fits; n1: can't enforce policies: no nftables")
