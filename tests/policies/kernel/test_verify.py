"""Reading back: whatever was changed behind our back is told, object by object, and stays as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from filter_lab import Namespace
from test_enforcement import EDITS, a_kernel, a_ruleset

from policies.compile.tables import Chain, Part, Ruleset, SetShape
from policies.kernel.enforcement import Enforcement
from policies.verify import differences

TOLD = {
    "a rule that goes": "chain a: it has 0 rules, and should have 1",
    "a rule that comes": "chain base: it has 3 rules, and should have 2",
    "a chain that comes": "chain theirs should not be there",
    "a policy": "chain base: it is hooked as",
    "an element that goes": 'set jumps: element "br1" . 10.0.0.1 is missing',
    "an element that comes": 'set jumps: element "br9" . 10.0.0.1 should not be there',
    "an element with another verdict": 'set jumps: element "br1" . 10.0.0.1 is accept, and should be jump a',
    "a set that comes": "set theirs should not be there",
    "a counter that comes": "counter theirs should not be there",
    "a table of ours": "table ip playground_policy should not be there",
    "a table put to sleep": "it is hooked as 'nothing'",
    "everything": "table inet playground_policy is missing",
}


@pytest.fixture
def kernel() -> Iterator[tuple[Enforcement, Namespace]]:
    for case in a_kernel():
        assert isinstance(case.enforcement, Enforcement) and case.namespace
        yield case.enforcement, case.namespace


@pytest.mark.system
def test_what_is_in_force_has_no_differences(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, _ = kernel
    enforcement.converge(a_ruleset("a", "b"))
    assert enforcement.differences(a_ruleset("a", "b")) == []
    assert not enforcement.touched()


@pytest.mark.system
@pytest.mark.parametrize("edit", EDITS)
def test_whatever_is_edited_is_told_and_not_mended(kernel: tuple[Enforcement, Namespace], edit: str) -> None:
    enforcement, namespace = kernel
    enforcement.converge(a_ruleset("a", "b"))
    command, repaired = EDITS[edit]
    namespace.run("nft -f -", command)
    for _ in range(2):
        said = enforcement.differences(a_ruleset("a", "b"))
        assert TOLD[edit] in " ".join(said)
    outcome = enforcement.converge(a_ruleset("a", "b"))
    assert (outcome.repaired, outcome.mended) == (repaired, tuple(said))
    assert enforcement.differences(a_ruleset("a", "b")) == []


@pytest.mark.system
def test_switches_that_somebody_turned_are_told(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel
    for name in ("br1", "br2"):
        namespace.run(f"ip link add {name} type bridge")
    enforcement.converge(a_ruleset("a"), frozenset({"br1"}))
    assert enforcement.differences(a_ruleset("a"), frozenset({"br1"})) == []
    namespace.run("ip link set br1 type bridge nf_call_iptables 0")
    namespace.run("ip link set br2 type bridge nf_call_ip6tables 1")
    assert enforcement.differences(a_ruleset("a"), frozenset({"br1", "br3"})) == [
        "bridge br1 does not send its packets through the rules",
        "bridge br2 sends its packets through the rules",
        "bridge br3 is missing",
    ]


@pytest.mark.system
def test_what_packets_fill_into_a_set_is_no_difference(kernel: tuple[Enforcement, Namespace]) -> None:
    enforcement, namespace = kernel
    enforcement.converge(a_ruleset("a"))
    namespace.run("nft add element inet playground_policy met { 10.0.0.9 }")
    assert enforcement.differences(a_ruleset("a")) == []


def test_a_rule_in_another_place_is_told_by_the_first_that_is_not_as_it_should_be() -> None:
    table = ("inet", "t")
    found, wanted = (
        {table: {"p": Part({"c": Chain(rules)}, {"s": SetShape("set", text)})}}
        for rules, text in ((("accept", "drop"), "type mark;"), (("drop", "accept"), "type inet_service;"))
    )
    assert list(differences(found, wanted)) == [
        "table inet t: chain c: rule 1 is not 'drop'",
        "table inet t: set s is of another type",
    ]


def test_equal_tables_have_no_differences_however_they_are_parted() -> None:
    one, two = Part({"a": Chain(("drop",))}), Part({"b": Chain(("drop",))})
    parted: Ruleset = {("inet", "t"): {"one": one, "two": two}}
    whole: Ruleset = {("inet", "t"): {"all": Part({**one.chains, **two.chains})}}
    assert list(differences(parted, whole)) == []
