"""Pure. The answer to a DHCPv4 client at a bound port (RFC 2131 §4): knows no socket, clock or lease file.

The port's address is fixed before the client boots, so an answer is a function of the scope, the request and whether
the client has just declined its address; nothing is written.
"""

from __future__ import annotations

from typing import Final

from dhcp import frame, options
from dhcp.decide import DECISIONS, NAMING, Act, Situation, Standing, named, situation
from dhcp.message import BOOTREQUEST, ZERO, Message
from dhcp.reason import Reason
from dhcp.render import Answers, Reply
from dhcp.scope import PortScope

MAX_HOPS: Final = 16
"""RFC 1542 §4.1.1's bound on relays."""
QUARANTINE_S: Final = 30.0
"""How long a port's own address is not given again after its client declined it. The port's guard lets nobody else use
the address, so what the client saw is its own doing or will pass; without a pause it would take and decline it without
end, and it has no other."""


def misfit(request: Message, server: bytes) -> Reason | None:
    """Why a message is not looked at, whoever sent it. server: our identifier, 4 bytes."""
    if request.op != BOOTREQUEST:
        return Reason.NOT_A_REQUEST
    if request.htype != 1 or len(request.chaddr) != 6:
        return Reason.NOT_ETHERNET
    if request.hops > MAX_HOPS or request.giaddr == server:
        return Reason.RELAY_LOOP
    return None


class Bound:
    """One port's answers, rendered once."""

    __slots__ = ("address", "answers", "mac", "server", "server_mac")

    def __init__(self, scope: PortScope) -> None:
        """Raises ValueError for a scope without DHCPv4, or with a value that can't be told to a client."""
        if scope.v4 is None:
            raise ValueError("the scope has no DHCPv4")
        self.mac: Final = frame.mac(scope.mac)
        self.server_mac: Final = frame.mac(scope.server_mac)
        self.address: Final = options.address(scope.v4.address)
        self.answers: Final = Answers(scope.v4)
        self.server: Final = self.answers.server

    def answer(
        self,
        request: Message,
        *,
        is_unicast: bool = False,
        is_quarantined: bool = False,
        from_mac: bytes | None = None,
    ) -> Reply | Reason:
        """The reply to one message, or why there is none. is_unicast: it was sent to us alone. is_quarantined: the
        client declined the address less than `QUARANTINE_S` ago. from_mac: whose frame it was, where a relay's."""
        act = self.decide(request, is_unicast, is_quarantined)
        if isinstance(act, Reason):
            return act
        answers = self.answers
        to_mac, destination, port = answers.destination(request, act, self.address, from_mac or self.mac)
        return Reply(act, answers.render(request, act, self.address), to_mac, destination, port, self.address)

    def decide(self, request: Message, is_unicast: bool = False, is_quarantined: bool = False) -> Act | Reason:
        """A row of `DECISIONS`, or why the message is not looked at."""
        if (reason := misfit(request, self.server)) is not None:
            return reason
        if request.chaddr != self.mac:
            return Reason.FOREIGN_MAC
        doing = situation(request, self.server, is_unicast)
        if isinstance(doing, Reason):
            return doing
        address = named(request, doing)
        if address == ZERO and doing in NAMING:
            return Reason.NO_ADDRESS_NAMED
        return DECISIONS[doing, self._standing(doing, address, is_quarantined)]

    def _standing(self, doing: Situation, address: bytes, is_quarantined: bool) -> Standing:
        if address != self.address and doing not in (Situation.DISCOVERING, Situation.DISCOVERING_RAPIDLY):
            return Standing.FOREIGN
        return Standing.QUARANTINED if is_quarantined else Standing.OWN


def answer(scope: PortScope, request: Message) -> Reply | Reason:
    """What is sent to a client at a port, or why nothing is. Whoever answers often keeps a `Bound`."""
    return Reason.NO_SCOPE if scope.v4 is None else Bound(scope).answer(request)
