"""Gives workspaces without a host one, and ports without a binding theirs; `playground.placement` decides, this
commits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from playground.admit import Admission
from playground.controller.events import EventLog
from playground.controller.moves import Moves, Refused
from playground.controller.rooms import Name, Rooms
from playground.controller.world import World
from playground.gateways import gateway_name, object_name
from playground.manner import PLAIN, Manner
from playground.placement import HostView, Refusal, may_be_on, no_room_beside, place
from playground.records import BindingRecord, PortRecord, WorkspaceRecord, encode, key_of
from playground.store.api import Change, Compare, Conflict, Delete, Put, Store
from playground.workspaces.migration import ENDED, State

log = logging.getLogger("controller")

BATCH = 50
"""Operations a commit, compares included, below every engine's limit."""

TOLD = 10
"""So many workspaces that find no host at a time are events each."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """By workspace, why. unplaced: those that would wait for a host; overfull: those that stay where there is less than
    they are to take, the host named first."""

    unplaced: Mapping[str, str]
    overfull: Mapping[str, str]


class Placing:
    """The placement loop. A pass costs what waits for something, not what there is."""

    def __init__(self, store: Store, world: World, moves: Moves, events: EventLog) -> None:
        self._store = store
        self._world = world
        self._moves = moves
        self._events = events
        self._rooms = Rooms(world)
        self.deciding = asyncio.Lock()
        """Held from a look at the rooms until what was decided by it is in the store, or `held_for`."""
        self._refused: dict[Name, tuple[int, WorkspaceRecord]] = {}
        """Workspaces that found no host, as they were, and the version of the rooms that had none for them."""

    def views(self) -> list[HostView]:
        """Every host with what is placed on it."""
        return self._rooms.views()

    def elsewhere(self, workspace: WorkspaceRecord, barred: Mapping[str, str] = MappingProxyType({})) -> str | Refusal:
        """The host that one would go to which has to leave its own. barred: hosts that will not do, and why."""
        policed = {workspace.playground} if self._world.is_policed(workspace.playground) else set[str]()
        return place([workspace], self._rooms.views(), policed, barred)[workspace.playground, workspace.name]

    def held_for(self, name: Name, host: str) -> AbstractContextManager[None]:
        """Keeps room of a host for a workspace that is about to be moved there."""
        return self._rooms.held_for(name, host)

    async def move(self, workspace: WorkspaceRecord, target: str) -> str:
        """Has one moved that was placed elsewhere; disks that its host has made go along where both hosts don't see the
        same. Why that is refused, "" when it isn't."""
        cause = ""
        for manner in (PLAIN, Manner(copy_storage=True)) if has_own_disks(workspace) else (PLAIN,):
            try:
                await self._moves.request(workspace, target, measure=False, by_hand=False, manner=manner)
                return ""
            except Refused as error:
                cause = "; ".join(str(error).splitlines())
        return cause

    def foresee(self, admission: Admission, is_policed: bool) -> Foreseen:
        """What hosts would have no room for once a change is admitted. is_policed: as it would be."""
        puts = [record for record in admission.puts if isinstance(record, WorkspaceRecord)]
        instead: dict[Name, WorkspaceRecord | None] = {(record.playground, record.name): record for record in puts}
        for key in admission.deletes:
            if key.startswith("workspace/"):
                _, playground, name = key.split("/")
                instead[playground, name] = None
        hosts = self._world.hosts
        waiting = [one for one in puts if one.host not in hosts or not may_be_on(one, hosts[one.host])]
        policed = {one.playground for one in waiting if is_policed}
        views = self._rooms.views(instead)
        answers = place(waiting, views, policed)
        unplaced = {name: answer.reason for (_, name), answer in answers.items() if isinstance(answer, Refusal)}
        moves = {one.name for one in waiting}
        stays = {one.name: one for one in puts if one.name not in moves and self._grows(one)}
        by_host = {view.record.name: view for view in views}
        lacks = {name: no_room_beside(one, by_host[one.host]) for name, one in stays.items() if one.host in by_host}
        return Foreseen(unplaced, {name: f"{stays[name].host}: {lack}" for name, lack in lacks.items() if lack})

    def _grows(self, workspace: WorkspaceRecord) -> bool:
        """Whether it is to take more than it does now, where it is."""
        now = self._world.workspace(workspace.playground, workspace.name)
        return now is not None and (workspace.cpus > now.cpus or workspace.memory_mib > now.memory_mib)

    async def run(self) -> None:
        """Places for ever, after each change of the world."""
        while True:
            revision = self._world.revision
            if not await self.once():
                await self._world.moved(revision)

    async def once(self) -> bool:
        """One pass over everything that waits; true when something was committed."""
        async with self.deciding:
            committed = await self._place()
        return await self._bind() or await self._obey_pins() or committed

    async def _place(self) -> bool:
        committed = False
        updates: list[WorkspaceRecord] = []
        refused: list[WorkspaceRecord] = []
        if unplaced := self._unplaced():
            version = self._rooms.version
            for name, answer in self._placed(list(unplaced.values())).items():
                workspace = unplaced[name]
                if not isinstance(answer, Refusal):
                    number = self._world.revision + 1  # as moves are counted: later than any that it may have made
                    updates.append(msgspec.structs.replace(workspace, host=answer, placed=number, reason=""))
                elif workspace.reason != answer.reason:
                    updates.append(msgspec.structs.replace(workspace, reason=answer.reason))
                    refused += [] if workspace.reason else updates[-1:]
                else:
                    self._refused[name] = (version, workspace)
        batch: tuple[list[Compare], list[Change]] = ([], [])
        for workspace in updates:
            batch[0].append(self._world.compare(workspace))
            batch[1].append(Put(key_of(workspace), encode(workspace)))
            if len(batch[0]) + len(batch[1]) >= BATCH:
                committed |= await self._commit(*batch)
                batch = ([], [])
        if batch[1]:
            committed |= await self._commit(*batch)
        self._tell(refused)
        return committed

    def _tell(self, refused: Sequence[WorkspaceRecord]) -> None:
        """Tells people of workspaces that wait for a host from now on."""
        for one in refused[:TOLD]:
            self._events.add("unplaced", _object(one), one.reason)
        if more := refused[TOLD:]:
            count = f"{len(more)} more workspaces find no host"
            self._events.add(
                "unplaced", f"playground {more[0].playground}", f"{count}, as {more[0].name}: {more[0].reason}"
            )

    def _placed(self, workspaces: list[WorkspaceRecord]) -> dict[Name, str | Refusal]:
        policed = {workspace.playground for workspace in workspaces if self._world.is_policed(workspace.playground)}
        return place(workspaces, self._rooms.views(), policed)

    def _unplaced(self) -> dict[Name, WorkspaceRecord]:
        """Workspaces to be placed now: those that have no host, unless nothing has changed since none would do."""
        found: dict[Name, WorkspaceRecord] = {}
        for name in sorted(self._rooms.unplaced):
            workspace = self._world.workspace(*name)
            if workspace is None or workspace.host is not None:
                self._rooms.unplaced.discard(name)
                self._refused.pop(name, None)
                continue
            root = self._world.grids[name[0]].root
            if (
                root is not None
                and root.state == "present"
                and self._refused.get(name)
                != (
                    self._rooms.version,
                    workspace,
                )
            ):
                found[name] = workspace
        return found

    async def _obey_pins(self) -> bool:
        """A workspace on a host that its pin does not allow (any more) moves; a stopped one is placed anew."""
        committed = False
        for name in sorted(self._rooms.unsettled):
            workspace = self._world.workspace(*name)
            host = self._world.hosts.get(workspace.host or "") if workspace is not None else None
            is_gateway = gateway_name(name[1]) is not None  # handed over, never moved
            if workspace is None or host is None or is_gateway or may_be_on(workspace, host):
                self._rooms.unsettled.discard(name)
                continue
            move = self._world.grids[name[0]].migrations.get(name[1])
            if move and State(move.state) not in ENDED:
                continue
            async with self.deciding:
                answer = self.elsewhere(workspace)
            if isinstance(answer, Refusal):
                committed |= await self._explain(workspace, answer.reason)
            elif workspace.desired == "stopped" and has_own_disks(workspace):
                committed |= await self._explain(workspace, f"it is stopped, and its disks are there; {TO_START}")
            elif workspace.desired == "stopped":
                committed |= await self.unplace(workspace)
            else:
                with self.held_for(name, answer):
                    cause = await self.move(workspace, answer)
                committed |= await self._explain(workspace, cause) if cause else True
        return committed

    async def _explain(self, workspace: WorkspaceRecord, reason: str) -> bool:
        reason = f"it is on {workspace.host}, which host: {workspace.pin} does not allow: {reason}"
        if workspace.reason == reason:
            return False
        after = msgspec.structs.replace(workspace, reason=reason)
        return await self._commit([self._world.compare(workspace)], [Put(key_of(after), encode(after))])

    async def unplace(self, workspace: WorkspaceRecord) -> bool:
        """Has one that is stopped placed anew."""
        after = msgspec.structs.replace(workspace, host=None, generation=workspace.generation + 1)
        bindings = [Delete(f"claim/active/{port}") for port in workspace.ports]
        return await self._commit([self._world.compare(workspace)], [Put(key_of(after), encode(after)), *bindings])

    async def _bind(self) -> bool:
        """Every port of a placed workspace has a binding: created once, so only one host can ever carry it."""
        committed = False
        batch: tuple[list[Compare], list[Change]] = ([], [])
        for name in sorted(self._rooms.unbound):
            workspace = self._world.workspace(*name)
            if workspace is None or workspace.host is None:
                self._rooms.unbound.discard(name)
                continue
            bindings, waits = self._missing(workspace, workspace.host)
            if not (bindings or waits):
                self._rooms.unbound.discard(name)
            for binding, port in bindings:
                batch[0].extend([Compare(key_of(binding), 0), self._world.compare(port)])
                batch[1].append(Put(key_of(binding), encode(binding)))
                if len(batch[0]) + len(batch[1]) >= BATCH:
                    committed |= await self._commit(*batch)
                    batch = ([], [])
        if batch[1]:
            committed |= await self._commit(*batch)
        return committed

    def _missing(self, workspace: WorkspaceRecord, host: str) -> tuple[list[tuple[BindingRecord, PortRecord]], bool]:
        """The bindings that a workspace's ports lack, and whether one has to wait: for its record, or for another port
        to let its address go."""
        grid = self._world.grids[workspace.playground]
        found: list[tuple[BindingRecord, PortRecord]] = []
        waits = False
        for id in workspace.ports:
            port = grid.ports.get(id)
            if id in grid.bindings:
                continue
            if port is None or self._world.holder(port):
                waits = True
                continue
            binding = BindingRecord(
                port=id, playground=workspace.playground, workspace=workspace.name, active=host, source=host
            )
            found.append((binding, port))
        return found, waits

    async def _commit(self, compares: list[Compare], changes: list[Change]) -> bool:
        result = await self._store.commit(compares, changes)
        if isinstance(result, Conflict):
            # somebody changed a workspace in between: the next pass sees it
            await asyncio.sleep(0)
            log.info("placement redone conflict=%s", result.keys[:3])
            return True
        await self._world.reached(result)
        return True


TO_START = "start it, then it can move"
"""Placed anew, a machine would lose what it has written on disks of its host."""


def has_own_disks(workspace: WorkspaceRecord) -> bool:
    """Whether its host has made disks for it."""
    return workspace.machine is not None and any(not disk.path for disk in workspace.machine.disks)


def _object(workspace: WorkspaceRecord) -> str:
    kind, _, name = object_name(workspace.name).partition(" ")
    return f"{kind} {workspace.playground}/{name}"
