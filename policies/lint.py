"""Pure. Finds what a person cannot have meant: ends that match nobody, rules that decide nothing, equal priorities.

Judges by the very chains that enforce: a rule is idle when no chain that holds it lets it decide anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from policies.ends import End
from policies.expect import different, ends_of
from policies.ir import IR, SERVICES, Chain, PolicyHead, ResolvedRule
from policies.model import (
    Action,
    BlockPeer,
    Direction,
    EndpointPeer,
    Expectation,
    GatewayPeer,
    Mode,
    Origin,
    Peer,
    Policy,
    SamePeer,
    Scene,
    Tier,
    WorldPeer,
)
from policies.ports import EVERYTHING, NOTHING, Ports
from policies.resolve import resolve


class Severity(Enum):
    """ERROR: refused. WARNING: enforced as written, and probably not meant."""

    ERROR = "error"
    WARNING = "warning"


class Code(Enum):
    """What is found."""

    EQUAL_PRIORITY = "equal-priority"
    SELECTS_NOTHING = "selects-nothing"
    SHADOWED = "shadowed"
    UNREACHABLE = "unreachable"
    NO_EFFECT = "no-effect"
    TESTS_NOTHING = "tests-nothing"
    NO_GATEWAY = "no-gateway"
    REPLACES_NOTHING = "replaces-nothing"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing, at the place where it is written."""

    origin: Origin
    message: str
    code: Code = Code.NO_EFFECT
    severity: Severity = Severity.WARNING


def lint(scene: Scene, expectations: Iterable[Expectation] = (), ir: IR | None = None) -> list[Finding]:
    """All findings, by place."""
    form = ir or resolve(scene)
    found = [
        *_equal_priorities(scene, form),
        *_empty_selectors(scene),
        *_missing_gateways(scene),
        *_replaced(scene),
        *_idle(form),
        *_idle_tests(scene, expectations),
    ]
    return sorted(set(found), key=lambda one: (one.origin, one.code.value, one.message))


def _is_anybody(scene: Scene, peer: EndpointPeer) -> bool:
    return any(
        (peer.playgrounds is None or endpoint.playground in peer.playgrounds) and peer.selector.matches(endpoint.labels)
        for endpoint in scene.endpoints
    )


def _empty_selectors(scene: Scene) -> Iterator[Finding]:
    known: dict[EndpointPeer, bool] = {}

    def is_anybody(peer: EndpointPeer) -> bool:
        if peer not in known:
            known[peer] = _is_anybody(scene, peer)
        return known[peer]

    gateways = {gateway.name for gateway in scene.gateways}
    labels = {key for endpoint in scene.endpoints for key in endpoint.labels}
    for policy in scene.policies:
        for subject in policy.subjects:
            if not is_anybody(subject):
                message = f"{_called(policy)}: its subject {subject.selector.text} selects no workspace"
                yield Finding(policy.origin, message, Code.SELECTS_NOTHING)
        for direction in Direction:
            for number, rule in enumerate(policy.rules(direction) or (), 1):
                for peer in rule.peers:
                    who = ""
                    if isinstance(peer, EndpointPeer) and not is_anybody(peer):
                        who = f"{peer.selector.text} selects no workspace"
                    elif isinstance(peer, GatewayPeer) and peer.name not in gateways:
                        who = f"there is no gateway {peer.name}"
                    elif isinstance(peer, SamePeer) and peer.label not in labels:
                        who = f"nobody has a label {peer.label}"
                    if who:
                        message = f"{_called(policy)}, {direction.value} rule {number}: {who}"
                        yield Finding(rule.origin, message, Code.SELECTS_NOTHING)


