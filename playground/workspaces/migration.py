"""Pure. The states of a workspace's move, and every event in every state, as one table.

`requested → prepared → copying → activated → settled`, and `aborted` from any state before `activated`. One that a
hypervisor copies is also `landing`, between `copying` and `activated`: it stands still, and what comes for it waits at
the target. A missing pair is no accident but a late or foreign event: `step` answers with the same state and no effect.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class State(StrEnum):
    """A move's state, the word in records, JSON and events."""

    REQUESTED = "requested"
    PREPARED = "prepared"
    COPYING = "copying"
    LANDING = "landing"
    ACTIVATED = "activated"
    SETTLED = "settled"
    ABORTED = "aborted"


class Event(Enum):
    """What can happen to a move."""

    TARGET_READY = "the target has guest ends, MTU, DHCP, and gated ports"
    METER_RUNS = "the measurement runs (or none was asked for)"
    TOLD = "whoever moves it says that it is at the target"
    STANDS_STILL = "its hypervisor has copied it; it goes on at the target in a moment"
    ARRIVED = "the target carries the traffic, by its hypervisor's word, or by the machine's own"
    PEERS_CONVERGED = "every live host has converged to the new binding, or had time enough"
    ABORT = "somebody asked to abort"
    PREPARE_FAILED = "the target could not prepare"
    COPY_FAILED = "the source's hypervisor could not copy it; it goes on there"
    TARGET_GONE = "the target host's lease ended"
    SOURCE_GONE = "the source host's lease ended"
    LATE = "the deadline passed (of what a hypervisor copies, only its word counts)"
    REMOVED = "the workspace was removed"


class Effect(Enum):
    """What the controller does on a transition, in the same commit as the state."""

    NONE = "none"
    SET_PHASE = "bindings carry the state as their phase"
    FLIP = "bindings' active becomes the target, their generation grows, the workspace's host is the target"
    REST = "bindings are at rest on the target"
    GIVE_BACK = "bindings are at rest on the source"
    TAKE_BACK = "bindings' active is the source again, their generation grows, and they are at rest there"


TABLE: dict[tuple[State, Event], tuple[State, Effect]] = {
    (State.REQUESTED, Event.TARGET_READY): (State.PREPARED, Effect.SET_PHASE),
    (State.PREPARED, Event.METER_RUNS): (State.COPYING, Effect.SET_PHASE),
    (State.PREPARED, Event.TOLD): (State.COPYING, Effect.SET_PHASE),
    (State.COPYING, Event.STANDS_STILL): (State.LANDING, Effect.SET_PHASE),
    (State.COPYING, Event.ARRIVED): (State.ACTIVATED, Effect.FLIP),
    (State.LANDING, Event.ARRIVED): (State.ACTIVATED, Effect.FLIP),
    (State.ACTIVATED, Event.PEERS_CONVERGED): (State.SETTLED, Effect.REST),
    # it announced itself at the target, and did not stay: a false start, of which only the source's hypervisor tells
    (State.ACTIVATED, Event.COPY_FAILED): (State.ABORTED, Effect.TAKE_BACK),
    # an announcement or a hypervisor's event may overtake our own bookkeeping: what arrived has arrived
    (State.REQUESTED, Event.STANDS_STILL): (State.LANDING, Effect.SET_PHASE),
    (State.PREPARED, Event.STANDS_STILL): (State.LANDING, Effect.SET_PHASE),
    (State.REQUESTED, Event.ARRIVED): (State.ACTIVATED, Effect.FLIP),
    (State.PREPARED, Event.ARRIVED): (State.ACTIVATED, Effect.FLIP),
    (State.REQUESTED, Event.ABORT): (State.ABORTED, Effect.GIVE_BACK),
    (State.PREPARED, Event.ABORT): (State.ABORTED, Effect.GIVE_BACK),
    (State.COPYING, Event.ABORT): (State.ABORTED, Effect.GIVE_BACK),
    (State.LANDING, Event.ABORT): (State.ABORTED, Effect.GIVE_BACK),
    (State.REQUESTED, Event.PREPARE_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.PREPARED, Event.PREPARE_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.COPYING, Event.PREPARE_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.REQUESTED, Event.TARGET_GONE): (State.ABORTED, Effect.GIVE_BACK),
    (State.PREPARED, Event.TARGET_GONE): (State.ABORTED, Effect.GIVE_BACK),
    (State.REQUESTED, Event.COPY_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.PREPARED, Event.COPY_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.COPYING, Event.COPY_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.LANDING, Event.COPY_FAILED): (State.ABORTED, Effect.GIVE_BACK),
    (State.COPYING, Event.TARGET_GONE): (State.ABORTED, Effect.GIVE_BACK),
    (State.REQUESTED, Event.SOURCE_GONE): (State.ABORTED, Effect.GIVE_BACK),
    (State.PREPARED, Event.SOURCE_GONE): (State.ABORTED, Effect.GIVE_BACK),
    # while copying, a dead source says nothing of the target: it may arrive yet, or the deadline ends it
    (State.REQUESTED, Event.LATE): (State.ABORTED, Effect.GIVE_BACK),
    (State.PREPARED, Event.LATE): (State.ABORTED, Effect.GIVE_BACK),
    (State.COPYING, Event.LATE): (State.ABORTED, Effect.GIVE_BACK),
    (State.ACTIVATED, Event.LATE): (State.SETTLED, Effect.REST),
    (State.ACTIVATED, Event.SOURCE_GONE): (State.SETTLED, Effect.REST),
    (State.REQUESTED, Event.REMOVED): (State.ABORTED, Effect.NONE),
    (State.PREPARED, Event.REMOVED): (State.ABORTED, Effect.NONE),
    (State.COPYING, Event.REMOVED): (State.ABORTED, Effect.NONE),
    (State.LANDING, Event.REMOVED): (State.ABORTED, Effect.NONE),
    (State.ACTIVATED, Event.REMOVED): (State.SETTLED, Effect.NONE),
}

ENDED = frozenset({State.SETTLED, State.ABORTED})


def step(state: State, event: Event) -> tuple[State, Effect]:
    """The state after an event, and what to do in the same commit; unchanged for a pair that the table lacks."""
    return TABLE.get((state, event), (state, Effect.NONE))
