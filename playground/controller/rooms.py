"""How full each host is, and which workspaces wait for something, kept by the change.

What the placing loop would find by looking at every record; it looks at these instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from playground.controller.world import World
from playground.placement import HostView
from playground.records import (
    AliveRecord,
    BindingRecord,
    HostRecord,
    MigrationRecord,
    ObservedHost,
    PlaygroundRecord,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
)

_MICRO = 1_000_000
"""Declared cpus are decimal fractions; whole millionths add and subtract without a rest."""

Name = tuple[str, str]
"""(playground, workspace)."""


@dataclass(slots=True)
class _Used:
    micro_cpus: int = 0
    memory_mib: int = 0
    placed: Counter[str] = field(default_factory=Counter)

    def add(self, workspace: WorkspaceRecord, sign: int) -> None:
        self.micro_cpus += sign * round(workspace.cpus * _MICRO)
        self.memory_mib += sign * workspace.memory_mib
        self.placed[workspace.playground] += sign
        if not self.placed[workspace.playground]:
            del self.placed[workspace.playground]


class Rooms:
    """unplaced: workspaces without a host. unbound: those of which a port may lack its binding. unsettled: those that
    may be where their pin does not allow them. Each may hold more than is so, never less; whoever has looked takes out
    what isn't.

    version grows whenever a workspace that found no host might find one.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._used: dict[str, _Used] = defaultdict(_Used)
        self.unplaced: set[Name] = set()
        self.unbound: set[Name] = set()
        self.unsettled: set[Name] = set()
        self.version = 0
        for record, _ in world.items.values():
            self._note(None, record)
        self.close: Callable[[], None] = world.listen(self._changed)

    def views(self) -> list[HostView]:
        """Every host with what is placed on it, by name."""
        found = []
        for name, record in sorted(self._world.hosts.items()):
            used = self._used[name]
            is_up = name in self._world.alive
            seen = self._world.observed_hosts.get(name)
            cannot_police = seen.cannot_police if seen is not None else ""
            placed = dict(used.placed)
            found.append(HostView(record, is_up, used.micro_cpus / _MICRO, used.memory_mib, placed, cannot_police))
        return found

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
                self.unsettled.add((record.playground, record.workspace))
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
        for workspace, sign in ((before, -1), (after, 1)):
            if isinstance(workspace, WorkspaceRecord) and workspace.host is not None:
                self._used[workspace.host].add(workspace, sign)
        if isinstance(before, WorkspaceRecord) and before.host is not None:
            self.version += 1  # there may be room now
        if isinstance(after, WorkspaceRecord):
            (self.unplaced if after.host is None else self.unbound).add(name)
            self.unsettled.add(name)

    def _reconsider_pins(self, before: Record | None, after: Record | None) -> None:
        """A host's labels say which pins allow it."""
        was = before.labels if isinstance(before, HostRecord) else None
        now = after.labels if isinstance(after, HostRecord) else None
        if was != now:
            for playground, grid in self._world.grids.items():
                self.unsettled.update((playground, name) for name in grid.workspaces)


def _cannot_police(seen: Record | None) -> str:
    return seen.cannot_police if isinstance(seen, ObservedHost) else ""


def _state(root: Record | None) -> str | None:
    return root.state if isinstance(root, PlaygroundRecord) else None