def _missing_gateways(scene: Scene) -> Iterator[Finding]:
    """Rules about the world where no subject has a way to it, or, for ingress, it has none to them."""
    outward = {(one.playground, network) for one in scene.gateways for network in one.networks}
    inward = {(one.playground, network) for one in scene.gateways if one.is_open_inward for network in one.networks}
    for policy in scene.policies:
        for direction, reached in ((Direction.EGRESS, outward), (Direction.INGRESS, inward)):
            rules = [
                one
                for one in policy.rules(direction) or ()
                if any(map(_is_world, one.peers)) and not any(map(_is_everyone, one.peers))
            ]
            if not rules:
                continue
            subjects = [
                (endpoint.playground, endpoint.network)
                for endpoint in scene.endpoints
                for subject in policy.subjects
                if (subject.playgrounds is None or endpoint.playground in subject.playgrounds)
                and subject.selector.matches(endpoint.labels)
            ]
            if not subjects or any(network in reached for network in subjects):
                continue
            if direction is Direction.INGRESS and any(network in outward for network in subjects):
                why = "the gateway lets the world begin no connection (NAT)"
            else:
                why = "no network of its subjects has a gateway"
            for rule in rules:
                message = f"{_called(policy)}: a rule speaks of the world, but {why}"
                yield Finding(rule.origin, message, Code.NO_GATEWAY)


def _is_world(peer: Peer) -> bool:
    return isinstance(peer, WorldPeer | BlockPeer)


def _is_everyone(peer: Peer) -> bool:
    """Who speaks of all workspaces beside the world means everybody, and not the world as such."""
    return isinstance(peer, EndpointPeer) and not peer.selector.terms


def _replaced(scene: Scene) -> Iterator[Finding]:
    known = {(one.playground, one.tier, one.name) for one in scene.policies if one.mode is not Mode.STAGE}
    for policy in scene.policies:
        if policy.replaces and (policy.playground, policy.tier, policy.replaces) not in known:
            message = f"{_called(policy)} replaces {policy.replaces}, and no enforced policy of its tier is called so"
            yield Finding(policy.origin, message, Code.REPLACES_NOTHING)


def _equal_priorities(scene: Scene, ir: IR) -> Iterator[Finding]:
    """Ordered tiers: two policies of one priority on one subject have no order."""
    places: dict[tuple[Tier, int], list[Policy]] = {}
    for policy in scene.policies:
        if policy.tier is not Tier.OWNER and policy.mode is not Mode.STAGE:
            places.setdefault((policy.tier, policy.priority), []).append(policy)
    for (tier, priority), alike in places.items():
        if len(alike) < 2:
            continue
        selected: dict[tuple[str, str, str], Policy] = {}
        told = set()
        for policy in sorted(alike, key=lambda one: one.origin):
            for endpoint in scene.endpoints:
                if not any(
                    (subject.playgrounds is None or endpoint.playground in subject.playgrounds)
                    and subject.selector.matches(endpoint.labels)
                    for subject in policy.subjects
                ):
                    continue
                other = selected.setdefault((endpoint.playground, endpoint.workspace, endpoint.network), policy)
                if other is not policy and (id(other), id(policy)) not in told:
                    told.add((id(other), id(policy)))
                    yield Finding(
                        policy.origin,
                        f"{_called(policy)} and {_called(other)} ({other.origin}) both have {tier.value} priority "
                        f"{priority} and both select {endpoint.workspace}; give them different priorities",
                        Code.EQUAL_PRIORITY,
                        Severity.ERROR,
                    )


def _called(policy: Policy | PolicyHead) -> str:
    return f"policy {policy.name}" if policy.name else "the policy"


_Line = tuple[PolicyHead, Direction, int]
"""A rule as written: `same` makes several of one."""


def _line(rule: ResolvedRule) -> _Line:
    return rule.policy, rule.direction, rule.number


def _idle(ir: IR) -> Iterator[Finding]:
    """Rules and policies that decide nothing in any chain, staged ones as if they were enforced."""
    idle: dict[_Line, tuple[ResolvedRule, ResolvedRule | None]] = {}
    working: set[_Line] = set()
    heads: dict[PolicyHead, None] = {}
    active: set[PolicyHead] = set()
    for chain in ir.chains:
        heads.update(dict.fromkeys((*chain.closed_by, *(rule.policy for rule in chain.rules))))
        walked = _Walked(chain, ir.first_cell + len(ir.cells))
        working.update(map(_line, walked.working))
        active.update(rule.policy for rule in walked.working)
        active.update(walked.closing)
        for rule, cause in walked.idle:
            idle.setdefault(_line(rule), (rule, cause))
    for line, (rule, cause) in idle.items():
        if line in working or not rule.ends:
            continue
        what = f"{_called(rule.policy)}, {rule.direction.value} rule {rule.number}"
        if cause is None:
            message = f"{what} decides nothing: all that it speaks of is decided before it"
            yield Finding(rule.origin, message, Code.UNREACHABLE)
        else:
            by = f"{_called(cause.policy)}, {cause.direction.value} rule {cause.number} ({cause.origin})"
            if cause.ports == EVERYTHING and cause.policy.tier is not Tier.OWNER:
                yield Finding(
                    rule.origin, f"{what} is never reached: {by} decides everything before it", Code.UNREACHABLE
                )
            else:
                yield Finding(rule.origin, f"{what} adds nothing to {by}", Code.SHADOWED)
    for head in heads:
        if head not in active:
            yield Finding(head.origin, f"{_called(head)} has no effect: it decides nothing", Code.NO_EFFECT)


