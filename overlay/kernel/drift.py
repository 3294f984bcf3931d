"""Pure. Remembers what a converge left behind, to tell drift (somebody else's doing) from a change of what is wanted.

Nothing is decided from it but a count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from overlay import ops as do
from overlay.diff import is_port_device
from overlay.parts import Focus, Part, within
from overlay.state import NetworkId, bridge_device, port_device, vxlan_device
from overlay.topology import LegEnd, Link, Neighbour, ObservedState, Tables

_V = TypeVar("_V")


@dataclass(slots=True)
class _Entries:
    """The tables of one network, for changing in place: a part of a large table costs no copy of it."""

    forwarding: dict[str, str]
    tunnel: dict[str, str]
    floods: frozenset[str]
    neighbours: dict[str, Neighbour]
    chases: frozenset[str]

    @classmethod
    def of(cls, tables: Tables) -> _Entries:
        return cls(dict(tables.forwarding), dict(tables.tunnel), tables.floods, dict(tables.neighbours), tables.chases)

    def view(self) -> Tables:
        return Tables(self.forwarding, self.tunnel, self.floods, self.neighbours, self.chases)


@dataclass(slots=True)
class Left:
    """What the kernel showed when the last converge of each thing was done."""

    _links: dict[str, Link] = field(default_factory=dict)
    _tables: dict[NetworkId, _Entries] = field(default_factory=dict)
    _host_ports: set[str] = field(default_factory=set)
    _services: Mapping[str, Mapping[str, LegEnd]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._links or self._host_ports or self._services)

    def is_at(self, device: str) -> str:
        """The bridge that a device was in, or empty."""
        return link.master if (link := self._links.get(device)) else ""

    def note(self, observed: ObservedState, focus: Focus | None) -> None:
        """Takes over what a look at everything, or at a focus, showed."""
        if focus is None:
            self._links = dict(observed.links)
            self._tables = {id: _Entries.of(tables) for id, tables in observed.tables.items()}
            self._host_ports = set(observed.host_ports)
            self._services = observed.services
            return
        whole = {id for id, part in focus.items() if part is None}
        if whole:
            ours = {bridge_device(id) for id in whole} | {vxlan_device(id) for id in whole}
            self._links = {n: link for n, link in self._links.items() if n not in ours and link.master not in ours}
            self._services = observed.services
        for id, part in focus.items():
            self._note(id, part, observed)
        self._links.update(observed.links)
        self._host_ports |= observed.host_ports

    def flooded(self, ops: Iterable[do.PutFlood | do.DropFlood]) -> None:
        """Notes steps that no look at a part can show."""
        for op in ops:
            if (entries := self._tables.get(NetworkId(op.name.removeprefix("vx")))) is not None:
                entries.floods = entries.floods - {op.vtep} | ({op.vtep} if isinstance(op, do.PutFlood) else set())

    def before(self, observed: ObservedState, focus: Focus | None) -> ObservedState:
        """What the same look would have shown when we left, with devices that came since: they are no drift."""
        if focus is None or None in focus.values():
            links, tables = self._links, {id: entries.view() for id, entries in self._tables.items()}
        else:
            seen = [name for name in (*observed.links, *_devices(focus)) if name in self._links]
            links = {name: self._links[name] for name in seen}
            tables = {
                id: within(self._tables[id].view(), part) for id, part in focus.items() if part and id in self._tables
            }
        # whether a tap is open is its hypervisor's business, and what follows from that no drift
        held = {n: observed.links[n].idle for n in links.keys() & observed.links.keys()}
        links = {**links, **{n: replace(links[n], idle=idle) for n, idle in held.items() if links[n].idle != idle}}
        arrived = {n: link for n, link in observed.links.items() if is_port_device(n) and n not in self._links}
        return ObservedState(
            links={**links, **arrived},
            tables=tables,
            host_ports=observed.host_ports | self._host_ports,
            services=self._services,
        )

    def _note(self, id: NetworkId, part: Part | None, observed: ObservedState) -> None:
        seen = observed.tables.get(id)
        if part is None or id not in self._tables:
            if seen is None:
                self._tables.pop(id, None)
            else:
                self._tables[id] = _Entries.of(seen)
            return
        for port in part.ports:
            self._links.pop(port_device(port), None)
        entries, shown = self._tables[id], within(seen or Tables(), part)
        _patch(entries.forwarding, part.macs, shown.forwarding)
        _patch(entries.tunnel, part.macs, shown.tunnel)
        _patch(entries.neighbours, part.addresses, shown.neighbours)
        entries.chases = (entries.chases - part.chases) | shown.chases


def _devices(focus: Focus) -> list[str]:
    ports = [port_device(port) for part in focus.values() if part for port in part.ports]
    return ports + [f(id) for id in focus for f in (bridge_device, vxlan_device)]


def _patch(entries: dict[str, _V], keys: Iterable[str], shown: Mapping[str, _V]) -> None:
    for key in keys:
        entries.pop(key, None)
    entries.update(shown)
