"""One host's agent: records in, kernel and guests converged, observations out. Every pass may be repeated or
interrupted.

A pass: derive → data plane → responder → guests → report. It runs after each change of the view, of a guest, or of the
kernel, and every few seconds to find drift that no event told of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from dhcp.scope import PortScope
from dhcp.server import LeaseKind
from overlay.kernel.converge import Outcome, PortState
from overlay.state import HostState, PortId
from playground import __version__, wire
from playground.agent.execute import execute
from playground.agent.guests import Guests
from playground.agent.link import Link
from playground.derive import Derivation, Derived, Role, Setting, Want
from playground.records import ObservedHost, ObservedPort, ObservedWorkspace, key_of
from playground.responder.client import Client
from playground.responder.protocol import Leased, Problem, port_key
from playground.view import View, freeze, host_scope, thaw
from playground.workspaces.drivers.api import Driver, GuestState
from policies.kernel.nft import NftError

log = logging.getLogger("agent")

PERIOD_S = 3.0
"""The longest time that drift which no kernel event tells of goes unseen."""

RETRY_S = 1.0

RENEW_S = 3.0
"""How often a guest whose address has changed is asked to ask for it."""

WATCH_S = 0.5
"""How long one wait for a kernel event is: an agent that is told to end waits it out."""

GUARD_S = 10.0
"""How often the rules that keep address delivery at the port are read back, though nothing told of a change."""

VOUCH_S = 30.0
"""How often the cache notes that a controller still vouches for it."""


class Plane(Protocol):
    """The kernel's door as the agent uses it (`overlay.kernel.apply.DataPlane`, or its double)."""

    def ensure(self) -> int: ...

    def converge(self, desired: HostState) -> Outcome: ...

    def wait_event(self, timeout_s: float | None = None) -> bool: ...


class Guard(Protocol):
    """The data plane's filter rules as the agent uses them (`policies.kernel.watch.GuardWatch`, or its double)."""

    def fileno(self) -> int: ...

    def ensure(self) -> bool: ...

    def touched(self) -> bool: ...


