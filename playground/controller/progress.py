"""How far playgrounds are from what was asked of them, kept by the change: a poll costs what has changed, and what is
not yet so.

`whole` reads everything anew, and is the test's oracle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from overlay.mac import slaac_address
from playground.controller.status import Json, lingering, natural, port_state, seen_of, workspace_state
from playground.controller.world import Grid, World
from playground.gateways import DRIVER, gateway_name, object_name
from playground.placement import may_be_on
from playground.records import (
    SITE_POLICIES,
    AliveRecord,
    BindingRecord,
    ClaimRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    ObservedPort,
    ObservedWorkspace,
    PoliciesRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
)

Said = tuple[str, str]
"""(object, cause)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One workspace and its ports: whether it is as asked, how many ports forward and have served their clients, and
    what is still waited for, or has failed. legs: of a gateway, which is waited for and not counted."""

    is_running: bool
    forwarding: int
    leased: int
    waiting: tuple[Said, ...]
    failed: tuple[Said, ...]
    legs: int = 0


def standing_of(world: World, playground: str, name: str) -> Standing | None:
    """From nothing but the world; None when nothing is asked of a workspace, and nothing of it is left."""
    grid = world.grids[playground]
    if (workspace := grid.workspaces.get(name)) is not None:
        return _standing(world, grid, workspace)
    hosts = sorted(world.observed_workspaces.get((playground, name), {}).keys() & world.alive.keys())
    if not hosts:
        return None
    waiting = tuple((object_name(name), f"host {host} is ending it") for host in hosts)
    return Standing(False, 0, 0, waiting, ())


def _standing(world: World, grid: Grid, workspace: WorkspaceRecord) -> Standing:
    waiting: list[Said] = []
    failed: list[Said] = []
    is_running = False
    label = object_name(workspace.name)
    state, cause = workspace_state(world, workspace)
    placed = world.hosts.get(workspace.host or "")
    if placed is not None and not may_be_on(workspace, placed):
        (failed if workspace.reason else waiting).append((label, workspace.reason or f"moves off {placed.name}"))
    elif state == workspace.desired:
        is_running = True
    else:
        (failed if state in ("failed", "unknown", "suspended") else waiting).append((label, cause or state))
    forwarding = leased = 0
    gateway = gateway_name(workspace.name)
    for port in (grid.ports[id] for id in workspace.ports if id in grid.ports):
        _, state, cause = port_state(world, grid, port)
        label = f"port {port.workspace}.{port.network}" if gateway is None else f"gateway {gateway} on {port.network}"
        if state in ("forwarding", "stopped"):
            forwarding += 1
        else:
            (failed if state == "failed" else waiting).append((label, cause or state))
        if _is_served(world, grid, port, workspace):
            leased += 1
        elif state == "forwarding":
            waiting.append((label, "its client has not taken its addresses yet"))
    if gateway is not None:
        return Standing(False, 0, 0, tuple(waiting), tuple(failed), len(workspace.ports))
    return Standing(is_running, forwarding, leased, tuple(waiting), tuple(failed))


def _is_served(world: World, grid: Grid, port: PortRecord, owner: WorkspaceRecord) -> bool:
    """Whether a port's client has taken all its addresses: by DHCP, or formed from an advertised prefix."""
    if owner.desired != "running" or owner.driver in ("external", DRIVER):
        return True
    binding = grid.bindings.get(port.id)
    seen = seen_of(world, binding) if binding else None
    if binding is None or seen is None:
        return False
    return all(_has_instead(port, address, binding.learned) for address in {*port.addresses} - {*seen.leased})


def _has_instead(port: PortRecord, address: str, learned: tuple[str, ...]) -> bool:
    """Whether a client formed another address than the one made of its MAC (RFC 7217), in the same prefix."""
    if ":" not in address:
        return False
    prefix = ip_network((address, 64), strict=False)
    return address == slaac_address(str(prefix), port.mac) and any(ip_address(one) in prefix for one in learned)


@dataclass(slots=True)
class _Kept:
    """One playground's standings, their sums, those that are not as asked, and the revision of its last network, port,
    binding or change of policies."""

    standings: dict[str, Standing] = field(default_factory=dict)
    running: int = 0
    forwarding: int = 0
    leased: int = 0
    gateways: int = 0
    legs: int = 0
    behind: dict[str, Standing] = field(default_factory=dict)
    newest: int = 0
    is_begun: bool = False

    def put(self, name: str, standing: Standing | None) -> None:
        before = self.standings.pop(name, None)
        self.behind.pop(name, None)
        for one, sign in ((before, -1), (standing, 1)):
            if one is not None:
                self.running += sign * one.is_running
                self.forwarding += sign * one.forwarding
                self.leased += sign * one.leased
                self.gateways += sign * (one.legs > 0)
                self.legs += sign * one.legs
        if standing is not None:
            self.standings[name] = standing
            if standing.waiting or standing.failed:
                self.behind[name] = standing


