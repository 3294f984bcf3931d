"""Tries the live network against the model, from inside the workspaces, and measures moves the same way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from playground.controller import trying
from playground.controller.execution import Channel, Execution, Finished
from playground.controller.knocking import Knocking, asked
from playground.controller.moves import Measured, Metering
from playground.controller.trying import Try
from playground.controller.world import Grid, World
from playground.records import MigrationRecord, PortRecord, ProbeRecord, WorkspaceRecord, encode, key_of
from playground.store.api import Put, Store

log = logging.getLogger("controller")

METER_PORT = 47471
METER_RATE = 1000
BEFORE_S = 0.3
AFTER_S = 0.4
METER_MAX_S = 60
START_S = 10.0
BEYOND_S = 300.0
"""How much longer than a hypervisor may copy its measurement lasts at most."""

ANSWERED_S = 3.0
"""How long the first answer to an echo request is waited for."""

PROBERS = 8
"""Workspaces that probe at the same time."""

Attempt = Callable[[str, Sequence[Try]], Awaitable[dict[Try, bool | str]]]
"""Tries of a playground, at once: whether each was seen to pass, or why nobody could see that."""


class Probing:
    """Probes of playgrounds and measurements of moves."""

    def __init__(self, store: Store, world: World, execution: Execution, outside: Sequence[str] = ()) -> None:
        """outside: addresses in the world beyond gateways that answer echo requests."""
        self._outside = tuple(outside)
        self._store = store
        self._world = world
        self._execution = execution
        self._at_once = asyncio.Semaphore(PROBERS)

    async def probe(self, playground: str) -> dict[str, Any]:
        """Every ordered pair of workspaces, at every address: those that share a network must reach each other as
        policies say, others not at all. Where somebody polices, also at ports (`trying.plan`); where there are
        gateways, also from each workspace to the world.

        `{pairs, mismatches}` as in docs/api.md; a pair counts once whatever its addresses. Where a workspace could not
        be asked, `unobserved` says whose pairs those are, how many, and why; `knocks` says at how many ports it was
        tried, and `alike` between how many pairs it was not, as others stand for them.
        """
        grid = self._world.grids[playground]
        running = [w for w in grid.workspaces.values() if w.desired == "running" and w.driver == "netns"]
        policies = tuple(self._world.site_policies.values())
        plan = await asyncio.to_thread(trying.plan, grid, policies, running, self._outside)
        seen = await self._tried(playground, plan.echoes, self._echo)
        seen += await self._tried(playground, plan.knocks, Knocking(self._execution, self._at_once).knock)
        pairs = {(one.source, one.destination) for one, _ in seen}
        mismatches = [_mismatch(one) for one, found in seen if found is (not one.is_allowed)]
        causes: dict[str, dict[tuple[str, str], str]] = {}
        for one, found in seen:
            if isinstance(found, str):
                causes.setdefault(one.source, {})[one.source, one.destination] = found
        unobserved = [
            {"from": name, "pairs": len(missing), "cause": next(iter(missing.values()))}
            for name, missing in sorted(causes.items())
        ]
        missing = {pair for pairs in causes.values() for pair in pairs}
        failed = list(dict.fromkeys(f"{row['from']} → {row['to']}" for row in mismatches))
        record = ProbeRecord(
            playground=playground,
            at_utc_s=time.time(),
            pairs=len(pairs - missing),
            mismatches=len(mismatches),
            unobserved=len(missing),
            failed=tuple(failed[:20]),
        )
        await self._store.commit([], [Put(key_of(record), encode(record))])
        result: dict[str, Any] = {"pairs": len(pairs - missing), "mismatches": mismatches}
        if plan.knocks:
            result |= {"knocks": len(plan.knocks), "alike": plan.alike}
        return result | ({"unobserved": unobserved} if unobserved else {})

    async def _tried(self, playground: str, tries: Sequence[Try], attempt: Attempt) -> list[tuple[Try, bool | str]]:
        """Whether each was seen to pass, or why nobody could see that. A busy machine answers late: what should have
        passed and did not is tried once more, alone."""
        found = await attempt(playground, tries) if tries else {}
        late = [one for one in tries if one.is_allowed and found[one] is False]
        if late:
            again = await attempt(playground, late)
            found |= {one: is_seen for one, is_seen in again.items() if is_seen is True}
        return [(one, found[one]) for one in tries]

    async def _echo(self, playground: str, tries: Sequence[Try]) -> dict[Try, bool | str]:
        by_source: dict[str, list[Try]] = {}
        for one in tries:
            by_source.setdefault(one.source, []).append(one)
        answers = await asyncio.gather(*(self._ask(playground, name, these) for name, these in by_source.items()))
        found: dict[Try, bool | str] = {}
        for these, answer in zip(by_source.values(), answers, strict=True):
            for place, one in enumerate(these):
                found[one] = answer if isinstance(answer, str) else answer[place]
        return found

    async def _ask(self, playground: str, name: str, tries: Sequence[Try]) -> list[bool] | str:
        """What one workspace reaches, in order; why, when it could not be asked for `BACK_S`."""
        question = [{"id": place, "address": one.address} for place, one in enumerate(tries)]
        answer = await asked(self._execution, (playground, name), ["@prober"], question, self._at_once)
        return answer if isinstance(answer, str) else [bool(row["reachable"]) for row in answer]

    # measuring a move

    async def meter(self, move: MigrationRecord) -> Metering | None:
        """A 1 kHz UDP stream to the moving workspace from a workspace on a third host (else on any other), of a virtual
        machine echo requests. None, with the reason logged, when nobody may send it any."""
        grid = self._world.grids[move.playground]
        moving = grid.workspaces[move.workspace]
        found = await self._pair(grid, moving, move.source, move.target)
        if move.to:
            return await self._echoes(move, found)
        if moving.driver != "netns" or found is None:
            log.info("move not measured workspace=%s/%s: no peer may send to it", move.playground, move.workspace)
            return None
        peer, own, port = found
        # it writes a line to stderr once it listens; a stream begun earlier would count as lost
        receiver = await self._execution.start(
            ["@stream", "receive", "--port", str(port), "--patience", str(METER_MAX_S)],
            workspace=(move.playground, move.workspace),
        )
        listening = asyncio.Event()
        collecting = asyncio.create_task(
            self._execution.finish(receiver, b"", METER_MAX_S + 10, on_stderr=lambda _: listening.set())
        )
        await asyncio.wait_for(listening.wait(), START_S)
        rate, most = str(METER_RATE), str(METER_MAX_S)
        sender = await self._execution.start(
            ["@stream", "send", "--to", own.addresses[0], "--port", str(port), "--rate", rate, "--seconds", most],
            workspace=(move.playground, peer.workspace),
        )
        await asyncio.sleep(BEFORE_S)
        return _Stream(self._execution, sender, collecting)

    async def measurable(self, workspace: WorkspaceRecord, target: str) -> str:
        """Who would measure a workspace's move to a host, "" where nobody may."""
        found = await self._pair(self._world.grids[workspace.playground], workspace, str(workspace.host), target)
        return "" if found is None else found[0].workspace

    async def _pair(
        self, grid: Grid, moving: WorkspaceRecord, source: str, target: str
    ) -> tuple[PortRecord, PortRecord, int] | None:
        """Who may send a moving workspace what measures its move, to which of its ports; the UDP port, 0 for echo
        requests."""
        site_policies = tuple(self._world.site_policies.values())
        pairs = _peers(grid, moving, (source, target))
        if moving.driver != "libvirt":
            return await asyncio.to_thread(trying.open_pair, grid, site_policies, pairs, METER_PORT)
        pair = await asyncio.to_thread(trying.echo_pair, grid, site_policies, pairs)
        return None if pair is None else (*pair, 0)

    async def _echoes(self, move: MigrationRecord, pair: tuple[PortRecord, PortRecord, int] | None) -> Metering | None:
        """Echo requests from one port to the other; None when the first gets no answer."""
        if pair is None:
            log.info("move not measured workspace=%s/%s: no peer may ask it", move.playground, move.workspace)
            return None
        peer, own, _ = pair
        longest_s = max(1.0, move.deadline_utc_s - time.time()) + BEYOND_S
        sender = await self._execution.start(
            ["@echoes", own.addresses[0], "--rate", str(METER_RATE), "--seconds", f"{longest_s:.0f}"],
            workspace=(move.playground, peer.workspace),
        )
        asking = asyncio.Event()
        collecting = asyncio.create_task(
            self._execution.finish(sender, b"", longest_s + 10, on_stderr=lambda _: asking.set())
        )
        metering = _Stream(self._execution, sender, collecting, is_one=True)
        try:
            async with asyncio.timeout(ANSWERED_S):
                await asking.wait()
        except TimeoutError:
            await metering.finish()
            log.info("move not measured workspace=%s/%s: it answers no echo", move.playground, move.workspace)
            return None
        await asyncio.sleep(BEFORE_S)
        return metering


