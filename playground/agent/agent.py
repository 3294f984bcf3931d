"""One host's agent: records in, kernel and guests converged, observations out. Every pass may be repeated or
interrupted.

A pass: derive → data plane → responder → guests → report. It runs after each change of the view, of a guest, or of the
kernel, and costs what changed; every few seconds, and after whatever went wrong, it looks at everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from dhcp.leases import Lease
from dhcp.scope import PortScope
from overlay.kernel.converge import ADOPTED_AT_ONCE, Keeper, Outcome, PortState
from overlay.kernel.monitor import Heard
from overlay.kernel.namespaces import DIRECTORY
from overlay.parts import Focus, Part, between
from overlay.state import HostState, NetworkId, PortId
from playground import __version__, wire
from playground.agent.announcements import Announcements
from playground.agent.cache import Cache, Said
from playground.agent.enforcing import Door, Enforcing
from playground.agent.evidence import Evidence
from playground.agent.execute import execute
from playground.agent.fitness import Fitness
from playground.agent.focus import differing, guests_in, widen
from playground.agent.gateways import Gateways
from playground.agent.given import Given
from playground.agent.guests import Guests
from playground.agent.held import Held
from playground.agent.hooked import Hooked, Notices
from playground.agent.lenience import Lenience
from playground.agent.link import Link
from playground.agent.reports import Reports, leaving, observed_port, observed_workspace
from playground.agent.standing import StandingFile
from playground.agent.strangers import Strangers, stranger
from playground.derive import Derivation, Derived, Role, Setting, Want
from playground.questions import Clients, Leaving, TellArrival, TellClients, TellDeparture, TellLeaving
from playground.records import (
    ObservedHost,
    ObservedWorkspace,
    key_of,
    workspace_id,
)
from playground.responder.client import Client
from playground.responder.protocol import Leased, Problem, Router, port_key
from playground.view import View, host_scope
from playground.workspaces.drivers.api import Driver, DriverError, GuestState, Hypervisor

log = logging.getLogger("agent")

PERIOD_S = 3.0
"""The longest time that drift which no kernel event tells of goes unseen."""

RETRY_S = 1.0

WATCH_S = 0.5
"""How long one wait for a kernel event is: an agent that is told to end waits it out."""

DOUBT_S = 30.0
"""How often all rules are read back, though nothing told of a change, and the kernel has counted none."""


TOLD_S = 3.0
"""How long an agent that begins waits for its responder before it reports: what clients hold is not known before, and a
move that ended just then would take it for nothing."""


class Plane(Protocol):
    """The kernel's door as the agent uses it (`overlay.kernel.apply.DataPlane`, or its double)."""

    keeper: Keeper | None

    def ensure(self) -> int: ...

    def converge(self, desired: HostState) -> Outcome: ...

    def converge_changes(self, desired: HostState, changes: Focus) -> Outcome: ...

    def wait_event(self, timeout_s: float | None = None) -> bool: ...

    def heard(self) -> Heard: ...