class Progress:
    """Every playground of a world."""

    def __init__(self, world: World, is_written: Callable[[str], bool]) -> None:
        """is_written: whether all that a playground's accepted file means is in the world."""
        self._world = world
        self._is_written = is_written
        self._kept: dict[str, _Kept] = defaultdict(_Kept)
        self._stale: dict[str, set[str]] = defaultdict(set)
        self._changed([(key, None, record) for key, (record, _) in world.items.items()], world.revision)
        world.listen(self._changed)

    def of(self, name: str) -> Json:
        """How far a playground is: every workspace running, every port forwarding, every client served, every live host
        converged."""
        world = self._world
        grid = world.grids.get(name)
        if grid is None or name not in world.playgrounds():
            self._kept.pop(name, None)
            self._stale.pop(name, None)
            return _removed(name, lingering(world, name))
        kept = self._kept[name]
        if not kept.is_begun:
            kept.is_begun = True
            self._stale[name].update(grid.workspaces)
            self._stale[name].update(workspace for owner, workspace in world.observed_workspaces if owner == name)
        for workspace in self._stale.pop(name, ()):
            kept.put(workspace, standing_of(world, name, workspace))
        return _progress(world, name, grid, kept, self._is_written(name))

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for key, before, after in changes:
            for record in (before, after):
                match record:
                    case WorkspaceRecord():
                        self._stale[record.playground].add(record.name)
                    case PortRecord() | BindingRecord() | MigrationRecord():
                        self._stale[record.playground].add(record.workspace)
                    case ObservedWorkspace() if record.playground in self._world.grids:  # a host may say any name
                        self._stale[record.playground].add(record.workspace)
                    case ObservedPort():
                        self._port(record.port)
                    case ClaimRecord() if record.previous:  # whoever waits for that address may go on
                        self._stale[record.playground].update(self._kept[record.playground].behind)
                    case AliveRecord():
                        self._host(record.host)
                    case HostRecord():
                        self._host(record.name)
                    case _:
                        pass
            if isinstance(after, NetworkRecord | PortRecord | BindingRecord | PoliciesRecord):
                kept = self._kept[after.playground]
                kept.newest = max(kept.newest, self._world.modified(key))

    def _port(self, id: str) -> None:
        """Something about a port has changed. Whoever waits for the address of one that is gone may go on."""
        home = self._world.homes.get(id)
        if home is not None:
            self._stale[home].add(self._world.grids[home].ports[id].workspace)
            return
        for playground, kept in self._kept.items():
            self._stale[playground].update(kept.behind)

    def _host(self, host: str) -> None:
        for playground, workspace in self._world.observed_workspaces:
            grid = self._world.grids.get(playground)
            if grid is not None and workspace not in grid.workspaces:
                self._stale[playground].add(workspace)
        for playground in self._world.ties.playgrounds(host):
            grid = self._world.grids[playground]
            self._stale[playground].update(w.name for w in grid.workspaces.values() if w.host == host)
            self._stale[playground].update(b.workspace for b in grid.bindings.values() if b.active == host)


def whole(world: World, name: str, is_written: bool = True) -> Json:
    """What `Progress.of` says, from nothing but the world."""
    grid = world.grids.get(name)
    if grid is None or name not in world.playgrounds():
        return _removed(name, lingering(world, name))
    kept = _Kept()
    left = {workspace for playground, workspace in world.observed_workspaces if playground == name}
    for workspace in grid.workspaces.keys() | left:
        kept.put(workspace, standing_of(world, name, workspace))
    records: list[Record] = [*grid.networks.values(), *grid.ports.values(), *grid.bindings.values()]
    modified = (world.compare(record).modified for record in records)
    kept.newest = max((world.modified(f"policies/{name}"), *modified))
    return _progress(world, name, grid, kept, is_written)


def _removed(name: str, left: list[Json]) -> Json:
    return {
        "name": name,
        "converged": False,
        "removed": not left,
        "workspaces": {"total": 0, "running": 0},
        "ports": {"total": 0, "forwarding": 0, "leased": 0},
        "waiting": left,
        "failed": [],
    }


def _progress(world: World, name: str, grid: Grid, kept: _Kept, is_written: bool) -> Json:
    behind = [kept.behind[workspace] for workspace in sorted(kept.behind, key=natural)]
    waiting = _objects(said for standing in behind for said in standing.waiting)
    failed = _objects(said for standing in behind for said in standing.failed)
    newest = max(kept.newest, world.modified(f"policies/{SITE_POLICIES}"))
    if grid.root is not None and not waiting and not failed:
        for host in sorted(world.ties.hosts(name)):
            seen = world.observed_hosts.get(host)
            if host in world.alive and (seen is None or seen.applied < newest):
                waiting.append({"object": f"host {host}", "cause": "has not converged to the last change yet"})
    under_way = not is_written or any(c.playground == name for c in world.changes.values())
    present = grid.root is not None and grid.root.state == "present" and not under_way
    return {
        "name": name,
        "converged": present and not waiting and not failed,
        "removed": False,
        "workspaces": {"total": len(grid.workspaces) - kept.gateways, "running": kept.running},
        "ports": {"total": len(grid.ports) - kept.legs, "forwarding": kept.forwarding, "leased": kept.leased},
        "waiting": waiting,
        "failed": failed,
    }


def _objects(said: Iterable[Said]) -> list[Json]:
    return [{"object": object, "cause": cause} for object, cause in said]
