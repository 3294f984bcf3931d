"""What a view asks of others: how often, how it takes what they say, and what it tells whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from dns_cases import a_query, wire_of
from dns_servers import forwarded, listening, resolving, run, with_address
from dnslib import EDNS0, RCODE, RR, DNSRecord

from overlay.dns import forward
from overlay.dns.answer import Answers
from overlay.dns.clients import Clients
from overlay.dns.forward import Forwarder
from overlay.dns.record import Record, Type
from overlay.dns.zone import Zones

Say = Callable[[DNSRecord], list[bytes]]


def asked_of(say: Say, work: Callable[[Forwarder, list[DNSRecord]], object]) -> list[DNSRecord]:
    """What a resolver was asked while `work` ran with a forwarder to it."""
    seen: list[DNSRecord] = []

    def noted(query: DNSRecord) -> list[bytes]:
        seen.append(query)
        return say(query)

    async def main() -> None:
        async with resolving(noted) as (_, port):
            forwarder = Forwarder(("127.0.0.1",), port=port)
            await work(forwarder, seen)  # type: ignore[misc]

    run(main())
    return seen


def positive(query: DNSRecord) -> list[bytes]:
    return [with_address(query)]


def test_a_question_is_asked_once_while_its_answer_holds() -> None:
    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        for name in ("example.org", "EXAMPLE.org"):
            got = await forwarded(forwarder, a_query(name))
            assert (str(got.q.qname), str(got.rr[0].rdata), got.header.ra) == (f"{name}.", "192.0.2.7", 1)
        await forwarded(forwarder, a_query("example.org", "AAAA"))

    assert len(asked_of(positive, work)) == 2


def test_many_that_ask_at_once_are_one_question() -> None:
    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        queries = [a_query("example.org", ident=number) for number in range(20)]
        got = await asyncio.gather(*(forwarded(forwarder, one) for one in queries))
        assert [one.header.id for one in got] == list(range(20))

    assert len(asked_of(positive, work)) == 1


def test_a_negative_answer_is_kept_too() -> None:
    def say(query: DNSRecord) -> list[bytes]:
        got = query.reply()
        got.header.rcode = RCODE.NXDOMAIN
        got.add_auth(*RR.fromZone("org. 900 SOA ns.org. host.org. 1 2 3 4 60"))
        return [bytes(got.pack())]

    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        for _ in range(2):
            got = await forwarded(forwarder)
            assert (RCODE[got.header.rcode], str(got.auth[0].rname)) == ("NXDOMAIN", "org.")

    assert len(asked_of(say, work)) == 1


def test_what_was_cut_is_asked_for_by_tcp() -> None:
    def say(query: DNSRecord) -> list[bytes]:
        whole = with_address(query, copies=40)
        if len(seen) == 2:
            return [whole]
        cut = DNSRecord.parse(whole)
        cut.header.tc, cut.rr = 1, []
        return [bytes(cut.pack())]

    async def work(forwarder: Forwarder, noted: list[DNSRecord]) -> None:
        nonlocal seen
        seen = noted
        got = await forwarded(forwarder, limit=65535)
        assert (got.header.tc, len(got.rr)) == (0, 40)

    seen: list[DNSRecord] = []
    assert len(asked_of(say, work)) == 2


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED"])
def test_a_resolver_that_can_not_say_is_not_the_last_word(code: str) -> None:
    def say(query: DNSRecord) -> list[bytes]:
        got = query.reply()
        got.header.rcode = getattr(RCODE, code)
        return [bytes(got.pack())]

    async def main() -> None:
        async with (
            resolving(positive, ("127.0.0.3", 0)) as (_, port),
            resolving(say, ("127.0.0.2", port)),
        ):
            got = await forwarded(Forwarder(("127.0.0.2", "127.0.0.3"), port=port))
            assert str(got.rr[0].rdata) == "192.0.2.7"

    run(main())


def test_a_resolver_without_edns_is_asked_without() -> None:
    def say(query: DNSRecord) -> list[bytes]:
        if query.ar:
            got = query.reply()
            got.header.rcode, got.ar = RCODE.FORMERR, []
            return [bytes(got.pack())]
        return [with_address(query)]

    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        assert (await forwarded(forwarder)).rr

    assert [len(one.ar) for one in asked_of(say, work)] == [1, 0]


def test_nobody_is_asked_for_who_may_not_or_does_not_ask_for_it() -> None:
    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        strict = Forwarder(forwarder.resolvers, Clients(("10.20.0.0/24",)))
        got = await forwarded(strict, client="10.30.0.2")
        assert (RCODE[got.header.rcode], got.header.ra) == ("REFUSED", 0)
        query = a_query("example.org")
        query.header.rd = 0
        assert RCODE[(await forwarded(forwarder, query)).header.rcode] == "REFUSED"

    assert asked_of(positive, work) == []


def test_one_client_that_asks_too_much_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TRY_S", 0.2)

    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        flood = [asyncio.ensure_future(forwarded(forwarder, a_query(f"{n}.slow.org"))) for n in range(400)]
        await asyncio.sleep(0)
        got = await forwarded(forwarder, a_query("example.org"), client="10.20.0.9")
        assert str(got.rr[0].rdata) == "192.0.2.7"
        codes = {RCODE[(await one).header.rcode] for one in flood}
        assert codes == {"SERVFAIL"}

    seen = asked_of(lambda query: positive(query) if "slow" not in str(query.q.qname) else [], work)
    assert len({str(one.q.qname) for one in seen}) == forward.IN_FLIGHT_OF_ONE + 1


def test_a_question_that_nobody_answers_is_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TRY_S", 0.02)

    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        for _ in range(3):
            assert RCODE[(await forwarded(forwarder)).header.rcode] == "SERVFAIL"

    assert len(asked_of(lambda query: [], work)) == 2


def pointing_out() -> Answers:
    zones = Zones("atlas.internal")
    zones.put("c", [Record("www.atlas.internal", Type.CNAME, "web.atlas.internal")])
    zones.put("d", [Record("web.atlas.internal", Type.CNAME, "host.example.org")])
    return Answers(zones, recursive=True)


def test_a_cname_that_leads_out_is_followed_there() -> None:
    def say(query: DNSRecord) -> list[bytes]:
        got = query.reply()
        got.add_answer(*RR.fromZone("host.example.org 60 CNAME h.example.org\nh.example.org 50 A 192.0.2.7"))
        return [bytes(got.pack())]

    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        query = a_query("WWW.atlas.internal")
        query.add_ar(EDNS0())
        for _ in range(2):
            got = await forwarded(forwarder, query, answers=pointing_out())
            assert (got.header.id, str(got.q.qname), len(got.ar)) == (0x1234, "WWW.atlas.internal.", 1)
            assert [(str(one.rname).lower(), one.rtype, str(one.rdata)) for one in got.rr] == [
                ("www.atlas.internal.", 5, "web.atlas.internal."),
                ("web.atlas.internal.", 5, "host.example.org."),
                ("host.example.org.", 5, "h.example.org."),
                ("h.example.org.", 1, "192.0.2.7"),
            ]

    assert [str(one.q.qname) for one in asked_of(say, work)] == ["host.example.org."]


def test_a_cname_that_leads_out_is_said_to_who_may_not_ask_further() -> None:
    async def main() -> None:
        got = await forwarded(Forwarder(()), a_query("www.atlas.internal"), answers=pointing_out())
        assert (RCODE[got.header.rcode], [str(one.rdata) for one in got.rr]) == (
            "NOERROR",
            ["web.atlas.internal.", "host.example.org."],
        )

    run(main())


@pytest.mark.parametrize("pointers", [b"\xff\xff", b""], ids=["forwards", "a long way"])
def test_a_cname_whose_target_is_answered_with_bad_pointers_fails(pointers: bytes) -> None:
    def say(query: DNSRecord) -> list[bytes]:
        wire = bytes(query.reply().pack())[:34]  # a header and the question for host.example.org
        at = len(wire) + 11  # of the data of a record of a type that nobody knows
        chain = b"".join((0xC000 | at + 2 * number - 2).to_bytes(2, "big") for number in range(1, 3000))
        data = b"\xc0\x0c" + chain
        last = pointers or (0xC000 | at + len(data) - 2).to_bytes(2, "big")
        null = b"\0" + b"\0\x0a\0\1\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
        return [wire[:6] + b"\0\2\0\0\0\0" + wire[12:] + null + last + b"\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"]

    async def work(forwarder: Forwarder, seen: list[DNSRecord]) -> None:
        got = await forwarded(forwarder, a_query("www.atlas.internal"), answers=pointing_out())
        assert RCODE[got.header.rcode] == "SERVFAIL"

    assert len(asked_of(say, work)) == 1


def test_listeners_of_two_views_share_nothing() -> None:
    async def main() -> None:
        async with resolving(positive) as (resolver, port):
            for _ in range(2):
                async with listening(Forwarder(("127.0.0.1",), port=port)) as server:
                    reader, writer = await asyncio.open_connection(*server)
                    wire = wire_of(a_query("example.org"))
                    writer.write(len(wire).to_bytes(2, "big") + wire)
                    assert await reader.readexactly(2)
                    writer.close()
            assert resolver.asked == 2

    run(main())
