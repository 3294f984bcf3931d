"""What types of machines differ in."""

from __future__ import annotations

import pytest

from playground.hypervisors import KINDS, moves, why_not_run


@pytest.mark.parametrize(
    ("types", "live"),
    [((), True), (("kvm", "qemu"), True), (("test",), True), (("lxc",), False), (("xen",), False)],
)
def test_a_host_moves_machines_live_where_its_hypervisor_was_seen_to(types: tuple[str, ...], live: bool) -> None:
    assert moves(types) == live


@pytest.mark.parametrize("type", ["", *KINDS])
def test_a_host_that_says_no_types_is_asked_for_any(type: str) -> None:
    assert why_not_run(type, ()) is None
