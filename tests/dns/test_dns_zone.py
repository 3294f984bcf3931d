"""Zones: which names exist, whose they are, and that the way to a state leaves no trace in it."""

from __future__ import annotations

import ipaddress

import pytest
from dns_cases import ORIGIN, a_host, some_zones
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.dns.record import Record, Type, encode_name
from overlay.dns.zone import Outcome, Zones, reverse_cuts


def look(name: str, kind: int = Type.A, zones: Zones | None = None) -> tuple[Outcome, tuple[bytes, ...]] | None:
    found = (zones or some_zones()).lookup(encode_name(name), kind)
    return None if found is None else (found.outcome, found.data)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("head.grid.atlas.internal", Type.A, (Outcome.ANSWER, (b"\x0a\x14\0\x02",))),
        ("head.edge.atlas.internal", Type.A, (Outcome.ANSWER, (b"\x0a\x1e\0\x02",))),
        ("head.atlas.internal", Type.A, (Outcome.ANSWER, (b"\x0a\x14\0\x02", b"\x0a\x1e\0\x02"))),
        ("worker-0.grid.atlas.internal", Type.AAAA, (Outcome.NODATA, ())),
        ("grid.atlas.internal", Type.A, (Outcome.NODATA, ())),
        ("nobody.grid.atlas.internal", Type.A, (Outcome.NXDOMAIN, ())),
        ("below.head.grid.atlas.internal", Type.A, (Outcome.NXDOMAIN, ())),
        ("atlas.internal", Type.A, (Outcome.ANSWER, (b"\x0a\x14\0\x01",))),
        ("atlas.internal", Type.NS, (Outcome.ANSWER, (encode_name(ORIGIN),))),
        ("2.0.20.10.in-addr.arpa", Type.PTR, (Outcome.ANSWER, (encode_name("head.grid.atlas.internal"),))),
        ("2.0.20.10.in-addr.arpa", Type.A, (Outcome.NODATA, ())),
        ("99.0.20.10.in-addr.arpa", Type.PTR, (Outcome.NXDOMAIN, ())),
        ("0.20.10.in-addr.arpa", Type.PTR, (Outcome.NODATA, ())),
        ("internal", Type.A, None),
        ("other.internal", Type.A, None),
        ("notatlas.internal", Type.A, None),
        ("20.10.in-addr.arpa", Type.PTR, None),
        ("2.0.30.10.in-addr.arpa", Type.PTR, None),
        (".", Type.NS, None),
    ],
)
def test_a_name_is_answered_as_what_it_is(name: str, kind: int, expected: object) -> None:
    assert look(name, kind) == expected


def test_an_address_outside_the_subnets_has_a_name_but_no_reverse() -> None:
    assert look("head.edge.atlas.internal") is not None
    assert look("2.0.30.10.in-addr.arpa", Type.PTR) is None


@pytest.mark.parametrize(
    ("subnet", "zones"),
    [
        ("10.20.0.0/24", {"0.20.10.in-addr.arpa"}),
        ("10.20.0.0/16", {"20.10.in-addr.arpa"}),
        ("10.20.0.0/22", {f"{third}.20.10.in-addr.arpa" for third in range(4)}),
        ("0.0.0.0/0", {"in-addr.arpa"}),
        ("fd00:20::/64", {"0.0.0.0.0.0.0.0.0.2.0.0.0.0.d.f.ip6.arpa"}),
        ("fd00::/7", {"c.f.ip6.arpa", "d.f.ip6.arpa"}),
    ],
)
def test_a_subnet_is_cut_into_zones_where_labels_end(subnet: str, zones: set[str]) -> None:
    network = str(ipaddress.ip_network(subnet, strict=False))
    assert set(reverse_cuts(network)) == {encode_name(zone) for zone in zones}


