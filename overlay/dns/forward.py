"""Asks other resolvers what lies outside a view's zones, from the network namespace of the process, and keeps replies.

Each question goes by a socket of its own, connected, with a random port and id (RFC 5452 §9), and the reply must repeat
the question. Who asks what is already being asked waits for the same reply. The resolver that answered last is asked
first; one that is silent costs `TRY_S`, and is then asked once more if there is time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from overlay.dns.answer import Outside
from overlay.dns.cache import FAILED, Cache, Key
from overlay.dns.clients import EVERYBODY, Clients
from overlay.dns.message import (
    AA,
    AD,
    CD,
    HEADER,
    IN,
    QR,
    RA,
    RD,
    TC,
    TCP_LIMIT,
    Heard,
    Rcode,
    hear,
    query,
    reply,
)
from overlay.dns.record import lay_behind

TRY_S: Final = 0.8
TOTAL_S: Final = 2.4
"""Below the 5 s after which common clients ask again, so that they hear SERVFAIL in place of nothing."""
IN_FLIGHT: Final = 256
"""Queries that wait for others' replies, of one view."""
IN_FLIGHT_OF_ONE: Final = 32
"""Of these, of one client."""
KEPT: Final = 1024
"""Replies that are kept by their queries' bytes, for a second."""
_PORT: Final = 53
_USABLE: Final = (Rcode.NOERROR, Rcode.NXDOMAIN)
_PLAINER: Final = (Rcode.FORMERR, Rcode.NOTIMP, Rcode.BADVERS)
"""What servers say that know no EDNS (RFC 6891 §7)."""
Told = Callable[[bytes], None]


class _Waiter(NamedTuple):
    outside: Outside
    client: str
    limit: int
    told: Told


