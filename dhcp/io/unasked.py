"""What one port's client is sent unasked: router advertisements, and questions for the addresses that it should have or
has formed; and what it answers. Owns the timers of that; sends by what it is given, and decides nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

from dhcp import ask, frame, ra
from dhcp.decide import LeaseKind
from dhcp.forming import CHECK_S, LINK_LOCAL, Forming
from dhcp.leases import Lease
from dhcp.reason import Reason
from dhcp.scope import PortScope


class Heard(NamedTuple):
    """What a device's client did with its lease, or which address it formed. address, mac: strings as in the scope.

    until_utc_s: when the lease ends; None where it was not given now. lease: where it is one of a pool. router: the
    default router that the client was told of with that address, "" for none; None where nobody has heard what it was
    told.
    """

    device: str
    address: str
    mac: str
    kind: LeaseKind
    until_utc_s: float | None = None
    router: str | None = None
    lease: Lease | None = None


class Unasked:
    """Of one port, from `start` to `stop`. tell: sends a frame by a device, or not."""

    def __init__(
        self,
        device: str,
        scope: PortScope,
        former: Unasked | None,
        tell: Callable[[str, bytes], None],
        on_heard: Callable[[Heard], None],
    ) -> None:
        """former: what there was at the port before. Raises ValueError for what can't be told to a client."""
        self._device = device
        self._scope = scope
        self._tell = tell
        self._on_heard = on_heard
        self._advertisement = ra.advertisement(scope) if scope.ra is not None else None
        self._farewell = ra.farewell(former._scope, scope) if former is not None else None
        """What goes before each of the first advertisements: one alone may be lost."""
        self._schedule = ra.Schedule(asyncio.get_running_loop().time())
        self.questions = ask.questions(scope)
        """For the addresses that the client is expected to have and was not heard to take."""
        self._forming = Forming((*self.questions, ask.made_of_mac(scope.mac, LINK_LOCAL)))
        self._forming.know((*scope.formed, *(former._forming.addresses if former is not None else ())))
        self._asked = 0
        self._advertising: asyncio.TimerHandle | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._checking: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Advertises and asks from now on."""
        self._check_later()
        if self._advertisement is None and self._farewell is not None:
            self._tell(self._device, self._farewell)
        self._advertise()
        self._ask_later()

    def stop(self) -> None:
        """Says nothing any more."""
        for timer in (self._advertising, self._asking, self._checking):
            if timer is not None:
                timer.cancel()

    def begin_anew(self) -> None:
        """As a socket has just been opened."""
        self._schedule = ra.Schedule(asyncio.get_running_loop().time())
        self._advertise()
        self._ask_later()

    def know(self, scope: PortScope) -> None:
        """The same scope with other addresses that count as the client's own."""
        self._scope = scope
        self._forming.know(scope.formed)
        self._check_later()

    def took(self, address: str) -> bool:
        """The client has it; whether that was not known before."""
        return self.questions.pop(address, None) is not None

    def solicited(self) -> None:
        """The client asks for an advertisement: it has just come up, however long ago the last question was."""
        self._schedule = self._schedule.after_solicitation(asyncio.get_running_loop().time())
        self._advertise()
        self._ask_later()

    def detected(self, said: frame.Icmp6) -> Reason | None:
        """Detection of duplicates, or the answer to a question: the client has that address, or is about to."""
        scope = self._scope
        given = scope.v6.addresses if scope.v6 is not None else ()
        if (address := ra.formed_address(said, given)) is not None:
            self.took(address)
            self._on_heard(Heard(self._device, address, scope.mac, LeaseKind.BOUND))
            return None
        prefixes = scope.ra.prefixes if scope.ra is not None else ()
        address = ra.formed_address(said, (LINK_LOCAL, *(prefix for prefix, autonomous in prefixes if autonomous)))
        if address is None or ra.formed_address(said, scope.allowed) is not None:
            return Reason.NOT_FOR_US
        self.took(address)
        self._formed(self._forming.heard(address, asyncio.get_running_loop().time()))
        self._check_later()
        return None

    def _formed(self, found: list[tuple[str, bool]]) -> None:
        for address, is_held in found:
            if address != ask.made_of_mac(self._scope.mac, LINK_LOCAL):
                kind = LeaseKind.FORMED if is_held else LeaseKind.RELEASED
                self._on_heard(Heard(self._device, address, self._scope.mac, kind))

    def _check_later(self) -> None:
        """Sets the timer for the next look at what the client formed, while there is any."""
        if self._checking is None and self._forming.addresses and self._scope.ra is not None:
            self._checking = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _check(self) -> None:
        self._checking = None
        asked, gone = self._forming.check()
        self._formed(gone)
        if self._scope.ra is not None:
            for address in asked:
                self._tell(self._device, ask.neighbour_question(self._scope, self._scope.ra, address))
        self._check_later()

    def _advertise(self) -> None:
        """Sends what is due, and sets the timer for what is not."""
        if self._advertisement is None:
            return
        if self._advertising is not None:
            self._advertising.cancel()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._schedule.next_s <= now:
            if self._farewell is not None and self._schedule.sent < ra.INITIAL:
                self._tell(self._device, self._farewell)
            self._tell(self._device, self._advertisement)
            self._schedule = self._schedule.after_sending(now, random.random())
        self._advertising = loop.call_at(self._schedule.next_s, self._advertise)

    def _ask_later(self, asked: int = 0) -> None:
        """Sets the timer for the next question, in place of the one that was set, while any is open."""
        if self._asking is not None:
            self._asking.cancel()
        self._asked = asked
        if self.questions:
            self._asking = asyncio.get_running_loop().call_later(ask.after_s(asked), self._ask)

    def _ask(self) -> None:
        """Asks for what the client was not heard to take: that was missed, or is to come. It is advertised to as well:
        what it solicited may have been lost in a move, and it solicits again only after 4 s."""
        for question in self.questions.values():
            self._tell(self._device, question)
        if any(":" in address for address in self.questions):
            self._schedule = self._schedule.after_solicitation(asyncio.get_running_loop().time())
            self._advertise()
        self._ask_later(self._asked + 1)
