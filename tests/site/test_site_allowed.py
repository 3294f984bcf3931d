"""Addresses that a NIC may use beside its own: who has announced one last is reached there, under its policies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from site_lab import CLIENT_PYTHON, Site

from tests.waiting import eventually

pytestmark = pytest.mark.system

SHARED4, SHARED6, LOCAL = "10.30.0.250", "fd00:30::250", "fe80::250"
NESTED = "10.99.0.7"
LAB = """\
name: lab
networks:
  grid: {subnets: [10.30.0.0/24, "fd00:30::/64"]}
workspaces:
  near:
    labels: {role: front}
    host: n1
    networks: [{network: grid, allow: &shared {addresses: [10.30.0.250, "fd00:30::250", "fe80::250"]}}]
  far: {labels: {role: front}, host: n2, networks: [{network: grid, allow: *shared}]}
  nest:
    labels: {role: nest}
    host: n2
    networks: [{network: grid, allow: {addresses: [10.99.0.0/24], macs: ["52:54:00:99:00:01"], route: true}}]
  friend-1: {labels: {role: friend}, host: n1, networks: [grid]}
  friend-2: {labels: {role: friend}, host: n2, networks: [grid]}
  stranger: {host: n2, networks: [grid]}
policies:
  - {name: fronts, subject: role=front, ingress: [{from: role=friend, ports: icmp/echo}]}
  - {name: nested, subject: role=nest, ingress: [{from: role=friend, ports: icmp/echo}]}
"""

ANNOUNCE = """
import socket, struct, sys
device, mac, four, six = sys.argv[1:]
own = bytes.fromhex(mac.replace(":", ""))
four, six = socket.inet_aton(four), socket.inet_pton(socket.AF_INET6, six)
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((device, 0))
out.send(b"\\xff" * 6 + own + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 1) + own + four + bytes(6) + four)
groups = socket.inet_pton(socket.AF_INET6, "ff02::1")
told = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + six + b"\\x02\\x01" + own
summed = six + groups + struct.pack("!II", len(told), 58) + told
total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
told = told[:2] + struct.pack("!H", ~total & 0xFFFF) + told[4:]
header = struct.pack("!IHBB", 6 << 28, len(told), 58, 255) + six + groups
out.send(b"\\x33\\x33\\x00\\x00\\x00\\x01" + own + b"\\x86\\xdd" + header + told)
"""
"""A gratuitous ARP request (RFC 5227 §3) and an unsolicited neighbour advertisement (RFC 4861 §7.2.6)."""


def take(site: Site, workspace: str) -> None:
    """The shared addresses come to a workspace, which announces them."""
    for address in (f"{SHARED4}/32", f"{SHARED6}/128"):
        site.within("lab", workspace, "ip", "address", "add", address, "dev", "eth0", *("nodad",) * (":" in address))
    mac = site.ports("lab")[f"{workspace}.grid"]["mac"]
    site.within("lab", workspace, *CLIENT_PYTHON, "-c", ANNOUNCE, "eth0", mac, SHARED4, SHARED6)


def lose(site: Site, workspace: str) -> None:
    for address in (f"{SHARED4}/32", f"{SHARED6}/128"):
        site.within("lab", workspace, "ip", "address", "del", address, "dev", "eth0")


def pings(site: Site, workspace: str, address: str, seconds: str = "2") -> bool:
    said = site.within("lab", workspace, "ping", "-c1", f"-W{seconds}", address, check=False)
    return ", 0% packet loss" in said


def is_closed(site: Site, workspace: str, address: str) -> bool:
    return not pings(site, workspace, address, "0.3")


@pytest.fixture(scope="module")
def lab(site: Site) -> Iterator[Site]:
    site.up(LAB)
    yield site


@pytest.fixture
def held(lab: Site) -> Iterator[Site]:
    """The shared addresses are `near`'s."""
    take(lab, "near")
    yield lab
    for workspace in ("near", "far"):
        lab.within("lab", workspace, "ip", "address", "del", f"{SHARED4}/32", "dev", "eth0", check=False)
        lab.within("lab", workspace, "ip", "address", "del", f"{SHARED6}/128", "dev", "eth0", check=False)


@pytest.mark.parametrize("friend", ["friend-1", "friend-2"])
@pytest.mark.parametrize("address", [SHARED4, SHARED6])
def test_an_allowed_address_is_reached_from_any_host(held: Site, friend: str, address: str) -> None:
    assert pings(held, friend, address)


