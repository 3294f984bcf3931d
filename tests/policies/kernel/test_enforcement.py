"""Enforcement: what is given is in force, what somebody else touched is put back, what is refused is named."""

from __future__ import annotations

import errno
import json
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from filter_lab import Namespace
from hypothesis import HealthCheck, given, settings
from kernel_rulesets import rulesets

from policies.compile.changes import Command
from policies.compile.tables import Chain, Part, Ruleset, SetShape
from policies.kernel import libnftables
from policies.kernel.enforcement import Enforcement
from policies.kernel.memory import MemoryEnforcement
from policies.kernel.transaction import Transactions

TABLE = ("inet", "playground_policy")
HOOK = "type filter hook forward priority 0; policy accept;"


def a_ruleset(*subjects: str, rule: str = "drop") -> Ruleset:
    static = Part(
        {"base": Chain(("iifname . ip saddr vmap @jumps", 'counter name "seen"'), HOOK)},
        {
            "jumps": SetShape("map", "typeof iifname . ip saddr : verdict;"),
            "met": SetShape("set", "typeof ip saddr; flags dynamic;"),
        },
        {},
        frozenset({"seen"}),
    )
    found: dict[object, Part] = {"static": static}
    for number, name in enumerate(subjects, 1):
        jump = {f'"br1" . 10.0.0.{number}': f"jump {name}"}
        found[name] = Part({name: Chain((rule,))}, {}, {"jumps": jump})
    return {TABLE: found}


@dataclass
class Case:
    """Either kind. tamper: deletes the table behind its back; refuse: a part that it will not take, made so."""

    enforcement: Enforcement | MemoryEnforcement
    tamper: Callable[[], None]
    refuse: Callable[[Ruleset, str], Ruleset]
    bridge: Callable[[str], None]
    namespace: Namespace | None = field(default=None)


def a_memory() -> Iterator[Case]:
    memory = MemoryEnforcement()

    def refuse(ruleset: Ruleset, key: str) -> Ruleset:
        memory.refuses[TABLE, key] = "no"
        return ruleset

    memory.bridges = frozenset()

    def bridge(name: str) -> None:
        memory.bridges = (memory.bridges or frozenset()) | {name}

    yield Case(memory, lambda: memory.tamper(table=1), refuse, bridge)
    memory.close()


def a_kernel() -> Iterator[Case]:
    namespace = Namespace()
    enforcement = Enforcement(namespace.path)

    def refuse(ruleset: Ruleset, key: str) -> Ruleset:
        broken = replace(ruleset[TABLE][key], chains={key: Chain(("jump nowhere",))})
        return {TABLE: {**ruleset[TABLE], key: broken}}

    yield Case(
        enforcement,
        lambda: (namespace.run("nft delete table inet playground_policy"), None)[1],
        refuse,
        lambda name: (namespace.run(f"ip link add {name} type bridge"), None)[1],
        namespace,
    )
    enforcement.close()
    namespace.close()


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.system)])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield from (a_memory() if request.param == "memory" else a_kernel())


def hears(enforcement: Enforcement | MemoryEnforcement) -> bool:
    """Whether it tells within two seconds that it was touched."""
    while select.select([enforcement], [], [], 2)[0]:
        if enforcement.touched():
            return True
    return False


def test_what_is_given_is_in_force_and_nothing_was_repaired(case: Case) -> None:
    for ruleset in (a_ruleset("a"), a_ruleset("a", "b"), a_ruleset("b")):
        outcome = case.enforcement.converge(ruleset)
        assert (outcome.cause, outcome.refused, outcome.repaired) == ("", {}, {})
        assert not case.enforcement.converge(ruleset, is_doubted=True).repaired
        assert not case.enforcement.touched()


def test_a_touched_table_is_heard_and_put_back(case: Case) -> None:
    case.enforcement.converge(a_ruleset("a"))
    assert not case.enforcement.touched()
    case.tamper()
    assert hears(case.enforcement)
    assert case.enforcement.converge(a_ruleset("a")).repaired == {"table": 1}
    assert not case.enforcement.touched()
    assert not case.enforcement.converge(a_ruleset("a"), is_doubted=True).repaired


