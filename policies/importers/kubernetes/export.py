"""Pure. A Scene → Kubernetes documents: policies as NetworkPolicy and ClusterNetworkPolicy v1alpha2, pods if asked for.

A playground is a namespace and a workspace a pod; a scene that came from Kubernetes gets its own namespaces back. Words
that Kubernetes' alphabets don't have get near ones, in labels and selectors alike. What Kubernetes can't say is refused
by name: staging, logging, rejecting, sparing what runs, ICMP by itself, and peers other than pods and addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from policies.importers.kubernetes.block_yaml import block_yaml
from policies.importers.kubernetes.findings import Finding, KubernetesError
from policies.importers.kubernetes.lower import NAMESPACE, NAMESPACE_KEY, PLAYGROUND, PORT
from policies.importers.kubernetes.objects import NAMESPACE_NAME
from policies.importers.kubernetes.reading import MAX_PRIORITY
from policies.importers.kubernetes.wording import Wording, dns_label
from policies.model import (
    Action,
    BlockPeer,
    Endpoint,
    EndpointPeer,
    Mode,
    OnDeny,
    Peer,
    Policy,
    Rule,
    Scene,
    Tier,
    WorldPeer,
)
from policies.ports import LIMITS, Protocol
from policies.selector import Operator, Term

MOST = 25
"""Rules, and a rule's peers and ports, of a ClusterNetworkPolicy."""

_IMPORTED = frozenset({PLAYGROUND})
_EVERYWHERE = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))
_OPERATORS = {Operator.IN: "In", Operator.NOT_IN: "NotIn", Operator.HAS: "Exists", Operator.HAS_NOT: "DoesNotExist"}
_ACTIONS = {Action.ALLOW: "Accept", Action.DENY: "Deny", Action.PASS: "Pass"}
_TIERS = {Tier.ADMIN: "Admin", Tier.BASELINE: "Baseline"}
_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,200}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,55}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,55}[A-Za-z0-9])?)?")

_Object = dict[str, Any]


def kubernetes_text(scene: Scene, owned: Iterable[IPv4Network | IPv6Network] = (), *, with_pods: bool = False) -> str:
    """YAML documents. owned: the playgrounds' subnets, which `@world` leaves out. with_pods: namespaces and pods too.

    Raises KubernetesError, all reasons at once.
    """
    return _Exporter(scene, tuple(owned)).text(with_pods)


