"""Pure. From the ports of a playground to the guard of its devices on one host: who may be behind which device.

As with networks, what one port adds depends on no other, so a guard can be patched where a port has changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from overlay.diff import is_port_device
from overlay.mac import is_link_local, is_virtual_router
from overlay.state import Gate, NetworkId, PortId, bridge_device, port_device, vxlan_device
from playground.derive.networks import Entry
from playground.gateways import gateway_name
from playground.records import BindingRecord, NetworkRecord, PortRecord, playground_id
from policies.compile.tables import Chain, Part
from policies.guard.parts import of_port, of_station, of_tunnel
from policies.guard.station import GuardedPort, Station, any_of

Devices = dict[str, dict[Hashable, Part]]
"""By device the parts of its guard, by key."""


class Needs(NamedTuple):
    """What a port needs in force beside the rules of its own device: those of its network's tunnel device, and, where
    somebody polices it, those of its playground (an id), met by the packets of its bridge."""

    tunnel: str
    bridge: str
    playground: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A port with where it is, and what that means here."""

    port: PortRecord
    binding: BindingRecord
    entry: Entry


@dataclass(slots=True)
class Guards:
    """The guard of a playground's devices on one host, and what each of its ports here needs."""

    devices: Devices = field(default_factory=dict)
    needs: dict[PortId, Needs] = field(default_factory=dict)

    def patched(
        self, gone: Mapping[str, Entry], come: Iterable[Bound], networks: Mapping[str, NetworkRecord]
    ) -> Guards | None:
        """The guard with some ports in place of others (one port may be in both). None when two ports of a network have
        one MAC, or may have one: then only the whole tells which counts, and what a tunnel may bring. gone: by port
        id."""
        come = list(come)
        if any(entry.is_router for entry in (*gone.values(), *(bound.entry for bound in come))):
            return None
        devices, needs = self.devices.copy(), self.needs.copy()
        own: set[str] = set()

        def of(device: str) -> dict[Hashable, Part]:
            if device not in own:
                own.add(device)
                devices[device] = devices.get(device, {}).copy()
            return devices[device]

        for id, entry in gone.items():
            if needs.pop(PortId(id), None) is not None:
                del devices[port_device(PortId(id))]
            tunnel = vxlan_device(entry.network)
            of(tunnel).pop((tunnel, entry.mac), None)
        for bound in come:
            for device, key, part in _parts(bound, networks):
                if key in devices.get(device, ()):
                    return None
                of(device)[key] = part
            if bound.entry.port is not None:
                needs[PortId(bound.port.id)] = _needs(bound.port)
        return Guards(devices, needs)


def guards_of(ports: Iterable[Bound], here: Iterable[NetworkId], networks: Mapping[str, NetworkRecord]) -> Guards:
    """The guard from nothing but its arguments. here: the networks that the host has, whose ports these are."""
    guards = Guards()
    for id in here:
        device = vxlan_device(id)
        guards.devices[device] = {device: of_tunnel(device, networks[id].subnets)}
    behind: dict[str, list[Station]] = {}
    for bound in ports:
        for device, key, part in _parts(bound, networks):
            guards.devices.setdefault(device, {})[key] = part
        if bound.entry.is_router and _is_behind_tunnel(bound):
            behind.setdefault(vxlan_device(bound.entry.network), []).append(_station(bound, networks))
        if bound.entry.port is not None:
            guards.needs[PortId(bound.port.id)] = _needs(bound.port)
    for device, stations in behind.items():
        for mac in sorted({mac for one in stations for mac in one.allowed_macs if is_virtual_router(mac)}):
            router = any_of(mac, [one for one in stations if mac in one.allowed_macs])
            guards.devices[device][device, mac] = of_station(device, router)
    return guards


def shut(part: Part) -> Part:
    """A device's chains, made to pass nothing: one that has no rule drops."""
    return Part({name: Chain((), chain.hook) for name, chain in part.chains.items()})


@lru_cache(maxsize=4096)
def shut_device(device: str) -> Part:
    """The same of a port's or a tunnel's device of which nothing else is known."""
    if is_port_device(device):
        return shut(of_port(GuardedPort(device, Station("00:00:00:00:00:00", ()))))
    return shut(of_tunnel(device, ()))


def _parts(bound: Bound, networks: Mapping[str, NetworkRecord]) -> Iterable[tuple[str, Hashable, Part]]:
    """(device, key, part) of all that one port adds.

    A port that moves counts on both sides of the tunnel, from before it leaves until it is settled: what it sent from
    the one host may still be on its way to the other.
    """
    port, entry = bound.port, bound.entry
    station = _station(bound, networks)
    if entry.port is not None:
        device = port_device(PortId(port.id))
        part = of_port(GuardedPort(device, station, networks[port.network_id].subnets))
        yield device, device, part if entry.port.gate is Gate.OPEN else shut(part)
    if _is_behind_tunnel(bound):
        device = vxlan_device(entry.network)
        own = tuple(mac for mac in station.allowed_macs if not is_virtual_router(mac))
        yield device, (device, port.mac), of_station(device, replace(station, allowed_macs=own))


def _is_behind_tunnel(bound: Bound) -> bool:
    return bound.entry.remote is not None or bound.binding.target is not None


def _station(bound: Bound, networks: Mapping[str, NetworkRecord]) -> Station:
    port = bound.port
    return Station(
        port.mac,
        (*port.addresses, *(text for text in bound.binding.learned if not is_link_local(text))),
        link_local=next(filter(is_link_local, bound.binding.learned), ""),
        allowed_addresses=port.allowed_addresses,
        allowed_macs=port.allowed_macs,
        owned=_owned(port, networks),
    )


def _owned(port: PortRecord, networks: Mapping[str, NetworkRecord]) -> tuple[str, ...] | None:
    """Of a gateway's leg, the prefixes that nothing behind it has."""
    if gateway_name(port.workspace) is None:
        return None
    return tuple(subnet for network in networks.values() for subnet in network.subnets)


def _needs(port: PortRecord) -> Needs:
    network = NetworkId(port.network_id)
    return Needs(vxlan_device(network), bridge_device(network), playground_id(port.playground))
