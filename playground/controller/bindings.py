"""The two-phase binding of ports that somebody else moves: prepared on a host, activated there, or aborted.

Each verb may be repeated, and says the same again. A binding is named by port, host and generation, the number of the
move that it is: what is said of an older one is refused. A workspace's ports move together, so what is said of one of
them is said of all. Decides nothing of a move itself: `playground.controller.moves` does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from overlay.state import PortId, port_device
from playground.controller.moves import Moves, Refused
from playground.controller.world import World
from playground.derive.guests import FOREIGN
from playground.records import BindingRecord, MigrationRecord, PortRecord, WorkspaceRecord
from playground.workspaces.migration import ENDED, Event, State

Json = dict[str, Any]

_PENDING = {State.REQUESTED: "preparing", State.PREPARED: "prepared"}


class NoBinding(LookupError):
    """There is no such port, or it has no binding of that kind."""


class Bindings:
    """The verbs of `/v1/ports/PORT/bindings`. port: its id, or its device's name.

    Raises NoBinding for what is not there, and Refused, with nothing changed, for what can't be. wait_s: how long an
    answer may be held back until what was asked for is so.
    """

    def __init__(self, world: World, moves: Moves) -> None:
        self._world = world
        self._moves = moves

    def list(self, port: str) -> list[Json]:
        """All bindings of a port that count: the active one, and the other end of one that moves."""
        record, binding, _ = self._find(port)
        hosts = dict.fromkeys(filter(None, (binding.active, binding.source, binding.target)))
        return [self._shown(record, host) for host in hosts]

    async def show(self, port: str, host: str, wait_s: float) -> Json:
        """One binding, once it is prepared, active or aborted, or as it is after `wait_s`."""
        await self._until(lambda: self._state(self._find(port)[0], host) not in ("preparing", "activating"), wait_s)
        return self._shown(self._find(port)[0], host)

    async def prepare(self, port: str, host: str, wait_s: float) -> Json:
        """Has a host make the port's end, closed, with guard, rules, DHCP and names. Where it is active already, or
        prepared, nothing happens."""
        _, _, workspace = self._find(port)
        if workspace.driver != FOREIGN:
            name = f"{workspace.playground}/{workspace.name}"
            raise Refused(f"{name} is not of the driver {FOREIGN}: `playground migrate {name} {host}` moves it")
        move = self._open(workspace)
        if move is not None and move.state != State.ACTIVATED:
            if move.target != host or move.led != "tool":
                raise Refused(
                    f"the port is being moved to {move.target} (generation {move.generation}, {move.state}); "
                    "activate or abort that first"
                )
        elif workspace.host != host:
            await self._moves.request(workspace, host, measure=False, led="tool")
        return await self.show(port, host, wait_s)

    async def activate(self, port: str, host: str, generation: int, wait_s: float) -> Json:
        """The port is there now. Refused before it is prepared there."""
        while True:
            record, _, workspace = self._find(port)
            state = self._named(record, host, generation)
            match state:
                case "active" | "activating":
                    break
                case "leaving":
                    active = self._find(port)[1].active
                    raise Refused(f"generation {generation} on {host} is over: the port has gone on to {active}")
                case "prepared":
                    move = self._open(workspace)
                    if move is not None:
                        await self._moves.step(move, Event.TOLD)
                case "preparing":
                    cause = self._shown(record, host)["cause"] or "its host has not said that it is ready"
                    raise Refused(f"generation {generation} is not prepared on {host} yet: {cause}")
                case _:
                    cause = self._shown(record, host)["cause"]
                    raise Refused(f"generation {generation} on {host} was aborted: {cause}; prepare it anew")
        return await self.show(port, host, wait_s)

    async def abort(self, port: str, host: str, generation: int) -> Json:
        """Nothing of a prepared binding is left. Refused once it is active."""
        while True:
            record, _, workspace = self._find(port)
            match self._named(record, host, generation):
                case "aborted":
                    return self._shown(record, host)
                case "active" | "leaving":
                    raise Refused(
                        f"generation {generation} on {host} is active already; prepare a binding on another host "
                        "to move the port there"
                    )
            move = self._open(workspace)
            if move is not None:
                await self._moves.step(move, Event.ABORT, "aborted on request")

    def _find(self, port: str) -> tuple[PortRecord, BindingRecord, WorkspaceRecord]:
        id = port.removeprefix("pg")
        playground = self._world.homes.get(id)
        grid = self._world.grids.get(playground) if playground is not None else None
        if grid is None or id not in grid.ports:
            raise NoBinding(f"no port {port}; `playground ports --json` says their devices")
        record = grid.ports[id]
        workspace, binding = grid.workspaces.get(record.workspace), grid.bindings.get(id)
        if workspace is None or binding is None or workspace.host is None:
            raise NoBinding(f"port {port} is bound to no host yet")
        return record, binding, workspace

    def _last(self, workspace: WorkspaceRecord) -> MigrationRecord | None:
        """Its last move since it was placed."""
        move = self._world.grids[workspace.playground].migrations.get(workspace.name)
        return move if move is not None and move.generation > workspace.placed else None

    def _open(self, workspace: WorkspaceRecord) -> MigrationRecord | None:
        move = self._last(workspace)
        return move if move is not None and State(move.state) not in ENDED else None

    def _state(self, record: PortRecord, host: str) -> str:
        """active | preparing | prepared | activating | leaving | aborted, "" for none."""
        _, binding, workspace = self._find(record.id)
        move = self._last(workspace)
        state = State(move.state) if move is not None else State.SETTLED
        if move is not None and host == move.target and state is not State.SETTLED:
            if state is State.ABORTED:
                return "aborted"
            return "active" if state is State.ACTIVATED else _PENDING.get(state, "activating")
        if move is not None and host == move.source and state is State.ACTIVATED:
            return "leaving"
        return "active" if binding.active == host else ""

    def _generation(self, record: PortRecord, host: str) -> int:
        """Of a binding: the number of the move, or of the placement, that brought the port there, or will."""
        _, _, workspace = self._find(record.id)
        move = self._last(workspace)
        if move is None:
            return workspace.placed
        return move.generation if host == move.target else move.came

    def _named(self, record: PortRecord, host: str, generation: int) -> str:
        """The state of the binding of that generation. Raises NoBinding, and Refused for one that is over."""
        known = self._generation(record, host)
        state = self._state(record, host)
        if state and known == generation:
            return state
        _, binding, _ = self._find(record.id)
        active = f"it is active on {binding.active}, generation {self._generation(record, binding.active)}"
        if not state:
            raise NoBinding(f"the port has no binding on {host}; {active}")
        raise Refused(f"generation {generation} on {host} is not the one that counts, {known} is ({state}); {active}")

    def _shown(self, record: PortRecord, host: str) -> Json:
        state = self._state(record, host)
        if not state:
            self._named(record, host, 0)
        move = self._last(self._find(record.id)[2])
        cause = move.cause if move is not None and state == "aborted" else ""
        if state in ("preparing", "activating"):
            seen = self._world.observed_workspaces.get((record.playground, record.workspace), {}).get(host)
            is_current = seen is not None and move is not None and seen.generation == move.generation
            cause = seen.cause if seen is not None and is_current else ""
            if host not in self._world.alive:
                cause = f"host {host} is not up"
        return {
            "port": record.id,
            "playground": record.playground,
            "workspace": record.workspace,
            "network": record.network,
            "device": port_device(PortId(record.id)),
            "host": host,
            "generation": self._generation(record, host),
            "state": state,
            "cause": cause,
        }

    async def _until(self, holds: Callable[[], bool], wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while not holds() and (left := deadline - time.monotonic()) > 0:
            revision = self._world.revision
            try:
                async with asyncio.timeout(left):
                    await self._world.moved(revision)
            except TimeoutError:
                return
