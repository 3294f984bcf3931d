"""Sockets that take queries, over UDP and TCP (RFC 7766); what to answer is `Answers`' and `Forwarder`'s to say.

UDP is read by a reader callback that drains the socket, which costs a quarter of a DatagramProtocol's per query.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from overlay.dns.answer import Answers, Outside, Transfer
from overlay.dns.clients import Clients, shared
from overlay.dns.forward import Forwarder
from overlay.dns.history import History, Outcome, outcome_of
from overlay.dns.message import TCP_LIMIT, Rcode, reply

PORT: Final = 53
IDLE_S: Final = 10.0
"""A TCP connection without a query for this long is closed (RFC 7766 §6.2.3)."""
CONNECTIONS: Final = 64
"""At once, per listener; for one more, whoever has most gives up the one that has been silent the longest. So nobody
can keep the others out by holding connections open, and nobody who asks and goes notices."""
Address = tuple[Any, ...]
"""A socket address as recvfrom gives it: host, port, and two numbers more for IPv6."""
EAGER: Final = 32
"""Queries answered as they are read, before others have their turn."""
DRAIN: Final = 256
"""Queries read beyond that, before any of them is answered: the kernel would drop others' for one client's. If there
are so many, nobody has more than `SHARE` of them answered."""
SHARE: Final = 32
_IN_TURN: Final = 16
"""Queries of one TCP connection that are answered before others have their turn."""
_RECEIVE_BUFFER: Final = 1 << 20
_SEND_BUFFER: Final = 1 << 16
"""Of a TCP connection, whose client may not read."""
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
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        udp.bind(where)
        tcp.bind(where)
        tcp.listen(CONNECTIONS)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return Sockets(udp, tcp)


class Listener:
    """Serves sockets, which it owns, until `close`. answers, forwarder, copiers: may be exchanged at any time.

    copiers: who may have whole zones. history: what was not answered.
    """

    def __init__(
        self, sockets: Sequence[Sockets], answers: Answers, forwarder: Forwarder, copiers: Clients | None = None
    ) -> None:
        self.answers = answers
        self.forwarder = forwarder
        self.copiers = copiers or Clients()
        self.history: Final = History()
        self._sockets: Final = tuple(sockets)
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._conversations: Final[dict[socket.socket, _Conversation]] = {}
        self._is_closed = False
        loop = asyncio.get_running_loop()
        for udp, tcp in self._sockets:
            loop.add_reader(udp, self._drain, udp)
            loop.add_reader(tcp, self._accept, tcp)

    def close(self) -> None:
        """Closes all sockets and connections; what is being forwarded is not answered."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        for sockets in self._sockets:
            loop.remove_reader(sockets.udp)
            loop.remove_reader(sockets.tcp)
            sockets.close()
        self.forwarder.close()
        for task in self._tasks:
            task.cancel()

    def _drain(self, udp: socket.socket) -> None:
        kept, forwarder = self.answers.kept, self.forwarder
        waiting: list[tuple[bytes, Address]] = []
        try:
            for _ in range(EAGER):
                query, client = udp.recvfrom(4096)
                reply = kept(query) or forwarder.kept(query, client[0]) or self._answer(udp, query, client)
                if reply is not None:
                    _send(udp, reply, client)
            while len(waiting) < DRAIN:
                waiting.append(udp.recvfrom(4096))
        except OSError:  # nothing left, or an ICMP error about an earlier reply
            pass
        else:
            chosen = shared([(one, one[1][0]) for one in waiting], SHARE)
            if len(chosen) < len(waiting):
                held = Counter(client[0] for _, client in waiting)
                self.history.note_shed(held - Counter(client for _, client in chosen))
            waiting = [one for one, _ in chosen]
        for query, client in waiting:
            reply = kept(query) or forwarder.kept(query, client[0]) or self._answer(udp, query, client)
            if reply is not None:
                _send(udp, reply, client)

    def _answer(self, udp: socket.socket, query: bytes, client: Address) -> bytes | None:
        answered = self.answers.answer(query)
        if not isinstance(answered, Outside):
            assert not isinstance(answered, Transfer), "transfers go over TCP"
            if answered is not None and answered[3] & 15:
                self._note(query, client[0], answered, False)
            return answered

        def send(data: bytes) -> None:
            if not self._is_closed:
                _send(udp, data, client)
            if data[3] & 15:
                self._note(query, client[0], data, True)

        made = self.forwarder.answer(answered, client[0], answered.asked.udp_limit(), send, query)
        if made is not None and made[3] & 15:
            self._note(query, client[0], made, True)
        return made

    def _note(self, query: bytes, client: str, reply: bytes, is_outside: bool) -> None:
        outcome = outcome_of(reply[3] & 15, is_outside)
        if outcome is Outcome.NOT_RESOLVED and self.forwarder.is_crowded(client):
            outcome = Outcome.CROWDED
        if outcome is not None:
            self.history.note(client, query, outcome, time.time())

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
        task = loop.create_task(self._converse(connection, conversation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_one(self) -> None:
        held = Counter(conversation.client for conversation in self._conversations.values())
        victim, _ = max(self._conversations.items(), key=lambda item: (held[item[1].client], -item[1].heard_s))
        del self._conversations[victim]
        with contextlib.suppress(OSError):  # its client may have reset it
            victim.shutdown(socket.SHUT_RDWR)

    async def _converse(self, connection: socket.socket, conversation: _Conversation) -> None:
        """Until the client ends or idles, or does not read what it is told."""
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            with contextlib.suppress(EOFError):
                await self._serve(reader, writer, conversation)
            writer.close()
            async with asyncio.timeout(IDLE_S):
                await writer.wait_closed()
        except OSError:  # TimeoutError and ConnectionError are OSErrors
            return
        finally:
            self._conversations.pop(connection, None)
            if writer is not None:
                writer.transport.abort()  # what it has not read by now would be kept for ever
            else:
                connection.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conversation: _Conversation
    ) -> None:
        """Query after query, each behind its length (RFC 1035 §4.2.2)."""
        asked = 0
        while True:
            async with asyncio.timeout(IDLE_S):
                query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            conversation.heard_s = asyncio.get_running_loop().time()
            if not await self._answer_by_tcp(query, conversation.client, writer):
                return
            asked += 1
            if asked % _IN_TURN == 0:
                await asyncio.sleep(0)

    async def _answer_by_tcp(self, query: bytes, client: str, writer: asyncio.StreamWriter) -> bool:
        """False for what deserves no reply: the connection ends."""
        answered = self.answers.answer(query, over_tcp=True)
        is_outside = isinstance(answered, Outside)
        if isinstance(answered, Outside):
            later: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            def tell(data: bytes) -> None:
                if not later.done():
                    later.set_result(data)

            answered = self.forwarder.answer(answered, client, TCP_LIMIT, tell) or await later
        if answered is None:
            return False
        if isinstance(answered, Transfer):
            if client in self.copiers:
                for message in self.answers.transfer(answered.asked):
                    await _write(writer, message)
                return True
            answered = reply(answered.asked, Rcode.REFUSED, self.answers.available)
        if answered[3] & 15:
            self._note(query, client, answered, is_outside)
        await _write(writer, answered)
        return True


def _send(udp: socket.socket, data: bytes, client: Address) -> None:
    try:
        udp.sendto(data, client)
    except OSError:  # full, unreachable, or closed since: the client asks again
        return


async def _write(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(2, "big") + message)
    async with asyncio.timeout(IDLE_S):
        await writer.drain()
