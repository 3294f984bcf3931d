"""What may be asked of a workspace in which state, and what is told of what nobody asked for."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from msgspec.structs import replace

from playground.lifecycle import WANTED, NotNow, Verb, asked, unasked, why_not_rebuilt
from playground.machine import PLAIN, Machine
from playground.records import Desired, ObservedWorkspace, WorkspaceRecord

VERBS: tuple[Verb, ...] = get_args(Verb)
STATES: tuple[Desired, ...] = get_args(Desired)

SENSE = {
    "running": {"start", "stop", "suspend", "resume", "save", "restore", "reboot"},
    "stopped": {"start", "stop"},
    "suspended": {"start", "stop", "suspend", "resume", "save"},
    "saved": {"start", "stop", "save", "restore"},
}


def a_machine(desired: Desired = "running", driver: str = "libvirt", of: Machine | None = PLAIN) -> WorkspaceRecord:
    return WorkspaceRecord(
        playground="lab", name="web", id="0" * 12, driver=driver, ports=(), machine=of, desired=desired, generation=4
    )


@pytest.mark.parametrize(("desired", "verb"), list(itertools.product(STATES, VERBS)))
def test_a_verb_makes_sense_in_some_states_and_is_refused_with_the_way_out_in_all_others(
    desired: Desired, verb: Verb
) -> None:
    before = a_machine(desired)
    if verb not in SENSE[desired]:
        with pytest.raises(NotNow, match=f"lab/web is {desired}; .* it first: playground .* lab/web"):
            asked(before, verb, is_moving=False, is_halted=False)
        return
    after = asked(before, verb, is_moving=False, is_halted=False)
    assert after.desired == WANTED[verb]
    if verb != "reboot" and WANTED[verb] == desired:
        assert after is before
    else:
        assert after.generation == 5 and after.reboots == (verb == "reboot")
        assert asked(after, verb, is_moving=False, is_halted=False).reboots == 2 * (verb == "reboot")


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_but_going_on_is_asked_of_what_moves(verb: Verb) -> None:
    if WANTED[verb] == "running" and verb != "reboot":
        assert asked(a_machine(), verb, is_moving=True, is_halted=False) == a_machine()
        return
    with pytest.raises(NotNow, match="is being moved"):
        asked(a_machine(), verb, is_moving=True, is_halted=False)


@pytest.mark.parametrize("verb", ["start", "resume"])
def test_what_stands_still_unasked_is_let_go_by_a_number_of_its_own(verb: Verb) -> None:
    after = asked(a_machine(), verb, is_moving=False, is_halted=True)
    assert (after.desired, after.resumes, after.generation) == ("running", 1, 5)


def test_what_a_driver_can_not_do_is_refused_by_its_name_for_it() -> None:
    kinds = {name: a_machine(driver=name, of=None) for name in ("netns", "external")}
    refused = {(name, verb) for name, of in kinds.items() for verb in VERBS if _refuses(of, verb)}
    paused = {"suspend", "resume", "save", "restore"}
    assert refused == {
        *(("netns", verb) for verb in paused),
        *(("external", verb) for verb in {*paused, "reboot"}),
    }


def _refuses(workspace: WorkspaceRecord, verb: Verb) -> bool:
    try:
        asked(workspace, verb, is_moving=False, is_halted=False)
    except NotNow as error:
        return "can't be" in str(error)
    return False


def test_the_grace_of_a_stop_is_its_own() -> None:
    stopped = asked(a_machine(), "stop", is_moving=False, is_halted=False, grace_s=0.0)
    assert stopped.hurry_s == 0.0
    assert asked(stopped, "start", is_moving=False, is_halted=False).hurry_s is None


@pytest.mark.parametrize("desired", STATES)
def test_only_what_keeps_memory_may_not_be_made_anew(desired: Desired) -> None:
    assert bool(why_not_rebuilt(a_machine(desired))) == (desired in ("suspended", "saved"))


SEEN = ObservedWorkspace(playground="lab", workspace="web", host="n1", generation=1, state="running")


def test_each_end_and_each_halt_that_nobody_asked_for_is_told_once() -> None:
    ended = replace(SEEN, ended=1, ended_cause="it has shut itself down")
    assert unasked(SEEN, ended) == [
        ("workspace-ended", "workspace lab/web", "on n1: it has shut itself down; it begins again, 1 times so far")
    ]
    assert unasked(ended, replace(ended, generation=2)) == []
    halted = replace(ended, state="suspended", cause="a disk failed: vda, no space left")
    assert unasked(ended, halted) == [("workspace-halted", "workspace lab/web", f"on n1: {halted.cause}")]
    assert unasked(halted, replace(halted, generation=3)) == []
    assert unasked(ended, replace(ended, state="suspended")) == []
    assert len(unasked(None, replace(halted, ended=2))) == 2


def test_a_container_is_not_saved_but_suspended() -> None:
    container = a_machine(of=Machine(type="lxc"))
    with pytest.raises(NotNow, match="can't be saved: libvirt keeps no memory in a file of machines of type lxc"):
        asked(container, "save", is_moving=False, is_halted=False)
    assert asked(container, "suspend", is_moving=False, is_halted=False).desired == "suspended"
