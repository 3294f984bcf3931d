"""Pure. DNS messages: the form of queries, replies and other servers' replies (RFC 1035 §4, 6891); knows no zones.

The question goes back as it came, so that a client that mixes its case finds it again (0x20).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple


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

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
IN: Final = 1
OPT, IXFR, AXFR, ANY = 41, 251, 252, 255
_OPCODE: Final = 0x7800
_REPEATED: Final = RD | CD
_DO: Final = 0x8000
_SOA: Final = 6
HEADER: Final = struct.Struct("!2sHHHHH")
_KIND: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_OPT: Final = struct.Struct("!HHBBHH")  # type, size, extended rcode, version, flags, length; after the root name


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


def parse(query: bytes) -> Asked | Failed | None:
    """The query; None for what deserves no reply: too short for an id and flags, or a reply itself."""
    if len(query) < HEADER.size:
        return None
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(query)
    if flags & QR:
        return None
    if flags & _OPCODE:
        return Failed(ident, flags, Rcode.NOTIMP)
    malformed = Failed(ident, flags, Rcode.FORMERR)
    if questions != 1 or answers:
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
    kind, class_ = _KIND.unpack_from(query, at + 1)
    # Lengths are below 64, hence no letters.
    asked = Asked(ident, flags, query[12 : at + 1].lower(), kind, class_, query[12:end])
    if authorities and kind != IXFR:  # which brings the SOA that it has, RFC 1995 §3
        return malformed
    more = authorities + additionals
    return asked if more == 0 else _with_additional(asked, query, end, more) or malformed


def _with_additional(asked: Asked, query: bytes, at: int, count: int) -> Asked | None:
    """Reads EDNS out of the records behind the question (RFC 6891 §6.1); None when it is malformed or there twice."""
    for _ in range(count):
        start = at
        at = _after_name(query, at)
        if not at or at + _OPT.size > len(query):
            return None
        kind, size, _, version, flags, length = _OPT.unpack_from(query, at)
        is_root = at == start + 1
        at += _OPT.size + length
        if at > len(query):
            return None
        if kind == OPT:
            if asked.size is not None or not is_root:
                return None
            asked = asked._replace(size=size, version=version, wants_dnssec=bool(flags & _DO))
    return asked


def _after_name(message: bytes, at: int) -> int:
    """Where a name ends that may end in a pointer, which is not followed; 0 when it does not end."""
    while at < len(message):
        label = message[at]
        if label == 0:
            return at + 1
        if label >= 0xC0:
            return at + 2
        if label > 63:
            return 0
        at += 1 + label
    return 0


def edns(asked: Asked, rcode: int) -> bytes:
    """The OPT record of a reply; empty for a client that has no EDNS."""
    if asked.size is None:
        return b""
    return b"\0" + _OPT.pack(OPT, UDP_LIMIT, rcode >> 4, 0, _DO if asked.wants_dnssec else 0, 0)


def reply(
    asked: Asked,
    rcode: int,
    flags: int = 0,
    counts: tuple[int, int] = (0, 0),
    records: bytes = b"",
    limit: int = TCP_LIMIT,
    extra: tuple[int, bytes] = (0, b""),
) -> bytes:
    """A whole reply. counts: answer and authority records in `records`; too long for `limit`: none of them, and TC.

    extra: additional records, left out where there is no room.
    """
    opt = b"" if asked.size is None else edns(asked, rcode)
    flags |= asked.flags & _REPEATED | rcode & 15 | QR
    least = 12 + len(asked.question) + len(records) + len(opt)
    if least > limit:
        flags, counts, records = flags | TC, (0, 0), b""
    more, behind = extra
    if more and least + len(behind) > limit:
        more, behind = 0, b""
    head = HEADER.pack(asked.id, flags, 1, counts[0], counts[1], more + 1 if opt else more)
    return b"".join((head, asked.question, records, behind, opt))


def failure(failed: Failed) -> bytes:
    """A reply without a question: the query's may not be what it seems."""
    flags = QR | (failed.flags & (_OPCODE | RD)) | failed.rcode
    return HEADER.pack(failed.id, flags, 0, 0, 0, 0)


def record(owner: bytes, kind: int, ttl: int, data: bytes) -> bytes:
    """A whole record. owner: a name, or a pointer to one."""
    return owner + _RECORD.pack(kind, IN, ttl, len(data)) + data


def query(id: bytes, question: bytes, flags: int = RD, dnssec: bool | None = False) -> bytes:
    """A query of ours. id: 2 bytes. dnssec: None for one without EDNS."""
    head = HEADER.pack(id, flags, 1, 0, 0, 0 if dnssec is None else 1)
    if dnssec is None:
        return head + question
    return head + question + b"\0" + _OPT.pack(OPT, UDP_LIMIT, 0, 0, _DO if dnssec else 0, 0)


class Heard(NamedTuple):
    """What another server replied, without its header, question and EDNS, so that it can be put under another's.

    counts: answers, authorities, additionals. ttls: where in `records` they are. lasts_s: how long it may be kept; 0:
    not at all.
    """

    rcode: int
    flags: int
    counts: tuple[int, int, int]
    records: bytes
    ttls: tuple[int, ...]
    lasts_s: int


def _is_same(question: bytes, other: bytes) -> bool:
    """Whether two questions differ in no more than their name's case."""
    return question[:-4].lower() == other[:-4].lower() and question[-4:] == other[-4:]


def hear(message: bytes, id: bytes, question: bytes) -> Heard | None:
    """The reply to our query; None for one to another question, or one that is malformed.

    Names are compared without their case: some servers change it.
    """
    start, size = 12 + len(question), len(message)
    if size < start or message[:2] != id:
        return None
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(message)
    if flags & (QR | _OPCODE) != QR or questions != 1:
        return None
    if message[12:start] != question and not _is_same(message[12:start], question):
        return None
    at = end = start
    behind, rcode, ttls = answers + authorities, flags & 15, []
    least, is_negative = 1 << 31, False
    try:
        for number in range(behind + additionals):
            begin = at
            if message[at] >= 0xC0:  # a pointer, which is not followed
                at += 2
            elif not (at := _after_name(message, at)):
                return None
            kind, _, ttl, length = _RECORD.unpack_from(message, at)
            after = at + 10 + length
            if after > size:
                return None
            if kind == OPT:
                if number < behind:
                    return None
                rcode |= message[at + 4] << 4
                # What comes behind it is let go with it: a pointer there would mean something else without it.
                additionals = number - behind
                end = begin
                break
            if ttl >> 31:  # RFC 2181 §8
                ttl = 0
            ttls.append(at + 4 - start)
            if ttl < least:
                least = ttl
            if kind == _SOA and answers <= number < behind and length >= 22:
                is_negative = True
                least = min(least, int.from_bytes(message[after - 4 : after], "big"))
            end = at = after
    except (IndexError, struct.error):  # it ends before its records do
        return None
    # A negative reply without an SOA says nothing of how long it holds (RFC 2308 §5).
    holds = is_negative if rcode == Rcode.NXDOMAIN or not answers else rcode == Rcode.NOERROR
    lasts_s = least if holds and ttls and rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) else 0
    return Heard(rcode, flags, (answers, authorities, additionals), message[start:end], tuple(ttls), lasts_s)
