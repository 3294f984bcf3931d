"""Pure. The shape of the files: keys, types, short forms, and which keys are designed but not built yet.

Knows nothing of what the values mean together; that is `network`, `workspace` and `site`. The JSON Schema is made from
here, so an editor and `load_*` agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from overlay.mac import parse_mac
from playground.spec.base import Labels, Listed, Shape, as_list
from playground.spec.delivery_models import BootShape, DhcpShape, NetworkDhcpShape
from playground.spec.machine_models import CloudInitShape, DiskShape, Grace, MachineShape, Memory
from playground.spec.placement_models import (
    CapacityShape,
    Cpus,
    OvercommitShape,
    PlacementShape,
    PreferShape,
    ReserveShape,
    SiteCapacityShape,
)
from playground.spec.policy_models import (
    EgressShape,
    ExpectationShape,
    GatewayShape,
    Groups,
    IncludedShape,
    IngressShape,
    PeerShape,
    Policies,
    PolicyShape,
    SiteEgressShape,
    SiteIngressShape,
    SitePolicyShape,
    Tests,
    one_of,
)

__all__ = [
    "AllowShape",
    "BootShape",
    "CapacityShape",
    "CloudInitShape",
    "DhcpShape",
    "DiskShape",
    "DnsShape",
    "EgressShape",
    "ExpectationShape",
    "GatewayShape",
    "HostShape",
    "IncludedShape",
    "IngressShape",
    "MachineShape",
    "NetworkDhcpShape",
    "NetworkShape",
    "NicShape",
    "OvercommitShape",
    "PeerShape",
    "PlacementShape",
    "PlaygroundShape",
    "PolicyShape",
    "PreferShape",
    "RecordShape",
    "ReserveShape",
    "SiteCapacityShape",
    "SiteEgressShape",
    "SiteIngressShape",
    "SitePolicyShape",
    "SiteShape",
    "WorkspaceShape",
]


def _as_nic(value: object) -> object:
    return {"network": value} if isinstance(value, str) else value


def _nothing_yet(what: str, instead: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value:
            raise ValueError(f"{what} are not built yet; {instead}")
        return value

    return check


DRIVERS = ("netns", "libvirt", "external")

Mac = Annotated[str, AfterValidator(parse_mac)]


class RecordShape(Shape):
    """What a name of a network's `dns.records` has: a cname alone, or the others."""

    cname: str | None = Field(
        default=None, description="the name meant: in the network, in the playground, or absolute."
    )
    srv: Listed = Field(default=[], description="PRIORITY WEIGHT PORT TARGET")
    txt: Listed = Field(default=[], description="texts")


class DnsShape(Shape):
    """`dns` of a network."""

    forward: bool = Field(default=True, description="whether the site's resolvers are asked for other names")
    transfer: Listed = Field(default=[], description="addresses and prefixes of the network that may copy all names")
    records: dict[str, RecordShape] = Field(default={}, description="by name in the network; @ is the network itself")


class NetworkShape(Shape):
    """A network."""

    not_yet = frozenset({"mtu", "encryption"})
    subnets: Listed = Field(description="IPv4 prefixes and IPv6 /64s", min_length=1)
    pools: Listed = Field(default=[], description="ranges FIRST-LAST from which ports get addresses")
    exclude: Listed = Field(default=[], description="addresses and ranges that no port gets unless fixed to it")
    gateway: Listed = Field(default=[], description="one address a subnet; default: its first")
    ipv6: one_of("way to IPv6 addresses", ("slaac", "dhcp", "both")) = Field(  # type: ignore[valid-type]
        default="slaac", description="how workspaces get IPv6 addresses: by advertised prefixes, DHCPv6, or either"
    )
    dhcp: NetworkDhcpShape = NetworkDhcpShape()
    dns: DnsShape = DnsShape()
    boot: BootShape = BootShape()


class AllowShape(Shape):
    """`allow` of a NIC: what it may use beside its own."""

    addresses: Listed = Field(default=[], description="addresses and prefixes, as 10.20.0.250 or 10.99.0.0/16")
    macs: Annotated[list[Mac], BeforeValidator(as_list, json_schema_input_type=str | list[str])] = Field(
        default=[], description="MACs that no other NIC has or allows"
    )
    route: bool = Field(
        default=False, description="whether clients on its network are told that its IPv4 prefixes lie behind this NIC"
    )
    dynamic: int = Field(
        default=0, ge=0, le=256, description="most machines behind it that get addresses of dhcp.dynamic at a time"
    )


