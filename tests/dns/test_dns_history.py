"""Why a name was not found: what a listener remembers of questions that it gave no answer to."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from dns_cases import a_query, some_answers, wire_of
from dns_servers import a_free_port, by_tcp, by_udp, resolving, run, with_address
from dnslib import RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from overlay.dns import forward, history
from overlay.dns.clients import Clients
from overlay.dns.forward import Forwarder
from overlay.dns.history import CLIENTS, REMEMBERED, History, Outcome
from overlay.dns.listener import Listener, open_sockets

HERE = "127.0.0.1"
Told = list[tuple[str, str, Outcome]]


async def remembered(forwarder: Forwarder, *wires: bytes, over_tcp: bool = False) -> Told:
    sockets = open_sockets(HERE, a_free_port())
    served = Listener([sockets], some_answers(), forwarder)
    server = sockets.udp.getsockname()
    try:
        for wire in wires:
            await (by_tcp(server, wire) if over_tcp else by_udp(server, wire))
        return [(one.name, one.kind, one.outcome) for one in served.history.last((HERE,))]
    finally:
        served.close()


@pytest.mark.parametrize("over_tcp", [False, True])
@pytest.mark.parametrize(
    ("name", "kind", "outcome"),
    [
        ("nobody.atlas.internal", "A", Outcome.NO_SUCH_NAME),
        ("Head.Nowhere.atlas.internal", "AAAA", Outcome.NO_SUCH_NAME),
        ("atlas.internal", "ANY", Outcome.REFUSED),
        ("example.org", "A", Outcome.NOT_FORWARDED),
    ],
)
def test_a_question_without_an_answer_is_remembered(name: str, kind: str, outcome: Outcome, over_tcp: bool) -> None:
    async def work() -> None:
        wires = wire_of(a_query("head.atlas.internal")), wire_of(a_query(name, kind))
        found = await remembered(Forwarder(()), *wires, over_tcp=over_tcp)
        assert found == [(name, "TYPE255" if kind == "ANY" else kind, outcome)]

    run(work())


def test_what_resolvers_do_not_know_differs_from_what_they_do_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TRY_S", 0.02)

    def say(query: DNSRecord) -> list[bytes]:
        text = str(query.q.qname)
        if text.startswith("silent"):
            return []
        got = query.reply()
        got.header.rcode = RCODE.NXDOMAIN
        return [bytes(got.pack()) if text.startswith("unknown") else with_address(query)]

    async def work() -> None:
        async with resolving(say) as (_, port):
            wires = [wire_of(a_query(f"{name}.example.org")) for name in ("known", "unknown", "silent")]
            found = await remembered(Forwarder((HERE,), port=port), *wires)
        assert found == [
            ("unknown.example.org", "A", Outcome.UNKNOWN_ELSEWHERE),
            ("silent.example.org", "A", Outcome.NOT_RESOLVED),
        ]

    run(work())


def test_who_may_not_ask_further_is_told_apart_by_its_address() -> None:
    async def work() -> None:
        found = await remembered(Forwarder((HERE,), Clients(("10.0.0.0/8",)), port=9), wire_of(a_query("example.org")))
        assert found == [("example.org", "A", Outcome.NOT_FORWARDED)]

    run(work())


def test_who_has_too_much_under_way_is_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "IN_FLIGHT_OF_ONE", 1)

    async def work() -> None:
        sockets = open_sockets(HERE, a_free_port())
        async with resolving(lambda query: []) as (_, port):
            served = Listener([sockets], some_answers(), Forwarder((HERE,), port=port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(sockets.udp.getsockname())
                for name in ("one.example.org", "two.example.org"):
                    client.send(wire_of(a_query(name)))
                await asyncio.get_running_loop().sock_recv(client, 512)
            assert [one.outcome for one in served.history.last((HERE,))] == [Outcome.CROWDED]
            served.close()

    run(work())


def test_what_is_remembered_is_bounded() -> None:
    kept = History()
    query = bytes(12) + b"\1a\0\0\1\0\1"
    for number in range(CLIENTS + 5):
        kept.note(f"10.0.{number >> 8}.{number & 255}", query, Outcome.NO_SUCH_NAME, 1.0)
    assert kept.last(("10.0.0.0",)) == []
    for second in range(3 * REMEMBERED):
        kept.note("10.0.4.4", query, Outcome.NO_SUCH_NAME, float(second))
    assert [one.at_utc_s for one in kept.last(("10.0.4.4",))] == [float(2 * REMEMBERED + n) for n in range(REMEMBERED)]


def test_what_was_shed_is_counted_for_each() -> None:
    kept = History()
    for _ in range(2):
        kept.note_shed(Counter({"10.0.0.1": 3, "10.0.0.2": 1}))
    assert kept.counts(("10.0.0.1", "10.0.0.2", "10.0.0.3")) == {Outcome.SHED: 8}


@given(st.binary(max_size=600))
def test_whatever_was_asked_can_be_said(query: bytes) -> None:
    kept = History()
    kept.note("10.0.0.1", query, Outcome.MALFORMED, 1.0)
    (found,) = kept.last(("10.0.0.1",))
    assert len(found.name) <= history._NAME and found.name.isascii()
