"""Which of the addresses that a client says it formed count: few, new ones not often, and none that is not answered
for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhcp.forming import BURST, EACH_S, MOST, SILENT, Forming

EXPECTED, OWN_LOCAL = "fd00::ff:fe00:1", "fe80::ff:fe00:1"


def a_forming() -> Forming:
    return Forming((EXPECTED, OWN_LOCAL))


def test_an_address_counts_once_it_was_heard_and_an_expected_one_always() -> None:
    forming = a_forming()
    assert forming.heard("fd00::5", 0) == [("fd00::5", True)]
    assert forming.heard(EXPECTED, 0) == [(EXPECTED, True)]
    assert forming.addresses == ("fd00::5",)


def test_the_least_recently_heard_goes_where_there_are_too_many() -> None:
    forming = a_forming()
    for number in range(MOST):
        forming.heard(f"fd00::{number}", 0)
    forming.heard("fd00::0", 1)
    assert forming.heard("fd00::99", 2) == [("fd00::1", False), ("fd00::99", True)]


def test_there_is_one_link_local_address_and_the_macs_own_takes_its_place_back() -> None:
    forming = a_forming()
    assert forming.heard("fe80::5", 0) == [("fe80::5", True)]
    assert forming.heard("fe80::6", 0) == [("fe80::5", False), ("fe80::6", True)]
    assert forming.heard(OWN_LOCAL, 0) == [("fe80::6", False), (OWN_LOCAL, True)]
    assert forming.addresses == ()


def test_new_ones_are_heard_only_so_often() -> None:
    forming = a_forming()
    told = [forming.heard(f"fd00::{number:x}", 1000.0) for number in range(500)]
    assert sum(map(bool, told)) == BURST
    assert forming.heard("fd00::1:0", 1000.0 + EACH_S)[-1] == ("fd00::1:0", True)
    assert forming.heard("fd00::1:1", 1000.0 + EACH_S) == []


def test_who_does_not_answer_is_gone_and_who_does_stays() -> None:
    forming = a_forming()
    forming.know(("fd00::5", "fd00::6", EXPECTED))
    for _ in range(SILENT):
        assert forming.check() == (list(forming.addresses), [])
        forming.heard("fd00::6", 0)
    assert forming.check() == (["fd00::6"], [("fd00::5", False)])


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.floats(0, 100)), max_size=200))
def test_whatever_is_said_few_count_and_what_was_told_is_what_counts(said: list[tuple[int, bool, float]]) -> None:
    forming, told, now = a_forming(), dict[str, bool](), 0.0
    for number, is_local, passed in said:
        now += passed
        told.update(forming.heard(f"{'fe80' if is_local else 'fd00'}::{number:x}", now))
        if passed > 90:
            told.update(forming.check()[1])
        assert {address for address, is_held in told.items() if is_held} == {*forming.addresses}
        assert len(forming.addresses) <= MOST + 1