def test_half_a_last_label_is_ours_and_the_other_half_is_not() -> None:
    zones = Zones(ORIGIN, ("10.20.0.128/25",))
    zones.put("p", a_host("head", "10.20.0.130"))
    assert look("130.0.20.10.in-addr.arpa", Type.PTR, zones) == (Outcome.ANSWER, (encode_name(f"head.grid.{ORIGIN}"),))
    assert look("131.0.20.10.in-addr.arpa", Type.PTR, zones) == (Outcome.NXDOMAIN, ())
    assert look("127.0.20.10.in-addr.arpa", Type.PTR, zones) is None


networks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)).map(
        lambda pair: ipaddress.IPv4Network(pair, strict=False)
    ),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(16, 128)).map(
        lambda pair: ipaddress.IPv6Network(pair, strict=False)
    ),
)


@settings(max_examples=60, deadline=None)
@given(networks, st.integers(0, 2**128 - 1), st.booleans())
def test_exactly_the_addresses_of_a_subnet_are_ours(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, number: int, is_inside: bool
) -> None:
    first = int(network.network_address)
    limit = 2**network.max_prefixlen
    number = first + number % network.num_addresses if is_inside else number % limit
    address = type(network.network_address)(number)
    zones = Zones(ORIGIN, (str(network),))
    assert (zones.origin_of(encode_name(address.reverse_pointer)) is not None) == (address in network)


hosts = st.builds(
    a_host,
    st.sampled_from(["head", "worker-0", "grid", "a"]),
    st.sampled_from(["10.20.0.2", "10.20.0.3", "fd00:20::2", "192.0.2.1"]),
    network=st.sampled_from(["grid", "edge"]),
)
steps = st.lists(st.tuples(st.sampled_from("pqrs"), hosts | st.none()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_records_depend_on_what_is_there_and_not_on_how_it_came(
    steps: list[tuple[str, tuple[Record, ...] | None]],
) -> None:
    walked, present = Zones(ORIGIN, ("10.20.0.0/24", "fd00:20::/64")), {}
    for key, host in steps:
        if host is None:
            walked.drop(key)
            present.pop(key, None)
        else:
            walked.put(key, host)
            present[key] = host
    fresh = Zones(ORIGIN, ("10.20.0.0/24", "fd00:20::/64"))
    for key in sorted(present):
        fresh.put(key, present[key])
    assert walked.records() == fresh.records()
    for name in {record.name for host in present.values() for record in host if record.type is not Type.PTR} | {
        "grid.atlas.internal",
        "head.atlas.internal",
    }:
        assert look(name, Type.A, walked) == look(name, Type.A, fresh)


def test_all_is_gone_when_every_port_is() -> None:
    zones = some_zones()
    for key in ("p0", "p1", "p2"):
        zones.drop(key)
    assert zones.records() == Zones(ORIGIN, ("10.20.0.0/24", "fd00:20::/64"), ("10.20.0.1", "fd00:20::1")).records()
    assert look("grid.atlas.internal", Type.A, zones) == (Outcome.NXDOMAIN, ())


def test_the_same_again_changes_nothing() -> None:
    zones = some_zones()
    before = zones.version
    zones.put("p1", a_host("worker-0", "10.20.0.3"))
    zones.drop("nobody")
    assert zones.version == before


@pytest.mark.parametrize(
    "record",
    [
        Record("a..atlas.internal", Type.A, "10.20.0.9"),
        Record(f"{'x' * 64}.atlas.internal", Type.A, "10.20.0.9"),
        Record(".".join(["x" * 60] * 4) + ".atlas.internal", Type.A, "10.20.0.9"),
        Record("head.other.internal", Type.A, "10.20.0.9"),
        Record("head.atlas.internal", Type.A, "10.20.0.256"),
        Record("head.atlas.internal", Type.A, "fd00::1"),
        Record("head.atlas.internal", Type.SRV, "0 5 65536 head.atlas.internal"),
        Record("head.atlas.internal", Type.SRV, "0 5 53"),
        Record("head.atlas.internal", Type.CNAME, "a..b"),
    ],
)
def test_a_record_that_can_not_be_is_refused_and_changes_nothing(record: Record) -> None:
    zones = some_zones()
    before = zones.records()
    with pytest.raises(ValueError):
        zones.put("p1", [record])
    assert zones.records() == before
