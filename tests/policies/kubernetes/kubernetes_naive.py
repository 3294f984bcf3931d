"""The oracle: decides one connection from raw Kubernetes objects, by the words of the Kubernetes documentation.

Deliberately dumb: nested loops over dicts, nothing precomputed, nothing of ours imported. A pod is a dict with
`namespace`, `labels`, `ports` ({name, protocol, containerPort}) and `hostNetwork`; an outside end is an address.
"""

from __future__ import annotations

import ipaddress
from typing import Any

Object = dict[str, Any]
End = Object | str
"""A pod, or an address of the world."""


def connects(objects: list[Object], source: End, target: End, protocol: str, port: int) -> bool:
    """For a connection from a source pod to a destination pod, both the egress rules on the source pod and the
    ingress rules on the destination pod need to allow it."""
    return side_allows(objects, "Egress", source, target, target, protocol, port) and side_allows(
        objects, "Ingress", target, source, target, protocol, port
    )


def side_allows(
    objects: list[Object], way: str, subject: End, peer: End, target: End, protocol: str, port: int
) -> bool:
    """Whether the policies of one end let a connection through: admin tier, NetworkPolicies, baseline tier."""
    if isinstance(subject, str) or subject["hostNetwork"]:
        return True
    space = labels_of_namespace(objects, subject)
    for tier in ("Admin", "NetworkPolicy", "Baseline"):
        if tier == "NetworkPolicy":
            selecting = [one for one in network_policies(objects) if policy_selects(one, way, subject)]
            if selecting:
                return any(
                    network_policy_rule_matches(objects, one, rule, way, peer, target, protocol, port)
                    for one in selecting
                    for rule in one.get("spec", {}).get(way.lower()) or []
                )
            continue
        for one in sorted(tier_policies(objects, tier), key=priority):
            spec = one["spec"]
            if not tier_pods_match(spec["subject"], space, subject):
                continue
            decided = first_action(objects, one, way, peer, target, protocol, port)
            if decided == "Pass":
                break
            if decided is not None:
                return decided in ("Allow", "Accept")
    return True


def first_action(
    objects: list[Object], policy: Object, way: str, peer: End, target: End, protocol: str, port: int
) -> str | None:
    """Rules at the top have the highest precedence."""
    for rule in policy["spec"].get(way.lower()) or []:
        peers = rule["from" if way == "Ingress" else "to"]
        if any(tier_peer_matches(objects, one, peer) for one in peers) and tier_ports_match(
            rule, target, protocol, port
        ):
            return str(rule["action"])
    return None


def network_policies(objects: list[Object]) -> list[Object]:
    return [one for one in objects if one["kind"] == "NetworkPolicy"]


def tier_policies(objects: list[Object], tier: str) -> list[Object]:
    return [
        one
        for one in objects
        if (one["kind"] == "AdminNetworkPolicy" and tier == "Admin")
        or (one["kind"] == "BaselineAdminNetworkPolicy" and tier == "Baseline")
        or (one["kind"] == "ClusterNetworkPolicy" and one["spec"]["tier"] == tier)
    ]


def priority(policy: Object) -> int:
    """Lower is checked first; the baseline policy without one comes after those with."""
    return int(policy["spec"].get("priority", 10_000))


def policy_selects(policy: Object, way: str, pod: Object) -> bool:
    spec = policy.get("spec", {})
    types = spec.get("policyTypes")
    if not types:
        types = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    if way not in types or namespace_of(policy) != pod["namespace"]:
        return False
    return selects(spec.get("podSelector") or {}, pod["labels"])


def network_policy_rule_matches(
    objects: list[Object], policy: Object, rule: Object, way: str, peer: End, target: End, protocol: str, port: int
) -> bool:
    rule = rule or {}
    peers = rule.get("from" if way == "Ingress" else "to")
    if peers and not any(network_policy_peer_matches(objects, policy, one, peer) for one in peers):
        return False
    ports = rule.get("ports")
    return not ports or any(network_policy_port_matches(one or {}, target, protocol, port) for one in ports)


