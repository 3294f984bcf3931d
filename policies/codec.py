"""Pure. A policy as it is stored and sent: plain structs that msgspec checks and writes, and back. Resolves nothing.

What is packed is what is enforced: where a policy was written is no part of it, and neither are its name and whose it
is, which its record says. So lines may move in a file without anything being written or enforced anew.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec

from policies.model import (
    Action,
    BlockPeer,
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
from policies.ports import EVERYTHING, LIMITS, Ports, Protocol
from policies.selector import Operator, Selector, Term, is_selector, selector_text


class Unreadable(msgspec.ValidationError):
    """What was read has the shape of a policy and can't be one; as msgspec says of what has another shape."""


class _Packed(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    # gc=False: nothing here can refer back to what holds it
    pass


class _Listed(_Packed, frozen=True, array_like=True):
    pass


class PackedTerm(_Listed, frozen=True):
    """A condition on one label; values sorted."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class PackedSelector(_Listed, frozen=True):
    """A conjunction. word: the name by which a file says it, as a workspace's; "" where it is spelt out."""

    word: str
    terms: tuple[PackedTerm, ...] = ()


class PackedEndpoints(_Listed, frozen=True, tag="endpoints"):
    """Endpoints that a selector matches; playgrounds sorted, None for all."""

    selector: PackedSelector
    playgrounds: tuple[str, ...] | None


class PackedSame(_Listed, frozen=True, tag="same"):
    """`{same: LABEL}`."""

    label: str


class PackedWorld(_Listed, frozen=True, tag="world"):
    """`@world`."""


class PackedBlock(_Listed, frozen=True, tag="block"):
    """A CIDR, without others inside it."""

    cidr: str
    excepted: tuple[str, ...] = ()


class PackedServices(_Listed, frozen=True, tag="services"):
    """`@services`."""


class PackedHost(_Listed, frozen=True, tag="host"):
    """`@host`."""


class PackedGateway(_Listed, frozen=True, tag="gateway"):
    """`@gateway/NAME`."""

    name: str


PackedPeer = PackedEndpoints | PackedSame | PackedWorld | PackedBlock | PackedServices | PackedHost | PackedGateway


class PackedRule(_Packed, frozen=True):
    """A rule. ports: ranges [first, last] by protocol; None is everything."""

    peers: tuple[PackedPeer, ...]
    ports: dict[Protocol, tuple[tuple[int, int], ...]] | None = None
    action: Action = Action.ALLOW
    name: str = ""


class PackedPolicy(_Packed, frozen=True):
    """All of a policy that decides about packets; see model.Policy."""

    subjects: tuple[PackedEndpoints, ...]
    ingress: tuple[PackedRule, ...] | None = None
    egress: tuple[PackedRule, ...] | None = None
    tier: Tier = Tier.OWNER
    priority: int = 0
    mode: Mode = Mode.ENFORCE
    on_deny: OnDeny = OnDeny.DROP
    replaces: str = ""
    keeps_established: bool = False


def pack(policy: Policy) -> PackedPolicy:
    """The policy without name, playground and origins: equal ones decide alike."""
    return PackedPolicy(
        tuple(_pack_endpoints(subject) for subject in policy.subjects),
        _pack_rules(policy.ingress),
        _pack_rules(policy.egress),
        policy.tier,
        policy.priority,
        policy.mode,
        policy.on_deny,
        policy.replaces,
        policy.keeps_established,
    )


def unpack(packed: PackedPolicy, name: str, playground: str, origin: Origin) -> Policy:
    """The policy again. origin: of the policy and of all its rules. Raises Unreadable."""
    try:
        return Policy(
            name=name,
            subjects=tuple(_unpack_endpoints(subject) for subject in packed.subjects),
            ingress=_unpack_rules(packed.ingress, origin),
            egress=_unpack_rules(packed.egress, origin),
            origin=origin,
            tier=packed.tier,
            priority=packed.priority,
            mode=packed.mode,
            on_deny=packed.on_deny,
            playground=playground,
            replaces=packed.replaces,
            keeps_established=packed.keeps_established,
        )
    except ValueError as error:
        raise Unreadable(f"the policy {name}: {error}") from error


def moved(policy: Policy, origin: Origin) -> Policy:
    """The same policy, written somewhere else: what `unpack` makes of what `pack` made of it."""

    def rules(given: tuple[Rule, ...] | None) -> tuple[Rule, ...] | None:
        return None if given is None else tuple(replace(rule, origin=origin) for rule in given)

    return replace(policy, origin=origin, ingress=rules(policy.ingress), egress=rules(policy.egress))


def _pack_rules(rules: tuple[Rule, ...] | None) -> tuple[PackedRule, ...] | None:
    if rules is None:
        return None
    return tuple(
        PackedRule(tuple(_pack_peer(peer) for peer in rule.peers), _pack_ports(rule.ports), rule.action, rule.name)
        for rule in rules
    )


def _pack_ports(ports: Ports) -> dict[Protocol, tuple[tuple[int, int], ...]] | None:
    return None if ports == EVERYTHING else dict(ports.parts)


def _pack_peer(peer: Peer) -> PackedPeer:
    match peer:
        case EndpointPeer():
            return _pack_endpoints(peer)
        case SamePeer(label):
            return PackedSame(label)
        case WorldPeer():
            return PackedWorld()
        case BlockPeer(cidr, excepted):
            return PackedBlock(str(cidr), tuple(map(str, excepted)))
        case ServicesPeer():
            return PackedServices()
        case HostPeer():
            return PackedHost()
        case GatewayPeer(name):
            return PackedGateway(name)


def _pack_endpoints(peer: EndpointPeer) -> PackedEndpoints:
    terms = tuple(PackedTerm(term.key, term.operator, tuple(sorted(term.values))) for term in peer.selector.terms)
    playgrounds = None if peer.playgrounds is None else tuple(sorted(peer.playgrounds))
    word = "" if is_selector(peer.selector.text) else peer.selector.text
    return PackedEndpoints(PackedSelector(word, terms), playgrounds)


def _unpack_rules(rules: tuple[PackedRule, ...] | None, origin: Origin) -> tuple[Rule, ...] | None:
    if rules is None:
        return None
    return tuple(
        Rule(
            tuple(_unpack_peer(peer) for peer in rule.peers), _unpack_ports(rule.ports), origin, rule.action, rule.name
        )
        for rule in rules
    )


def _unpack_ports(packed: dict[Protocol, tuple[tuple[int, int], ...]] | None) -> Ports:
    if packed is None:
        return EVERYTHING
    for protocol, ranges in packed.items():
        lowest, highest = LIMITS[protocol]
        before = lowest - 2
        for first, last in ranges:
            if not before + 1 < first <= last <= highest:
                raise ValueError(f"{first}-{last} is no range of {protocol.value}, or none that stands here")
            before = last
        if not ranges:
            raise ValueError(f"no range of {protocol.value}")
    return Ports(tuple((protocol, packed[protocol]) for protocol in Protocol if protocol in packed))


def _unpack_peer(packed: PackedPeer) -> Peer:
    match packed:
        case PackedEndpoints():
            return _unpack_endpoints(packed)
        case PackedSame(label):
            return SamePeer(label)
        case PackedWorld():
            return WorldPeer()
        case PackedBlock(cidr, excepted):
            return BlockPeer(_cidr(cidr), tuple(map(_cidr, excepted)))
        case PackedServices():
            return ServicesPeer()
        case PackedHost():
            return HostPeer()
        case PackedGateway(name):
            return GatewayPeer(name)


def _unpack_endpoints(packed: PackedEndpoints) -> EndpointPeer:
    playgrounds = None if packed.playgrounds is None else frozenset(packed.playgrounds)
    terms = tuple(map(_unpack_term, packed.selector.terms))
    return EndpointPeer(Selector(packed.selector.word or selector_text(terms), terms), playgrounds)


def _unpack_term(packed: PackedTerm) -> Term:
    if bool(packed.values) is not (packed.operator in (Operator.IN, Operator.NOT_IN)):
        raise ValueError(f"{packed.operator.value} of {packed.key!r} with {len(packed.values)} values")
    return Term(packed.key, packed.operator, frozenset(packed.values))


@functools.lru_cache(maxsize=4096)
def _cidr(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)
