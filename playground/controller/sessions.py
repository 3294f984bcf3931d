"""Agents as the controller sees them: one session per connection, its view kept current, its reports reduced into the
store.

A view is a function of the world: which scopes concern a host and which records are in each. What a report says of an
object that is no longer bound to its host, or of an older generation, is dropped by comparison.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import assert_never

from playground import wire
from playground.controller import strangers
from playground.controller.events import EventLog
from playground.controller.shown import Shown, Touched
from playground.controller.world import Grid, World, givers
from playground.lifecycle import unasked
from playground.records import (
    AliveRecord,
    HostRecord,
    ObservedHost,
    ObservedLeases,
    ObservedPort,
    ObservedWorkspace,
    Record,
    encode,
    key_of,
)
from playground.store.api import LIMIT_OPS, Conflict, Delete, LeaseId, LeaseLost, Put, Store

log = logging.getLogger("controller")

LEASE_S = 6.0
"""How long a host counts as up after its agent was last heard, give or take a `BEAT_S`."""

VOID, TAKEN = 4401, 4409
"""Close codes of a refused session: it may not be (any more), or it does not fit what is known of its host."""

STRAYS = 4096
"""How much a host may say of what has no record, as it has it of removed playgrounds; beyond that, no more than what it
was known to have before."""

MAX_STALE_S = 3600.0
"""How old a host's cached view may be for a workspace to be started from it."""


