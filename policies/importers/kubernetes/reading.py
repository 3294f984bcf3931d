"""Pure. Policies of Kubernetes documents: the four kinds, held to what the API server and the CRDs accept.

Refused, as the server refuses them: unknown fields, wrong types, peers that are nobody or two things at once, bad
prefixes, ranges and names, unknown operators and words, lists longer than a CRD allows. Left to the person as a note:
rules of a direction that the policy doesn't name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policies.importers.kubernetes.fields import At, MisfitError
from policies.importers.kubernetes.objects import (
    ForeignPeer,
    NamedPort,
    Peer,
    PodPeer,
    PolicyObject,
    PortMatch,
    Rule,
)
from policies.importers.kubernetes.ports import admin_port, cluster_protocol, network_policy_port, one_of
from policies.importers.kubernetes.selecting import block, cidr, label_selector
from policies.model import Action, BlockPeer, Direction, Origin, Tier

POLICY_KINDS = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")

MAX_PRIORITY = 1000
BASELINE_PRIORITY = MAX_PRIORITY + 1
"""Of the one BaselineAdminNetworkPolicy, which has none: judged after all that have one."""

_MAX_NAME = 100
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_PEER_KEY = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_ACTIONS = {"Allow": Action.ALLOW, "Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS}


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a kind of the admin and baseline tiers is written. most: of rules, and of a rule's peers and ports."""

    actions: tuple[str, ...]
    ports_key: str
    port: Callable[[At], PortMatch]
    most: int
    needs_namespaces: bool


_DIALECTS = {
    "AdminNetworkPolicy": _Dialect(("Allow", "Deny", "Pass"), "ports", admin_port, 100, True),
    "BaselineAdminNetworkPolicy": _Dialect(("Allow", "Deny"), "ports", admin_port, 100, True),
    "ClusterNetworkPolicy": _Dialect(("Accept", "Deny", "Pass"), "protocols", cluster_protocol, 25, False),
}


def policy_object(at: At, kind: str, namespace: str, name: str, origin: Origin) -> PolicyObject:
    """The policy of a document, whose metadata was read before. Raises MisfitError."""
    top = at.fields(_TOP)
    spec = top.get("spec", At(None, at.line, "spec"))
    if kind == "NetworkPolicy":
        return _network_policy(spec, namespace, name, origin)
    return _tier_policy(spec, kind, name, origin)


def _network_policy(spec: At, namespace: str, name: str, origin: Origin) -> PolicyObject:
    known = spec.fields(("podSelector", "policyTypes", "ingress", "egress"))
    subject = PodPeer(None, label_selector(known["podSelector"]) if "podSelector" in known else ())
    rules = {
        direction: tuple(_rule(item, direction) for item in known[direction.value].items())
        if direction.value in known
        else ()
        for direction in Direction
    }
    types = (
        [item.word(("Ingress", "Egress")) for item in known["policyTypes"].items(2)] if "policyTypes" in known else []
    )
    if not types:  # missing, null and empty alike: ingress always, egress if it has rules
        types = ["Ingress", "Egress"] if rules[Direction.EGRESS] else ["Ingress"]
    return PolicyObject(
        kind="NetworkPolicy",
        namespace=namespace,
        name=name,
        tier=Tier.OWNER,
        priority=0,
        subject=subject,
        ingress=rules[Direction.INGRESS] if "Ingress" in types else None,
        egress=rules[Direction.EGRESS] if "Egress" in types else None,
        origin=origin,
    )


def _rule(at: At, direction: Direction) -> Rule:
    """Peers and ports that are missing, null or empty are all of them."""
    key = _PEER_KEY[direction]
    known = at.fields((key, "ports"))
    peers = tuple(_network_policy_peer(item) for item in known[key].items()) if key in known else ()
    ports = tuple(network_policy_port(item) for item in known["ports"].items()) if "ports" in known else ()
    return Rule(peers or None, ports or None, at.line)


def _network_policy_peer(at: At) -> Peer:
    known = at.fields(("podSelector", "namespaceSelector", "ipBlock"))
    if "ipBlock" in known:
        if len(known) > 1:
            raise MisfitError(at, "ipBlock can't be joined with another selector; write two peers")
        return block(known["ipBlock"])
    if not known:
        raise MisfitError(at, "the peer is nobody; write podSelector, namespaceSelector or ipBlock")
    return PodPeer(
        label_selector(known["namespaceSelector"]) if "namespaceSelector" in known else None,
        label_selector(known["podSelector"]) if "podSelector" in known else (),
    )


