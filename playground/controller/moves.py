"""Drives moves: turns reports, absence and time into the events of `playground.workspaces.migration`, and commits its
effects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from playground.controller.events import EventLog
from playground.controller.preflight import Preflight
from playground.controller.world import Grid, World
from playground.manner import PLAIN, Manner
from playground.placement import allows
from playground.records import (
    BindingRecord,
    Led,
    MigrationRecord,
    ObservedWorkspace,
    Phase,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.store.api import Change, Compare, Conflict, Put, Store
from playground.workspaces.migration import ENDED, Effect, Event, State, step

log = logging.getLogger("controller")

DEADLINE_S = 60.0
TOLD_DEADLINE_S = 3600.0
"""How long a tool that prepares a port's other end may take to say that it is there."""

COPY_DEADLINE_S = 600.0
"""Of what a hypervisor copies: then it is told to stop."""

CALL_OFF_S = 15.0
"""How long it may take to say whether it could; then somebody who knows better may decide."""

SETTLE_S = 5.0
"""How long stragglers are chased when a host does not say that it has converged."""

MEASURED_S = 10.0
"""How long a move waits for the measurement of the one before; after that it goes unmeasured."""

Meter = Callable[[MigrationRecord], Awaitable["Metering | None"]]


class Measured(msgspec.Struct, frozen=True):
    """As in MigrationRecord."""

    gap_ms: float | None = None
    lost: int | None = None
    duplicated: int | None = None
    gap_utc_s: float | None = None
    losses: tuple[tuple[float, int], ...] = ()


class Refused(Exception):
    """The move can't be; the text says why and what would help."""


class Metering(Protocol):
    """A measurement under way around one move. `finish` ends it and returns what it found."""

    async def finish(self) -> Measured: ...


class Carrier(Protocol):
    """Has what hosts know of a workspace's connections go along (`playground.controller.carrying.Carrying`)."""

    def is_needed(self, move: MigrationRecord) -> bool: ...

    async def carry(self, move: MigrationRecord) -> None: ...


Turn = tuple[str, str, int]
"""One move: its playground, its workspace, its generation."""


