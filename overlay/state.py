"""Pure. The state that one host's data plane should have, and the part of it that the kernel shows.

A `HostState` is written by whoever decides (a controller's agent, or a person in a REPL), `overlay.diff` compares it
with what `overlay.kernel.observe` read, and `overlay.kernel.apply` makes the difference real. Addresses and MACs are
plain strings in canonical form (lower-case colon MACs, compressed IPv6); MTUs are bytes of guest IP packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

PortId = NewType("PortId", str)
"""12 lower-case hex digits, the same on every host."""

NetworkId = NewType("NetworkId", str)
"""12 lower-case hex digits, the same on every host."""

LEG_MAC = "02:70:67:00:00:01"
"""The MAC of every service leg, on every host: a moved guest keeps a valid neighbour entry for it."""

LEG_LINK_LOCAL = "fe80::1"
"""The service leg's IPv6 link-local address, the source of router advertisements (RFC 4861 §6.1.2 wants one)."""


def port_device(port: PortId) -> str:
    """Name of a port's device in the data plane namespace (14 bytes; IFNAMSIZ leaves 15)."""
    return f"pg{port}"


def bridge_device(network: NetworkId) -> str:
    """Name of a network's bridge."""
    return f"br{network}"


def vxlan_device(network: NetworkId) -> str:
    """Name of a network's VXLAN device."""
    return f"vx{network}"


def leg_device(network: NetworkId) -> str:
    """Name of a service leg's end on the bridge; the other end in the service namespace is `sv` + id."""
    return f"lg{network}"


def service_device(network: NetworkId) -> str:
    """Name of a service leg's end in the service namespace."""
    return f"sv{network}"


class Gate(Enum):
    """Whether frames pass a port. A closed port is attached and ready, and nothing is delivered to it. A held one has
    its device, and is in no bridge: what keeps watch over it is not in force (`overlay.kernel.converge.Keeper`)."""

    OPEN = "open"
    CLOSED = "closed"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A port whose device is on this host (`port_device(id)`, made by whoever makes workspaces).

    `adopt`: the device is somebody else's tap or veth, found under that name in the host's namespace; it is moved in,
    and moved back when the port goes. A tap is in only while somebody has it open: a hypervisor finds it by its name
    where it was made. `router`: it routes for others of its network. `also`: MACs that lead to it beside its own.
    `announces`: addresses come to it that nothing here knows of: what it asks and tells by ARP and ND goes to
    everybody, as nobody answers in its neighbours' stead.
    """

    id: PortId
    mac: str
    addresses: tuple[str, ...]
    gate: Gate = Gate.OPEN
    adopt: bool = False
    router: bool = False
    also: tuple[str, ...] = ()
    announces: bool = False

    @property
    def macs(self) -> tuple[str, ...]:
        """All that lead to it, its own first."""
        return (self.mac, *self.also)


@dataclass(frozen=True, slots=True)
class RemotePort:
    """A port that other hosts carry: frames to `mac` go to `vtep`; `addresses` are answered for locally (ARP, ND).

    `router`: it routes for others of its network, and the answers say so. `also`: as of LocalPort."""

    mac: str
    addresses: tuple[str, ...]
    vtep: str
    router: bool = False
    also: tuple[str, ...] = ()

    @property
    def macs(self) -> tuple[str, ...]:
        """All that lead to it, its own first."""
        return (self.mac, *self.also)


@dataclass(frozen=True, slots=True)
class Leg:
    """The service namespace's foot in one network. `addresses` carry a prefix length; the link-local is implied."""

    namespace: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """One network on this host.

    mtu: largest guest IP packet. remotes: by MAC. vteps: underlay addresses of the other hosts that have the network
    (head-end replication). chase: MAC → VTEP; a unicast frame that enters by VXLAN for such a MAC leaves by VXLAN to
    that VTEP (only while a port moves).
    """

    id: NetworkId
    vni: int
    mtu: int
    ports: Mapping[PortId, LocalPort] = field(default_factory=dict)
    remotes: Mapping[str, RemotePort] = field(default_factory=dict)
    vteps: frozenset[str] = frozenset()
    leg: Leg | None = None
    chase: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostState:
    """All that one host's data plane should hold. `underlay`: this host's own tunnel address (IPv4 or IPv6)."""

    underlay: str
    networks: Mapping[NetworkId, Network] = field(default_factory=dict)
