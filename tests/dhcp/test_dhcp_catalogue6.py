"""DHCPv6 options in files: names, numbers and types mean bytes, and what can't be is said with the remedy."""

from __future__ import annotations

import re

import pytest

from dhcp import catalogue6
from dhcp.catalogue6 import described, encode, find


@pytest.mark.parametrize(
    ("key", "value", "code", "packed"),
    [
        ("sntp-servers", "fd00::5", 31, bytes.fromhex("fd00") + bytes(13) + b"\5"),
        ("domain-search", ["a.b", "c."], 24, b"\1a\1b\0\1c\0"),
        ("bootfile-parameters", ["x", "yz"], 60, b"\0\1x\0\2yz"),
        ("ntp-servers", "a.b", 56, b"\0\3\0\5\1a\1b\0"),
        ("information-refresh-time", "1h", 32, b"\0\0\x0e\x10"),
        ("posix-timezone", "CET-1", 41, b"CET-1"),
        (65000, {"u8s": [1, 2]}, 65000, b"\1\2"),
        ("17", "00:01", 17, b"\0\1"),
    ],
)
def test_an_option_is_written_as_people_write_it(key: str | int, value: object, code: int, packed: bytes) -> None:
    found, option = find(key)
    assert (found, encode(option, value)) == (code, packed)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("ntp-server", "unknown DHCPv6 option 'ntp-server'; did you mean ntp-servers?"),
        ("zz", "unknown DHCPv6 option 'zz'; write one by its number and a type, as 224: {text: hello}"),
        (0, "there is no option 0; they are numbered 1 to 65535"),
        (70000, "there is no option 70000; they are numbered 1 to 65535"),
        (39, "DHCPv6 option 39 can't be set: the name follows from the workspace's"),
    ],
)
def test_an_option_that_can_not_be_set_is_refused_with_the_remedy(key: str | int, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        find(key)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sntp-servers", "10.0.0.1", "'10.0.0.1' is no IPv6 address; write one as fd00:20::5"),
        ("sntp-servers", [], "the list is empty; name at least one, or leave the option out"),
        ("nis-domain", "a..b", "is no domain name"),
        ("nis-domain", "\xe9.b", "in ASCII"),
        (250, "x", "its type is not known here; write one type and a value"),
        (250, {"octal": 1}, "read a mapping of octal; write one type and a value"),
        (250, {"hex": "00" * 1025}, "the value has 1025 bytes; an option may have 1024"),
    ],
)
def test_a_value_that_can_not_be_is_refused_with_the_remedy(key: str | int, value: object, said: str) -> None:
    _, option = find(key)
    with pytest.raises(ValueError, match=re.escape(said)):
        encode(option, value)


def test_every_option_has_a_type_a_name_and_a_number_of_its_own_and_may_be_set() -> None:
    assert len(catalogue6.BY_NAME) == len(catalogue6.BY_CODE) == len(catalogue6.OPTIONS)
    assert all(option.kind in catalogue6.KINDS for option in catalogue6.OPTIONS)
    assert not catalogue6.RESERVED.keys() & catalogue6.BY_CODE.keys()


def test_an_option_is_described_for_people() -> None:
    assert described(31, bytes(15) + b"\1") == ("DHCPv6 sntp-servers", "::1")
    assert described(32, b"\0\0\0\5") == ("DHCPv6 information-refresh-time", "5 s")
    assert described(41, b"CET") == ("DHCPv6 posix-timezone", "CET")
    assert described(999, b"\1\2") == ("DHCPv6 option 999", "01:02")
