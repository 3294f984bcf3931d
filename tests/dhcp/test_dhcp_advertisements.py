"""Router advertisements against scapy, solicitations by RFC 4861's list, and the schedule by a clock of numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dhcp_cases import MAC_BYTES, SERVER_MAC, a_port, a_scope_ra
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDNSSL,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
)
from scapy.layers.l2 import Ether

from dhcp import frame, ra
from dhcp.ra import Schedule
from dhcp.reason import Reason
from dhcp.scope import ScopeRa


def test_scapy_reads_the_whole_advertisement() -> None:
    read = Ether(ra.advertisement(a_port(ra=a_scope_ra())))
    assert (read.src, read.dst) == (SERVER_MAC, "33:33:00:00:00:01")
    assert (read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == ("fe80::1", "ff02::1", 255)
    head = read[ICMPv6ND_RA]
    assert (head.M, head.O, head.routerlifetime, head.chlim) == (0, 0, 0, 64)
    prefix = read[ICMPv6NDOptPrefixInfo]
    assert (prefix.prefix, prefix.prefixlen, prefix.L, prefix.A) == ("fd00:20::", 64, 1, 1)
    assert (prefix.validlifetime, prefix.preferredlifetime) == (86400, 14400)
    assert read[ICMPv6NDOptSrcLLAddr].lladdr == SERVER_MAC
    assert read[ICMPv6NDOptMTU].mtu == 1400
    assert (read[ICMPv6NDOptRDNSS].dns, read[ICMPv6NDOptRDNSS].lifetime) == (["fd00:20::1"], 1800)
    names = [name.removesuffix(".") for name in read[ICMPv6NDOptDNSSL].searchlist]
    assert [name for name in names if name] == ["grid.atlas.internal", "atlas.internal"]


def test_scapy_computes_the_same_checksum() -> None:
    built = ra.advertisement(a_port(ra=a_scope_ra()))
    read = Ether(built)
    del read[ICMPv6ND_RA].cksum
    assert bytes(read) == built


def test_an_advertisement_is_these_bytes() -> None:
    built = ra.advertisement(a_port(ra=a_scope_ra(prefixes=(), mtu=None, rdnss=(), dnssl=())))
    head = "333300000001 027067000001 86dd 60000000 0018 3a ff"
    addresses = "fe800000000000000000000000000001 ff020000000000000000000000000001"
    body = "8600 d1b4 40 00 0000 00000000 00000000 0101 027067000001"
    assert built.hex() == (head + addresses + body).replace(" ", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "fd00:20::1"},
        {"source": "10.0.0.1"},
        {"mtu": 1279},
        {"router_lifetime_s": 9001},
        {"prefixes": (("fd00:20::1/64", True),)},
        {"dnssl": ("a..b",)},
        {"rdnss": ("10.0.0.1",)},
    ],
)
def test_a_scope_that_no_host_can_be_told_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ra.advertisement(a_port(ra=a_scope_ra(**changes)))


def judged(wire: bytes) -> Reason | None:
    message = frame.parse_icmp6(wire)
    assert message is not None
    return ra.check_solicitation(message)


LINK_LAYER = bytes(ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:05"))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (IPv6(src="fe80::5", dst="ff02::2", hlim=255) / ICMPv6ND_RS(), None),
        (IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS(), None),
        (IPv6(src="fe80::5", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / LINK_LAYER, None),
        (IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / LINK_LAYER, Reason.BAD_SOLICITATION),
        (IPv6(src="fe80::5", dst="ff02::2", hlim=254) / ICMPv6ND_RS(), Reason.BAD_SOLICITATION),
        (IPv6(src="fe80::5", dst="ff02::2", hlim=255) / ICMPv6ND_RS(code=1), Reason.BAD_SOLICITATION),
        (IPv6(src="fe80::5", dst="ff02::2", hlim=255) / ICMPv6ND_RS(cksum=1), Reason.BAD_CHECKSUM),
        (
            IPv6(src="fe80::5", dst="ff02::2", hlim=255)
            / ICMPv6ND_RS()
            / ICMPv6NDOptUnknown(type=1, len=0, data=b"123456"),
            Reason.BAD_SOLICITATION,
        ),
        (
            IPv6(src="fe80::5", dst="ff02::2", hlim=255)
            / ICMPv6ND_RS()
            / ICMPv6NDOptUnknown(type=1, len=2, data=b"123456"),
            Reason.BAD_SOLICITATION,
        ),
        (IPv6(src="fe80::5", dst="ff02::2", hlim=255) / ICMPv6ND_RA(), Reason.NOT_FOR_US),
    ],
)
def test_a_solicitation_is_judged_by_rfc_4861_section_6_1_1(packet: IPv6, expected: Reason | None) -> None:
    assert judged(bytes(Ether(src=MAC_BYTES, dst="33:33:00:00:00:02") / packet)) is expected


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=4, max_size=40))
def test_no_body_makes_the_judgement_raise(body: bytes) -> None:
    ra.check_solicitation(frame.Icmp6(MAC_BYTES, bytes(16), bytes(16), 255, body))


def test_the_first_three_follow_each_other_quickly_then_it_is_minutes() -> None:
    schedule, gaps = Schedule(0.0), []
    for _ in range(5):
        now = schedule.next_s
        schedule = schedule.after_sending(now, draw=0.5)
        gaps.append(schedule.next_s - now)
    assert gaps == [16.0, 16.0, 400.0, 400.0, 400.0]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10))
def test_an_interval_is_within_its_bounds(draw: float, sent: int) -> None:
    gap = Schedule(0.0, sent=sent).after_sending(0.0, draw).next_s
    assert 0 < gap <= ra.MAX_INTERVAL_S


def test_a_solicitation_is_answered_at_once_when_the_last_answer_is_old() -> None:
    assert Schedule(400.0, last_s=10.0, sent=3).after_solicitation(50.0).next_s == 50.0


def test_a_flood_of_solicitations_is_answered_once_a_second() -> None:
    schedule, answers = Schedule(1000.0, last_s=0.0, sent=3), []
    for now in (step / 100 for step in range(500)):
        schedule = schedule.after_solicitation(now)
        if schedule.next_s <= now:
            answers.append(now)
            schedule = schedule.after_sending(now, draw=0.9)
    assert answers == [1.0, 2.0, 3.0, 4.0]


def test_a_solicitation_never_delays_what_was_planned() -> None:
    assert Schedule(5.0, last_s=4.5).after_solicitation(4.6).next_s == 5.0


PREFIXES = ("fd00::/64",)


@pytest.mark.parametrize(
    ("packet", "formed"),
    [
        (IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1"), "fd00::1"),
        (IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd01::1"), None),
        (IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fe80::1"), None),
        (IPv6(src="::", dst="ff02::1:ff00:1", hlim=64) / ICMPv6ND_NS(tgt="fd00::1"), None),
        (IPv6(src="fd00::2", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1"), None),
        (IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1", cksum=1), None),
        (IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS(), None),
        (IPv6(src="fd00::1", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"), "fd00::1"),
        (IPv6(src="fd01::1", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fd01::1"), None),
        (IPv6(src="fd00::1", dst="fd00::2", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"), None),
        (IPv6(src="fd00::2", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"), None),
        (IPv6(src="fd00::1", dst="fe80::1", hlim=64) / ICMPv6ND_NA(tgt="fd00::1"), None),
        (IPv6(src="fd00::1", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1", cksum=1), None),
    ],
)
def test_an_address_counts_as_formed_by_its_duplicate_detection_or_an_answer_to_a_question(
    packet: IPv6, formed: str | None
) -> None:
    message = frame.parse_icmp6(bytes(Ether(dst="33:33:00:00:00:01", src="02:00:00:00:00:01") / packet))
    assert message is not None
    assert ra.formed_address(message, PREFIXES) == formed


ROUTER = {"source": "fe80::ff:fe00:99", "source_mac": "02:00:00:00:00:99", "router_lifetime_s": 1800}


def test_a_router_is_advertised_from_its_own_address_with_its_own_mac() -> None:
    read = Ether(ra.advertisement(a_port(ra=a_scope_ra(**ROUTER))))
    assert (read.src, read[IPv6].src) == (ROUTER["source_mac"], ROUTER["source"])
    assert read[ICMPv6NDOptSrcLLAddr].lladdr == ROUTER["source_mac"]
    assert read[ICMPv6ND_RA].routerlifetime == 1800


def last_word(before: ScopeRa, after: ScopeRa | None) -> IPv6 | None:
    found = ra.farewell(a_port(ra=before), None if after is None else a_port(ra=after))
    return None if found is None else Ether(found)[IPv6]


def test_a_client_is_told_when_its_router_has_gone() -> None:
    read = last_word(a_scope_ra(**ROUTER), a_scope_ra())
    assert read is not None
    assert (read.src, read[ICMPv6ND_RA].routerlifetime) == (ROUTER["source"], 0)
    assert ICMPv6NDOptPrefixInfo not in read and ICMPv6NDOptRDNSS not in read


def test_a_prefix_that_has_gone_is_deprecated_and_the_router_that_stays_stays() -> None:
    other = a_scope_ra(prefixes=(("fd01::/64", True),), rdnss=("fd01::1",), dnssl=("atlas.internal",), **ROUTER)
    read = last_word(a_scope_ra(**ROUTER), replace(other, managed=True))
    assert read is not None
    assert (read[ICMPv6ND_RA].routerlifetime, read[ICMPv6ND_RA].M) == (1800, 1)
    gone = read[ICMPv6NDOptPrefixInfo]
    assert (gone.prefix, gone.A, gone.L, gone.validlifetime, gone.preferredlifetime) == ("fd00:20::", 1, 1, 0, 0)
    assert (read[ICMPv6NDOptRDNSS].dns, read[ICMPv6NDOptRDNSS].lifetime) == (["fd00:20::1"], 0)
    assert (read[ICMPv6NDOptDNSSL].searchlist, read[ICMPv6NDOptDNSSL].lifetime) == (["grid.atlas.internal."], 0)


def test_all_is_over_where_nothing_is_advertised_any_more() -> None:
    read = last_word(a_scope_ra(**ROUTER), None)
    assert read is not None
    assert (read[ICMPv6ND_RA].routerlifetime, read[ICMPv6NDOptPrefixInfo].validlifetime) == (0, 0)


def test_what_stays_needs_no_farewell() -> None:
    routed, plain = a_scope_ra(**ROUTER), a_scope_ra()
    assert last_word(routed, a_scope_ra(**ROUTER, mtu=1300)) is None
    assert last_word(plain, routed) is None
    assert ra.farewell(a_port(), a_port(ra=plain)) is None
