"""Drives this host's guests towards their roles, one action at a time per guest; drivers do, this decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from playground.derive import Role, Want
from playground.derive.guests import FOREIGN
from playground.workspaces.drivers.api import (
    CopyState,
    Driver,
    DriverError,
    GuestState,
    Hypervisor,
    Observed,
)

log = logging.getLogger("agent")

GRACE_S = 5.0
"""How long a guest that is asked to end has for it, where nobody says."""

MACHINE_GRACE_S = 30.0
"""The same of a machine, which has a system to shut down."""

RETRY_S = 2.0

RENEW_S = 3.0
"""How often a guest whose address has changed is asked to ask for it."""


_HYPERVISORS: dict[type[Driver], bool] = {}


def _is_hypervisor(driver: Driver) -> TypeGuard[Hypervisor]:
    """Told by its class, once: to look all of a protocol's names up costs more than all else about a settled guest."""
    known = _HYPERVISORS.get(type(driver))
    if known is None:
        known = _HYPERVISORS[type(driver)] = isinstance(driver, Hypervisor)
    return known


@dataclass(slots=True)
class Guests:
    """What runs here and what is being done about it.

    ready: whether all ports of a guest are programmed and answered for. stale: whether a client of it holds an address
    that is no longer its own, and would be told the new one. anew: hears of a guest that is about to be made from
    nothing. passed: returns once a pass over the data plane that started after the call has ended. landed: hears of a
    guest whose traffic has just come here, before anything else is done. certain: whether the records are the
    controller's word of now, and not a memory of it.

    due: guests of which something has changed since the last step. opening: guests whose ports may open because their
    traffic is about to come here. causes: why the last action on a guest failed. pauses: how long an arriving guest
    stood still, in ms. away: why hypervisors can't be asked, by driver.
    """

    drivers: Mapping[str, Driver]
    ready: Callable[[Want], bool]
    stale: Callable[[Want], bool]
    anew: Callable[[Want], None]
    passed: Callable[[], Awaitable[None]]
    again: Callable[[], None]
    landed: Callable[[Want], Awaitable[None]]
    certain: Callable[[], bool] = lambda: True
    observed: dict[str, tuple[str, Observed]] = field(default_factory=dict)
    due: set[str] = field(default_factory=set)
    opening: set[str] = field(default_factory=set)
    causes: dict[str, str] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)
    _announced: dict[str, int] = field(default_factory=dict)
    _busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked: int = 0
    _answered: int = 0
    _to_see: set[str] | None = field(default_factory=set)
    _wants: Mapping[str, Want] = field(default_factory=dict)
    _unsettled: set[str] = field(default_factory=set)
    _could_open: bool = False
    _renewed_at: dict[str, float] = field(default_factory=dict)

    async def observe(self, guests: Collection[str] | None = None) -> None:
        """Reads what every driver finds, of all guests or of these, by a look that starts after this call; calls that
        wait share one. Raises DriverError; whoever waits then looks for itself, at what was left, too."""
        self._asked += 1
        asked = self._asked
        self._to_see = None if guests is None or self._to_see is None else self._to_see.union(guests)
        async with self._looking:
            if self._answered >= asked:
                return
            covers, these = self._asked, self._to_see
            self._to_see = set()
            found: dict[str, tuple[str, Observed]] = {}
            try:
                for name, driver in self.drivers.items():
                    for guest, seen in (await self._seen(name, driver, these)).items():
                        found[guest] = (name, seen)
            except BaseException:
                self._to_see = None if these is None or self._to_see is None else these | self._to_see
                raise
            looked_at = self.observed.keys() | found.keys() if these is None else these
            for guest in looked_at:
                if self.observed.get(guest) != (now := found.get(guest)):
                    self.due.add(guest)
                    if now is None:
                        del self.observed[guest]
                    else:
                        self.observed[guest] = now
            self._answered = covers

    async def _seen(self, name: str, driver: Driver, guests: Collection[str] | None) -> Mapping[str, Observed]:
        """What a driver finds. A hypervisor that is away for a while takes no guest along: they are as they were."""
        try:
            found = await driver.observe(guests)
        except DriverError as error:
            if not _is_hypervisor(driver):
                raise
            if self.away.get(name) != str(error):
                log.warning("hypervisor away driver=%s cause=%s", name, error)
            self.away[name] = str(error)
            known = {id: seen for id, (whose, seen) in self.observed.items() if whose == name}
            return known if guests is None else {id: seen for id, seen in known.items() if id in guests}
        self.away.pop(name, None)
        return found

    def state(self, guest: str) -> GuestState:
        """What was found of a guest last."""
        return self.observed[guest][1].state if guest in self.observed else GuestState.ABSENT

    def occupy(self, guest: str, work: Coroutine[Any, Any, object]) -> None:
        """Until this is over nothing else is done about a guest that nothing is being done about."""
        self._begin(guest, work)

    def is_busy(self, guest: str) -> bool:
        """Whether something is being done about it now."""
        return guest in self._busy

    def has_arrived(self, want: Want) -> bool:
        """Whether the very move that a guest is wanted by has brought it here."""
        return self.state(want.id) is GuestState.RUNNING and self.observed[want.id][1].move == want.move

    def _came(self, guest: str) -> int:
        """The number of the move that brought a guest to the host that carries it, 0 when none did."""
        return self.observed[guest][1].move if guest in self.observed else 0

    def differs(self, want: Want) -> bool:
        """Whether a guest runs with other NICs than it is to have, or is another machine. A new MTU is no other NIC:
        its client is told."""
        if want.id not in self.observed:
            return False
        made = self.observed[want.id][1]
        if made.reboots < want.guest.reboots and made.state is not GuestState.SAVED:
            return True
        nics = [(nic.port, nic.mac) for nic in made.nics]
        is_other = made.made_of is not None and made.made_of != want.guest.made_of
        return is_other or (bool(nics) and nics != [(nic.port, nic.mac) for nic in want.guest.nics])

    def arrived(self) -> frozenset[str]:
        """Guests whose traffic goes by this host, or is about to."""
        running = {g for g, (_, seen) in self.observed.items() if seen.state is GuestState.RUNNING}
        return frozenset(running | self.opening | self._announced.keys())

    def expected(self) -> dict[str, tuple[str, str]]:
        """Devices at which a machine that a hypervisor copies here may announce itself: name → guest id and MAC."""
        found: dict[str, tuple[str, str]] = {}
        for guest in self._unsettled:
            want = self._wants.get(guest)
            if want is None or want.role is not Role.TAKE or self.state(guest) is GuestState.RUNNING:
                continue
            if (driver := self.drivers.get(want.driver)) is not None and _is_hypervisor(driver):
                found |= {nic.device: (guest, nic.mac) for nic in want.guest.nics}
        return found

    def announced(self, guest: str) -> Want | None:
        """Takes a machine's word that it runs here, until its hypervisor says so, or the move is over; None where it is
        not expected. Were it a false start, the source's hypervisor tells."""
        want = self._wants.get(guest)
        if want is None or want.role is not Role.TAKE or self.state(guest) is not GuestState.ELSEWHERE:
            return None
        self._announced[guest] = want.move
        self.due.add(guest)
        return want

    def paused(self, guest: str) -> Want | None:
        """Takes a hypervisor's word that a guest which it copies away stands still; None where it copies none."""
        want = self._wants.get(guest)
        name, seen = self.observed.get(guest, ("", None))
        if want is None or seen is None or seen.copy is None or seen.copy.state is not CopyState.RUNNING:
            return None
        copy = replace(seen.copy, state=CopyState.PAUSED)
        self.observed[guest] = (name, replace(seen, state=GuestState.ELSEWHERE, copy=copy))
        return want

    def is_announced(self, guest: str) -> bool:
        """Whether a machine has said that it runs here, and nobody has said otherwise."""
        return guest in self._announced

    def _forget_announced(self) -> None:
        """Of those of which more is known now."""
        for guest, move in list(self._announced.items()):
            want = self._wants.get(guest)
            is_open = want is not None and want.move == move > want.concluded and want.role in (Role.TAKE, Role.RUN)
            if not is_open or self.state(guest) is not GuestState.ELSEWHERE:
                del self._announced[guest]
                self.due.add(guest)

    def step(self, wants: Mapping[str, Want], changed: Iterable[str], may_open: bool) -> set[str]:
        """Starts what should be done next for guests that nothing is being done for; returns those it has considered:
        whose wants have changed, who are due, or who are not yet what they should be.

        may_open: records are fresh enough to make and start guests. wants is all there is, so a guest without one
        really has no role here.
        """
        before, self._wants = self._wants, wants
        self._forget_announced()
        considered = self.due | self._unsettled | set(changed)
        if may_open != self._could_open:
            considered.update(wants)
        self._could_open = may_open
        self.due = set()
        for guest in sorted(considered):
            want = wants.get(guest)
            if guest in self.causes and _aim(before.get(guest)) != _aim(want):
                del self.causes[guest]  # it failed at something else
            self._unsettled.add(guest)
            if guest in self._busy:
                continue
            action = self._action(want, may_open) if want is not None else self._end(guest)
            if action is not None:
                self._begin(guest, action)
            elif want is None or self._is_settled(want):
                self._unsettled.discard(guest)
        return considered

    def _is_settled(self, want: Want) -> bool:
        """Whether a guest is what it should be, so that only a change makes it worth another look.

        Whether its client is stale, time tells, too: that is asked when everything is looked at, as silent clients may
        be many.
        """
        match want.role, self.state(want.id):
            case Role.RUN, GuestState.RUNNING:
                return self.ready(want) and not self.differs(want)
            case ((Role.STOP | Role.AWAY), GuestState.ABSENT):
                return True
            case (Role.SUSPEND, (GuestState.SUSPENDED | GuestState.PREPARED)) | (Role.SAVE, GuestState.SAVED):
                return True
            case _:
                return False

    def _action(self, want: Want, may_open: bool) -> Coroutine[Any, Any, object] | None:
        driver = self.drivers.get(want.driver)
        if driver is None:
            self.causes[want.id] = f"this host has no driver {want.driver}"
            return None
        if _is_hypervisor(driver):
            for part in (self._copying, self._resting):
                found, action = part(driver, want, may_open)
                if found:
                    return action
        state = self.state(want.id)
        match want.role, state:
            case Role.RUN, GuestState.RUNNING if self.differs(want):
                # a guest can't be given other NICs while it runs: it is made anew, but never in the middle of a move
                return driver.stop(want.id, _grace(driver, want)) if may_open and want.move == want.concluded else None
            case Role.RUN, GuestState.RUNNING if self.observed[want.id][1].cause:
                return driver.prepare(want.guest)
            case Role.RUN, GuestState.RUNNING if self._came(want.id) < want.concluded == want.move > want.placed:
                # called off: said where the target finds it, as its flip may be under way and would be seen only later
                return driver.reclaim(want.guest, want.move)
            case Role.RUN, GuestState.RUNNING if self.stale(want) and self._may_renew(want.id):
                return driver.renew(want.id)
            case Role.RUN, GuestState.ABSENT | GuestState.FAILED if may_open:
                self.anew(want)
                return driver.prepare(want.guest)
            case Role.RUN, GuestState.PREPARED if self.differs(want) and may_open:
                # made before an edit of its NICs: it would wait for ever for the ends of those that it lacks
                self.anew(want)
                return driver.prepare(want.guest)
            case Role.RUN, GuestState.PREPARED if self.ready(want) and may_open:
                return driver.start(want.guest)
            case Role.RUN | Role.TAKE, GuestState.ELSEWHERE if self._came(want.id) <= want.concluded:
                return self._take(driver, want)
            case Role.TAKE, GuestState.RUNNING if not self.has_arrived(want):
                return self._take(driver, want)
            case Role.ARRIVE | Role.TAKE, GuestState.ABSENT if may_open:
                return driver.prepare_arrival(want.guest)
            case Role.STOP, GuestState.PREPARED | GuestState.RUNNING | GuestState.FAILED:
                return driver.stop(want.id, _grace(driver, want))
            case Role.AWAY, GuestState.PREPARED | GuestState.RUNNING | GuestState.FAILED if (
                self._came(want.id) < want.placed
            ):
                # it began before the workspace was placed where it is: nobody will take it from here
                return driver.stop(want.id, GRACE_S)
            case Role.STOP | Role.AWAY, GuestState.ELSEWHERE:
                return driver.depart(want.id)
            case Role.AWAY, GuestState.PREPARED | GuestState.RUNNING | GuestState.FAILED if want.driver == FOREIGN:
                return driver.depart(want.id)
            case _:
                return None

    def _copying(
        self, driver: Hypervisor, want: Want, may_open: bool
    ) -> tuple[bool, Coroutine[Any, Any, object] | None]:
        """What is to be done where a hypervisor's part in a move is other than of a driver that has traffic come, and
        whether it is: what it copies it brings, and where a guest runs it decides."""
        seen = self.observed[want.id][1] if want.id in self.observed else None
        copy = seen.copy if seen is not None else None
        is_copying = copy is not None and copy.state in (CopyState.RUNNING, CopyState.PAUSED)
        match want.role, self.state(want.id):
            case (
                (Role.RUN | Role.SUSPEND),
                (GuestState.RUNNING | GuestState.SUSPENDED | GuestState.ELSEWHERE),
            ) if copy is not None and is_copying:
                is_over = want.called_off or want.concluded >= copy.move
                return True, driver.call_off(want.id) if is_over else None
            case Role.RUN, GuestState.RUNNING | GuestState.ELSEWHERE | GuestState.FAILED if want.is_followed and (
                copy is None or copy.move < want.move
            ):
                return True, driver.follow(want.guest, want.move)
            case ((Role.RUN | Role.SUSPEND), GuestState.FAILED) if (
                seen is not None and seen.has_vanished and not self.certain()
            ):
                return True, None  # somebody may have moved it meanwhile: two of it would be worse than none
            case Role.AWAY, GuestState.FAILED | GuestState.ABSENT if seen is not None:
                return True, driver.depart(want.id)
            case Role.RUN, GuestState.RUNNING if want.sending is not None and (copy is None or copy.move < want.move):
                return True, driver.send(want.guest, want.move, want.sending)
            case ((Role.RUN | Role.SUSPEND), GuestState.ELSEWHERE) if copy is not None and copy.move <= want.concluded:
                # it left by a move that is over, and belongs here: whatever became of it there, it runs there no more
                self.anew(want)
                return True, driver.prepare(want.guest) if may_open else None
            case ((Role.RUN | Role.SUSPEND), GuestState.ELSEWHERE):
                return True, None
            case ((Role.ARRIVE | Role.TAKE), GuestState.ABSENT | GuestState.FAILED | GuestState.ELSEWHERE) if (
                seen is None or seen.state is GuestState.FAILED or seen.move != want.move
            ):
                return True, driver.expect(want.guest, want.move, want.copies_storage) if may_open else None
            case ((Role.ARRIVE | Role.TAKE), _):
                return True, None
            case Role.RUN, GuestState.RUNNING if not self.differs(want):
                return True, None
            case _:
                return False, None

    def _resting(
        self, driver: Hypervisor, want: Want, may_open: bool
    ) -> tuple[bool, Coroutine[Any, Any, object] | None]:
        """What is to be done where a machine stands still, or is to, and whether it is. What somebody else suspended is
        left so until whoever wants it running says it again: why it stands still, they alone know."""
        seen = self.observed[want.id][1] if want.id in self.observed else None
        match want.role, self.state(want.id):
            case Role.RUN, GuestState.SUSPENDED if self.differs(want):
                return True, driver.stop(want.id, 0) if may_open and want.move == want.concluded else None
            case Role.RUN, GuestState.SUSPENDED if seen is not None:
                is_ours = not seen.cause or seen.resumes < want.guest.resumes
                return True, driver.start(want.guest) if is_ours and self.ready(want) else None
            case ((Role.RUN | Role.SUSPEND), GuestState.SAVED):
                return True, driver.prepare(want.guest) if may_open else None
            case Role.SUSPEND, GuestState.RUNNING:
                return True, driver.suspend(want.id)
            case Role.SUSPEND, GuestState.ABSENT | GuestState.FAILED if may_open:
                self.anew(want)
                return True, driver.prepare(want.guest)
            case Role.SAVE, GuestState.RUNNING | GuestState.SUSPENDED | GuestState.PREPARED:
                return True, driver.save(want.id)
            case Role.STOP, GuestState.SUSPENDED | GuestState.SAVED:
                return True, driver.stop(want.id, 0)
            case (Role.AWAY, (GuestState.SUSPENDED | GuestState.SAVED)) if self._came(want.id) < want.placed:
                return True, driver.stop(want.id, 0)
            case ((Role.SUSPEND | Role.SAVE), _):
                return True, None
            case _:
                return False, None

    def _may_renew(self, guest: str) -> bool:
        """Whether it is time to ask a guest, again, to ask for its address."""
        now = time.monotonic()
        if now - self._renewed_at.get(guest, -RENEW_S) < RENEW_S:
            return False
        self._renewed_at[guest] = now
        return True

    def _end(self, guest: str) -> Coroutine[Any, Any, None] | None:
        self._renewed_at.pop(guest, None)
        if guest not in self.observed:
            return None
        driver, seen = self.observed[guest]
        made = self.drivers[driver]
        if seen.state is GuestState.ELSEWHERE:
            return made.depart(guest)
        return made.remove(guest, GRACE_S) if _is_hypervisor(made) else made.stop(guest, GRACE_S)

    async def _take(self, driver: Driver, want: Want) -> None:
        """The gate first, then the traffic: nothing that arrives finds a closed port."""
        await driver.prepare_arrival(want.guest)
        self.opening.add(want.id)
        try:
            await self.passed()
            now = self._wants.get(want.id)
            if now is None or (now.role, now.move) != (want.role, want.move):
                return  # called off, or over, while the gate was opened
            if want.role is Role.TAKE:
                number = want.move
                self.pauses[want.id] = await driver.activate(want.guest, number)
            else:  # not by the number of a move that is open: its target would find itself called off
                number = want.concluded
                self.pauses[want.id] = await driver.reclaim(want.guest, number)
        except BaseException:
            self.opening.discard(want.id)
            raise
        # what the driver has done is what the next look will find; whoever sends here by another host waits for word
        if want.id in self.observed:
            name, seen = self.observed[want.id]
            self.observed[want.id] = (name, replace(seen, state=GuestState.RUNNING, cause="", move=number))
            await self.landed(want)

    def _begin(self, guest: str, action: Coroutine[Any, Any, object]) -> None:
        log.info(
            "guest action guest=%s state=%s action=%s", guest, self.state(guest).value, getattr(action, "__name__", "")
        )
        self._busy[guest] = asyncio.ensure_future(self._do(guest, action, _aim(self._wants.get(guest))))

    async def _do(self, guest: str, action: Coroutine[Any, Any, object], aim: object) -> None:
        """An action, and a look at what it did. However it ends, the guest is free for the next one then."""
        try:
            try:
                await action
                self.causes.pop(guest, None)
            except DriverError as error:
                self._failed(guest, str(error), aim)
                await asyncio.sleep(RETRY_S)
            await self.observe({guest})
        except DriverError as error:
            self._failed(guest, str(error), aim)
        except Exception as error:
            log.exception("guest action broke off guest=%s", guest)
            self._failed(guest, f"{type(error).__name__}: {error}", aim)
            await asyncio.sleep(RETRY_S)
        finally:
            self.opening.discard(guest)  # not before the look: one that began before the flip may have ended after it
            del self._busy[guest]
            self.due.add(guest)
            self.again()

    def _failed(self, guest: str, cause: str, aim: object) -> None:
        if self.causes.get(guest) != cause:
            log.warning("guest action failed guest=%s cause=%s", guest, cause)
        if _aim(self._wants.get(guest)) == aim:
            self.causes[guest] = cause
        self.due.add(guest)
        self.again()


def _grace(driver: Driver, want: Want) -> float:
    if want.grace_s is not None:
        return want.grace_s
    return MACHINE_GRACE_S if _is_hypervisor(driver) else GRACE_S


def _aim(want: Want | None) -> object:
    """What an action on a guest was for."""
    return None if want is None else (want.role, want.generation, want.move)
