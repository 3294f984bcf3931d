"""What each host is shown of the world: which scopes concern it, which records are in them, and what a batch of changes
means for it.

A view is a function of the world (`scopes_of`, `records_in`); a session that has been sent one keeps it equal by what
was touched since (`Touched`), at the cost of that alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from playground.controller.ties import ends
from playground.controller.world import World, givers
from playground.records import (
    SITE_POLICIES,
    BindingRecord,
    DynamicRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    ObservedWorkspace,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
    key_of,
)
from playground.view import SITE, host_scope, playground_scope
from playground.wire import Changed, Enter, Leave, Viewed


def public(host: HostRecord) -> HostRecord:
    """What other hosts may know of a host."""
    return HostRecord(name=host.name, site=host.site, underlay=host.underlay, underlay_mtu=host.underlay_mtu)


def scopes_of(world: World, host: str) -> set[str]:
    """The scopes that concern a host: the site, itself, and each playground that it carries or will carry a port of."""
    return {SITE, host_scope(host), *map(playground_scope, world.ties.playgrounds(host))}


def records_in(world: World, host: str, scope: str) -> list[Viewed]:
    """Every record of one scope as one host may see it."""
    if scope == SITE:
        held = world.withheld.get(SITE_POLICIES)
        return [*map(public, world.hosts.values()), *(held.records if held else world.site_policies).values()]
    if scope != host_scope(host):
        grid = world.grids.get(scope.removeprefix("playground/"))
        if grid is None:
            return []
        withheld = world.withheld.get(scope.removeprefix("playground/"))
        shown = withheld.records.values() if withheld else (*grid.policies.values(), *grid.ports.values())
        return [*grid.networks.values(), *shown, *grid.bindings.values(), *grid.dynamics.values()]
    found: list[Viewed] = []
    for playground, names in world.ties.concerned.get(host, {}).items():
        grid = world.grids[playground]
        for name in names:
            found.append(grid.workspaces[name])
            move = grid.migrations.get(name)
            if move is not None and host in (move.source, move.target):
                found.append(move)
    return found


@dataclass(slots=True)
class Touched:
    """What may differ in views since they were last compared.

    keys: of records, by the scope that has them. tied: (host, playground) where a port's binding came or went.
    workspaces: (playground, name) of those whose records, hosts or moves changed.
    """

    keys: dict[str, set[str]] = field(default_factory=dict)
    tied: set[tuple[str, str]] = field(default_factory=set)
    workspaces: set[tuple[str, str]] = field(default_factory=set)

    def add(self, key: str, before: Record | None, after: Record | None) -> None:
        """Notes a change of the world."""
        match after if after is not None else before:
            case HostRecord():
                self.keys.setdefault(SITE, set()).add(key)
            case PolicyRecord() as record if record.playground == SITE_POLICIES:
                self.keys.setdefault(SITE, set()).add(key)
            case NetworkRecord() | PortRecord() | PolicyRecord() as record:
                self.keys.setdefault(playground_scope(record.playground), set()).add(key)
            case BindingRecord() as record:
                self.keys.setdefault(playground_scope(record.playground), set()).add(key)
                for binding in (before, after):
                    if isinstance(binding, BindingRecord):
                        self.tied.update((host, record.playground) for host in ends(binding))
            case DynamicRecord() as record:
                self.keys.setdefault(playground_scope(record.playground), set()).add(key)
                self.tied.update((host, record.playground) for host in givers(before) | givers(after))
            case WorkspaceRecord() as record:
                self.workspaces.add((record.playground, record.name))
            case MigrationRecord() as record:
                self.workspaces.add((record.playground, record.workspace))
            case ObservedWorkspace() as record if before is None or after is None:
                # what a host holds decides what it is shown; what it says of it does not
                self.workspaces.add((record.playground, record.workspace))
            case _:
                pass

    def __bool__(self) -> bool:
        return bool(self.keys or self.tied or self.workspaces)


@dataclass(slots=True)
class Shown:
    """What one host has been sent: records by scope and key; and what of it may not be true any more."""

    host: str
    sent: dict[str, dict[str, Viewed]] = field(default_factory=dict)
    _keys: dict[str, set[str]] = field(default_factory=dict)
    _playgrounds: set[str] = field(default_factory=set)

    def note(self, world: World, touched: Touched) -> bool:
        """Takes what a batch touched; whether this host may have to be told something."""
        for scope in touched.keys.keys() & self.sent.keys():
            self._keys.setdefault(scope, set()).update(touched.keys[scope])
        self._playgrounds.update(playground for host, playground in touched.tied if host == self.host)
        own = self.sent.get(host_scope(self.host), {})
        for playground, name in touched.workspaces:
            key = f"workspace/{playground}/{name}"
            if key in own or world.ties.does_concern(self.host, playground, name):
                self._keys.setdefault(host_scope(self.host), set()).update((key, f"migration/{playground}/{name}"))
                self._playgrounds.add(playground)
        return bool(self._keys or self._playgrounds)

    def whole(self, world: World) -> list[Enter]:
        """Everything, as to a host that has nothing."""
        self._keys, self._playgrounds = {}, set()
        self.sent = {}
        return [self._enter(world, scope) for scope in sorted(scopes_of(world, self.host))]

    def difference(self, world: World) -> list[Enter | Changed | Leave]:
        """What has to be said for the view to be the world's; nothing when what was touched is as it was sent."""
        touched, playgrounds = self._keys, self._playgrounds
        self._keys, self._playgrounds = {}, set()
        leaves: list[Enter | Changed | Leave] = []
        said: list[Enter | Changed | Leave] = []
        for playground in sorted(playgrounds):
            scope = playground_scope(playground)
            takes_part = world.ties.takes_part(self.host, playground)
            if takes_part and scope not in self.sent:
                said.append(self._enter(world, scope))
                touched.pop(scope, None)
            elif not takes_part and self.sent.pop(scope, None) is not None:
                leaves.append(Leave(scope))
        for scope in sorted(touched.keys() & self.sent.keys()):
            sent = self.sent[scope]
            puts: list[Viewed] = []
            deletes: list[str] = []
            for key in sorted(touched[scope]):
                now = self._visible(world, key)
                if now is None and sent.pop(key, None) is not None:
                    deletes.append(key)
                elif now is not None and sent.get(key) != now:
                    sent[key] = now
                    puts.append(now)
            if puts or deletes:
                said.append(Changed(scope, self.revision(world), puts, deletes))
        return leaves + said

    def revision(self, world: World) -> int:
        """Up to which revision what was said is all that there is for this host."""
        held = [
            one.revision
            for name, one in world.withheld.items()
            if name == SITE_POLICIES or world.ties.takes_part(self.host, name)
        ]
        return min((world.revision, *held))

    def _enter(self, world: World, scope: str) -> Enter:
        now = {key_of(record): record for record in records_in(world, self.host, scope)}
        self.sent[scope] = now
        return Enter(scope, self.revision(world), list(now.values()))

    def _visible(self, world: World, key: str) -> Viewed | None:
        """The record under a key of a scope that the host has, as it may see it."""
        for withheld in world.withheld.values():
            if key in withheld.records:
                return withheld.records[key]
        found = world.items.get(key)
        match found[0] if found else None:
            case HostRecord() as record:
                return public(record)
            case WorkspaceRecord() as record:
                return record if world.ties.does_concern(self.host, record.playground, record.name) else None
            case MigrationRecord() as record:
                concerns = world.ties.does_concern(self.host, record.playground, record.workspace)
                return record if concerns and self.host in (record.source, record.target) else None
            case NetworkRecord() | BindingRecord() | DynamicRecord() as record:
                return record
            case PortRecord() | PolicyRecord() as record:
                return None if record.playground in world.withheld else record
            case _:
                return None
