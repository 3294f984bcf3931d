"""Pure. What one host derives of one playground, made whole or patched where ports have changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from overlay.state import Network, NetworkId, PortId
from playground.derive.gateways import router_of
from playground.derive.guarding import Bound, Guards, guards_of
from playground.derive.networks import Entry, Members, Place, entry_of, members_of
from playground.derive.services import Beside, Giving, Service, records_of, services_of, view_of
from playground.gateways import gateway_name
from playground.records import BindingRecord, PortRecord
from playground.responder.protocol import name_key, port_key, records_key, view_key
from playground.view import Scope

WHOLE_FROM = 32
"""So many changed ports, if they are also a quarter of all, cost more one by one than all of them anew."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a playground's derivation reads beside its scope."""

    playground: str
    place: Place
    domain: str
    resolvers: tuple[str, ...]


@dataclass(slots=True)
class Section:
    """One playground on one host. networks: those that the host has a port of. bound: the bindings of its own ports.

    members: its networks that any host has a port of, of which `networks` are the host's own. guards: of these.
    """

    scope: Scope
    version: int
    surroundings: Surroundings
    entries: dict[str, Entry] = field(default_factory=dict)
    members: dict[NetworkId, Members] = field(default_factory=dict)
    networks: dict[NetworkId, Network] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    bound: dict[PortId, BindingRecord] = field(default_factory=dict)
    legs: Mapping[str, PortRecord] = field(default_factory=dict)
    """Of gateways, and of who leads to prefixes, by id: what the clients of other ports are told of."""
    guards: Guards = field(default_factory=Guards)

    def patched(self, changed: Collection[str], surroundings: Surroundings) -> Section | None:
        """The section after some ports have changed, in their records or in what `surroundings` say of them; None when
        only the whole tells."""
        scope, place = self.scope, surroundings.place
        if len(changed) >= WHOLE_FROM and 4 * len(changed) >= len(scope.ports):
            return None
        if any(self.legs.get(id) is not _leg(scope, id) for id in changed):
            return None
        entries, members = self.entries.copy(), self.members.copy()
        gone: dict[NetworkId, dict[str, Entry]] = {}
        come: dict[NetworkId, dict[str, Entry]] = {}
        for id in changed:
            if (old := entries.pop(id, None)) is not None:
                gone.setdefault(old.network, {})[id] = old
            if (fresh := _entry(scope, id, place)) is not None:
                come.setdefault(fresh.network, {})[id] = entries[id] = fresh
        for network in gone.keys() | come.keys():
            known = members.get(network)
            if known is None:
                found: Members | None = members_of(scope.networks[network], come[network].values(), place)
            else:
                found = known.patched(gone.get(network, {}).values(), come.get(network, {}), place)
            if found is None:
                return None
            members[network] = found
        networks = _own(members, place)
        if networks.keys() != self.networks.keys():
            return None
        left = {id: entry for network in networks for id, entry in gone.get(network, {}).items()}
        new = (_bound(scope, id, entry) for network in networks for id, entry in come.get(network, {}).items())
        guards = self.guards.patched(left, new, scope.networks)
        if guards is None:
            return None
        services, bound = self.services.copy(), self.bound.copy()
        for id in changed if networks else ():
            for key in (name_key(surroundings.playground, PortId(id)), port_key(PortId(id))):
                services.pop(key, None)
            bound.pop(PortId(id), None)
            services.update(_services(scope, id, networks, surroundings, self.legs))
            if _is_here(networks, scope, id):
                bound[PortId(id)] = scope.bindings[id]
        return Section(
            scope, scope.version, surroundings, entries, members, networks, services, bound, self.legs, guards
        )


def section_of(scope: Scope, surroundings: Surroundings) -> Section:
    """The section from nothing but its arguments."""
    place = surroundings.place
    entries = {id: entry for id in scope.bindings if (entry := _entry(scope, id, place)) is not None}
    by_network: dict[NetworkId, list[Entry]] = {}
    for entry in entries.values():
        by_network.setdefault(entry.network, []).append(entry)
    members = {id: members_of(scope.networks[id], found, place) for id, found in by_network.items()}
    networks = _own(members, place)
    services: dict[str, Service] = {}
    legs = {id: leg for id in scope.ports if (leg := _leg(scope, id)) is not None}
    if networks:
        services[view_key(surroundings.playground)] = view_of(
            scope.networks, networks, surroundings.playground, surroundings.domain, surroundings.resolvers
        )
        for network in scope.networks.values():
            if network.names:
                key = records_key(surroundings.playground, network.id)
                services[key] = records_of(network, surroundings.playground, surroundings.domain)
        for id in scope.ports:
            services.update(_services(scope, id, networks, surroundings, legs))
    bound = {PortId(id): scope.bindings[id] for id in entries if _is_here(networks, scope, id)}
    here = (_bound(scope, id, entry) for id, entry in entries.items() if entry.network in networks)
    guards = guards_of(here, networks, scope.networks)
    return Section(scope, scope.version, surroundings, entries, members, networks, services, bound, legs, guards)


def _leg(scope: Scope, id: str) -> PortRecord | None:
    port = scope.ports.get(id)
    return port if port is not None and (port.leads or gateway_name(port.workspace) is not None) else None


def _entry(scope: Scope, id: str, place: Place) -> Entry | None:
    port, binding = scope.ports.get(id), scope.bindings.get(id)
    if port is None or binding is None or port.network_id not in scope.networks:
        return None
    return entry_of(port, binding, place)


def _bound(scope: Scope, id: str, entry: Entry) -> Bound:
    return Bound(scope.ports[id], scope.bindings[id], entry)


def _own(members: Mapping[NetworkId, Members], place: Place) -> dict[NetworkId, Network]:
    return {id: found.network for id, found in sorted(members.items(), key=_id) if place.host in found.hosts}


def _id(item: tuple[NetworkId, object]) -> NetworkId:
    return item[0]


def _is_here(networks: Mapping[NetworkId, Network], scope: Scope, id: str) -> bool:
    port = scope.ports.get(id)
    network = networks.get(NetworkId(port.network_id)) if port is not None else None
    return network is not None and PortId(id) in network.ports


def _services(
    scope: Scope,
    id: str,
    networks: Mapping[NetworkId, Network],
    surroundings: Surroundings,
    legs: Mapping[str, PortRecord],
) -> dict[str, Service]:
    port = scope.ports.get(id)
    if port is None or gateway_name(port.workspace) is not None:
        return {}
    record = scope.networks[port.network_id] if _is_here(networks, scope, id) else None
    giving, binding, host = None, scope.bindings.get(id), surroundings.place.host
    if binding is not None and binding.active == host:  # only there: nobody else gives from its blocks
        giving = Giving(scope.dynamics.get(id), binding.generation, host)
    learned = binding.learned if binding is not None else ()
    ways = [
        (prefix, next(address for address in leg.addresses if "." in address))
        for leg in legs.values()
        for prefix in leg.leads
        if leg.network_id == port.network_id and leg.id != id
    ]
    beside = Beside(router_of(scope, port), learned, tuple(sorted(ways)), giving)
    return services_of(port, record, surroundings.playground, surroundings.domain, beside)
