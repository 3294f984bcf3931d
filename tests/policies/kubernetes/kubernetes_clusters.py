"""Random clusters, small enough to judge every connection of: few labels, ports and addresses, all kinds of policy."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]

SPACES = ("default", "shop", "bank")
KEYS = ("app", "tier")
VALUES = ("a", "b", "")
PORT_NAMES = ("http", "dns")
NUMBERS = (53, 80, 81, 8080)
PROTOCOLS = ("TCP", "UDP", "SCTP")
ADDRESSES = ("10.0.0.1", "10.0.1.1", "10.0.1.200", "192.0.2.7", "fd00::1", "2001:db8::1")
BLOCKS = ("0.0.0.0/0", "10.0.0.0/8", "10.0.1.0/24", "10.0.1.7/25", "::/0", "fd00::/8")
PROBES = (
    *(("TCP", number) for number in (*NUMBERS, 1, 65535)),
    *(("UDP", number) for number in (*NUMBERS, 1)),
    ("SCTP", 80),
    ("SCTP", 9),
    ("ICMP", 8),
    ("OTHER", 0),
)

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)


@st.composite
def selectors(draw: st.DrawFn) -> Object:
    found: Object = {}
    if draw(st.booleans()):
        found["matchLabels"] = draw(labels)
    if draw(st.integers(0, 3)) == 0:
        found["matchExpressions"] = draw(st.lists(expressions(), max_size=2))
    return found


@st.composite
def expressions(draw: st.DrawFn) -> Object:
    operator = draw(st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")))
    one: Object = {"key": draw(st.sampled_from(KEYS)), "operator": operator}
    if operator in ("In", "NotIn"):
        one["values"] = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2))
    elif draw(st.booleans()):
        one["values"] = draw(st.sampled_from(([], None)))
    return one


@st.composite
def space_selectors(draw: st.DrawFn) -> Object:
    if draw(st.booleans()):
        return draw(selectors())
    return {"matchLabels": {"kubernetes.io/metadata.name": draw(st.sampled_from(SPACES))}}


@st.composite
def pods(draw: st.DrawFn, number: int) -> Object:
    names = draw(st.lists(st.sampled_from(PORT_NAMES), unique=True, max_size=2))
    ports = []
    for name in names:
        port: Object = {"name": name, "containerPort": draw(st.sampled_from(NUMBERS))}
        if (protocol := draw(st.sampled_from((None, *PROTOCOLS)))) is not None:
            port["protocol"] = protocol
        ports.append(port)
    metadata: Object = {"name": f"pod-{number}", "labels": draw(labels)}
    if (space := draw(st.sampled_from(SPACES))) != "default" or draw(st.booleans()):
        metadata["namespace"] = space
    spec: Object = {"containers": [{"name": "one", "ports": ports}]}
    if draw(st.integers(0, 6)) == 0:
        spec["hostNetwork"] = True
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@st.composite
def network_policy_ports(draw: st.DrawFn) -> Object:
    one: Object = {}
    if (protocol := draw(st.sampled_from((None, *PROTOCOLS)))) is not None:
        one["protocol"] = protocol
    match draw(st.integers(0, 4)):
        case 0:
            one["port"] = None
        case 1 | 2:
            one["port"] = draw(st.sampled_from(PORT_NAMES))
        case 3:
            one["port"] = draw(st.sampled_from(NUMBERS))
        case _:
            one["port"] = draw(st.sampled_from(NUMBERS))
            one["endPort"] = one["port"] + draw(st.sampled_from((0, 1, 4000)))
    return one


@st.composite
def network_policy_peers(draw: st.DrawFn) -> Object:
    match draw(st.integers(0, 4)):
        case 0:
            return {"podSelector": draw(selectors())}
        case 1:
            return {"namespaceSelector": draw(space_selectors()), "podSelector": None}
        case 2 | 3:
            return {"namespaceSelector": draw(space_selectors()), "podSelector": draw(selectors())}
        case _:
            block: Object = {"cidr": draw(st.sampled_from(BLOCKS))}
            if block["cidr"] in ("0.0.0.0/0", "10.0.0.0/8"):
                block["except"] = draw(st.sampled_from((None, [], ["10.0.1.0/24"], ["10.0.0.0/24", "10.0.1.128/25"])))
            return {"ipBlock": block}


@st.composite
def network_policies(draw: st.DrawFn, number: int) -> Object:
    spec: Object = {"podSelector": draw(selectors())}
    if draw(st.booleans()):
        types = [[], None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]]
        spec["policyTypes"] = draw(st.sampled_from(types))
    for way, key in (("ingress", "from"), ("egress", "to")):
        if draw(st.integers(0, 3)) == 0:
            if draw(st.booleans()):
                spec[way] = draw(st.sampled_from((None, [], [{}], [None])))
            continue
        rules = []
        for _ in range(draw(st.integers(0, 2))):
            rule: Object = {}
            if draw(st.integers(0, 3)):
                rule[key] = draw(st.none() | st.lists(network_policy_peers(), max_size=2))
            if draw(st.integers(0, 2)):
                rule["ports"] = draw(st.none() | st.lists(network_policy_ports(), max_size=2))
            rules.append(rule)
        spec[way] = rules
    metadata: Object = {"name": f"policy-{number}"}
    if (space := draw(st.sampled_from(SPACES))) != "default":
        metadata["namespace"] = space
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


@st.composite
def tier_pods(draw: st.DrawFn) -> Object:
    if draw(st.booleans()):
        return {"namespaces": draw(space_selectors())}
    return {"pods": {"namespaceSelector": draw(space_selectors()), "podSelector": draw(selectors())}}


@st.composite
def admin_ports(draw: st.DrawFn) -> Object:
    protocol = draw(st.sampled_from(PROTOCOLS))
    match draw(st.integers(0, 3)):
        case 0 | 1:
            return {"namedPort": draw(st.sampled_from(PORT_NAMES))}
        case 2:
            return {"portNumber": {"protocol": protocol, "port": draw(st.sampled_from(NUMBERS))}}
        case _:
            return {"portRange": {"protocol": protocol, "start": draw(st.sampled_from((1, 53, 80))), "end": 8080}}


@st.composite
def cluster_protocols(draw: st.DrawFn) -> Object:
    protocol = draw(st.sampled_from(("tcp", "udp", "sctp")))
    match draw(st.integers(0, 3)):
        case 0 | 1:
            return {"destinationNamedPort": draw(st.sampled_from(PORT_NAMES))}
        case 2:
            return {protocol: {"destinationPort": {"number": draw(st.sampled_from(NUMBERS))}}}
        case _:
            return {protocol: {"destinationPort": {"range": {"start": draw(st.sampled_from((1, 53))), "end": 8080}}}}


def _is_named(port: Object) -> bool:
    return "namedPort" in port or "destinationNamedPort" in port


@st.composite
def tier_policies(draw: st.DrawFn, number: int) -> Object:
    kind = draw(st.sampled_from(("AdminNetworkPolicy", "ClusterNetworkPolicy", "ClusterNetworkPolicy")))
    allow = "Accept" if kind == "ClusterNetworkPolicy" else "Allow"
    spec: Object = {"priority": number, "subject": draw(tier_pods())}
    if kind == "ClusterNetworkPolicy":
        spec["tier"] = draw(st.sampled_from(("Admin", "Baseline")))
    for way, key in (("ingress", "from"), ("egress", "to")):
        rules = []
        for _ in range(draw(st.integers(0, 2))):
            rule: Object = {"action": draw(st.sampled_from((allow, "Deny", "Pass")))}
            rule[key] = draw(st.lists(tier_pods(), min_size=1, max_size=2))
            if draw(st.booleans()):
                one = admin_ports() if allow == "Allow" else cluster_protocols()
                ports = draw(st.lists(one, min_size=1, max_size=2))
                rule["ports" if allow == "Allow" else "protocols"] = ports
            if way == "egress" and draw(st.integers(0, 2)) == 0 and not any(map(_is_named, _ports(rule))):
                rule[key].append({"networks": draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=2))})
            rules.append(rule)
        if rules or draw(st.booleans()):
            spec[way] = rules
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return {
        "apiVersion": f"policy.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {"name": f"tier-{number}"},
        "spec": spec,
    }


def _ports(rule: Object) -> list[Object]:
    return [*rule.get("ports", []), *rule.get("protocols", [])]


@st.composite
def baselines(draw: st.DrawFn) -> Object:
    one = draw(tier_policies(0).filter(lambda policy: policy["kind"] == "AdminNetworkPolicy"))
    del one["spec"]["priority"]
    for way in ("ingress", "egress"):
        for rule in one["spec"].get(way, []):
            rule["action"] = "Deny" if rule["action"] == "Pass" else rule["action"]
    return {**one, "kind": "BaselineAdminNetworkPolicy", "metadata": {"name": "default"}}


@st.composite
def clusters(draw: st.DrawFn) -> list[Object]:
    """Objects as an API server would hold them, in any order."""
    found = [draw(pods(number)) for number in range(draw(st.integers(1, 4)))]
    for name in draw(st.lists(st.sampled_from(SPACES), unique=True)):
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": draw(labels)}})
    found.extend(draw(network_policies(number)) for number in range(draw(st.integers(0, 3))))
    found.extend(draw(tier_policies(number)) for number in range(draw(st.integers(0, 2))))
    if draw(st.integers(0, 3)) == 0:
        found.append(draw(baselines()))
    return draw(st.permutations(found))


def text(objects: list[Object]) -> str:
    """The objects as one list."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def ends(objects: list[Object]) -> dict[str, Object]:
    """NAMESPACE/NAME → the pod as the oracle takes it."""
    return {
        f"{one['metadata'].get('namespace') or 'default'}/{one['metadata']['name']}": {
            "namespace": one["metadata"].get("namespace") or "default",
            "labels": one["metadata"].get("labels") or {},
            "ports": one["spec"]["containers"][0]["ports"],
            "hostNetwork": one["spec"].get("hostNetwork", False),
        }
        for one in objects
        if one["kind"] == "Pod"
    }
