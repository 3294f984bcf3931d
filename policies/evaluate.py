"""Pure. What passes between two ends, and what decided it: alone knows how tiers, actions and consent work.

Both ends are judged, each by its own chain, and both have to allow. In a chain, of all ports towards one end:
the admin tier's rules in order decide the part that they match and that none before decided (`pass` leaves it to the
next tier, past the rest of this one); where the owner's policies select the subject, what their rules match is allowed
and the rest denied; else the baseline's rules in order; what nobody decided is allowed. `@services` are judged by the
admin tier alone. Says nothing of whether there is a way from one end to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from policies.ir import IR, SERVICES, Chain, PolicyHead, ResolvedRule
from policies.model import Action, Direction, Tier
from policies.ports import EVERYTHING, NOTHING, Ports

Split = Mapping[Ports, int]
"""Allowed ports → the ends towards which it is just these. Disjoint, covers all numbers; one set is negative."""


class Way(Enum):
    """How a decision came about."""

    RULE = "rule"
    CLOSED = "closed"
    UNSELECTED = "unselected"


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of some ports at one end, in one direction.

    way: RULE, by `rule`; CLOSED, as the owner's policies `closed_by` select the subject and none allows it; UNSELECTED,
    allowed as nothing speaks of it. passed: rules of the admin or baseline tier that passed it on, in order.
    """

    ports: Ports
    is_allowed: bool
    way: Way
    rule: ResolvedRule | None = None
    closed_by: tuple[PolicyHead, ...] = ()
    passed: tuple[ResolvedRule, ...] = ()

    @property
    def tier(self) -> Tier | None:
        """The tier that decided; None if none did."""
        if self.rule is not None:
            return self.rule.policy.tier
        return Tier.OWNER if self.way is Way.CLOSED else None


def allowed(ir: IR, source: int, destination: int, is_staged: bool = False) -> Ports:
    """What both ends consent to, for ends as the intermediate form numbers them. Who is no identity, consents."""
    outward = inward = EVERYTHING
    if ir.is_identity(source):
        outward = towards(ir.chain(Direction.EGRESS, source, is_staged), destination)
    if ir.is_identity(destination):
        inward = towards(ir.chain(Direction.INGRESS, destination, is_staged), source)
    return outward & inward


def towards(chain: Chain, end: int) -> Ports:
    """What a chain allows between its subjects and one end."""
    for ports, ends in split(chain).items():
        if ends >> end & 1:
            return ports
    raise AssertionError("a split covers every end")


_State = tuple[Ports, Ports, Ports]
"""(allowed, undecided in this tier, left to the next tier)"""


def split(chain: Chain) -> Split:
    """What a chain allows, towards all ends at once; the chain keeps it."""
    known: Split | None = chain.__dict__.get("_split")
    if known is None:
        known = chain.__dict__["_split"] = _split(chain)
    return known


def carry_split(before: Chain, after: Chain, renumbered: Callable[[int], int]) -> None:
    """Spares splitting a chain that is the same as one before, but for the numbers of its ends."""
    if known := before.__dict__.get("_split"):
        after.__dict__["_split"] = {ports: renumbered(ends) for ports, ends in known.items()}


def _split(chain: Chain) -> Split:
    states: dict[_State, int] = {(NOTHING, EVERYTHING, NOTHING): -1}
    for rule in chain.admin:
        states = _refined(states, rule)
    services = 1 << SERVICES
    found: dict[Ports, int] = {}
    for (granted, undecided, left), ends in states.items():
        if ends & services:
            found[granted | undecided | left] = services
    states = _next_tier(states, ~services)
    if chain.closed_by:
        for rule in chain.owner:
            states = _refined(states, rule, is_union=True)
        for (granted, _, _), ends in states.items():
            found[granted] = found.get(granted, 0) | ends
        return found
    for rule in chain.baseline:
        states = _refined(states, rule)
    for (granted, undecided, left), ends in states.items():
        ports = granted | undecided | left
        found[ports] = found.get(ports, 0) | ends
    return found


def _refined(states: dict[_State, int], rule: ResolvedRule, is_union: bool = False) -> dict[_State, int]:
    """After one more rule: those whom it speaks of part from those whom it does not.

    is_union: what it allows stays open to other rules, which can but allow it again.
    """
    if not rule.ends:
        return states
    found: dict[_State, int] = {}
    for state, ends in states.items():
        spoken = ends & rule.ends
        if spoken:
            after = (state[0] | rule.ports & state[1], *state[1:]) if is_union else _decided(state, rule)
            found[after] = found.get(after, 0) | spoken
        if ends != spoken:
            found[state] = found.get(state, 0) | (ends & ~rule.ends)
    return found


def _decided(state: _State, rule: ResolvedRule) -> _State:
    granted, undecided, left = state
    part = rule.ports & undecided
    if not part:
        return state
    match rule.action:
        case Action.ALLOW:
            return granted | part, undecided - part, left
        case Action.DENY:
            return granted, undecided - part, left
        case Action.PASS:
            return granted, undecided - part, left | part


def _next_tier(states: dict[_State, int], among: int) -> dict[_State, int]:
    found: dict[_State, int] = {}
    for (granted, undecided, left), ends in states.items():
        state = granted, undecided | left, NOTHING
        if ends & among:
            found[state] = found.get(state, 0) | (ends & among)
    return found


def judge(chain: Chain, end: int, ports: Ports) -> tuple[Decision, ...]:
    """What became of each part of some ports, between a chain's subjects and one end; in order of decision.

    The owner's rules are a union: where several allow, the first in order is named.
    """
    found: list[Decision] = []
    waiting: list[tuple[Ports, tuple[ResolvedRule, ...]]] = [(ports, ())]
    waiting = _walk(chain.admin, end, waiting, found)
    if end != SERVICES:
        if chain.closed_by:
            waiting = _walk(chain.owner, end, waiting, found)
            found += [Decision(part, False, Way.CLOSED, None, chain.closed_by, passed) for part, passed in waiting]
            return tuple(found)
        waiting = _walk(chain.baseline, end, waiting, found)
    found += [Decision(part, True, Way.UNSELECTED, None, (), passed) for part, passed in waiting]
    return tuple(found)


def _walk(
    rules: Iterable[ResolvedRule],
    end: int,
    waiting: list[tuple[Ports, tuple[ResolvedRule, ...]]],
    found: list[Decision],
) -> list[tuple[Ports, tuple[ResolvedRule, ...]]]:
    """Takes what arrives at a tier through it; adds what is decided, returns what is not, with who passed it on."""
    beyond: list[tuple[Ports, tuple[ResolvedRule, ...]]] = []
    for rule in rules:
        if not rule.ends >> end & 1:
            continue
        still = []
        for ports, passed in waiting:
            part = ports & rule.ports
            if part and rule.action is Action.PASS:
                beyond.append((part, (*passed, rule)))
            elif part:
                found.append(Decision(part, rule.action is Action.ALLOW, Way.RULE, rule, (), passed))
            if rest := ports - part:
                still.append((rest, passed))
        waiting = still
    return beyond + waiting