def test_a_part_that_is_refused_is_named_and_the_others_go_in(case: Case) -> None:
    case.enforcement.converge(a_ruleset("a"))
    outcome = case.enforcement.converge(case.refuse(a_ruleset("a", "b", "c"), "b"))
    assert not outcome.cause and list(outcome.refused) == [(TABLE, "b")] and outcome.refused[TABLE, "b"]
    if isinstance(case.enforcement, MemoryEnforcement):
        case.enforcement.refuses.clear()
    assert case.enforcement.converge(a_ruleset("a", "b", "c")).refused == {}
    assert not case.enforcement.converge(a_ruleset("a", "b", "c"), is_doubted=True).repaired


@pytest.mark.system
def test_beside_a_part_that_is_refused_the_others_go_in_in_whatever_order_they_come(
    kernel: tuple[Enforcement, Namespace],
) -> None:
    enforcement, namespace = kernel
    parts = a_ruleset("a", "b", "c")[TABLE]
    broken = replace(parts["b"], chains={"b": Chain(("jump nowhere",))})
    jumping = Part({"d": Chain(("jump a",))})
    outcome = enforcement.converge(
        {TABLE: {"d": jumping, "b": broken, "c": parts["c"], "a": parts["a"], "static": parts["static"]}}
    )
    assert list(outcome.refused) == [(TABLE, "b")]
    listed = namespace.run("nft list ruleset")
    assert "jump a" in listed
    assert "10.0.0.3 : jump c" in listed
    assert "jump b" not in listed


def test_a_bridge_that_is_not_there_is_not_policed_until_it_is(case: Case) -> None:
    assert case.enforcement.converge({}, frozenset({"br1"})).unpoliced == {"br1"}
    case.bridge("br1")
    assert not case.enforcement.converge({}, frozenset({"br1"})).unpoliced


def test_an_enforcement_that_is_closed_twice_is_closed(case: Case) -> None:
    case.enforcement.close()
    case.enforcement.close()


def test_a_namespace_that_is_not_there_is_a_cause(tmp_path: Path) -> None:
    enforcement = Enforcement(tmp_path / "none")
    assert "none" in enforcement.converge({}).cause
    assert enforcement.can_police()
    enforcement.close()


@pytest.fixture
def kernel() -> Iterator[tuple[Enforcement, Namespace]]:
    for case in a_kernel():
        assert isinstance(case.enforcement, Enforcement) and case.namespace
        yield case.enforcement, case.namespace


EDITS = {
    "a rule that goes": ("flush chain inet playground_policy a", {"rules": 1}),
    "a rule that comes": ("insert rule inet playground_policy base accept", {"rules": 1}),
    "a chain that comes": ("add chain inet playground_policy theirs", {"chain": 1}),
    "a policy": ("chain inet playground_policy base { policy drop; }", {"hook": 1}),
    "an element that goes": ('delete element inet playground_policy jumps { "br1" . 10.0.0.1 }', {"element": 1}),
    "an element that comes": ('add element inet playground_policy jumps { "br9" . 10.0.0.1 : accept }', {"element": 1}),
    "an element with another verdict": (
        'delete element inet playground_policy jumps { "br1" . 10.0.0.1 }\n'
        'add element inet playground_policy jumps { "br1" . 10.0.0.1 : accept }',
        {"element": 1},
    ),
    "a set that comes": ("add set inet playground_policy theirs { type mark; }", {"set": 1}),
    "a counter that comes": ("add counter inet playground_policy theirs", {"counter": 1}),
    "a table of ours": ("add table ip playground_policy", {"table": 1}),
    "a table put to sleep": ("table inet playground_policy { flags dormant; }", {"hook": 1}),
    "everything": ("flush ruleset", {"table": 1}),
}


@pytest.mark.system
@pytest.mark.parametrize("edit", EDITS)
def test_whatever_is_edited_is_seen_and_put_back(kernel: tuple[Enforcement, Namespace], edit: str) -> None:
    enforcement, namespace = kernel
    enforcement.converge(a_ruleset("a", "b"))
    before = lines(namespace)
    command, repaired = EDITS[edit]
    namespace.run("nft -f -", command)
    assert hears(enforcement)
    assert enforcement.converge(a_ruleset("a", "b")).repaired == repaired
    assert lines(namespace) == before


