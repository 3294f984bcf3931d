"""Where workspaces go, and why they don't."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from playground.inventory import ALL, Neighbours, Share, Strategy
from playground.machine import Machine
from playground.neighbourhood import Kind, kind_of
from playground.placement import HostView, Refusal, given_cpus, given_memory_mib, place
from playground.records import Driver, HostRecord, WorkspaceRecord
from policies.selector import parse_selector

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
    share: Share = ALL,
    facts: Mapping[str, str] = {},
    holds: Sequence[WorkspaceRecord] = (),
    is_draining: bool = False,
    **labels: str,
) -> HostView:
    """holds: workspaces with what neighbours see of them."""
    record = HostRecord(
        name=name,
        site="s",
        underlay="192.0.2.1",
        labels=labels,
        cpus=cpus,
        memory_mib=memory_mib,
        drivers=drivers,
        share=share,
        facts=dict(facts),
    )
    counts = Counter([*(playground for playground, _ in placed), *(one.playground for one in holds)])
    kinds: dict[str, Counter[Kind]] = {}
    for one in holds:
        kinds.setdefault(one.playground, Counter())[kind_of(one)] += 1
    used_cpus += sum(one.cpus for one in holds)
    return HostView(record, is_up, used_cpus, used_memory_mib, counts, kinds=kinds, is_draining=is_draining)


def a_workspace(
    name: str,
    playground: str = "lab",
    pin: str | None = None,
    cpus: float = 0.0,
    memory_mib: int = 0,
    requires: tuple[str, ...] = (),
    host: str | None = None,
    strategy: Strategy = "spread",
    affinity: str = "",
    anti_affinity: str = "",
    prefers: str = "",
    shuns: str = "",
    **labels: str,
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
        requires=requires,
        host=host,
        labels=labels,
        neighbours=Neighbours(strategy, affinity, anti_affinity, prefers, shuns),
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


def test_a_host_gives_what_it_does_not_keep_so_many_times_over() -> None:
    host = a_view("n1", cpus=8, memory_mib=16384, share=Share(2, 4096, 4, 1.5)).record
    assert (given_cpus(host), given_memory_mib(host)) == (24.0, 18432)
    found = HostRecord(name="n2", site="s", underlay="192.0.2.2", found_cpus=4, found_memory_mib=2048)
    assert (given_cpus(found), given_memory_mib(found)) == (4.0, 2048)
    assert answer(a_workspace("w", cpus=24), a_view("n1", cpus=8, share=Share(2, 0, 4))) == "n1"
    assert answer(a_workspace("w", cpus=24.5), a_view("n1", cpus=8, share=Share(2, 0, 4))) == Refusal(
        "no host fits; n1: 24 of 24 cpus free, 24.5 wanted"
    )
    assert given_cpus(a_view("n1", cpus=1, share=Share(2)).record) == 0


def test_a_drained_host_takes_nobody() -> None:
    assert answer(a_workspace("w"), a_view("n1", is_draining=True), a_view("n2", ("lab", "v"))) == "n2"
    assert answer(a_workspace("w"), a_view("n1", is_draining=True), a_view("n2", cpus=4, used_cpus=2)) == "n2"
    assert answer(a_workspace("w", cpus=3), a_view("n1", is_draining=True), a_view("n2", cpus=4, used_cpus=2)) == (
        Refusal("no host fits; n1: draining; n2: 2 of 4 cpus free, 3 wanted")
    )


def test_what_a_workspace_requires_is_a_label_or_what_the_agent_says() -> None:
    hosts = (a_view("n1", facts={"arch": "x86_64"}), a_view("n2", facts={"kvm": "yes", "arch": "x86_64"}, gpu="a100"))
    assert answer(a_workspace("w", requires=("kvm",)), *hosts) == "n2"
    assert answer(a_workspace("w", requires=("arch=x86_64",)), *hosts) == "n1"
    assert answer(a_workspace("w", requires=("kvm", "gpu in (a100,h100)")), *hosts) == "n2"
    assert answer(a_workspace("w", requires=("kvm", "gpu=h100")), *hosts) == Refusal(
        "no host fits; n1: has no kvm; n2: has no gpu=h100"
    )


def test_a_machine_goes_where_its_processors_are() -> None:
    arm, both = (Driver("libvirt", "live", archs=archs) for archs in (("aarch64",), ("aarch64", "x86_64")))
    hosts = (a_view("n1", drivers=(arm,)), a_view("n2", drivers=(both,)))
    vm = msgspec.structs.replace(a_workspace("w"), driver="libvirt", machine=Machine(arch="x86_64"))
    assert answer(vm, *hosts) == "n2"
    assert answer(vm, hosts[0]) == Refusal("no host fits; n1: runs no x86_64 (runs aarch64)")
    assert answer(vm, a_view("n3", drivers=(Driver("libvirt", "live"),))) == "n3"


def test_a_machine_goes_where_its_type_runs_and_one_of_none_to_qemu() -> None:
    kinds = {"n1": ("kvm", "qemu"), "n2": ("xen",), "n3": ("lxc",)}
    hosts = [a_view(name, drivers=(Driver("libvirt", "live", types=types),)) for name, types in kinds.items()]

    def of(type: str) -> WorkspaceRecord:
        return msgspec.structs.replace(a_workspace("w"), driver="libvirt", machine=Machine(type=type))

    assert [answer(of(type), *hosts) for type in ("kvm", "", "xen", "lxc")] == ["n1", "n1", "n2", "n3"]
    assert answer(of("xen"), *hosts[::2]) == Refusal(
        "no host fits; n1: runs no machine of type xen (runs kvm, qemu); n3: runs no machine of type xen (runs lxc)"
    )
    assert answer(of(""), hosts[1]) == Refusal("no host fits; n2: runs no machine of type kvm or qemu (runs xen)")


def test_packing_fills_one_host_before_the_next() -> None:
    workspaces = [a_workspace(f"w-{n}", cpus=1, strategy="pack") for n in range(5)]
    found = place(workspaces, [a_view("n1", cpus=2), a_view("n2", cpus=2), a_view("n3", cpus=2)])
    assert [found["lab", f"w-{n}"] for n in range(5)] == ["n1", "n1", "n2", "n2", "n3"]


def test_one_follows_those_that_it_has_affinity_to_whichever_is_named_first() -> None:
    web = [a_workspace(f"a-{n}", affinity="app=db") for n in range(3)]
    db = a_workspace("z", app="db", cpus=1)
    hosts = [a_view("n1", cpus=0), a_view("n2", cpus=1)]
    assert set(place([*web, db], hosts).values()) == {"n2"}
    assert answer(web[0], *hosts) == Refusal("no host fits; n1, n2: no workspace with app=db is there")
    chain = [
        a_workspace("a", affinity="of=b", of="a"),
        a_workspace("b", affinity="of=c", of="b"),
        a_workspace("c", of="c"),
    ]
    assert set(place(chain, [a_view("n1"), a_view("n2")]).values()) == {"n1"}


def test_the_first_of_those_that_keep_together_goes_anywhere_and_the_others_follow() -> None:
    together = [a_workspace(f"w-{n}", affinity="app=db", app="db") for n in range(3)]
    assert set(place(together, [a_view("n1", ("lab", "x")), a_view("n2")]).values()) == {"n2"}
    there = a_workspace("w-0", app="db", host="n1", affinity="app=db")
    hosts = (a_view("n1", holds=[there], is_draining=True), a_view("n2"))
    assert answer(there, *hosts) == "n2"
    assert answer(together[1], *hosts) == "n2"


def test_anti_affinity_holds_both_ways() -> None:
    apart = [a_workspace(f"w-{n}", anti_affinity="app=db", app="db") for n in range(3)]
    found = place(apart, [a_view("n1"), a_view("n2")])
    assert [found["lab", f"w-{n}"] for n in range(2)] == ["n1", "n2"]
    assert found["lab", "w-2"] == Refusal("no host fits; n1, n2: a workspace with app=db is there")
    shy = a_view("n1", holds=[a_workspace("shy", anti_affinity="app=db")])
    assert answer(a_workspace("w", app="db"), shy) == Refusal("no host fits; n1: a workspace there keeps app=db away")
    assert answer(a_workspace("w", playground="other", app="db"), shy) == "n1"


def test_preferences_count_before_strategy_and_keep_nobody_away() -> None:
    db, quiet = a_workspace("d", app="db"), a_workspace("q", app="quiet")
    hosts = (a_view("n1", holds=[db, db]), a_view("n2", holds=[quiet]), a_view("n3", ("lab", "x"), ("lab", "y")))
    assert answer(a_workspace("w", prefers="app=db"), *hosts) == "n1"
    assert answer(a_workspace("w", shuns="app in (db, quiet)"), *hosts) == "n3"
    assert answer(a_workspace("w", shuns="app=db"), hosts[0]) == "n1"
    assert answer(a_workspace("w", prefers="app=web"), *hosts) == "n2"


labels = st.sampled_from(["a", "b"])
rules = st.sampled_from(["", "", "app=a", "app=b", "has(app)"])
some_workspaces = st.lists(
    st.tuples(st.integers(0, 3), labels, rules, rules, st.sampled_from(["", "fast"])), min_size=1, max_size=5
)
some_hosts = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.booleans(), st.sampled_from([1.0, 2.0])), min_size=1, max_size=3
)


def some(wanted: list[tuple[int, str, str, str, str]]) -> list[WorkspaceRecord]:
    """None of which, placed as the first of those that it wants beside it, is left by one of them: affinity counts when
    one is placed, and whoever comes later follows its own."""
    found = [
        a_workspace(f"w{n}", cpus=size, affinity=near, anti_affinity=far, requires=(need,) if need else (), app=label)
        for n, (size, label, near, far, need) in enumerate(wanted)
    ]
    for one, other in itertools.permutations(found, 2):
        assume(not (follows(one, one) and follows(one, other)) or follows(other, one))
    return found


def follows(one: WorkspaceRecord, other: WorkspaceRecord) -> bool:
    """Whether it wants to be where the other is."""
    near = one.neighbours.affinity if one.neighbours is not None else ""
    return bool(near) and parse_selector(near).matches(other.labels)


def is_lawful(where: Mapping[str, str], workspaces: Sequence[WorkspaceRecord], hosts: Sequence[HostView]) -> bool:
    """Whether a placement, by workspace, breaks no bound and no hard rule: told from the rules' words alone."""
    by_name = {host.record.name: host for host in hosts}
    for name, host in by_name.items():
        there = [one for one in workspaces if where.get(one.name) == name]
        limit = (host.record.cpus or 0) * host.record.share.overcommit_cpus
        if sum(one.cpus for one in there) > limit or (there and host.is_draining):
            return False
        for one in there:
            if any(need not in host.record.facts for need in one.requires):
                return False
            assert one.neighbours is not None
            others = [other for other in there if other is not one]
            far, near = one.neighbours.anti_affinity, one.neighbours.affinity
            if far and any(parse_selector(far).matches(other.labels) for other in others):
                return False
            if near and not any(parse_selector(near).matches(other.labels) for other in others):
                elsewhere = [o for o in workspaces if o is not one and where.get(o.name) not in (None, name)]
                is_first = parse_selector(near).matches(one.labels) and not any(
                    parse_selector(near).matches(other.labels) for other in elsewhere
                )
                if not is_first:
                    return False
    return True


