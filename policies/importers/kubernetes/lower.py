"""Pure. A Cluster → a Scene: pods become labelled endpoints, their policies ours.

All pods are on one network that the world reaches and that reaches the world. What selectors speak of becomes labels of
the endpoint: a pod's own as they are, its namespace's behind NAMESPACE, its named ports behind PORT; both begin with
what no label key may have. Built-in labels are left out: `workspace` may be a pod's own.

A pod on its host's network has no labels here, and every selector asks for a namespace: so none selects it, neither as
subject nor as peer. The API says so for the tiers, and for NetworkPolicy that most network plugins do so.

An ipBlock, and a tier's `networks`, match what no workload owns. Documents don't tell pods' addresses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from policies.importers.kubernetes.findings import Finding, Gravity, KubernetesError
from policies.importers.kubernetes.objects import (
    NAMESPACE_NAME,
    AllPorts,
    Cluster,
    ContainerPort,
    ForeignPeer,
    LabelSelector,
    NamedPort,
    NumberedPorts,
    PodPeer,
    PolicyObject,
    Rule,
)
from policies.importers.kubernetes.pods import Pod, pods_of
from policies.model import (
    ALL_PORTS,
    BlockPeer,
    Endpoint,
    EndpointPeer,
    Gateway,
    Origin,
    Peer,
    Policy,
    Scene,
    Tier,
    WorldPeer,
)
from policies.model import Rule as LoweredRule
from policies.ports import NOTHING, Ports
from policies.selector import Operator, Selector, Term

PLAYGROUND = "kubernetes"
NETWORK = "cluster"
WORLD = "world"
"""Name of the gateway."""

NAMESPACE = "namespace:"
PORT = "port:"
NAMESPACE_KEY = NAMESPACE + NAMESPACE_NAME
_HAS_NAMESPACE = Term(NAMESPACE_KEY, Operator.HAS)

_SIGNS = {Operator.IN: " in ", Operator.NOT_IN: " notin "}


def lower(cluster: Cluster) -> tuple[Scene, tuple[Finding, ...]]:
    """The scene, and all that is to be said of it. Raises KubernetesError if anything is refused.

    Refused beside what reading refused: equal priorities of one tier on one pod, of which no order can be told.
    """
    pods, notes = pods_of(cluster.workloads)
    spaces = {one.name: one.labels for one in cluster.namespaces}
    names = _named_ports(cluster.policies)
    labelled = [(pod, _labels(pod, spaces.get(pod.namespace, {}), names)) for pod in pods]
    endpoints = {(pod.workspace, tuple(sorted(labels.items()))): (pod, labels) for pod, labels in labelled}
    lowering = _Lowering(list(endpoints.values()), names)
    policies = tuple(part for one in sorted(cluster.policies, key=_order) for part in lowering.policy(one))
    findings = (*cluster.findings, *notes, *lowering.findings, *lowering.clashes(cluster.policies))
    if refused := [one for one in findings if one.gravity is Gravity.REFUSED]:
        raise KubernetesError(refused)
    scene = Scene(
        endpoints=tuple(Endpoint(PLAYGROUND, pod.workspace, NETWORK, labels) for pod, labels in endpoints.values()),
        policies=policies,
        gateways=(Gateway(PLAYGROUND, WORLD, frozenset({NETWORK}), is_open_inward=True),),
    )
    return scene, tuple(sorted(findings, key=lambda one: (one.origin, one.message)))


def selector(terms: LabelSelector) -> Selector:
    """Terms as a selector, with a text for people: keys here may be such as the language itself can't write."""
    return Selector(",".join(_text(term) for term in terms) or "*", terms)


def _text(term: Term) -> str:
    match term.operator:
        case Operator.HAS:
            return f"has({term.key})"
        case Operator.HAS_NOT:
            return f"!has({term.key})"
        case _ if len(term.values) == 1:
            return f"{term.key}{'=' if term.operator is Operator.IN else '!='}{next(iter(term.values))}"
        case _:
            return f"{term.key}{_SIGNS[term.operator]}({','.join(sorted(term.values))})"


def _order(one: PolicyObject) -> tuple[str, int, str, str, str]:
    return one.tier.value, one.priority, one.namespace, one.name, one.kind


def _named_ports(policies: Iterable[PolicyObject]) -> tuple[str, ...]:
    """All names that rules ask for, sorted."""
    found = {
        port.name
        for one in policies
        for rule in (*(one.ingress or ()), *(one.egress or ()))
        for port in rule.ports or ()
        if isinstance(port, NamedPort)
    }
    return tuple(sorted(found))


