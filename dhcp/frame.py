"""Pure. Ethernet, ARP, IPv4, UDP, IPv6 and ICMPv6 around the messages, as far as one answer at a port needs them.

Received IPv4 and UDP checksums are not verified: a guest on the same machine may leave them to an offload that never
runs. Sent ones are always right.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

BROADCAST_MAC: Final = b"\xff" * 6
_IPV4, _ARP, _IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
_UDP, _ICMPV6 = 17, 58
_ARP_HEAD = b"\x00\x01\x08\x00\x06\x04"
"""Ethernet and IPv4, with the lengths of their addresses."""
ARP_REPLY: Final = 2
VRRP: Final = 112
_HEAD4 = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEAD = struct.Struct("!HHHH")
_RECEIVED4 = struct.Struct("!6x6sHBxH2xHxBxx4s4s")
"""From the first byte of a frame: source, type, version and length, total length, fragment, protocol, addresses."""


class Datagram(NamedTuple):
    """A UDP datagram as received. Addresses: 4 bytes of IPv4 or 16 of IPv6, MACs: 6."""

    source_mac: bytes
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    payload: bytes


class Icmp6(NamedTuple):
    """An ICMPv6 message as received. Addresses: 16 bytes."""

    source_mac: bytes
    source: bytes
    destination: bytes
    hop_limit: int
    body: bytes


def mac(text: str) -> bytes:
    """6 bytes of a colon-separated MAC. Raises ValueError."""
    packed = bytes.fromhex(text.replace(":", ""))
    if len(packed) != 6 or len(text) != 17:
        raise ValueError(f"{text!r} is no MAC address of the form 02:00:00:00:00:01")
    return packed


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071. As 2**16 is 1 modulo 65535, the folded sum is the number itself modulo 65535."""
    if len(data) & 1:
        data += b"\0"
    return 0xFFFF - (int.from_bytes(data, "big") % 0xFFFF or (0xFFFF if any(data) else 0))


def udp4(
    to_mac: bytes, from_mac: bytes, source: bytes, destination: bytes, ports: tuple[int, int], payload: bytes
) -> bytes:
    """A whole Ethernet frame. ports: source and destination."""
    length = 8 + len(payload)
    head = _HEAD4.pack(0x45, 0, 20 + length, 0, 0, 64, _UDP, 0, source, destination)
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    pseudo = source + destination + _UDP_HEAD.pack(_UDP, length, *ports) + length.to_bytes(2, "big")
    # A computed 0 goes as 0xffff: 0 would say "no checksum" (RFC 768).
    udp = _UDP_HEAD.pack(*ports, length, checksum(pseudo + payload) or 0xFFFF)
    return to_mac + from_mac + _IPV4 + head + udp + payload


def parse_udp4(frame: bytes) -> Datagram | None:
    """The datagram in a frame; None for anything else, for fragments, and for lengths that don't fit."""
    if len(frame) < 42:
        return None
    source_mac, kind, first, total, fragment, protocol, source, destination = _RECEIVED4.unpack_from(frame)
    if kind != 0x0800 or first >> 4 != 4 or protocol != _UDP or fragment & 0x3FFF:  # more fragments, or an offset
        return None
    at, total = 14 + (first & 15) * 4, 14 + total
    if at < 34 or at + 8 > total or total > len(frame):
        return None
    source_port, destination_port, length, _ = _UDP_HEAD.unpack_from(frame, at)
    if length < 8 or at + length > total:
        return None
    return Datagram(source_mac, source, destination, source_port, destination_port, frame[at + 8 : at + length])


def arp_request(to_mac: bytes, from_mac: bytes, source: bytes, target: bytes) -> bytes:
    """A whole Ethernet frame that asks who has `target` (RFC 826). Addresses: 4 bytes."""
    return to_mac + from_mac + _ARP + _ARP_HEAD + b"\x00\x01" + from_mac + source + bytes(6) + target


