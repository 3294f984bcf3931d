"""Hostile guests: what they may not say is heard by nobody, neither on their own host nor on another."""

from __future__ import annotations

import pytest
from frames import NOT_BRIDGED, Case, attacks, rights
from guarded_lab import FAR, ME, NEAR, Lab, grown, only

pytestmark = pytest.mark.system

TARGETS = {"on the same host": Case(ME, NEAR, FAR), "on another host": Case(ME, FAR, NEAR)}


@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("name", attacks(TARGETS["on the same host"]))
def test_what_a_guest_may_not_say_is_heard_by_nobody_and_counted_once(guarded: Lab, name: str, where: str) -> None:
    reason, frame = attacks(TARGETS[where])[name]
    before = guarded.dropped()
    guarded.say(ME, frame)
    assert guarded.heard(ME) == 0
    assert guarded.dropped_since(before, only(reason)) == only(reason)


@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("name", rights(TARGETS["on the same host"]))
def test_what_a_guest_may_say_is_heard_once(guarded: Lab, name: str, where: str) -> None:
    case = TARGETS[where]
    frame = bytes(rights(case)[name])
    before = guarded.dropped()
    guarded.say(ME, frame)
    assert guarded.hear(case.you, guarded.fence(ME, case.you)).count(frame) == 1
    guarded.heard(ME)
    assert grown(before, guarded.dropped()) == {}


def test_without_the_guard_all_of_it_is_heard_but_what_a_bridge_keeps_to_itself(guarded: Lab) -> None:
    """So the silence above is the guard's doing."""
    guarded.a.unguard()
    guarded.b.unguard()
    try:
        for case in TARGETS.values():
            silent = set()
            for name, (_, frame) in attacks(case).items():
                guarded.say(ME, frame)
                if not guarded.heard(ME):
                    silent.add(name)
            assert silent == NOT_BRIDGED
    finally:
        guarded.guard()
