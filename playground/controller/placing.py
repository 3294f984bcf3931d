"""Gives workspaces without a host one, and ports without a binding theirs; `playground.placement` decides, this
commits."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from playground.controller.events import EventLog
from playground.controller.world import World
from playground.placement import HostView, Refusal, place
from playground.records import BindingRecord, WorkspaceRecord, encode, key_of
from playground.store.api import Change, Compare, Conflict, Put, Store

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

    def __init__(self, store: Store, world: World, events: EventLog) -> None:
        self._store = store
        self._world = world
        self._events = events

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
        if unplaced:
            for key, answer in place(unplaced, host_views(self._world)).items():
                workspace = next(w for w in unplaced if (w.playground, w.name) == key)
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
        return await self._bind() or committed

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
