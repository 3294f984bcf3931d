"""Listener and forwarder on loopback, with dnslib as client and as resolver; no rights needed."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from dns_cases import a_query, wire_of
from dns_servers import a_free_port, by_tcp, by_udp, forwarded, listening, resolving, run, with_address
from dnslib import EDNS0, RCODE, DNSRecord

from overlay.dns import forward, listener
from overlay.dns.forward import Forwarder


def test_a_name_is_answered_over_udp_and_over_tcp_one_query_after_the_other() -> None:
    async def work() -> None:
        async with listening() as server:
            wires = [wire_of(a_query(name)) for name in ("head.grid.atlas.internal", "worker-0.atlas.internal")]
            found = [await by_udp(server, wire) for wire in wires]
            assert [str(one.rr[0].rdata) for one in found] == ["10.20.0.2", "10.20.0.3"]
            assert [str(one.rr[0].rdata) for one in await by_tcp(server, *wires)] == ["10.20.0.2", "10.20.0.3"]

    run(work())


def test_a_name_of_others_is_refused_without_resolvers() -> None:
    async def work() -> None:
        async with listening() as server:
            wire = wire_of(a_query("example.org"))
            for got in (await by_udp(server, wire), *await by_tcp(server, wire)):
                assert (RCODE[got.header.rcode], got.header.id) == ("REFUSED", 0x1234)

    run(work())


def test_garbage_leaves_the_listener_answering() -> None:
    async def work() -> None:
        async with listening() as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for garbage in (b"", b"x", b"\xff" * 40, bytes(12)):
                    client.sendto(garbage, server)
            _, writer = await asyncio.open_connection(*server)
            writer.write(b"\0\4oops")
            assert (await by_udp(server, wire_of(a_query("head.atlas.internal")))).rr
            writer.close()

    run(work())


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.05)

    async def work() -> None:
        async with listening() as server:
            reader, writer = await asyncio.open_connection(*server)
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_who_holds_most_connections_gives_up_the_one_silent_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS", 4)

    async def work() -> None:
        async with listening() as server:
            wire = wire_of(a_query("head.atlas.internal"))

            async def opened(client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                return await asyncio.open_connection(*server, local_addr=(client, 0))

            async def asks(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
                reader, writer = stream
                try:
                    writer.write(struct.pack("!H", len(wire)) + wire)
                    await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                except (asyncio.IncompleteReadError, ConnectionError):
                    return False
                return True

            quiet = await opened("127.0.0.2")
            assert await asks(quiet)
            hoard = [await opened("127.0.0.3") for _ in range(3)]
            for stream in (hoard[1], hoard[2], hoard[0]):
                assert await asks(stream)
            for _ in range(3):
                late = await opened("127.0.0.4")
                assert await asks(late)
                late[1].close()
                await late[1].wait_closed()
                assert await asks(quiet)
            assert [await asks(stream) for stream in hoard] == [True, False, True]
            for _, writer in (quiet, *hoard):
                writer.close()

    run(work())


def test_a_question_is_forwarded_under_another_id_and_comes_back_under_its_own() -> None:
    seen: list[DNSRecord] = []

    def say(query: DNSRecord) -> list[bytes]:
        seen.append(query)
        return [with_address(query)]

    async def work() -> None:
        async with resolving(say) as (_, port), listening(Forwarder(("127.0.0.1",), port=port)) as server:
            query = a_query("ExAmple.org")
            query.add_ar(EDNS0(flags="do"))
            for got in (await by_udp(server, wire_of(query)), *await by_tcp(server, wire_of(query))):
                assert (got.header.id, str(got.q.qname), str(got.rr[0].rdata)) == (0x1234, "ExAmple.org.", "192.0.2.7")
        assert [len(one.ar) for one in seen] == [1]
        assert all(one.header.rd and one.ar[0].edns_do for one in seen)

    run(work())


def test_a_silent_resolver_ends_in_servfail_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TRY_S", 0.05)

    async def work() -> None:
        async with resolving(lambda query: []) as (resolver, port):
            got = await forwarded(Forwarder(("127.0.0.1",), port=port))
            assert (RCODE[got.header.rcode], resolver.asked) == ("SERVFAIL", 2)

    run(work())


def test_a_resolver_that_is_not_there_ends_in_servfail_at_once() -> None:
    async def work() -> None:
        port = a_free_port()
        got = await forwarded(Forwarder(("127.0.0.1",), port=port))
        assert RCODE[got.header.rcode] == "SERVFAIL"

    run(work())


def test_the_resolver_that_answered_last_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TRY_S", 0.1)

    async def work() -> None:
        async with (
            resolving(lambda query: [with_address(query)], ("127.0.0.3", 0)) as (good, port),
            resolving(lambda query: [], ("127.0.0.2", port)) as (silent, _),
        ):
            forwarder = Forwarder(("127.0.0.2", "127.0.0.3"), port=port)
            for number in range(3):
                got = await forwarded(forwarder, a_query(f"{number}.example.org"))
                assert str(got.rr[0].rdata) == "192.0.2.7"
            assert (silent.asked, good.asked) == (1, 3)

    run(work())


def test_a_reply_to_another_question_is_not_taken() -> None:
    def say(query: DNSRecord) -> list[bytes]:
        wrong_id = DNSRecord.parse(wire_of(query))
        wrong_id.header.id ^= 1
        other = a_query("evil.org", ident=query.header.id)
        return [with_address(wrong_id, "6.6.6.6"), with_address(other, "6.6.6.6"), wire_of(query), with_address(query)]

    async def work() -> None:
        async with resolving(say) as (_, port):
            got = await forwarded(Forwarder(("127.0.0.1",), port=port))
            assert str(got.rr[0].rdata) == "192.0.2.7"

    run(work())


def test_a_long_reply_is_cut_for_a_client_without_edns_and_whole_over_tcp() -> None:
    async def work() -> None:
        async with resolving(lambda query: [with_address(query, copies=60)]) as (_, port):
            forwarder = Forwarder(("127.0.0.1",), port=port)
            got = await forwarded(forwarder)
            assert (got.header.tc, got.rr, str(got.q.qname)) == (1, [], "example.org.")
            got = await forwarded(forwarder, limit=65535)
            assert (got.header.tc, len(got.rr)) == (0, 60)

    run(work())


def test_questions_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "IN_FLIGHT_OF_ONE", 1)
    monkeypatch.setattr(forward, "TRY_S", 0.05)

    async def work() -> None:
        async with resolving(lambda query: []) as (resolver, port):
            forwarder = Forwarder(("127.0.0.1",), port=port)
            questions = (a_query(f"{number}.example.org") for number in range(5))
            await asyncio.gather(*(forwarded(forwarder, one) for one in questions))
            assert resolver.asked == 2

    run(work())


def test_a_resolver_must_be_an_address() -> None:
    with pytest.raises(ValueError):
        Forwarder(("resolver.example.org",))
