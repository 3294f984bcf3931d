"""Pure. What a DHCPv4 scope says, rendered once and patched for each request (RFC 2131 §4.3.1, table 3).

`compose` is the plain way, through a `Message`; `render` joins what was encoded beforehand. They give the same bytes
(the tests' oracle). Decides nothing, and knows no lease.

Choices beyond the RFC: the subnet mask and the MTU are sent even when not asked for (udhcpc asks for no MTU, and an
overlay is narrower than the 1500 that it would assume); RFC 4039's rapid commit, RFC 6842's client identifier.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from dhcp import frame, options
from dhcp.decide import Act
from dhcp.message import BOOTREPLY, BROADCAST, COOKIE, DEFAULT_LIMIT, FIXED, MINIMUM, ZERO, Message, encode
from dhcp.options import Code, MessageType
from dhcp.scope import Boot, Scope4

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
_ALL_ONES: Final = b"\xff\xff\xff\xff"
_ETHERNET_MTU: Final = 1500
_IP_UDP: Final = 28
_TYPE: Final = {
    Act.OFFER: MessageType.OFFER,
    Act.ACK: MessageType.ACK,
    Act.ACK_RAPID: MessageType.ACK,
    Act.ACK_INFORM: MessageType.ACK,
    Act.NAK: MessageType.NAK,
}
_NAK_TEXT: Final = b"not an address of this client"
_LEASE_CODES: Final = (Code.LEASE_TIME, Code.RENEWAL_TIME, Code.REBINDING_TIME)
_ALWAYS: Final = (Code.SUBNET_MASK, Code.MTU)
_ALREADY: Final = frozenset((Code.MESSAGE_TYPE, Code.SERVER_ID, *_LEASE_CODES))
_AREAS: Final = 16
"""So many wishes are remembered rendered: a client has one or two, and one that invents them gains nothing."""
_FILE: Final = 127
"""Longest name in the header's `file`; a longer one goes in option 67 alone."""
_ANY: Final = -1

FOREVER: Final = 0xFFFFFFFF


class Reply(NamedTuple):
    """One datagram for the client. destination and port after RFC 2131 §4.1; to_mac: 6 bytes; address: what it is
    about."""

    act: Act
    payload: bytes
    to_mac: bytes
    destination: bytes
    port: int
    address: bytes = ZERO


class _Loading(NamedTuple):
    """What one kind of client boots."""

    siaddr: bytes
    file: bytes
    values: dict[int, bytes]
    demanded: tuple[int, ...]


_NOTHING: Final = _Loading(ZERO, b"", {}, ())


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
    values.update(scope.options)
    return values


def _fraction(lease_s: int, eighths: int) -> int:
    return lease_s if lease_s == FOREVER else lease_s * eighths // 8