def network_policy_peer_matches(objects: list[Object], policy: Object, one: Object, peer: End) -> bool:
    if one.get("ipBlock") is not None:
        return isinstance(peer, str) and in_block(one["ipBlock"], peer)
    if isinstance(peer, str) or peer["hostNetwork"]:
        return False
    if one.get("namespaceSelector") is not None:
        if not selects(one["namespaceSelector"], labels_of_namespace(objects, peer)):
            return False
    elif peer["namespace"] != namespace_of(policy):
        return False
    return one.get("podSelector") is None or selects(one["podSelector"], peer["labels"])


def in_block(block: Object, address: str) -> bool:
    return within(address, block["cidr"]) and not any(within(address, part) for part in block.get("except") or [])


def within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr, strict=False)


def network_policy_port_matches(one: Object, target: End, protocol: str, port: int) -> bool:
    if (one.get("protocol") or "TCP") != protocol:
        return False
    wanted = one.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return isinstance(target, dict) and (protocol, port) in named(target, wanted)
    return bool(wanted <= port <= (one.get("endPort") or wanted))


def named(pod: Object, name: str) -> list[tuple[str, int]]:
    if pod["hostNetwork"]:
        return []
    return [(one.get("protocol") or "TCP", one["containerPort"]) for one in pod["ports"] if one.get("name") == name]


def tier_pods_match(selection: Object, space: dict[str, str], pod: Object) -> bool:
    if selection.get("namespaces") is not None:
        return selects(selection["namespaces"], space)
    pods = selection["pods"]
    return selects(pods.get("namespaceSelector") or {}, space) and selects(pods["podSelector"], pod["labels"])


def tier_peer_matches(objects: list[Object], one: Object, peer: End) -> bool:
    if isinstance(peer, str):
        return any(within(peer, cidr) for cidr in one.get("networks") or [])
    if "networks" in one or peer["hostNetwork"]:
        return False
    return tier_pods_match(one, labels_of_namespace(objects, peer), peer)


def tier_ports_match(rule: Object, target: End, protocol: str, port: int) -> bool:
    if rule.get("ports") is not None:
        return any(admin_port_matches(one, target, protocol, port) for one in rule["ports"])
    if rule.get("protocols") is not None:
        return any(protocol_matches(one, target, protocol, port) for one in rule["protocols"])
    return True


def admin_port_matches(one: Object, target: End, protocol: str, port: int) -> bool:
    if "namedPort" in one:
        return isinstance(target, dict) and (protocol, port) in named(target, one["namedPort"])
    if "portNumber" in one:
        return (one["portNumber"].get("protocol") or "TCP", one["portNumber"]["port"]) == (protocol, port)
    span = one["portRange"]
    return (span.get("protocol") or "TCP") == protocol and span["start"] <= port <= span["end"]


def protocol_matches(one: Object, target: End, protocol: str, port: int) -> bool:
    if "destinationNamedPort" in one:
        return isinstance(target, dict) and (protocol, port) in named(target, one["destinationNamedPort"])
    if protocol.lower() not in one:
        return False
    wanted = one[protocol.lower()]["destinationPort"]
    if "number" in wanted:
        return bool(wanted["number"] == port)
    return bool(wanted["range"]["start"] <= port <= wanted["range"]["end"])


def namespace_of(one: Object) -> str:
    return str(one["metadata"].get("namespace") or "default")


def labels_of_namespace(objects: list[Object], pod: Object) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in objects:
        if one["kind"] == "Namespace" and one["metadata"]["name"] == pod["namespace"]:
            found.update(one["metadata"].get("labels") or {})
    return {**found, "kubernetes.io/metadata.name": pod["namespace"]}


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """The result of matchLabels and matchExpressions are ANDed. An empty selector matches all objects."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for one in selector.get("matchExpressions") or []:
        key, operator, values = one["key"], one["operator"], one.get("values") or []
        if operator == "In" and not (key in labels and labels[key] in values):
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True
