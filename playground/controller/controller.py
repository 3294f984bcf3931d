"""The controller's verbs: what the API offers, over the store and the loops. Stateless beside its store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from playground import wire
from playground.controller.asking import Asking
from playground.controller.bindings import Bindings
from playground.controller.carrying import Carrying
from playground.controller.changes import Changes, accepted, shown_steps
from playground.controller.clients import ClientsAsked
from playground.controller.draining import PARALLEL, Draining
from playground.controller.dynamic import Dynamic
from playground.controller.events import EventLog
from playground.controller.evidence import Evidence
from playground.controller.execution import Execution, NotPossible
from playground.controller.gateways import Handovers
from playground.controller.learning import Learning
from playground.controller.moves import Moves, Refused
from playground.controller.placing import Placing
from playground.controller.preflight import Preflight
from playground.controller.probing import Probing
from playground.controller.progress import Progress
from playground.controller.routers import Routers
from playground.controller.sessions import Sessions
from playground.controller.tiers import Tiers
from playground.controller.world import Unreadable, World
from playground.gateways import gateway_name, object_name
from playground.lifecycle import NotNow, Verb, asked
from playground.manner import Manner
from playground.questions import Leaving, TellLeaving
from playground.records import (
    HostRecord,
    MigrationRecord,
    PlaygroundRecord,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.spec import (
    Included,
    PlaygroundSpec,
    SiteSpec,
    check_enforced,
    check_tests,
    check_tiers,
    connections_changed,
    load_playground,
    scene,
)
from playground.store.api import Conflict, Put, Store, StoreError
from playground.workspaces.migration import ENDED, State
from policies.model import Mode, Policy

log = logging.getLogger("controller")


class Unknown(Exception):
    """Something named does not exist (404), or is named ambiguously (409)."""

    def __init__(self, text: str, code: int = 404) -> None:
        super().__init__(text)
        self.code = code


HEAD_START_S = 0.1
"""How long hosts are told of an accepted file before it is compared with the one before it, for people."""


class Controller:
    """One controller of a site. `run` keeps its loops going until it is cancelled.

    given: hosts whose tokens come from outside, and so are not this controller's to replace. outside: addresses in the
    world that answer echo requests, for probes through gateways.
    """

    def __init__(self, store: Store, site: SiteSpec, given: Collection[str] = (), outside: Sequence[str] = ()) -> None:
        self.store = store
        self._given = frozenset(given)
        self.site = site.name
        self.world = World(store)
        self.events = EventLog(store, self.world)
        self.tiers = Tiers(store, self.world, self.events, site.name)
        self.sessions = Sessions(
            store,
            self.world,
            self.events,
            site.domain,
            list(site.resolvers),
            site.name,
            lambda seen: self.moves.arrived(seen),
            self._noticed,
        )
        self.execution = Execution(self.world, self.sessions)
        self.asking = Asking(self.world, self.sessions)
        self.clients = ClientsAsked(self.world, self.asking)
        self.evidence = Evidence(self.world, self.sessions, self.asking, self.called)
        self.probing = Probing(store, self.world, self.execution, outside)
        carrying = Carrying(self.world, self.asking, self.events)
        self.preflight = Preflight(self.world, self.asking, self.probing.measurable)
        self.moves = Moves(store, self.world, self.events, self.probing.meter, carrying, self.preflight)
        self.bindings = Bindings(self.world, self.moves)
        self._learning = Learning(store, self.world, self.events)
        self._routers = Routers(store, self.world)
        self.changes = Changes(store, self.world, self.events)
        self.progress = Progress(self.world, self.changes.is_written)
        self._placing = Placing(store, self.world, self.moves, self.events)
        self.draining = Draining(store, self.world, self.events, self._placing)
        self._dynamic = Dynamic(store, self.world)
        self._handovers = Handovers(store, self.world, self.events, self._placing.views)

    async def run(self) -> None:
        """The loops. A bug in one costs that pass, said in the log, and a second; returns only by cancellation.

        Raises Unreadable when somebody has written what this version can't read: half a world is nothing to act on.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (self.world.follow, self.events.run, self._watch_hosts):
                    group.create_task(_again(loop))
                for loop in (
                    self._placing.run,
                    self._learning.run,
                    self._routers.run,
                    self._handovers.run,
                    self.draining.run,
                    self.moves.run,
                    self.changes.run,
                    self._dynamic.run,
                ):
                    group.create_task(_again(loop))
        except* Unreadable as group_error:
            raise Unreadable(str(group_error.exceptions[0])) from group_error

    async def _watch_hosts(self) -> None:
        """Tells people when a host comes and goes."""
        up = set(self.world.alive)
        while True:
            revision = self.world.revision
            now = set(self.world.alive)
            for host in sorted(up - now):
                log.warning("host gone host=%s", host)
                self.events.add(
                    "host-gone",
                    f"host {host}",
                    "its agent was not heard within its lease; workspaces there are unknown",
                )
            up = now
            await self.world.moved(revision)

    # names

    def known(self, playground: str) -> None:
        """Raises Unknown when there is no such playground."""
        if playground not in self.world.playgrounds():
            have = ", ".join(self.world.playgrounds()) or "none"
            raise Unknown(f"no playground {playground}; there are: {have}")

    async def why(self, ref: str) -> list[dict[str, Any]]:
        """Of each port of a workspace (NAME or PLAYGROUND/NAME), or of those that have an address, why its client has
        what it has. Raises Unknown."""
        if (ports := self.clients.ports_of(ref)) is not None:
            if not ports:
                raise Unknown(f"no port has the address {ref}; `playground ports` lists them")
            return await self.clients.why(ports)
        workspace = self.workspace(ref)
        grid = self.world.grids[workspace.playground]
        return await self.clients.why((grid, grid.ports[id]) for id in workspace.ports if id in grid.ports)

    def workspace(self, ref: str) -> WorkspaceRecord:
        """The workspace that NAME or PLAYGROUND/NAME means. Raises Unknown."""
        playground, slash, name = ref.rpartition("/")
        if slash:
            self.known(playground)
        if gateway_name(name) is not None:
            raise Unknown(f"{ref} is a gateway: nothing runs in it, and its `host:` says where it is", 409)
        found = [
            grid.workspaces[name]
            for grid_name, grid in sorted(self.world.grids.items())
            if name in grid.workspaces and (not slash or grid_name == playground)
        ]
        if not found:
            have = sorted(
                w if slash else f"{g}/{w}"
                for g, grid in self.world.grids.items()
                if not slash or g == playground
                for w in grid.workspaces
                if gateway_name(w) is None
            )
            more = ["…"] if len(have) > 20 else []
            raise Unknown(f"no workspace {ref}; there are: {', '.join([*have[:20], *more]) or 'none'}")
        if len(found) > 1:
            names = ", ".join(f"{w.playground}/{w.name}" for w in found)
            raise Unknown(f"{ref} is ambiguous; say one of {names}", 409)
        return found[0]

    # verbs

    async def plan(self, file: str, text: str, included: Included | None = None) -> dict[str, Any]:
        """What `up` of this file would change. included: the files that it includes, by pattern."""
        tiers = self.tiers.now()
        spec = await _loaded(file, text, included, tiers)
        admission = self.changes.plan(spec)
        steps = shown_steps(admission)
        is_policed = any(policy.mode is not Mode.STAGE for policy in (*tiers.policies, *spec.connectivity.policies))
        foreseen = self._placing.foresee(admission, is_policed)
        root = self._root(spec.name)
        before = None if root is None else self.changes.read(root)
        connections = await asyncio.to_thread(_connections, root, before, spec, tiers) if steps else NO_CONNECTIONS
        return {
            "name": spec.name,
            "changes": steps,
            "unplaced": _causes(foreseen.unplaced) if self.world.hosts else [],
            "overfull": _causes(foreseen.overfull),
            "connections": connections,
        }

    async def up(self, file: str, text: str, included: Included | None = None) -> dict[str, Any]:
        """Accepts a file: everything of it is claimed and recorded when this returns."""
        tiers = self.tiers.now()
        spec = await _loaded(file, text, included, tiers)
        check_enforced(spec)
        root = self._root(spec.name)
        before = None if root is None else self.changes.read(root)
        change, steps = await self.changes.accept(spec)
        if steps:
            await asyncio.sleep(HEAD_START_S)  # comparing takes the one interpreter that hosts are told by
        connections = await asyncio.to_thread(_connections, root, before, spec, tiers) if steps else NO_CONNECTIONS
        return {"name": spec.name, "change": change, "changes": steps, "connections": connections}

    def written(self, playground: str, name: str) -> Policy | None:
        """A policy by the name of its record as its file has it, with the places of its rules; playground: "" for the
        site's. None where no file says it (any more), or it has not been read yet."""
        found = self.changes.written.get(playground, {}) if playground else self.tiers.written
        return found.get(name)

    def _root(self, name: str) -> PlaygroundRecord | None:
        """What is accepted of a playground so far."""
        return self.world.grids[name].root if name in self.world.grids else None

    def called(self, playground: str, name: str) -> str:
        """What people call a policy: one without a name by its file and line."""
        written = self.written(playground, name)
        return name if written is None else written.name

    async def down(self, name: str) -> dict[str, Any]:
        """Removes a playground from the records; hosts follow."""
        self.known(name)
        await self.changes.remove(name)
        return {"name": name}

    async def ask(self, ref: str, verb: Verb, grace_s: float | None = None) -> dict[str, Any]:
        """Has a workspace start, stop, be suspended and so on; its addresses stay. Raises Unknown, also where that
        can't be asked of it now."""
        while True:
            revision = self.world.revision
            workspace = self.workspace(ref)
            name = f"{workspace.playground}/{workspace.name}"
            move = self.world.grids[workspace.playground].migrations.get(workspace.name)
            seen = self.world.observed_workspaces.get((workspace.playground, workspace.name), {})
            here = seen.get(workspace.host or "")
            is_moving = move is not None and State(move.state) not in ENDED
            is_halted = here is not None and here.state == "suspended"
            try:
                after = asked(workspace, verb, is_moving=is_moving, is_halted=is_halted, grace_s=grace_s)
            except NotNow as error:
                raise Unknown(str(error), 409) from None
            if after is workspace:
                return {"workspace": name, "desired": workspace.desired}
            result = await self.store.commit([self.world.compare(workspace)], [Put(key_of(after), encode(after))])
            if isinstance(result, Conflict):
                await self.world.moved(revision)  # somebody was quicker: what the store has is on its way to us
                continue
            await self.world.reached(result)
            kind = "rebooted" if verb == "reboot" else after.desired
            self.events.add(f"workspace-{kind}", f"workspace {name}", "asked for")
            return {"workspace": name, "desired": after.desired}

    async def look_at_move(self, ref: str, host: str, measure: bool, manner: Manner) -> dict[str, Any]:
        """What speaks for and against a move, and changes nothing."""
        workspace = self.workspace(ref)
        verdict = await self.preflight.look(workspace, host, measure, manner)
        return {
            "playground": workspace.playground,
            "workspace": workspace.name,
            "from": workspace.host,
            "to": host,
            "may_move": not verdict.refusals,
            "findings": verdict.rows(),
        }

    async def _noticed(self, host: str, notice: wire.Notice) -> str:
        """What a host's hypervisor is about to do that nobody asked us for; why it must not, or nothing."""
        workspace = self.world.workspace(notice.playground, notice.workspace)
        if workspace is None:
            return f"there is no workspace {notice.playground}/{notice.workspace}"
        name = f"{workspace.playground}/{workspace.name}"
        if notice.what == "starts":
            if workspace.host != host:
                return f"{name} belongs to {workspace.host or 'no host yet'}"
            await self.ask(name, "start")
            self.events.add("workspace-begun", f"workspace {name}", f"on {host}, by another tool")
            return ""

        async def is_leaving() -> bool:
            answer = await self.asking.ask(str(workspace.host), TellLeaving(workspace.id, workspace.driver), Leaving)
            return answer.is_leaving

        try:
            await self.moves.announced(workspace, host, is_leaving)
        except (Refused, NotPossible) as error:
            return str(error)
        return ""

    async def migration(self, ref: str, generation: int, wait_s: float) -> dict[str, Any]:
        """The last move of a workspace; waits up to `wait_s` until the one of `generation` (or a later one) has
        finished."""
        workspace = self.workspace(ref)
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            revision = self.world.revision
            move = self.world.grids[workspace.playground].migrations.get(workspace.name)
            is_over = move is not None and move.generation >= generation and move.finished_utc_s is not None
            left = deadline - asyncio.get_running_loop().time()
            if is_over or left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self.world.moved(revision)
            except TimeoutError:
                continue
        if move is None:
            raise Unknown(f"{ref} has never been moved")
        return _shown(move)

    async def drain(self, host: str, parallel: int | None) -> dict[str, Any]:
        """Wants a host empty until `resume`. parallel: moves at a time. Raises Unknown."""
        self._known_host(host)
        known = self.world.drains.get(host)
        await self.draining.drain(host, parallel or (known.parallel if known is not None else PARALLEL))
        return self.draining.report(host)

    async def resume(self, host: str) -> dict[str, Any]:
        """Wants it empty no more. Raises Unknown."""
        self._known_host(host)
        await self.draining.resume(host)
        return self.draining.report(host)

    async def drained(self, host: str, wait_s: float) -> dict[str, Any]:
        """How far the drain of a host is; waits up to `wait_s` while something there leaves by itself. Raises
        Unknown."""
        self._known_host(host)
        try:
            async with asyncio.timeout(wait_s):
                while not self.draining.is_at_rest(host):
                    await self.world.moved(self.world.revision)
        except TimeoutError:
            pass
        return self.draining.report(host)

    def _known_host(self, host: str) -> HostRecord:
        record = self.world.hosts.get(host)
        if record is None:
            raise Unknown(f"no host {host}; hosts are {', '.join(sorted(self.world.hosts)) or 'none'}")
        return record

    async def issue_token(self, host: str) -> str:
        """A new secret for a host's agent; the old one is void. Raises Unknown, also for a host whose token is given
        from outside: its agent would be locked out, and the next start of the controller would put the old one back."""
        if host in self._given:
            raise Unknown(
                f"the token of {host} was given to the controller with --tokens, as for the hosts of an emulated site; "
                "it is replaced there",
                409,
            )
        while True:
            revision = self.world.revision
            record = self.world.hosts.get(host)
            if record is None:
                known = ", ".join(sorted(self.world.hosts)) or "none"
                raise Unknown(
                    f"no host {host}; hosts are {known}; a new one goes into the site's file first, and the controller "
                    "reads that when it starts"
                )
            token = secrets.token_urlsafe(32)
            digest = hashlib.sha256(token.encode()).hexdigest()
            after = msgspec.structs.replace(record, token_sha256=digest)
            result = await self.store.commit([self.world.compare(record)], [Put(key_of(after), encode(after))])
            if not isinstance(result, Conflict):
                await self.world.reached(result)
                return token
            await self.world.moved(revision)


