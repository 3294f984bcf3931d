"""Sockets to resolvers: each question has a port of its own, which is nobody's before and after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from dns_cases import a_query
from dns_servers import forwarded, resolving, run, with_address
from dnslib import DNSRecord

from overlay.dns.forward import Forwarder
from overlay.dns.lines import KEPT, Lines

OTHERS = 60


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def resolver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(5)
        yield bound


def test_each_question_goes_from_another_port_with_another_id(resolver: socket.socket) -> None:
    async def work() -> None:
        lines, seen = Lines(resolver.getsockname()[1]), set()
        for _ in range(OTHERS):
            line = lines.take("127.0.0.1", lambda message: None)
            line.send(line.id)
            seen.add((resolver.recvfrom(64)[1][1], line.id))
            lines.put_back(line)
        # Of 28 000 ports and 65 536 ids: three alike among sixty would be no chance.
        assert len({port for port, _ in seen}) > OTHERS - 3
        assert len({id for _, id in seen}) > OTHERS - 3
        lines.close()

    run(work())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_line_that_nobody_uses_has_no_port(host: str) -> None:
    async def work() -> None:
        lines = Lines(9)
        line = lines.take(host, lambda message: None)
        assert line.socket.getsockname()[:2] == (host, line.socket.getsockname()[1])
        lines.put_back(line)
        assert line.socket.getsockname()[1] == 0
        assert lines.take(host, lambda message: None) is line
        lines.put_back(line)
        lines.close()

    run(work())


def test_what_arrives_late_is_not_heard_by_the_next_question(resolver: socket.socket) -> None:
    async def work() -> None:
        lines, heard = Lines(resolver.getsockname()[1]), []
        line = lines.take("127.0.0.1", heard.append)
        line.send(b"first")
        _, client = resolver.recvfrom(64)
        resolver.sendto(b"late", client)  # lies in its buffer when the question ends
        lines.put_back(line)
        for _ in range(3):  # turns of the loop: it reads what lies there
            await asyncio.sleep(0)
        again = lines.take("127.0.0.1", heard.append)
        again.send(b"second")
        resolver.sendto(b"in time", resolver.recvfrom(64)[1])
        async with asyncio.timeout(5):
            while not heard:
                await asyncio.sleep(0)
        assert again is line and heard == [b"in time"]
        lines.put_back(again)
        lines.close()

    run(work())


def test_no_more_lines_are_kept_than_wanted() -> None:
    async def work() -> None:
        before, lines = open_files(), Lines(9)
        taken = [lines.take("127.0.0.1", lambda message: None) for _ in range(3 * KEPT)]
        for line in taken[:-1]:
            lines.put_back(line)
        assert open_files() == before + KEPT + 1
        lines.keeps = 0
        lines.close()
        lines.put_back(taken[-1])
        assert open_files() == before

    run(work())


def test_a_forwarder_that_retires_answers_what_is_under_way() -> None:
    async def work() -> None:
        asked = asyncio.Event()

        def say(query: DNSRecord) -> list[bytes]:
            asked.set()
            return [with_address(query)]

        async with resolving(say) as (_, port):
            forwarder = Forwarder(("127.0.0.1",), port=port)
            await forwarded(forwarder)
            waiting = asyncio.ensure_future(forwarded(forwarder, a_query("www.example.org")))
            await asyncio.sleep(0)
            forwarder.retire()
            assert str((await waiting).rr[0].rdata) == "192.0.2.7"

    run(work())
