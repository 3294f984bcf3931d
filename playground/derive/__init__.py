"""Pure. From the records that a host was shown to the state that it should have: networks, guests, answers.

A map over sections (one network, one workspace, one playground's names), each a function of its inputs alone; `derive`
keeps what reads nothing that has changed (`Derivation`), and `derive_whole` without any memory is the oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from overlay.state import HostState, Network, NetworkId, PortId
from playground.derive.gateways import Carried, carried, carried_of
from playground.derive.guests import Role, Want, want_of, wants
from playground.derive.networks import Place
from playground.derive.playground import Section, Surroundings, section_of
from playground.derive.policing import Police, Policing, zones_of
from playground.derive.rules import Rules, rules_of
from playground.derive.services import Service
from playground.gateways import gateway_name
from playground.records import BindingRecord, playground_id
from playground.view import SITE, Scope, View, host_scope, playground_scope
from policies.model import Policy

__all__ = ["Carried", "Derivation", "Derived", "Role", "Service", "Setting", "Want", "derive_whole"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host's derivation needs beside the records. dataplane: name of its namespace.

    arrived: ids of workspaces whose traffic already goes by this host although the records do not say so yet (the local
    effect comes first). lenient: ids of playgrounds whose flows may be older than their policies.
    """

    host: str
    underlay: str
    domain: str
    resolvers: tuple[str, ...] = ()
    dataplane: str = "playground"
    arrived: frozenset[str] = frozenset()
    lenient: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Derived:
    """All that a host should hold. services: the responder's map. bound: the bindings of the ports in `state`.
    gateways: those to the world, by id. rules: what has to be in force before frames pass there.

    What did not change is the same object as the time before, so two of them are compared at the cost of a look-up a
    record.
    """

    state: HostState
    wants: Mapping[str, Want]
    services: Mapping[str, Service]
    bound: Mapping[PortId, BindingRecord]
    gateways: Mapping[str, Carried]
    rules: Rules