class Answers:
    """What clients are told by one scope, whichever address they get. Its own `address` is not looked at but for the
    broadcast address that follows from it."""

    __slots__ = ("_areas", "_fqdn", "_limit", "_loadings", "_lone", "_own", "_scope", "_values", "server")

    def __init__(self, scope: Scope4) -> None:
        """Raises ValueError for a scope with a value that can't be told to a client."""
        self._scope: Final = scope
        self.server: Final = options.address(scope.server)
        self._values: Final = parameters(scope)
        self._limit: Final = (scope.mtu or _ETHERNET_MTU) - _IP_UDP
        self._lone: Final = {code: options.encode_one(code, value) for code, value in self._values.items()}
        self._own: Final = options.encode_one(Code.SERVER_ID, self.server)
        self._areas: Final[dict[tuple[Act, bytes | None], bytes]] = {}
        self._loadings: Final = {} if scope.boot is None else _loadings(scope.boot)
        self._fqdn: Final = f"{scope.hostname}.{scope.domain}" if scope.hostname and scope.domain else ""
        if self._fqdn:
            options.encode_name(self._fqdn)

    @property
    def lease_s(self) -> int:
        """How long an address is given for."""
        return self._scope.lease_s

    def destination(self, request: Message, act: Act, address: bytes, from_mac: bytes) -> tuple[bytes, bytes, int]:
        """MAC, IPv4 address and port of a reply: RFC 2131 §4.1, in its order. from_mac: whose frame the request was."""
        if request.giaddr != ZERO:
            return from_mac, request.giaddr, SERVER_PORT
        if act is Act.NAK:
            return frame.BROADCAST_MAC, _ALL_ONES, CLIENT_PORT
        if request.ciaddr != ZERO:
            return request.chaddr, request.ciaddr, CLIENT_PORT
        if request.flags & BROADCAST or act is Act.ACK_INFORM:
            return frame.BROADCAST_MAC, _ALL_ONES, CLIENT_PORT
        return request.chaddr, address, CLIENT_PORT

    def codes(self, wished: bytes | None, act: Act) -> list[int]:
        """Which of the scope's options a reply has, in order: as requested (RFC 2132 §9.8), then what always goes.

        Without a parameter request list all of them; the subnet mask before the router (RFC 2132 §3.3).
        """
        order: dict[int, None] = {} if act is Act.ACK_INFORM else dict.fromkeys(_LEASE_CODES)
        for code in self._values if wished is None else wished:
            if code in self._values and code not in _ALREADY:
                if code == Code.ROUTER:
                    order[Code.SUBNET_MASK] = None
                order[code] = None
        order.update(dict.fromkeys(code for code in _ALWAYS if code in self._values))
        return list(order)

    def _loading(self, request: Message) -> _Loading:
        """What this client boots: iPXE by its user class or its own option, others by their architecture."""
        said = request.options
        if not self._loadings:
            return _NOTHING
        if "ipxe" in self._loadings and (Code.IPXE in said or said.get(Code.USER_CLASS) in (b"iPXE", b"\x04iPXE")):
            found = self._loadings["ipxe"]
        else:
            asked = said.get(Code.ARCHITECTURE, b"")
            kinds = [int.from_bytes(asked[at : at + 2], "big") for at in range(0, len(asked) - 1, 2)]
            found = next((self._loadings[kind] for kind in [*kinds, _ANY] if kind in self._loadings), _NOTHING)
        wished = said.get(Code.PARAMETER_LIST)
        values = {code: value for code, value in found.values.items() if code not in self._values}
        told = tuple(code for code in values if wished is None or code in wished or code in found.demanded)
        if said.get(Code.VENDOR_CLASS, b"").startswith(b"HTTPClient"):
            # UEFI's HTTP boot takes only an offer that says so (UEFI 2.10 §24.7.3.1)
            values, told = values | {Code.VENDOR_CLASS: b"HTTPClient"}, (*told, Code.VENDOR_CLASS)
        return _Loading(found.siaddr, found.file, {code: values[code] for code in told}, ())

    def _own_name(self, request: Message) -> bytes | None:
        """Option 81 for a client that said it: the name is the port's, and ours to put into the DNS (RFC 4702 §4)."""
        asked = request.options.get(Code.CLIENT_FQDN)
        if asked is None or not asked or not self._fqdn:
            return None
        is_canonical, is_ours = asked[0] & 4, asked[0] & 1
        flags = is_canonical | 1 | (0 if is_ours else 2)
        name = options.encode_name(self._fqdn) if is_canonical else self._fqdn.encode("ascii")
        return bytes((flags, 255, 255)) + name

    def _last(self, request: Message) -> list[tuple[int, bytes]]:
        """What every reply has at its end, because of what the client or its relay said."""
        said = request.options
        found: list[tuple[int, bytes]] = [(code, said[code]) for code in _REPEATED if code in said]
        if (name := self._own_name(request)) is not None:
            found.insert(0, (int(Code.CLIENT_FQDN), name))
        return found

    def compose(self, request: Message, act: Act, address: bytes) -> Message:
        """The reply as RFC 2131 table 3 has it."""
        is_nak = act is Act.NAK
        found: dict[int, bytes] = {Code.MESSAGE_TYPE: bytes((_TYPE[act],)), Code.SERVER_ID: self.server}
        loading = _NOTHING if is_nak else self._loading(request)
        if is_nak:
            found[Code.MESSAGE] = _NAK_TEXT
            found.update((code, request.options[code]) for code in _REPEATED if code in request.options)
        else:
            if act is Act.ACK_RAPID:
                found[Code.RAPID_COMMIT] = b""
            wished = request.options.get(Code.PARAMETER_LIST)
            found.update((code, self._values[code]) for code in self.codes(wished, act))
            found.update(loading.values)
            found.update(self._last(request))
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
            yiaddr=ZERO if is_nak or act is Act.ACK_INFORM else address,
            siaddr=loading.siaddr,
            giaddr=request.giaddr,
            file=loading.file,
        )

    def _area(self, act: Act, wished: bytes | None) -> bytes:
        """The options that follow from the scope and the wish alone, encoded."""
        key = act, wished
        found = self._areas.get(key)
        if found is None:
            parts = [b"\x35\x01", bytes((_TYPE[act],)), self._own]
            if act is Act.ACK_RAPID:
                parts.append(b"\x50\x00")
            parts += [self._lone[code] for code in self.codes(wished, act)]
            found = b"".join(parts)
            if len(self._areas) >= _AREAS:
                self._areas.clear()
            self._areas[key] = found
        return found

    def render(self, request: Message, act: Act, address: bytes) -> bytes:
        """The reply's UDP payload, the same bytes as `encode(compose(…), limit(…))`."""
        if act is Act.NAK:
            return encode(self.compose(request, act, address), self.limit(request))
        said = request.options
        area = self._area(act, said.get(Code.PARAMETER_LIST))
        siaddr, file = ZERO, _NO_FILE
        if self._loadings:
            loading = self._loading(request)
            siaddr, file = loading.siaddr, loading.file.ljust(128, b"\0")
            area += b"".join(options.pieces(loading.values.items()))
        if not said.keys().isdisjoint(_ANSWERED):
            area += b"".join([options.encode_one(code, value) for code, value in self._last(request)])
        if (size := FIXED + len(area) + 1) > DEFAULT_LIMIT and size > self.limit(request):
            return encode(self.compose(request, act, address), self.limit(request))
        head = b"".join(
            (
                b"\x02\x01\x06\x00",
                request.xid,
                b"\0\0",
                request.flags.to_bytes(2, "big"),
                request.ciaddr if act is Act.ACK or act is Act.ACK_INFORM else ZERO,
                ZERO if act is Act.ACK_INFORM else address,
                siaddr,
                request.giaddr,
                request.chaddr,
                _AFTER,
                file,
                COOKIE,
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


_AFTER: Final = bytes(10 + 64)
"""The rest of chaddr, and sname."""
_NO_FILE: Final = bytes(128)
_REPEATED: Final = (Code.CLIENT_ID, Code.RELAY_AGENT)
"""RFC 6842 §3, RFC 3046 §2.2."""
_ANSWERED: Final = frozenset((Code.CLIENT_FQDN, *_REPEATED))


def _loadings(boot: Boot) -> dict[int | str, _Loading]:
    """By architecture, `_ANY`, or "ipxe". Raises ValueError for what can't be told."""
    siaddr = options.address(boot.server) if boot.server else ZERO
    named: list[tuple[int | str, str]] = [*boot.files, *([("ipxe", boot.ipxe)] if boot.ipxe else [])]
    found: dict[int | str, _Loading] = {}
    for kind, name in named:
        file = name.encode("ascii")
        values: dict[int, bytes] = {Code.TFTP_SERVER: boot.server.encode("ascii")} if boot.server else {}
        values[Code.BOOT_FILE] = file
        is_long = len(file) > _FILE
        found[kind] = _Loading(siaddr, b"" if is_long else file, values, (Code.BOOT_FILE,) if is_long else ())
    return found