class SessionRefused(Exception):
    """An agent is not to be served (any more). The text is short enough for a close frame: 123 bytes, RFC 6455 §5.5."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


Send = Callable[[str], Awaitable[None]]


Arrived = Callable[[ObservedWorkspace], Awaitable[None]]
Noticed = Callable[[str, wire.Notice], Awaitable[str]]


async def _nothing_moves(seen: ObservedWorkspace) -> None:
    """For a site without moves."""


async def _nothing_noticed(host: str, notice: wire.Notice) -> str:
    """For a site without hypervisors."""
    return "nobody is told of machines here"


@dataclass(eq=False)
class Session:
    """One agent's connection. shown: what its view holds. dirty: something that it may see has changed. heard_s: when
    it last said anything; kept_s: when that last kept its lease, both monotonic. token_sha256: what it dialled in
    with. strays: keys of what it says that has no record; None until there is any."""

    host: str
    id: str
    instance: str
    token_sha256: str
    send: Send
    lease: LeaseId
    heard_s: float
    shown: Shown
    kept_s: float = 0.0
    strays: set[str] | None = None
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    asked: dict[str, asyncio.Queue[wire.Answer | None]] = field(default_factory=dict)

    def answered(self, answer: wire.Answer) -> None:
        """Hands an answer to whoever asked, if anybody still listens; who listens too slowly misses the oldest."""
        if (answers := self.asked.get(answer.id)) is not None:
            if answers.full():
                answers.get_nowait()
            answers.put_nowait(answer)

    def end_answers(self) -> None:
        """The agent is gone: whoever waits for it waits in vain."""
        for answers in self.asked.values():
            if answers.full():
                answers.get_nowait()
            answers.put_nowait(None)


class Sessions:
    """All connected agents."""

    def __init__(
        self,
        store: Store,
        world: World,
        events: EventLog,
        domain: str,
        resolvers: list[str],
        site: str,
        arrived: Arrived = _nothing_moves,
        noticed: Noticed = _nothing_noticed,
    ) -> None:
        """arrived: hears, before it is stored, what a host says runs there of what is being moved. noticed: hears what
        a host's hypervisor is about to do by somebody else's doing, and says why it must not, or nothing."""
        self._store = store
        self._world = world
        self._events = events
        self._domain = domain
        self._resolvers = resolvers
        self._site = site
        self._arrived = arrived
        self._noticed = noticed
        self._noting: set[asyncio.Task[None]] = set()
        self.connected: dict[str, Session] = {}
        self._refused: dict[str, str] = {}
        world.listen(self._changed)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        touched = Touched()
        for key, before, after in changes:
            touched.add(key, before, after)
        if not touched:
            return
        for session in self.connected.values():
            if session.shown.note(self._world, touched):
                session.dirty.set()

    async def serve(
        self, hello: wire.Hello, token_sha256: str, send: Send, receive: Callable[[], Awaitable[wire.FromAgent]]
    ) -> None:
        """Runs one session until its connection or its lease ends. token_sha256: of the token that the caller has
        checked. Raises SessionRefused, at once or when that token is replaced."""
        lease = await self._store.lease(LEASE_S)
        session = Session(
            hello.host,
            secrets.token_hex(8),
            hello.instance,
            token_sha256,
            send,
            lease,
            asyncio.get_running_loop().time(),
            Shown(hello.host),
        )
        await self._register(hello, session)
        previous = self.connected.get(hello.host)
        self.connected[hello.host] = session
        if previous is not None:
            log.info("agent replaced host=%s", hello.host)
            previous.dirty.set()
        await send(wire.encode(wire.Welcome(self._site, session.id, self._domain, self._resolvers, MAX_STALE_S)))
        reports: asyncio.Queue[wire.Report] = asyncio.Queue(1)
        tasks = [
            asyncio.create_task(self._show(session)),
            asyncio.create_task(self._listen(session, receive, reports)),
            asyncio.create_task(self._reduce_all(session, reports)),
            asyncio.create_task(self._keep(session)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.connected.get(hello.host) is session:
                del self.connected[hello.host]
            session.end_answers()

    async def _register(self, hello: wire.Hello, session: Session) -> None:
        """Writes what the agent says of its host, unless that contradicts the site file or another agent."""
        while True:
            revision = self._world.revision
            known = self._admitted(session)
            self._refuse_contradiction(hello, known)
            record = self._described(hello, known)
            alive = AliveRecord(host=hello.host, session=session.id)
            puts = [Put(key_of(record), encode(record)), Put(key_of(alive), encode(alive), session.lease)]
            result = await self._store.commit([self._world.compare(known)], puts)
            if not isinstance(result, Conflict):
                break
            await self._world.moved(revision)
        self._refused.pop(hello.host, None)
        self._events.add(
            "host-up", f"host {hello.host}", f"agent {hello.version} connected, underlay {record.underlay}"
        )

    def _admitted(self, session: Session) -> HostRecord:
        """The session's host, while the token that it came with is that host's. Raises SessionRefused."""
        known = self._world.hosts.get(session.host)
        if known is None or known.token_sha256 != session.token_sha256:
            raise SessionRefused(VOID, "the host's token was replaced; give its agent the new one")
        return known

    def _refuse_contradiction(self, hello: wire.Hello, known: HostRecord) -> None:
        current = self.connected.get(hello.host)
        cause = ""
        if current is not None and current.instance != hello.instance and hello.instance:
            cause = "another agent of this host is connected; end one of the two"
        elif not _is_same_address(hello.underlay, known.underlay):
            cause = f"underlay is {known.underlay} in the site file, {hello.underlay} here"
        if not cause:
            return
        if self._refused.get(hello.host) != cause:
            self._refused[hello.host] = cause
            self._events.add("agent-refused", f"host {hello.host}", cause)
        raise SessionRefused(TAKEN, cause)

    @staticmethod
    def _described(hello: wire.Hello, known: HostRecord) -> HostRecord:
        return HostRecord(
            name=known.name,
            site=known.site,
            underlay=known.underlay,
            underlay_mtu=hello.underlay_mtu,
            labels=known.labels,
            cpus=known.cpus,
            memory_mib=known.memory_mib,
            token_sha256=known.token_sha256,
            drivers=tuple(hello.drivers),
            version=hello.version,
            share=known.share,
            found_cpus=hello.cpus,
            found_memory_mib=hello.memory_mib,
            facts=dict(hello.facts),
        )

    async def _keep(self, session: Session) -> None:
        """Returns, and so ends the session, when its agent is not heard any more."""
        while True:
            await asyncio.sleep(wire.BEAT_S)
            silent_s = asyncio.get_running_loop().time() - session.heard_s
            if silent_s > LEASE_S:
                log.warning("agent not heard host=%s silent_s=%.1f", session.host, silent_s)
                return

    async def _hear(self, session: Session) -> None:
        """Keeps the host's lease from the moment that its agent is heard; once a second is enough."""
        session.heard_s = asyncio.get_running_loop().time()
        if session.heard_s - session.kept_s < 1.0:
            return
        session.kept_s = session.heard_s
        try:
            await self._store.keepalive(session.lease)
        except LeaseLost:
            session.lease = await self._store.lease(LEASE_S)
            alive = AliveRecord(host=session.host, session=session.id)
            await self._store.commit([], [Put(key_of(alive), encode(alive), session.lease)])

    async def _show(self, session: Session) -> None:
        """Keeps the agent's view equal to the world: the difference to what was sent is sent. Returns once the agent
        has dialled again; raises SessionRefused once its token is void."""
        said: Sequence[wire.FromController] = session.shown.whole(self._world)
        revision, told = session.shown.revision(self._world), -1
        while self.connected.get(session.host) is session:
            self._admitted(session)
            for message in said:
                await session.send(wire.encode(message))
            if said or revision > told:  # also where what was touched is as it was: then it has that
                await session.send(wire.encode(wire.Complete(revision)))
                told = revision
            await session.dirty.wait()
            session.dirty.clear()
            said = session.shown.difference(self._world)
            revision = session.shown.revision(self._world)

    async def _listen(
        self, session: Session, receive: Callable[[], Awaitable[wire.FromAgent]], reports: asyncio.Queue[wire.Report]
    ) -> None:
        """Hears an agent, while what it said before is still being written: that something has arrived can't wait."""
        try:
            while True:
                message = await receive()
                if self.connected.get(session.host) is not session:
                    return  # a lost connection delivers late: its agent has said newer things by the next one
                await self._hear(session)
                match message:
                    case wire.Beat():
                        pass
                    case wire.Answer():
                        session.answered(message)
                    case wire.Report():
                        await self._hear_arrivals(session, message)
                        await reports.put(message)
                    case wire.Notice():
                        task = asyncio.create_task(self._note(session, message))
                        self._noting.add(task)
                        task.add_done_callback(self._noting.discard)
                    case wire.Hello():
                        log.warning("agent said hello twice host=%s", session.host)
        except Exception:
            await reports.join()  # what it said before the connection was lost counts
            raise

    async def _note(self, session: Session, notice: wire.Notice) -> None:
        try:
            problem = await self._noticed(session.host, notice)
        except Exception as error:
            log.exception("notice not taken host=%s", session.host)
            problem = f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):  # whatever a lost connection raises: then nobody waits for it
            await session.send(wire.encode(wire.Noted(notice.id, problem)))

    async def _hear_arrivals(self, session: Session, report: wire.Report) -> None:
        for seen in report.observed:
            if isinstance(seen, ObservedWorkspace):
                is_moving = (seen.playground, seen.workspace) in self._world.moving
                tells = seen.state in ("announced", "running") or seen.copied is not None
                if is_moving and tells and self._is_current(session.host, seen):
                    await self._arrived(seen)

    async def _reduce_all(self, session: Session, reports: asyncio.Queue[wire.Report]) -> None:
        while True:
            report = await reports.get()
            if self.connected.get(session.host) is not session:
                return
            await self._reduce(session, report)
            reports.task_done()

    async def _reduce(self, session: Session, report: wire.Report) -> None:
        changes: list[Put | Delete] = []
        for observed in report.observed:
            if not self._is_current(session.host, observed) or not self._is_bounded(session, observed):
                log.warning("observation dropped host=%s observed=%.200r", session.host, observed)
                continue
            key = key_of(observed)
            held = self._world.items.get(key)
            if held is None or held[0] != observed:
                changes.append(Put(key, encode(observed)))
                if isinstance(observed, ObservedWorkspace):
                    before = held[0] if held is not None and isinstance(held[0], ObservedWorkspace) else None
                    for event in unasked(before, observed):
                        self._events.add(*event)
                if isinstance(observed, ObservedHost):
                    for event in strangers.news(self._world, held[0] if held is not None else None, observed):
                        self._events.add(*event)
        # what a host has converged to is said once all that it has to say by then is known
        changes.sort(key=lambda change: change.key.startswith("observed/host/"))
        said = {key_of(observed) for observed in report.observed}
        gone = set(report.gone) - said
        if report.whole:
            gone |= {key for key in self._observed_of(session.host) if key not in said}
        if session.strays is not None:
            session.strays -= gone
        for key in sorted(gone):
            if key.endswith(f"/{session.host}") and key.startswith("observed/") and self._world.modified(key):
                changes.append(Delete(key))
        for start in range(0, len(changes), LIMIT_OPS):
            result = await self._store.commit([], changes[start : start + LIMIT_OPS])
            if not isinstance(result, Conflict):
                await self._world.reached(result)  # the next report is compared with what this one has made so

    def _is_bounded(self, session: Session, observed: wire.Observation) -> bool:
        """Whether this is of something that there is, or is among `STRAYS` other things: names that nothing has are as
        many as an agent can think of."""
        if self._has_record(observed):
            return True
        if session.strays is None:
            held = (self._world.items[key][0] for key in self._observed_of(session.host))
            session.strays = {key_of(seen) for seen in held if isinstance(seen, _SAID) and not self._has_record(seen)}
        if len(session.strays) >= STRAYS and key_of(observed) not in session.strays:
            return self._world.modified(key_of(observed)) > 0  # it had a record when this session began
        session.strays.add(key_of(observed))
        return True

    def _has_record(self, observed: wire.Observation) -> bool:
        match observed:
            case ObservedHost():
                return True
            case ObservedPort() | ObservedLeases():
                return observed.port in self._world.homes
            case ObservedWorkspace():
                return self._world.workspace(observed.playground, observed.workspace) is not None
            case _:
                assert_never(observed)

    def _observed_of(self, host: str) -> list[str]:
        """Keys of everything that the store holds as observed by a host."""
        return [key for key in self._world.items if key.startswith("observed/") and key.endswith(f"/{host}")]

    def _is_current(self, host: str, observed: wire.Observation) -> bool:
        """Whether a host may say this: of itself, in addresses that are some, and of what concerns it or did so when it
        said it last. What has no record may be left over from before; no other host is believed to have it, either."""
        if observed.host != host:
            return False
        grid: Grid | None
        match observed:
            case ObservedHost():
                return True
            case ObservedLeases():
                return any(host in givers(one.dynamics.get(observed.port)) for one in self._world.grids.values())
            case ObservedPort():
                if not all(_is_address(text) for text in observed.leased):
                    return False
                home = self._world.homes.get(observed.port)
                if home is None:
                    return _PORT.fullmatch(observed.port) is not None
                grid = self._world.grids[home]
                binding = grid.bindings.get(observed.port)
                if binding is not None and host in (binding.active, binding.source, binding.target):
                    return True
                name = grid.ports[observed.port].workspace
            case ObservedWorkspace():
                if not (_NAME.fullmatch(observed.playground) and _NAME.fullmatch(observed.workspace)):
                    return False
                grid, name = self._world.grids.get(observed.playground), observed.workspace
            case _:
                assert_never(observed)
        workspace = grid.workspaces.get(name) if grid is not None else None
        if grid is None or workspace is None or self._world.modified(key_of(observed)):
            return True
        move = grid.migrations.get(name)
        concerns = self._world.ties.does_concern(host, workspace.playground, workspace.name)
        return concerns or (move is not None and host in (move.source, move.target))


def _is_same_address(one: str, other: str) -> bool:
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False


_PORT = re.compile("[0-9a-f]{12}")
_NAME = re.compile("[^/]{1,63}")
_SAID = (ObservedHost, ObservedLeases, ObservedPort, ObservedWorkspace)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text
