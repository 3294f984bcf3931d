"""What is kept of others' replies: how long, how much, and what is heard of a reply at all."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.dns import cache
from overlay.dns.cache import FAILED, FAILURE_S, Cache, Key
from overlay.dns.message import Heard, hear, parse, query

QUESTION = b"\3www\7example\3org\0\0\1\0\1"
SOA = "example.org. 900 IN SOA ns. host. 1 2 3 4 60"


def a_reply(*answers: str, rcode: str = "NOERROR", authority: str = "", edns: bool = False) -> bytes:
    message = dns.message.make_response(dns.message.make_query("www.example.org", "A", use_edns=edns, id=0x4142))
    message.set_rcode(dns.rcode.from_text(rcode))
    message.answer = [dns.rrset.from_text("www.example.org.", *_words(text)) for text in answers]
    if authority:
        owner, ttl, class_, kind, data = authority.split(" ", 4)
        message.authority = [dns.rrset.from_text(owner, int(ttl), class_, kind, data)]
    return message.to_wire()


def _words(text: str) -> tuple[int, str, str, str]:
    ttl, kind, data = text.split(" ", 2)
    return int(ttl), "IN", kind, data


def heard(wire: bytes) -> Heard:
    found = hear(wire, b"AB", QUESTION)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("wire", "lasts_s"),
    [
        (a_reply("300 A 192.0.2.7"), 300),
        (a_reply("300 A 192.0.2.7", edns=True), 300),
        (a_reply("300 CNAME x.org.", authority=SOA), 60),
        (a_reply(rcode="NXDOMAIN", authority=SOA), 60),
        (a_reply(authority=SOA), 60),
        (a_reply(authority=SOA.replace("900", "30")), 30),
        (a_reply(), 0),
        (a_reply(rcode="NXDOMAIN"), 0),
        (a_reply("0 A 192.0.2.7"), 0),
        (a_reply("300 A 192.0.2.7", rcode="SERVFAIL"), 0),
    ],
)
def test_a_reply_holds_as_long_as_its_records_say(wire: bytes, lasts_s: int) -> None:
    assert heard(wire).lasts_s == lasts_s


def test_edns_of_others_is_left_out_and_its_code_is_kept() -> None:
    found = heard(a_reply("300 A 192.0.2.7", rcode="BADVERS", edns=True))
    assert (found.rcode, found.counts, len(found.records)) == (16, (1, 0, 0), 16)


KEY: Key = (QUESTION, False, False)


def test_ttls_count_down_and_end() -> None:
    kept = Cache()
    kept.put(KEY, heard(a_reply("300 A 192.0.2.7")), 1000.0)
    for age, ttl in ((0, 300), (0.9, 300), (1, 299), (299, 1)):
        found = kept.get(KEY, 1000.0 + age)
        assert found is not None and int.from_bytes(found[0].records[6:10], "big") == ttl
        assert found[1] == 1000.0 + int(age) + 1
    assert kept.get(KEY, 1300.0) is None
    assert (len(kept), kept.size) == (0, 0)


def test_a_failure_is_kept_for_a_moment() -> None:
    kept = Cache()
    kept.put(KEY, FAILED, 0.0)
    assert kept.get(KEY, FAILURE_S - 0.1) == (FAILED, FAILURE_S)
    assert kept.get(KEY, FAILURE_S) is None


def test_nothing_is_kept_beyond_its_bounds() -> None:
    kept = Cache()
    kept.put(KEY, heard(a_reply("999999 A 192.0.2.7")), 0.0)
    assert kept.get(KEY, cache.LONGEST_S - 1) and not kept.get(KEY, cache.LONGEST_S)
    kept.put(KEY, heard(a_reply(rcode="NXDOMAIN", authority=SOA.replace("900", "9000").replace(" 60", " 9000"))), 0.0)
    assert kept.get(KEY, cache.LONGEST_NEGATIVE_S - 1) and not kept.get(KEY, cache.LONGEST_NEGATIVE_S)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.booleans()), max_size=60))
def test_what_was_unused_for_longest_goes_first(steps: list[tuple[int, int, bool]]) -> None:
    kept, used, now = Cache(entries=4, size=20_000), [], 0.0
    for number, copies, is_put in steps:
        now += 0.01
        key = (bytes((number,)), False, False)
        if is_put:
            kept.put(key, heard(a_reply(f"300 TXT {'x' * (1 + copies)}")), now)
            used = [one for one in used if one != key] + [key]
            used = used[-4:]
        else:
            assert (kept.get(key, now) is not None) == (key in used)
            if key in used:
                used = [one for one in used if one != key] + [key]
        assert len(kept) == len(used) <= 4 and kept.size <= 20_000


def test_large_replies_do_not_push_all_others_out() -> None:
    kept = Cache(size=16_000)
    for number in range(40):
        kept.put((bytes((number,)), False, False), heard(a_reply(*(["300 TXT " + "x" * 200] * 3))), 0.0)
        assert kept.size <= 16_000
    kept.put(KEY, heard(a_reply(*(f"300 TXT {number:0200d}" for number in range(20)))), 0.0)
    assert kept.get(KEY, 0.0) is None, "one that is a sixteenth of all is not kept"


@pytest.mark.parametrize(
    "change",
    [
        lambda wire: b"AC" + wire[2:],  # another id
        lambda wire: wire[:2] + bytes((wire[2] & 0x7F,)) + wire[3:],  # a query
        lambda wire: wire[:13] + b"x" + wire[14:],  # another name
        lambda wire: wire[:30] + b"\x1c" + wire[31:],  # another type
        lambda wire: wire[:-1],
        lambda wire: wire[:7] + b"\2" + wire[8:],  # fewer records than it says
        lambda wire: wire[:5] + b"\2" + wire[6:],
    ],
)
def test_a_reply_to_something_else_is_not_heard(change: object) -> None:
    wire = a_reply("300 A 192.0.2.7")
    assert hear(wire, b"AB", QUESTION) is not None
    assert hear(change(wire), b"AB", QUESTION) is None  # type: ignore[operator]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_to_a_reply_makes_hearing_raise(data: st.DataObject) -> None:
    wire = bytearray(a_reply("300 A 192.0.2.7", "200 TXT abc", authority=SOA, edns=True))
    for _ in range(data.draw(st.integers(0, 4))):
        wire[data.draw(st.integers(12, len(wire) - 1))] = data.draw(st.integers(0, 255))
    found = hear(bytes(wire[: data.draw(st.integers(0, len(wire)))]), b"AB", QUESTION)
    if found is not None:
        assert all(at + 4 <= len(found.records) for at in found.ttls)


def test_our_own_queries_are_well_formed() -> None:
    for dnssec in (None, False, True):
        wire = query(b"AB", QUESTION, dnssec=dnssec)
        read, asked = dns.message.from_wire(wire), parse(wire)
        assert (str(read.question[0].name), read.edns, bool(read.ednsflags & dns.flags.DO)) == (
            "www.example.org.",
            -1 if dnssec is None else 0,
            bool(dnssec),
        )
        assert asked is not None and asked.id == b"AB"
