"""Asks other resolvers what lies outside a view's zones, from the network namespace of the process; keeps no answers.

Each question goes by a socket of its own, connected, with a random port and id (RFC 5452 §9), and the reply must repeat
the question. A resolver that is silent costs `TRY_S` once: the one that answered last is asked first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import Final

from overlay.dns.answer import TCP_LIMIT, UDP_LIMIT, Asked, Rcode, reply

TRY_S: Final = 1.0
TOTAL_S: Final = 2.5
"""Below the 5 s after which common clients ask again, so that they hear SERVFAIL in place of nothing."""
IN_FLIGHT: Final = 128
_RD, _TC = 0x01, 0x02
_PORT: Final = 53


class Forwarder:
    """Asks `resolvers` in turn. `answer` always has a reply."""

    def __init__(self, resolvers: tuple[str, ...], port: int = _PORT) -> None:
        """resolvers: plain addresses. Raises ValueError for anything else."""
        for resolver in resolvers:
            ipaddress.ip_address(resolver)
        self.resolvers: Final = resolvers
        self._port: Final = port
        self._first = 0
        self._in_flight = 0

    async def answer(self, asked: Asked, over_tcp: bool = False) -> bytes:
        """The resolvers' reply, cut (TC) to what the client takes; REFUSED without resolvers, SERVFAIL without one."""
        limit = TCP_LIMIT if over_tcp else asked.udp_limit()
        if not self.resolvers:
            return reply(asked, Rcode.REFUSED)
        if self._in_flight >= IN_FLIGHT:
            return reply(asked, Rcode.SERVFAIL)
        self._in_flight += 1
        try:
            async with asyncio.timeout(TOTAL_S):
                found = await self._ask_in_turn(asked, over_tcp)
        except TimeoutError:
            found = None
        finally:
            self._in_flight -= 1
        if found is None:
            return reply(asked, Rcode.SERVFAIL)
        if len(found) > limit:
            return found[:2] + bytes((found[2] | _TC, found[3])) + b"\0\1\0\0\0\0\0\0" + asked.question
        return found

    async def _ask_in_turn(self, asked: Asked, over_tcp: bool) -> bytes | None:
        count = len(self.resolvers)
        for turn in range(count):
            index = (self._first + turn) % count
            try:
                async with asyncio.timeout(TRY_S):
                    found = await (_by_tcp if over_tcp else _by_udp)(self.resolvers[index], self._port, asked)
            except (OSError, EOFError):  # TimeoutError is an OSError
                continue
            self._first = index
            return found
        return None


def _query(asked: Asked) -> bytes:
    """The question under a new id; with EDNS when the client has it, so that the reply fits what it understands."""
    head = os.urandom(2) + bytes((asked.flags >> 8 & _RD, 0)) + b"\0\1\0\0\0\0"
    if asked.size is None:
        return head + b"\0\0" + asked.question
    flags = b"\x80\0" if asked.wants_dnssec else b"\0\0"
    return head + b"\0\1" + asked.question + b"\0\0\x29" + UDP_LIMIT.to_bytes(2, "big") + b"\0\0" + flags + b"\0\0"


def _accept(asked: Asked, query: bytes, data: bytes) -> bytes | None:
    """The reply under the client's id and question when it is one to our query, else None."""
    end = 12 + len(asked.question)
    if len(data) < end or data[:2] != query[:2] or not data[2] & 0x80 or data[4:6] != b"\0\1":
        return None
    if data[12 : end - 4].lower() != asked.name or data[end - 4 : end] != asked.question[-4:]:
        return None
    return asked.id + data[2:12] + asked.question + data[end:]


async def _by_udp(resolver: str, port: int, asked: Asked) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        opened.connect((resolver, port))
        query = _query(asked)
        await loop.sock_sendall(opened, query)
        while True:
            accepted = _accept(asked, query, await loop.sock_recv(opened, 65535))
            if accepted is not None:
                return accepted


async def _by_tcp(resolver: str, port: int, asked: Asked) -> bytes:
    reader, writer = await asyncio.open_connection(resolver, port)
    try:
        query = _query(asked)
        writer.write(len(query).to_bytes(2, "big") + query)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    accepted = _accept(asked, query, data)
    if accepted is None:
        raise EOFError("the resolver answered something else")
    return accepted