def _tier_policy(spec: At, kind: str, name: str, origin: Origin) -> PolicyObject:
    dialect = _DIALECTS[kind]
    head = {
        "AdminNetworkPolicy": ("priority",),
        "BaselineAdminNetworkPolicy": (),
        "ClusterNetworkPolicy": ("tier", "priority"),
    }[kind]
    known = spec.fields((*head, "subject", "ingress", "egress"))
    for needed in (*head, "subject"):
        if needed not in known:
            raise MisfitError(spec, f"{needed} is missing")
    if kind == "BaselineAdminNetworkPolicy" and name != "default":
        raise MisfitError(spec, f"the baseline policy is named {name!r}; there is one in a cluster, named 'default'")
    tier = Tier.ADMIN if kind == "AdminNetworkPolicy" else Tier.BASELINE
    if "tier" in known:
        tier = {"Admin": Tier.ADMIN, "Baseline": Tier.BASELINE}[known["tier"].word(("Admin", "Baseline"))]
    subject_kind, subject = one_of(known["subject"], ("namespaces", "pods"))
    rules = {
        direction: tuple(_tier_rule(item, direction, dialect) for item in known[direction.value].items(dialect.most))
        if direction.value in known
        else ()
        for direction in Direction
    }
    return PolicyObject(
        kind=kind,
        namespace="",
        name=name,
        tier=tier,
        priority=known["priority"].whole(0, MAX_PRIORITY) if "priority" in known else BASELINE_PRIORITY,
        subject=_pods(subject_kind, subject, dialect),
        ingress=rules[Direction.INGRESS] or None,  # without rules it says nothing of the direction
        egress=rules[Direction.EGRESS] or None,
        origin=origin,
    )


def _tier_rule(at: At, direction: Direction, dialect: _Dialect) -> Rule:
    key = _PEER_KEY[direction]
    known = at.fields(("name", "action", key, dialect.ports_key))
    for needed in ("action", key):
        if needed not in known:
            raise MisfitError(at, f"{needed} is missing")
    name = known["name"].value if "name" in known else ""
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        raise MisfitError(known["name"], f"a rule's name is a text of at most {_MAX_NAME} characters")
    peers: list[Peer] = []
    for item in known[key].items(dialect.most, least=1):
        peers.extend(_tier_peers(item, direction, dialect))
    ports = None
    if dialect.ports_key in known:
        ports = tuple(dialect.port(item) for item in known[dialect.ports_key].items(dialect.most, least=1))
        has_name = any(isinstance(port, NamedPort) for port in ports)
        if has_name and not all(isinstance(peer, PodPeer) for peer in peers):
            raise MisfitError(at, "named ports belong to pods; networks, nodes and domainNames have none")
    action = _ACTIONS[known["action"].word(dialect.actions)]
    if action is not Action.ALLOW and any(
        isinstance(peer, ForeignPeer) and peer.kind == "domainNames" for peer in peers
    ):
        raise MisfitError(at, f"domainNames take no {known['action'].value}; they can only be accepted")
    return Rule(tuple(peers), ports, at.line, action, name)


def _tier_peers(at: At, direction: Direction, dialect: _Dialect) -> list[Peer]:
    allowed = ("namespaces", "pods", "nodes", "networks", "domainNames")
    kind, value = one_of(at, allowed[:2] if direction is Direction.INGRESS else allowed)
    match kind:
        case "networks":
            return [BlockPeer(cidr(item)) for item in value.items(25, least=1)]
        case "nodes":
            label_selector(value)
            return [ForeignPeer(kind, at.line)]
        case "domainNames":
            for item in value.items(25, least=1):
                item.text()
            return [ForeignPeer(kind, at.line)]
        case _:
            return [_pods(kind, value, dialect)]


def _pods(kind: str, at: At, dialect: _Dialect) -> PodPeer:
    if kind == "namespaces":
        return PodPeer(label_selector(at), ())
    known = at.fields(("namespaceSelector", "podSelector"))
    for needed in ("namespaceSelector", "podSelector") if dialect.needs_namespaces else ("podSelector",):
        if needed not in known:
            raise MisfitError(at, f"{needed} is missing; an empty one, {{}}, selects all")
    return PodPeer(
        label_selector(known["namespaceSelector"]) if "namespaceSelector" in known else (),
        label_selector(known["podSelector"]),
    )
