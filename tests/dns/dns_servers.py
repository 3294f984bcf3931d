"""A listener, resolvers and clients on loopback, with dnslib as client and as resolver; no rights needed."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from dns_cases import a_query, some_answers, wire_of
from dnslib import RR, DNSRecord

from overlay.dns.answer import Answers, Outside
from overlay.dns.clients import Clients
from overlay.dns.forward import Forwarder
from overlay.dns.listener import Listener, open_sockets

Address = tuple[str, int]


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 10)

    asyncio.run(bounded())


def a_free_port(host: str = "127.0.0.1") -> int:
    """A port free for UDP and TCP, below those that the kernel gives to connections."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind((host, port))
                tcp.bind((host, port))
            except OSError:
                continue
            return port


@asynccontextmanager
async def listening(
    forwarder: Forwarder | None = None, answers: Answers | None = None, copiers: Clients | None = None
) -> AsyncIterator[Address]:
    sockets = open_sockets("127.0.0.1", a_free_port())
    served = Listener([sockets], answers or some_answers(), forwarder or Forwarder(()), copiers)
    try:
        yield sockets.udp.getsockname()
    finally:
        served.close()


async def by_udp(server: Address, wire: bytes) -> DNSRecord:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(server)
        await loop.sock_sendall(client, wire)
        return DNSRecord.parse(await loop.sock_recv(client, 65535))


async def by_tcp(server: Address, *wires: bytes) -> list[DNSRecord]:
    reader, writer = await asyncio.open_connection(*server)
    for wire in wires:
        writer.write(struct.pack("!H", len(wire)) + wire)
    got = []
    for _ in wires:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        got.append(DNSRecord.parse(await reader.readexactly(size)))
    writer.close()
    return got


class Resolver(asyncio.DatagramProtocol):
    """Answers every question by `say`, over UDP and TCP on one port; None is silence. Counts what it was asked."""

    def __init__(self, say: Callable[[DNSRecord], list[bytes]]) -> None:
        self.say = say
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked += 1
        for wire in self.say(DNSRecord.parse(data)):
            self.transport.sendto(wire, addr)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        for wire in self.say(DNSRecord.parse(await reader.readexactly(size))):
            writer.write(struct.pack("!H", len(wire)) + wire)
        writer.close()


@asynccontextmanager
async def resolving(
    say: Callable[[DNSRecord], list[bytes]], where: Address = ("127.0.0.1", 0)
) -> AsyncIterator[tuple[Resolver, int]]:
    resolver = Resolver(say)
    host, port = where[0], where[1] or a_free_port(where[0])
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: resolver, local_addr=(host, port))
    tcp = await asyncio.start_server(resolver.tcp, host, port)
    try:
        yield resolver, port
    finally:
        udp.close()
        tcp.close()


def with_address(query: DNSRecord, address: str = "192.0.2.7", copies: int = 1) -> bytes:
    got = query.reply(ra=1, aa=0)
    for number in range(copies):
        got.add_answer(*RR.fromZone(f"{query.q.qname} 60 A {address.rsplit('.', 1)[0]}.{number + 7}"))
    return bytes(got.pack())


async def forwarded(
    forwarder: Forwarder,
    query: DNSRecord | None = None,
    limit: int = 512,
    client: str = "10.20.0.2",
    answers: Answers | None = None,
) -> DNSRecord:
    """The forwarder's reply, asked as a listener does."""
    outside = (answers or some_answers()).answer(wire_of(query or a_query("example.org")))
    assert isinstance(outside, Outside)
    later: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    return DNSRecord.parse(forwarder.answer(outside, client, limit, later.set_result) or await later)
