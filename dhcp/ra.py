"""Pure. Router advertisements to bytes, solicitations from bytes, and when to advertise; knows no socket and no clock.

Sources: RFC 4861 §4.1, §4.2, §6.1.1, §6.2 and RFC 8106. The port is a link with one host, so an answer goes out at once
and to all nodes; `MIN_DELAY_S` takes the place of RFC 4861's 3 s, which is there for the many hosts of a shared link.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from dhcp import frame
from dhcp.reason import Reason
from dhcp.scope import PortScope, ScopeRa

SOLICITATION: Final = 133
ADVERTISEMENT: Final = 134
NEIGHBOUR_SOLICITATION: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136
HOP_LIMIT: Final = 255
ALL_NODES: Final = ipaddress.IPv6Address("ff02::1").packed
ALL_NODES_MAC: Final = b"\x33\x33\x00\x00\x00\x01"

MAX_INTERVAL_S: Final = 600.0
MIN_INTERVAL_S: Final = 200.0
INITIAL: Final = 3
"""The first advertisements follow each other after at most `INITIAL_INTERVAL_S` (RFC 4861 §10)."""
INITIAL_INTERVAL_S: Final = 16.0
MIN_DELAY_S: Final = 1.0
DNS_LIFETIME_S: Final = int(3 * MAX_INTERVAL_S)
"""RFC 8106 §5.1's default."""
_LINK_LOCAL: Final = ipaddress.IPv6Network("fe80::/10")


class Act(Enum):
    """What is sent."""

    ADVERTISE_ROUTER = "router advertisement"


class Schedule(NamedTuple):
    """When a port hears from us. next_s and last_s: monotonic seconds; sent: how many so far."""

    next_s: float
    last_s: float = float("-inf")
    sent: int = 0

    def after_sending(self, now_mono_s: float, draw: float) -> Schedule:
        """draw: uniform in [0, 1), so that ports do not advertise in step (RFC 4861 §6.2.4)."""
        interval = MIN_INTERVAL_S + draw * (MAX_INTERVAL_S - MIN_INTERVAL_S)
        if self.sent + 1 < INITIAL:
            interval = min(interval, INITIAL_INTERVAL_S)
        return Schedule(now_mono_s + interval, now_mono_s, self.sent + 1)

    def after_solicitation(self, now_mono_s: float) -> Schedule:
        """Now, or as soon as the last one is `MIN_DELAY_S` old; never later than planned."""
        return self._replace(next_s=min(self.next_s, max(now_mono_s, self.last_s + MIN_DELAY_S)))


def advertisement(scope: PortScope) -> bytes:
    """The whole frame, to all nodes of the port. Raises ValueError for a scope that can't be told."""
    if scope.ra is None:
        raise ValueError("the scope has no router advertisements")
    ra = scope.ra
    if not 0 <= ra.router_lifetime_s <= 9000:
        raise ValueError(f"a router lifetime is 0 to 9000 s (RFC 4861 §6.2.1), not {ra.router_lifetime_s}")
    parts = []
    if ra.mtu is not None:
        if ra.mtu < 1280:
            raise ValueError(f"IPv6 needs an MTU of 1280 or more (RFC 8200 §5), not {ra.mtu}")
        parts.append(struct.pack("!BBHI", 5, 1, 0, ra.mtu))
    parts += [_prefix(*one, ra.valid_s, ra.preferred_s) for one in ra.prefixes]
    parts += [_servers(ra.rdnss, DNS_LIFETIME_S), _domains(ra.dnssl, DNS_LIFETIME_S)]
    return _frame(scope, ra, ra, ra.router_lifetime_s, parts)


def farewell(before: PortScope, after: PortScope | None) -> bytes | None:
    """The frame by which a client lets go of what it was told of and is told no longer, None when it need not: the
    router (RFC 4861 §6.2.5: one that ceases to be a router says so with a lifetime of zero), prefixes (their addresses
    are deprecated at once, and end within two hours: RFC 4862 §5.5.3), name servers and domains (RFC 8106 §5)."""
    ra = before.ra
    if ra is None:
        return None
    then = ScopeRa(ra.source) if after is None or after.ra is None else after.ra
    routes = then.router_lifetime_s if then.source == ra.source else 0
    known = {prefix for prefix, _ in then.prefixes}
    gone = [_prefix(*one, 0, 0) for one in ra.prefixes if one[0] not in known]
    servers = [one for one in ra.rdnss if one not in then.rdnss]
    domains = [one for one in ra.dnssl if one not in then.dnssl]
    if not (gone or servers or domains or (ra.router_lifetime_s and not routes)):
        return None
    return _frame(before, ra, then, routes, [*gone, _servers(servers, 0), _domains(domains, 0)])