@dataclass(eq=False, slots=True)
class _Question:
    """One question under way. tries: so far; heard: a reply that is better than none."""

    key: Key
    question: bytes
    until_s: float
    waiters: list[_Waiter] = field(default_factory=list)
    tries: int = 0
    first: int = 0
    has_edns: bool = True
    id: bytes = b""
    opened: socket.socket | None = None
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Forwarder:
    """Asks `resolvers` for `clients`; others are refused. Belongs to a running loop once it asks."""

    def __init__(self, resolvers: tuple[str, ...], clients: Clients = EVERYBODY, port: int = _PORT) -> None:
        """resolvers: plain addresses. Raises ValueError for anything else."""
        for resolver in resolvers:
            ipaddress.ip_address(resolver)
        self.resolvers: Final = resolvers
        self.clients: Final = clients
        self.counters: Final[Counter[str]] = Counter()
        self.cache: Final = Cache()
        self._port: Final = port
        self._kept: dict[bytes, tuple[bytes, float]] = {}
        self._first = 0
        self._asking: Final[dict[Key, _Question]] = {}
        self._waiting: Final[Counter[str]] = Counter()

    def kept(self, query: bytes, client: str) -> bytes | None:
        """The reply over UDP, if the same was asked within the second, in which no TTL changes."""
        found = self._kept.get(query[2:])
        if found is None or found[1] <= time.monotonic() or client not in self.clients:
            return None
        return query[:2] + found[0]

    def answer(self, outside: Outside, client: str, limit: int, told: Told, query: bytes = b"") -> bytes | None:
        """The reply when it is known; else None, and `told` is called with it within `TOTAL_S`.

        client: the address that asks; limit: the longest reply it takes, in bytes; query: its own, where the reply may
        be kept for others that ask the same. REFUSED for who may not ask, or does
        not ask for recursion; SERVFAIL without a resolver that answers, or for who has too much under way.
        """
        asked = outside.asked
        if not self.resolvers or not asked.flags & RD or client not in self.clients:
            self.counters["refused"] += 1
            return _refused(outside, RA if self.resolvers and client in self.clients else 0)
        key = outside.name + asked.question[-4:], asked.wants_dnssec, bool(asked.flags & CD)
        loop = asyncio.get_running_loop()
        now_s = time.monotonic()
        found = self.cache.get(key, now_s)
        if found is not None:
            self.counters["cached"] += 1
            heard, until_s = found
            made = _put_under(outside, heard, limit)
            if query and not outside.links:  # what is ours of it may change at once
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[query[2:]] = made[2:], until_s
            return made
        if self._waiting.total() >= IN_FLIGHT or self._waiting[client] >= IN_FLIGHT_OF_ONE:
            self.counters["crowded"] += 1
            return reply(asked, Rcode.SERVFAIL, RA)
        self._waiting[client] += 1
        question = self._asking.get(key)
        if question is None:
            question = self._asking[key] = _Question(key, key[0], loop.time() + TOTAL_S, first=self._first)
            question.waiters.append(_Waiter(outside, client, limit, told))
            self.counters["asked"] += 1
            self._try(question)
        else:
            question.waiters.append(_Waiter(outside, client, limit, told))
        return None

    def close(self) -> None:
        """Lets go of what is under way; nobody is told."""
        for question in list(self._asking.values()):
            self._end_try(question)
            del self._asking[question.key]
        self._waiting.clear()

    def _resolver(self, question: _Question) -> int:
        return (question.first + question.tries - 1) % len(self.resolvers)

    def _try(self, question: _Question) -> None:
        """Asks the next resolver, or gives up."""
        self._end_try(question)
        loop = asyncio.get_running_loop()
        left = question.until_s - loop.time()
        if left <= 0 or question.tries >= 2 * len(self.resolvers):
            self._tell(question, FAILED)
            return
        question.tries += 1
        question.id = os.urandom(2)
        resolver = self.resolvers[self._resolver(question)]
        try:
            family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
            opened = question.opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            opened.connect((resolver, self._port))
            opened.send(self._query(question))
        except OSError:
            question.timer = loop.call_later(0, self._try, question)
            return
        loop.add_reader(opened.fileno(), self._read, question)  # for a socket asyncio makes texts of it, 40 µs of them
        question.timer = loop.call_later(min(TRY_S, left), self._try, question)

    def _query(self, question: _Question) -> bytes:
        _, dnssec, unchecked = question.key
        flags = RD | (CD if unchecked else 0)
        return query(question.id, question.question, flags, dnssec if question.has_edns else None)

    def _read(self, question: _Question) -> None:
        assert question.opened is not None
        try:
            message = question.opened.recv(TCP_LIMIT)
        except BlockingIOError:
            return
        except OSError:  # nobody there
            self._try(question)
            return
        heard = hear(message, question.id, question.question)
        if heard is None:
            self.counters["mismatched"] += 1
        elif heard.is_cut:
            self._end_try(question)
            question.task = asyncio.get_running_loop().create_task(self._by_tcp(question))
        else:
            self._take(question, heard)

    def _take(self, question: _Question, heard: Heard) -> None:
        if heard.rcode in _USABLE:
            self._first = self._resolver(question)
            self._tell(question, heard)
            return
        if heard.rcode in _PLAINER and question.has_edns:
            question.has_edns = False
            question.tries -= 1
        self._try(question)

    async def _by_tcp(self, question: _Question) -> None:
        resolver = self.resolvers[self._resolver(question)]
        heard: Heard | None = None
        try:
            async with asyncio.timeout(TRY_S):
                reader, writer = await asyncio.open_connection(resolver, self._port)
                try:
                    wire = self._query(question)
                    writer.write(len(wire).to_bytes(2, "big") + wire)
                    message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                    heard = hear(message, question.id, question.question)
                finally:
                    writer.close()
        except (OSError, EOFError):  # TimeoutError is an OSError
            pass
        question.task = None
        if heard is None or heard.is_cut:
            self._try(question)
        else:
            self._take(question, heard)

    def _end_try(self, question: _Question) -> None:
        if question.timer is not None:
            question.timer.cancel()
            question.timer = None
        if question.opened is not None:
            asyncio.get_running_loop().remove_reader(question.opened.fileno())
            question.opened.close()
            question.opened = None
        if question.task is not None:
            question.task.cancel()
            question.task = None

    def _tell(self, question: _Question, heard: Heard) -> None:
        del self._asking[question.key]
        for waiter in question.waiters:  # first of all: they wait
            waiter.told(_put_under(waiter.outside, heard, waiter.limit))
            self._waiting[waiter.client] -= 1
            if not self._waiting[waiter.client]:
                del self._waiting[waiter.client]
        self._end_try(question)
        if heard is FAILED:
            self.counters["failed"] += 1
        self.cache.put(question.key, heard, time.monotonic())


def _refused(outside: Outside, flags: int) -> bytes:
    if outside.links:  # what is ours of it
        return reply(outside.asked, Rcode.NOERROR, AA | flags, (outside.links, 0), outside.chain)
    return reply(outside.asked, Rcode.REFUSED, flags)


def _put_under(outside: Outside, heard: Heard, limit: int) -> bytes:
    """The reply to the client's own question."""
    asked = outside.asked
    if heard is FAILED:
        return reply(asked, Rcode.SERVFAIL, RA)
    flags = RA | (heard.flags & AD if asked.wants_dnssec or asked.flags & AD else 0)
    answers, authorities, additionals = heard.counts
    if not outside.links:
        made = reply(asked, Rcode(heard.rcode), flags, (answers, authorities), heard.records, limit)
        if made[2] & TC >> 8 or not additionals:
            return made
        count = int.from_bytes(made[10:12], "big") + additionals  # they are behind the others, EDNS behind them
        return made[:10] + count.to_bytes(2, "big") + made[12:]
    question = outside.name + struct.pack("!HH", asked.type, IN)
    whole = HEADER.pack(b"\0\0", QR, 1, answers, authorities, additionals) + question + heard.records
    try:
        counts, records = lay_behind(asked.question, outside.chain, outside.links, whole)
    except ValueError:
        return reply(asked, Rcode.SERVFAIL, RA)
    return reply(asked, Rcode(heard.rcode), flags & ~AD, counts, records, limit)
