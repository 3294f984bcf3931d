"""Empties hosts that somebody wants empty, and says why what is left there is. Chooses no host and drives no move:
`playground.placement` and `moves` do.

The wish is a record, so it outlives whoever asked and the controller; what is to be done about it follows from what is
there now. So a drain that is asked for twice, resumed or overtaken by an edit is the same loop looking again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from playground.controller.events import EventLog
from playground.controller.placing import TO_START, Placing, has_own_disks
from playground.controller.rooms import Name
from playground.controller.status import on_host, workspace_state
from playground.controller.world import World
from playground.gateways import gateway_name, object_name
from playground.placement import Refusal
from playground.records import DrainRecord, MigrationRecord, WorkspaceRecord, encode, key_of
from playground.store.api import Compare, Conflict, Delete, Put, Store
from playground.workspaces.migration import ENDED, State

log = logging.getLogger("controller")

PARALLEL = 2
"""Moves at a time where nobody says how many: a hypervisor's copy takes all that the network gives."""

RETRY_S = 30.0
"""How long a host where a move has failed is not tried again."""

LOOK_S = 1.0
PAUSE_S = 0.02
"""Between looks: many changes become one."""


@dataclass(frozen=True, slots=True)
class Left:
    """A workspace, or a gateway, that is still on a drained host. moving and waiting pass by themselves; stuck is what
    somebody has to do something about."""

    workspace: WorkspaceRecord
    state: Literal["moving", "waiting", "stuck"]
    cause: str = ""
    to: str | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Of a move, or its refusal, which is no matter of time."""

    cause: str
    at_utc_s: float
    is_refusal: bool


class Draining:
    """All drains of the site."""

    def __init__(self, store: Store, world: World, events: EventLog, placing: Placing) -> None:
        self._store = store
        self._world = world
        self._events = events
        self._placing = placing
        self._failures: dict[Name, dict[str, _Failure]] = {}
        """By workspace and target."""
        self._looked: dict[Name, Left] = {}
        """What was found of each at the last look at it."""
        self._resting: set[str] = set()
        self._told: dict[str, tuple[str, ...]] = {}
        """What people were told of each drain, so that they are told of changes alone."""

    async def drain(self, host: str, parallel: int) -> None:
        """Wants a host empty, moves `parallel` workspaces at a time. Again: the last number counts."""
        while True:
            revision = self._world.revision
            known = self._world.drains.get(host)
            if known is not None and known.parallel == parallel:
                return
            began = known.began_utc_s if known is not None else time.time()
            record = DrainRecord(host=host, began_utc_s=began, parallel=parallel)
            result = await self._store.commit([self._world.compare(record)], [Put(key_of(record), encode(record))])
            if isinstance(result, Conflict):
                await self._world.moved(revision)
                continue
            await self._world.reached(result)
            self._resting.discard(host)
            if known is None:
                self._events.add("drain-begun", f"host {host}", "nothing is placed on it, and what is there leaves")
            return

    async def resume(self, host: str) -> None:
        """Wants it no more. Moves that are under way go on; what has left stays where it is."""
        while (known := self._world.drains.get(host)) is not None:
            revision = self._world.revision
            key = key_of(known)
            result = await self._store.commit([Compare(key, self._world.modified(key))], [Delete(key)])
            if isinstance(result, Conflict):
                await self._world.moved(revision)
                continue
            await self._world.reached(result)
            self._events.add("drain-ended", f"host {host}", "workspaces may be placed on it again")

    async def run(self) -> None:
        """Looks for ever, after changes of the world, and while a host is drained also by the clock."""
        while True:
            revision = self._world.revision
            await self.once()
            try:
                async with asyncio.timeout(LOOK_S if self._world.drains else None):
                    await self._world.moved(revision)
                await asyncio.sleep(PAUSE_S)
            except TimeoutError:
                continue

    async def once(self) -> None:
        """One look at every drained host."""
        seen: dict[Name, Left] = {}
        for host, drain in sorted(self._world.drains.items()):
            there = on_host(self._world, host)
            moving = sum(self._is_leaving(host, workspace) for workspace in there)
            still = [workspace for workspace in there if not self._is_leaving(host, workspace)]
            room = drain.parallel - moving
            # those that were stuck come last: while others leave they are not looked at again and again
            still.sort(key=lambda one: self._is_stuck((one.playground, one.name)))
            looked: list[Left] = []
            for workspace in still:
                if room <= 0:
                    break
                one = self._left(host, workspace)
                looked.append(one)
                if one.state == "waiting" and one.to is not None:
                    room -= await self._send(host, workspace)
                elif one.state == "waiting" and workspace.desired == "stopped" and not one.cause:
                    await self._placing.unplace(workspace)
            names = ((one.playground, one.name) for one in still)
            seen.update((name, self._looked[name]) for name in names if name in self._looked)
            seen.update(((one.workspace.playground, one.workspace.name), one) for one in looked)
            is_at_rest = len(looked) == len(there) and all(one.state == "stuck" for one in looked)
            if is_at_rest:
                self._tell(host, looked)
                self._resting.add(host)
            else:
                self._resting.discard(host)
        self._looked = seen
        self._resting &= self._world.drains.keys()
        for host in self._told.keys() - self._world.drains.keys():
            del self._told[host]
        if not self._world.drains:
            self._failures.clear()

    def is_at_rest(self, host: str) -> bool:
        """Whether nothing leaves a host by itself, as it was looked at last."""
        return host not in self._world.drains or host in self._resting

    def _is_leaving(self, host: str, workspace: WorkspaceRecord) -> bool:
        move = self._world.moving.get((workspace.playground, workspace.name))
        return move is not None and move.source == host and State(move.state) not in ENDED

    def _is_stuck(self, name: Name) -> bool:
        return name in self._looked and self._looked[name].state == "stuck"

    def left(self, host: str) -> list[Left]:
        """What is still on a host, in order. `to` of what waits: where it would go."""
        found = []
        for workspace in on_host(self._world, host):
            known = self._looked.get((workspace.playground, workspace.name))
            is_known = known is not None and known.workspace == workspace and not self._is_leaving(host, workspace)
            found.append(known if known is not None and is_known else self._left(host, workspace))
        return found

    def report(self, host: str) -> dict[str, Any]:
        """As docs/api.md says it."""
        drain = self._world.drains.get(host)
        left = self.left(host) if drain is not None else []
        rows = [
            {
                "playground": one.workspace.playground,
                "object": object_name(one.workspace.name),
                "state": one.state,
                "to": one.to,
                "cause": one.cause,
            }
            for one in left
        ]
        return {
            "host": host,
            "drain": None if drain is None else "draining" if left else "drained",
            "since": None if drain is None else drain.began_utc_s,
            "parallel": None if drain is None else drain.parallel,
            "left": rows,
        }

    def _left(self, host: str, workspace: WorkspaceRecord) -> Left:
        move = self._world.grids[workspace.playground].migrations.get(workspace.name)
        if move is not None and State(move.state) not in ENDED:
            if move.source == host:
                return Left(workspace, "moving", move.state, move.target)
            return Left(workspace, "waiting", f"arrives from {move.source}, and leaves after that")
        if workspace.host != host:
            return Left(workspace, "waiting", "what it left here is cleared")
        if gateway_name(workspace.name) is not None:
            return Left(workspace, "stuck" if workspace.reason else "waiting", workspace.reason)
        if host not in self._world.alive:
            return Left(workspace, "stuck", f"host {host} is gone: what it runs there can't be moved")
        if workspace.driver == "external":
            return Left(workspace, "stuck", "it is run by somebody else, who alone can move it")
        if workspace.desired == "stopped":
            return self._stopped(workspace)
        return self._running(host, workspace, move)

    def _stopped(self, workspace: WorkspaceRecord) -> Left:
        if has_own_disks(workspace):
            return Left(workspace, "stuck", f"it is stopped, and its disks are on {workspace.host}; {TO_START}")
        answer = self._placing.elsewhere(workspace)
        return Left(workspace, "stuck", answer.reason) if isinstance(answer, Refusal) else Left(workspace, "waiting")

    def _running(self, host: str, workspace: WorkspaceRecord, last: MigrationRecord | None) -> Left:
        state, cause = workspace_state(self._world, workspace)
        if state != "running" or workspace.desired != "running":
            is_passing = workspace.desired == "running" and state not in ("failed", "unknown")
            said = f"it is {state}" + (f": {cause}" if cause else "")
            return Left(workspace, "waiting" if is_passing else "stuck", f"{said}; only what runs is moved")
        barred = self._barred(host, workspace)
        failed = self._failed(host, workspace, last)
        causes = {target: failure.cause for target, failure in failed.items()}
        answer = self._placing.elsewhere(workspace, barred | causes)
        if not isinstance(answer, Refusal):
            return Left(workspace, "waiting", to=answer)
        is_tried_again = any(not failure.is_refusal for failure in failed.values()) and not isinstance(
            self._placing.elsewhere(workspace, barred), Refusal
        )
        return Left(workspace, "waiting" if is_tried_again else "stuck", answer.reason)

    def _barred(self, host: str, workspace: WorkspaceRecord) -> dict[str, str]:
        """Hosts to which its driver moves nothing from here, and why."""
        offers = {name: {d.name: d for d in record.drivers} for name, record in self._world.hosts.items()}
        own = offers[host].get(workspace.driver)
        if own is None or own.move == "live":
            return {}
        said = f"is another machine, and a {workspace.driver} workspace stays on its kernel"
        return {
            name: said
            for name, drivers in offers.items()
            if (other := drivers.get(workspace.driver)) is not None and other.domain != own.domain
        }

    def _failed(self, host: str, workspace: WorkspaceRecord, last: MigrationRecord | None) -> dict[str, _Failure]:
        """Moves from a host that have just failed, or were refused, by target."""
        known = self._failures.get((workspace.playground, workspace.name), {})
        found = {target: failure for target, failure in known.items() if time.time() - failure.at_utc_s < RETRY_S}
        if last is not None and (last.state, last.source) == (State.ABORTED.value, host):
            at = last.finished_utc_s or time.time()
            if time.time() - at < RETRY_S:
                cause = f"its move there failed: {last.cause or 'no cause was given'}"
                found[last.target] = _Failure(cause, at, is_refusal=False)
        return found

    async def _send(self, host: str, workspace: WorkspaceRecord) -> bool:
        """Whether it leaves now: where to is looked for once more, as others may have taken that room."""
        name = (workspace.playground, workspace.name)
        with contextlib.ExitStack() as stack:
            async with self._placing.deciding:
                now = self._world.workspace(*name)
                one = self._left(host, now) if now is not None else None
                if one is None or one.to is None or one.state != "waiting":
                    return False
                stack.enter_context(self._placing.held_for(name, one.to))
                failed = self._failed(host, one.workspace, self._world.grids[name[0]].migrations.get(name[1]))
            if cause := await self._placing.move(one.workspace, one.to):
                failure = _Failure(f"its move there was refused: {cause}", time.time(), is_refusal=True)
                self._failures[name] = {**failed, one.to: failure}
                log.info("move of a drain refused workspace=%s/%s to=%s cause=%s", *name, one.to, cause)
                return False
        self._failures[name] = failed  # the record of a move takes the place of the one before it
        return True

    def _tell(self, host: str, left: Sequence[Left]) -> None:
        """Tells people that a host is empty, or that nothing more will leave it."""
        stuck = tuple(sorted(f"{one.workspace.playground}/{one.workspace.name}: {one.cause}" for one in left))
        if self._told.get(host) == stuck:
            return
        self._told[host] = stuck
        if stuck:
            more = f"; and {len(stuck) - 3} more" if len(stuck) > 3 else ""
            self._events.add("drain-stuck", f"host {host}", "; ".join(stuck[:3]) + more)
        else:
            self._events.add("drained", f"host {host}", "it is empty")
