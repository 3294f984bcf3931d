"""Pure. DNS messages: a query's bytes in, a reply's bytes out (RFC 1035, 2308, 6891); opens no socket, never raises.

The question goes back as it came, so that a client that mixes its case finds it again (0x20). There are no transfers,
and ANY is refused: it serves amplification.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from overlay.dns.zone import Outcome, Type, Zones


class Rcode(IntEnum):
    """RFC 1035 §4.1.1, RFC 6891 §9."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


UDP_LIMIT: Final = 1232
"""Largest UDP reply, in bytes: fits IPv6's least MTU of 1280, so it is never cut into fragments."""
PLAIN_UDP_LIMIT: Final = 512
"""Largest UDP reply to a client without EDNS, RFC 1035 §2.3.4."""
TCP_LIMIT: Final = 65535

_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE: Final = 0x7800
_IN: Final = 1
_OPT, _IXFR, _AXFR, _ANY = 41, 251, 252, 255
_HEADER: Final = struct.Struct("!2sHHHHH")
_OPT_FIXED: Final = struct.Struct("!HHBBHH")  # type, size, extended rcode, version, flags, length; after the root name
_DO: Final = 0x8000
_CACHED: Final = 8192


class Asked(NamedTuple):
    """A well-formed query. name: lower case; question: name, type and class as they came. size: None without EDNS."""

    id: bytes
    flags: int
    name: bytes
    type: int
    class_: int
    question: bytes
    size: int | None = None
    version: int = 0
    wants_dnssec: bool = False

    def udp_limit(self) -> int:
        """Largest reply over UDP, in bytes."""
        return PLAIN_UDP_LIMIT if self.size is None else max(PLAIN_UDP_LIMIT, min(self.size, UDP_LIMIT))


class Failed(NamedTuple):
    """A query that can't be answered for its form; the reply is a header alone."""

    id: bytes
    flags: int
    rcode: Rcode


class Outside(NamedTuple):
    """A query for a name that is in none of the zones: somebody else's to answer."""

    asked: Asked


def parse(query: bytes) -> Asked | Failed | None:
    """The query; None for what deserves no reply: too short for an id and flags, or a reply itself."""
    if len(query) < _HEADER.size:
        return None
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(query)
    if flags & _QR:
        return None
    if flags & _OPCODE:
        return Failed(ident, flags, Rcode.NOTIMP)
    malformed = Failed(ident, flags, Rcode.FORMERR)
    if questions != 1 or answers or authorities:
        return malformed
    size = len(query)
    at = 12
    while at < size and (label := query[at]):
        if label > 63:  # a compression pointer has nothing to point to here
            return malformed
        at += 1 + label
    end = at + 5
    if end > size or at - 12 > 254:
        return malformed
    name = query[12 : at + 1].lower()  # lengths are below 64, hence no letters
    kind, class_ = int.from_bytes(query[at + 1 : at + 3], "big"), int.from_bytes(query[at + 3 : end], "big")
    asked = Asked(ident, flags, name, kind, class_, query[12:end])
    return asked if additionals == 0 else _with_additional(asked, query, end, additionals) or malformed


def _with_additional(asked: Asked, query: bytes, at: int, count: int) -> Asked | None:
    """Reads EDNS out of the additional section (RFC 6891 §6.1); None when it is malformed or there twice."""
    for _ in range(count):
        start = at
        while at < len(query) and (label := query[at]):
            if label >= 0xC0:
                at += 1
                break
            at += 1 + label
        at += 1
        if at + _OPT_FIXED.size > len(query):
            return None
        kind, size, _, version, flags, length = _OPT_FIXED.unpack_from(query, at)
        is_root = at == start + 1
        at += _OPT_FIXED.size + length
        if at > len(query):
            return None
        if kind == _OPT:
            if asked.size is not None or not is_root:
                return None
            asked = asked._replace(size=size, version=version, wants_dnssec=bool(flags & _DO))
    return asked


def _edns(asked: Asked, rcode: Rcode) -> bytes:
    if asked.size is None:
        return b""
    return b"\0" + _OPT_FIXED.pack(_OPT, UDP_LIMIT, rcode >> 4, 0, _DO if asked.wants_dnssec else 0, 0)


def reply(
    asked: Asked,
    rcode: Rcode,
    flags: int = 0,
    counts: tuple[int, int] = (0, 0),
    records: bytes = b"",
    limit: int = TCP_LIMIT,
) -> bytes:
    """A whole reply. counts: answer and authority records in `records`; too long for `limit`: none of them, and TC."""
    edns = _edns(asked, rcode)
    flags |= _QR | (asked.flags & _RD) | (rcode & 15)
    if 12 + len(asked.question) + len(records) + len(edns) > limit:
        flags, counts, records = flags | _TC, (0, 0), b""
    head = _HEADER.pack(asked.id, flags, 1, *counts, 1 if edns else 0)
    return head + asked.question + records + edns


def failure(failed: Failed) -> bytes:
    """A reply without a question: the query's may not be what it seems."""
    flags = _QR | (failed.flags & (_OPCODE | _RD)) | failed.rcode
    return _HEADER.pack(failed.id, flags, 0, 0, 0, 0)


class Answers:
    """Answers out of `zones`. Records of names that exist are encoded once and kept until the zones change.

    recursive: whether what is outside gets forwarded, which replies then say (RA).
    """

    def __init__(self, zones: Zones, recursive: bool = False) -> None:
        self.zones: Final = zones
        self.available: Final = _RA if recursive else 0
        self._kept: dict[tuple[bytes, int], tuple[int, bytes]] = {}
        self._version = zones.version

    def answer(self, query: bytes, over_tcp: bool = False) -> bytes | Outside | None:
        """The reply; `Outside` when another server has to be asked; None: silence."""
        asked = parse(query)
        if asked is None:
            return None
        if isinstance(asked, Failed):
            return failure(asked)
        limit = TCP_LIMIT if over_tcp else asked.udp_limit()
        if asked.version != 0:
            return reply(asked, Rcode.BADVERS)
        if asked.class_ != _IN or asked.type in (_ANY, _AXFR, _IXFR, _OPT):
            return reply(asked, Rcode.FORMERR if asked.type == _OPT else Rcode.REFUSED, self.available)
        if self._version != self.zones.version:
            self._kept.clear()
            self._version = self.zones.version
        kept = self._kept.get((asked.name, asked.type))
        if kept is not None:
            return reply(asked, Rcode.NOERROR, _AA | self.available, (kept[0], 0), kept[1], limit)
        found = self.zones.lookup(asked.name, asked.type)
        if found is None:
            return Outside(asked)
        if found.outcome is Outcome.ANSWER:
            records = b"".join(_record(b"\xc0\x0c", asked.type, self.zones.ttl, data) for data in found.data)
            if len(self._kept) >= _CACHED:
                self._kept.clear()
            self._kept[asked.name, asked.type] = (len(found.data), records)
            return reply(asked, Rcode.NOERROR, _AA | self.available, (len(found.data), 0), records, limit)
        # The origin ends the question's name: a pointer to it there (RFC 1035 §4.1.4) and in the data it is whole.
        origin = (0xC000 | 12 + len(asked.name) - len(found.origin)).to_bytes(2, "big")
        soa = _record(origin, Type.SOA, self.zones.ttl, self.zones.soa)
        rcode = Rcode.NXDOMAIN if found.outcome is Outcome.NXDOMAIN else Rcode.NOERROR
        return reply(asked, rcode, _AA | self.available, (0, 1), soa, limit)


def _record(owner: bytes, kind: int, ttl: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, _IN, ttl, len(data)) + data