class Agent:
    """Composed by `playground.agent.__main__`; `run` never returns but by cancellation.

    door: of the rules that each port has to have in force before it joins its bridge.
    """

    def __init__(
        self,
        *,
        host: str,
        underlay: str,
        dataplane: Plane,
        dataplane_name: str,
        door: Door,
        gateways: Gateways,
        drivers: Mapping[str, Driver],
        responder: Client,
        link: Link,
        cache: Path,
        max_stale_s: float = 3600.0,
        standing: StandingFile | None = None,
        hook: Path | None = None,
        consoles: Path = Path("/nonexistent"),
    ) -> None:
        """hook: where libvirt's hook asks, nowhere if None; consoles: see `Hooked`."""
        self._host = host
        self._underlay = underlay
        self._dataplane = dataplane
        self._dataplane_name = dataplane_name
        self._door = door
        self._enforcing = dataplane.keeper = Enforcing(door)
        self._evidence = Evidence(
            DIRECTORY / dataplane_name,
            door,
            lambda: self._enforcing.in_force,
            link.say,
            lambda: list(self._enforcing.mended),
        )
        self._fitness = Fitness(drivers, underlay, link.say)
        self._announcements = Announcements(DIRECTORY / dataplane_name, self._announced)
        self._strangers = Strangers(DIRECTORY / dataplane_name, self._whose, self._again)
        self._lenience = Lenience(DIRECTORY / dataplane_name)
        self._rules_due = False
        self._doubted_s = 0.0
        """When the rules were read back last (monotonic)."""
        self._gateways = gateways
        self._carried: set[str] = set()
        """Keys of what has been said of gateways."""
        self._drivers = drivers
        self._responder = responder
        self._link = link
        self._cache = Cache(cache)
        self._max_stale_s = max_stale_s
        self._standing = standing or StandingFile()
        self._given = Given(host, responder.fence)
        self._followed = self._served = 0
        """The revisions that were followed last, and by which the responder answers with all it gave before heard."""
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
        self._unsaved: list[Said] | None = None
        """What was said since the cache was written; None when only the whole view will do."""
        self._forgetful = ""
        self._applied = 0
        self._repaired: Counter[str] = Counter()
        self._reports = Reports()
        self._named: dict[str, str] = {}
        """Keys of what has been said of guests, by id."""
        self._held = Held()
        self._told_by = time.monotonic() + TOLD_S
        self._knows_leases = False
        """Whether what was noted last may be said: the responder had told before what its clients hold, or has had
        time enough."""
        self._problems: dict[str, str] = {}
        self._errors: set[str] = set()
        self._broken = ""
        self._wake = asyncio.Event()
        self._look = True
        self._look_at: set[str] = set()
        self._touched: set[PortId] = set()
        """Ports of which something is to be said anew, though nothing has changed in the data plane."""
        self._started = 0
        self._finished = 0
        self._passed = asyncio.Condition()
        self._orders: set[asyncio.Task[None]] = set()
        self._guests = Guests(
            drivers,
            self._is_ready,
            self._is_stale,
            self._begins_anew,
            self._pass_done,
            self._again,
            self._landed,
            lambda: self._synced,
        )
        self._notices = Notices(link.say)
        self._hooked = None
        if hook is not None:
            self._hooked = Hooked(
                hook,
                consoles,
                self._guests,
                lambda: self._derived.wants if self._derived is not None else {},
                self._is_ready,
                self._pass_within,
                self._notices.tell,
            )

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
            case wire.Ask(question=TellClients() as question):
                answering = asyncio.create_task(self._tell_clients(message.id, question))
                self._orders.add(answering)
                answering.add_done_callback(self._orders.discard)
            case wire.Ask(question=(TellDeparture() | TellArrival()) as question):
                telling = asyncio.create_task(self._fitness.answer(message.id, question))
                self._orders.add(telling)
                telling.add_done_callback(self._orders.discard)
            case wire.Ask(question=TellLeaving() as leaving):
                telling = asyncio.create_task(self._tell_leaving(message.id, leaving))
                self._orders.add(telling)
                telling.add_done_callback(self._orders.discard)
            case wire.Ask():
                self._evidence.asked(message)
            case wire.Noted():
                self._notices.noted(message)
            case wire.Enough():
                self._evidence.enough(message)
            case wire.Enter() | wire.Changed() | wire.Leave():
                self._incoming.append(message)
            case wire.Complete():
                self._take(message)

    def _take(self, complete: wire.Complete) -> None:
        """Takes what was said since the last `Complete` in one go: a pass must never see half of a change."""
        if not self._synced:
            self._view.begin()
            self._unsaved = None
        for message in self._incoming:
            self._view.take(message)
            if message.scope == host_scope(self._host):
                self._look_at |= guests_in(message)  # what began or ended elsewhere may have changed who carries them
        self._view.take(complete)
        if self._unsaved is not None:
            self._unsaved += [*self._incoming, complete]
        self._incoming.clear()
        self._synced = True
        self._vouched_utc_s = time.time()
        self._standing.connected(self._vouched_utc_s)
        self._again()

    async def connection_changed(self, connected: bool, cause: str) -> None:
        """Notes a connect or a loss; after a connect everything observed is said anew."""
        if connected:
            log.info("controller connected")
        elif self._connected or cause != self._lost:
            log.warning("controller not connected, tried again cause=%r", cause)
        is_news = connected or self._connected
        self._connected, self._lost = connected, cause
        if self._synced:
            self._vouched_utc_s = time.time()  # till now there was a controller, however quiet: the view was its word
        if not connected:
            self._tell_alone(cause)
            self._evidence.forget()
        self._reports.begin()
        self._synced = False
        self._incoming.clear()
        if is_news:
            self._again()

    def _tell_alone(self, cause: str) -> None:
        since = self._vouched_utc_s or time.time()
        self._standing.alone(since, cause, self._vouched_utc_s + self._max_stale_s if self._view.complete else 0.0)

    def leased(self, leased: Leased) -> None:
        """Notes what the responder told a port's client, or saw it form."""
        self._held.leased(leased)
        self._touched.add(PortId(leased.port))
        self._again()

    def given(self, lease: Lease) -> None:
        """Notes what the responder gave to a machine behind a port."""
        self._given.take(lease)
        self._again()

    def router(self, router: Router) -> None:
        """Notes that a virtual router speaks at a port, if its binding says that it is elsewhere."""
        binding = self._derived.bound.get(PortId(router.port)) if self._derived is not None else None
        if binding is None or not self._held.router(router, binding, time.time()):
            return
        self._touched.add(PortId(router.port))
        self._again()

    def problem(self, problem: Problem) -> None:
        """Notes why the responder can't serve a key, or that it can now."""
        if problem.cause:
            self._problems[problem.key] = problem.cause
        else:
            self._problems.pop(problem.key, None)
        if (port := problem.key.removeprefix("port/")) != problem.key:
            self._touched.add(PortId(port))
        self._again()

    def answering(self) -> None:
        """Notes that the responder has caught up."""
        self._again()

    def told(self, port: str) -> PortScope | None:
        """What the client of a port here is told; None where that is not known (yet)."""
        scope = self._derived.services.get(port_key(port)) if self._derived is not None else None
        return scope if isinstance(scope, PortScope) else None

    def changed(self, guest: str) -> None:
        """Notes that a hypervisor told of a guest, by its id; of any where that is empty."""
        if guest:
            self._look_at.add(guest)
        else:
            self._look = True
        self._again()

    def paused(self, guest: str) -> None:
        """Notes that a hypervisor has stopped a guest that it copies away, before it can be looked at."""
        self._land(self._guests.paused(guest))

    async def _tell_clients(self, id: str, question: TellClients) -> None:
        """Answers what happened between clients and the responder."""
        try:
            told = await self._responder.ask(question.ports)
        except (OSError, TimeoutError) as error:
            problem = f"its responder does not answer: {error}" if str(error) else "its responder is silent"
            await self._link.say(wire.Answer(id, msgspec.Raw(b"null"), problem=problem))
            return
        stopped = await self._evidence.stopped(question.ports)
        ports = [msgspec.structs.replace(one, stopped=stopped.get(one.port, 0)) for one in told]
        mine = {port_key(port) for port in question.ports}
        problems = {key: cause for key, cause in self._problems.items() if key in mine or not key.startswith("port/")}
        await self._link.say(wire.Answer(id, msgspec.Raw(msgspec.json.encode(Clients(ports, problems)))))

    async def _tell_leaving(self, id: str, question: TellLeaving) -> None:
        """Answers whether a guest is on its way from here, whoever sent it."""
        driver = self._drivers.get(question.driver)
        try:
            leaving = Leaving(isinstance(driver, Hypervisor) and await driver.is_leaving(question.guest))
        except DriverError as error:
            await self._link.say(wire.Answer(id, msgspec.Raw(b"null"), problem=str(error)))
            return
        await self._link.say(wire.Answer(id, msgspec.Raw(msgspec.json.encode(leaving))))

    # the pass

    async def run(self) -> None:
        """Converges for ever."""
        await asyncio.to_thread(self._dataplane.ensure)
        self._recall()
        self._tell_alone("")
        watcher = asyncio.create_task(self._watch_kernel())
        link = asyncio.create_task(self._link.run())
        answers = asyncio.create_task(self._responder.run())
        others = [asyncio.create_task(self._hooked.run())] if self._hooked is not None else []
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._hear_rules)
        looked_s = time.monotonic()
        try:
            while True:
                self._wake.clear()
                if self._look or time.monotonic() - looked_s >= PERIOD_S:  # also when something else woke us in between
                    self._look, looked_s = True, time.monotonic()
                await self._guarded_pass()
                for task in (watcher, link, answers, *others):
                    if task.done():
                        task.result()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD_S):
                        await self._wake.wait()
        finally:
            asyncio.get_running_loop().remove_reader(self._door.fileno())
            for task in (watcher, link, answers, *others):
                task.cancel()
            await asyncio.gather(watcher, link, answers, *others, return_exceptions=True)
            self._announcements.close()
            self._evidence.close()
            self._strangers.close()
            self._cache.close()

    async def _watch_kernel(self) -> None:
        while True:
            if await asyncio.to_thread(self._dataplane.wait_event, WATCH_S):
                self._again()

    def _hear_rules(self) -> None:
        if self._door.touched():
            self._rules_due = True
            self._again()

    async def _pass_within(self, seconds: float) -> None:
        """Returns when a pass has converged the data plane, or after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._passed:
                await self._passed.wait()

    async def _pass_done(self) -> None:
        """Returns when a pass that started after this call has converged the data plane."""
        wanted = self._started + 1
        self._again()
        async with self._passed:
            await self._passed.wait_for(lambda: self._finished >= wanted)

    def _may_open(self) -> bool:
        # abs: to a clock that went back, as of a machine without one of its own, nothing would ever be old
        return self._synced or abs(time.time() - self._vouched_utc_s) <= self._max_stale_s

    async def _guarded_pass(self) -> None:
        """A bug costs a pass, not the agent: it is said in the log and in `hosts`, and the next pass tries again."""
        try:
            await self._pass()
            if self._broken:
                self._broken = ""
                self._again()
        except Exception as error:
            log.exception("pass failed, tried again")
            self._look = True
            self._broken = f"a pass failed: {type(error).__name__}: {error}"
            await self._report_broken()
            await asyncio.sleep(RETRY_S)

    async def _report_broken(self) -> None:
        """What the last pass that ended found, and that the present one failed."""
        try:
            self._reports.note(self._observed_host())
            await self._report()
        except Exception:
            log.exception("report failed too")

    async def _pass(self) -> None:
        self._started += 1
        is_whole, self._look = self._look, False
        look_at, self._look_at = self._look_at, set()
        if is_whole:
            self._evidence.listen()
            self._strangers.listen()
        if is_whole or look_at:
            await self._guests.observe(None if is_whole else look_at)
        if self._view.complete:
            self._remember()  # first: an agent that dies now goes on from what it has begun, never from what was before
            await self._follow(is_whole)
        await self._converged()
        await self._report()

    async def _converged(self) -> None:
        """What this pass had to do in the data plane is done."""
        async with self._passed:
            self._finished = self._started
            self._passed.notify_all()

    async def _follow(self, is_whole: bool) -> None:
        """Has the host follow the view: where that differs from what was followed before, or everywhere."""
        setting = Setting(
            host=self._host,
            underlay=self._underlay,
            domain=self._domain,
            resolvers=self._resolvers,
            dataplane=self._dataplane_name,
            arrived=self._guests.arrived(),
        )
        revision = self._view.revision
        if self._synced:
            self._vouched_utc_s = time.time()
        self._given.vouched(self._vouched_utc_s)
        self._given.admit(self._view, time.time())
        before, derived = self._derived, await self._derive(setting)
        touched, self._touched = self._touched, set()
        self._derived = derived
        await self._gateways.follow(derived.gateways, is_whole)
        ports = await self._converge(before, derived, is_whole) | touched
        await self._converged()
        # after the data plane: the responder finds the namespaces and ports that it is told of
        if before is None or derived.services is not before.services:
            self._responder.replace(derived.services)
        if self._outcome is not None and not self._outcome.errors and not self._enforcing.cause:
            self._applied = revision
        self._followed = revision
        changed = self._changed_guests(before, derived, ports, is_whole)
        guests = self._guests.step(derived.wants, changed, self._may_open())
        self._announcements.expect(self._guests.expected())
        self._note(derived, ports | self._touched, guests, is_whole)  # what came meanwhile is known already

    async def _derive(self, setting: Setting) -> Derived:
        """What the view means, with the lenience that flows older than their policies have."""
        before, over = self._derived, self._lenience.over()
        if over and before is not None:
            await asyncio.to_thread(self._lenience.turn, before.rules)
        self._lenience.end(over)
        derived = self._derivation.derive(self._view, replace(setting, lenient=self._lenience.playgrounds()))
        if before is None:  # an agent before this one may have been lenient
            await asyncio.to_thread(self._lenience.turn, derived.rules)
        elif self._lenience.begin(before, derived):
            derived = self._derivation.derive(self._view, replace(setting, lenient=self._lenience.playgrounds()))
        return derived

    async def _converge(self, before: Derived | None, derived: Derived, is_whole: bool) -> set[PortId]:
        """Brings the data plane to what was derived: all of it, or where that differs from before and where the kernel
        told of something. Returns the ports of which something is to be said."""
        heard = self._dataplane.heard()
        if is_whole or before is None or self._outcome is None or self._outcome.errors or heard.everything:
            outcome = await asyncio.to_thread(self._bring, derived, None)
            ports = {*derived.bound, *(before.bound if before is not None else ())}
        else:
            focus = between(before.state, derived.state)
            adopted, postponed = self._outcome.postponed[:ADOPTED_AT_ONCE], self._outcome.postponed[ADOPTED_AT_ONCE:]
            widen(focus, heard | Heard(ports=frozenset(adopted)), derived.state)
            ports = {id for id, _ in differing(before.bound, derived.bound)}
            outcome = await asyncio.to_thread(self._bring, derived, focus)
            ports |= {id for id, status in outcome.ports.items() if self._outcome.ports.get(id) != status}
            known = {**self._outcome.ports, **outcome.ports}
            outcome = replace(
                outcome,
                ports={id: status for id, status in known.items() if id in derived.bound},
                postponed=tuple(dict.fromkeys((*outcome.postponed, *postponed))),
            )
        self._outcome = outcome
        said, self._errors = self._errors, {str(error) for error in outcome.errors}
        for error in sorted(self._errors - said):
            log.warning("data plane error=%s", error)
        if outcome.repaired:
            log.warning("drift repaired %s", " ".join(f"{k}={n}" for k, n in outcome.repaired.items()))
            self._repaired.update(outcome.repaired)
            self._again()
        if outcome.postponed:
            self._again()
        return ports

    def _bring(self, derived: Derived, focus: dict[NetworkId, Part | None] | None) -> Outcome:
        """Rules first, for what is to be let in by them; those of what has left go last. focus: None for everything."""
        said, counted = self._enforcing.cause, self._enforcing.repaired.copy()
        is_doubted = focus is None and time.monotonic() - self._doubted_s >= DOUBT_S
        if is_doubted:
            self._doubted_s = time.monotonic()
        is_due, self._rules_due = self._rules_due or focus is None, False
        held = self._enforcing.want(derived.rules, is_due, is_doubted)
        if focus is None:
            outcome = self._dataplane.converge(derived.state)
        else:
            widen(focus, Heard(ports=frozenset(held)), derived.state)
            outcome = self._dataplane.converge_changes(derived.state, focus) if focus else Outcome()
        if not outcome.errors:
            self._enforcing.settle()
        if self._enforcing.cause != said:
            log.error("rules not in force cause=%s", self._enforcing.cause or "they are now")
        if repaired := self._enforcing.repaired - counted:
            log.warning("rules repaired %s", " ".join(f"{k}={n}" for k, n in repaired.items()))
        return outcome

    def _changed_guests(
        self, before: Derived | None, derived: Derived, ports: Iterable[PortId], is_whole: bool
    ) -> set[str]:
        """Ids of guests that may have something to do now, beside those that have not done what they are to do."""
        if is_whole or before is None:
            return derived.wants.keys() | self._guests.observed.keys()
        found = {id for id, _ in differing(before.wants, derived.wants)}
        told = (key.removeprefix("port/") for key, _ in differing(before.services, derived.services))
        bindings = (derived.bound.get(port) for port in {*ports, *map(PortId, told)})
        return found | {workspace_id(b.playground, b.workspace) for b in bindings if b is not None}

    def _is_ready(self, want: Want) -> bool:
        """Whether every port of a guest is programmed and answered for."""
        outcome, derived = self._outcome, self._derived
        if outcome is None or derived is None:
            return False
        # the end of what a hypervisor copies here is opened, and taken, in the midst of that
        waits = want.role in (Role.ARRIVE, Role.TAKE) and isinstance(self._drivers.get(want.driver), Hypervisor)
        ready = (PortState.FORWARDING, PortState.GATED, *((PortState.WAITING,) if waits else ()))
        for port in want.ports:
            status = outcome.ports.get(PortId(port))
            if status is None or status.state not in ready:
                return False
            if port_key(port) in derived.services and not self._responder.answers(port_key(port)):
                return False
        return True

    def _is_stale(self, want: Want) -> bool:
        """Whether a client would be told another address or router than it has (`Held.is_stale`)."""
        derived = self._derived
        if derived is None or not self._is_ready(want):
            return False
        scopes = ((port, derived.services.get(port_key(port))) for port in want.ports)
        return any(
            self._held.is_stale(port, scope, derived.bound.get(PortId(port)), time.monotonic())
            for port, scope in scopes
            if isinstance(scope, PortScope)
        )

    def _begins_anew(self, want: Want) -> None:
        """Whatever comes up at these ports next has asked for nothing yet."""
        for port in want.ports:
            binding = self._derived.bound.get(PortId(port)) if self._derived is not None else None
            self._held.begin(port, binding)
            self._touched.add(PortId(port))
        self._responder.forget(port_key(port) for port in want.ports)

    # observations

    async def _landed(self, want: Want) -> None:
        """Says at once that a guest has arrived: peers are re-pointed by that word."""
        if (seen := self._observed_guest(want.id, want)) is not None:
            self._reports.note(seen)
            await self._report()

    def _announced(self, guest: str) -> None:
        """A machine says of itself that it runs here, before its hypervisor does: it is believed at once."""
        self._land(self._guests.announced(guest))

    def _land(self, want: Want | None) -> None:
        """Says what has just become of a guest before anything else is done."""
        if want is not None:
            task = asyncio.create_task(self._landed(want))
            self._orders.add(task)
            task.add_done_callback(self._orders.discard)
            self._again()

    async def _report(self) -> None:
        if not self._synced or self._derived is None or self._outcome is None:
            return
        if not self._knows_leases:
            return
        report = self._reports.due()
        if report is not None and await self._link.say(report):
            self._reports.said(report)

    def _note(self, derived: Derived, ports: Iterable[PortId], guests: Iterable[str], is_whole: bool) -> None:
        """Takes down what is so now of these ports and guests, and of the host; of a whole pass, that no more is."""
        self._knows_leases = self._responder.has_told or time.monotonic() >= self._told_by
        if self._responder.has_caught_up:  # then all that it gave before has been heard
            self._served = self._followed
        carried = list(self._gateways.observed(self._host, self._outcome))
        given = self._given.observed(self._view, time.time(), is_whole)
        for key in self._given.over(given):
            self._reports.drop(key)
        found: list[wire.Observation] = [self._observed_host(), *given, *carried]
        for key in self._carried - {key_of(one) for one in carried}:
            self._reports.drop(key)
        self._carried = {key_of(one) for one in carried}
        for port in ports:
            if port in derived.bound:
                status = self._outcome.ports.get(port) if self._outcome is not None else None
                problem = self._problems.get(port_key(port)) or self._held.problem(port)
                held = self._held.addresses(port), problem, self._held.routers(port)
                found.append(observed_port(self._host, derived.bound[port], status, *held))
            else:
                self._reports.drop(f"observed/port/{port}/{self._host}")
                self._held.leave(port)
        for guest in guests:
            workspace = self._observed_guest(guest, derived.wants.get(guest))
            if workspace is not None:
                found.append(workspace)
                self._named[guest] = key_of(workspace)
            elif guest in self._named:
                self._reports.drop(self._named.pop(guest))
        for observation in found:
            self._reports.note(observation)
        if is_whole:
            self._reports.keep(key_of(observation) for observation in found)

    def _observed_host(self) -> ObservedHost:
        errors = self._outcome.errors if self._outcome is not None else ()
        rules = f"rules: {self._enforcing.cause}" if self._enforcing.cause else ""
        own = [rules, self._broken, self._forgetful, self._gateways.cause, *self._guests.away.values()]
        problems = [f"{key}: {cause}" for key, cause in sorted(self._problems.items()) if not key.startswith("port/")]
        return ObservedHost(
            host=self._host,
            version=__version__,
            applied=self._applied,
            served=self._served,
            cannot_police=self._enforcing.cannot_police,
            repaired=dict(self._repaired + self._enforcing.repaired),
            strangers=self._strangers.told(),
            problems=tuple([*filter(None, own), *(str(error) for error in errors), *problems][:20]),
        )

    def _whose(self, device: str, mac: str) -> tuple[str, str] | None:
        """See `strangers.Whose`."""
        return stranger(self._view, self._derived, device, mac) if self._derived is not None else None

    def _observed_guest(self, guest: str, want: Want | None) -> ObservedWorkspace | None:
        """What is to be said of a guest; None for nothing."""
        _, seen = self._guests.observed.get(guest, ("", None))
        if want is None:
            return leaving(self._host, seen)
        state = self._guests.state(guest)
        if want.role is Role.AWAY and state is GuestState.ABSENT:
            return None
        return observed_workspace(
            self._host,
            want,
            state,
            cause=self._guests.causes.get(guest, ""),
            is_ready=self._is_ready(want),
            has_arrived=self._guests.has_arrived(want),
            differs=self._guests.differs(want),
            pause_ms=self._guests.pauses.get(guest),
            seen=seen,
            is_announced=self._guests.is_announced(guest),
        )

    # the cache

    def _recall(self) -> None:
        """Goes on from what was remembered."""
        try:
            found = self._cache.read()
        except msgspec.DecodeError as error:
            log.error("cache not readable, waiting for a controller file=%s error=%s", self._cache.path, error)
            return
        if found is None:
            return
        self._view, self._domain, self._resolvers = found.view, found.domain, found.resolvers
        self._vouched_utc_s = found.at_utc_s
        age_s = time.time() - found.at_utc_s
        log.info("view read from cache age_s=%.0f revision=%d", age_s, found.view.revision)

    def _remember(self) -> None:
        """Has the cache follow the view. Where that can't be written, the host goes on, and says so."""
        if not self._synced:
            return
        said, self._unsaved = self._unsaved, []
        try:
            is_kept = said is not None and (self._cache.add(said) if said else self._cache.vouch())
            if not is_kept:
                self._cache.replace(self._view, self._domain, self._resolvers)
            self._forgetful = ""
        except OSError as error:
            self._unsaved = None
            if not self._forgetful:
                log.error("cache not written file=%s error=%s", self._cache.path, error)
            self._forgetful = f"what this host was shown is not remembered: {error.strerror}: {self._cache.path}"
