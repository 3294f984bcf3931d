"""Pure. From the ports of a playground to the guard of its devices on one host: who may be behind which device."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from overlay.state import Gate, NetworkId, PortId, bridge_device, port_device, vxlan_device
from playground.derive.networks import Entry
from playground.gateways import gateway_name
from playground.records import BindingRecord, NetworkRecord, PortRecord
from policies.compile.tables import Chain, Part
from policies.guard import GuardedPort, Station, of_port, of_station, of_tunnel


class Needs(NamedTuple):
    """What a port needs in force beside the rules of its own device: those of its network's tunnel device, and, where
    somebody polices it, those of its playground, met by the packets of its bridge."""

    tunnel: str
    bridge: str
    playground: str


def needs_of(network: str, playground: str) -> Needs:
    """What each port of a network needs."""
    id = NetworkId(network)
    return Needs(vxlan_device(id), bridge_device(id), playground)


def tunnel_guard(network: NetworkRecord) -> tuple[str, Part]:
    """A network's VXLAN device, and what it has whoever is behind it."""
    device = vxlan_device(NetworkId(network.id))
    return device, of_tunnel(device, network.subnets)


def port_guards(
    port: PortRecord, binding: BindingRecord, entry: Entry, networks: Mapping[str, NetworkRecord]
) -> dict[str, tuple[Hashable, Part]]:
    """What a bound port adds to the guard of a host that has its network: device → (key, part).

    A port that moves counts on both sides of the tunnel, from before it leaves until it is settled: what it sent from
    the one host may still be on its way to the other.
    """
    owned = None
    if gateway_name(port.workspace) is not None:
        owned = tuple(subnet for network in networks.values() for subnet in network.subnets)
    station = Station(port.mac, port.addresses, owned=owned)
    found: dict[str, tuple[Hashable, Part]] = {}
    if entry.port is not None:
        device = port_device(PortId(port.id))
        part = of_port(GuardedPort(device, station, networks[port.network_id].subnets))
        found[device] = device, part if entry.port.gate is Gate.OPEN else shut(part)
    if entry.remote is not None or binding.target is not None:
        device = vxlan_device(entry.network)
        found[device] = (device, port.mac), of_station(device, station)
    return found


def shut(part: Part) -> Part:
    """A device's guard that passes nothing: chains that have no rule drop."""
    return Part({name: Chain((), chain.hook) for name, chain in part.chains.items()})


def shut_all(parts: Iterable[tuple[Hashable, Part]]) -> dict[Hashable, Part]:
    """The same of all that a device has."""
    return {key: shut(part) for key, part in parts if part.chains}