def parse_arp_reply(frame: bytes) -> tuple[bytes, bytes] | None:
    """Who answers, and for which address: MAC and 4 bytes. None for anything else, and where the frame's own source is
    another."""
    if len(frame) < 42 or frame[12:20] != _ARP + _ARP_HEAD or frame[20:22] != ARP_REPLY.to_bytes(2, "big"):
        return None
    return (frame[22:28], frame[28:32]) if frame[22:28] == frame[6:12] else None


def announcing_router(frame: bytes) -> bytes | None:
    """The virtual router's MAC that a frame is from, where it says who that router is: ARP, VRRP's own advertisement
    and an unsolicited neighbour advertisement (RFC 9568 §7.2, §7.3, §8.1.2, §8.2.2). None for anything else."""
    if len(frame) < 42 or frame[6:10] != b"\x00\x00\x5e\x00" or frame[10] not in (1, 2):
        return None
    kind = frame[12:14]
    says = (
        kind == _ARP
        or (kind == _IPV4 and frame[23] == VRRP)
        or (kind == _IPV6 and (frame[20] == VRRP or (frame[20] == _ICMPV6 and frame[54:55] == b"\x88")))
    )
    return frame[6:12] if says else None


def _checksum6(source: bytes, destination: bytes, body: bytes, protocol: int = _ICMPV6) -> int:
    """Checksum with the pseudo header of RFC 8200 §8.1; 0 when `body` already carries the right one."""
    return checksum(source + destination + struct.pack("!IHBB", len(body), 0, 0, protocol) + body)


def icmp6(to_mac: bytes, from_mac: bytes, source: bytes, destination: bytes, body: bytes) -> bytes:
    """A whole Ethernet frame, hop limit 255 as neighbour discovery wants. body: type, code, two zero bytes, rest."""
    body = body[:2] + _checksum6(source, destination, body).to_bytes(2, "big") + body[4:]
    head = struct.pack("!IHBB", 0x60000000, len(body), _ICMPV6, 255)
    return to_mac + from_mac + _IPV6 + head + source + destination + body


def parse_icmp6(frame: bytes) -> Icmp6 | None:
    """The ICMPv6 message that follows directly on an IPv6 header, of at least 4 bytes; else None."""
    if len(frame) < 58 or frame[12:14] != _IPV6 or frame[14] >> 4 != 6 or frame[20] != _ICMPV6:
        return None
    end = 54 + int.from_bytes(frame[18:20], "big")
    if end < 58 or end > len(frame):
        return None
    return Icmp6(frame[6:12], frame[22:38], frame[38:54], frame[21], frame[54:end])


def udp6(
    to_mac: bytes, from_mac: bytes, source: bytes, destination: bytes, ports: tuple[int, int], payload: bytes
) -> bytes:
    """A whole Ethernet frame. Addresses: 16 bytes; ports: source and destination."""
    length = 8 + len(payload)
    summed = _checksum6(source, destination, _UDP_HEAD.pack(*ports, length, 0) + payload, _UDP) or 0xFFFF
    head = struct.pack("!IHBB", 0x60000000, length, _UDP, 64)
    return to_mac + from_mac + _IPV6 + head + source + destination + _UDP_HEAD.pack(*ports, length, summed) + payload


def parse_udp6(frame: bytes) -> Datagram | None:
    """The datagram that follows directly on an IPv6 header; None for anything else, and for lengths that don't fit."""
    if len(frame) < 62 or frame[12:14] != _IPV6 or frame[14] >> 4 != 6 or frame[20] != _UDP:
        return None
    end = 54 + int.from_bytes(frame[18:20], "big")
    source_port, destination_port, length, _ = _UDP_HEAD.unpack_from(frame, 54)
    if length < 8 or 54 + length > end or end > len(frame):
        return None
    payload = frame[62 : 54 + length]
    return Datagram(frame[6:12], frame[22:38], frame[38:54], source_port, destination_port, payload)


def has_right_checksum(message: Icmp6) -> bool:
    """RFC 4443 §2.3."""
    return _checksum6(message.source, message.destination, message.body) == 0
