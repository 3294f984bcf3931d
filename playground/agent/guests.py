"""Drives this host's guests towards their roles, one action at a time per guest; drivers do, this decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from playground.derive import Role, Want
from playground.workspaces.drivers.api import Driver, DriverError, GuestState, Observed

log = logging.getLogger("agent")

GRACE_S = 5.0
RETRY_S = 2.0


@dataclass(slots=True)
class Guests:
    """What runs here and what is being done about it.

    ready: whether all ports of a guest are programmed and answered for. stale: whether a client of it holds an address
    that is no longer its own. anew: hears of a guest that is about to be made from nothing.

    opening: guests whose ports may open because their traffic is about to come here. causes: why the last action on a
    guest failed. pauses: how long an arriving guest stood still, in ms.
    """

    drivers: Mapping[str, Driver]
    ready: Callable[[Want], bool]
    stale: Callable[[Want], bool]
    anew: Callable[[Want], None]
    passed: Callable[[], Awaitable[None]]
    again: Callable[[], None]
    observed: dict[str, tuple[str, Observed]] = field(default_factory=dict)
    opening: set[str] = field(default_factory=set)
    causes: dict[str, str] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    _busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked: int = 0
    _answered: int = 0
    _wants: Mapping[str, Want] = field(default_factory=dict)

    async def observe(self) -> None:
        """Reads what every driver finds, by a look that starts after this call; calls that wait share one."""
        self._asked += 1
        asked = self._asked
        async with self._looking:
            if self._answered >= asked:
                return
            covers = self._asked
            found: dict[str, tuple[str, Observed]] = {}
            for name, driver in self.drivers.items():
                for guest, seen in (await driver.observe()).items():
                    found[guest] = (name, seen)
            self.observed, self._answered = found, covers

    def state(self, guest: str) -> GuestState:
        """What was found of a guest last."""
        return self.observed[guest][1].state if guest in self.observed else GuestState.ABSENT

    def has_arrived(self, want: Want) -> bool:
        """Whether the very move that a guest is wanted by has brought it here."""
        return self.state(want.id) is GuestState.RUNNING and self.observed[want.id][1].move == want.move

    def differs(self, want: Want) -> bool:
        """Whether a guest runs with other NICs than it is to have. A new MTU is no other NIC: its client is told."""
        made = self.observed[want.id][1].nics if want.id in self.observed else ()
        return bool(made) and [(n.port, n.mac) for n in made] != [(n.port, n.mac) for n in want.guest.nics]

    def arrived(self) -> frozenset[str]:
        """Guests whose traffic goes by this host, or is about to."""
        running = {g for g, (_, seen) in self.observed.items() if seen.state is GuestState.RUNNING}
        return frozenset(running | self.opening)

    def step(self, wants: Mapping[str, Want], may_open: bool, may_end: bool) -> None:
        """Starts what should be done next for each guest that nothing is being done for.

        may_open: records are fresh enough to make and start guests. may_end: the view is whole, so a guest without a
        role here really has none.
        """
        before, self._wants = self._wants, wants
        for guest in [g for g in self.causes if _aim(before.get(g)) != _aim(wants.get(g))]:
            del self.causes[guest]  # it failed at something else
        for guest, want in wants.items():
            if guest not in self._busy and (action := self._action(want, may_open)) is not None:
                self._begin(guest, action)
        if may_end:
            for guest, (driver, seen) in self.observed.items():
                if guest not in wants and guest not in self._busy:
                    self._begin(guest, self._end(guest, driver, seen.state))

    def _action(self, want: Want, may_open: bool) -> Coroutine[Any, Any, object] | None:
        driver = self.drivers.get(want.driver)
        if driver is None:
            self.causes[want.id] = f"this host has no driver {want.driver}"
            return None
        state = self.state(want.id)
        match want.role, state:
            case Role.RUN, GuestState.RUNNING if self.differs(want):
                # a guest can't be given other NICs while it runs: it is made anew, but never in the middle of a move
                return driver.stop(want.id, GRACE_S) if may_open and want.move == want.concluded else None
            case Role.RUN, GuestState.RUNNING if self.observed[want.id][1].cause:
                return driver.prepare(want.guest)
            case Role.RUN, GuestState.RUNNING if self.observed[want.id][1].move < want.concluded == want.move:
                # called off: said where the target finds it, as its flip may be under way and would be seen only later
                return driver.reclaim(want.guest, want.move)
            case Role.RUN, GuestState.RUNNING if self.stale(want):
                return driver.renew(want.id)
            case Role.RUN, GuestState.ABSENT | GuestState.FAILED if may_open:
                self.anew(want)
                return driver.prepare(want.guest)
            case Role.RUN, GuestState.PREPARED if self.ready(want) and may_open:
                return driver.start(want.guest)
            case Role.RUN | Role.TAKE, GuestState.ELSEWHERE if self.observed[want.id][1].move <= want.concluded:
                return self._take(driver, want)
            case Role.TAKE, GuestState.RUNNING if not self.has_arrived(want):
                return self._take(driver, want)
            case Role.ARRIVE | Role.TAKE, GuestState.ABSENT if may_open:
                return driver.prepare_arrival(want.guest)
            case Role.STOP, GuestState.PREPARED | GuestState.RUNNING | GuestState.FAILED:
                return driver.stop(want.id, GRACE_S)
            case Role.STOP | Role.AWAY, GuestState.ELSEWHERE:
                return driver.depart(want.id)
            case _:
                return None

    def _end(self, guest: str, driver: str, state: GuestState) -> Coroutine[Any, Any, None]:
        if state is GuestState.ELSEWHERE:
            return self.drivers[driver].depart(guest)
        return self.drivers[driver].stop(guest, GRACE_S)

    async def _take(self, driver: Driver, want: Want) -> None:
        """The gate first, then the traffic: nothing that arrives finds a closed port."""
        await driver.prepare_arrival(want.guest)
        self.opening.add(want.id)
        try:
            await self.passed()
            now = self._wants.get(want.id)
            if now is None or (now.role, now.move) != (want.role, want.move):
                return  # called off, or over, while the gate was opened
            take = driver.reclaim if want.move == want.concluded else driver.activate
            self.pauses[want.id] = await take(want.guest, want.move)
            await self.observe()
        finally:
            self.opening.discard(want.id)

    def _begin(self, guest: str, action: Coroutine[Any, Any, object]) -> None:
        log.info(
            "guest action guest=%s state=%s action=%s", guest, self.state(guest).value, getattr(action, "__name__", "")
        )
        self._busy[guest] = asyncio.ensure_future(self._do(guest, action, _aim(self._wants.get(guest))))

    async def _do(self, guest: str, action: Coroutine[Any, Any, object], aim: object) -> None:
        try:
            await action
            self.causes.pop(guest, None)
        except DriverError as error:
            if self.causes.get(guest) != str(error):
                log.warning("guest action failed guest=%s cause=%s", guest, error)
            if _aim(self._wants.get(guest)) == aim:
                self.causes[guest] = str(error)
            self.again()
            await asyncio.sleep(RETRY_S)
        finally:
            await self.observe()
            del self._busy[guest]
            self.again()


def _aim(want: Want | None) -> object:
    """What an action on a guest was for."""
    return None if want is None else (want.role, want.generation, want.move)
