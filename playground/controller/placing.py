"""Gives workspaces without a host one, and ports without a binding theirs; `playground.placement` decides, this
commits."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from playground.controller.moves import Moves, Refused
from playground.controller.world import World
from playground.placement import HostView, Refusal, may_be_on, place
from playground.records import BindingRecord, WorkspaceRecord, encode, key_of
from playground.store.api import Change, Compare, Conflict, Delete, Put, Store
from playground.workspaces.migration import ENDED, State

log = logging.getLogger("controller")

BATCH = 50
"""Operations a commit, compares included, below every engine's limit."""


def host_views(world: World) -> list[HostView]:
    """Every host with what is placed on it."""
    used: dict[str, list[WorkspaceRecord]] = {name: [] for name in world.hosts}
    for grid in world.grids.values():
        for workspace in grid.workspaces.values():
            if workspace.host in used:
                used[workspace.host].append(workspace)
    return [
        HostView(
            record=record,
            is_up=name in world.alive,
            used_cpus=sum(w.cpus for w in used[name]),
            used_memory_mib=sum(w.memory_mib for w in used[name]),
            workspaces=tuple((w.playground, w.name) for w in used[name]),
        )
        for name, record in sorted(world.hosts.items())
    ]


class Placing:
    """The placement loop."""

    def __init__(self, store: Store, world: World, moves: Moves) -> None:
        self._store = store
        self._world = world
        self._moves = moves

    async def run(self) -> None:
        """Places for ever, after each change of the world."""
        while True:
            revision = self._world.revision
            if not await self.once():
                await self._world.moved(revision)

    async def once(self) -> bool:
        """One pass over everything unplaced; true when something was committed."""
        committed = False
        unplaced = [
            w
            for grid in self._world.grids.values()
            if grid.root is not None and grid.root.state == "present"
            for w in grid.workspaces.values()
            if w.host is None
        ]
        updates: list[WorkspaceRecord] = []
        by_name = {(w.playground, w.name): w for w in unplaced}
        if unplaced:
            for key, answer in place(unplaced, host_views(self._world)).items():
                workspace = by_name[key]
                if isinstance(answer, Refusal):
                    if workspace.reason != answer.reason:
                        updates.append(msgspec.structs.replace(workspace, reason=answer.reason))
                else:
                    updates.append(msgspec.structs.replace(workspace, host=answer, reason=""))
        batch: tuple[list[Compare], list[Change]] = ([], [])
        for workspace in updates:
            batch[0].append(self._world.compare(workspace))
            batch[1].append(Put(key_of(workspace), encode(workspace)))
            if len(batch[0]) + len(batch[1]) >= BATCH:
                committed |= await self._commit(*batch)
                batch = ([], [])
        if batch[1]:
            committed |= await self._commit(*batch)
        return await self._bind() or await self._obey_pins() or committed

    async def _obey_pins(self) -> bool:
        """A workspace on a host that its pin does not allow (any more) moves; a stopped one is placed anew."""
        committed = False
        for grid in list(self._world.grids.values()):
            for workspace in list(grid.workspaces.values()):
                host = self._world.hosts.get(workspace.host or "")
                move = grid.migrations.get(workspace.name)
                if host is None or may_be_on(workspace, host) or (move and State(move.state) not in ENDED):
                    continue
                unplaced = msgspec.structs.replace(workspace, host=None)
                answer = place([unplaced], host_views(self._world))[workspace.playground, workspace.name]
                if isinstance(answer, Refusal):
                    committed |= await self._explain(workspace, answer.reason)
                elif workspace.desired == "stopped":
                    committed |= await self._unplace(workspace)
                else:
                    try:
                        await self._moves.request(workspace, answer, measure=False, by_hand=False)
                        committed = True
                    except Refused as error:
                        committed |= await self._explain(workspace, str(error))
        return committed

    async def _explain(self, workspace: WorkspaceRecord, reason: str) -> bool:
        reason = f"it is on {workspace.host}, which host: {workspace.pin} does not allow: {reason}"
        if workspace.reason == reason:
            return False
        after = msgspec.structs.replace(workspace, reason=reason)
        return await self._commit([self._world.compare(workspace)], [Put(key_of(after), encode(after))])

    async def _unplace(self, workspace: WorkspaceRecord) -> bool:
        after = msgspec.structs.replace(workspace, host=None, generation=workspace.generation + 1)
        bindings = [Delete(f"claim/active/{port}") for port in workspace.ports]
        return await self._commit([self._world.compare(workspace)], [Put(key_of(after), encode(after)), *bindings])

    async def _bind(self) -> bool:
        """Every port of a placed workspace has a binding: created once, so only one host can ever carry it."""
        committed = False
        batch: tuple[list[Compare], list[Change]] = ([], [])
        for grid in list(self._world.grids.values()):
            for workspace in list(grid.workspaces.values()):
                if workspace.host is None:
                    continue
                for port in workspace.ports:
                    if port in grid.bindings or port not in grid.ports or self._world.holder(grid.ports[port]):
                        continue
                    binding = BindingRecord(
                        port=port,
                        playground=workspace.playground,
                        workspace=workspace.name,
                        active=workspace.host,
                        source=workspace.host,
                    )
                    batch[0].extend([Compare(key_of(binding), 0), self._world.compare(grid.ports[port])])
                    batch[1].append(Put(key_of(binding), encode(binding)))
                    if len(batch[0]) + len(batch[1]) >= BATCH:
                        committed |= await self._commit(*batch)
                        batch = ([], [])
        if batch[1]:
            committed |= await self._commit(*batch)
        return committed

    async def _commit(self, compares: list[Compare], changes: list[Change]) -> bool:
        result = await self._store.commit(compares, changes)
        if isinstance(result, Conflict):
            # somebody changed a workspace in between: the next pass sees it
            await asyncio.sleep(0)
            log.info("placement redone conflict=%s", result.keys[:3])
            return True
        await self._world.reached(result)
        return True
