"""How full each host is, and which workspaces wait for something, kept by the change.

What the placing loop would find by looking at every record; it looks at these instead.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from types import MappingProxyType

from playground.controller.world import Grid, World
from playground.neighbourhood import Kind, kind_of
from playground.placement import HostView
from playground.records import (
    AliveRecord,
    BindingRecord,
    DrainRecord,
    HostRecord,
    MigrationRecord,
    ObservedHost,
    PlaygroundRecord,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
)
from playground.workspaces.migration import ENDED, State

_MICRO = 1_000_000
"""Declared cpus are decimal fractions; whole millionths add and subtract without a rest."""

Name = tuple[str, str]
"""(playground, workspace)."""


@dataclass(slots=True)
class _Used:
    micro_cpus: int = 0
    memory_mib: int = 0
    placed: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[Kind]] = field(default_factory=dict)

    def add(self, workspace: WorkspaceRecord, sign: int) -> None:
        self.micro_cpus += sign * round(workspace.cpus * _MICRO)
        self.memory_mib += sign * workspace.memory_mib
        kind = kind_of(workspace)
        self.placed[workspace.playground] += sign
        kinds = self.kinds.setdefault(workspace.playground, Counter())
        kinds[kind] += sign
        if not kinds[kind]:
            del kinds[kind]
        if not self.placed[workspace.playground]:
            del self.placed[workspace.playground], self.kinds[workspace.playground]


class Rooms:
    """unplaced: workspaces without a host. unbound: those of which a port may lack its binding. unsettled: those that
    may be where their pin does not allow them. Each may hold more than is so, never less; whoever has looked takes out
    what isn't.

    version grows whenever a workspace that found no host might find one. One that is being moved takes room at both
    ends.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._used: dict[str, _Used] = defaultdict(_Used)
        self._counted: dict[Name, tuple[WorkspaceRecord, frozenset[str]]] = {}
        """Where each workspace is counted, and as what."""
        self._held: dict[Name, str] = {}
        self.unplaced: set[Name] = set()
        self.unbound: set[Name] = set()
        self.unsettled: set[Name] = set()
        self.version = 0
        for record, _ in world.items.values():
            self._note(None, record)
        self.close: Callable[[], None] = world.listen(self._changed)

    def views(self, instead: Mapping[Name, WorkspaceRecord | None] = MappingProxyType({})) -> list[HostView]:
        """Every host with what is placed on it, by name. instead: what these workspaces would be, None for gone."""
        changed = self._if(instead)
        found = []
        for name, record in sorted(self._world.hosts.items()):
            used = changed.get(name) or self._used[name]
            is_up = name in self._world.alive
            seen = self._world.observed_hosts.get(name)
            cannot_police = seen.cannot_police if seen is not None else ""
            found.append(
                HostView(
                    record,
                    is_up,
                    used.micro_cpus / _MICRO,
                    used.memory_mib,
                    used.placed,
                    cannot_police,
                    used.kinds,
                    name in self._world.drains,
                )
            )
        return found

    def _if(self, instead: Mapping[Name, WorkspaceRecord | None]) -> dict[str, _Used]:
        """How full those hosts would be that it concerns."""
        found: dict[str, _Used] = {}

        def of(host: str) -> _Used:
            if host not in found:
                found[host] = deepcopy(self._used[host])
            return found[host]

        for name, workspace in instead.items():
            before, hosts = self._counted.get(name, (None, frozenset[str]()))
            for host in hosts:
                if before is not None:
                    of(host).add(before, -1)
            if workspace is not None and workspace.host is not None:
                of(workspace.host).add(workspace, 1)
        return found

    @contextlib.contextmanager
    def held_for(self, name: Name, host: str) -> Iterator[None]:
        """Keeps room of a host for a workspace that is about to be moved there."""
        self._held[name] = host
        self._count(name)
        try:
            yield
        finally:
            self._held.pop(name, None)
            self._count(name)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for _, before, after in changes:
            self._note(before, after)

    def _note(self, before: Record | None, after: Record | None) -> None:
        match after if after is not None else before:
            case WorkspaceRecord() as record:
                self._workspace(record, before, after)
            case PortRecord() | BindingRecord() as record:
                self.unbound.add((record.playground, record.workspace))
            case MigrationRecord() as record:
                name = (record.playground, record.workspace)
                self.unsettled.add(name)
                self._count(name)
            case DrainRecord():
                self.version += 1
            case HostRecord():
                self.version += 1
                self._reconsider_pins(before, after)
            case AliveRecord():
                self.version += 1
            case ObservedHost() if _cannot_police(before) != _cannot_police(after):
                self.version += 1
            case PolicyRecord():
                self.version += 1  # what had to be enforced may not have to be any more
            case PlaygroundRecord() as record if _state(before) != _state(after):
                grid = self._world.grids.get(record.name)
                self.unplaced.update((record.name, name) for name in (grid.workspaces if grid else ()))
                self.version += 1
            case _:
                pass

    def _workspace(self, record: WorkspaceRecord, before: Record | None, after: Record | None) -> None:
        name = (record.playground, record.name)
        self._count(name)
        if isinstance(after, WorkspaceRecord):
            (self.unplaced if after.host is None else self.unbound).add(name)
            self.unsettled.add(name)

    def _count(self, name: Name) -> None:
        """Counts a workspace as it is now."""
        workspace = self._world.workspace(*name)
        hosts = frozenset[str]()
        if workspace is not None:
            hosts = takes_room_of(self._world.grids[name[0]], workspace).union(filter(None, (self._held.get(name),)))
        before = self._counted.pop(name, None)
        after = (workspace, hosts) if workspace is not None and hosts else None
        for counted, sign in ((before, -1), (after, 1)):
            if counted is not None:
                for host in counted[1]:
                    self._used[host].add(counted[0], sign)
        if after is not None:
            self._counted[name] = after
        if _weight(before) != _weight(after):
            self.version += 1  # there may be room now, or whom another one follows

    def _reconsider_pins(self, before: Record | None, after: Record | None) -> None:
        """A host's labels say which pins allow it."""
        was = before.labels if isinstance(before, HostRecord) else None
        now = after.labels if isinstance(after, HostRecord) else None
        if was != now:
            for playground, grid in self._world.grids.items():
                self.unsettled.update((playground, name) for name in grid.workspaces)


def takes_room_of(grid: Grid, workspace: WorkspaceRecord) -> frozenset[str]:
    """Where a workspace is, and where it is being moved to."""
    move = grid.migrations.get(workspace.name)
    target = move.target if move is not None and State(move.state) not in ENDED else None
    return frozenset(filter(None, (workspace.host, target)))


def _weight(counted: tuple[WorkspaceRecord, frozenset[str]] | None) -> tuple[object, ...]:
    if counted is None:
        return ()
    workspace, hosts = counted
    return workspace.cpus, workspace.memory_mib, kind_of(workspace), hosts


def _cannot_police(seen: Record | None) -> str:
    return seen.cannot_police if isinstance(seen, ObservedHost) else ""


def _state(root: Record | None) -> str | None:
    return root.state if isinstance(root, PlaygroundRecord) else None
