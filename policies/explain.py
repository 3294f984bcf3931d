"""Pure. Why a connection may begin or not: a walk from the way between two ends through the tiers of both, in words.

Everything that it says was decided by `evaluate`; it decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.ends import End, SpecialEnd, WorkspaceEnd, WorldEnd, end_text, ends_outside, ports_of
from policies.evaluate import Decision, Way, judge
from policies.ir import IR, SERVICES, PolicyHead, ResolvedRule
from policies.model import Action, Direction, Mode, Origin, Scene, Tier
from policies.ports import EVERYTHING, LIMITS, NOTHING, Ports, Protocol
from policies.resolve import resolve

Json = dict[str, object]

TOPOLOGY = "topology"


@dataclass(frozen=True, slots=True)
class DecidedBy:
    """What made the verdict. tier: "admin", "owner", "baseline", "default", or TOPOLOGY where there is no way at all.

    end: whose policies, as named; direction: which of them. policy, rule (from 1) and origin where one line decided.
    """

    tier: str
    end: str = ""
    direction: Direction | None = None
    policy: str = ""
    rule: int | None = None
    origin: Origin | None = None

    def to_json(self) -> Json:
        """As `policy explain --json` shows it."""
        return {
            "tier": self.tier,
            "end": self.end or None,
            "direction": self.direction.value if self.direction else None,
            "policy": self.policy or None,
            "rule": self.rule,
            "at": str(self.origin) if self.origin else None,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """is_allowed: all the ports that were asked for, by some way. allowed: those of them that are."""

    is_allowed: bool
    decided_by: DecidedBy
    steps: tuple[str, ...]
    allowed: Ports

    @property
    def verdict(self) -> str:
        """`allow` or `deny`."""
        return "allow" if self.is_allowed else "deny"

    def to_json(self) -> Json:
        """As `policy explain --json` shows it."""
        return {"verdict": self.verdict, "decided_by": self.decided_by.to_json(), "steps": list(self.steps)}


def explain(scene: Scene, source: End, destination: End, ports: Ports, ir: IR | None = None) -> Explanation:
    """Walks from source to destination. The deciding line is the one that denies, else the last that allows."""
    return _Walk(scene, ir or resolve(scene), source, destination, ports).explanation()


@dataclass(frozen=True, slots=True)
class _Judged:
    """One way from end to end, with what became of the ports on it."""

    steps: tuple[str, ...]
    allowed: Ports
    decided_by: DecidedBy


_Parts = tuple[list[str], list[list[_Judged]]]
"""(why there is a way or none, for each part of the ends that policies tell apart the ways to it)"""


class _Walk:
    def __init__(self, scene: Scene, ir: IR, source: End, destination: End, ports: Ports) -> None:
        self._scene, self._ir, self._ports = scene, ir, ports
        self._source, self._destination = source, destination
        self._from, self._to = end_text(scene, source), end_text(scene, destination)

    def explanation(self) -> Explanation:
        match self._source, self._destination:
            case WorkspaceEnd(), WorkspaceEnd():
                why, parts = self._inside(self._source, self._destination)
            case WorkspaceEnd(), WorldEnd() | SpecialEnd():
                why, parts = self._outside(self._source, self._destination, Direction.EGRESS)
            case WorldEnd() | SpecialEnd(), WorkspaceEnd():
                why, parts = self._outside(self._destination, self._source, Direction.INGRESS)
            case _:
                why, parts = [f"{self._from} and {self._to} are both outside: no workspace's policy judges it."], []
        if not parts:
            steps = (*why, f"{self._what()} is denied: there is no way.")
            return Explanation(False, DecidedBy(TOPOLOGY), steps, NOTHING)
        allowed = self._ports
        for ways in parts:
            allowed = allowed & Ports.union(way.allowed for way in ways)
        is_allowed = self._ports <= allowed
        deciding = next(
            (ways for ways in parts if not self._ports <= Ports.union(way.allowed for way in ways)), parts[0]
        )
        way = next((way for way in deciding if (self._ports <= way.allowed) == is_allowed), deciding[0])
        steps = (*why, *(step for one in deciding for step in one.steps), self._conclusion(allowed))
        return Explanation(is_allowed, way.decided_by, steps, allowed)

    def _what(self) -> str:
        return f"{ports_text(self._ports)} from {self._from} to {self._to}"

    def _conclusion(self, allowed: Ports) -> str:
        if self._ports <= allowed:
            return f"{self._what()} is allowed."
        if allowed & self._ports:
            return f"{self._what()} is allowed in part: {ports_text(allowed & self._ports)}."
        return f"{self._what()} is denied."

    def _inside(self, source: WorkspaceEnd, destination: WorkspaceEnd) -> _Parts:
        if source.workspace == destination.workspace:
            return [f"{self._from} is both ends: what a workspace does with itself never leaves its port."], []
        mine, theirs = ports_of(self._ir, source), ports_of(self._ir, destination)
        pairs = [
            (one, other)
            for one in mine
            for other in theirs
            if source.workspace[0] == destination.workspace[0] and one.network == other.network
        ]
        if not pairs:
            return [
                f"{self._from} is on {_networks(one.network for one in mine)}, "
                f"{self._to} on {_networks(one.network for one in theirs)}: they share none. "
                "Put both on one network to join them."
            ], []
        shared = sorted({one.network for one, _ in pairs})
        ways = []
        for one, other in pairs:
            prefix = f"On {one.network}: " if len(pairs) > 1 else ""
            ways.append(
                self._judged(
                    prefix,
                    [
                        (Direction.EGRESS, self._from, one.end, other.end),
                        (Direction.INGRESS, self._to, other.end, one.end),
                    ],
                )
            )
        return [f"{self._from} and {self._to} share {_networks(shared)}."], [ways]

    def _outside(self, workspace: WorkspaceEnd, outside: WorldEnd | SpecialEnd, direction: Direction) -> _Parts:
        playground, _ = workspace.workspace
        mine = ports_of(self._ir, workspace)
        me, it = end_text(self._scene, workspace), end_text(self._scene, outside)
        why = []
        if isinstance(outside, WorldEnd) or outside.name.startswith("@gateway/"):
            gateways = [one for one in self._scene.gateways if one.playground == playground]
            if isinstance(outside, SpecialEnd):
                gateways = [one for one in gateways if f"@gateway/{one.name}" == outside.name]
            here = [one for one in gateways if any(port.network in one.networks for port in mine)]
            if not here:
                return [
                    f"{me} is on {_networks(port.network for port in mine)}, where there is no gateway, "
                    f"so there is no way to {it}. Give one of these networks a gateway."
                ], []
            if direction is Direction.INGRESS and isinstance(outside, WorldEnd):
                here = [one for one in here if one.is_open_inward]
                if not here:
                    return [
                        f"No gateway of {me} lets the world begin connections: address translation (NAT) has no inside "
                        "to send them to. Only what the inside began is answered."
                    ], []
            mine = [port for port in mine if any(port.network in one.networks for one in here)]
            why.append(f"{me} is joined to {it} by gateway {', '.join(sorted({one.name for one in here}))}.")
        ends = ends_outside(self._ir, outside, playground)
        if not ends:
            return [
                f"{it} lies in a subnet of {playground}, and no workspace has it: it is no part of the world.",
            ], []
        parts: dict[tuple[_Judged, ...], None] = {}
        for end in ends:
            ways = tuple(self._judged("", [(direction, me, port.end, end)]) for port in mine)
            parts.setdefault(tuple(dict.fromkeys(ways)))
        if len(parts) > 1:
            why.append(f"Policies tell {len(parts)} parts of {it} apart; the verdict is for all of them together.")
        return why, [list(ways) for ways in parts]

    def _judged(self, prefix: str, sides: list[tuple[Direction, str, int, int]]) -> _Judged:
        steps: list[str] = []
        allowed = self._ports
        deciding: list[tuple[Decision, DecidedBy]] = []
        for direction, name, subject, end in sides:
            chain = self._ir.chain(direction, subject)
            decisions = judge(chain, end, self._ports)
            allowed = allowed & Ports.union(one.ports for one in decisions if one.is_allowed)
            for decision in decisions:
                part = "" if decision.ports == self._ports else f"{ports_text(decision.ports)}: "
                steps += [f"{prefix}{part}{sentence}" for sentence in _sentences(decision, direction, name, end)]
                deciding.append((decision, _decided_by(decision, direction, name)))
        denying = [by for decision, by in deciding if not decision.is_allowed]
        allowing = [by for decision, by in deciding if decision.way is Way.RULE] or [by for _, by in deciding]
        return _Judged(tuple(steps), allowed, (denying or allowing[-1:])[0])


def _networks(found: Iterable[str]) -> str:
    listed = sorted(set(found))
    if not listed:
        return "no network"
    return ("network " if len(listed) == 1 else "networks ") + ", ".join(listed)


def _decided_by(decision: Decision, direction: Direction, name: str) -> DecidedBy:
    if decision.rule is not None:
        policy = decision.rule.policy
        return DecidedBy(policy.tier.value, name, direction, policy.name, decision.rule.number, decision.rule.origin)
    if decision.closed_by:
        head = decision.closed_by[0]
        return DecidedBy(Tier.OWNER.value, name, direction, head.name, None, head.origin)
    return DecidedBy("default", name, direction)


def _sentences(decision: Decision, direction: Direction, name: str, end: int) -> Iterable[str]:
    """What happened at one end to one part of the ports, tier by tier."""
    side = f"{direction.value} of {name}"
    for rule in decision.passed:
        yield f"{side}: {_rule_text(rule)} passes it on to the next tier."
    if decision.rule is not None:
        verb = {Action.ALLOW: "allows", Action.DENY: "denies", Action.PASS: "passes"}[decision.rule.action]
        yield f"{side}: {_rule_text(decision.rule)} {verb} it."
    elif decision.closed_by:
        listed = ", ".join(_head_text(head) for head in decision.closed_by[:5])
        more = f" and {len(decision.closed_by) - 5} more" if len(decision.closed_by) > 5 else ""
        yield (
            f"{side}: {listed}{more} select{'s' if len(decision.closed_by) == 1 else ''} {name} for {direction.value}, "
            "and no rule allows it: denied. To allow it, add a rule there or another policy that does."
        )
    elif end == SERVICES:
        yield f"{side}: no rule of the admin tier denies it, and only that tier may: allowed."
    else:
        yield f"{side}: no policy speaks of it: allowed."


def _head_text(head: PolicyHead) -> str:
    mode = ", logged" if head.mode is Mode.LOG else ""
    return f"{f'policy {head.name}' if head.name else 'the policy'} ({head.origin}{mode})"


def _rule_text(rule: ResolvedRule) -> str:
    called = f" {rule.name}" if rule.name else ""
    mode = ", logged" if rule.policy.mode is Mode.LOG else ""
    return f"{rule.policy.tier.value} policy {rule.policy.name}, rule {rule.number}{called} ({rule.origin}{mode})"


def ports_text(ports: Ports) -> str:
    """As people write them: `tcp/22, udp/5000-5100, icmp`."""
    if ports == EVERYTHING:
        return "everything"
    listed = []
    for protocol, ranges in ports.parts:
        word = "other protocols" if protocol is Protocol.OTHER else protocol.value.lower()
        for first, last in ranges:
            if (first, last) == LIMITS[protocol]:
                listed.append(word)
            else:
                listed.append(f"{word}/{first}" if first == last else f"{word}/{first}-{last}")
    return ", ".join(listed) or "nothing"