class _Walked:
    """Which rules of a chain decide something, and for the others the one rule that leaves them nothing, if one does.

    closing: policies that deny by selecting, where anything is left to deny.
    """

    def __init__(self, chain: Chain, ends: int) -> None:
        self.working: list[ResolvedRule] = []
        self.idle: list[tuple[ResolvedRule, ResolvedRule | None]] = []
        self.closing: tuple[PolicyHead, ...] = ()
        arriving: dict[Ports, int] = {EVERYTHING: (1 << ends) - 1}
        arriving = self._ordered(chain.admin, arriving)
        arriving = {ports: among & ~(1 << SERVICES) for ports, among in arriving.items() if among & ~(1 << SERVICES)}
        if chain.closed_by:
            self._union(chain.owner, arriving)
            if any(arriving):
                self.closing = chain.closed_by
            arriving = {}
        self._ordered(chain.baseline, arriving)

    def _ordered(self, rules: tuple[ResolvedRule, ...], arriving: dict[Ports, int]) -> dict[Ports, int]:
        """Notes which rules decide; returns what goes on to the next tier."""
        states = {(ports, NOTHING): ends for ports, ends in arriving.items()}
        for place, rule in enumerate(rules):
            decides = False
            after: dict[tuple[Ports, Ports], int] = {}
            for (undecided, left), ends in states.items():
                spoken, part = ends & rule.ends, undecided & rule.ports
                if spoken and part:
                    decides = True
                    passed = left | part if rule.action is Action.PASS else left
                    state = undecided - part, passed
                    after[state] = after.get(state, 0) | spoken
                    ends &= ~spoken
                if ends:
                    after[undecided, left] = after.get((undecided, left), 0) | ends
            states = after
            self._note(rule, decides, rules[:place])
        found: dict[Ports, int] = {}
        for (undecided, left), ends in states.items():
            found[undecided | left] = found.get(undecided | left, 0) | ends
        return found

    def _union(self, rules: tuple[ResolvedRule, ...], arriving: dict[Ports, int]) -> None:
        for place, rule in enumerate(rules):
            arrives = any(ends & rule.ends and ports & rule.ports for ports, ends in arriving.items())
            others = (*rules[:place], *(other for other in rules[place + 1 :] if not _covers(rule, other)))
            is_covered = any(_covers(other, rule) for other in others)
            self._note(rule, arrives and not is_covered, others if arrives else ())

    def _note(self, rule: ResolvedRule, decides: bool, others: tuple[ResolvedRule, ...]) -> None:
        if decides:
            self.working.append(rule)
        else:
            self.idle.append((rule, next((other for other in others if _covers(other, rule)), None)))


def _covers(one: ResolvedRule, other: ResolvedRule) -> bool:
    """Whether one speaks of all that another speaks of."""
    return not other.ends & ~one.ends and other.ports <= one.ports


def _idle_tests(scene: Scene, expectations: Iterable[Expectation]) -> Iterator[Finding]:
    known: dict[tuple[Peer, ...], list[End]] = {}
    for line in expectations:
        for peers in (line.sources, line.destinations):
            if peers not in known:
                known[peers] = ends_of(scene, peers)
        sources, destinations = known[line.sources], known[line.destinations]
        if not line.ports:
            yield Finding(line.origin, "this test names no ports, so it tests nothing", Code.TESTS_NOTHING)
        elif next(different(sources, destinations), None) is None:
            which = "from" if not sources else "to" if not destinations else ""
            why = f"its `{which}` matches nobody" if which else "it is about nobody but a workspace and itself"
            yield Finding(line.origin, f"this test tests nothing: {why}", Code.TESTS_NOTHING)