class Moves:
    """All moves of the site."""

    def __init__(
        self, store: Store, world: World, events: EventLog, meter: Meter, carrier: Carrier, preflight: Preflight
    ) -> None:
        self._preflight = preflight
        self._store = store
        self._world = world
        self._events = events
        self._meter = meter
        self._measured: set[Turn] = set()
        self._metering: dict[Turn, asyncio.Future[None]] = {}
        self._meters: dict[Turn, Metering | None] = {}
        self._carrier = carrier
        self._carrying: dict[Turn, asyncio.Future[None]] = {}
        """Before the flip, by move."""
        self._flipped_at: dict[tuple[str, str], tuple[int, float]] = {}
        self._finishing: dict[Turn, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    async def request(
        self,
        workspace: WorkspaceRecord,
        target: str,
        measure: bool,
        by_hand: bool = True,
        led: Led = "",
        manner: Manner = PLAIN,
    ) -> MigrationRecord:
        """Starts a move. by_hand: asked for, also against the file's `host:`. led: by whom it goes on. Raises Refused
        with all that hinders it, and nothing changed."""
        for _ in range(5):
            current = self._world.workspace(workspace.playground, workspace.name)
            if current is None:
                raise Refused(f"{workspace.playground}/{workspace.name} is gone")
            result = await self._request(current, target, measure, by_hand, led, manner)
            if result is not None:
                return result
            await asyncio.sleep(0.02)
        raise Refused("the workspace keeps changing; try again in a moment")

    async def _request(
        self, workspace: WorkspaceRecord, target: str, measure: bool, by_hand: bool, led: Led, manner: Manner
    ) -> MigrationRecord | None:
        name = f"{workspace.playground}/{workspace.name}"
        grid = self._world.grids[workspace.playground]
        previous = grid.migrations.get(workspace.name)
        if previous is not None and State(previous.state) not in ENDED:
            if previous.state != State.ACTIVATED:
                raise Refused(
                    f"{name} is being moved to {previous.target} ({previous.state}); wait, or abort that first"
                )
            await self._apply(grid, previous, Event.LATE)
            return None
        verdict = await self._preflight.look(workspace, target, measure, manner, led)
        refusals = verdict.refusals or self._preflight.by_records(workspace, target, measure, manner, led).refusals
        if refusals:
            raise Refused("\n".join(refusals))
        now = time.time()
        usual_s = TOLD_DEADLINE_S if led == "tool" else COPY_DEADLINE_S if verdict.to else DEADLINE_S
        # never again a number that an earlier workspace of this name had, whose guest may still be about
        generation = self._world.revision + 1
        move = MigrationRecord(
            playground=workspace.playground,
            workspace=workspace.name,
            source=str(workspace.host),
            target=target,
            state=State.REQUESTED.value,
            generation=generation,
            started_utc_s=now,
            deadline_utc_s=now + (manner.timeout_s or usual_s),
            by_hand=by_hand,
            led=led,
            came=_came(workspace, previous),
            manner=manner,
            to=verdict.to,
            folder=verdict.folder,
            is_one_kernel=verdict.is_one_kernel,
            phases=((State.REQUESTED.value, now),),
        )
        compares = [self._world.compare(workspace), Compare(key_of(move), self._world.modified(key_of(move)))]
        changes: list[Change] = [Put(key_of(move), encode(move))]
        for binding in self._bindings(grid, workspace):
            compares.append(self._world.compare(binding))
            after = msgspec.structs.replace(binding, target=target, phase="requested", copied=bool(verdict.to))
            changes.append(Put(key_of(after), encode(after)))
        if measure:
            self._measured.add(_turn(move))
        result = await self._store.commit(compares, changes)
        if isinstance(result, Conflict):
            self._measured.discard(_turn(move))
            return None
        await self._world.reached(result)
        self._events.add("move-requested", f"workspace {name}", f"from {move.source} to {target}{_by(move)}")
        return move

    def _bindings(self, grid: Grid, workspace: WorkspaceRecord) -> list[BindingRecord]:
        return [grid.bindings[p] for p in workspace.ports if p in grid.bindings]

    async def announced(
        self, workspace: WorkspaceRecord, target: str, is_leaving: Callable[[], Awaitable[bool]]
    ) -> None:
        """A hypervisor tells that it is about to take a workspace in. is_leaving: whether that of the host where it is
        says so, too. Raises Refused."""
        name = f"{workspace.playground}/{workspace.name}"
        move = self._world.grids[workspace.playground].migrations.get(workspace.name)
        if move is not None and State(move.state) not in ENDED and move.state != State.ACTIVATED:
            if move.target == target:
                return
            raise Refused(f"{name} is being moved to {move.target} ({move.state})")
        if not await is_leaving():
            self._events.add("move-disbelieved", f"workspace {name}", f"{workspace.host} does not send it to {target}")
            raise Refused(f"the hypervisor of {workspace.host}, where {name} is, does not send it anywhere")
        await self.request(workspace, target, measure=True, led="hypervisor")

    async def abort(self, workspace: WorkspaceRecord) -> MigrationRecord:
        """Aborts a move that has not been activated. One that a hypervisor was told to stop, and that nobody has heard
        of since, is by this taken for one that has not left. Raises Refused."""
        grid = self._world.grids[workspace.playground]
        move = grid.migrations.get(workspace.name)
        if move is None:
            raise Refused(f"{workspace.playground}/{workspace.name} is not being moved")
        if State(move.state) in ENDED:
            name = f"{workspace.playground}/{workspace.name}"
            raise Refused(f"{name} is not being moved: its last move is over, and it is already at {workspace.host}")
        if _is_copied(move) and not (move.called_off and time.time() > move.deadline_utc_s):
            return await self._call_off(move, "aborted on request")
        after = await self.step(move, Event.ABORT, "aborted on request")
        if after is None or after.state != State.ABORTED:
            raise Refused(f"{workspace.playground}/{workspace.name} is already at {move.target}; move it back instead")
        return after

    async def step(self, move: MigrationRecord, event: Event, cause: str = "") -> MigrationRecord | None:
        """What somebody says of a move that is under way, and its effect. None where the table has no such transition,
        or something else was quicker."""
        return await self._apply(self._world.grids[move.playground], move, event, cause)

    async def _call_off(self, move: MigrationRecord, cause: str) -> MigrationRecord:
        """Has the hypervisor told to stop: whether it still can, only it knows, and its word ends the move."""
        if move.called_off:
            return move
        until = time.time() + CALL_OFF_S
        after = msgspec.structs.replace(move, called_off=True, cause=cause, deadline_utc_s=until)
        result = await self._store.commit([self._world.compare(move)], [Put(key_of(after), encode(after))])
        if isinstance(result, Conflict):
            raise Refused("the move has just gone on; try again")
        await self._world.reached(result)
        return after

    async def run(self) -> None:
        """Drives all moves for ever: after each change of the world, and while one is open also by the clock."""
        while True:
            revision = self._world.revision
            await self._pass()
            try:
                async with asyncio.timeout(0.1 if self._open() else 5.0):
                    await self._world.moved(revision)
            except TimeoutError:
                continue

    async def arrived(self, seen: ObservedWorkspace) -> None:
        """Flips the bindings of what a host says has arrived, before that word is stored: peers send to the old host
        until then; and opens the target for what stands still. It is what a pass would do after it; where that was
        quicker, nothing happens."""
        move = self._world.moving.get((seen.playground, seen.workspace))
        grid = self._world.grids.get(move.playground) if move is not None else None
        if move is None or grid is None or move.workspace not in grid.workspaces:
            return
        if _says_it_runs(move, seen):
            await self._apply(grid, move, Event.ARRIVED, "", seen.pause_ms)
        elif seen.host == move.source and _is_copied(move) and _copied(seen, move) == "paused":
            await self._apply(grid, move, Event.STANDS_STILL)

    def _open(self) -> list[MigrationRecord]:
        return [move for move in self._world.moving.values() if State(move.state) not in ENDED]

    async def _pass(self) -> None:
        now = time.time()
        for move in self._open():
            grid = self._world.grids[move.playground]
            event, cause = self._event(grid, move, now)
            if event is not None:
                await self._apply(grid, move, event, cause, self._pause_ms(move))
        for move in list(self._world.moving.values()):
            if State(move.state) in ENDED:
                self._finish(move)  # also one that a controller before this one ended, and died

    def _event(self, grid: Grid, move: MigrationRecord, now: float) -> tuple[Event | None, str]:
        """What the world says of a move, if anything new."""
        identity = (move.playground, move.workspace)
        state = State(move.state)
        if move.workspace not in grid.workspaces:
            return Event.REMOVED, "the workspace was removed"
        target = self._world.observed_workspaces.get(identity, {}).get(move.target)
        is_current = target is not None and target.generation == move.generation
        if state is State.ACTIVATED:
            flipped = self._flipped_at.setdefault(identity, (self._world.revision, time.monotonic()))
            source = self._world.observed_workspaces.get(identity, {}).get(move.source)
            runs_there = target is not None and target.state == "running"
            said = _copied(source, move)
            if said == "failed" and not runs_there:
                return Event.COPY_FAILED, _cause(source)
            is_over = not move.to or said in ("done", "failed") or (runs_there and move.source not in self._world.alive)
            if is_over and self._converged(move.playground, flipped[0]):
                return Event.PEERS_CONVERGED, ""
            if is_over and time.monotonic() - flipped[1] > SETTLE_S:
                return Event.LATE, "a host did not say in time that it had converged"
            return None, ""
        if target is not None and _says_it_runs(move, target):
            return Event.ARRIVED, ""
        if _is_copied(move):
            event, cause = self._copy_event(move, now)
            if event is None and state is State.PREPARED and self._may_begin(move):
                return Event.METER_RUNS, ""
            return event, cause
        source = self._world.observed_workspaces.get(identity, {}).get(move.source)
        if source is not None and source.copied is not None and _copied(source, move) == "failed":
            return Event.COPY_FAILED, source.copied.cause
        if not self._moves_all(grid, grid.workspaces[move.workspace], move):
            return Event.ABORT, "its NICs were changed by an edit"
        if move.led == "tool":
            return self._told_event(move, state, is_current and target is not None and target.state == "prepared", now)
        if move.target not in self._world.alive:
            return Event.TARGET_GONE, f"host {move.target} is gone"
        if move.source not in self._world.alive and state is not State.COPYING:
            return Event.SOURCE_GONE, f"host {move.source} is gone"
        if now > move.deadline_utc_s:
            return Event.LATE, _not_done(move)
        if is_current and target is not None and target.state == "failed":
            return Event.PREPARE_FAILED, target.cause or f"host {move.target} could not prepare"
        if state is State.REQUESTED and is_current and target is not None and target.state == "prepared":
            return Event.TARGET_READY, ""
        if state is State.PREPARED and self._may_begin(move):
            if move.manner.max_gap_ms and self._meters.get(_turn(move)) is None:
                return Event.ABORT, "its longest silence can't be measured: it answers nobody who may ask it"
            return Event.METER_RUNS, ""
        return None, ""

    @staticmethod
    def _told_event(move: MigrationRecord, state: State, is_prepared: bool, now: float) -> tuple[Event | None, str]:
        """What moves one that a tool leads, beside its own word: once it has said that it is there, nothing else but
        the same tool takes that back. Where hosts, or their agents, are gone for a while, it is waited for them."""
        if state is State.COPYING:
            return None, ""
        if now > move.deadline_utc_s:
            return Event.LATE, f"nobody said within {TOLD_DEADLINE_S:.0f} s that it is at {move.target}"
        return (Event.TARGET_READY if is_prepared and state is State.REQUESTED else None), ""

    def _copy_event(self, move: MigrationRecord, now: float) -> tuple[Event | None, str]:
        """What the source says of its hypervisor's copying. Hosts that are silent decide nothing: where the workspace
        runs, only that does."""
        source = self._world.observed_workspaces.get((move.playground, move.workspace), {}).get(move.source)
        match _copied(source, move):
            case "failed":
                return Event.COPY_FAILED, move.cause if move.called_off else _cause(source)
            case "done":
                return Event.ARRIVED, ""
            case "paused" if move.state != State.LANDING:
                return Event.STANDS_STILL, ""
        if move.led == "hypervisor" and not move.called_off:
            return None, ""  # how long it may take, whoever began it decides
        if now > move.deadline_utc_s and not move.called_off:
            self._spawn(self._give_up(move))
        return None, ""

    async def _give_up(self, move: MigrationRecord) -> None:
        try:
            await self._call_off(move, _not_done(move))
        except Refused:
            log.info("move went on when it was to be called off workspace=%s/%s", move.playground, move.workspace)

    def _pause_ms(self, move: MigrationRecord) -> float | None:
        """How long the workspace stood still: as its hypervisor says, where one copies it."""
        seen = self._world.observed_workspaces.get((move.playground, move.workspace), {})
        source, target = seen.get(move.source), seen.get(move.target)
        if move.to:
            return source.copied.pause_ms if source is not None and source.copied is not None else None
        return target.pause_ms if target is not None else None

    def _may_begin(self, move: MigrationRecord) -> bool:
        """Whether all that is to be done before the flip is done; begins what is not."""
        turn = _turn(move)
        is_metered = turn not in self._measured or turn in self._meters
        if not is_metered and turn not in self._metering:
            self._metering[turn] = self._spawn(self._start_meter(move))
        if not self._carrier.is_needed(move):
            return is_metered
        carrying = self._carrying.get(turn)
        if carrying is None:
            carrying = self._carrying[turn] = self._spawn(self._carry_first(move))
        return is_metered and carrying.done()

    async def _carry_first(self, move: MigrationRecord) -> None:
        """Before the flip. The move goes on at once, not with the next look."""
        await self._carry(move)
        turn = _turn(move)
        is_metered = turn not in self._measured or self._meters.get(turn) is not None
        if is_metered and self._world.moving.get(turn[:2]) == move:
            await self._apply(self._world.grids[move.playground], move, Event.METER_RUNS)

    async def _carry(self, move: MigrationRecord) -> None:
        """Whatever comes of it, the move goes on."""
        try:
            await self._carrier.carry(move)
        except Exception:
            log.exception("flows could not be carried workspace=%s/%s", move.playground, move.workspace)

    def _moves_all(self, grid: Grid, workspace: WorkspaceRecord, move: MigrationRecord) -> bool:
        """Whether all ports of a workspace take part in its move: one that an edit has added never gets to the target,
        and the workspace is made anew with it."""
        bindings = (grid.bindings.get(port) for port in workspace.ports)
        return all(binding is not None and binding.target == move.target for binding in bindings)

    def _converged(self, playground: str, revision: int) -> bool:
        """Whether every live host with a port of the playground has converged to `revision`."""
        return all(
            (seen := self._world.observed_hosts.get(h)) is not None and seen.applied >= revision
            for h in self._world.ties.hosts(playground)
            if h in self._world.alive
        )

    def _spawn(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start_meter(self, move: MigrationRecord) -> None:
        turn = _turn(move)
        metering = None
        try:
            async with asyncio.timeout(MEASURED_S):
                await self._measured_before(turn)
            metering = await self._meter(move)
        except Exception:
            log.exception("measurement could not start workspace=%s/%s", *turn[:2])
        self._meters[turn] = metering

    async def _measured_before(self, turn: Turn) -> None:
        """Until what measures an earlier move of the workspace has ended: its packets are no packets of this one."""
        earlier = [task for other, task in self._finishing.items() if other[:2] == turn[:2] and other != turn]
        await asyncio.gather(*map(asyncio.shield, earlier))

    def _finish(self, move: MigrationRecord) -> None:
        """Has a move that has ended finished, once."""
        turn = _turn(move)
        if turn not in self._finishing:
            task = self._finishing[turn] = self._spawn(self._finish_meter(move))
            task.add_done_callback(lambda _: self._finishing.pop(turn))

    async def _finish_meter(self, move: MigrationRecord) -> None:
        """Adds what was measured to a move that has ended."""
        turn = _turn(move)
        starting = self._metering.pop(turn, None)
        if starting is not None:
            await starting
        metering = self._meters.pop(turn, None)
        self._measured.discard(turn)
        measured = Measured()
        if metering is not None:
            try:
                measured = await metering.finish()
            except Exception:
                log.exception("measurement failed workspace=%s/%s", *turn[:2])
        for _ in range(5):
            grid = self._world.grids.get(move.playground)
            current = grid.migrations.get(move.workspace) if grid else None
            if current is None:
                return
            if current.generation != move.generation:
                break  # the next move has its place
            after = msgspec.structs.replace(current, **msgspec.structs.asdict(measured), finished_utc_s=time.time())
            outcome = await self._store.commit([self._world.compare(current)], [Put(key_of(after), encode(after))])
            if not isinstance(outcome, Conflict):
                await self._world.reached(outcome)
                break
        text = f"{move.state} at {move.target if move.state == State.SETTLED else move.source}{_by(move)}"
        if move.cause:
            text += f": {move.cause}"
        if measured.gap_ms is not None:
            text += f": gap {measured.gap_ms:.1f} ms, lost {measured.lost}, duplicated {measured.duplicated}"
        if move.state == State.SETTLED and move.manner.max_gap_ms:
            text += f"; at most {move.manner.max_gap_ms:g} ms were allowed"
        if move.state == State.SETTLED:
            times = (f"{state} {at - move.started_utc_s:.2f} s" for state, at in move.phases[1:])
            text += f" ({', '.join(times)})"
        self._events.add(f"move-{move.state}", f"workspace {move.playground}/{move.workspace}", text)

    async def _apply(
        self, grid: Grid, move: MigrationRecord, event: Event, cause: str = "", pause_ms: float | None = None
    ) -> MigrationRecord | None:
        """One transition with its effect, in one commit. None when the table has no such transition, or it lost a
        race."""
        state, effect = step(State(move.state), event)
        if state is State(move.state):
            return None
        after = msgspec.structs.replace(
            move,
            state=state.value,
            cause=cause or (move.cause if state is State.LANDING else ""),  # why it was called off, if it was
            pause_ms=pause_ms if pause_ms is not None else move.pause_ms,
            phases=(*move.phases, (state.value, time.time())),
        )
        compares = [self._world.compare(move)]
        changes: list[Change] = [Put(key_of(after), encode(after))]
        workspace = grid.workspaces.get(move.workspace)
        if workspace is not None and effect is not Effect.NONE:
            for binding in self._bindings(grid, workspace):
                seen = self._world.observed_ports.get(binding.port, {}).get(move.source)
                leased = seen.leased if seen is not None else binding.leased
                bound = _affected(binding, move, state, effect, leased)
                compares.append(self._world.compare(binding))
                changes.append(Put(key_of(bound), encode(bound)))
            if effect is Effect.FLIP:
                target = self._world.hosts.get(move.target)
                is_against = move.by_hand and target is not None and not allows(workspace.pin, target)
                moved = msgspec.structs.replace(
                    workspace,
                    host=move.target,
                    generation=workspace.generation + 1,
                    reason="",
                    overridden=workspace.pin if is_against else None,
                )
                compares.append(self._world.compare(workspace))
                changes.append(Put(key_of(moved), encode(moved)))
            elif effect is Effect.TAKE_BACK:
                back = self._world.hosts.get(move.source)
                was_against = back is not None and not allows(workspace.pin, back)
                moved = msgspec.structs.replace(
                    workspace,
                    host=move.source,
                    generation=workspace.generation + 1,
                    overridden=workspace.pin if was_against else None,
                )
                compares.append(self._world.compare(workspace))
                changes.append(Put(key_of(moved), encode(moved)))
        result = await self._store.commit(compares, changes)
        if isinstance(result, Conflict):
            log.info("move redone conflict=%s", result.keys[:3])
            return None
        await self._world.reached(result)
        identity = (move.playground, move.workspace)
        if state is State.PREPARED and move.led == "tool" and self._carrier.is_needed(after):
            self._spawn(self._carry(after))  # whoever says that it is there does not wait for this
        if state is State.ACTIVATED:
            self._flipped_at[identity] = (result, time.monotonic())
            if self._carrier.is_needed(after):
                self._spawn(self._carry(after))  # those that began since it was done before the flip
        if state in ENDED:
            self._flipped_at.pop(identity, None)
            self._carrying.pop(_turn(move), None)
            self._finish(after)
        return after


def _turn(move: MigrationRecord) -> Turn:
    return move.playground, move.workspace, move.generation


_ARRIVED = frozenset({"announced", "running"})
"""What a target says of a workspace whose traffic comes to it now."""

_PHASES: dict[State, Phase] = {State.PREPARED: "prepared", State.COPYING: "copying", State.LANDING: "landing"}


def _not_done(move: MigrationRecord) -> str:
    said = f"not done within {move.deadline_utc_s - move.started_utc_s:.0f} s"
    if move.to and move.manner.max_gap_ms:
        return f"{said}; its hypervisor never found that it could stop it for {move.manner.max_gap_ms:g} ms or less"
    return said


def _copied(seen: ObservedWorkspace | None, move: MigrationRecord) -> str:
    """What the source says of the copying that a move is, "" for nothing yet."""
    if seen is None or seen.copied is None or seen.copied.move != move.generation:
        return ""
    return seen.copied.state


def _cause(seen: ObservedWorkspace | None) -> str:
    """Why the source says that the copying failed."""
    return seen.copied.cause if seen is not None and seen.copied is not None else ""


def _says_it_runs(move: MigrationRecord, seen: ObservedWorkspace) -> bool:
    """Whether the target says that it runs there, of this move; before a tool has said so it can't be."""
    may_run = move.led != "tool" or move.state in (State.COPYING, State.ACTIVATED)
    return may_run and (seen.host, seen.generation) == (move.target, move.generation) and seen.state in _ARRIVED


def _is_copied(move: MigrationRecord) -> bool:
    """Whether a hypervisor is at it now. One that we did not tell to does not wait for us."""
    begun = (State.PREPARED, State.COPYING) if move.led == "hypervisor" else (State.COPYING,)
    return bool(move.to) and State(move.state) in (*begun, State.LANDING)


def _by(move: MigrationRecord) -> str:
    return ", by another tool" if move.led else ""


def _came(workspace: WorkspaceRecord, last: MigrationRecord | None) -> int:
    """The number by which a workspace is where it is: of the last move that brought it there, or of its placement."""
    if last is None or workspace.placed > last.generation:
        return workspace.placed
    return last.generation if last.target == workspace.host else last.came


def _affected(
    binding: BindingRecord, move: MigrationRecord, state: State, effect: Effect, leased: tuple[str, ...]
) -> BindingRecord:
    """A binding after a transition's effect. leased: what the client held on the source."""
    match effect:
        case Effect.SET_PHASE:
            return msgspec.structs.replace(binding, phase=_PHASES[state])
        case Effect.FLIP:
            return msgspec.structs.replace(
                binding, active=move.target, phase="activated", generation=binding.generation + 1, leased=leased
            )
        case Effect.REST:
            return msgspec.structs.replace(
                binding, active=move.target, source=move.target, target=None, phase="bound", copied=False
            )
        case Effect.GIVE_BACK:
            return msgspec.structs.replace(
                binding, active=move.source, source=move.source, target=None, phase="bound", copied=False
            )
        case Effect.TAKE_BACK:
            return msgspec.structs.replace(
                binding,
                active=move.source,
                source=move.source,
                target=None,
                phase="bound",
                copied=False,
                generation=binding.generation + 1,
            )
        case Effect.NONE:
            return binding