class Derivation:
    """Derives again only what reads something that has changed since the last call: a guest, a port, a playground."""

    def __init__(self) -> None:
        self._site: tuple[Scope | None, int] = (None, 0)
        self._vteps: dict[str, str] = {}
        self._own: tuple[Scope | None, int] = (None, 0)
        self._wants: dict[str, Want] = {}
        self._gateways: dict[str, Carried] = {}
        self._names: dict[tuple[str, str], str] = {}
        """Ids of wants and gateways by (playground, workspace)."""
        self._owners: dict[str, tuple[str, str]] = {}
        """(playground, workspace) of each port that a want or a gateway has."""
        self._adopted: set[str] = set()
        self._arrived: frozenset[str] = frozenset()
        self._sections: dict[str, Section] = {}
        self._polices: dict[str, Police] = {}
        self._policies: tuple[Policy, ...] = ()
        """The site's own."""
        self._derived: Derived | None = None

    def derive(self, view: View, setting: Setting) -> Derived:
        """The host's whole state; equal to `derive_whole` at any time. Of what raises, nothing is kept."""
        try:
            return self._derive(view, setting)
        except BaseException:
            self.__init__()  # type: ignore[misc]
            raise

    def _derive(self, view: View, setting: Setting) -> Derived:
        changed: dict[str, set[str]] = {}
        stale = self._stale_sections(view, setting, changed)
        if self._has_site_changed(view):
            stale |= view.playgrounds().keys()
        for name in self._stale_wants(view, setting.host, stale, changed):
            if gateway_name(name[1]) is None:
                self._renew_want(view, setting.host, name, changed)
            else:
                self._renew_gateway(view, setting, name)
        arrived = setting.arrived & self._wants.keys()
        for guest in arrived ^ self._arrived & self._wants.keys():
            want = self._wants[guest]
            changed.setdefault(want.playground, set()).update(_ports_of(view, want))
        self._arrived = arrived
        before = self._sections
        self._sections = {}
        for playground, scope in view.playgrounds().items():
            place = Place(setting.host, self._vteps, arrived, self._adopted, f"{setting.dataplane}-{playground}")
            surroundings = Surroundings(playground, place, setting.domain, setting.resolvers)
            section: Section | None = before.get(playground)
            if section is not None and playground in stale:
                section = None
            elif section is not None and (ports := changed.get(playground)):
                section = section.patched(ports, surroundings)
            self._sections[playground] = section if section is not None else section_of(scope, surroundings)
        same = _is_same(before, self._sections)
        policing = self._police(view, setting.lenient)
        derived = self._derived
        if derived is None or not same or derived.state.underlay != setting.underlay:
            derived = self._joined(setting, policing)
        elif not _is_same(policing, derived.rules.policing):
            derived = replace(derived, rules=replace(derived.rules, policing=policing))
        if derived.wants is not self._wants or derived.gateways is not self._gateways:
            derived = replace(derived, wants=self._wants, gateways=self._gateways)
        self._derived = derived
        return derived

    def _police(self, view: View, lenient: frozenset[str]) -> dict[str, Policing]:
        """What is in force of policies, by playground's id; the same objects where nothing has changed."""
        found = _site_policies(view)
        if [*map(id, found)] != [*map(id, self._policies)]:
            self._policies = found
        self._polices = {name: self._polices.get(name) or Police(name) for name in self._sections}
        return _policing(self._sections, self._polices, self._policies, lenient)

    def _joined(self, setting: Setting, policing: Mapping[str, Policing]) -> Derived:
        networks: dict[NetworkId, Network] = {}
        services: dict[str, Service] = {}
        bound: dict[PortId, BindingRecord] = {}
        for section in self._sections.values():
            networks.update(section.networks)
            services.update(section.services)
            bound.update(section.bound)
        rules = rules_of(self._sections, policing)
        state = HostState(setting.underlay, networks)
        return Derived(state, self._wants, services, bound, self._gateways, rules)

    def _has_site_changed(self, view: View) -> bool:
        """Whether a host's tunnel address has."""
        scope = view.scopes.get(SITE)
        read = (scope, scope.version if scope else 0)
        if self._site[0] is read[0] and self._site[1] == read[1]:
            return False
        self._site = read
        before, self._vteps = self._vteps, {name: record.underlay for name, record in view.hosts().items()}
        return before != self._vteps

    def _stale_sections(self, view: View, setting: Setting, changed: dict[str, set[str]]) -> set[str]:
        """Playgrounds to derive whole; of the others, the ports that changed are added to `changed`."""
        stale = self._sections.keys() - view.playgrounds().keys()
        for playground, scope in view.playgrounds().items():
            section = self._sections.get(playground)
            if (
                section is None
                or section.scope is not scope
                or scope.networks_version > section.version
                or (section.surroundings.domain, section.surroundings.resolvers) != (setting.domain, setting.resolvers)
                or section.surroundings.place.host != setting.host
                or section.surroundings.place.namespace != f"{setting.dataplane}-{playground}"
            ):
                stale.add(playground)
            elif scope.version > section.version:
                ports = scope.ports_log.since(section.version)
                if ports is None:
                    stale.add(playground)
                else:
                    changed[playground] = set(ports)
        return stale

    def _stale_wants(
        self, view: View, host: str, stale: set[str], changed: Mapping[str, set[str]]
    ) -> set[tuple[str, str]]:
        """Names of guests that read something that has changed."""
        scope = view.scopes.get(host_scope(host))
        logged = scope.workspaces_log.since(self._own[1]) if scope is not None and scope is self._own[0] else None
        if logged is None:
            names = {(record.playground, record.name) for record in view.workspaces(host)} | self._names.keys()
        else:
            names = set(logged)
        self._own = (scope, scope.version if scope else 0)
        if stale:
            names.update(name for name in self._names if name[0] in stale)
        for playground, ports in changed.items():
            known = view.scopes[playground_scope(playground)].ports
            for port in ports:
                names.add(self._owners.get(port, ("", "")))
                if port in known:
                    names.add((playground, known[port].workspace))
        names.discard(("", ""))
        return names

    def _renew_want(self, view: View, host: str, name: tuple[str, str], changed: dict[str, set[str]]) -> None:
        before = self._wants.get(self._names.get(name, ""))
        after = want_of(view, host, *name)
        if before == after:
            return
        if self._derived is None or self._wants is self._derived.wants:
            self._wants = dict(self._wants)  # what was given away is not written to
        if before is not None:
            del self._wants[before.id], self._names[name]
            for port in before.ports:
                self._owners.pop(port, None)
        if after is not None:
            self._wants[after.id] = after
            self._names[name] = after.id
            self._owners.update(dict.fromkeys(after.ports, name))
        if before is not None and before.id in self._arrived:
            changed.setdefault(name[0], set()).update(_ports_of(view, before))
        for want, note in ((before, self._adopted.discard), (after, self._adopted.add)):
            if want is not None and want.adopt:
                changed.setdefault(name[0], set()).update(want.ports)
                for port in want.ports:
                    note(port)

    def _renew_gateway(self, view: View, setting: Setting, name: tuple[str, str]) -> None:
        before = self._gateways.get(self._names.get(name, ""))
        after = carried_of(view, setting.host, setting.dataplane, *name)
        if before == after:
            return
        self._gateways = dict(self._gateways)  # the old one was given away
        if before is not None:
            del self._gateways[before.id], self._names[name]
            for port in before.ports:
                self._owners.pop(port, None)
        if after is not None:
            self._gateways[after.id] = after
            self._names[name] = after.id
            self._owners.update(dict.fromkeys(after.ports, name))


