"""Options and messages: what is encoded is read back, what scapy says is what we say, and garbage never raises."""

from __future__ import annotations

import ipaddress

import pytest
from dhcp_cases import MAC_BYTES, a_request
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from dhcp import message, options
from dhcp.message import MINIMUM, Message, encode, parse
from dhcp.options import Code, MessageType
from dhcp.reason import Reason

few = settings(max_examples=60, deadline=None)
codes = st.integers(1, 254).filter(lambda code: code != Code.OVERLOAD)
fields = st.binary(min_size=4, max_size=4)
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
domain = st.lists(label, min_size=1, max_size=5).map(".".join)
messages = st.builds(
    Message,
    op=st.sampled_from((1, 2)),
    xid=fields,
    chaddr=st.binary(min_size=6, max_size=6),
    options=st.dictionaries(codes, st.binary(max_size=300), max_size=6),
    flags=st.integers(0, 0xFFFF),
    secs=st.integers(0, 0xFFFF),
    ciaddr=fields,
    yiaddr=fields,
    siaddr=fields,
    giaddr=fields,
    htype=st.integers(0, 255),
    hops=st.integers(0, 255),
    file=st.binary(max_size=128).filter(lambda name: b"\0" not in name),
)


@few
@given(messages)
def test_a_message_is_read_back_as_it_was_written(written: Message) -> None:
    assert parse(encode(written, limit=4000)) == written


@few
@given(messages, st.integers(MINIMUM, 700))
def test_an_encoded_message_keeps_to_its_limit_and_to_the_minimum_of_bootp(written: Message, limit: int) -> None:
    encoded = encode(written, limit)
    assert MINIMUM <= len(encoded) <= limit
    read = parse(encoded)
    assert isinstance(read, Message)
    assert read.options.items() <= written.options.items()


@few
@given(st.binary(max_size=600))
def test_no_bytes_make_the_parser_raise(payload: bytes) -> None:
    assert isinstance(parse(payload), Message | Reason)


