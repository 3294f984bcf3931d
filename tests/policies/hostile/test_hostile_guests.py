"""Hostile guests: what they may not say is heard by nobody, neither on their own host nor on another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from frames import NOT_BRIDGED, Case, attacks, rights
from guarded_lab import FAR, ME, NEAR, Lab, Station, fence, grown, only

pytestmark = pytest.mark.system

TARGETS = {"on the same host": Case(ME, NEAR, FAR), "on another host": Case(ME, FAR, NEAR)}
NAMES = list(attacks(TARGETS["on the same host"]))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    found = Lab()
    found.a.guard()
    found.b.guard()
    yield found
    found.close()


def heard(lab: Lab, by: Station) -> int:
    """How many frames anybody else heard since it was last asked. Nobody in the lab says anything unasked."""
    count = 0
    for station in lab.ends:
        if station != by:
            lab.say(by, fence(by, station))
            count += len(lab.hear(station))
    return count


def dropped_since(lab: Lab, before: dict[str, int], expected: dict[str, int]) -> dict[str, int]:
    end = time.monotonic() + 2
    while (now := grown(before, lab.dropped())) != expected and time.monotonic() < end:
        time.sleep(0.005)
    return now


@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_what_a_guest_may_not_say_is_heard_by_nobody_and_counted_once(lab: Lab, name: str, where: str) -> None:
    reason, frame = attacks(TARGETS[where])[name]
    before = lab.dropped()
    lab.say(ME, frame)
    assert heard(lab, ME) == 0
    assert dropped_since(lab, before, only(reason)) == only(reason)


@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("name", rights(TARGETS["on the same host"]))
def test_what_a_guest_may_say_is_heard_once(lab: Lab, name: str, where: str) -> None:
    case = TARGETS[where]
    frame = bytes(rights(case)[name])
    before = lab.dropped()
    lab.say(ME, frame)
    lab.say(ME, fence(ME, case.you))
    assert lab.hear(case.you).count(frame) == 1
    heard(lab, ME)
    assert grown(before, lab.dropped()) == {}


def test_without_the_guard_all_of_it_is_heard_but_what_a_bridge_keeps_to_itself(lab: Lab) -> None:
    """So the silence above is the guard's doing."""
    lab.a.unguard()
    lab.b.unguard()
    try:
        for case in TARGETS.values():
            silent = set()
            for name, (_, frame) in attacks(case).items():
                lab.say(ME, frame)
                if not heard(lab, ME):
                    silent.add(name)
            assert silent == NOT_BRIDGED
    finally:
        lab.a.guard()
        lab.b.guard()
