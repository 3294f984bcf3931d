"""What nft lists of the kernel's sets, as different versions of it say the same."""

from __future__ import annotations

from typing import Any

import pytest

from policies.compile.tables import Part, SetShape, Table, fingerprint
from policies.kernel.listing import TableFound
from policies.kernel.readback import found_ruleset, wrong_objects

TABLE: Table = ("inet", "playground")
SHAPE = SetShape("map", "typeof ip saddr . iifname : mark")
WANTED = {
    TABLE: {"one": Part(sets={"who": SHAPE}, elements={"who": {'10.0.0.0/8 . "pg1"': "18", '10.1.0.1 . "7"': "1"}})}
}

ELEMENTS = [
    [{"concat": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, "pg1"]}, 18],
    [{"concat": ["10.1.0.1", "7"]}, 1],
]
TYPE_1_0: Any = ["ipv4_addr", "ifname"]
TYPE_1_1: Any = {
    "typeof": {"concat": [{"payload": {"protocol": "ip", "field": "saddr"}}, {"meta": {"key": "iifname"}}]},
}


@pytest.mark.parametrize("type_", [TYPE_1_0, TYPE_1_1], ids=["nft 1.0", "nft 1.1"])
def test_elements_are_read_the_same_whatever_version_lists_them(type_: Any) -> None:
    body = {"family": "inet", "table": "playground", "name": "who", "type": type_, "map": "mark", "elem": ELEMENTS}
    found = {TABLE: TableFound({}, {"who": fingerprint(SHAPE.text)})}
    assert wrong_objects(found_ruleset(found, [{"map": body}], WANTED), WANTED) == {}


def test_a_set_of_one_name_is_read_from_nft_1_1() -> None:
    shape = SetShape("set", "typeof iifname")
    wanted = {TABLE: {"one": Part(sets={"on": shape}, elements={"on": {'"pg1"': ""}})}}
    type_ = {"typeof": {"meta": {"key": "iifname"}}}
    body = {"family": "inet", "table": "playground", "name": "on", "type": type_, "elem": ["pg1"]}
    found = {TABLE: TableFound({}, {"on": fingerprint(shape.text)})}
    assert wrong_objects(found_ruleset(found, [{"set": body}], wanted), wanted) == {}
