"""Tables as values: a difference says what has changed and no more, and leads where the whole leads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_rulesets import POLICY, listed, load, rulesets

from policies.compile.changes import as_text, difference
from policies.compile.tables import Chain, Clash, KeptParts, Part, Ruleset, SetShape, fingerprint, whole

JUMPS = SetShape("map", "typeof iifname . ip saddr : verdict;")


def a_table(**subjects: Part) -> Ruleset:
    static = Part(
        {"base": Chain(("iifname . ip saddr vmap @jumps",), "type filter hook forward priority 0; policy drop;")},
        {"jumps": JUMPS},
    )
    return {POLICY: {"static": static, **subjects}}


def a_subject(name: str, *rules: str, address: str = "10.0.0.1") -> Part:
    return Part({name: Chain(rules)}, {}, {"jumps": {f'"br1" . {address}': f"jump {name}"}})


def test_equal_rulesets_have_no_difference() -> None:
    assert as_text(difference(a_table(w=a_subject("w", "drop")), a_table(w=a_subject("w", "drop")))) == ""


def test_a_new_subject_is_its_chain_and_its_elements() -> None:
    assert as_text(difference(a_table(), a_table(w=a_subject("w", "drop")))) == (
        "add chain inet playground_test_policy w\n"
        f'add rule inet playground_test_policy w drop comment "{fingerprint("drop")}"\n'
        'add element inet playground_test_policy jumps { "br1" . 10.0.0.1 : jump w }\n'
    )


def test_a_subject_that_goes_takes_its_chain_along_after_what_led_there() -> None:
    assert as_text(difference(a_table(w=a_subject("w", "drop")), a_table())) == (
        "flush chain inet playground_test_policy w\n"
        'delete element inet playground_test_policy jumps { "br1" . 10.0.0.1 : jump w }\n'
        "delete chain inet playground_test_policy w\n"
    )


def test_a_changed_address_is_one_element_out_and_one_in() -> None:
    text = as_text(difference(a_table(w=a_subject("w")), a_table(w=a_subject("w", address="10.0.0.2"))))
    assert text.count("\n") == 2 and "chain" not in text


def test_what_moves_from_one_part_to_another_stays() -> None:
    assert as_text(difference(a_table(w=a_subject("w", "drop")), a_table(v=a_subject("w", "drop")))) == ""


def test_what_two_parts_name_is_refused() -> None:
    with pytest.raises(Clash, match="chain w is in two parts"):
        whole(a_table(w=a_subject("w"), v=a_subject("w", address="10.0.0.2")))
    with pytest.raises(Clash, match="element of jumps"):
        whole(a_table(w=a_subject("w"), v=a_subject("v")))


def test_a_table_that_nobody_needs_is_deleted() -> None:
    assert as_text(difference(a_table(), {})) == "delete table inet playground_test_policy\n"


@pytest.mark.system
@given(rulesets(), rulesets(), rulesets())
@settings(max_examples=25, deadline=None)
def test_a_difference_leads_where_the_whole_leads(one: Ruleset, other: Ruleset, third: Ruleset) -> None:
    load("flush ruleset\n" + whole(one))
    load(as_text(difference(one, other)))
    load(as_text(difference(other, third)))
    by_differences = listed()
    load("flush ruleset\n" + whole(third))
    assert by_differences == listed()
    load("flush ruleset")


SUBJECTS = st.dictionaries(st.integers(0, 2000), st.sampled_from(["drop", "accept", "set"]), max_size=12)


def a_part(subject: int, what: str) -> Part:
    return Part(sets={f"s{subject}": JUMPS}) if what == "set" else Part({f"c{subject}": Chain((what,))})


@given(SUBJECTS, st.lists(SUBJECTS, max_size=4))
@settings(max_examples=50, deadline=None)
def test_patched_parts_are_those_made_from_nothing(first: dict[int, str], histories: list[dict[int, str]]) -> None:
    made = {subject: a_part(subject, what) for subject, what in first.items()}
    kept = KeptParts(made)
    for wanted in histories:
        before, old = kept, dict(made)
        parts = {
            key: old[key] if key in old and old[key] == a_part(key, what) else a_part(key, what)
            for key, what in wanted.items()
        }
        changed = {key: parts.get(key) for key in old.keys() | parts.keys() if old.get(key) is not parts.get(key)}
        made, kept = parts, kept.patched(changed)
        fresh = KeptParts(made)
        assert dict(kept) == made == dict(fresh) and kept.sets == fresh.sets and len(kept) == len(made)
        assert sorted(kept.differing(before)) == sorted(changed) and dict(before) == old
        named = {("inet", "t"): before}, {("inet", "t"): kept}
        plain = {("inet", "t"): old}, {("inet", "t"): made}
        assert sorted(as_text(difference(*named)).splitlines()) == sorted(as_text(difference(*plain)).splitlines())