class Agent:
    """Composed by `playground.agent.__main__`; `run` never returns but by cancellation.

    guard: nothing is forwarded, and no guest is started, while it can't be put in force.
    """

    def __init__(
        self,
        *,
        host: str,
        underlay: str,
        dataplane: Plane,
        dataplane_name: str,
        guard: Guard,
        drivers: Mapping[str, Driver],
        responder: Client,
        link: Link,
        cache: Path,
        max_stale_s: float = 3600.0,
    ) -> None:
        self._host = host
        self._underlay = underlay
        self._dataplane = dataplane
        self._dataplane_name = dataplane_name
        self._guard = guard
        self._guarded_at = 0.0
        self._guard_due = True
        self._unguarded = ""
        self._drivers = drivers
        self._responder = responder
        self._link = link
        self._cache = cache
        self._max_stale_s = max_stale_s
        self._view = View()
        self._incoming: list[wire.Enter | wire.Changed | wire.Leave] = []
        self._derivation = Derivation()
        self._derived: Derived | None = None
        self._outcome: Outcome | None = None
        self._domain = "internal"
        self._resolvers: tuple[str, ...] = ()
        self._connected, self._lost = False, ""
        self._synced = False
        self._vouched_utc_s = 0.0
        self._saved_utc_s = 0.0
        self._saved_revision = -1
        self._applied = 0
        self._repaired: Counter[str] = Counter()
        self._reported: dict[str, wire.Observation] = {}
        self._report_whole = True
        self._leased: dict[str, dict[str, bool]] = {}
        self._problems: dict[str, str] = {}
        self._errors: set[str] = set()
        self._broken = ""
        self._renewed_at: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._look = True
        self._started = 0
        self._finished = 0
        self._passed = asyncio.Condition()
        self._orders: set[asyncio.Task[None]] = set()
        self._guests = Guests(drivers, self._is_ready, self._is_stale, self._begins_anew, self._pass_done, self._again)

    # what wakes a pass

    def _again(self) -> None:
        self._wake.set()

    async def said(self, message: wire.FromController) -> None:
        """Takes one message of the controller."""
        match message:
            case wire.Welcome():
                self._domain = message.domain
                self._resolvers = tuple(message.resolvers)
                self._max_stale_s = message.max_stale_s
            case wire.Execute():
                task = asyncio.create_task(execute(message, self._link, self._drivers))
                self._orders.add(task)
                task.add_done_callback(self._orders.discard)
            case wire.Enter() | wire.Changed() | wire.Leave():
                self._incoming.append(message)
            case wire.Complete():
                self._take(message)

    def _take(self, complete: wire.Complete) -> None:
        """Takes what was said since the last `Complete` in one go: a pass must never see half of a change."""
        if not self._synced:
            self._view.begin()
        for message in self._incoming:
            self._view.take(message)
            if message.scope == host_scope(self._host):
                self._look = True  # a move that began or ended elsewhere may have changed who carries a guest
        self._incoming.clear()
        self._view.take(complete)
        self._synced = True
        self._vouched_utc_s = time.time()
        self._again()

    async def connection_changed(self, connected: bool, cause: str) -> None:
        """Notes a connect or a loss; after a connect everything observed is said anew."""
        if connected:
            log.info("controller connected")
        elif self._connected or cause != self._lost:
            log.warning("controller not connected, tried again cause=%r", cause)
        self._connected, self._lost = connected, cause
        self._report_whole = True
        self._synced = False
        self._incoming.clear()
        self._again()

    def leased(self, leased: Leased) -> None:
        """Notes what the responder told a client, or saw it form."""
        held = self._leased.setdefault(leased.port, {})
        if leased.kind is LeaseKind.BOUND:
            for address in [a for a in held if ":" not in a]:
                del held[address]
        held[leased.address] = leased.kind in (LeaseKind.BOUND, LeaseKind.FORMED)
        self._again()

    def problem(self, problem: Problem) -> None:
        """Notes why the responder can't serve a key, or that it can now."""
        if problem.cause:
            self._problems[problem.key] = problem.cause
        else:
            self._problems.pop(problem.key, None)
        self._again()

    def answering(self) -> None:
        """Notes that the responder has caught up."""
        self._again()

    # the pass

    async def run(self) -> None:
        """Converges for ever."""
        await asyncio.to_thread(self._dataplane.ensure)
        self._thaw()
        watcher = asyncio.create_task(self._watch_kernel())
        link = asyncio.create_task(self._link.run())
        answers = asyncio.create_task(self._responder.run())
        asyncio.get_running_loop().add_reader(self._guard.fileno(), self._hear_guard)
        try:
            while True:
                self._wake.clear()
                await self._guarded_pass()
                for task in (watcher, link, answers):
                    if task.done():
                        task.result()
                try:
                    async with asyncio.timeout(PERIOD_S):
                        await self._wake.wait()
                except TimeoutError:
                    self._look = True
        finally:
            asyncio.get_running_loop().remove_reader(self._guard.fileno())
            for task in (watcher, link, answers):
                task.cancel()
            await asyncio.gather(watcher, link, answers, return_exceptions=True)

    async def _watch_kernel(self) -> None:
        while True:
            if await asyncio.to_thread(self._dataplane.wait_event, WATCH_S):
                self._again()

    def _hear_guard(self) -> None:
        if self._guard.touched():
            self._guard_due = True
            self._again()

    async def _pass_done(self) -> None:
        """Returns when a whole pass that started after this call has ended."""
        wanted = self._started + 1
        self._again()
        async with self._passed:
            await self._passed.wait_for(lambda: self._finished >= wanted)

    def _may_open(self) -> bool:
        return self._synced or time.time() - self._vouched_utc_s <= self._max_stale_s

    async def _guarded_pass(self) -> None:
        """A bug costs a pass, not the agent: it is said in the log and in `hosts`, and the next pass tries again."""
        try:
            await self._pass()
            if self._broken:
                self._broken = ""
                self._again()
        except Exception as error:
            log.exception("pass failed, tried again")
            self._broken = f"a pass failed: {type(error).__name__}: {error}"
            await self._report_broken()
            await asyncio.sleep(RETRY_S)

    async def _report_broken(self) -> None:
        """What the last whole pass found, and that the present one failed."""
        try:
            await self._report()
        except Exception:
            log.exception("report failed too")

    async def _pass(self) -> None:
        self._started += 1
        if self._look:
            self._look = False
            await self._guests.observe()
        if self._view.complete:
            self._save()  # first: an agent that dies now goes on from what it has begun, never from what was before
            revision = self._view.revision
            setting = Setting(
                host=self._host,
                underlay=self._underlay,
                domain=self._domain,
                resolvers=self._resolvers,
                dataplane=self._dataplane_name,
                arrived=self._guests.arrived(),
            )
            await self._ensure_guard()
            derived = self._derived = self._derivation.derive(self._view, setting)
            outcome = self._outcome = await asyncio.to_thread(self._dataplane.converge, derived.state)
            # after the data plane: the responder finds the namespaces and ports that it is told of
            self._responder.replace(derived.services)
            said, self._errors = self._errors, {str(error) for error in outcome.errors}
            for error in sorted(self._errors - said):
                log.warning("data plane error=%s", error)
            if outcome.repaired:
                log.warning("drift repaired %s", " ".join(f"{k}={n}" for k, n in outcome.repaired.items()))
                self._repaired.update(outcome.repaired)
                self._guard_due = True
                self._again()
            if not outcome.errors:
                self._applied = revision
            self._guests.step(derived.wants, self._may_open() and not self._unguarded, may_end=True)
        async with self._passed:
            self._finished = self._started
            self._passed.notify_all()
        await self._report()

    async def _ensure_guard(self) -> None:
        now = time.monotonic()
        if not self._guard_due and now - self._guarded_at < GUARD_S:
            return
        self._guard_due = False
        try:
            loaded = await asyncio.to_thread(self._guard.ensure)
        except NftError as error:
            self._guard_due = True
            if self._unguarded != str(error):
                log.error("guard not in force, nothing is started error=%s", error)
            self._unguarded = str(error)
            return
        if loaded and self._guarded_at:
            self._repaired["guard"] += 1
            log.warning("guard loaded again")
        self._guarded_at, self._unguarded = now, ""

    def _is_ready(self, want: Want) -> bool:
        """Whether every port of a guest is programmed and answered for."""
        outcome, derived = self._outcome, self._derived
        if outcome is None or derived is None:
            return False
        for port in want.ports:
            status = outcome.ports.get(PortId(port))
            if status is None or status.state not in (PortState.FORWARDING, PortState.GATED):
                return False
            if port_key(port) in derived.services and not self._responder.answers(port_key(port)):
                return False
        return True

    def _is_stale(self, want: Want) -> bool:
        """Whether a client holds an IPv4 address that is not its port's any more, and would be told the new one."""
        if self._derived is None or not self._is_ready(want):
            return False
        now = time.monotonic()
        if now - self._renewed_at.get(want.id, 0.0) < RENEW_S:
            return False
        for port in want.ports:
            scope = self._derived.services.get(port_key(port))
            address = scope.v4.address if isinstance(scope, PortScope) and scope.v4 is not None else None
            held = [a for a, is_held in self._leased.get(port, {}).items() if is_held and ":" not in a]
            if address is not None and held and address not in held:
                self._renewed_at[want.id] = now
                return True
        return False

    def _begins_anew(self, want: Want) -> None:
        """Whatever comes up at these ports next has asked for nothing yet."""
        for port in want.ports:
            self._leased.pop(port, None)
        self._responder.forget(port_key(port) for port in want.ports)

    # observations

    async def _report(self) -> None:
        if not self._synced or self._derived is None or self._outcome is None:
            return
        observations = {key_of(o): o for o in self._observations(self._derived, self._outcome)}
        whole = self._report_whole
        fresh = [o for key, o in observations.items() if whole or self._reported.get(key) != o]
        gone = [] if whole else [key for key in self._reported if key not in observations]
        if not (fresh or gone or whole):
            return
        if await self._link.say(wire.Report(whole, fresh, gone)):
            self._reported = observations
            self._report_whole = False

    def _observations(self, derived: Derived, outcome: Outcome) -> list[wire.Observation]:
        found: list[wire.Observation] = []
        bindings = {b.port: b for s in self._view.playgrounds().values() for b in s.bindings.values()}
        for network in derived.state.networks.values():
            for port in network.ports:
                status = outcome.ports.get(port)
                binding = bindings[port]
                held = dict.fromkeys(binding.leased, True) | self._leased.get(port, {})
                found.append(
                    ObservedPort(
                        port=port,
                        host=self._host,
                        generation=binding.generation,
                        programmed=status.state.value if status else "waiting",
                        cause=(status.cause if status else "") or self._problems.get(port_key(port), ""),
                        leased=tuple(sorted(address for address, is_held in held.items() if is_held)),
                    )
                )
        for want in derived.wants.values():
            if want.role is not Role.AWAY or self._guests.state(want.id) is not GuestState.ABSENT:
                found.append(self._observed_workspace(want))
        for guest, (_, seen) in self._guests.observed.items():
            if guest not in derived.wants and seen.name:
                found.append(
                    ObservedWorkspace(
                        playground=seen.playground, workspace=seen.name, host=self._host, generation=0, state="leaving"
                    )
                )
        guard = [f"guard: {self._unguarded}"] if self._unguarded else []
        guard += [self._broken] if self._broken else []
        problems = [f"{key}: {cause}" for key, cause in sorted(self._problems.items()) if not key.startswith("port/")]
        found.append(
            ObservedHost(
                host=self._host,
                version=__version__,
                applied=self._applied,
                repaired=dict(self._repaired),
                problems=tuple([*guard, *(str(e) for e in outcome.errors), *problems][:20]),
            )
        )
        return found

    def _observed_workspace(self, want: Want) -> ObservedWorkspace:
        state = self._guests.state(want.id)
        cause = self._guests.causes.get(want.id, "")
        match want.role, state:
            case (Role.RUN, GuestState.RUNNING) if self._guests.differs(want):
                said = "preparing"
            case (Role.RUN, GuestState.RUNNING):
                said = "running"
            case (Role.TAKE, GuestState.RUNNING) if self._guests.has_arrived(want):
                said = "running"
            case (Role.ARRIVE | Role.TAKE, GuestState.ELSEWHERE) if self._is_ready(want):
                said = "prepared"
            case (Role.STOP, GuestState.ABSENT):
                said = "stopped"
            case (Role.STOP | Role.HOLD | Role.AWAY, _):
                said = "leaving"
            case _:
                said = "preparing"
        if cause and said == "preparing":
            said = "failed"
        return ObservedWorkspace(
            playground=want.playground,
            workspace=want.name,
            host=self._host,
            generation=want.generation,
            state=said,
            cause=cause,
            pause_ms=self._guests.pauses.get(want.id),
        )

    # the cache

    def _thaw(self) -> None:
        try:
            view, cached = thaw(self._cache.read_bytes())
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            log.error("cache not readable, waiting for a controller file=%s error=%s", self._cache, error)
            return
        self._view, self._domain, self._resolvers = view, cached.domain, tuple(cached.resolvers)
        self._vouched_utc_s = cached.at_utc_s
        log.info("view read from cache age_s=%.0f revision=%d", time.time() - cached.at_utc_s, cached.revision)

    def _save(self) -> None:
        if not self._synced:
            return
        now = time.time()
        if self._saved_revision == self._view.revision and now - self._saved_utc_s < VOUCH_S:
            return
        data = freeze(self._view, now, self._domain, list(self._resolvers))
        part = self._cache.with_suffix(".part")
        part.write_bytes(data)
        part.replace(self._cache)
        self._saved_revision, self._saved_utc_s = self._view.revision, now