def lines(namespace: Namespace) -> list[str]:
    """All that is in force, but for the order in which chains were made."""
    return sorted(namespace.run("nft -s list ruleset").splitlines())


@pytest.mark.system
def test_who_asks_whether_anything_was_touched_never_takes_what_another_thread_waits_for(
    kernel: tuple[Enforcement, Namespace],
) -> None:
    enforcement, _ = kernel
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            enforcement.touched()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(100):
            subjects = ("a", "b") if number % 2 else ("a",)
            assert enforcement.converge(a_ruleset(*subjects)).cause == ""
    finally:
        is_over.set()
        asking.join()


@pytest.mark.system
def test_a_restart_finds_what_is_in_force_and_changes_nothing(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel
    enforcement.converge(a_ruleset("a", "b"))
    before = namespace.run("nft -a -s list ruleset")
    again = Enforcement(namespace.path)
    assert again.converge(a_ruleset("a", "b")) == enforcement.converge(a_ruleset("a", "b"))
    assert namespace.run("nft -a -s list ruleset") == before  # with handles: nothing was made anew
    again.converge(a_ruleset("b"))
    again.close()
    assert enforcement.touched() and enforcement.converge(a_ruleset("b")).repaired


@pytest.mark.system
def test_who_changes_tables_between_a_look_and_our_change_is_seen_before_it(
    kernel: tuple[Enforcement, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    enforcement, namespace = kernel
    enforcement.converge(a_ruleset("a"))
    apply, edits = Transactions.apply, ["flush chain inet playground_policy a"]

    def late(self: Transactions, commands: Sequence[Command], generation: int) -> int:
        if edits:
            namespace.run(f"nft {edits.pop()}")
        return apply(self, commands, generation)

    monkeypatch.setattr(Transactions, "apply", late)
    outcome = enforcement.converge(a_ruleset("a", "b"))
    assert (outcome.cause, outcome.refused) == ("", {})
    assert not edits and not enforcement.converge(a_ruleset("a", "b"), is_doubted=True).repaired


@pytest.mark.system
def test_a_change_whose_answer_is_lost_is_looked_at_before_the_next(
    kernel: tuple[Enforcement, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    enforcement, _ = kernel
    enforcement.converge(a_ruleset("a"))
    apply = Transactions.apply

    def lost(self: Transactions, commands: Sequence[Command], generation: int) -> int:
        apply(self, commands, generation)
        raise OSError(errno.ENOBUFS, "too much was said")

    with monkeypatch.context() as patched:
        patched.setattr(Transactions, "apply", lost)
        assert "too much" in enforcement.converge(a_ruleset("a", "b")).cause
    assert enforcement.converge(a_ruleset("b")).cause == ""
    assert not enforcement.converge(a_ruleset("b"), is_doubted=True).repaired


@pytest.mark.system
def test_what_packets_filled_stays_through_a_repair(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel
    enforcement.converge(a_ruleset("a"))
    namespace.run("nft add element inet playground_policy met { 10.0.0.9 }")
    namespace.run("nft flush chain inet playground_policy a")
    enforcement.converge(a_ruleset("a"))
    assert "10.0.0.9" in namespace.run("nft list set inet playground_policy met")


@pytest.mark.system
def test_tables_of_others_are_left_alone(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel
    namespace.run("nft -f -", "table inet theirs { chain c { drop\n}\n}")
    before = namespace.run("nft list ruleset")
    enforcement.converge(a_ruleset("a"))
    enforcement.converge({})
    assert namespace.run("nft list ruleset") == before


@pytest.mark.system
def test_a_namespace_that_takes_the_place_of_another_is_filled_too(tmp_path: Path) -> None:
    one, other = Namespace(), Namespace()
    place = tmp_path / "namespace"
    place.symlink_to(one.path)
    enforcement = Enforcement(place)
    try:
        enforcement.converge(a_ruleset("a"))
        place.unlink()
        place.symlink_to(other.path)
        assert enforcement.converge(a_ruleset("a")).cause == ""
        assert "playground_policy" in other.run("nft list ruleset")
        other.run("nft flush ruleset")
        assert hears(enforcement)
    finally:
        enforcement.close()
        one.close()
        other.close()


@pytest.mark.system
def test_only_policed_bridges_send_their_packets_through(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel

    namespace.run("ip link add br1 type bridge")
    namespace.run("ip link add br2 type bridge")
    namespace.run("ip link set br2 up")
    assert enforcement.converge({}, frozenset({"br1"})).unpoliced == frozenset()
    assert policed(namespace) == {"br1"}
    assert enforcement.converge({}, frozenset({"br2"})).repaired == {}
    assert policed(namespace) == {"br2"}
    assert not enforcement.touched()
    namespace.run("ip link set br2 type bridge nf_call_ip6tables 0")
    assert hears(enforcement)
    outcome = enforcement.converge({}, frozenset({"br2"}))
    assert outcome.repaired == {"bridge": 1}
    assert outcome.mended == ("bridge br2 does not send its packets through the rules",)
    assert policed(namespace) == {"br2"}


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
        ("net.netfilter.nf_conntrack_tcp_loose", "1"),
        ("net.bridge.bridge-nf-call-iptables", "0"),
        ("net.bridge.bridge-nf-call-ip6tables", "0"),
    ],
)
def test_a_sysctl_that_somebody_turns_is_put_back_whenever_it_is_looked(
    kernel: tuple[Enforcement, Namespace], name: str, right: str
) -> None:
    enforcement, namespace = kernel
    enforcement.converge({})
    namespace.run(f"sysctl -qw {name}={1 - int(right)}")
    outcome = enforcement.converge({})
    assert (outcome.repaired, outcome.mended) == (
        {"sysctl": 1},
        (f"sysctl {name.replace('.', '/')} should be {right}",),
    )
    assert namespace.run(f"sysctl -n {name}").strip() == right
    assert enforcement.converge({}).repaired == {}


@pytest.mark.system
def test_a_policed_bridge_that_goes_is_heard_and_the_one_that_takes_its_place_is_policed(
    kernel: tuple[Enforcement, Namespace],
) -> None:
    enforcement, namespace = kernel
    namespace.run("ip link add br1 type bridge")
    assert enforcement.converge({}, frozenset({"br1"})).unpoliced == frozenset()
    namespace.run("ip link del br1")
    assert hears(enforcement)
    assert enforcement.converge({}, frozenset({"br1"})).unpoliced == {"br1"}
    namespace.run("ip link add br1 type bridge")
    assert enforcement.converge({}, frozenset({"br1"})).unpoliced == frozenset()
    assert policed(namespace) == {"br1"}


def policed(namespace: Namespace) -> set[str]:
    listed = json.loads(namespace.run("ip -j -d link show type bridge"))
    return {
        link["ifname"]
        for link in listed
        if link["linkinfo"]["info_data"]["nf_call_iptables"] and link["linkinfo"]["info_data"]["nf_call_ip6tables"]
    }


@pytest.mark.system
def test_this_kernel_can_police(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel
    assert enforcement.can_police() is None
    assert namespace.run("nft list ruleset") == ""


@pytest.mark.system
def test_counters_are_read_by_name(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, _ = kernel
    enforcement.converge(a_ruleset("a"))
    assert enforcement.counters() == {("playground_policy", "seen"): (0, 0)}


@pytest.mark.system
@given(rulesets(), rulesets())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_force_is_read_back_as_it_was_meant(
    kernel: tuple[Enforcement, Namespace], one: Ruleset, other: Ruleset
) -> None:
    enforcement, _ = kernel
    for ruleset in (one, other):
        outcome = enforcement.converge(ruleset)
        assert (outcome.cause, outcome.refused, outcome.repaired) == ("", {}, {})
        assert enforcement.converge(ruleset, is_doubted=True).repaired == {}


@pytest.mark.system
def test_without_the_library_the_command_does_the_same(
    kernel: tuple[Enforcement, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise OSError("no library")

    monkeypatch.setattr(libnftables, "LibNft", missing)
    enforcement, namespace = kernel
    assert enforcement.can_police() is None
    assert not enforcement.converge(a_ruleset("a")).cause
    namespace.run("nft flush ruleset")
    assert enforcement.converge(a_ruleset("a", "b")).repaired == {"table": 1}
    assert not enforcement.converge(a_ruleset("a", "b"), is_doubted=True).repaired
