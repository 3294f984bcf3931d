"""Tries the live network against the model, from inside the workspaces, and measures moves the same way."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec

from playground.controller.execution import Channel, Execution, Finished, NotPossible
from playground.controller.moves import Metering
from playground.controller.world import Grid, World
from playground.records import MigrationRecord, ProbeRecord, WorkspaceRecord, encode, key_of
from playground.store.api import Put, Store

log = logging.getLogger("controller")

METER_PORT = 47471
METER_RATE = 1000
BEFORE_S = 0.3
AFTER_S = 0.4
METER_MAX_S = 60
START_S = 10.0

PROBERS = 8
"""Workspaces that probe at the same time."""

BACK_S = 10.0
"""How long a workspace that can't be asked is tried: a host's agent that has died is back within a few seconds."""

AGAIN_S = 0.25


class Probing:
    """Probes of playgrounds and measurements of moves."""

    def __init__(self, store: Store, world: World, execution: Execution) -> None:
        self._store = store
        self._world = world
        self._execution = execution
        self._at_once = asyncio.Semaphore(PROBERS)

    async def probe(self, playground: str) -> dict[str, Any]:
        """Every ordered pair of workspaces: those that share a network must reach each other at every address on it,
        others at none. `{pairs, mismatches}` as in docs/api.md; a pair counts once whatever its addresses. Where a
        workspace could not be asked, `unobserved` says whose pairs those are, how many, and why."""
        grid = self._world.grids[playground]
        running = [w for w in grid.workspaces.values() if w.desired == "running" and w.driver == "netns"]
        plans = {w.name: _targets(grid, w, running) for w in running}
        answers = await asyncio.gather(*(self._ask(playground, name, plan) for name, plan in plans.items()))
        # a busy machine answers late: what should be reached and was not is asked once more, alone
        for (name, plan), answer in zip(plans.items(), answers, strict=True):
            if isinstance(answer, str):
                continue
            late = [t for t in plan if t["expected"] and not answer.get(t["id"])]
            if late and not isinstance(again := await self._ask(playground, name, late), str):
                answer.update(again)
        mismatches: list[dict[str, str]] = []
        unobserved: list[dict[str, Any]] = []
        pairs = 0
        failed: list[str] = []
        for (name, plan), answer in zip(plans.items(), answers, strict=True):
            others = len({target["workspace"] for target in plan})
            if isinstance(answer, str):
                unobserved.append({"from": name, "pairs": others, "cause": answer})
                continue
            pairs += others
            for target in plan:
                expected = "allow" if target["expected"] else "deny"
                observed = "allow" if answer.get(target["id"]) else "deny"
                if expected != observed:
                    mismatches.append(
                        {
                            "from": name,
                            "to": target["workspace"],
                            "address": target["address"],
                            "port": "icmp",
                            "expected": expected,
                            "observed": observed,
                        }
                    )
                    failed.append(f"{name} → {target['workspace']}")
        record = ProbeRecord(
            playground=playground,
            at_utc_s=time.time(),
            pairs=pairs,
            mismatches=len(mismatches),
            unobserved=sum(row["pairs"] for row in unobserved),
            failed=tuple(failed[:20]),
        )
        await self._store.commit([], [Put(key_of(record), encode(record))])
        result: dict[str, Any] = {"pairs": pairs, "mismatches": mismatches}
        return result | ({"unobserved": unobserved} if unobserved else {})

    async def _ask(self, playground: str, name: str, plan: list[dict[str, Any]]) -> dict[str, bool] | str:
        """What one workspace reaches, by target id; why, when it could not be asked for `BACK_S`."""
        until = time.monotonic() + BACK_S
        while True:
            async with self._at_once:
                answer = await self._ask_now(playground, name, plan)
            if not isinstance(answer, str) or time.monotonic() >= until:
                return answer
            await asyncio.sleep(AGAIN_S)

    async def _ask_now(self, playground: str, name: str, plan: list[dict[str, Any]]) -> dict[str, bool] | str:
        question = [{"id": target["id"], "address": target["address"]} for target in plan]
        try:
            finished = await self._execution.run(
                ["@prober"], workspace=(playground, name), stdin=msgspec.json.encode(question), timeout_s=30
            )
        except NotPossible as error:
            log.warning("probe not possible workspace=%s/%s cause=%s", playground, name, error)
            return str(error)
        if finished.code != 0:
            said = finished.stderr.decode(errors="replace").strip().rpartition("\n")[2][-200:]
            log.warning("probe failed workspace=%s/%s error=%s", playground, name, said)
            return f"its prober ended with {finished.code}" + (f": {said}" if said else "")
        answers = msgspec.json.decode(finished.stdout, type=list[dict[str, Any]])
        return {str(answer["id"]): bool(answer["reachable"]) for answer in answers}

    # measuring a move

    async def meter(self, move: MigrationRecord) -> Metering | None:
        """A 1 kHz UDP stream to the moving workspace from a workspace on a third host (else on any other). None, with
        the reason logged, when nobody shares a network with it."""
        grid = self._world.grids[move.playground]
        moving = grid.workspaces[move.workspace]
        found = _peer(grid, moving, move)
        if moving.driver != "netns" or found is None:
            log.info("move not measured workspace=%s/%s: no peer on its networks", move.playground, move.workspace)
            return None
        peer, address = found
        # it writes a line to stderr once it listens; a stream begun earlier would count as lost
        receiver = await self._execution.start(
            ["@stream", "receive", "--port", str(METER_PORT), "--patience", str(METER_MAX_S)],
            workspace=(move.playground, move.workspace),
        )
        listening = asyncio.Event()
        collecting = asyncio.create_task(
            self._execution.finish(receiver, b"", METER_MAX_S + 10, on_stderr=lambda _: listening.set())
        )
        await asyncio.wait_for(listening.wait(), START_S)
        sender = await self._execution.start(
            [
                "@stream",
                "send",
                "--to",
                address,
                "--port",
                str(METER_PORT),
                "--rate",
                str(METER_RATE),
                "--seconds",
                str(METER_MAX_S),
            ],
            workspace=(move.playground, peer.name),
        )
        await asyncio.sleep(BEFORE_S)
        return _Stream(self._execution, sender, collecting)


class _Stream(Metering):
    def __init__(self, execution: Execution, sender: Channel, collecting: asyncio.Task[Finished]) -> None:
        self._execution = execution
        self._sender = sender
        self._collecting = collecting

    async def finish(self) -> tuple[float | None, int | None, int | None]:
        await asyncio.sleep(AFTER_S)
        # a sender that is asked to end tells the receiver how many it sent
        await self._execution.signal(self._sender, "TERM")
        await self._execution.finish(self._sender, b"", 10)
        finished = await self._collecting
        result = msgspec.json.decode(finished.stdout, type=dict[str, Any])
        return result["gap_ms"], result["lost"], result["duplicated"]


def _targets(grid: Grid, source: WorkspaceRecord, running: list[WorkspaceRecord]) -> list[dict[str, Any]]:
    mine = {grid.ports[p].network_id for p in source.ports if p in grid.ports}
    found: list[dict[str, Any]] = []
    for other in running:
        if other.name == source.name:
            continue
        ports = [grid.ports[p] for p in other.ports if p in grid.ports]
        shared = [p for p in ports if p.network_id in mine]
        for port in shared or ports:
            for address in port.addresses:
                found.append(
                    {
                        "id": f"{other.name}/{address}",
                        "workspace": other.name,
                        "address": address,
                        "expected": bool(shared),
                    }
                )
    return found


def _peer(grid: Grid, moving: WorkspaceRecord, move: MigrationRecord) -> tuple[WorkspaceRecord, str] | None:
    """A running workspace that shares a network, on a third host if there is one, and the moving one's address
    there."""
    networks = {grid.ports[p].network_id: grid.ports[p] for p in moving.ports if p in grid.ports}
    candidates = sorted(
        (
            w
            for w in grid.workspaces.values()
            if w.name != moving.name and w.desired == "running" and w.driver == "netns" and w.host
        ),
        key=lambda w: (w.host in (move.source, move.target), w.name),
    )
    for other in candidates:
        for port_id in other.ports:
            port = grid.ports.get(port_id)
            if port is not None and port.network_id in networks:
                return other, networks[port.network_id].addresses[0]
    return None
