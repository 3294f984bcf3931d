"""What clients that boot over the network are told, by what they are; and who is told its name."""

from __future__ import annotations

import pytest
from dhcp_cases import OTHER, a_port, a_request, a_scope4

from dhcp.message import ZERO, Message, parse
from dhcp.options import Code, MessageType
from dhcp.render import Reply
from dhcp.scope import Boot
from dhcp.server import Bound

D = MessageType.DISCOVER
NINE = b"\x0a\x14\0\x09"
BOOT = Boot(
    "10.20.0.9", ((0, "undionly.kpxe"), (7, "ipxe.efi"), (16, "http://10.20.0.9/b.efi"), (-1, "any")), "http://x/i"
)


def told(options: dict[int, bytes] | None = None, boot: Boot | None = BOOT, **fields: object) -> Message:
    found = Bound(a_port(a_scope4(boot=boot))).answer(a_request(D, options, **fields))
    assert isinstance(found, Reply)
    read = parse(found.payload)
    assert isinstance(read, Message)
    return read


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ({}, b"any"),
        ({Code.ARCHITECTURE: b"\0\0"}, b"undionly.kpxe"),
        ({Code.ARCHITECTURE: b"\0\7"}, b"ipxe.efi"),
        ({Code.ARCHITECTURE: b"\0\x63"}, b"any"),
        ({Code.ARCHITECTURE: b"\0\x63\0\7"}, b"ipxe.efi"),
        ({Code.ARCHITECTURE: b"\0\7", Code.USER_CLASS: b"iPXE"}, b"http://x/i"),
        ({Code.ARCHITECTURE: b"\0\7", Code.USER_CLASS: b"\4iPXE"}, b"http://x/i"),
        ({Code.ARCHITECTURE: b"\0\7", Code.IPXE: b"\xb1\1\0"}, b"http://x/i"),
        ({Code.ARCHITECTURE: b"\0\7", Code.USER_CLASS: b"other"}, b"ipxe.efi"),
    ],
)
def test_each_kind_of_client_boots_its_own_file(said: dict[int, bytes], file: bytes) -> None:
    offer = told(said)
    assert (offer.file, offer.options[Code.BOOT_FILE], offer.siaddr) == (file, file, NINE)
    assert offer.options[Code.TFTP_SERVER] == b"10.20.0.9"


def test_a_client_that_asks_for_neither_finds_them_in_the_header() -> None:
    offer = told({Code.PARAMETER_LIST: b"\1\3"})
    assert (offer.file, offer.siaddr) == (b"any", NINE)
    assert not {Code.BOOT_FILE, Code.TFTP_SERVER} & offer.options.keys()


def test_a_name_that_is_too_long_for_the_header_goes_in_the_option_unasked() -> None:
    offer = told({Code.PARAMETER_LIST: b"\1"}, Boot("", ((-1, "x" * 128),)))
    assert (offer.file, offer.siaddr, offer.options[Code.BOOT_FILE]) == (b"", ZERO, b"x" * 128)


def test_a_client_of_http_boot_is_told_that_it_is_one() -> None:
    said = {Code.ARCHITECTURE: b"\0\x10", Code.VENDOR_CLASS: b"HTTPClient:Arch:00016", Code.PARAMETER_LIST: b"\1"}
    offer = told(said)
    assert offer.options[Code.VENDOR_CLASS] == b"HTTPClient"
    assert offer.file == b"http://10.20.0.9/b.efi"


def test_an_option_of_the_file_wins_over_the_boot_key() -> None:
    found = Bound(a_port(a_scope4(boot=BOOT, options=((66, b"tftp.example"),)))).answer(a_request(D))
    assert isinstance(found, Reply)
    read = parse(found.payload)
    assert isinstance(read, Message)
    assert (read.options[66], read.options[67]) == (b"tftp.example", b"any")


def test_nobody_boots_where_nothing_is_to_boot() -> None:
    offer = told({Code.ARCHITECTURE: b"\0\0"}, None)
    assert (offer.file, offer.siaddr) == (b"", ZERO)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (b"\1\0\0w0", b"\1\xff\xffw0.grid.atlas.internal"),
        (b"\0\0\0w0", b"\3\xff\xffw0.grid.atlas.internal"),
        (b"\5\0\0\2w0\0", b"\5\xff\xff\2w0\4grid\5atlas\x08internal\0"),
        (b"\4\0\0", b"\7\xff\xff\2w0\4grid\5atlas\x08internal\0"),
    ],
)
def test_a_client_that_says_its_name_is_told_the_ports(asked: bytes, expected: bytes) -> None:
    assert told({Code.CLIENT_FQDN: asked}).options[Code.CLIENT_FQDN] == expected


def test_a_client_that_does_not_say_its_name_is_not_told_in_that_option() -> None:
    assert Code.CLIENT_FQDN not in told({}).options


def test_what_a_relay_said_is_the_last_of_all_and_has_its_room() -> None:
    offer = Bound(a_port(a_scope4(search=tuple(f"{'x' * 60}{n}.internal" for n in range(9))))).answer(
        a_request(D, {Code.RELAY_AGENT: b"r" * 200, Code.CLIENT_ID: b"c" * 40}, giaddr=OTHER)
    )
    assert isinstance(offer, Reply)
    assert len(offer.payload) <= 548
    assert offer.payload.rstrip(b"\0").endswith(b"\x52\xc8" + b"r" * 200 + b"\xff")