def _labels(pod: Pod, space: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Of an endpoint; ports only by names that a policy asks for, so that pods that differ in others are alike."""
    if pod.is_on_host_network:
        return {}
    labels = dict(pod.labels)
    labels.update((NAMESPACE + key, value) for key, value in space.items())
    labels[NAMESPACE_KEY] = pod.namespace
    for name in names:
        if value := _ports_text(port for port in pod.ports if port.name == name):
            labels[PORT + name] = value
    return labels


def _ports_text(ports: Iterable[ContainerPort]) -> str:
    return ",".join(sorted(f"{port.protocol.value}/{port.number}" for port in ports))


class _Lowering:
    """What lowering a policy needs to know of the endpoints."""

    def __init__(self, endpoints: list[tuple[Pod, dict[str, str]]], names: tuple[str, ...]) -> None:
        self.findings: list[Finding] = []
        self._labels = [labels for _, labels in endpoints]
        self._labels_of: dict[str, list[dict[str, str]]] = defaultdict(list)  # by namespace
        for pod, labels in endpoints:
            self._labels_of[pod.namespace].append(labels)
        # port name → label value → what it stands for
        self._values: dict[str, dict[str, frozenset[ContainerPort]]] = {name: {} for name in names}
        for pod, labels in endpoints:
            for name in names:
                if value := labels.get(PORT + name):
                    self._values[name][value] = frozenset(port for port in pod.ports if port.name == name)

    def policy(self, one: PolicyObject) -> Iterator[Policy]:
        """One policy; several where pods that it selects name their ports differently, with disjoint subjects."""
        subject = _pod_terms(one.subject, one.namespace)
        origin = one.origin
        file = origin.file
        egress = None
        if one.egress is not None:
            egress = tuple(part for rule in one.egress for part in self._egress(rule, one, file))
        parts: dict[tuple[LoweredRule, ...] | None, list[LabelSelector]] = defaultdict(list)
        if one.ingress is None:
            parts[None] = [()]
        else:
            for own, terms in self._namings(one.ingress, subject, one.namespace):
                parts[tuple(self._ingress(rule, own, one, file) for rule in one.ingress)].append(terms)
        for ingress, extras in parts.items():
            alone = len(parts) == 1
            yield Policy(
                name=f"{one.namespace}/{one.name}" if one.namespace else one.name,
                subjects=tuple(self._peer((*subject, *extra), one.tier) for extra in ([()] if alone else extras)),
                ingress=ingress,
                egress=egress,
                origin=origin,
                tier=one.tier,
                priority=one.priority,
                playground=PLAYGROUND if one.tier is Tier.OWNER else "",
            )
        self._say_foreign(one)

    def clashes(self, policies: Iterable[PolicyObject]) -> Iterator[Finding]:
        """Policies of a tier with equal priority that judge one pod in one direction."""
        seen: dict[tuple[Tier, int], list[PolicyObject]] = defaultdict(list)
        for one in policies:
            if one.tier is Tier.OWNER:
                continue
            for other in seen[one.tier, one.priority]:
                if self._share(one, other):
                    message = (
                        f"{one.title} and {other.title} ({other.origin}) have the same priority {one.priority} and "
                        "judge a common pod; no order between them is defined: give them different ones"
                    )
                    yield Finding(one.origin, message)
            seen[one.tier, one.priority].append(one)

    def _share(self, one: PolicyObject, other: PolicyObject) -> bool:
        if not ((one.ingress and other.ingress) or (one.egress and other.egress)):
            return False
        terms = (*_pod_terms(one.subject, ""), *_pod_terms(other.subject, ""))
        return any(all(term.matches(labels) for term in terms) for labels in self._labels)

    def _namings(
        self, rules: tuple[Rule, ...], subject: LabelSelector, namespace: str
    ) -> Iterator[tuple[dict[str, frozenset[ContainerPort]], LabelSelector]]:
        """Each way in which the subject's pods name the ports that ingress asks for, with the terms that tell it."""
        names = sorted({port.name for rule in rules for port in rule.ports or () if isinstance(port, NamedPort)})
        asked = () if not names else self._labels_of[namespace] if namespace else self._labels
        chosen = [labels for labels in asked if all(term.matches(labels) for term in subject)]
        ways = sorted({tuple(labels.get(PORT + name, "") for name in names) for labels in chosen})
        for way in ways or [()]:
            own = {name: self._values[name][value] for name, value in zip(names, way, strict=False) if value}
            yield (
                own,
                tuple(
                    Term(PORT + name, Operator.IN, frozenset([value])) if value else Term(PORT + name, Operator.HAS_NOT)
                    for name, value in zip(names, way, strict=False)
                ),
            )

    def _ingress(
        self, rule: Rule, own: dict[str, frozenset[ContainerPort]], one: PolicyObject, file: str
    ) -> LoweredRule:
        named = (
            _meant(port, own.get(port.name, frozenset())) for port in rule.ports or () if isinstance(port, NamedPort)
        )
        ports = Ports.union([_numbered(rule), *named])
        return LoweredRule(self._peers(rule, one), ports, Origin(file, rule.line), rule.action, rule.name)

    def _egress(self, rule: Rule, one: PolicyObject, file: str) -> Iterator[LoweredRule]:
        """The rule for numbered ports, then one for each meaning of its named ones, for the pods that mean it."""
        peers, origin = self._peers(rule, one), Origin(file, rule.line)
        numbered = _numbered(rule)
        asked = [port for port in rule.ports or () if isinstance(port, NamedPort)]
        if numbered or not asked:
            yield LoweredRule(peers, numbered, origin, rule.action, rule.name)
        for port in asked:
            meanings: dict[Ports, set[str]] = defaultdict(set)
            for value, declared in self._values[port.name].items():
                if meant := _meant(port, declared):
                    meanings[meant].add(value)
            for meant, values in sorted(meanings.items(), key=lambda item: sorted(item[1])):
                term = Term(PORT + port.name, Operator.IN, frozenset(values))
                telling = tuple(
                    replace(peer, selector=selector((*peer.selector.terms, term)))
                    for peer in peers
                    if isinstance(peer, EndpointPeer)
                )
                yield LoweredRule(telling, meant, origin, rule.action, rule.name)

    def _peers(self, rule: Rule, one: PolicyObject) -> tuple[Peer, ...]:
        if rule.peers is None:
            return self._peer((), one.tier), WorldPeer()
        found: list[Peer] = []
        for peer in rule.peers:
            match peer:
                case PodPeer():
                    found.append(self._peer(_pod_terms(peer, one.namespace), one.tier))
                case BlockPeer():
                    found.append(peer)
                case ForeignPeer():
                    pass  # said once for the policy
        return tuple(found)

    def _peer(self, terms: LabelSelector, tier: Tier) -> EndpointPeer:
        return EndpointPeer(selector(terms), frozenset({PLAYGROUND}) if tier is Tier.OWNER else None)

    def _say_foreign(self, one: PolicyObject) -> None:
        for rule in (*(one.ingress or ()), *(one.egress or ())):
            for peer in rule.peers or ():
                if isinstance(peer, ForeignPeer):
                    message = f"{one.title}: a peer of {peer.kind} can't be told from documents; left out of its rule"
                    self.findings.append(Finding(Origin(one.origin.file, peer.line), message, Gravity.LEFT_OUT))
            if one.tier is not Tier.OWNER and any(isinstance(peer, BlockPeer) for peer in rule.peers or ()):
                message = (
                    f"{one.title}: networks are judged for the world alone here; "
                    "a cluster also holds them against the addresses of pods, which documents don't tell"
                )
                self.findings.append(Finding(Origin(one.origin.file, rule.line), message, Gravity.NOTED))


def _pod_terms(peer: PodPeer, own_namespace: str) -> LabelSelector:
    """Terms over endpoint labels. The first one asks for a namespace, which pods on their host's network don't have."""
    if peer.namespaces is None:
        return (Term(NAMESPACE_KEY, Operator.IN, frozenset([own_namespace])), *peer.pods)
    space = tuple(replace(term, key=NAMESPACE + term.key) for term in peer.namespaces)
    return (_HAS_NAMESPACE, *space, *peer.pods)


def _numbered(rule: Rule) -> Ports:
    if rule.ports is None:
        return ALL_PORTS
    return Ports.union(
        Ports.of(port.protocol, port.first, port.last) if isinstance(port, NumberedPorts) else Ports.of(port.protocol)
        for port in rule.ports
        if isinstance(port, NumberedPorts | AllPorts)
    )


def _meant(port: NamedPort, declared: Iterable[ContainerPort]) -> Ports:
    return Ports.union(
        [
            NOTHING,
            *(
                Ports.of(one.protocol, one.number)
                for one in declared
                if port.protocol is None or port.protocol is one.protocol
            ),
        ]
    )
