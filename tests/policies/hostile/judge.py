"""What may be heard of a station, judged by a reader of frames that knows nothing of the guard: mutations' oracle."""

from __future__ import annotations

import ipaddress

from guarded_lab import Station, ll

EXTENSIONS = {0, 43, 44, 60, 135, 139, 140}
"""Headers of IPv6 that another may follow (RFC 7045 §4), but for IPsec's (50, 51): nobody reads on without a key."""


def wrong(frame: bytes, by: Station, at: Station) -> str:
    """Why a frame that was heard should not have been, "" if it may be. It may have been cut anywhere."""
    mac, kind, body = _mac(by), frame[12:14], frame[14:]
    is_group = bool(frame[0] & 1)
    if frame[6:12] != mac:
        return "another's MAC"
    if not is_group and frame[:6] != _mac(at):
        return "for another's MAC"
    if frame[:5] == b"\x01\x80\xc2\0\0":
        return "for bridges"
    if kind == b"\x08\x06":
        return _wrong_arp(body, by)
    if kind == b"\x80\x35":
        ok = body[:8] == b"\0\1\x08\0\6\4\0\3" and body[8:14] == mac and body[14:18] == bytes(4)
        return "" if ok else "RARP"
    if kind == b"\x08\0":
        return _wrong4(body, by, at, is_group)
    if kind == b"\x86\xdd":
        return _wrong6(body, by, at, is_group)
    return "a type that nobody has"


def _wrong_arp(body: bytes, by: Station) -> str:
    own, sender, target = _own(by, 4), body[14:18], body[24:28]
    if body[:6] != b"\0\1\x08\0\6\4" or body[8:14] != _mac(by):
        return "ARP of another's MAC"
    if body[6:8] == b"\0\1" and sender == bytes(4):
        return "" if target in own else "a probe for another's address"
    return "" if body[6:8] in (b"\0\1", b"\0\2") and sender in own else "ARP of another's address"


def _wrong4(body: bytes, by: Station, at: Station, is_group: bool) -> str:
    if len(body) < 20:
        return "no header"
    if body[0] != 0x45 and not (body[0] == 0x46 and body[20:24] == b"\x94\4\0\0"):
        return "options, or no IPv4"
    source, destination, protocol = body[12:16], body[16:20], body[9]
    if source not in _own(by, 4) and not (source == bytes(4) and protocol == 2 and is_group):
        return "another's address"
    to_all = destination[0] >> 4 == 14 or destination in (b"\xff\xff\xff\xff", b"\x0a\0\0\xff")
    if is_group != to_all or (not is_group and not _is_behind(at, destination)):
        return "for another's address"
    length, at_once = int.from_bytes(body[2:4], "big"), int.from_bytes(body[6:8], "big") & 0x1FFF
    if length > len(body):
        return "longer than its frame"
    start = (body[0] & 15) * 4
    if protocol == 17 and at_once == 0:
        port = body[start + 2 : start + 4]
        if len(port) < 2 or int.from_bytes(port, "big") in (67, 68):
            return "DHCP"
    return ""


def _wrong6(body: bytes, by: Station, at: Station, is_group: bool) -> str:
    if len(body) < 40 or body[0] >> 4 != 6 or 40 + int.from_bytes(body[4:6], "big") > len(body):
        return "no IPv6, or longer than its frame"
    source, destination = body[8:24], body[24:40]
    if is_group != (destination[0] == 0xFF) or (not is_group and not _is_behind(at, destination)):
        return "for another's address"
    kind, start, is_first, is_plain = body[6], 40, True, True
    while kind in EXTENSIONS:
        is_plain = False
        head = body[start : start + 8]
        if len(head) < 8 or kind in (43, 135, 139, 140):
            return "a routing header, or one that hides what follows"
        if kind == 44:
            is_first = int.from_bytes(head[2:4], "big") & 0xFFF8 == 0
            size = 8
            if not is_first:
                kind = head[0]
                if kind in EXTENSIONS:
                    return "a later fragment of headers"
                break
        else:
            size = (head[1] + 1) * 8
        kind, start = head[0], start + size
    if kind in (253, 254):
        return "an experiment"
    own = source in _own(by, 6)
    if not is_first or kind not in (17, 58):
        return "" if own else "another's address"
    upper = body[start:]
    if kind == 17:
        port = upper[2:4]
        if len(port) < 2 or int.from_bytes(port, "big") in (546, 547):
            return "DHCPv6"
        return "" if own else "another's address"
    if not upper or upper[0] in (133, 134, 137, 141, 142):
        return "router discovery"
    if upper[0] in (135, 136):
        return _wrong_nd(upper, body[4:6], by, source) if is_plain else "neighbour discovery behind headers"
    return "" if own or (source == bytes(16) and upper[0] in (131, 132, 143) and is_group) else "another's address"


def _wrong_nd(upper: bytes, length: bytes, by: Station, source: bytes) -> str:
    target, option = upper[8:24], upper[24 : int.from_bytes(length, "big")]
    mine = _own(by, 6)
    if source == bytes(16):
        ok = upper[0] == 135 and target in mine and (not option or (option[:2] == b"\x0e\1" and len(option) == 8))
    else:
        tells = bytes((upper[0] - 134, 1)) + _mac(by)
        ok = source in mine and option in (b"", tells) and (upper[0] == 135 or target in mine)
    return "" if ok else "neighbour discovery of another"


def _mac(station: Station) -> bytes:
    return bytes.fromhex(station.mac.replace(":", ""))


def _own(station: Station, version: int) -> set[bytes]:
    found = [ipaddress.ip_address(text) for text in (*station.addresses, ll(station))]
    return {address.packed for address in found if address.version == version}


def _is_behind(station: Station, packed: bytes) -> bool:
    """Whether an address is its own, one that it speaks for, or one of the world behind it."""
    address = ipaddress.ip_address(packed)
    if packed in _own(station, address.version):
        return True
    prefixes = [ipaddress.ip_network(text) for text in station.owned or ()]
    is_world = station.owned is not None and not any(address in prefix for prefix in prefixes)
    is_host = not (address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified)
    return (is_world and is_host) or any(address in ipaddress.ip_network(text) for text in station.allowed_addresses)
