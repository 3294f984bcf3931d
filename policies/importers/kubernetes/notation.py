"""Pure. A Scene from Kubernetes documents → our notation: a playground file, and a site file for its tiers.

The texts say the same connections. What is in no alphabet of ours gets a name near to it: workloads and policies
NAMESPACE-NAME, namespaces the label `namespace`, their labels `namespace/KEY`, named ports `port/NAME`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from policies.importers.kubernetes.block_yaml import scalar
from policies.importers.kubernetes.findings import Finding, Gravity, KubernetesError
from policies.importers.kubernetes.lower import NAMESPACE, NAMESPACE_KEY, NETWORK, PORT, WORLD
from policies.importers.kubernetes.wording import Wording, dns_label, label_word
from policies.model import Action, BlockPeer, EndpointPeer, Peer, Policy, Rule, Scene, Tier, WorldPeer
from policies.ports import LIMITS, Ports
from policies.selector import Operator, Term

BUILT_IN = ("workspace", "network", "playground", "index")
"""Labels that every workspace has by itself, so that none of these may be taken."""

_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_UNIQUE_LOCAL = IPv6Network("fd00::/48")
_WIDEST = 24
"""Bits of the smallest IPv4 subnet that is written."""

_RESERVED = 3
"""Of an IPv4 subnet: network, broadcast and gateway."""


@dataclass(frozen=True, slots=True)
class Notation:
    """playground, site: texts of files; site is "" without admin and baseline policies.

    names: workload → its workspaces in the file; several where its pods differ.
    """

    playground: str
    site: str
    names: Mapping[str, tuple[str, ...]]


def notation(scene: Scene, findings: Iterable[Finding], name: str) -> Notation:
    """The texts of a lowered scene. findings: of lowering. name: of the playground, a DNS label.

    Raises KubernetesError if a peer was left out: a file that says something else than the documents is none.
    """
    if left_out := [one for one in findings if one.gravity is Gravity.LEFT_OUT]:
        raise KubernetesError(
            Finding(one.origin, f"{one.message}, so the documents can't be imported") for one in left_out
        )
    return _Writer(scene, name).notation()


class _Writer:
    def __init__(self, scene: Scene, name: str) -> None:
        self._scene = scene
        self._name = name
        self._workspaces = Wording(lambda entry: dns_label(entry.partition(" ")[0]))
        self._policies = Wording(lambda entry: dns_label(entry.rpartition(" ")[0]))
        self._entries = 0
        self._keys = Wording(_label_key, BUILT_IN)
        self._values: dict[str, Wording] = {}
        self._has_all_namespaces = all(NAMESPACE_KEY in one.labels for one in scene.endpoints)
        # pods' own keys keep their names before others want them; the namespace comes first of all
        mentioned = {key for one in scene.endpoints for key in one.labels}
        for key in sorted(mentioned, key=lambda key: (key != NAMESPACE_KEY, key.startswith((NAMESPACE, PORT)), key)):
            self._key(key)
            for value in sorted({one.labels[key] for one in scene.endpoints if key in one.labels}):
                self._value(key, value)

    def notation(self) -> Notation:
        names: dict[str, list[str]] = {}
        workspaces = []
        for number, one in enumerate(self._scene.endpoints):
            name = self._workspaces[one.workspace if one.workspace not in names else f"{one.workspace} {number}"]
            names.setdefault(one.workspace, []).append(name)
            labels = ", ".join(
                f"{scalar(self._key(key))}: {scalar(self._value(key, value))}"
                for key, value in sorted(one.labels.items(), key=lambda item: self._key(item[0]))
            )
            workspaces.append(f"  {name}: {{labels: {{{labels}}}, networks: [{NETWORK}]}}")
        subnets = ", ".join(scalar(str(one)) for one in self._subnets())
        text = [
            "# Imported from Kubernetes documents.",
            f"name: {scalar(self._name)}",
            "networks:",
            f"  {NETWORK}: {{subnets: [{subnets}]}}",
            "gateways:",
            f"  {WORLD}: {{kind: bridge, networks: [{NETWORK}]}}",
            f"workspaces:{'' if workspaces else ' {}'}",
            *workspaces,
            *self._listed(one for one in self._scene.policies if one.tier is Tier.OWNER),
        ]
        tiers = [
            one
            for one in self._scene.policies
            if one.tier is not Tier.OWNER and (one.ingress is not None or one.egress is not None)
        ]
        site = [
            f"# Imported from Kubernetes documents, beside the playground {self._name}.",
            f"name: {scalar(self._name)}",
            *self._listed(tiers),
        ]
        return Notation(
            playground="\n".join([*text, ""]),
            site="\n".join([*site, ""]) if tiers else "",
            names={workload: tuple(each) for workload, each in names.items()},
        )

    def _listed(self, policies: Iterable[Policy]) -> list[str]:
        lines = [line for one in policies for line in self._policy(one)]
        return ["policies:", *lines] if lines else ["policies: []"]

    def _policy(self, one: Policy) -> Iterator[str]:
        """One entry for each subject; subjects of one policy are disjoint or of the owner's tier, where all add up."""
        for subject in one.subjects:
            self._entries += 1
            name = self._policies[f"{one.name} {self._entries}"]
            yield f"  - name: {name} # {json.dumps(f'{one.name}, {one.origin}')[1:-1]}"
            if one.tier is not Tier.OWNER:
                yield f"    tier: {one.tier.value}"
                yield f"    priority: {one.priority}"
            yield f"    subject: {scalar(self._selector(subject, one.tier))}"
            for way, rules, key in (("ingress", one.ingress, "from"), ("egress", one.egress, "to")):
                if rules is not None:
                    said = [self._rule(rule, key, one.tier) for rule in rules if rule.ports and rule.peers]
                    yield f"    {way}:{'' if said else ' []'}"
                    yield from said

    def _rule(self, rule: Rule, key: str, tier: Tier) -> str:
        peers = ", ".join(self._peer(peer, tier) for peer in rule.peers)
        parts = [f"{key}: [{peers}]"]
        if tier is not Tier.OWNER:
            # after the baseline comes no tier: what it passes on is allowed
            action = Action.ALLOW if (tier, rule.action) == (Tier.BASELINE, Action.PASS) else rule.action
            parts.insert(0, f"action: {action.value}")
        if not rule.ports.is_everything:
            parts.append(f"ports: [{', '.join(_ports(rule.ports))}]")
        return f"      - {{{', '.join(parts)}}}"

    def _peer(self, peer: Peer, tier: Tier) -> str:
        match peer:
            case EndpointPeer():
                return scalar(self._selector(peer, tier))
            case WorldPeer():
                return scalar("@world")
            case BlockPeer() if peer.excepted:
                excepted = ", ".join(scalar(str(one)) for one in peer.excepted)
                return f"{{cidr: {scalar(str(peer.cidr))}, except: [{excepted}]}}"
            case BlockPeer():
                return scalar(str(peer.cidr))
            case _:
                raise AssertionError(f"Kubernetes has no {peer}")

    def _selector(self, peer: EndpointPeer, tier: Tier) -> str:
        """In a site file, which is about all playgrounds, the imported one is named."""
        terms = [] if tier is Tier.OWNER else [f"playground={self._name}"]
        for term in peer.selector.terms:
            if not (self._has_all_namespaces and term == Term(NAMESPACE_KEY, Operator.HAS)):
                terms.append(self._term(term))
        return ",".join(terms) or "*"

    def _term(self, term: Term) -> str:
        key = self._key(term.key)
        values = [self._value(term.key, value) for value in sorted(term.values)]
        match term.operator:
            case Operator.HAS:
                return f"has({key})"
            case Operator.HAS_NOT:
                return f"!has({key})"
            case Operator.IN:
                return f"{key}={values[0]}" if len(values) == 1 else f"{key} in ({','.join(values)})"
            case Operator.NOT_IN:
                return f"{key}!={values[0]}" if len(values) == 1 else f"{key} notin ({','.join(values)})"

    def _key(self, key: str) -> str:
        return self._keys[key]

    def _value(self, key: str, value: str) -> str:
        return self._values.setdefault(key, Wording(label_word))[value]

    def _subnets(self) -> Iterator[IPv4Network | IPv6Network]:
        """One of each family, large enough, and apart from all blocks that policies name, wherever that can be."""
        blocks = [
            block
            for one in self._scene.policies
            for rule in (*(one.ingress or ()), *(one.egress or ()))
            for peer in rule.peers
            if isinstance(peer, BlockPeer)
            for block in (peer.cidr, *peer.excepted)
        ]
        bits = min(_WIDEST, 32 - (len(self._scene.endpoints) + _RESERVED).bit_length())
        private = (part for base in _PRIVATE if bits >= base.prefixlen for part in base.subnets(new_prefix=bits))
        yield from _first_free(private, blocks)
        yield from _first_free(_UNIQUE_LOCAL.subnets(new_prefix=64), blocks)


def _label_key(key: str) -> str:
    if key == NAMESPACE_KEY:
        return "namespace"
    return label_word(key.replace(NAMESPACE, "namespace/", 1).replace(PORT, "port/", 1))


def _first_free(
    parts: Iterable[IPv4Network | IPv6Network], blocks: list[IPv4Network | IPv6Network]
) -> Iterator[IPv4Network | IPv6Network]:
    """The first part that overlaps no block; blocks wider than any private range can't be gone round."""
    narrow = [block for block in blocks if block.prefixlen >= 8]
    for part in parts:
        if not any(part.version == block.version and part.overlaps(block) for block in narrow):
            yield part
            return


def _ports(ports: Ports) -> Iterator[str]:
    for protocol, ranges in ports.parts:
        word = protocol.value.lower()
        for first, last in ranges:
            if (first, last) == LIMITS[protocol] and word == "icmp":
                yield word
            else:
                yield f"{word}/{first}" if first == last else f"{word}/{first}-{last}"
