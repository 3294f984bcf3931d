"""Pure. From the policies and ports of a playground to what its host's kernel is to hold of them.

A `Police` keeps what it made while all that it reads is the same; a new one is its oracle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import NamedTuple

from overlay.mac import is_link_local, link_local
from overlay.state import LEG_LINK_LOCAL, NetworkId, PortId, bridge_device
from playground.derive.playground import Section
from playground.gateways import gateway_name
from playground.records import NetworkRecord, PortRecord, playground_id
from playground.view import Scope, endpoint_of
from policies.compile.places import PolicedEnd, PolicedGateway, PolicedNetwork
from policies.compile.playground import Compiled, PlaygroundCompiler
from policies.model import Endpoint, Gateway, Policy, Scene, Subnet
from policies.resolve import Changes, Resolver

_ZONES = 65535
"""Conntrack zones beside 0, which is everybody's (linux/netfilter/nf_conntrack_zones_common.h: 16 bits)."""


def zones_of(vnis: Iterable[int]) -> dict[int, int]:
    """A conntrack zone for each VNI, no two alike. That of a network stays while the host has it, but for sites of more
    networks than there are zones, where two may want one."""
    taken: dict[int, int] = {}
    found: dict[int, int] = {}
    for vni in sorted(vnis):
        zone = vni % _ZONES + 1
        while zone in taken:
            zone = zone % _ZONES + 1
        taken[zone] = found[vni] = zone
    return found


@dataclass(frozen=True, slots=True)
class Tracked:
    """Where the flows of a port are: the zone of its network here, and the port's addresses and prefixes."""

    zone: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policing:
    """What a playground that somebody polices has on a host. tracked: by id, its ports that have an end there."""

    compiled: Compiled
    tracked: Mapping[str, Tracked]


@dataclass(slots=True)
class _Known:
    """What one port's record became, with the addresses that its client formed."""

    record: PortRecord
    learned: tuple[str, ...]
    endpoint: Endpoint
    here: PolicedEnd
    elsewhere: PolicedEnd


class _Read(NamedTuple):
    """What a compilation read."""

    section: Section
    version: int
    site: tuple[Policy, ...]
    zones: tuple[int, ...]
    is_lenient: bool

    def is_same(self, other: _Read) -> bool:
        """Whether it would read the same now; what is kept is the same object."""
        is_kept = self.section is other.section and self.site is other.site
        return is_kept and self[1] == other[1] and self[3:] == other[3:]


class _Place(NamedTuple):
    """Who is there and where, whatever is said of them: the same as long as the section is, and the zones are."""

    endpoints: tuple[Endpoint, ...]
    gateways: tuple[Gateway, ...]
    subnets: tuple[Subnet, ...]
    networks: tuple[PolicedNetwork, ...]
    ends: tuple[PolicedEnd, ...]
    legs: tuple[PolicedGateway, ...]
    tracked: Mapping[str, Tracked]


