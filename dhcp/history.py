"""Pure. What happened at one port, for people who ask why a client has no address: counts, the last exchanges, and what
is known of its clients. Bounded, whatever is sent; decides nothing."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple

from dhcp import decide6, ra, v6
from dhcp.decide import Act
from dhcp.message import ZERO, Message
from dhcp.options import Code
from dhcp.reason import Reason

EXCHANGES: Final = 16
"""So many are remembered a port: a boot has two, and a client in trouble repeats itself."""
_KINDS: Final = {
    b"\x01": "DISCOVER",
    b"\x03": "REQUEST",
    b"\x04": "DECLINE",
    b"\x07": "RELEASE",
    b"\x08": "INFORM",
}
_KINDS6: Final = {int(kind): kind.name.replace("_", "-") for kind in v6.Kind}
_TEXT: Final = 64
"""Bytes of what a client says of itself that are kept."""


Outcome = Act | decide6.Act | ra.Act | Reason


class Exchange(NamedTuple):
    """One message of a client and what came of it. mac: 6 bytes; address: that it named, or was given."""

    at_utc_s: float
    what: str
    mac: bytes
    address: bytes
    outcome: Outcome


class Client(NamedTuple):
    """What a client says of itself (options 61, 60, 12), and when it was heard last."""

    seen_utc_s: float
    client_id: bytes = b""
    vendor: str = ""
    hostname: str = ""


class History:
    """Of one port, since `begun_utc_s`. Cheap to add to: this is done for each message."""

    __slots__ = ("begun_utc_s", "counts", "counts6", "exchanges", "last", "last6")

    def __init__(self, begun_utc_s: float) -> None:
        self.begun_utc_s: Final = begun_utc_s
        self.counts: Final[Counter[Outcome]] = Counter()
        self.counts6: Final[Counter[Outcome]] = Counter()
        """By DHCPv6, and of router solicitations."""
        self.exchanges: Final[deque[Exchange]] = deque(maxlen=EXCHANGES)
        self.last: tuple[float, Message] | None = None
        """The last message that was a client's own, and when."""
        self.last6: tuple[float, v6.Message] | None = None
        """The same by DHCPv6."""

    def note(
        self,
        now_utc_s: float,
        outcome: Act | Reason,
        mac: bytes,
        request: Message | None,
        address: bytes = ZERO,
        *,
        is_own: bool = True,
    ) -> Exchange:
        """One message came in, of which `outcome` was made. request: None where it could not be read. is_own: it came
        from the port's own client."""
        self.counts[outcome] += 1
        if request is None:
            self.exchanges.append(found := Exchange(now_utc_s, "", mac, address, outcome))
            return found
        said = request.options
        what = _KINDS.get(said.get(Code.MESSAGE_TYPE, b""), "")
        if address == ZERO:
            address = said.get(Code.REQUESTED_ADDRESS, request.ciaddr)
        self.exchanges.append(found := Exchange(now_utc_s, what, mac, address, outcome))
        if is_own and outcome is not Reason.FOREIGN_MAC:
            self.last = (now_utc_s, request)
        return found

    def note6(
        self,
        now_utc_s: float,
        outcome: decide6.Act | Reason,
        mac: bytes,
        request: v6.Message | None,
        address: bytes = b"",
    ) -> Exchange:
        """The same of a DHCPv6 message."""
        self.counts6[outcome] += 1
        what = "" if request is None else _KINDS6.get(request.kind, "")
        self.exchanges.append(found := Exchange(now_utc_s, what, mac, address, outcome))
        if request is not None and outcome is not Reason.FOREIGN_MAC:
            self.last6 = (now_utc_s, request)
        return found

    def note_again(self, now_utc_s: float, exchange: Exchange, request: Message | v6.Message) -> None:
        """A message of the port's own client, and what came of it, are like ones before: `exchange` is of those."""
        outcome = exchange.outcome
        self.exchanges.append(Exchange(now_utc_s, exchange.what, exchange.mac, exchange.address, outcome))
        if isinstance(request, Message):
            self.counts[outcome] += 1
            self.last = (now_utc_s, request)
        else:
            self.counts6[outcome] += 1
            self.last6 = (now_utc_s, request)

    def note_solicitation(self, now_utc_s: float, outcome: ra.Act | Reason, mac: bytes) -> None:
        """The same of a router solicitation."""
        self.counts6[outcome] += 1
        self.exchanges.append(Exchange(now_utc_s, "ROUTER-SOLICIT", mac, b"", outcome))

    @property
    def duid(self) -> bytes:
        """By which the client was known that was heard last by DHCPv6; empty where none was."""
        return b"" if self.last6 is None else (self.last6[1].first(v6.Code.CLIENT_ID) or b"")

    @property
    def client(self) -> Client | None:
        """The one that was heard last. By DHCPv4 it says more of itself, so that counts where both are spoken."""
        if self.last6 is None:
            return None if self.last is None else described(*self.last)
        seen_utc_s, _ = self.last6
        if self.last is not None:
            return described(max(seen_utc_s, self.last[0]), self.last[1])
        return Client(seen_utc_s)


def described(seen_utc_s: float, request: Message) -> Client:
    """What a client said of itself in one message, cut to what a person reads."""

    def text(code: int) -> str:
        return request.options.get(code, b"")[:_TEXT].decode("utf-8", "replace")

    identifier = request.options.get(Code.CLIENT_ID, b"")[:_TEXT]
    return Client(seen_utc_s, identifier, text(Code.VENDOR_CLASS), text(Code.HOSTNAME))
