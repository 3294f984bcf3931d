"""Pure. All rules that a host should have in force, put together from what its playgrounds need."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from overlay.state import PortId
from playground.derive.guarding import Needs
from playground.derive.playground import Section
from policies.compile.tables import Part, Parts, Table
from policies.guard import parts as guard
from policies.guard.rules import SHARED
from policies.verdicts import Judgements

GUARD: Table = guard.TABLE
POLICY: Table = ("inet", "playground_policy")


@dataclass(frozen=True, slots=True)
class Tracked:
    """Where the flows of a port are: the zone of its network here, and the addresses that are the port's."""

    zone: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policing:
    """The rules of a playground that somebody polices, and its bridges here. judgements: what its counters and logs
    mean. tracked: by id, its ports that have an end here."""

    part: Part
    bridges: frozenset[str]
    judgements: Judgements = field(default_factory=dict)
    tracked: Mapping[str, Tracked] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """common: by table, what needs no device. guards: by device the parts of its guard, by key. policing: by
    playground. needs: of each port."""

    common: Mapping[Table, Parts] = field(default_factory=lambda: {GUARD: {"shared": SHARED}, POLICY: {}})
    guards: Mapping[str, Mapping[Hashable, Part]] = field(default_factory=dict)
    policing: Mapping[str, Policing] = field(default_factory=dict)
    needs: Mapping[PortId, Needs] = field(default_factory=dict)


NO_RULES = Rules()


def rules_of(sections: Mapping[str, Section], policing: Mapping[str, Policing]) -> Rules:
    """Those of a host whose playgrounds these are."""
    guards: dict[str, Mapping[Hashable, Part]] = {}
    needs: dict[PortId, Needs] = {}
    for section in sections.values():
        guards.update(section.guards.devices)
        needs.update(section.guards.needs)
    return Rules(guards=guards, policing=policing, needs=needs)