@settings(max_examples=150, deadline=None)
@given(some_workspaces, some_hosts, st.randoms(use_true_random=False))
def test_no_rule_is_broken_and_who_is_refused_has_no_place_left(
    wanted: list[tuple[int, str, str, str, str]], offered: list[tuple[int, bool, bool, float]], random: object
) -> None:
    workspaces = some(wanted)
    hosts = [
        a_view(f"n{n}", cpus=cpus, is_draining=drains, facts={"fast": "yes"} if fast else {}, share=Share(0, 0, factor))
        for n, (cpus, drains, fast, factor) in enumerate(offered)
    ]
    found = place(workspaces, hosts)
    assert found == place(random_order(random, workspaces), random_order(random, hosts))
    where = {name: host for (_, name), host in found.items() if isinstance(host, str)}
    assert is_lawful(where, workspaces, hosts)
    for workspace in workspaces:
        if workspace.name not in where:
            assert not any(is_lawful({**where, workspace.name: host.record.name}, workspaces, hosts) for host in hosts)


@settings(max_examples=60, deadline=None)
@given(some_workspaces, some_hosts)
def test_all_find_a_place_one_by_one_as_they_do_together(
    wanted: list[tuple[int, str, str, str, str]], offered: list[tuple[int, bool, bool, float]]
) -> None:
    """Counts that are kept while workspaces are placed are those that are made anew."""
    workspaces = some(wanted)
    together = place(workspaces, a_site(offered, {}))
    where: dict[str, list[WorkspaceRecord]] = {}
    for name, host in together.items():
        workspace = next(one for one in workspaces if one.name == name[1])
        if isinstance(host, str):
            where.setdefault(host, []).append(workspace)
    for name, host in together.items():
        workspace = next(one for one in workspaces if one.name == name[1])
        others = {at: [one for one in those if one is not workspace] for at, those in where.items()}
        alone = place([workspace], a_site(offered, others))[name]
        assert isinstance(alone, str) == isinstance(host, str)


def a_site(
    offered: list[tuple[int, bool, bool, float]], holds: Mapping[str, Sequence[WorkspaceRecord]]
) -> list[HostView]:
    return [
        a_view(
            f"n{n}",
            cpus=cpus,
            is_draining=drains,
            facts={"fast": "yes"} if fast else {},
            share=Share(0, 0, factor),
            holds=holds.get(f"n{n}", ()),
        )
        for n, (cpus, drains, fast, factor) in enumerate(offered)
    ]
