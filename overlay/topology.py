"""Pure. The kernel objects of a data plane as plain values, and which of them a network should have.

The same values describe what is wanted (`lay_out`) and what the kernel shows (`ObservedState`). Knows nothing of
netlink, and nothing of how to get from one to the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from overlay.mac import link_local
from overlay.state import (
    LEG_LINK_LOCAL,
    LEG_MAC,
    Gate,
    LocalPort,
    Network,
    NetworkId,
    RemotePort,
    bridge_device,
    leg_device,
    port_device,
    service_device,
    vxlan_device,
)
from overlay.tunnels import vxlan

DEVICE_MTU = 65000
"""MTU of bridges, VXLAN devices and bridge ends of veth ports, in bytes; far above any guest's.

A VXLAN device then meets the oversized packet itself and answers the guest with frag-needed (RFC 1191) or
packet-too-big (RFC 4443 §3.2). With the path's own MTU on the device the bridge would drop the packet without a word.
"""

ADOPTED = "playground adopted"
"""Start of the ifalias of a device that was moved in from the host's namespace and has to go back there."""


WAITS = "playground waits"
"""Alias of a tap that is not to be adopted yet, open or not: its hypervisor will still ask for it by name."""


@dataclass(frozen=True, slots=True)
class PortFlags:
    """Flags of a bridge port (`IFLA_BRPORT_*`, linux/if_link.h). The defaults are those of an open port of ours.

    Unknown unicast is never flooded and nothing is learned: every MAC that may be reached is programmed.
    """

    learning: bool = False
    unicast_flood: bool = False
    multicast_flood: bool = True
    broadcast_flood: bool = True
    neigh_suppress: bool = False
    isolated: bool = False
    hairpin: bool = False


OPEN = PortFlags()
ANNOUNCING = PortFlags(neigh_suppress=True)
"""An open port whose gratuitous ARP and unsolicited NA pass VXLAN devices: a bridge that suppresses keeps them from
these, but not those of a port that has the flag itself (br_do_proxy_suppress_arp, br_do_suppress_nd)."""
CLOSED = PortFlags(multicast_flood=False, broadcast_flood=False)
SUPPRESSING = PortFlags(neigh_suppress=True, isolated=True)
"""VXLAN devices and service legs: the bridge answers ARP and ND for what lies behind, and neither reaches the other."""


