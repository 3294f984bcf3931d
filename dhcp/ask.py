"""Pure. Questions to a port's client for the addresses that it should have; knows no socket and no clock.

A client says what it takes once: to whoever was not there then, it has taken nothing until half its lease is over, or
for ever. So it is asked: by ARP (RFC 826) for the address that DHCPv4 gives it, by a neighbour solicitation (RFC 4861
§4.3) for those that DHCPv6 gives it and those that it forms. The questions come from the gateway and go to the client's
own MAC: they are no business of anybody else's, and no probe that a client could take for a duplicate (RFC 5227
§2.1.1).
"""

from __future__ import annotations

import ipaddress
from typing import Final

from dhcp import frame, ra
from dhcp.scope import PortScope, ScopeRa

FIRST_S: Final = 0.5
LAST_S: Final = 64.0
OFTEN: Final = 8
"""So many questions follow each other quickly: a client that comes up takes its addresses within that time, and is
waited for."""


def questions(scope: PortScope) -> dict[str, bytes]:
    """Frames by the address that each asks for: those given, and in each autonomous prefix of 64 bits the one made of
    the MAC (RFC 4291 appendix A)."""
    found: dict[str, bytes] = {}
    mac, server_mac = frame.mac(scope.mac), frame.mac(scope.server_mac)
    if scope.v4 is not None:
        server, address = (ipaddress.IPv4Address(text).packed for text in (scope.v4.server, scope.v4.address))
        found[scope.v4.address] = frame.arp_request(mac, server_mac, server, address)
    if scope.ra is None:
        return found
    targets = [] if scope.v6 is None else [*scope.v6.addresses]
    for prefix, is_autonomous in scope.ra.prefixes:
        if is_autonomous and prefix.endswith("/64"):
            targets.append(made_of_mac(scope.mac, prefix))
    found.update((target, neighbour_question(scope, scope.ra, target)) for target in targets)
    return found


def neighbour_question(scope: PortScope, told: ScopeRa, target: str) -> bytes:
    """The frame that asks a client for an IPv6 address. told: the scope's own."""
    mac, source_mac = frame.mac(scope.mac), frame.mac(told.source_mac or scope.server_mac)
    source, packed = ipaddress.IPv6Address(told.source).packed, ipaddress.IPv6Address(target).packed
    body = bytes((ra.NEIGHBOUR_SOLICITATION, *bytes(7))) + packed + b"\x01\x01" + source_mac
    return frame.icmp6(mac, source_mac, source, packed, body)


def made_of_mac(mac: str, prefix: str) -> str:
    """The address with the modified EUI-64 of a MAC in a prefix of 64 bits (RFC 4291 appendix A)."""
    raw = frame.mac(mac)
    identifier = bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]))
    return str(ipaddress.IPv6Address(ipaddress.IPv6Network(prefix).network_address.packed[:8] + identifier))


def after_s(asked: int) -> float:
    """How long after question number `asked` the next one goes, while there is no answer: a client may not be up yet,
    or never take what is expected."""
    return min(FIRST_S * 2.0 ** min(max(asked + 1 - OFTEN, 0), 16), LAST_S)
