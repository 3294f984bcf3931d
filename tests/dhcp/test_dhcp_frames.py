"""Frames and the kernel's filter, against scapy and against the parsers."""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from dhcp import frame
from dhcp.io.sockets import attach_filter

ONE, TWO = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
few = settings(max_examples=60, deadline=None)


def dumb_checksum(data: bytes) -> int:
    """RFC 1071 as written."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@few
@given(st.binary(max_size=64) | st.sampled_from([b"", bytes(8), b"\xff\xff", b"\xff" * 8, b"\xff\xfe\0\1"]))
def test_the_checksum_is_the_one_of_rfc_1071(data: bytes) -> None:
    assert frame.checksum(data) == dumb_checksum(data)


@few
@given(st.binary(max_size=400), st.binary(min_size=8, max_size=8))
def test_scapy_finds_the_same_frame_and_checksums(payload: bytes, addresses: bytes) -> None:
    source, destination = addresses[:4], addresses[4:]
    built = frame.udp4(TWO, ONE, source, destination, (67, 68), payload)
    theirs = (
        Ether(dst=TWO, src=ONE, type=0x0800)
        / IP(src=str(ipaddress.IPv4Address(source)), dst=str(ipaddress.IPv4Address(destination)), id=0, flags=0, ttl=64)
        / UDP(sport=67, dport=68)
        / Raw(payload)
    )
    assert built == bytes(theirs)
    assert frame.parse_udp4(built) == frame.Datagram(ONE, source, destination, 67, 68, payload)


def test_a_udp_checksum_of_zero_goes_as_all_ones() -> None:
    for number in range(0x10000):
        built = frame.udp4(TWO, ONE, bytes(4), bytes(4), (67, 68), number.to_bytes(2, "big"))
        if built[40:42] == b"\xff\xff":
            return
        assert built[40:42] != b"\0\0"
    pytest.fail("no payload had the checksum 0")


@few
@given(st.binary(max_size=120))
def test_no_bytes_make_the_frame_parsers_raise(data: bytes) -> None:
    frame.parse_udp4(data)
    frame.parse_icmp6(data)


@few
@given(st.binary(max_size=40), st.data())
def test_no_damage_to_a_frame_makes_the_parsers_raise(payload: bytes, data: st.DataObject) -> None:
    wire = bytearray(frame.udp4(TWO, ONE, bytes(4), bytes(4), (68, 67), payload))
    wire[data.draw(st.integers(12, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    frame.parse_udp4(cut)
    frame.parse_icmp6(cut)


@pytest.mark.parametrize("bad", ["", "02:00:00:00:00", "020000000001", "02:00:00:00:00:0g"])
def test_a_mac_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        frame.mac(bad)


@pytest.fixture
def filtered() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets; the second one hears the first through the filter, as a packet socket hears frames."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    attach_filter(there)
    there.setblocking(False)
    with here, there:
        yield here, there


def passes(pair: tuple[socket.socket, socket.socket], data: bytes) -> bool:
    here, there = pair
    try:
        here.send(data)
        return there.recv(4096) == data
    except (BlockingIOError, PermissionError):
        return False


V4, V6 = Ether(dst="01:00:5e:00:00:12", src="00:00:5e:00:01:07"), Ether(src="00:00:5e:00:02:07")
E4, E6 = Ether(dst="ff:ff:ff:ff:ff:ff", src=ONE), Ether(dst="33:33:00:00:00:02", src=ONE)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (E4 / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67), True),
        (E4 / IP(dst="10.0.0.1", options=b"\x94\x04\0\0") / UDP(sport=68, dport=67), True),
        (E4 / IP(dst="10.0.0.1", flags="DF") / UDP(sport=68, dport=67), True),
        (E4 / IP(dst="10.0.0.1", frag=3) / UDP(sport=68, dport=67), False),
        (E4 / IP(dst="10.0.0.1") / UDP(sport=67, dport=68), False),
        (E4 / IP(dst="10.0.0.1") / UDP(sport=68, dport=53), False),
        (E4 / IP(dst="10.0.0.1") / TCP(dport=67), False),
        (E4 / IP(dst="10.0.0.1") / ICMP(), False),
        (E4 / ARP(), False),
        (V4 / ARP(), True),
        (V4 / IP(dst="224.0.0.18", proto=112) / Raw(bytes(20)), True),
        (V4 / IP(dst="10.0.0.1") / TCP(dport=80), False),
        (V4 / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67), True),
        (V6 / IPv6(dst="ff02::12", nh=112) / Raw(bytes(20)), True),
        (V6 / IPv6(dst="ff02::1") / ICMPv6ND_NA(tgt="fd00::9"), True),
        (V6 / IPv6(dst="fd00::1") / ICMPv6EchoRequest(), False),
        (Ether(src="00:00:5e:00:03:07") / ARP(), False),
        (E4 / ARP(op=2), True),
        (E4 / Dot1Q(vlan=7) / IP(dst="10.0.0.1") / UDP(dport=67), False),
        (E6 / IPv6(dst="ff02::2", hlim=255) / ICMPv6ND_RS(), True),
        (E6 / IPv6(src="fe80::2", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1"), False),
        (E6 / IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00::1"), True),
        (E6 / IPv6(src="fd00::1", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"), True),
        (E6 / IPv6(src="fd00::1", dst="fd00::2", hlim=255) / ICMPv6ND_NA(tgt="fd00::1"), False),
        (E6 / IPv6(dst="ff02::2") / ICMPv6EchoRequest(), False),
        (E6 / IPv6(dst="ff02::2") / UDP(dport=67), False),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else str(value),
)
def test_the_kernel_lets_only_client_messages_through(
    filtered: tuple[socket.socket, socket.socket], packet: Packet, expected: bool
) -> None:
    assert passes(filtered, bytes(packet)) is expected


def test_what_the_kernel_drops_no_parser_would_have_taken(filtered: tuple[socket.socket, socket.socket]) -> None:
    draw = random.Random(7)
    base = bytes(E4 / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(bytes(16)))
    for _ in range(500):
        wire = bytearray(base)
        for _ in range(draw.randrange(3)):
            wire[draw.randrange(12, len(wire))] = draw.randrange(256)
        if not passes(filtered, bytes(wire)):
            datagram = frame.parse_udp4(bytes(wire))
            assert datagram is None or datagram.destination_port != 67