@few
@given(messages, st.data())
def test_no_damage_to_a_message_makes_the_parser_raise(written: Message, data: st.DataObject) -> None:
    wire = bytearray(encode(written, limit=1400))
    for _ in range(data.draw(st.integers(0, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    read = parse(bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    assert isinstance(read, Message | Reason)


def test_a_short_payload_is_truncated() -> None:
    assert parse(b"\x01" * (message.FIXED - 1)) is Reason.TRUNCATED


def test_a_payload_without_the_cookie_is_not_dhcp() -> None:
    assert parse(bytes(MINIMUM)) is Reason.NOT_DHCP


@pytest.mark.parametrize("field", [b"\x35", b"\x35\x01", b"\x35\x04\x01", b"\x0c\xff" + bytes(254)])
def test_an_option_that_runs_past_its_field_is_malformed(field: bytes) -> None:
    assert options.decode(field) is Reason.MALFORMED_OPTIONS


def test_a_field_may_end_without_end() -> None:
    assert options.decode(b"\0\0\x35\x01\x01") == {53: b"\x01"}


def test_a_long_option_goes_in_pieces_and_comes_back_whole() -> None:
    value = bytes(range(256)) * 2
    encoded = options.encode_one(Code.DOMAIN_SEARCH, value)
    assert [encoded[0], encoded[1], encoded[257], encoded[258], encoded[514], encoded[515]] == [
        119,
        255,
        119,
        255,
        119,
        2,
    ]
    assert options.decode(encoded) == {Code.DOMAIN_SEARCH: value}


def test_what_does_not_fit_is_overloaded_into_file_then_sname() -> None:
    written = a_request(MessageType.INFORM, {200: b"a" * 290, 201: b"b" * 100, 202: b"c" * 50})
    encoded = encode(written, 548)
    assert len(encoded) <= 548
    assert encoded[108 : 108 + 2] == bytes((201, 100))
    assert encoded[44 : 44 + 2] == bytes((202, 50))
    assert parse(encoded) == written


def test_an_option_that_fits_nowhere_is_left_out_whole() -> None:
    encoded = encode(a_request(MessageType.INFORM, {200: b"a" * 400, 12: b"w0"}), 548)
    read = parse(encoded)
    assert isinstance(read, Message)
    assert read.options == {53: b"\x08", 12: b"w0"}


def test_pieces_of_an_option_are_joined_across_the_overloaded_fields_in_order() -> None:
    wire = bytearray(encode(a_request(MessageType.INFORM)))
    wire[240:252] = bytes((53, 1, 8, 52, 1, 3, 12, 1, ord("a"), 255, 0, 0))
    wire[108:112] = bytes((12, 1, ord("b"), 255))
    wire[44:48] = bytes((12, 1, ord("c"), 255))
    read = parse(bytes(wire))
    assert isinstance(read, Message)
    assert read.options == {53: b"\x08", 12: b"abc"}


@few
@given(st.lists(domain, min_size=1, max_size=5))
def test_a_search_list_is_read_back(domains: list[str]) -> None:
    assert options.decode_search(options.encode_search(domains)) == tuple(domains)


def test_a_search_list_names_a_common_ending_once() -> None:
    encoded = options.encode_search(("grid.atlas.internal", "atlas.internal"))
    assert encoded == b"\x04grid\x05atlas\x08internal\x00\xc0\x05"


@few
@given(st.binary(max_size=80))
def test_no_bytes_make_a_search_list_raise_or_loop(value: bytes) -> None:
    assert isinstance(options.decode_search(value), tuple | Reason)


@pytest.mark.parametrize("bad", ["a..b", "", "x" * 64, ".".join(["abcdefg"] * 40)])
def test_a_domain_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is no domain name"):
        options.encode_search((bad,))


prefixes = st.builds(
    lambda number, length: str(ipaddress.IPv4Network((number >> (32 - length) << (32 - length), length))),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
hops = st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number)))


@few
@given(st.lists(st.tuples(prefixes, hops), max_size=6))
def test_routes_are_read_back(routes: list[tuple[str, str]]) -> None:
    assert options.decode_routes(options.encode_routes(routes)) == tuple(routes)


def test_a_route_carries_only_the_significant_bytes_of_its_prefix() -> None:
    # The examples of RFC 3442's table.
    routes = (("0.0.0.0/0", "10.0.0.1"), ("10.0.0.0/8", "10.0.0.1"), ("10.17.0.0/16", "10.0.0.1"))
    hop = "0a000001"
    assert options.encode_routes(routes).hex() == f"00{hop}080a{hop}100a11{hop}"


@few
@given(st.binary(max_size=40))
def test_no_bytes_make_routes_raise(value: bytes) -> None:
    assert isinstance(options.decode_routes(value), tuple | Reason)


def test_scapy_reads_what_we_write() -> None:
    written = a_request(MessageType.REQUEST, {50: b"\x0a\0\0\x05", 12: b"w0", 57: b"\x02\x40"}, flags=0x8000, secs=7)
    read = BOOTP(encode(written))
    assert (read.op, read.htype, read.hlen, read.xid, read.secs, int(read.flags)) == (1, 1, 6, 0x12345678, 7, 0x8000)
    assert read.chaddr[:6] == MAC_BYTES
    assert read[DHCP].options[:5] == [
        ("message-type", 3),
        ("requested_addr", "10.0.0.5"),
        ("hostname", b"w0"),
        ("max_dhcp_size", 576),
        "end",
    ]


def test_we_read_what_scapy_writes() -> None:
    wire = BOOTP(op=1, xid=0x01020304, chaddr=MAC_BYTES, ciaddr="10.0.0.5", flags="B") / DHCP(
        options=[("message-type", "discover"), ("param_req_list", [1, 3, 6, 26]), ("hostname", "w0"), "end"]
    )
    assert parse(bytes(wire)) == Message(
        1, b"\1\2\3\4", MAC_BYTES, {53: b"\1", 55: b"\1\3\6\x1a", 12: b"w0"}, flags=0x8000, ciaddr=b"\x0a\0\0\5"
    )


def dotted(packed: bytes) -> str:
    return str(ipaddress.IPv4Address(packed))


plain_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
SPOKEN = {
    # code: how scapy calls it, a value, and what it takes that value for
    12: ("hostname", plain_text.map(str.encode), lambda value: value),
    15: ("domain", plain_text.map(str.encode), lambda value: value),
    26: ("interface-mtu", st.binary(min_size=2, max_size=2), lambda value: int.from_bytes(value, "big")),
    50: ("requested_addr", fields, dotted),
    51: ("lease_time", fields, lambda value: int.from_bytes(value, "big")),
    53: ("message-type", st.integers(1, 8).map(lambda kind: bytes((kind,))), lambda value: value[0]),
    54: ("server_id", fields, dotted),
    55: ("param_req_list", st.binary(min_size=1, max_size=20), list),
    57: ("max_dhcp_size", st.binary(min_size=2, max_size=2), lambda value: int.from_bytes(value, "big")),
}
spoken = st.builds(
    Message,
    op=st.sampled_from((1, 2)),
    xid=fields,
    chaddr=st.binary(min_size=6, max_size=6),
    options=st.fixed_dictionaries({}, optional={code: values for code, (_, values, _) in SPOKEN.items()}),
    flags=st.integers(0, 0xFFFF),
    secs=st.integers(0, 0xFFFF),
    ciaddr=fields,
    yiaddr=fields,
    siaddr=fields,
    giaddr=fields,
    htype=st.just(1),
    hops=st.integers(0, 255),
    file=st.just(b"") | plain_text.map(str.encode),
)


@few
@given(spoken)
def test_scapy_reads_all_that_we_write(written: Message) -> None:
    read = BOOTP(encode(written, 1400))
    assert (read.op, read.xid, read.secs, int(read.flags), read.hops) == (
        written.op,
        int.from_bytes(written.xid, "big"),
        written.secs,
        written.flags,
        written.hops,
    )
    assert (read.chaddr[:6], read.file.rstrip(b"\0")) == (written.chaddr, written.file)
    addresses = (read.ciaddr, read.yiaddr, read.siaddr, read.giaddr)
    assert addresses == tuple(map(dotted, (written.ciaddr, written.yiaddr, written.siaddr, written.giaddr)))
    told = [(option[0], option[1]) for option in read[DHCP].options if isinstance(option, tuple)]
    assert told == [(SPOKEN[code][0], SPOKEN[code][2](value)) for code, value in written.options.items()]


@few
@given(spoken)
def test_we_read_all_that_scapy_writes(written: Message) -> None:
    header = BOOTP(
        op=written.op,
        hops=written.hops,
        xid=int.from_bytes(written.xid, "big"),
        secs=written.secs,
        flags=written.flags,
        ciaddr=dotted(written.ciaddr),
        yiaddr=dotted(written.yiaddr),
        siaddr=dotted(written.siaddr),
        giaddr=dotted(written.giaddr),
        chaddr=written.chaddr,
        file=written.file,
    )
    told = [(SPOKEN[code][0], SPOKEN[code][2](value)) for code, value in written.options.items()]
    assert parse(bytes(header / DHCP(options=[*told, "end"]))) == written


@few
@given(spoken, st.data())
def test_what_is_damaged_is_read_alike_or_thrown_away(written: Message, data: st.DataObject) -> None:
    """scapy reads on where we stop: what we take, it takes for the same."""
    wire = bytearray(encode(written, 1400))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, 235) | st.integers(240, len(wire) - 1))] = data.draw(st.integers(0, 255))
    ours = parse(bytes(wire))
    if isinstance(ours, Message):
        theirs = BOOTP(bytes(wire))
        assert (theirs.op, theirs.xid, theirs.giaddr) == (ours.op, int.from_bytes(ours.xid, "big"), dotted(ours.giaddr))
