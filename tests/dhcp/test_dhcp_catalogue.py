"""Options as people write them: by name, by number, with a type; and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import DHCPOptions

from dhcp import options
from dhcp.catalogue import BY_CODE, KINDS, MOST, NAMES_RESERVED, OPTIONS, RESERVED, encode, find


def written(key: str | int, value: Any) -> tuple[int, bytes]:
    code, option = find(key)
    return code, encode(option, value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("routers", "10.0.0.1", (3, b"\x0a\0\0\1")),
        ("ntp-servers", ["10.0.0.1", "10.0.0.2"], (42, b"\x0a\0\0\1\x0a\0\0\2")),
        (42, ["10.0.0.1"], (42, b"\x0a\0\0\1")),
        ("42", "10.0.0.1", (42, b"\x0a\0\0\1")),
        ("time-offset", -3600, (2, b"\xff\xff\xf1\xf0")),
        ("host-name", "w0", (12, b"w0")),
        ("ip-forwarding", False, (19, b"\0")),
        ("default-ip-ttl", 64, (23, b"\x40")),
        ("path-mtu-plateau-table", [576, 1500], (25, b"\x02\x40\x05\xdc")),
        ("static-routes", ["10.9.0.0 10.0.0.1"], (33, bytes.fromhex("0a0900000a000001"))),
        ("classless-static-routes", ["10.9.0.0/16 via 10.0.0.1"], (121, bytes.fromhex("100a090a000001"))),
        ("ms-classless-static-routes", "0.0.0.0/0 via 10.0.0.1", (249, bytes.fromhex("000a000001"))),
        ("vendor-specific", "01:02:ff", (43, b"\1\2\xff")),
        ("renewal-time", "30m", (58, b"\0\0\x07\x08")),
        ("arp-cache-timeout", 60, (35, b"\0\0\0\x3c")),
        ("domain-search", ["a.example", "b.example"], (119, b"\1a\7example\0\1b\xc0\x02")),
        ("captive-portal", "https://portal.example/", (114, b"https://portal.example/")),
        (224, {"text": "hello"}, (224, b"hello")),
        (224, {"u32": 7}, (224, b"\0\0\0\7")),
        (224, {"u8s": [1, 2]}, (224, b"\1\2")),
        (66, {"address": "10.0.0.9"}, (66, b"\x0a\0\0\x09")),
    ],
)
def test_an_option_is_these_bytes(key: str | int, value: Any, expected: tuple[int, bytes]) -> None:
    assert written(key, value) == expected


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ntp-server", "10.0.0.1", "unknown option 'ntp-server'; did you mean ntp-servers?"),
        ("nonsense-zzz", 1, "unknown option 'nonsense-zzz'; write one by its number and a type"),
        (256, 1, "there is no option 256"),
        (0, 1, "it is padding"),
        ("interface-mtu", 1400, "option interface-mtu can't be set: the MTU follows from the tunnels"),
        (53, 1, "option 53 can't be set: it says what a message is"),
        ("lease-time", 60, "write dhcp.lease_time"),
        (224, "hello", "its type is not known here"),
        (224, {"string": "x"}, "types: text, address"),
        (224, {}, "write one type and a value"),
        ("routers", "fd00::1", "'fd00::1' is no IPv4 address"),
        ("routers", [], "the list is empty"),
        ("routers", 7, "the number 7 is no IPv4 address"),
        ("ip-forwarding", "yes", "read 'yes'; write true or false"),
        ("default-ip-ttl", 256, "256 is out of range; it has 0 to 255"),
        ("default-ip-ttl", True, "read the truth value true; write a whole number"),
        ("time-offset", -(1 << 31) - 1, "out of range"),
        ("host-name", "", "at least one character"),
        ("host-name", "a\0b", "none of them NUL"),
        ("static-routes", "10.9.0.0", "write two IPv4 addresses"),
        ("classless-static-routes", "10.9.0.0/16 10.0.0.1", "write PREFIX via ADDRESS"),
        ("classless-static-routes", "10.9.0.1/16 via 10.0.0.1", "'10.9.0.1/16' is no prefix"),
        ("vendor-specific", "0102f", "write bytes as hex digits"),
        ("renewal-time", "soon", "write seconds"),
        ("domain-search", "a..b", "is no domain name"),
        ("domain-search", "wörker.example", "ASCII"),
        ("root-path", "x" * (MOST + 1), f"an option may have {MOST}"),
    ],
)
def test_what_can_not_be_is_refused_with_what_can(key: str | int, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        written(key, value)
    assert words in str(refused.value)


def test_each_name_and_number_is_there_once_and_of_a_known_type() -> None:
    assert len({option.name for option in OPTIONS}) == len({option.code for option in OPTIONS}) == len(OPTIONS)
    assert {option.kind for option in OPTIONS} <= KINDS.keys()
    assert not RESERVED.keys() & BY_CODE.keys()
    assert set(NAMES_RESERVED.values()) <= RESERVED.keys()


SCAPY = {3: "router", 6: "name_server", 42: "NTP_server", 15: "domain", 114: "captive-portal", 43: "vendor_specific"}


@pytest.mark.parametrize("code", SCAPY)
def test_scapy_calls_the_same_numbers_the_same(code: int) -> None:
    known = DHCPOptions[code]
    assert (known if isinstance(known, str) else known.name) == SCAPY[code]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KINDS, "x"]), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(OPTIONS).map(lambda option: option.name) | st.integers(-1, 300), anything)
def test_whatever_is_written_is_bytes_or_a_refusal(key: str | int, value: Any) -> None:
    try:
        code, packed = written(key, value)
    except ValueError:
        return
    assert options.decode(options.encode_one(code, packed)) == {code: packed}


@pytest.mark.parametrize(("kind", "item"), [("addresses", "10.0.0.1"), ("u16s", 7), ("domains", "a.b")])
def test_a_list_of_one_may_be_written_as_the_one(kind: str, item: Any) -> None:
    assert KINDS[kind][1](item) == KINDS[kind][1]([item])
