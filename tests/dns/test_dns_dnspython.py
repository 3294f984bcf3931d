"""Replies as dnspython reads them, held to a server that is a few lines of dnspython over a zone of its own."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.dns.answer import Answers, Outside
from overlay.dns.record import Record, Type
from overlay.dns.zone import Zones

ORIGIN = "atlas.internal"
REVERSE = "0.20.10.in-addr.arpa"
NAMES = ["head", "web", "a", "a.grid", "head.grid", "_sip._tcp.grid", "grid"]
Text = tuple[str, str, str]

addresses = st.tuples(st.sampled_from(NAMES), st.just("A"), st.integers(2, 5).map("10.20.0.{}".format))
addresses6 = st.tuples(st.sampled_from(NAMES), st.just("AAAA"), st.integers(2, 5).map("fd00::{}".format))
targets = st.sampled_from([*(f"{name}.{ORIGIN}." for name in NAMES), "www.example.org.", f"nobody.{ORIGIN}."])
aliases = st.tuples(st.sampled_from(["c", "d", "e.grid"]), st.just("CNAME"), targets)
services = st.tuples(st.sampled_from(NAMES), st.just("SRV"), targets.map("0 5 5060 {}".format))
texts = st.tuples(st.sampled_from(NAMES), st.just("TXT"), st.text('ab; "\\é', max_size=300))
zones_of_records = st.lists(st.one_of(addresses, addresses6, aliases, services, texts), max_size=12, unique_by=(
    lambda record: record if record[1] != "CNAME" else record[:2],
))  # fmt: skip


def ours(records: list[Text]) -> Answers:
    zones = Zones(ORIGIN, ("10.20.0.0/24",), ("10.20.0.1",), ttl=30)
    zones.put("all", [Record(f"{name}.{ORIGIN}", Type[kind], data) for name, kind, data in records])
    return Answers(zones)


def theirs(records: list[Text]) -> dict[tuple[dns.name.Name, str], dns.rrset.RRset]:
    """By owner and type."""
    found: dict[tuple[dns.name.Name, str], dns.rrset.RRset] = {}
    fixed = [("@", "NS", f"{ORIGIN}."), ("@", "A", "10.20.0.1")]
    for name, kind, data in (*fixed, *records):
        owner = dns.name.from_text(ORIGIN if name == "@" else f"{name}.{ORIGIN}")
        if kind == "TXT":
            raw = data.encode()
            strings = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
            data = " ".join('"' + "".join(f"\\{byte:03d}" for byte in one) + '"' for one in strings)
        rdata = dns.rdata.from_text("IN", kind, data)
        found.setdefault((owner, kind), dns.rrset.RRset(owner, 1, dns.rdatatype.from_text(kind))).add(rdata, ttl=30)
    return found


def expected(records: list[Text], name: str, kind: str) -> tuple[str, list[dns.rrset.RRset]] | None:
    """Code and answers; None where a CNAME leads out, or in a circle."""
    zone, asked = theirs(records), dns.name.from_text(name)
    origin, answers = dns.name.from_text(ORIGIN), []
    for _ in range(9):
        if not asked.is_subdomain(origin):
            return None
        if found := zone.get((asked, kind)):
            return "NOERROR", [*answers, found]
        if not (alias := zone.get((asked, "CNAME"))):
            exists = any(owner.is_subdomain(asked) for owner, _ in zone)
            return ("NOERROR" if exists else "NXDOMAIN"), answers
        answers.append(alias)
        asked = alias[0].target
    return None


@settings(max_examples=150, deadline=None)
@given(
    zones_of_records,
    st.sampled_from([*NAMES, "c", "d", "e.grid", "nobody", "x.head"]),
    st.sampled_from([*Type.__members__, "MX"]),
    st.booleans(),
)
def test_a_server_made_of_dnspython_answers_the_same(records: list[Text], name: str, kind: str, has_edns: bool) -> None:
    if kind == "SOA":
        return  # its serial is ours to choose
    query = dns.message.make_query(f"{name}.{ORIGIN}", kind, use_edns=has_edns)
    found = ours(records).answer(query.to_wire(), over_tcp=True)
    wanted = expected(records, f"{name}.{ORIGIN}", kind)
    if wanted is None:
        assert isinstance(found, Outside) or dns.message.from_wire(found).rcode() == dns.rcode.SERVFAIL
        return
    assert isinstance(found, bytes)
    reply = dns.message.from_wire(found)
    assert query.is_response(reply)
    assert (dns.rcode.to_text(reply.rcode()), reply.answer) == wanted
    assert reply.flags & dns.flags.AA and reply.edns == (0 if has_edns else -1)
    assert bool(reply.authority) == (not wanted[1] or wanted[1][-1].rdtype != dns.rdatatype.from_text(kind))
    assert all(one.rdtype == dns.rdatatype.SOA for one in reply.authority)


def test_hosts_that_services_name_come_with_their_addresses() -> None:
    answers = ours([("_sip._tcp", "SRV", f"0 5 5060 head.{ORIGIN}."), ("head", "A", "10.20.0.2")])
    found = answers.answer(dns.message.make_query(f"_sip._tcp.{ORIGIN}", "SRV").to_wire())
    assert isinstance(found, bytes)
    assert [str(one) for one in dns.message.from_wire(found).additional] == [f"head.{ORIGIN}. 30 IN A 10.20.0.2"]


@pytest.mark.parametrize("count", [1, 2000])
@pytest.mark.parametrize("zone", [ORIGIN, REVERSE])
def test_a_whole_zone_comes_as_it_is(count: int, zone: str) -> None:
    zones = Zones(ORIGIN, ("10.20.0.0/24",), ("10.20.0.1",), ttl=30)
    for number in range(count):
        zones.put(str(number), [Record(f"vm{number}.{ORIGIN}", Type.A, "10.20.0.2")])
        zones.put(f"r{number}", [Record(f"{number}.{REVERSE}", Type.PTR, f"vm{number}.{ORIGIN}")])
    query = dns.message.make_query(zone, "AXFR")
    answers = Answers(zones)
    asked = answers.answer(query.to_wire(), over_tcp=True)
    assert not isinstance(asked, bytes | Outside) and asked is not None
    messages = [dns.message.from_wire(wire, xfr=True) for wire in answers.transfer(asked.asked)]
    assert all(query.is_response(message) for message in messages)
    found = [rrset for message in messages for rrset in message.answer]
    assert found[0].rdtype == found[-1].rdtype == dns.rdatatype.SOA and found[0][0] == found[-1][0]
    wanted = {f"vm{number}.{ORIGIN}." if zone == ORIGIN else f"{number}.{REVERSE}." for number in range(count)}
    assert {str(rrset.name) for rrset in found[1:-1]} == wanted | {f"{zone}."}


def test_the_serial_grows_with_what_was_seen() -> None:
    now = 1_700_000_000.0
    zones = Zones(ORIGIN, now_utc_s=lambda: now)

    def serial() -> int:
        found = Answers(zones).answer(dns.message.make_query(ORIGIN, "SOA").to_wire())
        assert isinstance(found, bytes)
        return int(dns.message.from_wire(found).answer[0][0].serial)

    assert serial() == serial() == now
    for number in range(3):
        zones.put(str(number), [Record(f"vm{number}.{ORIGIN}", Type.A, "10.20.0.2")])
        assert serial() == now + 1 + number
    now += 3600
    zones.drop("0")
    assert serial() == now
