"""First packets of flows, with all checksums that connection tracking looks at. Made without a library: it is quick.

RFC 791, 8200, 1071, 9293, 768, 9260 (CRC-32C: appendix A), 792, 4443.
"""

from __future__ import annotations

import struct
from functools import cache
from ipaddress import ip_address

from policies.ports import Protocol

OTHER_PROTOCOL = 253
"""RFC 3692: for experiments."""

_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132, Protocol.OTHER: OTHER_PROTOCOL}


def packet(version: int, source: str, destination: str, point: tuple[Protocol, int], serial: int) -> bytes:
    """The first packet of a flow to a port, or of an ICMP type (echo alone, as ICMP numbers it). serial, below 60 000,
    tells it from others: it is in the source port, the echo's identifier and what it carries."""
    protocol, number = point
    ends = _packed(source) + _packed(destination)
    kind = _NUMBERS.get(protocol) or (1 if version == 4 else 58)
    content = _content(protocol, version, number, serial)
    if protocol is Protocol.SCTP:
        content = content[:8] + struct.pack("<I", _crc32c(content)) + content[12:]
    elif protocol is not Protocol.OTHER:
        place = {Protocol.TCP: 16, Protocol.UDP: 6, Protocol.ICMP: 2}[protocol]
        pseudo = b"" if (protocol, version) == (Protocol.ICMP, 4) else ends + struct.pack("!II", len(content), kind)
        content = content[:place] + _checksum(pseudo + content) + content[place + 2 :]
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(content), kind, 64) + ends + content
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(content), serial, 0, 64, kind)
    return head + _checksum(head + b"\0\0" + ends) + ends + content


def fragment(whole: bytes, content: bytes, offset: int, is_followed: bool) -> bytes:
    """A part of an IPv4 packet (RFC 791 §3.2), with the head of the whole."""
    flags = (0x2000 if is_followed else 0) | offset >> 3
    lengths = struct.pack("!H", 20 + len(content)) + whole[4:6] + struct.pack("!H", flags)
    head = whole[:2] + lengths + whole[8:10] + b"\0\0" + whole[12:20]
    return head[:10] + _checksum(head) + head[12:] + content


def _content(protocol: Protocol, version: int, number: int, serial: int) -> bytes:
    mark, port = struct.pack("!I", serial), 1024 + serial
    if protocol is Protocol.TCP:
        return struct.pack("!HHIIBBHHH", port, number, serial, 0, 0x50, 0x02, 65535, 0, 0) + mark
    if protocol is Protocol.UDP:
        return struct.pack("!HHHH", port, number, 12, 0) + mark
    if protocol is Protocol.SCTP:  # INIT; its verification tag is nought
        return struct.pack("!HHIIBBHIIHHI", port, number, 0, 0, 1, 0, 20, serial + 1, 65535, 1, 1, serial)
    if protocol is Protocol.ICMP:
        assert number == 8, "only an echo begins a flow in both versions"
        return struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, serial, 1) + mark
    return mark


@cache
def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _checksum(content: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


@cache
def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


def _crc32c(content: bytes) -> int:
    table, crc = _table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