def _frame(scope: PortScope, by: ScopeRa, flagged: ScopeRa, lifetime_s: int, parts: Sequence[bytes]) -> bytes:
    """An advertisement with these options. by: who says it; flagged: whose flags count from now on."""
    source = ipaddress.IPv6Address(by.source)
    if source not in _LINK_LOCAL:
        raise ValueError(f"advertisements come from a link-local address, not from {by.source} (RFC 4861 §6.1.2)")
    source_mac = frame.mac(by.source_mac or scope.server_mac)
    flags = (0x80 if flagged.managed else 0) | (0x40 if flagged.other else 0)
    # Hop limit 64; reachable and retransmission time unspecified.
    head = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 64, flags, lifetime_s, 0, 0)
    body = head + b"\x01\x01" + source_mac + b"".join(parts)
    return frame.icmp6(ALL_NODES_MAC, source_mac, source.packed, ALL_NODES, body)


def _prefix(prefix: str, is_autonomous: bool, valid_s: int, preferred_s: int) -> bytes:
    network = ipaddress.IPv6Network(prefix)
    flags = 0x80 | (0x40 if is_autonomous else 0)
    head = struct.pack("!BBBBIII", 3, 4, network.prefixlen, flags, valid_s, preferred_s, 0)
    return head + network.network_address.packed


def _servers(servers: Sequence[str], lifetime_s: int) -> bytes:
    """RFC 8106 §5.1; nothing where there are none."""
    packed = b"".join(ipaddress.IPv6Address(server).packed for server in servers)
    return struct.pack("!BBHI", 25, 1 + 2 * len(servers), 0, lifetime_s) + packed if servers else b""


def _domains(domains: Sequence[str], lifetime_s: int) -> bytes:
    """RFC 8106 §5.2; nothing where there are none."""
    names = _names(domains)
    return struct.pack("!BBHI", 31, 1 + len(names) // 8, 0, lifetime_s) + names if domains else b""


def _names(domains: Sequence[str]) -> bytes:
    """Uncompressed names, padded with zeros to a multiple of 8 bytes (RFC 8106 §5.2)."""
    out = bytearray()
    for domain in domains:
        for label in domain.rstrip(".").split("."):
            text = label.encode("ascii")
            if not 1 <= len(text) <= 63:
                raise ValueError(f"{domain!r} is no domain name: labels have 1 to 63 bytes")
            out += bytes((len(text),)) + text
        out.append(0)
    return bytes(out) + bytes(-len(out) % 8)


def check_solicitation(message: frame.Icmp6) -> Reason | None:
    """None for a valid solicitation (RFC 4861 §6.1.1), else why it is discarded."""
    body = message.body
    if body[0] != SOLICITATION:
        return Reason.NOT_FOR_US
    if message.hop_limit != HOP_LIMIT or body[1] != 0 or len(body) < 8:
        return Reason.BAD_SOLICITATION
    if not frame.has_right_checksum(message):
        return Reason.BAD_CHECKSUM
    at = 8
    while at < len(body):
        size = body[at + 1] * 8 if at + 1 < len(body) else 0
        if size == 0 or at + size > len(body):
            return Reason.BAD_SOLICITATION
        if body[at] == 1 and message.source == bytes(16):
            return Reason.BAD_SOLICITATION
        at += size
    return None


def formed_address(message: frame.Icmp6, prefixes: Sequence[str]) -> str | None:
    """The address that a client is about to use, from its duplicate address detection (RFC 4862 §5.4.2), or that it
    has, from its answer to a question (RFC 4861 §7.2.4); plain.

    None for any other message, and for an address in none of `prefixes`.
    """
    body = message.body
    if len(body) < 24 or body[1] != 0 or message.hop_limit != HOP_LIMIT:
        return None
    if body[0] == NEIGHBOUR_SOLICITATION:
        is_told = message.source == bytes(16)
    else:
        is_answer = ipaddress.IPv6Address(message.destination) in _LINK_LOCAL and message.source == body[8:24]
        is_told = body[0] == NEIGHBOUR_ADVERTISEMENT and is_answer
    if not is_told or not frame.has_right_checksum(message):
        return None
    target = ipaddress.IPv6Address(body[8:24])
    return str(target) if any(target in ipaddress.IPv6Network(prefix) for prefix in prefixes) else None
