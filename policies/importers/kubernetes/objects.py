"""Pure. What Kubernetes objects say of policies, as values: read and checked, with defaults put in.

Knows nothing of how they are written, nor of what they mean together. Places are no part of what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.importers.kubernetes.findings import Finding
from policies.model import Action, BlockPeer, Origin, Tier
from policies.ports import Protocol
from policies.selector import Term

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that the control plane puts on every namespace, with its name as the value; no document can change it."""

LabelSelector = tuple[Term, ...]
"""All of them have to hold; without any it selects everything."""


@dataclass(frozen=True, slots=True)
class NumberedPorts:
    """The ports first to last of a protocol."""

    protocol: Protocol
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AllPorts:
    """All ports of a protocol."""

    protocol: Protocol


@dataclass(frozen=True, slots=True)
class NamedPort:
    """The ports of this name that the destination's containers declare; protocol None takes them in any."""

    name: str
    protocol: Protocol | None


PortMatch = NumberedPorts | AllPorts | NamedPort


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Pods by their namespace and by themselves. namespaces: None for the namespace of the policy."""

    namespaces: LabelSelector | None
    pods: LabelSelector


@dataclass(frozen=True, slots=True)
class ForeignPeer:
    """A peer for which our words have nothing: `nodes` (by node label) or `domainNames`."""

    kind: str
    line: int = field(compare=False)


Peer = PodPeer | BlockPeer | ForeignPeer


@dataclass(frozen=True, slots=True)
class Rule:
    """peers: None for everyone; ports: None for everything, ICMP and all other protocols included."""

    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None
    line: int = field(compare=False)
    action: Action = Action.ALLOW
    name: str = ""


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """Any of the four kinds of policy. ingress, egress: None where the policy says nothing of that direction.

    namespace: "" for cluster-wide kinds. priority: lower is judged first; 0 in the owner's tier.
    """

    kind: str
    namespace: str
    name: str
    tier: Tier
    priority: int
    subject: PodPeer
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    origin: Origin = field(compare=False)

    @property
    def title(self) -> str:
        """As people name it: `NetworkPolicy shop/front`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace that has a document. labels: with the automatic one."""

    name: str
    labels: Mapping[str, str]
    origin: Origin = field(compare=False)


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container declares by name."""

    name: str
    protocol: Protocol
    number: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod, or what makes pods. labels, ports: of its pods. owner: kind and name of its controller, if it has one."""

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    ports: frozenset[ContainerPort]
    is_on_host_network: bool
    owner: tuple[str, str] | None
    origin: Origin = field(compare=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """All that documents say. findings: what is to be said of them; with a refused one, the rest is not the whole."""

    policies: tuple[PolicyObject, ...]
    namespaces: tuple[Namespace, ...]
    workloads: tuple[Workload, ...]
    findings: tuple[Finding, ...]
