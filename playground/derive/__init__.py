"""Pure. From the records that a host was shown to the state that it should have: networks, guests, answers.

A map over sections (one network, one workspace, one playground's names), each a function of its inputs alone; `derive`
keeps a section while the versions that it read stand (`Derivation`), and `derive_whole` without any memory is the
oracle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlay.state import HostState, Network, NetworkId
from playground.derive.guests import Role, Want, wants
from playground.derive.networks import derive_networks
from playground.derive.services import Service, derive_services
from playground.view import View

__all__ = ["Derivation", "Derived", "Role", "Service", "Setting", "Want", "derive_whole"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host's derivation needs beside the records. arrived: ids of workspaces whose traffic already goes by this
    host although the records do not say so yet (the local effect comes first). dataplane: name of its namespace."""

    host: str
    underlay: str
    domain: str
    resolvers: tuple[str, ...] = ()
    dataplane: str = "playground"
    arrived: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Derived:
    """All that a host should hold. services: the responder's map."""

    state: HostState
    wants: Mapping[str, Want]
    services: Mapping[str, Service]


@dataclass(slots=True)
class Derivation:
    """Derives again only the playgrounds that changed since the last call."""

    _kept: dict[str, tuple[object, dict[NetworkId, Network], dict[str, Service]]] = field(default_factory=dict)

    def derive(self, view: View, setting: Setting) -> Derived:
        """The host's whole state; equal to `derive_whole` at any time."""
        guests = wants(view, setting.host)
        hosts = view.hosts()
        vteps = {name: record.underlay for name, record in hosts.items()}
        networks: dict[NetworkId, Network] = {}
        services: dict[str, Service] = {}
        fresh: dict[str, tuple[object, dict[NetworkId, Network], dict[str, Service]]] = {}
        for playground, scope in view.playgrounds().items():
            adopted = frozenset(p for w in guests.values() if w.playground == playground and w.adopt for p in w.ports)
            arrived = frozenset(w.id for w in guests.values() if w.playground == playground and w.id in setting.arrived)
            read = (
                scope.version,
                id(scope),
                tuple(sorted(vteps.items())),
                adopted,
                arrived,
                setting.domain,
                setting.resolvers,
            )
            kept = self._kept.get(playground)
            if kept is None or kept[0] != read:
                made = derive_networks(
                    scope, setting.host, vteps, arrived, adopted, f"{setting.dataplane}-{playground}"
                )
                kept = (read, made, derive_services(scope, playground, made, setting.domain, setting.resolvers))
            fresh[playground] = kept
            networks.update(kept[1])
            services.update(kept[2])
        self._kept = fresh
        return Derived(HostState(setting.underlay, networks), guests, services)


def derive_whole(view: View, setting: Setting) -> Derived:
    """The host's state from nothing but its arguments."""
    return Derivation().derive(view, setting)