class NicShape(Shape):
    """A workspace's place on one network."""

    not_yet = frozenset({"bandwidth"})
    network: str
    labels: Labels = Field(default={})
    addresses: Listed = Field(default=[], description="fixed addresses: one of IPv4, one of each IPv6 subnet")
    address: str | None = Field(default=None, description="short for addresses: [A]")
    mac: Mac | None = Field(default=None, description="a fixed MAC; default: derived from names")
    aliases: Listed = Field(default=[], description="more names in this network")
    allow: AllowShape = AllowShape()
    dhcp: DhcpShape = DhcpShape()
    default_route: bool | None = Field(
        default=None, description="whether the way to the world is by this network's gateway; default: by the first's"
    )


Nic = Annotated[NicShape, BeforeValidator(_as_nic, json_schema_input_type=str | NicShape)]
Nics = Annotated[
    list[Nic],
    BeforeValidator(as_list, json_schema_input_type=str | NicShape | list[str | NicShape]),
    Field(min_length=1),
]


class WorkspaceShape(Shape):
    """A workspace, or with `scale` several."""

    not_yet = frozenset(
        {"depends_on", "context", "provides", "lease", "level"},
    )
    networks: Nics = Field(description="networks by name, or with labels, addresses and mac")
    scale: int | None = Field(default=None, ge=0, le=10_000, description="number of instances NAME-0, NAME-1, …")
    labels: Labels = Field(default={})
    aliases: Listed = Field(default=[], description="more names, in the playground and in each of its networks")
    host: str | None = Field(default=None, description="a host's name, or a selector over host labels")
    driver: str = Field(
        default="netns", description="netns, libvirt or external", json_schema_extra={"enum": list(DRIVERS)}
    )
    requires: Listed = Field(default=[], description="what its host has to have: words, or selectors")
    placement: PlacementShape = PlacementShape()
    cpus: Cpus | None = Field(default=None, description="taken of what its host gives")
    memory: Memory | None = Field(default=None, description="taken of what its host gives, as 512MiB")
    image: str | None = Field(default=None, description="an image on the host that its first disk begins as")
    disks: list[DiskShape] = Field(default=[], description="more disks")
    arch: str | None = Field(default=None, description="of its processors, as x86_64; default: its host's")
    machine: MachineShape = MachineShape()
    cloud_init: CloudInitShape | None = Field(default=None, description="what cloud-init in it is told, by NoCloud")
    grace: Grace | None = Field(
        default=None, description="how long it has to end when it is asked to; default: 30s on a hypervisor, else 5s"
    )
    dhcp: DhcpShape = DhcpShape()
    boot: BootShape = BootShape()


class PlaygroundShape(Shape):
    """A playground file."""

    not_yet = frozenset({"links"})
    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("hosts", "domain", "resolvers"), "a site's file, which `playground controller --site-file` reads"
    )
    name: str
    networks: dict[str, NetworkShape] = Field(default={})
    workspaces: dict[str, WorkspaceShape] = Field(default={})
    groups: Groups = Field(default={})
    policies: Policies = Field(default=[])
    tests: Tests = Field(default=[])
    include: Listed = Field(default=[], description="patterns of files with more groups, policies and tests")
    gateways: dict[str, GatewayShape] = Field(default={})


class HostShape(Shape):
    """A host of a site."""

    underlay: str = Field(description="the address of its tunnels")
    labels: Labels = Field(default={})
    capacity: CapacityShape = CapacityShape()


class SiteShape(Shape):
    """A site file."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("networks", "workspaces", "groups", "gateways", "tests", "include"),
        "a playground's file, which `playground up` reads",
    )
    name: str
    domain: str = Field(default="internal", description="what names end in")
    resolvers: Listed = Field(default=[], description="addresses of name servers for all other names")
    hosts: dict[str, HostShape] = Field(default={})
    capacity: SiteCapacityShape = SiteCapacityShape()
    links: Annotated[
        list[Any], AfterValidator(_nothing_yet("links", "leave them out: hosts reach each other plainly"))
    ] = Field(default=[])
    policies: list[SitePolicyShape] = Field(default=[])
