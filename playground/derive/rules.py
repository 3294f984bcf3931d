"""Pure. All rules that a host should have in force, put together from what its playgrounds need."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from overlay.state import PortId, bridge_device, port_device, vxlan_device
from playground.derive.guarding import Needs
from playground.derive.playground import Section
from playground.derive.policing import Policing
from playground.records import playground_id
from policies.compile.tables import Part, Parts, Table
from policies.compile.ways import TABLE
from policies.guard import parts as guard
from policies.guard.rules import SHARED

GUARD: Table = guard.TABLE
POLICY: Table = TABLE


@dataclass(frozen=True, slots=True)
class Rules:
    """shared: what all guards need. guards: by device the parts of its guard, by key. policing: by id, the playgrounds
    that somebody polices. owners: of devices, the playgrounds (by id) and their bridges. needs: of each port."""

    shared: Parts = field(default_factory=lambda: {"shared": SHARED})
    guards: Mapping[str, Mapping[Hashable, Part]] = field(default_factory=dict)
    policing: Mapping[str, Policing] = field(default_factory=dict)
    owners: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    needs: Mapping[PortId, Needs] = field(default_factory=dict)


NO_RULES = Rules()


def rules_of(sections: Mapping[str, Section], policing: Mapping[str, Policing]) -> Rules:
    """Those of a host whose playgrounds these are. policing: by id."""
    guards: dict[str, Mapping[Hashable, Part]] = {}
    needs: dict[PortId, Needs] = {}
    owners: dict[str, tuple[str, str]] = {}
    for playground, section in sections.items():
        guards.update(section.guards.devices)
        needs.update(section.guards.needs)
        id = playground_id(playground)
        owners.update((vxlan_device(network), (id, bridge_device(network))) for network in section.networks)
        owners.update((port_device(port), (id, found.bridge)) for port, found in section.guards.needs.items())
    return Rules(guards=guards, policing=policing, owners=owners, needs=needs)