def _is_same(some: Mapping[str, object], others: Mapping[str, object]) -> bool:
    return some.keys() == others.keys() and all(one is others[key] for key, one in some.items())


def _site_policies(view: View) -> tuple[Policy, ...]:
    scope = view.scopes.get(SITE)
    return tuple(scope.policies.values()) if scope is not None else ()


def _policing(
    sections: Mapping[str, Section], polices: Mapping[str, Police], site: tuple[Policy, ...], lenient: frozenset[str]
) -> dict[str, Policing]:
    zones = zones_of(network.vni for section in sections.values() for network in section.networks.values())
    found = {
        (id := playground_id(name)): polices[name].compile(section, site, zones, id in lenient)
        for name, section in sections.items()
    }
    return {id: one for id, one in found.items() if one is not None}


def _ports_of(view: View, want: Want) -> set[str]:
    """Ids of all ports that have a guest's name: in the midst of an edit these may be more than its record says."""
    scope = view.scopes.get(playground_scope(want.playground))
    named = (id for id, port in scope.ports.items() if port.workspace == want.name) if scope is not None else ()
    return {*want.ports, *named}


def derive_whole(view: View, setting: Setting) -> Derived:
    """The host's state from nothing but its arguments: the oracle of what is kept."""
    guests = wants(view, setting.host)
    adopted = frozenset(port for want in guests.values() if want.adopt for port in want.ports)
    vteps = {name: record.underlay for name, record in view.hosts().items()}
    networks: dict[NetworkId, Network] = {}
    services: dict[str, Service] = {}
    bound: dict[PortId, BindingRecord] = {}
    sections: dict[str, Section] = {}
    for playground, scope in view.playgrounds().items():
        arrived = setting.arrived & guests.keys()
        place = Place(setting.host, vteps, arrived, adopted, f"{setting.dataplane}-{playground}")
        section = section_of(scope, Surroundings(playground, place, setting.domain, setting.resolvers))
        sections[playground] = section
        networks.update(section.networks)
        services.update(section.services)
        bound.update(section.bound)
    gateways = carried(view, setting.host, setting.dataplane)
    polices = {name: Police(name) for name in sections}
    policing = _policing(sections, polices, _site_policies(view), setting.lenient)
    rules = rules_of(sections, policing)
    return Derived(HostState(setting.underlay, networks), guests, services, bound, gateways, rules)
