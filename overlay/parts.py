"""Pure. Names parts of networks, so that a change costs what it touches: what to look at in the kernel, and no more.

A part is a set of kernel keys (devices, MACs, addresses). It says where to look, never what should be there: that stays
the business of the desired state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from overlay.state import HostState, LocalPort, Network, NetworkId, PortId, RemotePort
from overlay.topology import Tables, addresses_of

_K = TypeVar("_K")
_V = TypeVar("_V")

WHOLE_FROM = 64
"""So many changed records, if they are also a quarter of all, cost more one by one than a look at the whole network."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some keys of one network.

    ports: their devices. macs: their entries in the bridge's and the tunnel's FDB. addresses: their neighbour entries.
    vteps: flood entries to them. chases: MACs whose chase filters to look at, which costs a dump of all filters there.

    A port or a remote that is wanted needs only its id or MAC here (`close` adds the rest). Of one that was wanted, or
    was otherwise, every key must be named that may have to go: `part_of` knows them. No address may be wanted for two
    records of which only one is named.
    """

    ports: frozenset[PortId] = frozenset()
    macs: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    vteps: frozenset[str] = frozenset()
    chases: frozenset[str] = frozenset()

    def __or__(self, other: Part) -> Part:
        return Part(
            self.ports | other.ports,
            self.macs | other.macs,
            self.addresses | other.addresses,
            self.vteps | other.vteps,
            self.chases | other.chases,
        )


Focus = Mapping[NetworkId, Part | None]
"""What to look at: networks, whole (None) or in part. Nothing else is looked at."""


def part_of(*records: LocalPort | RemotePort) -> Part:
    """All keys that these records put into the kernel."""
    return Part(
        frozenset(record.id for record in records if isinstance(record, LocalPort)),
        frozenset(mac for record in records for mac in record.macs),
        frozenset(address for record in records for address in addresses_of(record)),
    )


def between(before: HostState, after: HostState) -> dict[NetworkId, Part | None]:
    """Where two states differ; empty when nowhere. Records that are the same objects cost a look-up each.

    None: what all ports of the network share differs (its device's id, MTU, leg), it comes or goes, or most of it does.
    """
    found: dict[NetworkId, Part | None] = {}
    for id in before.networks.keys() | after.networks.keys():
        old, new = before.networks.get(id), after.networks.get(id)
        if old is None or new is None or before.underlay != after.underlay:
            found[id] = None
        elif old is not new and old != new:
            found[id] = _between(old, new)
    return found


def close(network: Network, part: Part) -> Part:
    """`part` and all keys that `network` wants for the ports and remotes that it names.

    A local port is also named by its MAC: a guest that moves is a port and a remote of one MAC.
    """
    ports = {id: network.ports[id] for id in part.ports if id in network.ports}
    macs = part.macs | {port.mac for port in ports.values()}
    ports.update((id, port) for id, port in network.ports.items() if not macs.isdisjoint(port.macs))
    remotes = [network.remotes[mac] for mac in macs if mac in network.remotes]
    if strange := macs - network.remotes.keys() - {port.mac for port in ports.values()}:
        remotes += [one for one in network.remotes.values() if not strange.isdisjoint(one.also)]
    return part | part_of(*ports.values(), *remotes)


def narrow(network: Network, part: Part) -> Network:
    """`network` with those of its ports, remotes and VTEPs that a closed part names."""
    return replace(
        network,
        ports={id: network.ports[id] for id in part.ports if id in network.ports},
        remotes={mac: network.remotes[mac] for mac in part.macs if mac in network.remotes},
        vteps=network.vteps & part.vteps,
        chase={mac: network.chase[mac] for mac in part.macs if mac in network.chase},
    )


def within(tables: Tables, part: Part) -> Tables:
    """The entries of `tables` that a part names."""
    return Tables(
        forwarding=_some(tables.forwarding, part.macs),
        tunnel=_some(tables.tunnel, part.macs),
        floods=tables.floods & part.vteps,
        neighbours=_some(tables.neighbours, part.addresses),
        chases=tables.chases & part.chases,
    )


def _between(old: Network, new: Network) -> Part | None:
    if (old.vni, old.mtu, old.leg) != (new.vni, new.mtu, new.leg):
        return None
    ports, remotes = _changed(old.ports, new.ports), _changed(old.remotes, new.remotes)
    count = len(ports) + len(remotes)
    if count >= WHOLE_FROM and 4 * count >= len(new.ports) + len(new.remotes):
        return None
    chases = frozenset(_changed(old.chase, new.chase))
    records = [side.ports[id] for side in (old, new) for id in ports if id in side.ports]
    behind = [side.remotes[mac] for side in (old, new) for mac in remotes if mac in side.remotes]
    # A chase depends on its MAC's gate, which is a port's.
    chases |= {mac for record in records for mac in record.macs if mac in old.chase or mac in new.chase}
    return part_of(*records, *behind) | Part(macs=chases, vteps=old.vteps ^ new.vteps, chases=chases)


def _changed(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> list[_K]:
    found = [key for key, value in new.items() if (was := old.get(key)) is not value and was != value]
    return found + [key for key in old if key not in new]


def _some(entries: Mapping[str, _V], keys: frozenset[str]) -> dict[str, _V]:
    return {key: entries[key] for key in keys if key in entries}
