"""The table of a move's states: every pair is decided, and no path leads out of an ended move."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground.workspaces.migration import ENDED, TABLE, Effect, Event, State, step

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_a_pair_that_the_table_lacks_changes_nothing(state: State, event: Event) -> None:
    if (state, event) not in TABLE:
        assert step(state, event) == (state, Effect.NONE)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_move_stays_ended(state: State, event: Event) -> None:
    assert step(state, event) == (state, Effect.NONE)


@pytest.mark.parametrize("event", [Event.ABORT, Event.PREPARE_FAILED, Event.TARGET_GONE])
def test_nothing_takes_back_a_workspace_that_has_arrived(event: Event) -> None:
    assert step(State.ACTIVATED, event)[0] is State.ACTIVATED


@pytest.mark.parametrize("state", [State.REQUESTED, State.PREPARED, State.COPYING, State.LANDING])
def test_an_abort_before_arrival_gives_the_ports_back_to_the_source(state: State) -> None:
    assert step(state, Event.ABORT) == (State.ABORTED, Effect.GIVE_BACK)


@pytest.mark.parametrize("state", [s for s in State if s not in ENDED and s is not State.LANDING])
def test_time_alone_ends_every_move_but_one_that_stands_still_for_its_hypervisor(state: State) -> None:
    assert step(state, Event.LATE)[0] in ENDED


@given(st.lists(st.sampled_from(Event)))
def test_the_binding_flips_at_most_once_whatever_happens(events: list[Event]) -> None:
    state, effects = State.REQUESTED, []
    for event in events:
        state, effect = step(state, event)
        effects.append(effect)
    assert effects.count(Effect.FLIP) <= 1
    assert not (Effect.FLIP in effects and Effect.GIVE_BACK in effects)
    if Effect.REST in effects or Effect.TAKE_BACK in effects:
        assert Effect.FLIP in effects
    assert not (Effect.REST in effects and Effect.TAKE_BACK in effects)


ROWS = {
    State.REQUESTED: "TARGET_READY→PREPARED STANDS_STILL→LANDING ARRIVED→ACTIVATED COPY_FAILED→ABORTED ABORT→ABORTED "
    "PREPARE_FAILED→ABORTED TARGET_GONE→ABORTED SOURCE_GONE→ABORTED LATE→ABORTED REMOVED→ABORTED",
    State.PREPARED: "METER_RUNS→COPYING TOLD→COPYING STANDS_STILL→LANDING COPY_FAILED→ABORTED ARRIVED→ACTIVATED "
    "ABORT→ABORTED PREPARE_FAILED→ABORTED "
    "TARGET_GONE→ABORTED SOURCE_GONE→ABORTED LATE→ABORTED REMOVED→ABORTED",
    State.COPYING: "STANDS_STILL→LANDING ARRIVED→ACTIVATED ABORT→ABORTED PREPARE_FAILED→ABORTED COPY_FAILED→ABORTED "
    "TARGET_GONE→ABORTED LATE→ABORTED REMOVED→ABORTED",
    State.LANDING: "ARRIVED→ACTIVATED ABORT→ABORTED COPY_FAILED→ABORTED REMOVED→ABORTED",
    State.ACTIVATED: "PEERS_CONVERGED→SETTLED COPY_FAILED→ABORTED LATE→SETTLED SOURCE_GONE→SETTLED REMOVED→SETTLED",
    State.SETTLED: "",
    State.ABORTED: "",
}
"""What each event leads to; all others change nothing."""


@pytest.mark.parametrize("state", State)
def test_each_event_leads_where_it_should(state: State) -> None:
    expected = dict(word.split("→") for word in ROWS[state].split())
    found = {event.name: step(state, event)[0].name for event in Event if step(state, event)[0] is not state}
    assert found == expected


def test_a_false_start_is_taken_back_by_a_new_generation() -> None:
    assert step(State.ACTIVATED, Event.COPY_FAILED) == (State.ABORTED, Effect.TAKE_BACK)