@dataclass(slots=True)
class Police:
    """One playground's, on one host."""

    playground: str
    policing: Policing | None = None
    _read: _Read | None = None
    _place: _Place | None = None
    _ports: dict[str, _Known] = field(default_factory=dict)
    _policies: dict[str, Policy] = field(default_factory=dict)
    """The playground's own, as they were resolved last."""
    _resolver: Resolver = field(default_factory=Resolver)
    _compiler: PlaygroundCompiler | None = None

    def compile(
        self, section: Section, site: tuple[Policy, ...], zones: Mapping[int, int], is_lenient: bool = False
    ) -> Policing | None:
        """What the kernel is to hold; None where nobody polices the playground. site: the site's own policies, the same
        tuple while they stay. zones: of the host's networks, by VNI."""
        scope = section.scope
        if not (site or scope.policies) or not section.networks:
            self.policing, self._read = None, None
            return None
        numbers = tuple(zones[network.vni] for network in section.networks.values())
        read, last = _Read(section, scope.version, site, numbers, is_lenient), self._read
        if last is not None and read.is_same(last):
            return self.policing
        place = self._place
        if place is None or last is None or last.section is not section or last.zones != numbers:
            place = self._place = self._look(section, zones)
        scene = Scene(
            endpoints=place.endpoints,
            policies=(*site, *scope.policies.values()),
            gateways=place.gateways,
            subnets=place.subnets,
        )
        ir = self._resolver.resolve(scene, self._changes(last, read))
        if self._compiler is None:
            self._compiler = PlaygroundCompiler(self.playground, playground_id(self.playground))
        compiled = self._compiler.compile(ir, place.networks, place.ends, place.legs, is_lenient=is_lenient)
        self.policing = Policing(compiled, place.tracked) if compiled is not None else None
        self._read = read
        return self.policing

    def _changes(self, last: _Read | None, read: _Read) -> Changes | None:
        """The policies that the scope's log says have come and gone; None where it does not tell of all."""
        scope = read.section.scope
        is_told = last is not None and last.section.scope is scope and last.site is read.site
        names = scope.policies_log.since(last.version) if last is not None and is_told else None
        if names is None:
            self._policies = scope.policies.copy()
            return None
        gone, come = [], []
        for name in names:
            before, after = self._policies.pop(name, None), scope.policies.get(name)
            if after is not None:
                self._policies[name] = after
            if before is not after:
                gone += [before] if before is not None else []
                come += [after] if after is not None else []
        return Changes(gone, come)

    def _look(self, section: Section, zones: Mapping[int, int]) -> _Place:
        scope = section.scope
        gateways = self._read_ports(scope)
        legs = [(name, leg) for name, found in gateways.items() for leg in found]
        tracked = {}
        for id in section.guards.needs:
            if (known := self._ports.get(id)) is not None:
                network = section.networks[NetworkId(known.record.network_id)]
                tracked[str(id)] = Tracked(zones[network.vni], known.here.addresses)
        return _Place(
            tuple(known.endpoint for known in self._ports.values()),
            tuple(
                Gateway(self.playground, name, frozenset(leg.network for leg in found))
                for name, found in sorted(gateways.items())
            ),
            tuple(
                Subnet(self.playground, network.name, ip_network(subnet))
                for network in scope.networks.values()
                for subnet in network.subnets
            ),
            tuple(_network(scope.networks[id], zones[network.vni]) for id, network in section.networks.items()),
            tuple(known.here if _is_here(section, id) else known.elsewhere for id, known in self._ports.items()),
            tuple(PolicedGateway(name, leg.network, _addresses(leg)) for name, leg in legs),
            tracked,
        )

    def _read_ports(self, scope: Scope) -> dict[str, list[PortRecord]]:
        """Takes in the ports of workspaces; returns the legs of gateways, by name."""
        known, self._ports = self._ports, {}
        gateways: dict[str, list[PortRecord]] = {}
        for id, record in scope.ports.items():
            if record.network_id not in scope.networks:
                continue
            if (gateway := gateway_name(record.workspace)) is not None:
                gateways.setdefault(gateway, []).append(record)
                continue
            one, binding = known.get(id), scope.bindings.get(id)
            learned = binding.learned if binding is not None else ()
            is_same = one is not None and one.record is record and one.learned == learned
            self._ports[id] = one if one is not None and is_same else _known(record, learned)
        return gateways


def _known(record: PortRecord, learned: tuple[str, ...]) -> _Known:
    end = (record.workspace, record.network, _addresses(record, learned))
    return _Known(record, learned, endpoint_of(record), PolicedEnd(*end, is_local=True), PolicedEnd(*end))


def _addresses(record: PortRecord, learned: tuple[str, ...] = ()) -> tuple[str, ...]:
    own = () if any(map(is_link_local, learned)) else (link_local(record.mac),)
    return (*record.addresses, *own, *learned, *record.allowed_addresses)


def _is_here(section: Section, id: str) -> bool:
    """Whether a port has an end on this host, also one that is only prepared: its rules are there before it."""
    return PortId(id) in section.guards.needs


def _network(record: NetworkRecord, zone: int) -> PolicedNetwork:
    return PolicedNetwork(
        name=record.name,
        bridge=bridge_device(NetworkId(record.id)),
        zone=zone,
        services=(*record.gateways, LEG_LINK_LOCAL),
        subnets=record.subnets,
    )