NO_CONNECTIONS: dict[str, Any] = {"changed": [], "complete": True}
"""What an edit that changes nothing opens and cuts."""


def _causes(causes: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"object": object_name(name), "cause": cause} for name, cause in sorted(causes.items())]


def _connections(
    root: PlaygroundRecord | None, before: PlaygroundSpec | None, spec: PlaygroundSpec, tiers: SiteSpec
) -> dict[str, Any]:
    """The connections that a file opens and cuts beside what was accepted before. before: that, if it is known."""
    if before is None and root is not None:
        before = accepted(root)
    return connections_changed(before, spec, tiers)


async def _loaded(file: str, text: str, included: Included | None, tiers: SiteSpec) -> PlaygroundSpec:
    """The file's spec, its own tests passed under the tiers of the site. In a thread: a large file with many mistakes
    takes seconds, and hosts go after a few. Raises SpecErrors."""
    spec = await asyncio.to_thread(load_playground, text, file, included)
    await asyncio.to_thread(_check, spec, tiers)
    return spec


def _check(spec: PlaygroundSpec, tiers: SiteSpec) -> None:
    if tiers.policies:
        check_tiers(scene(spec, site=tiers))
    check_tests(spec, tiers)


async def _again(loop: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await loop()
        except Unreadable:
            raise
        except StoreError as error:
            log.warning("pass failed, tried again loop=%s cause=%s", getattr(loop, "__qualname__", loop), error)
        except Exception:
            log.exception("pass failed, tried again loop=%s", getattr(loop, "__qualname__", loop))
        await asyncio.sleep(1)


def _shown(move: MigrationRecord) -> dict[str, Any]:
    return {
        "playground": move.playground,
        "workspace": move.workspace,
        "from": move.source,
        "to": move.target,
        "gap_ms": move.gap_ms,
        "lost": move.lost,
        "duplicated": move.duplicated,
        "pause_ms": move.pause_ms,
        "max_gap_ms": move.manner.max_gap_ms or None,
        "promise": move.promise,
        "gap_at_s": None if move.gap_utc_s is None else round(move.gap_utc_s - move.started_utc_s, 4),
        "losses": [{"at_s": round(at - move.started_utc_s, 4), "packets": n} for at, n in move.losses],
        "phases": [{"state": state, "at_s": round(at - move.started_utc_s, 4)} for state, at in move.phases],
        "seconds": None if move.finished_utc_s is None else round(move.finished_utc_s - move.started_utc_s, 4),
        "led": move.led,
        "state": move.state,
        "cause": move.cause,
        "generation": move.generation,
        "finished": move.finished_utc_s is not None,
    }
