"""Sockets that take queries, over UDP and TCP (RFC 7766); what to answer is `Answers`' and `Forwarder`'s to say.

UDP is read by a reader callback that drains the socket, which costs a quarter of a DatagramProtocol's per query.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from overlay.dns.answer import Answers, Outside
from overlay.dns.forward import Forwarder

PORT: Final = 53
IDLE_S: Final = 10.0
"""A TCP connection without a query for this long is closed (RFC 7766 §6.2.3)."""
CONNECTIONS: Final = 64
"""At once, per listener; for one more, whoever has most gives up the one that has been silent the longest. So nobody
can keep the others out by holding connections open, and nobody who asks and goes notices."""
Address = tuple[Any, ...]
"""A socket address as recvfrom gives it: host, port, and two numbers more for IPv6."""
_DRAIN: Final = 64
_RECEIVE_BUFFER: Final = 1 << 20
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


class Sockets(NamedTuple):
    """Both sockets of one address."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Closes both."""
        self.udp.close()
        self.tcp.close()


@dataclass(slots=True)
class _Conversation:
    """A TCP connection. heard_s: when it last asked, else when it came, on the loop's clock."""

    client: str
    heard_s: float


def open_sockets(address: str, port: int = PORT) -> Sockets:
    """Bound in the network namespace of the calling thread, even before it has the address. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = socket.getaddrinfo(address, port, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]
    udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        for opened in (udp, tcp):
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(where)
        tcp.bind(where)
        tcp.listen(CONNECTIONS)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return Sockets(udp, tcp)


class Listener:
    """Serves sockets, which it owns, until `close`. `answers` and `forwarder` may be exchanged at any time."""

    def __init__(self, sockets: Sequence[Sockets], answers: Answers, forwarder: Forwarder) -> None:
        self.answers = answers
        self.forwarder = forwarder
        self._sockets: Final = tuple(sockets)
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._conversations: Final[dict[socket.socket, _Conversation]] = {}
        loop = asyncio.get_running_loop()
        for udp, tcp in self._sockets:
            loop.add_reader(udp, self._drain, udp)
            loop.add_reader(tcp, self._accept, tcp)

    def close(self) -> None:
        """Closes all sockets and connections; what is being forwarded is not answered."""
        loop = asyncio.get_running_loop()
        for sockets in self._sockets:
            loop.remove_reader(sockets.udp)
            loop.remove_reader(sockets.tcp)
            sockets.close()
        for task in self._tasks:
            task.cancel()

    def _spawn(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drain(self, udp: socket.socket) -> None:
        answer = self.answers.answer
        for _ in range(_DRAIN):
            try:
                query, client = udp.recvfrom(4096)
            except OSError:  # nothing left, or an ICMP error about an earlier reply
                return
            answered = answer(query)
            if isinstance(answered, Outside):
                self._spawn(asyncio.get_running_loop().create_task(self._forward(udp, client, answered)))
            elif answered is not None:
                _send(udp, answered, client)

    async def _forward(self, udp: socket.socket, client: Address, outside: Outside) -> None:
        _send(udp, await self.forwarder.answer(outside.asked), client)

    def _accept(self, tcp: socket.socket) -> None:
        try:
            connection, client = tcp.accept()
        except OSError:  # it went again, or there are no descriptors left: the next turn tries the next one
            return
        if len(self._conversations) >= CONNECTIONS:
            self._end_one()
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        conversation = self._conversations[connection] = _Conversation(client[0], loop.time())
        self._spawn(loop.create_task(self._converse(connection, conversation)))

    def _end_one(self) -> None:
        held = Counter(conversation.client for conversation in self._conversations.values())
        victim, _ = max(self._conversations.items(), key=lambda item: (held[item[1].client], -item[1].heard_s))
        del self._conversations[victim]
        with contextlib.suppress(OSError):  # its client may have reset it
            victim.shutdown(socket.SHUT_RDWR)

    async def _converse(self, connection: socket.socket, conversation: _Conversation) -> None:
        """Query after query, each behind its length (RFC 1035 §4.2.2), until the client ends or idles."""
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            while True:
                async with asyncio.timeout(IDLE_S):
                    query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                conversation.heard_s = asyncio.get_running_loop().time()
                answered = self.answers.answer(query, over_tcp=True)
                if isinstance(answered, Outside):
                    answered = await self.forwarder.answer(answered.asked, over_tcp=True)
                if answered is None:
                    return
                writer.write(len(answered).to_bytes(2, "big") + answered)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
        except (OSError, EOFError):  # TimeoutError and ConnectionError are OSErrors
            return
        finally:
            self._conversations.pop(connection, None)
            if writer is not None:
                writer.close()
            else:
                connection.close()


def _send(udp: socket.socket, data: bytes, client: Address) -> None:
    try:
        udp.sendto(data, client)
    except OSError:  # full, unreachable, or closed since: the client asks again
        return
