"""The deliberately dumb evaluator: from the definitions, one endpoint, one peer, one protocol and one port at a time.

It shares with the fast one only the words of policies.model, selectors' matching and whether a set holds a port.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from policies.model import (
    Action,
    BlockPeer,
    Direction,
    Endpoint,
    EndpointPeer,
    GatewayPeer,
    HostPeer,
    Mode,
    Peer,
    Policy,
    Rule,
    SamePeer,
    Scene,
    ServicesPeer,
    Tier,
    WorldPeer,
)
from policies.ports import Protocol

Address = IPv4Address | IPv6Address
Point = tuple[Protocol, int]


@dataclass(frozen=True)
class Special:
    """An end that is no endpoint and no address: "services", "host", or a gateway."""

    kind: str
    playground: str = ""


End = Endpoint | Address | Special


def is_matched(peer: Peer, policy: Policy, subject: Endpoint, other: End) -> bool:
    """Whether a peer in a policy means an end, seen from a subject."""
    if isinstance(other, Endpoint):
        if isinstance(peer, EndpointPeer):
            return is_selected(peer, other)
        if isinstance(peer, SamePeer):
            return (
                peer.label in subject.labels
                and other.playground == subject.playground
                and subject.labels[peer.label] == other.labels.get(peer.label)
            )
        return False
    if isinstance(other, Special):
        if isinstance(peer, GatewayPeer):
            return other.kind == f"gateway {peer.name}" and policy.playground in ("", other.playground)
        return (other.kind, type(peer)) in (("services", ServicesPeer), ("host", HostPeer))
    if isinstance(peer, BlockPeer):
        return other in peer.cidr and not any(other in hole for hole in peer.excepted)
    return isinstance(peer, WorldPeer)


def is_selected(peer: EndpointPeer, endpoint: Endpoint) -> bool:
    """Whether a selector means an endpoint."""
    return (peer.playgrounds is None or endpoint.playground in peer.playgrounds) and peer.selector.matches(
        endpoint.labels
    )


def is_enforced(policy: Policy, policies: tuple[Policy, ...], is_staged: bool) -> bool:
    """Whether a policy counts: as it is, or as it would be with what is staged."""
    if not is_staged:
        return policy.mode is not Mode.STAGE
    if policy.mode is Mode.STAGE:
        return True
    return not any(
        (other.mode, other.replaces, other.tier, other.playground)
        == (Mode.STAGE, policy.name, policy.tier, policy.playground)
        for other in policies
    )


def consents(
    scene: Scene, direction: Direction, subject: Endpoint, other: End, point: Point, is_staged: bool = False
) -> bool:
    """Whether a subject's own policies let it send to (EGRESS) or take from (INGRESS) another end."""

    def rules(tier: Tier) -> list[tuple[Policy, Rule]]:
        mine = [
            policy
            for policy in scene.policies
            if policy.tier is tier
            and is_enforced(policy, scene.policies, is_staged)
            and any(is_selected(selector, subject) for selector in policy.subjects)
        ]
        mine.sort(key=lambda policy: (policy.priority, policy.playground, policy.name, policy.origin))
        return [(policy, rule) for policy in mine for rule in policy.rules(direction) or ()]

    def speaks(policy: Policy, rule: Rule) -> bool:
        return rule.ports.holds(*point) and any(is_matched(peer, policy, subject, other) for peer in rule.peers)

    for policy, rule in rules(Tier.ADMIN):
        if speaks(policy, rule):
            if rule.action is Action.PASS:
                break
            return rule.action is Action.ALLOW
    if other == Special("services"):
        return True
    is_closed = any(
        policy.tier is Tier.OWNER
        and policy.rules(direction) is not None
        and is_enforced(policy, scene.policies, is_staged)
        and any(is_selected(selector, subject) for selector in policy.subjects)
        for policy in scene.policies
    )
    if is_closed:
        return any(speaks(policy, rule) for policy, rule in rules(Tier.OWNER))
    for policy, rule in rules(Tier.BASELINE):
        if speaks(policy, rule):
            return rule.action is not Action.DENY
    return True


def is_owned(scene: Scene, playground: str, address: Address) -> bool:
    """Whether an address is no world to a playground."""
    return any(subnet.playground == playground and address in subnet.prefix for subnet in scene.subnets) or any(
        endpoint.playground == playground and address in map(ip_address, endpoint.addresses)
        for endpoint in scene.endpoints
    )


def is_allowed(scene: Scene, source: End, destination: End, point: Point, is_staged: bool = False) -> bool:
    """Whether a connection may begin between two endpoints, or between an endpoint and an address of the world."""
    if isinstance(source, Endpoint) and isinstance(destination, Endpoint):
        has_way = (source.playground, source.network) == (destination.playground, destination.network)
    elif isinstance(source, Endpoint):
        has_way = any(
            gateway.playground == source.playground and source.network in gateway.networks for gateway in scene.gateways
        ) and not is_owned(scene, source.playground, destination)
    else:
        has_way = any(
            gateway.playground == destination.playground
            and destination.network in gateway.networks
            and gateway.is_open_inward
            for gateway in scene.gateways
        ) and not is_owned(scene, destination.playground, source)
    return (
        has_way
        and (
            not isinstance(source, Endpoint) or consents(scene, Direction.EGRESS, source, destination, point, is_staged)
        )
        and (
            not isinstance(destination, Endpoint)
            or consents(scene, Direction.INGRESS, destination, source, point, is_staged)
        )
    )


def workspaces_talk(
    scene: Scene, source: tuple[str, str], destination: tuple[str, str], point: Point, is_staged: bool = False
) -> bool:
    """Whether some endpoint of one workspace may begin a connection to some endpoint of another."""
    return any(
        is_allowed(scene, one, other, point, is_staged)
        for one in scene.endpoints
        if (one.playground, one.workspace) == source
        for other in scene.endpoints
        if (other.playground, other.workspace) == destination
    )


def workspace_and_world(
    scene: Scene, workspace: tuple[str, str], address: Address, is_outward: bool, point: Point, is_staged: bool = False
) -> bool:
    """Whether some endpoint of a workspace may begin a connection to an address of the world, or the other way."""
    mine = [one for one in scene.endpoints if (one.playground, one.workspace) == workspace]
    pairs = [(one, address) if is_outward else (address, one) for one in mine]
    return any(is_allowed(scene, source, destination, point, is_staged) for source, destination in pairs)