@pytest.mark.parametrize("address", [SHARED4, SHARED6])
def test_an_allowed_address_is_closed_as_its_port_is(held: Site, address: str) -> None:
    assert pings(held, "friend-2", address)
    assert is_closed(held, "stranger", address)


@pytest.mark.parametrize("address", [SHARED4, SHARED6])
def test_an_address_that_moves_is_found_where_it_was_announced(held: Site, address: str) -> None:
    friends = ("friend-1", "friend-2")
    assert all(pings(held, friend, address) for friend in friends)
    lose(held, "near")
    take(held, "far")
    assert all(pings(held, friend, address) for friend in friends)
    assert is_closed(held, "stranger", address)


def test_an_allowed_address_goes_along_when_its_workspace_moves(held: Site) -> None:
    try:
        assert held.move("near", "n3")["state"] == "settled"
        assert all(
            pings(held, friend, address) for friend in ("friend-1", "friend-2") for address in (SHARED4, SHARED6)
        )
        assert is_closed(held, "stranger", SHARED4)
    finally:
        held.move("near", "n1")


@pytest.mark.parametrize("holder", ["near", "far"])
def test_an_allowed_link_local_address_is_reached_where_it_is(lab: Site, holder: str) -> None:
    """With the detection of duplicates that a kernel does: that is no address which the client formed."""
    lab.within("lab", holder, "ip", "address", "add", f"{LOCAL}/64", "dev", "eth0")
    try:
        for friend in ("friend-1", "friend-2"):
            lab.within("lab", friend, "ip", "neigh", "flush", "dev", "eth0")
            eventually(lambda friend=friend: pings(lab, friend, f"{LOCAL}%eth0"), what="its answer")
        assert lab.ports("lab")[f"{holder}.grid"]["learned"] == []
        assert is_closed(lab, "stranger", f"{LOCAL}%eth0")
    finally:
        lab.within("lab", holder, "ip", "address", "del", f"{LOCAL}/64", "dev", "eth0")


def test_the_kernels_hold_what_is_meant_of_shared_addresses(held: Site) -> None:
    ran = held.cli("policy", "verify")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_an_address_that_nobody_allows_is_dropped(held: Site) -> None:
    for address in ("10.30.0.251/32", "fd00:30::251/128"):
        held.within("lab", "friend-2", "ip", "address", "add", address, "dev", "eth0", *("nodad",) * (":" in address))
    try:
        assert is_closed(held, "friend-1", "10.30.0.251")
        assert is_closed(held, "friend-1", "fd00:30::251")
    finally:
        for address in ("10.30.0.251/32", "fd00:30::251/128"):
            held.within("lab", "friend-2", "ip", "address", "del", address, "dev", "eth0")


def test_a_machine_nested_in_a_workspace_has_its_own_mac_and_address(lab: Site) -> None:
    """As behind a bridge of the workspace: frames to that MAC reach the port, its policy judges the address, and
    clients were told the way."""
    device = ("ip", "link", "add", "nested", "link", "eth0", "address", "52:54:00:99:00:01", "type", "macvlan")
    lab.within("lab", "nest", *device)
    lab.within("lab", "nest", "ip", "address", "add", f"{NESTED}/32", "dev", "nested")
    lab.within("lab", "nest", "ip", "link", "set", "nested", "up")
    lab.within("lab", "nest", "ip", "route", "add", "10.30.0.0/24", "dev", "nested", "src", NESTED, "metric", "1")
    hop = lab.address("lab", "nest.grid")
    for workspace in ("friend-1", "friend-2", "stranger"):
        assert f"10.99.0.0/24 via {hop} dev eth0" in lab.within("lab", workspace, "ip", "route")
    assert "via" not in lab.within("lab", "nest", "ip", "route")
    eventually(lambda: pings(lab, "friend-1", NESTED), what="the nested machine's answer from another host")
    assert pings(lab, "friend-2", NESTED)
    assert is_closed(lab, "stranger", NESTED)
    try:  # and its connections go along when the workspace moves
        assert lab.move("nest", "n3")["state"] == "settled"
        known = lab.on("n3", "conntrack", "-L", "-p", "icmp", dataplane=True).splitlines()
        assert any(f"dst={NESTED}" in line.split("src=")[1] and "mark=0 " not in line for line in known), known
        assert pings(lab, "friend-1", NESTED) and is_closed(lab, "stranger", NESTED)
    finally:
        lab.move("nest", "n2")