class _Exporter:
    def __init__(self, scene: Scene, owned: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._scene = scene
        self._owned = owned
        self._refusals: list[Finding] = []
        self._keys = {True: Wording(_key_shape), False: Wording(_key_shape)}  # of namespaces, of pods
        self._spaces = Wording(dns_label)
        self._values: dict[str, Wording] = {}
        self._names: dict[str, Wording] = {}
        self._count = 0
        self._is_one_playground = len({one.playground for one in scene.endpoints}) < 2
        # what is allowed as it is keeps its name before others want it
        words = {(key, value) for one in scene.endpoints for key, value in one.labels.items()}
        for word in sorted(words, key=lambda word: (not _KEY.fullmatch(word[0]), not _VALUE.fullmatch(word[1]), word)):
            self._word(*word)

    def text(self, with_pods: bool) -> str:
        objects = list(self._world_of_pods()) if with_pods else []
        for one in self._scene.policies:
            objects.extend(self._policy(one))
        if self._refusals:
            raise KubernetesError(self._refusals)
        return "---\n".join(block_yaml(one) for one in objects)

    def _refuse(self, one: Policy, rule: Rule | None, what: str) -> None:
        origin = rule.origin if rule else one.origin
        self._refusals.append(Finding(origin, f"policy {one.name}: Kubernetes has no {what}"))

    def _world_of_pods(self) -> Iterator[_Object]:
        spaces: dict[str, dict[str, str]] = {}
        pods = []
        for one in self._scene.endpoints:
            space, name = _place(one)
            found = spaces.setdefault(self._spaces[space], {})
            labels = {}
            for key, value in sorted(one.labels.items()):
                if key.startswith(NAMESPACE):
                    if key != NAMESPACE_KEY:
                        found[self._key(key)] = self._word(key, value)
                else:
                    labels[self._key(key)] = self._word(key, value)
            metadata = {"name": self._named(space, name), "namespace": self._spaces[space], "labels": labels}
            spec: _Object = {"containers": [{"name": "main"}]}
            if one.playground == PLAYGROUND and not one.labels:
                spec["hostNetwork"] = True
            pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        for space, labels in sorted(spaces.items()):
            yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}
        yield from pods

    def _named(self, space: str, name: str) -> str:
        """A name of its own in a namespace, whatever stands there before."""
        names = self._names.setdefault(space, Wording(lambda entry: dns_label(entry.rpartition(" ")[0])))
        self._count += 1
        return names[f"{name} {self._count}"]

    def _policy(self, one: Policy) -> Iterator[_Object]:
        for what, is_so in (
            ("staging", one.mode is Mode.STAGE),
            ("logging", one.mode is Mode.LOG),
            ("rejecting; it drops", one.on_deny is OnDeny.REJECT),
            ("sparing of established connections", one.keeps_established),
        ):
            if is_so:
                self._refuse(one, None, what)
        for subject in one.subjects:
            if one.tier is Tier.OWNER:
                yield from self._network_policy(one, subject)
            else:
                yield self._cluster_policy(one, subject)

    def _network_policy(self, one: Policy, subject: EndpointPeer) -> Iterator[_Object]:
        spaces = None if subject.playgrounds == _IMPORTED else subject.playgrounds
        terms = []
        for term in subject.selector.terms:
            if term.key == NAMESPACE_KEY and term.operator is Operator.IN:
                spaces = term.values
            elif term.key.startswith(NAMESPACE) and term != Term(NAMESPACE_KEY, Operator.HAS):
                self._refuse(one, None, "NetworkPolicy whose subject is told by labels of namespaces")
            elif not term.key.startswith(NAMESPACE):
                terms.append(term)
        if spaces is None:
            self._refuse(one, None, "NetworkPolicy of all namespaces")
            return
        spec: _Object = {"podSelector": self._label_selector(terms), "policyTypes": []}
        for way, key, rules in (("Ingress", "from", one.ingress), ("Egress", "to", one.egress)):
            if rules is not None:
                spec["policyTypes"].append(way)
                spec[way.lower()] = [
                    self._network_policy_rule(one, rule, key) for rule in rules if rule.peers and rule.ports
                ]
        for space in sorted(spaces):
            name = self._named(f"{space} policies", one.name.rpartition("/")[2])
            yield {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": self._spaces[space]},
                "spec": spec,
            }

    def _network_policy_rule(self, one: Policy, rule: Rule, key: str) -> _Object:
        found: _Object = {}
        if not self._is_everyone(rule.peers):
            found[key] = [said for peer in rule.peers for said in self._network_policy_peer(one, rule, peer)]
        if not rule.ports.is_everything:
            found["ports"] = [
                {"protocol": protocol.value}
                if (first, last) == LIMITS[protocol]
                else {"protocol": protocol.value, "port": first} | ({"endPort": last} if last > first else {})
                for protocol, first, last in self._ranges(one, rule)
            ]
        return found

    def _is_everyone(self, peers: tuple[Peer, ...]) -> bool:
        has_world = any(isinstance(peer, WorldPeer) for peer in peers)
        return has_world and any(
            isinstance(peer, EndpointPeer)
            and not peer.selector.terms
            and (peer.playgrounds is None or self._is_one_playground)
            for peer in peers
        )

    def _network_policy_peer(self, one: Policy, rule: Rule, peer: Peer) -> Iterator[_Object]:
        match peer:
            case EndpointPeer():
                yield self._pods(peer)
            case BlockPeer():
                yield {"ipBlock": _ip_block(peer)}
            case WorldPeer():
                for everywhere in _EVERYWHERE:
                    owned = tuple(part for part in self._owned if part.version == everywhere.version)
                    yield {"ipBlock": _ip_block(BlockPeer(everywhere, owned))}
            case _:
                self._refuse(one, rule, f"{type(peer).__name__.removesuffix('Peer').lower()} as a peer")

    def _cluster_policy(self, one: Policy, subject: EndpointPeer) -> _Object:
        priority = one.priority
        if priority > MAX_PRIORITY:
            priority = MAX_PRIORITY
            if any(other.tier is one.tier and other.priority == MAX_PRIORITY for other in self._scene.policies):
                self._refuse(one, None, f"priority {one.priority}; the last is {MAX_PRIORITY}, and that is taken")
        spec: _Object = {"tier": _TIERS[one.tier], "priority": priority, "subject": {"pods": self._pods(subject)}}
        for way, key, rules in (("ingress", "from", one.ingress), ("egress", "to", one.egress)):
            said = [self._cluster_rule(one, rule, key) for rule in rules or () if rule.peers and rule.ports]
            if said:
                spec[way] = said
            if len(said) > MOST:
                self._refuse(one, None, f"policy with {len(said)} rules of {way}; {MOST} are allowed")
        return {
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": self._named(" cluster", one.name)},
            "spec": spec,
        }

    def _cluster_rule(self, one: Policy, rule: Rule, key: str) -> _Object:
        found: _Object = {"name": rule.name[:100]} if rule.name else {}
        found |= {"action": _ACTIONS[rule.action], key: []}
        for peer in rule.peers:
            match peer:
                case EndpointPeer():
                    found[key].append({"pods": self._pods(peer)})
                case BlockPeer() if key == "to" and not peer.excepted:
                    found[key].append({"networks": [str(peer.cidr)]})
                case BlockPeer():
                    self._refuse(one, rule, "address peer in a tier but whole prefixes to go to")
                case _:
                    self._refuse(one, rule, f"{type(peer).__name__.removesuffix('Peer').lower()} as a peer in a tier")
        if not rule.ports.is_everything:
            found["protocols"] = [
                {protocol.value.lower(): {"destinationPort": {"number": first}}}
                if first == last
                else {protocol.value.lower(): {"destinationPort": {"range": {"start": first, "end": last}}}}
                for protocol, first, last in self._ranges(one, rule)
            ]
        for words in (key, "protocols"):
            if len(found.get(words, ())) > MOST:
                self._refuse(one, rule, f"rule with {len(found[words])} of {words}; {MOST} are allowed")
        return found

    def _ranges(self, one: Policy, rule: Rule) -> list[tuple[Protocol, int, int]]:
        ranges: list[tuple[Protocol, int, int]] = []
        for protocol, parts in rule.ports.parts:
            if protocol in (Protocol.ICMP, Protocol.OTHER):
                self._refuse(one, rule, f"port list with {protocol.value}")
            ranges.extend((protocol, first, last) for first, last in parts)
        return ranges

    def _pods(self, peer: EndpointPeer) -> _Object:
        space = [term for term in peer.selector.terms if term.key.startswith(NAMESPACE)]
        if peer.playgrounds is not None and peer.playgrounds != _IMPORTED:
            space.append(Term(NAMESPACE_KEY, Operator.IN, peer.playgrounds))
        own = [term for term in peer.selector.terms if not term.key.startswith(NAMESPACE)]
        always = Term(NAMESPACE_KEY, Operator.HAS)
        return {
            "namespaceSelector": self._label_selector([term for term in space if term != always]),
            "podSelector": self._label_selector(own),
        }

    def _label_selector(self, terms: Iterable[Term]) -> _Object:
        found: _Object = {}
        expressions: list[_Object] = []
        for term in terms:
            if term.key == NAMESPACE_KEY:
                key, values = NAMESPACE_NAME, sorted(self._spaces[value] for value in term.values)
            else:
                key, values = self._key(term.key), sorted(self._word(term.key, value) for value in term.values)
            if term.operator is Operator.IN and len(values) == 1 and key not in found.get("matchLabels", {}):
                found.setdefault("matchLabels", {})[key] = values[0]
            else:
                expressions.append(
                    {"key": key, "operator": _OPERATORS[term.operator]} | ({"values": values} if values else {})
                )
        return found | ({"matchExpressions": expressions} if expressions else {})

    def _key(self, key: str) -> str:
        return self._keys[key.startswith(NAMESPACE)][key]

    def _word(self, key: str, value: str) -> str:
        self._key(key)
        return self._values.setdefault(key, Wording(_value_shape))[value]


def _place(one: Endpoint) -> tuple[str, str]:
    """Namespace and name: those in its name if it came from Kubernetes."""
    space, slash, name = one.workspace.partition("/")
    return (space, name) if slash and one.playground == PLAYGROUND else (one.playground, one.workspace)


def _ip_block(peer: BlockPeer) -> _Object:
    found: _Object = {"cidr": str(peer.cidr)}
    if peer.excepted:
        found["except"] = [str(one) for one in peer.excepted]
    return found


def _key_shape(key: str) -> str:
    """An allowed label key near to this one; its name has room for a suffix."""
    key = key.removeprefix(NAMESPACE).replace(PORT, "port/", 1)
    return key if _KEY.fullmatch(key) else _trimmed(key) or "label"


def _value_shape(value: str) -> str:
    return value if _VALUE.fullmatch(value) else _trimmed(value)


def _trimmed(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("-_.")[:57].strip("-_.")
