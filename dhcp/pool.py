"""Pure. The answer to a DHCPv4 client that nobody declared, from a pool: RFC 2131 §4.3 over a table of leases.

What has to be written down before the answer may be sent comes with it. Knows no socket, clock or file.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

from dhcp.decide import DECISIONS, NAMING, Act, Situation, Standing, named, situation
from dhcp.leases import Lease, Leases, Range, client_key
from dhcp.message import ZERO, Message
from dhcp.reason import Reason
from dhcp.render import Answers, Reply
from dhcp.scope import Pool4
from dhcp.server import misfit

BURST_S: Final = 4
"""So many seconds' messages may come at once."""


class Answered(NamedTuple):
    """What is sent, or why nothing is. keep: a lease that has to be durable before that."""

    reply: Reply | Reason
    keep: Lease | None = None


class Pool:
    """The clients of one pool, at whichever port."""

    def __init__(self, scope: Pool4) -> None:
        """Raises ValueError for what can't be told to a client."""
        self.leases: Final = Leases(_ranges(scope.ours), scope.limit, _ranges(scope.whole))
        self.leases.take_over(scope.known)
        self.answers = Answers(scope.told)
        self.scope = scope
        self._budget, self._filled_s = float(BURST_S * scope.per_s), 0.0

    def set(self, scope: Pool4) -> None:
        """What is given and told from now on. Raises ValueError, changing nothing."""
        if scope == self.scope:
            return
        ours, whole, answers = _ranges(scope.ours), _ranges(scope.whole), Answers(scope.told)
        self.leases.set(ours, scope.limit, whole)
        self.leases.take_over(scope.known)
        self.answers, self.scope = answers, scope

    def answer(self, port: str, request: Message, from_mac: bytes, now_utc_s: float, is_unicast: bool) -> Answered:
        """The reply to one message at a port. from_mac: whose frame it was (a relay's, or the client's own)."""
        answers, leases = self.answers, self.leases
        if (reason := misfit(request, answers.server)) is not None:
            return Answered(reason)
        if request.giaddr == ZERO and request.chaddr != from_mac:
            return Answered(Reason.FOREIGN_MAC)
        if not self._may_ask(now_utc_s):
            return Answered(Reason.TOO_MANY)
        doing = situation(request, answers.server, is_unicast)
        if isinstance(doing, Reason):
            return Answered(doing)
        client = client_key(request)
        address = int.from_bytes(named(request, doing), "big")
        if not address and doing in NAMING:
            return Answered(Reason.NO_ADDRESS_NAMED)
        standing = Standing.FOREIGN
        if doing in (Situation.DISCOVERING, Situation.DISCOVERING_RAPIDLY):
            lease = leases.offer(port, client, request.chaddr, address, now_utc_s)
            standing = Standing.EXHAUSTED if lease is None else Standing.OWN
            address = 0 if lease is None else lease.address
        elif doing is Situation.SELECTING_OTHER:
            leases.withdraw(port, client, now_utc_s)
        else:
            standing = leases.standing(port, client, address, now_utc_s)
        act = DECISIONS[doing, standing]
        keep = None
        if act in (Act.ACK, Act.ACK_RAPID):
            keep = leases.grant(port, client, request.chaddr, address, answers.lease_s, now_utc_s)
        elif act is Reason.RELEASED:
            keep = leases.release(address, now_utc_s)
        elif act is Reason.DECLINED:
            keep = leases.decline(address, now_utc_s)
        if isinstance(act, Reason):
            return Answered(act, keep)
        yours = address.to_bytes(4, "big")
        to_mac, destination, to_port = answers.destination(request, act, yours, from_mac)
        return Answered(Reply(act, answers.render(request, act, yours), to_mac, destination, to_port, yours), keep)

    def _may_ask(self, now_s: float) -> bool:
        """Whether another message is looked at: its clients may not keep their host's one process from all others."""
        per_s = self.scope.per_s
        if not per_s:
            return True
        gained = max(0.0, now_s - self._filled_s) * per_s
        self._budget, self._filled_s = min(self._budget + gained, float(BURST_S * per_s)), now_s
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


def _ranges(texts: Iterable[tuple[str, str]]) -> list[Range]:
    """Raises ValueError for what is no range of IPv4 addresses."""
    found = [(int(ipaddress.IPv4Address(first)), int(ipaddress.IPv4Address(last))) for first, last in texts]
    for first, last in found:
        if first > last:
            raise ValueError(f"a range of addresses goes from {first} to {last}; its first one is the lower one")
    return found
