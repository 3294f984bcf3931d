"""Pure. A DHCPv4 message from bytes and to bytes (RFC 2131 §2); decides nothing.

Addresses and identifiers stay the bytes that they are on the wire: 4 for an IPv4 address or xid, 6 for a MAC.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from dhcp import options
from dhcp.options import Code
from dhcp.reason import Reason

BOOTREQUEST: Final = 1
BOOTREPLY: Final = 2
BROADCAST: Final = 0x8000
"""The one flag there is: the client can't receive unicast before it has its address."""
ZERO: Final = b"\0\0\0\0"
COOKIE: Final = b"\x63\x82\x53\x63"
FIXED: Final = 240
"""Bytes before the options: the BOOTP header of 236, and the cookie."""
MINIMUM: Final = 300
"""BOOTP's size, RFC 1542 §2.1: clients and relays are about that drop shorter messages."""
DEFAULT_LIMIT: Final = 548
"""UDP payload that every client takes: a datagram of 576 bytes without IP and UDP header (RFC 2131 §2)."""

_HEADER = struct.Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")


class Message(NamedTuple):
    """One message. chaddr: `hlen` bytes of 16. options: joined values in order of appearance, overload undone. file:
    the boot file's name, without the zero bytes after it; empty where the field holds options."""

    op: int
    xid: bytes
    chaddr: bytes
    options: Mapping[int, bytes]
    flags: int = 0
    secs: int = 0
    ciaddr: bytes = ZERO
    yiaddr: bytes = ZERO
    siaddr: bytes = ZERO
    giaddr: bytes = ZERO
    htype: int = 1
    hops: int = 0
    file: bytes = b""


def parse(payload: bytes) -> Message | Reason:
    """The message in a UDP payload, or why it is none. Never raises."""
    if len(payload) < FIXED:
        return Reason.TRUNCATED
    op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie = (
        _HEADER.unpack_from(payload)
    )
    if cookie != COOKIE:
        return Reason.NOT_DHCP
    if hlen > 16:
        return Reason.NOT_ETHERNET
    found = options.decode(payload[FIXED:])
    if isinstance(found, Reason):
        return found
    if (which := found.get(Code.OVERLOAD)) is not None:
        joined = _overloaded(found, file, sname)
        if isinstance(joined, Reason):
            return joined
        found, file = joined, b"" if which[0] & 1 else file
    name = file.partition(b"\0")[0] if file[:1] != b"\0" else b""
    return Message(op, xid, chaddr[:hlen], found, flags, secs, ciaddr, yiaddr, siaddr, giaddr, htype, hops, name)


def _overloaded(found: dict[int, bytes], file: bytes, sname: bytes) -> dict[int, bytes] | Reason:
    """Adds what stands in `file` and `sname`, in the order of RFC 3396 §5. An overload in there means nothing."""
    which = found.pop(Code.OVERLOAD)
    if which not in (b"\x01", b"\x02", b"\x03"):
        return Reason.MALFORMED_OPTIONS
    for bit, field in ((1, file), (2, sname)):
        if which[0] & bit:
            more = options.decode(field)
            if isinstance(more, Reason):
                return more
            for code, value in more.items():
                if code != Code.OVERLOAD:
                    found[code] = found.get(code, b"") + value
    return found


def encode(message: Message, limit: int = DEFAULT_LIMIT) -> bytes:
    """The message as UDP payload, at least `MINIMUM` and at most `limit` bytes.

    What does not fit after the header goes into `file` (unless a name is there), then `sname` (option 52); an option
    that fits nowhere whole is left out, so callers put the dispensable ones last. What a relay said of itself is the
    last of all and has its room kept (RFC 3046 §2.2). limit: at least `MINIMUM`.
    """
    encoded = list(options.pieces(item for item in message.options.items() if item[0] != Code.RELAY_AGENT))
    relayed = message.options.get(Code.RELAY_AGENT)
    tail = b"" if relayed is None else options.encode_one(Code.RELAY_AGENT, relayed)
    room = limit - FIXED - 1
    if len(tail) + 3 > room:
        tail = b""
    room -= len(tail)
    if sum(map(len, encoded)) <= room:
        area, file, sname = b"".join(encoded), message.file, b""
    else:
        area, file, sname = _pack(encoded, room - 3, bool(message.file))
        which = (1 if file else 0) | (2 if sname else 0)
        if which:
            area += bytes((Code.OVERLOAD, 1, which))
        file = message.file or file
    area += tail
    header = _HEADER.pack(
        message.op,
        message.htype,
        len(message.chaddr),
        message.hops,
        message.xid,
        message.secs,
        message.flags,
        message.ciaddr,
        message.yiaddr,
        message.siaddr,
        message.giaddr,
        message.chaddr,
        sname,
        file,
        COOKIE,
    )
    return (header + area + b"\xff").ljust(MINIMUM, b"\0")


def _pack(encoded: list[bytes], room: int, is_named: bool) -> tuple[bytes, bytes, bytes]:
    """First fit over options field, `file` (128 bytes) and `sname` (64), each of the latter with its own END. is_named:
    `file` is taken."""
    fields = [bytearray(), bytearray(), bytearray()]
    free = [room, 0 if is_named else 127, 63]
    for piece in encoded:
        for index, field in enumerate(fields):
            if len(piece) <= free[index]:
                field += piece
                free[index] -= len(piece)
                break
    area, file, sname = fields
    return bytes(area), bytes(file) + b"\xff" if file else b"", bytes(sname) + b"\xff" if sname else b""
