"""Pure. What a view's zones say to a query: its bytes in, a reply's bytes out; opens no socket, never raises.

ANY is refused, as it serves amplification (RFC 8482 allows less): what asks for it finds each type by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from overlay.dns.message import (
    AA,
    ANY,
    AXFR,
    IN,
    IXFR,
    OPT,
    RA,
    TCP_LIMIT,
    Asked,
    Failed,
    Rcode,
    failure,
    parse,
    record,
    reply,
)
from overlay.dns.record import Type
from overlay.dns.zone import Lookup, Outcome, Zones

KEPT: Final = 16384
"""Replies that one view keeps, by the query's bytes."""
KEPT_BY_ALL: Final = 65536
"""Replies that all views of a process keep, some 30 MB of them at worst."""
_LONGEST_KEPT: Final = 400
_TRANSFER_MESSAGE: Final = 16 << 10
"""Bytes of records in one message of a transfer."""
_QUESTION: Final = b"\xc0\x0c"
"""A pointer to the question's name (RFC 1035 §4.1.4)."""
_FIXED: Final = {Type.A: 16, Type.AAAA: 28}
"""Bytes of a whole address record whose owner is the question's name."""


class Outside(NamedTuple):
    """A query for what is in none of the zones: somebody else's to answer.

    name: what to ask for; it is not the question's own where CNAMEs led out of the zones: these are `links` records,
    `chain`.
    """

    asked: Asked
    name: bytes
    links: int = 0
    chain: bytes = b""


class Transfer(NamedTuple):
    """A query for a whole zone, over TCP: an answer is `Answers.transfer`, for those who may."""

    asked: Asked


class Room:
    """Room for replies that are kept, which several views may share."""

    def __init__(self, replies: int = KEPT_BY_ALL) -> None:
        self.left = replies


class Answers:
    """Answers out of `zones`. Each reply is made once and kept by its query's bytes until the zones change.

    recursive: whether what is outside gets forwarded, which replies then say (RA).
    """

    def __init__(self, zones: Zones, recursive: bool = False, room: Room | None = None) -> None:
        self.zones: Final = zones
        self._room: Final = room or Room()
        self.available: Final = RA if recursive else 0
        self._kept: dict[bytes, tuple[bytes, int, int, int]] = {}
        self._version = zones.version

    def kept(self, query: bytes) -> bytes | None:
        """The reply over UDP, if the same was asked before and nothing has changed.

        The records of a name with several addresses begin with another one for another id, so that clients spread.
        """
        found = self._kept.get(query[2:])
        if found is None or self._version != self.zones.version:
            return None
        body, at, size, count = found
        if not size:
            return query[:2] + body
        turn = at + int.from_bytes(query[:2], "big") % count * size
        end = at + count * size
        return b"".join((query[:2], body[:at], body[turn:end], body[at:turn], body[end:]))

    def answer(self, query: bytes, over_tcp: bool = False) -> bytes | Outside | Transfer | None:
        """The reply; `Outside` when another server has to be asked; None: silence."""
        asked = parse(query)
        if asked is None:
            return None
        if isinstance(asked, Failed):
            return failure(asked)
        if asked.version != 0:
            return reply(asked, Rcode.BADVERS)
        if asked.type == OPT:
            return reply(asked, Rcode.FORMERR)
        if asked.class_ != IN or asked.type == ANY:
            return reply(asked, Rcode.REFUSED, self.available)
        if asked.type in (AXFR, IXFR):
            if over_tcp and asked.name in self.zones.origins():
                return Transfer(asked)
            return reply(asked, Rcode.REFUSED, self.available)
        found = self.zones.lookup(asked.name, asked.type)
        if found is None:
            return Outside(asked, asked.name)
        if over_tcp:
            return self._reply(asked, found, TCP_LIMIT)
        answered = self._reply(asked, found, asked.udp_limit())
        if isinstance(answered, bytes):
            self._keep(query, asked, found, answered)
            return self.kept(query) or answered
        return answered

    def forget(self) -> None:
        """Gives back its room."""
        self._room.left += len(self._kept)
        self._kept.clear()

    def transfer(self, asked: Asked) -> Iterator[bytes]:
        """The messages of a whole zone, as it is now (RFC 5936 §2.2): its SOA, all records, its SOA."""
        soa = record(asked.name, Type.SOA, self.zones.ttl, self.zones.soa())
        found = self.zones.records(asked.name)  # all at once: what changes meanwhile would tear it
        each = (
            record(owner, kind, self.zones.ttl, data) for (owner, kind), several in found.items() for data in several
        )
        part, size = [soa], len(soa)
        for one in chain(each, (soa,)):
            if size + len(one) > _TRANSFER_MESSAGE:
                yield reply(asked, Rcode.NOERROR, AA, (len(part), 0), b"".join(part))
                part, size = [], 0
            part.append(one)
            size += len(one)
        yield reply(asked, Rcode.NOERROR, AA, (len(part), 0), b"".join(part))

    def _keep(self, query: bytes, asked: Asked, found: Lookup, answered: bytes) -> None:
        if self._version != self.zones.version or len(self._kept) >= KEPT or not self._room.left:
            self.forget()
            self._version = self.zones.version
        if len(query) > _LONGEST_KEPT or not self._room.left:
            return
        self._room.left -= 1
        count = int.from_bytes(answered[6:8], "big")
        size = _FIXED.get(asked.type, 0) if count > 1 and not found.through else 0  # type: ignore[call-overload]
        self._kept[query[2:]] = (answered[2:], 10 + len(asked.question), size, count)

    def _reply(self, asked: Asked, found: Lookup, limit: int) -> bytes | Outside:
        ttl = self.zones.ttl
        names = (asked.name, *found.through)
        owners = (_QUESTION, *found.through)
        count = len(found.through)
        records = b"".join(record(owners[at], Type.CNAME, ttl, names[at + 1]) for at in range(count))
        flags = AA | self.available
        match found.outcome:
            case Outcome.ELSEWHERE:
                return Outside(asked, found.through[-1], count, records)
            case Outcome.LOOP:
                return reply(asked, Rcode.SERVFAIL, flags)
            case Outcome.ANSWER:
                made = [record(owners[-1], asked.type, ttl, data) for data in found.data]
                size = len(made[0])
                # A name with more addresses than a message holds has some of them: over TCP there is nothing to try.
                if limit == TCP_LIMIT and len(made) * size > TCP_LIMIT >> 1:
                    made = made[: (TCP_LIMIT >> 1) // size]
                records += b"".join(made)
                extra = self._extra(asked.type, found.data)
                return reply(asked, Rcode.NOERROR, flags, (count + len(made), 0), records, limit, extra)
        # The origin ends the question's name: a pointer to it there, in the data it is whole.
        origin = found.origin
        if not count:
            origin = (0xC000 | 12 + len(asked.name) - len(origin)).to_bytes(2, "big")
        records += record(origin, Type.SOA, ttl, self.zones.soa())
        rcode = Rcode.NXDOMAIN if found.outcome is Outcome.NXDOMAIN else Rcode.NOERROR
        return reply(asked, rcode, flags, (count, 1), records, limit)

    def _extra(self, kind: int, data: tuple[bytes, ...]) -> tuple[int, bytes]:
        """Addresses of the hosts that SRV and NS records name (RFC 2782, RFC 1035 §3.3.11)."""
        if kind not in (Type.SRV, Type.NS):
            return 0, b""
        names = dict.fromkeys(one[6:] if kind == Type.SRV else one for one in data)
        made = [record(name, kind, self.zones.ttl, one) for name in names for kind, one in self.zones.addresses(name)]
        return len(made), b"".join(made)
