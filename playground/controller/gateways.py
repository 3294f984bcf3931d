"""Hands gateways over: from a host that is gone, drained, or no longer allowed by the file, to one that can carry them.

A gateway stays where it is for as long as it can: a host that comes back gets none back, and of those that may take one
over, hosts that went lately come last. What was translated on the old host is lost with it, and the event says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from playground.controller.events import EventLog
from playground.controller.sessions import LEASE_S
from playground.controller.world import World
from playground.gateways import gateway_name, object_name
from playground.placement import HostView, Refusal, allows, place
from playground.records import AliveRecord, Record, WorkspaceRecord, encode, key_of
from playground.store.api import Change, Compare, Conflict, Put, Store

log = logging.getLogger("controller")

AWAY_S = LEASE_S
"""How long after its lease ended a host is waited for: after a controller began, hosts are not back at once."""

LATELY_S = 300.0
"""So long a host that went is the last choice."""

LOOK_S = 0.5


class Handovers:
    """views: every host with what is placed on it."""

    def __init__(self, store: Store, world: World, events: EventLog, views: Callable[[], list[HostView]]) -> None:
        self._store = store
        self._world = world
        self._events = events
        self._views = views
        self._gateways: set[tuple[str, str]] = set()
        self._absent: dict[str, float] = {}
        """Hosts that carry gateways and are not there, since when that is known."""
        self._went: dict[str, float] = {}
        self._changed([(key, None, record) for key, (record, _) in world.items.items()], world.revision)
        world.listen(self._changed)

    async def run(self) -> None:
        """Looks for ever, after each change of the world, and as long as a host is waited for."""
        while True:
            revision = self._world.revision
            if await self.once():
                continue
            try:
                async with asyncio.timeout(LOOK_S if self._absent else None):
                    await self._world.moved(revision)
            except TimeoutError:
                continue

    async def once(self) -> bool:
        """One look at every gateway; true when something was committed."""
        now = time.monotonic()
        placed = [one for name in sorted(self._gateways) if (one := self._world.workspace(*name)) and one.host]
        absent = {one.host for one in placed if one.host is not None and one.host not in self._world.alive}
        self._absent = {host: self._absent.get(host, now) for host in absent}
        committed = False
        for gateway in placed:
            committed |= await self._look(gateway, now)
        return committed

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for _, before, after in changes:
            match after if after is not None else before:
                case WorkspaceRecord() as record if gateway_name(record.name) is not None:
                    self._gateways.discard((record.playground, record.name))
                    if after is not None:
                        self._gateways.add((record.playground, record.name))
                case AliveRecord() as record if after is None:
                    self._went[record.host] = time.monotonic()
                case _:
                    pass

    async def _look(self, gateway: WorkspaceRecord, now: float) -> bool:
        cause = self._why_leave(gateway, now)
        if not cause:
            return await self._note(gateway, "") if gateway.reason and gateway.host in self._world.alive else False
        unplaced = msgspec.structs.replace(gateway, host=None)
        views = [view for view in self._views() if view.record.name != gateway.host]
        steady = [view for view in views if now - self._went.get(view.record.name, -LATELY_S) >= LATELY_S]
        name = (gateway.playground, gateway.name)
        answer = place([unplaced], steady)[name]
        if isinstance(answer, Refusal):
            answer = place([unplaced], views)[name]
        if isinstance(answer, Refusal):
            return await self._note(gateway, f"{cause}; {answer.reason}")
        return await self._hand_over(gateway, answer, cause)

    def _why_leave(self, gateway: WorkspaceRecord, now: float) -> str:
        """Why a gateway can't stay where it is, "" when it can."""
        host = self._world.hosts.get(gateway.host or "")
        if host is None:
            return f"{gateway.host} is no host of this site any more"
        if not allows(gateway.pin, host):
            return f"host: {gateway.pin} does not allow {host.name}"
        if host.name in self._world.drains and host.name in self._world.alive:
            return f"host {host.name} is drained"
        since = self._absent.get(host.name)
        return f"host {host.name} is gone" if since is not None and now - since >= AWAY_S else ""

    async def _hand_over(self, gateway: WorkspaceRecord, host: str, cause: str) -> bool:
        """Its record and all its bindings in one commit: peers find every leg at the same place."""
        grid = self._world.grids[gateway.playground]
        after = msgspec.structs.replace(gateway, host=host, generation=gateway.generation + 1, reason="")
        compares: list[Compare] = [self._world.compare(gateway)]
        changes: list[Change] = [Put(key_of(after), encode(after))]
        for binding in (grid.bindings[port] for port in gateway.ports if port in grid.bindings):
            flipped = msgspec.structs.replace(binding, active=host, source=host, generation=binding.generation + 1)
            compares.append(self._world.compare(binding))
            changes.append(Put(key_of(flipped), encode(flipped)))
        if not await self._commit(compares, changes):
            return True  # somebody changed it in between: looked at again
        log.info("gateway handed over gateway=%s/%s host=%s", gateway.playground, gateway.name, host)
        self._events.add(
            "gateway-moved",
            f"gateway {gateway.playground}/{gateway_name(gateway.name)}",
            f"{gateway.host} → {host}: {cause}; connections to the world that it carried are broken: what translated "
            f"them was on {gateway.host}",
        )
        return True

    async def _note(self, gateway: WorkspaceRecord, reason: str) -> bool:
        if gateway.reason == reason:
            return False
        if reason:
            log.warning("no host for %s reason=%s", object_name(gateway.name), reason)
        after = msgspec.structs.replace(gateway, reason=reason)
        await self._commit([self._world.compare(gateway)], [Put(key_of(after), encode(after))])
        return True

    async def _commit(self, compares: list[Compare], changes: list[Change]) -> bool:
        result = await self._store.commit(compares, changes)
        if isinstance(result, Conflict):
            await asyncio.sleep(0)
            return False
        await self._world.reached(result)
        return True
