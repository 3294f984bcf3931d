"""Asks other resolvers what lies outside a view's zones, from the network namespace of the process, and keeps replies.

Each question has a line of its own (`overlay.dns.lines`), and the reply must repeat it. Who asks what is already being
asked waits for the same reply. The resolver that answered last is asked first; one that is silent costs `TRY_S`, and is
then asked once more if there is time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from overlay.dns.answer import Outside
from overlay.dns.cache import FAILED, Cache, Key
from overlay.dns.clients import EVERYBODY, Clients
from overlay.dns.lines import Line, Lines
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
    """One question under way. resolver: that is asked next; tries: so far; due_s: when the one that goes on now has
    taken too long."""

    key: Key
    until_s: float
    resolver: int
    waiters: list[_Waiter]
    due_s: float = 0.0
    tries: int = 0
    has_edns: bool = True
    line: Line | None = None
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
        self._lines: Final = Lines(port)
        self._kept: dict[bytes, tuple[bytes, float]] = {}
        self._first = 0
        self._asking: Final[dict[Key, _Question]] = {}
        self._waiting: Final[dict[str, int]] = {}
        self._waiters = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_s = 0.0

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
        key = outside.name + asked.question[-4:], asked.wants_dnssec, asked.flags & CD != 0
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
        if self.is_crowded(client):
            self.counters["crowded"] += 1
            return reply(asked, Rcode.SERVFAIL, RA)
        self._waiting[client] = self._waiting.get(client, 0) + 1
        self._waiters += 1
        waiter = _Waiter(outside, client, limit, told)
        question = self._asking.get(key)
        if question is not None:
            question.waiters.append(waiter)
            return None
        question = self._asking[key] = _Question(key, now_s + TOTAL_S, self._first, [waiter])
        self._try(question, now_s)
        self.counters["asked"] += 1
        return None

    def is_crowded(self, client: str) -> bool:
        """Whether so much is under way, of all or of this client, that it may ask nothing more."""
        return self._waiters >= IN_FLIGHT or self._waiting.get(client, 0) >= IN_FLIGHT_OF_ONE

    def retire(self) -> None:
        """What is under way is answered still; nothing is kept for more."""
        self._lines.keeps = 0
        self._lines.close()

    def close(self) -> None:
        """Lets go of what is under way; nobody is told."""
        for question in self._asking.values():
            self._end_try(question)
        self._asking.clear()
        self._waiting.clear()
        self._waiters = 0
        self._lines.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _try(self, question: _Question, now_s: float) -> None:
        """Asks the resolver whose turn it is, else the next one that can be reached; or gives up."""
        while now_s < question.until_s and question.tries < 2 * len(self.resolvers):
            question.tries += 1
            try:
                line = question.line = self._lines.take(
                    self.resolvers[question.resolver], partial(self._hear, question)
                )
                line.send(self._query(question, line.id))
            except OSError:
                self._end_try(question)
                question.resolver = self._after(question.resolver)
                continue
            question.due_s = min(now_s + TRY_S, question.until_s)
            if self._timer is None or question.due_s < self._wakes_s:
                self._wake_by(question.due_s)
            return
        self._tell(question, FAILED)

    def _try_next(self, question: _Question) -> None:
        self._end_try(question)
        question.resolver = self._after(question.resolver)
        self._try(question, time.monotonic())

    def _after(self, resolver: int) -> int:
        return (resolver + 1) % len(self.resolvers)

    def _wake_by(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due_s, self._wake)  # whose clock is time.monotonic
        self._wakes_s = due_s

    def _wake(self) -> None:
        """One timer for all questions: most are answered before it has to look at them."""
        self._timer = None
        now_s = time.monotonic()
        for question in list(self._asking.values()):
            if question.due_s <= now_s:
                self._try_next(question)
        if self._asking:
            self._wake_by(min(question.due_s for question in self._asking.values()))

    def _query(self, question: _Question, id: bytes) -> bytes:
        text, dnssec, unchecked = question.key
        return query(id, text, RD | CD if unchecked else RD, dnssec if question.has_edns else None)

    def _hear(self, question: _Question, message: bytes) -> None:
        line = question.line
        assert line is not None
        heard = hear(message, line.id, question.key[0])
        if heard is None:
            if message:
                self.counters["mismatched"] += 1
            else:  # nobody there
                self._try_next(question)
        elif heard.flags & TC:
            self._end_try(question)
            question.due_s = question.until_s  # it has a time of its own
            question.task = asyncio.get_running_loop().create_task(self._by_tcp(question))
        else:
            self._take(question, heard)

    def _take(self, question: _Question, heard: Heard) -> None:
        if heard.rcode in _USABLE:
            self._first = question.resolver
            self._tell(question, heard)
            return
        if heard.rcode in _PLAINER and question.has_edns:
            question.has_edns = False
            question.tries -= 1
            self._end_try(question)
            self._try(question, time.monotonic())
        else:
            self._try_next(question)

    async def _by_tcp(self, question: _Question) -> None:
        resolver = self.resolvers[question.resolver]
        heard: Heard | None = None
        try:
            async with asyncio.timeout(TRY_S):
                reader, writer = await asyncio.open_connection(resolver, self._port)
                try:
                    id = os.urandom(2)
                    wire = self._query(question, id)
                    writer.write(len(wire).to_bytes(2, "big") + wire)
                    message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                    heard = hear(message, id, question.key[0])
                finally:
                    writer.close()
        except (OSError, EOFError):  # TimeoutError is an OSError
            pass
        question.task = None
        if heard is None or heard.flags & TC:
            self._try_next(question)
        else:
            self._take(question, heard)

    def _end_try(self, question: _Question) -> None:
        if question.line is not None:
            self._lines.put_back(question.line)
            question.line = None
        if question.task is not None:
            question.task.cancel()
            question.task = None

    def _tell(self, question: _Question, heard: Heard) -> None:
        del self._asking[question.key]
        for outside, client, limit, told in question.waiters:  # first of all: they wait
            told(_put_under(outside, heard, limit))
            self._waiters -= 1
            if left := self._waiting[client] - 1:
                self._waiting[client] = left
            else:
                del self._waiting[client]
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
        made = reply(asked, heard.rcode, flags, (answers, authorities), heard.records, limit)
        if not additionals or made[2] & TC >> 8:
            return made
        count = int.from_bytes(made[10:12], "big") + additionals  # they are behind the others, EDNS behind them
        return made[:10] + count.to_bytes(2, "big") + made[12:]
    question = outside.name + struct.pack("!HH", asked.type, IN)
    whole = HEADER.pack(b"\0\0", QR, 1, answers, authorities, additionals) + question + heard.records
    try:
        counts, records = lay_behind(asked.question, outside.chain, outside.links, whole)
    except ValueError:
        return reply(asked, Rcode.SERVFAIL, RA)
    return reply(asked, heard.rcode, flags & ~AD, counts, records, limit)
