"""Real resolvers' tools ask over loopback: dig, kdig and drill, each of another family of libraries."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from dns_cases import a_host, some_zones
from dns_servers import Address, listening

from overlay.dns.answer import Answers
from overlay.dns.clients import Clients
from overlay.dns.listener import DRAIN
from overlay.dns.record import Record, Type

Ask = Callable[..., str]


def answers() -> Answers:
    zones = some_zones()
    zones.put(
        "more",
        [
            Record("www.atlas.internal", Type.CNAME, "head.grid.atlas.internal"),
            Record("_sip._tcp.atlas.internal", Type.SRV, "0 5 5060 head.grid.atlas.internal"),
            Record("head.atlas.internal", Type.TXT, 'say "hi"; ' + "x" * 300),
        ],
    )
    for number in range(80):
        zones.put(f"many{number}", a_host("many", f"fd00:20::1:{number:x}", network="grid"))
    return Answers(zones)


@contextmanager
def served() -> Iterator[Address]:
    """In a thread of its own, since the tools are waited for."""
    loop, began, where = asyncio.new_event_loop(), threading.Event(), []

    async def main() -> None:
        async with listening(answers=answers(), copiers=Clients(("127.0.0.1",))) as address:
            where.append(address)
            began.set()
            await ended.wait()

    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert began.wait(5)
        yield where[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with served() as address:
        yield address


@pytest.fixture(params=["dig", "kdig", "drill"])
def ask(request: pytest.FixtureRequest, server: Address) -> Ask:
    tool = request.param
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")

    def asked(*words: str, over_tcp: bool = False) -> str:
        bounds = {"dig": ["+time=5", "+tries=1"], "kdig": ["+time=5", "+retry=0"], "drill": ["-4"]}[tool]
        if tool == "drill" and over_tcp:
            bounds += ["-t"]  # it says that the reply was cut, and leaves it at that
        argv = [tool, "-p", str(server[1]), *bounds, f"@{server[0]}", *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        return done.stdout.replace("\t", " ")

    return asked


def test_a_name_is_found_with_authority(ask: Ask) -> None:
    told = ask("head.grid.atlas.internal", "A")
    assert "10.20.0.2" in told and "aa" in told and "NOERROR" in told


def test_a_cname_comes_with_what_it_means(ask: Ask) -> None:
    told = ask("www.atlas.internal", "A")
    assert "head.grid.atlas.internal." in told and "10.20.0.2" in told


def test_services_and_texts_are_read(ask: Ask) -> None:
    assert "0 5 5060 head.grid.atlas.internal." in ask("_sip._tcp.atlas.internal", "SRV")
    assert 'say \\"hi\\"; ' in ask("head.atlas.internal", "TXT")


def test_a_name_that_is_not_there_is_said_with_the_soa(ask: Ask) -> None:
    told = ask("nobody.atlas.internal", "A")
    assert "NXDOMAIN" in told and "hostmaster.atlas.internal." in told


def test_what_does_not_fit_is_asked_for_by_tcp(ask: Ask) -> None:
    assert ask("many.atlas.internal", "AAAA", over_tcp=True).count("fd00:20::1:") == 80


def test_a_transfer_is_whole(ask: Ask) -> None:
    told = ask("atlas.internal", "AXFR")
    for name in ("www.atlas.internal.", "_sip._tcp.atlas.internal.", "worker-0.grid.atlas.internal."):
        assert name in told
    assert told.count(" SOA ") == 2


def test_anything_is_refused(ask: Ask) -> None:
    assert "REFUSED" in ask("atlas.internal", "ANY")


def tries_of(client: socket.socket, query: bytes) -> int:
    """How often a question has to be asked, as resolvers do, until it is answered; 4: in vain."""
    for number in range(1, 4):
        client.send(query)
        with contextlib.suppress(TimeoutError):
            assert client.recv(4096)[:2] == query[:2]
            return number
    return 4


def test_one_that_floods_does_not_keep_others_from_their_answers(server: Address) -> None:
    flood = bytes.fromhex("000101000001000000000000") + b"\4many\5atlas\x08internal\0\0\1\0\1"
    wanted = bytes.fromhex("123401000001000000000000") + b"\4head\5atlas\x08internal\0\0\1\0\1"

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind(("127.0.0.2", 0))
            out.setblocking(False)
            while True:
                with contextlib.suppress(OSError):
                    for _ in range(2 * DRAIN):
                        out.sendto(flood, server)

    flooding = multiprocessing.get_context("fork").Process(target=send, daemon=True)  # with an interpreter of its own
    flooding.start()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(server)
            tries = [tries_of(client, wanted) for _ in range(20)]
    finally:
        flooding.kill()
        flooding.join()
    assert max(tries) <= 3, tries
