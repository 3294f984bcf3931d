"""Pure. What a file says, checked and complete: frozen, addresses as integers, every object with its place in the file.

Holds no defaults and no syntax: scales are expanded, gateways and pools are filled in. Knows nothing of records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from overlay.pools import Span, Version, address_text
from playground.inventory import ALL, ANY, Neighbours, Share
from playground.machine import Machine
from playground.spec.delivery import NOTHING, Delivery
from playground.spec.peers import Words
from playground.spec.problem import Place
from policies.model import Expectation, Origin, Policy
from policies.selector import Selector

NOWHERE = Place("", 1, 1)
"""The place of what no file says."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A range of a subnet from which ports get addresses (exclusions still in it)."""

    span: Span
    place: Place


@dataclass(frozen=True, slots=True)
class SubnetSpec:
    """A prefix of a network. span: network to last address. gateway: the service leg's address.

    pools: in the file's order, without overlap; of IPv6 those that the file names (an IPv6 /64 without gives the
    addresses that follow from MACs).
    """

    version: Version
    span: Span
    prefix_len: int
    gateway: int
    pools: tuple[PoolSpec, ...]
    place: Place

    @property
    def text(self) -> str:
        """Canonical prefix, as `10.20.0.0/24`."""
        return f"{address_text(self.version, self.span.first)}/{self.prefix_len}"

    @property
    def gateway_text(self) -> str:
        """The gateway without prefix length."""
        return address_text(self.version, self.gateway)


@dataclass(frozen=True, slots=True)
class NameSpec:
    """A record that the file declares. name: relative to the playground. type: `CNAME`, `SRV` or `TXT`.

    data: as zone files write it, but of a TXT the text itself; a name in it ends in a dot, or is relative to the
    playground.
    """

    name: str
    type: str
    data: str


@dataclass(frozen=True, slots=True)
class DnsSpec:
    """What a network says of names. forward: whether the site's resolvers are asked for its workspaces.

    transfer: prefixes whose workspaces may copy all names.
    """

    forward: bool = True
    transfer: tuple[str, ...] = ()
    records: tuple[NameSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One L2 overlay. subnets in the file's order. exclude: addresses that no port gets unless fixed to it.

    dynamic: those, excluded too, that machines get which no one declared; all in one subnet. withheld6, withheld_macs:
    IPv6 addresses and MACs that a NIC allows, so that no port has them for its own.
    """

    name: str
    subnets: tuple[SubnetSpec, ...]
    exclude: tuple[Span, ...]
    place: Place
    dns: DnsSpec = DnsSpec()
    delivery: Delivery = NOTHING
    ipv6: str = "slaac"
    dynamic: tuple[Span, ...] = ()
    withheld6: tuple[Span, ...] = ()
    withheld_macs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AllowedSpec:
    """Addresses that a NIC may use beside its own. text: canonical, an address, or a prefix of more than one."""

    version: Version
    span: Span
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A workspace's NIC. address: a fixed IPv4 address, or None; mac: a fixed canonical MAC, or None. addresses6: fixed
    IPv6 addresses, at most one of a subnet.

    default_route: whether the way to the world is to be by this one, or not; None where the file leaves that open.
    aliases: names beside the workspace's own, relative to the playground: those declared, and its groups'.
    delivery: what the NIC and its workspace say; the rest is their network's. allowed, allowed_macs: what it may use
    beside its own. leads: allowed IPv4 prefixes that others on the network are told to reach by it.
    dynamic: most machines behind it that get addresses of the network's dynamic ranges.
    """

    network: str
    labels: Mapping[str, str]
    address: int | None
    mac: str | None
    place: Place
    default_route: bool | None = None
    aliases: tuple[str, ...] = ()
    delivery: Delivery = NOTHING
    allowed: tuple[AllowedSpec, ...] = ()
    allowed_macs: tuple[str, ...] = ()
    addresses6: tuple[int, ...] = ()
    leads: tuple[str, ...] = ()
    dynamic: int = 0

    @property
    def allowed_addresses(self) -> tuple[str, ...]:
        """As records have them."""
        return tuple(one.text for one in self.allowed)


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """One workspace (a scaled one is several of these, its instances in order). host: a name, a selector, or None.

    declared, index: the name in the file, and which instance of it; None where it is not scaled.
    cpus and memory_mib are what it takes of what a host gives; 0 takes nothing. machine: of one on a hypervisor.
    requires: words and selectors that its host has to meet. grace_s: how long it has to end when it is asked to, None
    where the file does not say.
    """

    name: str
    labels: Mapping[str, str]
    nics: tuple[NicSpec, ...]
    host: str | Selector | None
    driver: str
    cpus: float
    memory_mib: int
    place: Place
    host_place: Place
    declared: str
    index: int | None = None
    machine: Machine | None = None
    requires: tuple[str, ...] = ()
    neighbours: Neighbours = ANY
    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """Where networks meet the world. kind: `nat` or `bridge`. host: a name, a selector, or None."""

    name: str
    kind: str
    networks: frozenset[str]
    host: str | Selector | None
    place: Place
    host_place: Place = NOWHERE


@dataclass(frozen=True, slots=True)
class Connectivity:
    """What a playground's files say of who may talk to whom; included files in their order after the file itself.

    places: of each policy, rule and test by its origin. words: what words mean in these files. included: the files
    that are included, as they were given.
    """

    policies: tuple[Policy, ...] = ()
    tests: tuple[Expectation, ...] = ()
    gateways: tuple[GatewaySpec, ...] = ()
    places: Mapping[Origin, Place] = field(default_factory=dict)
    words: Words = field(default_factory=Words, compare=False)
    included: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlaygroundSpec:
    """An accepted playground file. text: as it was read, so that it can be kept and read again."""

    name: str
    networks: Mapping[str, NetworkSpec]
    workspaces: Mapping[str, WorkspaceSpec]
    file: str
    text: str
    place: Place
    connectivity: Connectivity = field(default_factory=Connectivity)


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host of a site file. underlay: canonical address. cpus and memory_mib: what it has, None where its agent
    says."""

    name: str
    underlay: str
    labels: Mapping[str, str]
    cpus: float | None
    memory_mib: int | None
    place: Place
    share: Share = ALL


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """An accepted site file, or a site that needs none.

    domain: what names end in. resolvers: canonical addresses that all other names are asked of. policies: the admin and
    baseline tiers. places: of each policy and rule by its origin.
    """

    name: str
    domain: str = "internal"
    resolvers: tuple[str, ...] = ()
    hosts: Mapping[str, HostSpec] = field(default_factory=dict)
    file: str = ""
    text: str = ""
    place: Place = NOWHERE
    policies: tuple[Policy, ...] = ()
    places: Mapping[Origin, Place] = field(default_factory=dict)
