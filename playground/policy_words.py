"""Pure. A stored policy in a few words for people: what it says, and what of that an edit changes. Decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from policies.codec import PackedPolicy, unpack
from policies.explain import ports_text
from policies.model import (
    BlockPeer,
    Direction,
    EndpointPeer,
    GatewayPeer,
    HostPeer,
    Mode,
    OnDeny,
    Origin,
    Peer,
    Policy,
    Rule,
    SamePeer,
    ServicesPeer,
    Tier,
    WorldPeer,
)
from policies.ports import EVERYTHING
from policies.world import block_text

_USUAL = {"mode": Mode.ENFORCE.value, "on_deny": OnDeny.DROP.value, "established": "cut"}
"""What is so where nothing is said of it."""

_SHOWN = 3
"""Rules that are spelt out; more are counted."""


def policy_text(packed: PackedPolicy) -> str:
    """`subject role=worker, ingress closed, egress to role=head: tcp/22`."""
    policy = _read(packed)
    found = [f"{key} {value}" if value else key for key, value in _facts(policy)]
    for direction in Direction:
        if (rules := policy.rules(direction)) is not None:
            found.append(f"{direction.value} {_counted(_lines(rules, direction)) or 'closed'}")
    return ", ".join(found)


def policy_change(before: PackedPolicy, after: PackedPolicy) -> str:
    """`mode enforce → log, egress + to @world - to role=head: tcp/22`."""
    old, new = _read(before), _read(after)
    was, now = dict(_facts(old)), dict(_facts(new))
    found = [
        f"{key} {was.get(key, _USUAL.get(key, 'none'))} → {now.get(key, _USUAL.get(key, 'none'))}"
        for key in {**was, **now}
        if was.get(key) != now.get(key)
    ]
    for direction in Direction:
        if change := _rules_change(old.rules(direction), new.rules(direction), direction):
            found.append(f"{direction.value} {change}")
    return ", ".join(found) or "says the same in another order"


def _read(packed: PackedPolicy) -> Policy:
    return unpack(packed, "", "", Origin("", 0))


def _facts(policy: Policy) -> Iterator[tuple[str, str]]:
    """All but the rules, where it is not as usual."""
    yield "subject", " or ".join(subject.selector.text for subject in policy.subjects)
    if policy.tier is not Tier.OWNER:
        yield "tier", f"{policy.tier.value} {policy.priority}"
    if policy.mode is not Mode.ENFORCE:
        yield "mode", policy.mode.value
    if policy.on_deny is not OnDeny.DROP:
        yield "on_deny", policy.on_deny.value
    if policy.keeps_established:
        yield "established", "keep"
    if policy.replaces:
        yield "replaces", policy.replaces


def _rules_change(before: tuple[Rule, ...] | None, after: tuple[Rule, ...] | None, direction: Direction) -> str:
    if before == after:
        return ""
    if before is None or after is None or not (before and after):
        return " → ".join(_whole(rules, direction) for rules in (before, after))
    old, new = (Counter(_lines(rules, direction)) for rules in (before, after))
    signs = [*(f"+ {line}" for line in (new - old).elements()), *(f"- {line}" for line in (old - new).elements())]
    return _counted(signs, " ") or "in another order"


def _whole(rules: tuple[Rule, ...] | None, direction: Direction) -> str:
    return "left alone" if rules is None else _counted(_lines(rules, direction)) or "closed"


def _counted(lines: Sequence[str], joint: str = "; ") -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return joint.join([*lines[:_SHOWN], *more])


def _lines(rules: tuple[Rule, ...], direction: Direction) -> list[str]:
    word = "from" if direction is Direction.INGRESS else "to"
    return [_line(rule, word) for rule in rules]


def _line(rule: Rule, word: str) -> str:
    action = "" if rule.action.value == "allow" else f"{rule.action.value} "
    ports = "" if rule.ports == EVERYTHING else f": {ports_text(rule.ports)}"
    return f"{action}{word} {_peers(rule.peers)}{ports}"


def _peers(peers: tuple[Peer, ...]) -> str:
    if WorldPeer() in peers and any(_is_anyone(peer) for peer in peers):
        return "anybody"
    texts = [_peer(peer) for peer in peers]
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _is_anyone(peer: Peer) -> bool:
    return isinstance(peer, EndpointPeer) and peer.playgrounds is None and not peer.selector.terms


def _peer(peer: Peer) -> str:
    match peer:
        case EndpointPeer(selector):
            return selector.text
        case SamePeer(label):
            return f"the same {label}"
        case WorldPeer():
            return "@world"
        case BlockPeer():
            return block_text(peer)
        case ServicesPeer():
            return "@services"
        case HostPeer():
            return "@host"
        case GatewayPeer(name):
            return f"@gateway/{name}"
