"""What a hostile client or resolver may send, and what it costs: bounded time, and nobody else's answer."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import AsyncExitStack

import pytest
from dns_cases import a_query, some_answers, wire_of
from dns_servers import by_udp, forwarded, listening, resolving, run, with_address
from dnslib import RCODE, DNSRecord

from overlay.dns import listener
from overlay.dns.forward import Forwarder
from overlay.dns.listener import CONNECTIONS
from overlay.dns.message import Failed, Rcode, hear, parse

LONGEST = 65535
BUDGET_S = 0.05
"""For one message, on a busy machine; a common one takes some 5 µs."""
QUESTION = b"\3www\7example\3org\0\0\1\0\1"


def a_head(counts: tuple[int, int, int, int], flags: int = 0x0100) -> bytes:
    return struct.pack("!2sHHHHH", b"AB", flags, *counts)


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x0c", b"\1a\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\xff\xff", b"\x40a", b"\1a" * 128 + b"\0", b"\x3fa"],
    ids=["itself", "its own tail", "each other", "nowhere", "no label", "too long", "past the end"],
)
def test_a_name_that_leads_round_or_nowhere_is_malformed(name: bytes) -> None:
    found = parse(a_head((1, 0, 0, 0)) + name + b"\0\1\0\1")
    assert isinstance(found, Failed) and found.rcode is Rcode.FORMERR


@pytest.mark.parametrize(
    "rest",
    [
        b"\0\0\x29\x04\xd0\0\0\0\0\0\0" * 5000,  # EDNS again and again
        (b"\xc0\x0c" + b"\0\1\0\1\0\0\0\0\0\0") * 5000,
        b"\1a" * 32000,
        b"\0\0\x29\x04\xd0\0\0\0\0\xff\xff",
    ],
)
def test_a_giant_query_costs_bounded_time(rest: bytes) -> None:
    query = (a_head((1, 0, 0, LONGEST)) + QUESTION + rest)[:LONGEST]
    begun = time.process_time()
    found = some_answers().answer(query, over_tcp=True)
    assert time.process_time() - begun < BUDGET_S
    assert isinstance(found, bytes) and found[3] & 15 == Rcode.FORMERR


@pytest.mark.parametrize(
    "rest",
    [
        (b"\xc0\x0c" + b"\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4") * 4000,
        (b"\xc0\x0c" + b"\0\5\0\1\0\0\0\x3c\0\2\xc0\x0c") * 4000,  # each an alias of itself
        (b"\1a" * 127 + b"\0" + b"\0\1\0\1\0\0\0\x3c\0\0") * 240,
    ],
)
def test_a_giant_reply_of_a_resolver_costs_bounded_time(rest: bytes) -> None:
    begun = time.process_time()
    assert hear(a_head((1, LONGEST, LONGEST, LONGEST), 0x8180) + QUESTION + rest, b"AB", QUESTION) is None
    assert time.process_time() - begun < BUDGET_S


def test_replies_of_somebody_else_come_to_nothing() -> None:
    """All ids but the right one, by the right way: the question is answered by who was asked."""

    def say(query: DNSRecord) -> list[bytes]:
        forged = []
        for number in range(64):
            wrong = DNSRecord.parse(wire_of(query))
            wrong.header.id ^= 1 + number
            forged.append(with_address(wrong, "6.6.6.6"))
        return [*forged, with_address(query)]

    async def work() -> None:
        async with resolving(say) as (_, port):
            forwarder = Forwarder(("127.0.0.1",), port=port)
            assert str((await forwarded(forwarder)).rr[0].rdata) == "192.0.2.7"
            assert forwarder.counters["mismatched"] == 64

    run(work())


def test_connections_that_say_little_or_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS", 8)

    async def work() -> None:
        wire = wire_of(a_query("head.atlas.internal"))
        async with listening() as server, AsyncExitStack() as held:
            for number in range(3 * 8):
                _, writer = await asyncio.open_connection(*server, local_addr=("127.0.0.2", 0))
                held.callback(writer.close)
                writer.write((b"", b"\xff\xff", struct.pack("!H", 200) + b"x")[number % 3])
            reader, writer = await asyncio.open_connection(*server, local_addr=("127.0.0.3", 0))
            writer.write(struct.pack("!H", len(wire)) + wire)
            assert await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            writer.close()
            assert (await by_udp(server, wire)).rr

    assert CONNECTIONS == 64
    run(work())


def test_a_client_that_does_not_read_its_replies_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.2)

    async def work() -> None:
        async with listening() as server:
            wire = wire_of(a_query("head.atlas.internal"))
            with socket.socket() as greedy:
                greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                greedy.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(greedy, server)
                with pytest.raises(ConnectionError):
                    while True:
                        await loop.sock_sendall(greedy, (struct.pack("!H", len(wire)) + wire) * 500)
                        assert (await by_udp(server, wire)).rr

    run(work())


def test_a_name_of_others_that_nobody_may_ask_for_is_refused_however_it_is_written() -> None:
    async def work() -> None:
        async with listening(Forwarder(())) as server:
            for name in ("head.grid.other.internal", "HEAD.OTHER.INTERNAL", "internal", "other.internal", "."):
                got = await by_udp(server, wire_of(a_query(name)))
                assert (RCODE[got.header.rcode], got.rr, got.auth) == ("REFUSED", [], [])

    run(work())
