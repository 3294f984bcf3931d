"""What rules, read back, tell addresses by."""

from __future__ import annotations

import pytest

from policies.interpret import Table

WORDS = [
    {"prefix": {"addr": "10.0.0.0", "len": 25}},
    {"range": ["10.0.1.0", "10.0.1.9"]},
    "10.0.2.1",
    {"prefix": {"addr": "fd00::", "len": 64}},
]


def a_table() -> Table:
    table = Table()
    match = {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"set": WORDS}}
    table.chains["a"] = [[{"match": match}, {"accept": None}]]
    return table


@pytest.mark.parametrize("inside", ["10.0.0.0", "10.0.0.127", "10.0.1.0", "10.0.1.9", "10.0.2.1"])
def test_the_addresses_that_one_rule_names_are_told_alike(inside: str) -> None:
    assert a_table().told_by("br", inside) == a_table().told_by("br", "10.0.0.1")


@pytest.mark.parametrize("outside", ["9.255.255.255", "10.0.0.128", "10.0.1.10", "10.0.2.0", "10.0.2.2", "::a00:1"])
def test_those_that_it_does_not_name_are_told_otherwise(outside: str) -> None:
    assert a_table().told_by("br", outside)[-1] is False
    assert a_table().told_by("br", "10.0.0.1")[-1] is True
