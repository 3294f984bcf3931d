"""Selectors over host labels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.spec import SelectorError, parse_selector
from policies.selector import is_selector

keys = st.sampled_from(["room", "gpu", "in", "has", "a.b/c"])
values = st.sampled_from(["a", "b", "7", "in"])
labels = st.dictionaries(keys, values)


@settings(deadline=None, max_examples=50)
@given(labels, keys, st.lists(values, min_size=1, max_size=3))
def test_each_condition_means_what_it_says(labels: dict[str, str], key: str, some: list[str]) -> None:
    joined = ", ".join(some)
    oracle = {
        f"{key}={some[0]}": labels.get(key) == some[0],
        f"{key} != {some[0]}": labels.get(key) != some[0],
        f"{key} in ({joined})": labels.get(key) in some,
        f"{key} notin ({joined})": labels.get(key) not in some,
        f"has({key})": key in labels,
        f"! has( {key} )": key not in labels,
    }
    for text, holds in oracle.items():
        assert is_selector(text)
        assert parse_selector(text).matches(labels) is holds, text
    assert parse_selector(",".join(oracle)).matches(labels) is all(oracle.values())


REFUSED = {
    "": "it is empty",
    "a": "'a' alone is no condition",
    "a=": "read nothing where a label's value should be",
    "a==b": "read '=' where a label's value should be",
    "a=b,": "a condition is missing at the end",
    "a=b c=d": "read 'c' after a complete condition; join conditions with commas",
    "a in b": "read 'b' where '(' should be",
    "a in (b": "read nothing where ')' should be",
    "a in ()": "read ')' where a label's value should be",
    "!a": "'!' stands only before has(…)",
    "has(a": "read nothing where ')' should be",
    "a>b": "read '>' at character 2",
    "a between (b,c)": "read 'between' after 'a'",
    f"{'k' * 64}=b": f"read '{'k' * 64}' where a label's name should be",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_selector_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_selector(text)
    assert str(caught.value).startswith(f"{text!r} is no selector: {REFUSED[text]}; allowed: a=b, a!=b")


def test_a_bare_word_is_a_host_and_no_selector() -> None:
    assert not is_selector("n1")
    assert not is_selector(" n1 ")