@dataclass(frozen=True, slots=True)
class Link:
    """A device in the data plane namespace.

    kind: `bridge`, `vxlan`, `veth`, `tun`, or any other word of the kernel. quiet: it forms no IPv6 link-local by
    itself (`addrgenmode none`), so it sends nothing of its own into a tenant's network. flags: only of a bridge port.
    snooping: a bridge's multicast snooping. tunnel: only of a VXLAN device. idle: a tap that nobody
    has open, or that waits.
    """

    kind: str
    up: bool = True
    mtu: int = DEVICE_MTU
    master: str = ""
    flags: PortFlags | None = None
    quiet: bool = True
    adopted: bool = False
    snooping: bool = False
    tunnel: vxlan.Tunnel | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class LegEnd:
    """A service leg's end in its service namespace. `addresses` carry a prefix length."""

    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry of a bridge: what it answers in ARP and ND. router: the R flag (RFC 4861 §4.4).

    Without R in the answer a client drops the leg from its default routers (RFC 4861 §7.2.5).
    """

    mac: str
    router: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """What is programmed for one network, each by its natural key.

    forwarding: MAC → bridge port (FDB `master static`). tunnel: MAC → VTEP (FDB `self` of the VXLAN device). floods:
    VTEPs of head-end replication. neighbours: address → entry on the bridge. chases: MACs that the VXLAN device sends
    out again.
    """

    forwarding: Mapping[str, str] = field(default_factory=dict)
    tunnel: Mapping[str, str] = field(default_factory=dict)
    floods: frozenset[str] = frozenset()
    neighbours: Mapping[str, Neighbour] = field(default_factory=dict)
    chases: frozenset[str] = frozenset()


NO_TABLES = Tables()


@dataclass(frozen=True, slots=True)
class ObservedState:
    """What the kernel shows of one host's data plane, or of some of its networks.

    links: devices of the data plane namespace by name. host_ports: names of devices in the host's namespace that look
    like ports and are no idle taps, so may be adopted. services: service namespaces that carry our mark, with their leg
    ends by name.
    """

    links: Mapping[str, Link] = field(default_factory=dict)
    tables: Mapping[NetworkId, Tables] = field(default_factory=dict)
    host_ports: frozenset[str] = frozenset()
    services: Mapping[str, Mapping[str, LegEnd]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """All that one network should have. ports: bridge ports of guests. leg: service namespace, device, its state."""

    bridge: Link
    tunnel: Link
    ports: Mapping[str, Link]
    tables: Tables
    leg_link: Link | None = None
    leg: tuple[str, str, LegEnd] | None = None


def lay_out(network: Network, underlay: str, present: Collection[str]) -> Layout:
    """What `network` should have on the host with tunnel address `underlay`.

    present: names of the port devices that exist; a port without one has no forwarding entry, yet its neighbour entries
    (they depend on no device, and answer nothing while the MAC leads nowhere).
    """
    bridge, tunnel = bridge_device(network.id), vxlan_device(network.id)
    remote = vxlan.plan(network, underlay, local_macs=_open_macs(network, present))
    forwarding = dict.fromkeys(remote.behind, tunnel)
    neighbours: dict[str, Neighbour] = {}
    ports: dict[str, Link] = {}
    # Local ports come after remote ones: should both claim an address, the one here has it.
    for _, remote_port in sorted(network.remotes.items()):
        neighbours.update(_neighbours(remote_port))
    for port_id, port in sorted(network.ports.items()):
        neighbours.update(_neighbours(port))
        if (name := port_device(port_id)) in present:
            ports[name] = _port_link(port, bridge)
            if port.gate is Gate.OPEN:
                forwarding.update(dict.fromkeys(port.macs, name))
    leg_link = leg = None
    if network.leg:
        addresses = frozenset((*network.leg.addresses, f"{LEG_LINK_LOCAL}/64"))
        leg_link = Link(kind="veth", mtu=network.mtu, master=bridge, flags=SUPPRESSING)
        leg = (network.leg.namespace, service_device(network.id), LegEnd(LEG_MAC, network.mtu, True, addresses))
        forwarding[LEG_MAC] = leg_device(network.id)
        for address in addresses:
            plain = address.partition("/")[0]
            neighbours[plain] = Neighbour(LEG_MAC, router=":" in plain)
    return Layout(
        bridge=Link(kind="bridge"),
        tunnel=Link(kind="vxlan", master=bridge, flags=SUPPRESSING, tunnel=remote.device),
        ports=ports,
        tables=Tables(forwarding, remote.entries, remote.floods, neighbours, remote.chases),
        leg_link=leg_link,
        leg=leg,
    )


def addresses_of(port: LocalPort | RemotePort) -> tuple[str, ...]:
    """What the bridge answers for a port: its addresses and the link-local that its MAC forms (RFC 4291 §2.5.1)."""
    return *port.addresses, _link_local(port.mac)


def _neighbours(port: LocalPort | RemotePort) -> dict[str, Neighbour]:
    return {address: Neighbour(port.mac, port.router and ":" in address) for address in addresses_of(port)}


def _open_macs(network: Network, present: Collection[str]) -> set[str]:
    return {
        mac
        for port_id, port in network.ports.items()
        if port.gate is Gate.OPEN and port_device(port_id) in present
        for mac in port.macs
    }


def _port_link(port: LocalPort, bridge: str) -> Link:
    if port.gate is Gate.HELD:
        return Link(kind="", adopted=port.adopt)
    flags = CLOSED if port.gate is Gate.CLOSED else ANNOUNCING if port.announces else OPEN
    return Link(kind="", master=bridge, flags=flags, adopted=port.adopt)


_link_local = lru_cache(maxsize=65536)(link_local)
