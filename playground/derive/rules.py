"""Pure. From a host's derived networks and the policies that it was shown to the rules that it should have in force.

What a port, a tunnel's remote or a playground needs is made once and kept while what it reads is the same object; a
`RuleBook` that keeps nothing is the oracle of one that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlay.state import LEG_MAC, Gate, LocalPort, Network, NetworkId, PortId, RemotePort, port_device, vxlan_device
from playground.derive.playground import Section
from policies import guard
from policies.compile.tables import Part, Parts, Table

GUARD: Table = ("netdev", "playground_guard")
POLICY: Table = ("inet", "playground_policy")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a port needs in force beside the rules of its own device: those of its network's tunnel device, and those of
    its playground."""

    tunnel: str
    playground: str


@dataclass(frozen=True, slots=True)
class Policing:
    """The rules of a playground that somebody polices, and its bridges here."""

    part: Part
    bridges: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """All that should be in force on one host. common: by table, what needs no device. guards: by device; policing: by
    playground."""

    common: Mapping[Table, Parts] = field(default_factory=lambda: {GUARD: {}, POLICY: {}})
    guards: Mapping[str, Parts] = field(default_factory=dict)
    policing: Mapping[str, Policing] = field(default_factory=dict)
    ports: Mapping[PortId, Needs] = field(default_factory=dict)


NO_RULES = Rules()


@dataclass(slots=True)
class _Watch:
    """The guard of one network: by device, and what each port there needs."""

    network: Network
    guards: dict[str, Parts]
    ports: dict[PortId, Needs]


class RuleBook:
    """Derives again only what reads something that has changed since the last call."""

    def __init__(self) -> None:
        self._watches: dict[NetworkId, _Watch] = {}
        self._rules = NO_RULES

    def derive(self, sections: Mapping[str, Section]) -> Rules:
        """The rules for what was derived; the same object as the last time if nothing has changed."""
        before, self._watches = self._watches, {}
        for playground, section in sections.items():
            for id, network in section.networks.items():
                self._watches[id] = _watch_of(playground, network, before.get(id))
        is_same = before.keys() == self._watches.keys() and all(self._watches[id] is before[id] for id in before)
        if not is_same:
            self._rules = Rules(...)
        return self._rules


def _watch_of(playground: str, network: Network, before: _Watch | None) -> _Watch:
    """A network's guard; of `before`, that of what is the same object still."""
