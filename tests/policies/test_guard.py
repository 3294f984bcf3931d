"""Parts of the guard: what stands for a port and for a tunnel, and that what changes for one touches no other."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

import pytest
from filter_lab import Namespace
from hypothesis import given
from hypothesis import strategies as st

from overlay.state import LEG_MAC
from policies.compile.changes import as_text, difference
from policies.compile.tables import joined, whole
from policies.guard import rules
from policies.guard.parts import TABLE, judged, of_port, of_station, parts
from policies.guard.reason import Reason
from policies.guard.station import GuardedPort, GuardedTunnel, Station, broadcasts, link_local, outside

GOLDEN = Path(__file__).parent / "golden" / "guard.nft"
SUBNETS = ("10.0.0.0/24", "fd00::/64")
PLAIN = Station("02:00:00:00:00:01", ("10.0.0.1", "fd00::1"))
ALLOWED = Station(
    "02:00:00:00:00:02",
    ("10.0.0.2", "fd00::2"),
    link_local="fe80::cafe",
    allowed_addresses=("10.9.0.0/16", "10.0.0.100/32", "fd09::/64"),
    allowed_macs=("00:00:5e:00:01:07",),
)
GATEWAY = Station("02:00:00:00:00:03", ("10.0.0.3", "fd00::3"), owned=("10.0.0.0/16", "fd00::/48"))
PORTS = (GuardedPort("pg1", PLAIN, SUBNETS), GuardedPort("pg2", ALLOWED, SUBNETS))
TUNNEL = GuardedTunnel("vx1", (GATEWAY,), SUBNETS)


def keys(station: Station, name: str) -> set[str]:
    return {key.removeprefix('"d" . ') for key in of_station("d", station).elements.get(name, {})}


def test_the_rules_are_those_that_were_read_and_agreed_to(golden: Callable[[str, Path], None]) -> None:
    golden(whole({TABLE: parts(PORTS, [TUNNEL])}), GOLDEN)


@pytest.mark.system
def test_the_kernel_takes_them() -> None:
    space = Namespace()
    try:
        for device in ("pg1", "pg2", "vx1"):
            space.run(f"ip link add {device} type veth peer name x{device}")
        space.run("nft --check --file -", GOLDEN.read_text())
    finally:
        space.close()


def test_a_port_has_its_own_link_local_address_or_the_one_learned_and_no_second() -> None:
    learned = Station(PLAIN.mac, PLAIN.addresses, link_local="fe80::cafe")
    assert [str(address) for address in PLAIN.own()] == ["10.0.0.1", "fd00::1", "fe80::ff:fe00:1"]
    assert [str(address) for address in learned.own()] == ["10.0.0.1", "fd00::1", "fe80::cafe"]


def test_the_link_local_address_of_a_mac_is_that_of_rfc_4291() -> None:
    assert link_local("34:56:78:9a:bc:de") == "fe80::3656:78ff:fe9a:bcde"


def test_who_may_speak_from_two_macs_may_do_so_for_all_addresses_from_each() -> None:
    macs = {str(0x020000000002), str(0x00005E000107)}
    addresses = {"10.0.0.2"}
    assert keys(ALLOWED, "macs") == macs
    assert keys(ALLOWED, "pairs4") == {f"{mac} . {address}" for mac in macs for address in addresses}
    assert keys(ALLOWED, "ranges4") == {f"{mac} . {span}" for mac in macs for span in ("10.0.0.100", "10.9.0.0/16")}


def test_allowed_prefixes_that_touch_or_overlap_are_one_range() -> None:
    station = Station(PLAIN.mac, (), allowed_addresses=("10.0.0.0/25", "10.0.0.64/26", "10.0.0.128/25", "10.0.1.7/32"))
    assert [(str(first), str(last)) for first, last in station.ranges()] == [
        ("10.0.0.0", "10.0.0.255"),
        ("10.0.1.7", "10.0.1.7"),
    ]


NOT_WORLD = ("0.0.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "ff02::1")


@given(
    owned=st.lists(
        st.one_of(
            st.builds(
                lambda number, length: ipaddress.ip_network((number, length), strict=False),
                st.integers(0, 2**32 - 1),
                st.integers(1, 32),
            ),
            st.builds(
                lambda number, length: ipaddress.ip_network((0x20 << 120 | number, length), strict=False),
                st.integers(0, 2**120 - 1),
                st.integers(3, 128),
            ),
        ),
        max_size=4,
    ),
    asked=st.one_of(
        st.builds(ipaddress.IPv4Address, st.integers(0, 2**32 - 1)),
        st.builds(ipaddress.IPv6Address, st.integers(0x20 << 120, 0x21 << 120)),
        st.sampled_from([ipaddress.ip_address(text) for text in NOT_WORLD]),
    ),
)
def test_outside_is_all_that_is_passed_on_and_not_owned(owned: list, asked: ipaddress.IPv4Address) -> None:
    is_kept = asked.version == 4 and any(
        asked in ipaddress.ip_network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
    )
    is_passed_on = not is_kept if asked.version == 4 else asked in ipaddress.ip_network("2000::/3")
    is_owned = any(asked in prefix for prefix in owned if prefix.version == asked.version)
    found = [prefix for prefix in outside(owned) if prefix.version == asked.version and asked in prefix]
    assert len(found) == (1 if is_passed_on and not is_owned else 0)


def test_only_subnets_that_have_a_broadcast_address_name_one() -> None:
    assert broadcasts(("10.0.0.0/24", "10.1.0.0/31", "10.2.0.0/32", "fd00::/64")) == ["10.0.0.255"]


def test_the_service_legs_mac_is_that_which_the_overlay_gives_it() -> None:
    assert rules.SERVICE_MAC == LEG_MAC


def test_each_reason_has_its_counter_and_each_counter_a_rule() -> None:
    text = whole({TABLE: {key: judged(part) for key, part in parts(PORTS, [TUNNEL]).items()}})
    assert rules.SHARED.counters == {reason.counter for reason in Reason}
    for reason in Reason:
        assert f'counter name "{reason.counter}" drop' in text


def test_whatever_no_rule_passes_is_dropped_by_the_last_one_or_the_policy() -> None:
    table = joined(parts(PORTS, [TUNNEL]))
    for name, chain in table.chains.items():
        assert (
            "policy drop" in chain.hook
            if chain.hook
            else chain.rules[-1].endswith("drop") or chain.rules[-1].startswith(("goto", "reject"))
        ), name


def test_a_change_of_one_station_says_nothing_of_the_others() -> None:
    before = parts(PORTS, [TUNNEL])
    after = {**before, ("vx1", GATEWAY.mac): of_station("vx1", Station(GATEWAY.mac, ("10.0.0.33",)))}
    text = as_text(difference({TABLE: before}, {TABLE: after}))
    assert "10.0.0.33" in text and "10.0.0.1 " not in text and "chain" not in text and "rule" not in text


def test_equal_ports_have_equal_parts_and_every_field_counts() -> None:
    port = PORTS[1]
    assert of_port(port) == of_port(GuardedPort(port.device, port.station, port.subnets))
    station = port.station
    for other in (
        Station("02:00:00:00:00:09", station.addresses, station.link_local, *_allowed(station)),
        Station(station.mac, ("10.0.0.9",), station.link_local, *_allowed(station)),
        Station(station.mac, station.addresses, "", *_allowed(station)),
        Station(station.mac, station.addresses, station.link_local, (), station.allowed_macs),
        Station(station.mac, station.addresses, station.link_local, station.allowed_addresses, ()),
        Station(station.mac, station.addresses, station.link_local, *_allowed(station), owned=()),
    ):
        assert of_port(GuardedPort(port.device, other, port.subnets)) != of_port(port)


def _allowed(station: Station) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return station.allowed_addresses, station.allowed_macs


@pytest.mark.parametrize(
    "station",
    [
        Station("02:00:00:00:00", ()),
        Station("02-00-00-00-00-01", ()),
        Station(PLAIN.mac, ("10.0.0",)),
        Station(PLAIN.mac, (), allowed_addresses=("10.0.0.1/24",)),
        Station(PLAIN.mac, (), allowed_macs=("x",)),
    ],
)
def test_what_is_no_mac_address_or_prefix_is_refused(station: Station) -> None:
    with pytest.raises(ValueError):
        of_port(GuardedPort("pg1", station))


def test_the_docs_say_what_each_counter_counts() -> None:
    told = (Path(__file__).parents[2] / "docs" / "guard.md").read_text().splitlines()
    rows = [f"| `{reason.counter}` | {reason.value} |" for reason in Reason]
    first = told.index(rows[0])
    assert told[first : first + len(rows) + 1] == [*rows, ""]
