"""Pure. The answer to a DHCPv4 client at a bound port (RFC 2131 §4): one table; knows no socket, clock or lease file.

The port's address is fixed before the client boots, so an answer is a function of the scope and the request, and
nothing is written. Choices beyond the RFC: the subnet mask and the MTU are sent even when not asked for (udhcpc asks
for no MTU, and an overlay is narrower than the 1500 that it would assume); RFC 4039's rapid commit, RFC 6842's client
identifier.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from dhcp import frame, options
from dhcp.message import BOOTREPLY, BOOTREQUEST, BROADCAST, COOKIE, DEFAULT_LIMIT, FIXED, MINIMUM, ZERO, Message, encode
from dhcp.options import Code, MessageType
from dhcp.reason import Reason
from dhcp.scope import PortScope, Scope4

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
_ALL_ONES: Final = b"\xff\xff\xff\xff"
_ETHERNET_MTU: Final = 1500
_IP_UDP: Final = 28


class LeaseKind(Enum):
    """What a client was told last, or said last, of its address."""

    OFFERED = "offered"
    BOUND = "bound"
    DECLINED = "declined"
    RELEASED = "released"
    FORMED = "formed"
    """An IPv6 address that the client made itself from an advertised prefix, seen as it checks it for duplicates."""


class Situation(Enum):
    """What a client is doing, told from its message alone (RFC 2131 table 4)."""

    DISCOVERING = "DHCPDISCOVER"
    DISCOVERING_RAPIDLY = "DHCPDISCOVER with rapid commit"
    SELECTING = "DHCPREQUEST that names us"
    SELECTING_OTHER = "DHCPREQUEST that names another server"
    INIT_REBOOT = "DHCPREQUEST, no server, an address requested"
    EXTENDING = "DHCPREQUEST of RENEWING or REBINDING: they differ in the destination address alone"
    INFORMING = "DHCPINFORM"
    DECLINING = "DHCPDECLINE"
    RELEASING = "DHCPRELEASE"


class Act(Enum):
    """What is sent."""

    OFFER = "offer"
    ACK = "ack"
    ACK_RAPID = "ack to a DISCOVER"
    ACK_INFORM = "ack without a lease"
    NAK = "nak"


DECISIONS: Final[Mapping[tuple[Situation, bool], Act | Reason]] = {
    # (situation, the address that the client names is the port's) → act or silence. A DISCOVER's address is only a
    # wish, and an INFORM's is the client's own affair.
    (Situation.DISCOVERING, True): Act.OFFER,
    (Situation.DISCOVERING, False): Act.OFFER,
    (Situation.DISCOVERING_RAPIDLY, True): Act.ACK_RAPID,
    (Situation.DISCOVERING_RAPIDLY, False): Act.ACK_RAPID,
    (Situation.SELECTING, True): Act.ACK,
    (Situation.SELECTING, False): Act.NAK,
    (Situation.SELECTING_OTHER, True): Reason.OTHER_SERVER,
    (Situation.SELECTING_OTHER, False): Reason.OTHER_SERVER,
    (Situation.INIT_REBOOT, True): Act.ACK,
    (Situation.INIT_REBOOT, False): Act.NAK,
    (Situation.EXTENDING, True): Act.ACK,
    (Situation.EXTENDING, False): Act.NAK,
    (Situation.INFORMING, True): Act.ACK_INFORM,
    (Situation.INFORMING, False): Act.ACK_INFORM,
    (Situation.DECLINING, True): Reason.DECLINED,
    (Situation.DECLINING, False): Reason.FOREIGN_ADDRESS,
    (Situation.RELEASING, True): Reason.RELEASED,
    (Situation.RELEASING, False): Reason.FOREIGN_ADDRESS,
}

REPORTED: Final[Mapping[Act | Reason, LeaseKind]] = {
    Act.OFFER: LeaseKind.OFFERED,
    Act.ACK: LeaseKind.BOUND,
    Act.ACK_RAPID: LeaseKind.BOUND,
    Reason.DECLINED: LeaseKind.DECLINED,
    Reason.RELEASED: LeaseKind.RELEASED,
}
"""Which decisions change what is known of the lease."""

_TYPE: Final = {
    Act.OFFER: MessageType.OFFER,
    Act.ACK: MessageType.ACK,
    Act.ACK_RAPID: MessageType.ACK,
    Act.ACK_INFORM: MessageType.ACK,
    Act.NAK: MessageType.NAK,
}
_NAK_TEXT: Final = b"not the address of this port"
_LEASE_CODES: Final = (Code.LEASE_TIME, Code.RENEWAL_TIME, Code.REBINDING_TIME)
_ALWAYS: Final = (Code.SUBNET_MASK, Code.MTU)
_ALREADY: Final = frozenset((Code.MESSAGE_TYPE, Code.SERVER_ID, *_LEASE_CODES))


class Reply(NamedTuple):
    """One datagram for the client. destination and port after RFC 2131 §4.1; to_mac: 6 bytes."""

    act: Act
    payload: bytes
    to_mac: bytes
    destination: bytes
    port: int


def parameters(scope: Scope4) -> dict[int, bytes]:
    """Every option that the scope has a value for, in the order in which a client without a wish gets them.

    Raises ValueError for a scope that can't be told to a client.
    """
    interface = ipaddress.IPv4Interface(f"{scope.address}/{scope.prefix_len}")
    values: dict[int, bytes] = {
        Code.LEASE_TIME: options.seconds(scope.lease_s),
        # T1 and T2 at their defaults of RFC 2131 §4.4.5; an endless lease is never renewed.
        Code.RENEWAL_TIME: options.seconds(_fraction(scope.lease_s, 4)),
        Code.REBINDING_TIME: options.seconds(_fraction(scope.lease_s, 7)),
        Code.SUBNET_MASK: interface.netmask.packed,
    }
    if scope.mtu is not None:
        if not 68 <= scope.mtu <= 0xFFFF:
            raise ValueError(f"an MTU of {scope.mtu} can't be told in option 26; 68 to 65535 (RFC 2132 §5.1)")
        values[Code.MTU] = scope.mtu.to_bytes(2, "big")
    if scope.router is not None:
        values[Code.ROUTER] = options.address(scope.router)
    if scope.dns:
        values[Code.DNS] = options.addresses(scope.dns)
    if scope.hostname:
        values[Code.HOSTNAME] = scope.hostname.encode("ascii")
    if scope.domain:
        values[Code.DOMAIN] = scope.domain.encode("ascii")
    routes = scope.routes
    if routes and scope.router is not None and all(destination != "0.0.0.0/0" for destination, _ in routes):
        # A client that knows option 121 must ignore option 3 (RFC 3442), so the default route has to stand in both.
        routes = (*routes, ("0.0.0.0/0", scope.router))
    if routes:
        values[Code.ROUTES] = options.encode_routes(routes)
    if scope.search:
        values[Code.DOMAIN_SEARCH] = options.encode_search(scope.search)
    if scope.prefix_len < 31:
        values[Code.BROADCAST] = interface.network.broadcast_address.packed
    if scope.ntp:
        values[Code.NTP] = options.addresses(scope.ntp)
    if routes:
        values[Code.ROUTES_MS] = values[Code.ROUTES]
    return values


def _fraction(lease_s: int, eighths: int) -> int:
    return lease_s if lease_s == 0xFFFFFFFF else lease_s * eighths // 8


def situation(request: Message, server: bytes) -> Situation | Reason:
    """What the client is doing; `server`: our identifier, 4 bytes."""
    chosen = request.options.get(Code.SERVER_ID)
    match request.options.get(Code.MESSAGE_TYPE):
        case b"\x01":
            return Situation.DISCOVERING_RAPIDLY if Code.RAPID_COMMIT in request.options else Situation.DISCOVERING
        case b"\x03" if chosen is not None:
            return Situation.SELECTING if chosen == server else Situation.SELECTING_OTHER
        case b"\x03" if Code.REQUESTED_ADDRESS in request.options:
            return Situation.INIT_REBOOT
        case b"\x03":
            return Situation.EXTENDING
        case b"\x04":
            return Situation.DECLINING if chosen in (None, server) else Reason.OTHER_SERVER
        case b"\x07":
            return Situation.RELEASING if chosen in (None, server) else Reason.OTHER_SERVER
        case b"\x08":
            return Situation.INFORMING
        case None:
            return Reason.NOT_DHCP
    return Reason.UNEXPECTED_TYPE


class Bound:
    """A port's answers, rendered once. `decide` says what to send, `compose` and `render` both build it.

    `compose` is the plain way, through a `Message`; `render` joins what was encoded beforehand and patches xid, flags,
    ciaddr, giaddr and type. They give the same bytes (the tests' oracle), and `render` falls back to `compose` for what
    does not fit the client's maximum message size.
    """

    __slots__ = ("_after", "_limit", "_lone", "_own", "_values", "address", "mac", "server", "server_mac")

    def __init__(self, scope: PortScope) -> None:
        """Raises ValueError for a scope without DHCPv4, or with a value that can't be told to a client."""
        if scope.v4 is None:
            raise ValueError("the scope has no DHCPv4")
        self.mac: Final = frame.mac(scope.mac)
        self.server_mac: Final = frame.mac(scope.server_mac)
        self.address: Final = options.address(scope.v4.address)
        self.server: Final = options.address(scope.v4.server)
        self._values: Final = parameters(scope.v4)
        self._limit: Final = (scope.v4.mtu or _ETHERNET_MTU) - _IP_UDP
        self._lone: Final = {code: options.encode_one(code, value) for code, value in self._values.items()}
        self._after: Final = self.mac + bytes(10 + 64 + 128) + COOKIE
        self._own: Final = options.encode_one(Code.SERVER_ID, self.server)

    def answer(self, request: Message) -> Reply | Reason:
        """The reply to one message, or why there is none."""
        act = self.decide(request)
        if isinstance(act, Reason):
            return act
        to_mac, destination, port = self.destination(request, act)
        return Reply(act, self.render(request, act), to_mac, destination, port)

    def decide(self, request: Message) -> Act | Reason:
        """A row of `DECISIONS`, or why the message is not looked at."""
        if request.op != BOOTREQUEST:
            return Reason.NOT_A_REQUEST
        if request.htype != 1 or len(request.chaddr) != 6:
            return Reason.NOT_ETHERNET
        if request.chaddr != self.mac:
            return Reason.FOREIGN_MAC
        now = situation(request, self.server)
        if isinstance(now, Reason):
            return now
        named = request.options.get(Code.REQUESTED_ADDRESS, request.ciaddr)
        if now is Situation.RELEASING:
            named = request.ciaddr
        elif named == ZERO and now in (Situation.SELECTING, Situation.INIT_REBOOT, Situation.EXTENDING):
            return Reason.NO_ADDRESS_NAMED
        return DECISIONS[now, named == self.address]

    def destination(self, request: Message, act: Act) -> tuple[bytes, bytes, int]:
        """MAC, IPv4 address and port of a reply: RFC 2131 §4.1, in its order."""
        if request.giaddr != ZERO:
            return self.mac, request.giaddr, SERVER_PORT
        if act is Act.NAK:
            return frame.BROADCAST_MAC, _ALL_ONES, CLIENT_PORT
        if request.ciaddr != ZERO:
            return self.mac, request.ciaddr, CLIENT_PORT
        if request.flags & BROADCAST or act is Act.ACK_INFORM:
            return frame.BROADCAST_MAC, _ALL_ONES, CLIENT_PORT
        return self.mac, self.address, CLIENT_PORT

    def codes(self, request: Message, act: Act) -> list[int]:
        """Which of the scope's options a reply has, in order: as requested (RFC 2132 §9.8), then what always goes.

        Without a parameter request list all of them; the subnet mask before the router (RFC 2132 §3.3).
        """
        wished = request.options.get(Code.PARAMETER_LIST)
        order: dict[int, None] = {} if act is Act.ACK_INFORM else dict.fromkeys(_LEASE_CODES)
        for code in self._values if wished is None else wished:
            if code in self._values and code not in _ALREADY:
                if code == Code.ROUTER:
                    order[Code.SUBNET_MASK] = None
                order[code] = None
        order.update(dict.fromkeys(code for code in _ALWAYS if code in self._values))
        return list(order)

    def compose(self, request: Message, act: Act) -> Message:
        """The reply as RFC 2131 table 3 has it."""
        is_nak = act is Act.NAK
        found: dict[int, bytes] = {Code.MESSAGE_TYPE: bytes((_TYPE[act],)), Code.SERVER_ID: self.server}
        if is_nak:
            found[Code.MESSAGE] = _NAK_TEXT
        else:
            if act is Act.ACK_RAPID:
                found[Code.RAPID_COMMIT] = b""
            found.update((code, self._values[code]) for code in self.codes(request, act))
        if Code.CLIENT_ID in request.options:
            found[Code.CLIENT_ID] = request.options[Code.CLIENT_ID]
        flags = request.flags
        if is_nak and request.giaddr != ZERO:
            flags |= BROADCAST  # the relay is to broadcast it: the client has no address that it may use
        return Message(
            op=BOOTREPLY,
            xid=request.xid,
            chaddr=request.chaddr,
            options=found,
            flags=flags,
            ciaddr=request.ciaddr if act in (Act.ACK, Act.ACK_INFORM) else ZERO,
            yiaddr=ZERO if is_nak or act is Act.ACK_INFORM else self.address,
            giaddr=request.giaddr,
        )

    def render(self, request: Message, act: Act) -> bytes:
        """The reply's UDP payload, the same bytes as `encode(compose(…), limit(…))`."""
        if act is Act.NAK:
            return encode(self.compose(request, act), self.limit(request))
        parts = [b"\x35\x01", bytes((_TYPE[act],)), self._own]
        if act is Act.ACK_RAPID:
            parts.append(b"\x50\x00")
        lone = self._lone
        parts.extend([lone[code] for code in self.codes(request, act)])
        client = request.options.get(Code.CLIENT_ID)
        if client is not None:
            parts.append(options.encode_one(Code.CLIENT_ID, client))
        area = b"".join(parts)
        if FIXED + len(area) + 1 > self.limit(request):
            return encode(self.compose(request, act), self.limit(request))
        head = b"".join(
            (
                b"\x02\x01\x06\x00",
                request.xid,
                b"\0\0",
                request.flags.to_bytes(2, "big"),
                request.ciaddr if act in (Act.ACK, Act.ACK_INFORM) else ZERO,
                ZERO if act is Act.ACK_INFORM else self.address,
                ZERO,
                request.giaddr,
                self._after,
                area,
                b"\xff",
            )
        )
        return head.ljust(MINIMUM, b"\0")

    def limit(self, request: Message) -> int:
        """UDP payload that the client takes, in bytes: option 57 is an IP datagram's size, and the MTU bounds it."""
        value = request.options.get(Code.MAX_MESSAGE_SIZE, b"")
        asked = int.from_bytes(value, "big") - _IP_UDP if len(value) == 2 else DEFAULT_LIMIT
        return max(DEFAULT_LIMIT, min(asked, self._limit))


def answer(scope: PortScope, request: Message) -> Reply | Reason:
    """What is sent to a client at a port, or why nothing is. Whoever answers often keeps a `Bound`."""
    return Reason.NO_SCOPE if scope.v4 is None else Bound(scope).answer(request)
