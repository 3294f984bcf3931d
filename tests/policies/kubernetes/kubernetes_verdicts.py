"""Judges one connection in a Scene by the plain meaning of our words, so that importing is tested by itself."""

from __future__ import annotations

from ipaddress import ip_address

from policies.model import (
    Action,
    BlockPeer,
    Direction,
    Endpoint,
    EndpointPeer,
    Mode,
    Peer,
    Policy,
    Scene,
    Tier,
    WorldPeer,
)
from policies.ports import Protocol

End = Endpoint | str
"""An endpoint, or an address of the world."""


def connects(scene: Scene, source: End, target: End, protocol: Protocol, port: int) -> bool:
    """Both ends have to consent."""
    return allows(scene, Direction.EGRESS, source, target, protocol, port) and allows(
        scene, Direction.INGRESS, target, source, protocol, port
    )


def allows(scene: Scene, direction: Direction, subject: End, peer: End, protocol: Protocol, port: int) -> bool:
    if isinstance(subject, str):
        return True
    for tier in Tier:
        judging = sorted(
            (
                one
                for one in scene.policies
                if one.tier is tier
                and one.mode is not Mode.STAGE
                and one.rules(direction) is not None
                and any(_matches(each, subject, one) for each in one.subjects)
            ),
            key=lambda one: one.priority,
        )
        actions = [
            rule.action
            for one in judging
            for rule in one.rules(direction) or ()
            if rule.ports.holds(protocol, port) and any(_matches(each, peer, one) for each in rule.peers)
        ]
        if tier is Tier.OWNER:
            if judging:
                return bool(actions)
        elif actions and actions[0] is not Action.PASS:
            return actions[0] is Action.ALLOW
    return True


def _matches(peer: Peer, end: End, policy: Policy) -> bool:
    match peer:
        case EndpointPeer():
            return (
                isinstance(end, Endpoint)
                and (peer.playgrounds is None or end.playground in peer.playgrounds)
                and peer.selector.matches(end.labels)
            )
        case WorldPeer():
            return isinstance(end, str)
        case BlockPeer():
            return (
                isinstance(end, str)
                and ip_address(end) in peer.cidr
                and not any(ip_address(end) in part for part in peer.excepted)
            )
        case _:
            raise AssertionError(f"{policy.name} has a peer that Kubernetes can't have: {peer}")
