"""What rules log is heard: whose packet it was and under which words; what is too much is lost and counted."""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from flows_lab import path, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from policies.kernel.netlink import attribute, body, inside
from policies.kernel.nflog import LogSocket, parse_logged
from policies.model import Direction, Tier
from policies.verdicts import Judgement, LoggedPacket, log_prefix, read_prefix

RULES = """
table inet t {
  chain input {
    type filter hook input priority 0;
    ct direction original udp dport 5000 log prefix "v1 aa" group 1
    ct direction reply udp sport 5000 log prefix "v1 aa reply" group 1
  }
}
"""


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", "logged"], check=True)
    try:
        run("logged", "ip", "link", "set", "lo", "up")
        run("logged", "nft", "-f", "-", text=RULES)
        yield "logged"
    finally:
        subprocess.run(["ip", "netns", "delete", "logged"], check=True)


@pytest.fixture
def log(namespace: str) -> Iterator[LogSocket]:
    heard = LogSocket(path(namespace))
    try:
        yield heard
    finally:
        heard.close()


def datagrams(namespace: str, family: int = socket.AF_INET) -> socket.socket:
    return inside(path(namespace), lambda: socket.socket(family, socket.SOCK_DGRAM))


def read(log: LogSocket, count: int) -> list[LoggedPacket]:
    found: list[LoggedPacket] = []
    deadline = time.monotonic() + 10
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        if select.select([log], [], [], left)[0]:
            found += log.read(1.5)
    return found


@pytest.mark.system
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_logged_packet_says_which_way_its_flow_began(
    log: LogSocket, namespace: str, family: int, address: str
) -> None:
    with datagrams(namespace, family) as server, datagrams(namespace, family) as client:
        server.bind((address, 5000))
        client.bind((address, 6000))
        client.sendto(b"x", (address, 5000))
        server.sendto(b"y", (address, 6000))
        there, back = read(log, 2)
    assert there == back == LoggedPacket(1.5, "aa", 17, address, address, (6000, 5000))
    assert log.lost == 0


@pytest.mark.system
def test_who_does_not_read_loses_and_knows_how_much(log: LogSocket, namespace: str) -> None:
    """More than fits into the buffer, and none of it waits for the reader."""
    sent = 20_000
    with datagrams(namespace) as server, datagrams(namespace) as client:
        server.bind(("127.0.0.1", 5000))
        client.bind(("127.0.0.1", 6001))
        for _ in range(sent):
            client.sendto(b"x", ("127.0.0.1", 5000))
        heard = 0
        while found := log.read(0.0):
            heard += len(found)
        client.sendto(b"x", ("127.0.0.1", 5000))
        heard += len(read(log, 1))
    assert 0 < heard < sent
    assert heard + log.lost >= sent


@pytest.mark.system
def test_a_group_has_one_listener(log: LogSocket, namespace: str) -> None:
    with pytest.raises(OSError):
        LogSocket(path(namespace))


@pytest.mark.system
def test_a_listener_that_ends_leaves_its_group_to_the_next(namespace: str) -> None:
    for _ in range(2):
        LogSocket(path(namespace)).close()


def logged(packet: Packet | bytes) -> LoggedPacket:
    return parse_logged(body(2, attribute(10, b"v1 aa\0"), attribute(9, bytes(packet)[:128])), 2.5)


FOUR, SIX = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")


@pytest.mark.parametrize(
    ("packet", "protocol", "ports", "type_"),
    [
        (FOUR / TCP(sport=1, dport=2), 6, (1, 2), None),
        (SIX / UDP(sport=1, dport=2), 17, (1, 2), None),
        (IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x83\x03\x00\x00"]) / UDP(sport=1, dport=2), 17, (1, 2), None),
        (FOUR / ICMP(type=8), 1, None, 8),
        (SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2), 17, (1, 2), None),
        (SIX / IPv6ExtHdrFragment(nh=17, offset=0) / UDP(sport=1, dport=2), 17, (1, 2), None),
        (SIX / IPv6ExtHdrFragment(nh=17, offset=9) / Raw(b"x" * 20), 17, None, None),
        (IP(src="10.0.0.1", dst="10.0.0.2", frag=9, proto=17) / Raw(b"x" * 20), 17, None, None),
    ],
)
def test_a_packet_is_told_by_its_headers(
    packet: Packet, protocol: int, ports: tuple[int, int] | None, type_: int | None
) -> None:
    ends = ("10.0.0.1", "10.0.0.2") if IP in packet else ("fd00::1", "fd00::2")
    assert logged(packet) == LoggedPacket(2.5, "aa", protocol, *ends, ports, type_)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([FOUR / TCP(), SIX / UDP(), SIX / IPv6ExtHdrHopByHop() / UDP()]),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255))),
    st.integers(0, 100),
)
def test_no_packet_is_too_odd_to_be_told_of(packet: Packet, changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(bytes(packet))
    for at, value in changes:
        content[at % len(content)] = value
    assert logged(bytes(content[:length])).id == "aa"
    assert parse_logged(body(2) + bytes(content), 0.0).utc_s == 0.0


def test_an_id_is_equal_for_equal_judgements_only() -> None:
    one = Judgement("atlas", Tier.OWNER, ("p",), Direction.EGRESS, 1, True)
    other = Judgement("atlas", Tier.OWNER, ("p",), Direction.EGRESS, 2, True)
    assert one.id == Judgement("atlas", Tier.OWNER, ("p",), Direction.EGRESS, 1, True).id != other.id


def test_what_a_rule_logs_under_fits_the_kernel_and_names_it() -> None:
    id = Judgement("a" * 63, Tier.OWNER, ("p" * 63,), Direction.EGRESS, 1, True).id
    for is_reply in (False, True):
        assert len(log_prefix(id, is_reply)) <= 64
        assert read_prefix(log_prefix(id, is_reply)) == (id, is_reply)
    assert read_prefix("somebody else's") == ("", False)
