"""Replies as dnslib reads them, and against a dumb server made of dnslib; forms that are refused; garbage."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from dns_cases import ORIGIN, a_host, a_query, some_answers, some_zones, wire_of
from dnslib import CLASS, EDNS0, QTYPE, RCODE, RR, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.dns.answer import Answers, Outside
from overlay.dns.message import UDP_LIMIT, Rcode, reply
from overlay.dns.record import encode_name
from overlay.dns.zone import Outcome, Zones


def ask(query: DNSRecord | bytes, answers: Answers | None = None, over_tcp: bool = False) -> DNSRecord:
    wire = query if isinstance(query, bytes) else wire_of(query)
    found = (answers or some_answers()).answer(wire, over_tcp)
    assert isinstance(found, bytes)
    return DNSRecord.parse(found)


def shown(record: RR) -> tuple[str, str, int, str]:
    return str(record.rname), QTYPE[record.rtype], record.ttl, str(record.rdata)


@pytest.mark.parametrize(
    ("name", "kind", "answers"),
    [
        ("head.grid.atlas.internal", "A", ["10.20.0.2"]),
        ("head.grid.atlas.internal", "AAAA", ["fd00:20::2"]),
        ("head.atlas.internal", "A", ["10.20.0.2", "10.30.0.2"]),
        ("2.0.20.10.in-addr.arpa", "PTR", ["head.grid.atlas.internal."]),
        ("atlas.internal", "NS", ["atlas.internal."]),
        ("atlas.internal", "AAAA", ["fd00:20::1"]),
    ],
)
def test_a_record_is_answered_with_authority(name: str, kind: str, answers: list[str]) -> None:
    got = ask(a_query(name, kind))
    assert (got.header.id, got.header.qr, got.header.aa, got.header.rd, got.header.ra) == (0x1234, 1, 1, 1, 0)
    assert [shown(record) for record in got.rr] == [(f"{name}.", kind, 30, data) for data in answers]
    assert got.auth == []


def test_a_name_that_is_not_there_is_nxdomain_with_the_soa() -> None:
    got = ask(a_query("nobody.grid.atlas.internal"))
    assert (RCODE[got.header.rcode], got.rr) == ("NXDOMAIN", [])
    soa = "atlas.internal. hostmaster.atlas.internal. 1 3600 600 86400 30"
    assert [shown(record) for record in got.auth] == [("atlas.internal.", "SOA", 30, soa)]


def test_a_name_without_such_data_is_no_error_with_the_soa_of_its_zone() -> None:
    got = ask(a_query("2.0.20.10.in-addr.arpa", "TXT"))
    assert (RCODE[got.header.rcode], got.rr) == ("NOERROR", [])
    assert [(str(record.rname), QTYPE[record.rtype]) for record in got.auth] == [("0.20.10.in-addr.arpa.", "SOA")]


def test_the_question_comes_back_in_the_case_that_it_had() -> None:
    got = ask(a_query("HeAd.gRiD.aTLas.INTERNAL"))
    assert bytes(got.q.qname.label[0]) == b"HeAd"
    assert str(got.q.qname) == "HeAd.gRiD.aTLas.INTERNAL."
    assert str(got.rr[0].rdata) == "10.20.0.2"


def test_a_type_whose_number_is_a_letter_is_not_mistaken_for_another_case_of_it() -> None:
    answers = some_answers()
    for kind in (65, 97):  # HTTPS is "A", 97 is "a"
        query = a_query("head.atlas.internal")
        query.q.qtype = kind
        assert answers.answer(wire_of(query)) != b""
        assert ask(query, answers).q.qtype == kind


def test_a_change_is_answered_at_once() -> None:
    zones = some_zones()
    answers = Answers(zones)
    assert [str(record.rdata) for record in ask(a_query("worker-0.atlas.internal"), answers).rr] == ["10.20.0.3"]
    zones.put("p1", a_host("worker-0", "10.20.0.7"))
    assert [str(record.rdata) for record in ask(a_query("worker-0.atlas.internal"), answers).rr] == ["10.20.0.7"]
    zones.drop("p1")
    assert RCODE[ask(a_query("worker-0.atlas.internal"), answers).header.rcode] == "NXDOMAIN"


def test_edns_is_answered_with_edns_and_the_do_bit_kept() -> None:
    query = a_query("head.grid.atlas.internal")
    query.add_ar(EDNS0(flags="do", udp_len=4096))
    got = ask(query)
    assert [(record.rtype, record.rclass, record.edns_do, record.edns_ver) for record in got.ar] == [
        (41, UDP_LIMIT, 1, 0)
    ]


def test_without_edns_there_is_none_in_the_reply() -> None:
    assert ask(a_query("head.grid.atlas.internal")).ar == []


def test_a_later_edns_is_refused_as_a_bad_version() -> None:
    query = a_query("head.grid.atlas.internal")
    query.add_ar(EDNS0(version=1))
    got = ask(query)
    assert (got.header.rcode, got.ar[0].edns_rcode, got.rr) == (0, 1, [])


def crowded() -> Answers:
    zones = Zones(ORIGIN)
    for number in range(60):
        zones.put(str(number), a_host("many", f"fd00:20::{number + 1:x}", network=f"n{number}"))
    return Answers(zones)


@pytest.mark.parametrize(
    ("size", "over_tcp", "is_cut"), [(None, False, True), (4096, False, True), (None, True, False)]
)
def test_a_long_reply_is_cut_over_udp_and_whole_over_tcp(size: int | None, over_tcp: bool, is_cut: bool) -> None:
    query = a_query("many.atlas.internal", "AAAA")
    if size is not None:
        query.add_ar(EDNS0(udp_len=size))
    got = ask(query, crowded(), over_tcp)
    assert (bool(got.header.tc), len(got.rr)) == (is_cut, 0 if is_cut else 60)
    assert len(got.ar) == (size is not None)


def test_edns_lets_more_through_than_plain_udp() -> None:
    zones = Zones(ORIGIN)
    for number in range(30):
        zones.put(str(number), a_host("some", f"fd00:20::{number + 1:x}", network=f"n{number}"))
    query = a_query("some.atlas.internal", "AAAA")
    assert ask(query, Answers(zones)).header.tc
    query.add_ar(EDNS0(udp_len=1232))
    assert len(ask(query, Answers(zones)).rr) == 30


@pytest.mark.parametrize("kind", ["ANY", "AXFR", "IXFR"])
def test_any_and_transfers_over_udp_are_refused(kind: str) -> None:
    assert RCODE[ask(a_query(ORIGIN, kind)).header.rcode] == "REFUSED"


def test_a_transfer_of_what_is_no_zone_is_refused() -> None:
    for name in ("grid.atlas.internal", "example.org"):
        assert RCODE[ask(a_query(name, "AXFR"), over_tcp=True).header.rcode] == "REFUSED"


def test_another_class_is_refused() -> None:
    query = a_query("version.bind", "TXT")
    query.q.qclass = CLASS.CH
    assert RCODE[ask(query).header.rcode] == "REFUSED"


def header(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack("!HHHHHH", 0x1234, flags, *counts)


QUESTION = encode_name("head.grid.atlas.internal") + b"\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"", None),
        (header()[:11], None),
        (header(0x8100) + QUESTION, None),
        (header(0x2100) + QUESTION, Rcode.NOTIMP),
        (header(0x2800) + QUESTION, Rcode.NOTIMP),
        (header(counts=(0, 0, 0, 0)), Rcode.FORMERR),
        (header(counts=(2, 0, 0, 0)) + QUESTION * 2, Rcode.FORMERR),
        (header(counts=(1, 1, 0, 0)) + QUESTION, Rcode.FORMERR),
        (header(), Rcode.FORMERR),
        (header() + QUESTION[:-1], Rcode.FORMERR),
        (header() + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR),
        (header() + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", Rcode.FORMERR),
        (header() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", Rcode.FORMERR),
        (header(counts=(1, 0, 0, 1)) + QUESTION, Rcode.FORMERR),
        (header(counts=(1, 0, 0, 1)) + QUESTION + OPT[:-1], Rcode.FORMERR),
        (header(counts=(1, 0, 0, 1)) + QUESTION + OPT[:-2] + b"\0\1", Rcode.FORMERR),
        (header(counts=(1, 0, 0, 2)) + QUESTION + OPT + OPT, Rcode.FORMERR),
        (header(counts=(1, 0, 0, 1)) + QUESTION + b"\1a" + OPT, Rcode.FORMERR),
        (header() + encode_name("head.grid.atlas.internal") + b"\0\x29\0\1", Rcode.FORMERR),
    ],
)
def test_a_malformed_query_gets_an_error_or_silence(wire: bytes, expected: Rcode | None) -> None:
    found = some_answers().answer(wire)
    if expected is None:
        assert found is None
    else:
        assert isinstance(found, bytes)
        ident, flags = struct.unpack_from("!HH", found)
        assert (ident, flags & 0x8000, flags & 15) == (0x1234, 0x8000, expected)


def test_names_of_others_are_told_apart_for_forwarding() -> None:
    found = some_answers().answer(wire_of(a_query("example.org", "MX")))
    assert isinstance(found, Outside)
    assert (found.asked.name, found.asked.type) == (encode_name("example.org"), 15)


def test_forwarding_is_announced_in_every_reply() -> None:
    assert ask(a_query("head.atlas.internal"), some_answers(recursive=True)).header.ra == 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_make_the_answer_raise(wire: bytes) -> None:
    assert isinstance(some_answers().answer(wire), bytes | Outside | None)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_a_query_makes_the_answer_raise(data: st.DataObject) -> None:
    wire = bytearray(header(counts=(1, 0, 0, 1)) + QUESTION + OPT)
    for _ in range(data.draw(st.integers(0, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    found = some_answers().answer(cut)
    if isinstance(found, bytes):
        assert (found[:2], found[2] & 0x80) == (cut[:2], 0x80)


def dumb(zones: Zones, query: DNSRecord) -> bytes:
    """The same answers about addresses, each made by dnslib from text."""
    got = query.reply(ra=0, aa=1)
    found = zones.lookup(encode_name(str(query.q.qname).lower()), query.q.qtype)
    assert found is not None
    kind = QTYPE[query.q.qtype]
    if found.outcome is Outcome.ANSWER:
        for data in found.data:
            shown = str(ipaddress.ip_address(data))
            got.add_answer(*RR.fromZone(f"{query.q.qname} 30 {kind} {shown}"))
    else:
        if found.outcome is Outcome.NXDOMAIN:
            got.header.rcode = RCODE.NXDOMAIN
        # The owner is a pointer into the question, so it has the question's case.
        origin = str(query.q.qname)[-len(f"{ORIGIN}.") :]
        soa = f"{ORIGIN}. hostmaster.{ORIGIN}. 1 3600 600 86400 30"
        got.add_auth(*RR.fromZone(f"{origin} 30 SOA {soa}"))
    return bytes(got.pack())


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["head", "worker-0", "nobody", "HEAD"]),
    st.sampled_from([".grid.atlas.internal", ".edge.atlas.internal", ".atlas.internal", ".Atlas.Internal"]),
    st.sampled_from(["A", "AAAA", "TXT", "MX"]),
)
def test_a_dumb_server_made_of_dnslib_answers_the_same(workspace: str, rest: str, kind: str) -> None:
    zones = some_zones()
    query = a_query(workspace + rest, kind)
    found = Answers(zones).answer(wire_of(query))
    assert isinstance(found, bytes)
    ours, theirs = DNSRecord.parse(found), DNSRecord.parse(dumb(zones, query))
    assert ours.diff(theirs) == []


def test_a_positive_reply_is_the_very_bytes_of_dnslib() -> None:
    zones = some_zones()
    query = a_query("head.atlas.internal")
    assert Answers(zones).answer(wire_of(query)) == dumb(zones, query)


def test_an_error_reply_carries_the_question() -> None:
    found = some_answers().answer(wire_of(a_query("example.org")))
    assert isinstance(found, Outside)
    got = DNSRecord.parse(reply(found.asked, Rcode.SERVFAIL))
    assert (RCODE[got.header.rcode], str(got.q.qname)) == ("SERVFAIL", "example.org.")