class _Stream(Metering):
    """collecting: of the sender itself (is_one), or of a receiver."""

    def __init__(
        self, execution: Execution, sender: Channel, collecting: asyncio.Task[Finished], *, is_one: bool = False
    ) -> None:
        self._execution = execution
        self._is_one = is_one
        self._sender = sender
        self._collecting = collecting

    async def finish(self) -> Measured:
        await asyncio.sleep(AFTER_S)
        # a sender that is asked to end tells the receiver how many it sent
        await self._execution.signal(self._sender, "TERM")
        if not self._is_one:
            await self._execution.finish(self._sender, b"", 10)
        finished = await self._collecting
        return msgspec.json.decode(finished.stdout, type=Measured)


def _mismatch(one: Try) -> dict[str, str]:
    expected, observed = ("allow", "deny") if one.is_allowed else ("deny", "allow")
    return {
        "from": one.source,
        "to": one.destination,
        "address": one.address,
        "port": one.port,
        "expected": expected,
        "observed": observed,
    }


def _peers(grid: Grid, moving: WorkspaceRecord, ends: tuple[str, str]) -> list[tuple[PortRecord, PortRecord]]:
    """Ports of running workspaces, each with the moving one's port on the same network; those on a third host first.
    ends: the hosts between which it moves."""
    networks = {grid.ports[p].network_id: grid.ports[p] for p in moving.ports if p in grid.ports}
    others = sorted(
        (
            w
            for w in grid.workspaces.values()
            if w.name != moving.name and w.desired == "running" and w.driver == "netns" and w.host
        ),
        key=lambda w: (w.host in ends, w.name),
    )
    ports = [grid.ports[id] for other in others for id in other.ports if id in grid.ports]
    return [(port, networks[port.network_id]) for port in ports if port.network_id in networks]
