"""What a workspace's init makes of router advertisements: the kernel's messages, and what holds of them until when."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from namespace_lab import Host, a_guest, capture, run

from dhcp import ra
from dhcp.scope import PortScope, ScopeRa
from playground.workspaces.drivers.netns import NetnsDriver
from playground.workspaces.guest.routers import DNSSL, RDNSS, Routers, domains, read
from tests.waiting import eventually

GUEST = a_guest()
SCOPE = PortScope(
    mac=GUEST.nics[0].mac,
    server_mac="02:00:00:00:00:fe",
    v4=None,
    ra=ScopeRa(
        source="fe80::1",
        prefixes=(("fd00:20::/64", True),),
        mtu=1400,
        rdnss=("fd00:20::1", "fe80::5"),
        dnssl=("grid.lab.internal", "lab.internal"),
    ),
)


def said(option: bytes, index: int = 7, kind: int = 68) -> bytes:
    """As the kernel tells it: nlmsghdr, nduseroptmsg, the option."""
    body = struct.pack("=BBHiBBHI", socket.AF_INET6, 0, len(option), index, 134, 0, 0, 0) + option
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def servers_option(*addresses: str, lifetime: int = 1800) -> bytes:
    packed = b"".join(ipaddress.IPv6Address(a).packed for a in addresses)
    return struct.pack("!BBHI", RDNSS, 1 + len(packed) // 8, 0, lifetime) + packed


def domains_option(data: bytes, lifetime: int = 1800) -> bytes:
    padded = data + bytes(-len(data) % 8)
    return struct.pack("!BBHI", DNSSL, 1 + len(padded) // 8, 0, lifetime) + padded


def test_servers_and_domains_are_read_with_their_nic_and_lifetime() -> None:
    message = said(servers_option("fd00::1", "fd00::2")) + said(domains_option(b"\x04grid\x03lab\0\x03lab\0"), index=8)
    assert list(read(message)) == [(7, RDNSS, ["fd00::1", "fd00::2"], 1800), (8, DNSSL, ["grid.lab", "lab"], 1800)]
    assert list(read(said(servers_option("fd00::1"), kind=16))) == []


@pytest.mark.parametrize("data", [b"\x04a\nb!\0", b"\x05short", b"\x03a b\0", b"\x01-\0", b"\xff" * 300])
def test_what_is_no_host_name_never_gets_to_a_resolver(data: bytes) -> None:
    assert list(domains(data)) == []


@settings(max_examples=60)
@given(st.binary(max_size=120))
def test_no_bytes_of_a_router_upset_it(data: bytes) -> None:
    for message in (data, said(data), said(b"\x19\x03" + data), said(b"\x1f\x02" + data)):
        for _, _, values, _ in read(message):
            assert all(not set(value) & set(" \t\n;#") for value in values)


def test_what_was_advertised_holds_as_long_as_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    routers = Routers()
    heard: list[bytes] = []

    class Heard:
        def recv(self, size: int) -> bytes:
            if not heard:
                raise BlockingIOError
            return heard.pop(0)

    monkeypatch.setattr(routers, "_socket", Heard())
    heard += [said(servers_option("fd00::1", lifetime=100)), said(servers_option("fd00::2", lifetime=0xFFFFFFFF))]
    assert routers.changed(0.0) == {7: (("fd00::1", "fd00::2"), ())}
    assert routers.next_s() == 100
    heard.append(said(servers_option("fd00::1", lifetime=100)))
    assert routers.changed(50.0) == {}
    assert routers.changed(149.0) == {}
    assert routers.changed(150.0) == {7: (("fd00::2",), ())}
    heard.append(said(servers_option("fd00::2", lifetime=0)))
    assert routers.changed(151.0) == {7: ((), ())}


@pytest.fixture
def driver(hosts: tuple[Host, Host], folder: object) -> Iterator[NetnsDriver]:
    made = NetnsDriver("a", hosts[0].dataplane, folder=folder)  # type: ignore[arg-type]
    run(made.prepare(GUEST))
    yield made
    run(made.stop(GUEST.id, 0))


@pytest.mark.system
def test_a_guest_resolves_by_what_routers_advertise(driver: NetnsDriver, hosts: tuple[Host, Host]) -> None:
    run(driver.start(GUEST))

    def advertise(scope: PortScope) -> None:
        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((GUEST.nics[0].device, 0))
                raw.send(ra.advertisement(scope))

        hosts[0].within(send)

    def resolver() -> str:
        return capture(driver, GUEST.id, ["cat", "/etc/resolv.conf"])[1]

    wanted = "search grid.lab.internal lab.internal\nnameserver fd00:20::1\nnameserver fe80::5%eth0\n"

    def is_told() -> bool:
        advertise(SCOPE)
        return resolver() == wanted

    assert eventually(is_told), resolver()
    assert SCOPE.ra is not None
    advertise(replace(SCOPE, ra=replace(SCOPE.ra, rdnss=("fd00:20::7",))))
    assert eventually(lambda: "nameserver fd00:20::7" in resolver()), resolver()
