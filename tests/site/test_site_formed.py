"""Addresses that clients form themselves: temporary and opaque ones count as the port's, until they are gone; nobody
forms another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from site_lab import CLIENT_PYTHON, Site

from tests.waiting import eventually

pytestmark = pytest.mark.system

PREFIX = "fd00:31::"
LAB = """\
name: lab
networks:
  grid: {subnets: ["fd00:31::/64"]}
workspaces:
  shy: {labels: {role: shy}, host: n1, networks: [grid]}
  near: {labels: {role: friend}, host: n1, networks: [grid]}
  far: {labels: {role: friend}, host: n2, networks: [grid]}
  stranger: {host: n2, networks: [grid]}
policies:
  - {name: shy-hears-friends, subject: role=shy, ingress: [{from: role=friend}]}
  - {name: friends-hear-the-shy, subject: role=friend, ingress: [{from: role=shy}, {from: role=friend}]}
"""
SHY = """
cd /proc/sys/net/ipv6/conf/eth0
echo 2 > use_tempaddr
echo 2001:db8::42 > stable_secret
ip link set eth0 down; ip link set eth0 up
"""
"""Privacy as desktops have it: RFC 7217 and RFC 8981. `stable_secret` makes opaque identifiers, and no more of the
MAC's."""


def addresses(site: Site, workspace: str) -> list[dict[str, Any]]:
    said = site.within("lab", workspace, "ip", "-j", "-6", "address", "show", "dev", "eth0")
    return [one for link in json.loads(said) for one in link["addr_info"] if not one.get("tentative")]


def formed(site: Site) -> tuple[str, str, str]:
    """shy's stable, temporary and link-local address, once it has them."""

    def found() -> tuple[str, str, str] | None:
        held = addresses(site, "shy")
        stable = [one["local"] for one in held if one["scope"] == "global" and one.get("stable-privacy")]
        temporary = [one["local"] for one in held if one.get("temporary")]
        local = [one["local"] for one in held if one["scope"] == "link"]
        return (stable[-1], temporary[-1], local[-1]) if stable and temporary and local else None

    return eventually(found, what="addresses of all three kinds")


def pings(site: Site, workspace: str, address: str, by: str = "", seconds: str = "2") -> bool:
    source = ("-I", by) if by else ()
    said = site.within("lab", workspace, "ping", "-6", "-c1", f"-W{seconds}", *source, address, check=False)
    return ", 0% packet loss" in said


def learned(site: Site, workspace: str) -> list[str]:
    return list(site.ports("lab")[f"{workspace}.grid"]["learned"])


@pytest.fixture(scope="module")
def lab(site: Site) -> Iterator[Site]:
    site.up(LAB)
    site.within("lab", "shy", "sh", "-c", SHY)
    yield site


def test_a_client_that_hides_its_mac_is_reached_and_judged_by_the_addresses_that_it_forms(lab: Site) -> None:
    stable, temporary, local = formed(lab)
    assert ":ff:fe" not in stable + temporary + local
    eventually(lambda: {stable, temporary, local} <= {*learned(lab, "shy")}, what="all that it formed")
    for friend in ("near", "far"):
        target = lab.address("lab", f"{friend}.grid", 6)
        for address in (stable, temporary):
            assert eventually(lambda address=address, t=target: pings(lab, "shy", t, by=address), what="an answer")
            assert pings(lab, friend, address)
        assert eventually(lambda friend=friend: pings(lab, friend, f"{local}%eth0"), what="a link-local answer")
    assert not pings(lab, "stranger", stable, seconds="0.3") and not pings(lab, "stranger", temporary, seconds="0.3")


def test_they_go_along_when_their_workspace_moves_and_stay_through_restarts(lab: Site) -> None:
    stable, temporary, local = formed(lab)
    eventually(lambda: {stable, temporary, local} <= {*learned(lab, "shy")}, what="all that it formed")
    lab.kill("agent-n1")
    lab.await_hosts("n1")
    assert lab.move("shy", "n3")["state"] == "settled"
    try:
        for friend in ("near", "far"):
            assert pings(lab, friend, temporary) and pings(lab, friend, f"{local}%eth0")
        assert {stable, temporary, local} <= {*learned(lab, "shy")}
        assert lab.cli("policy", "verify").returncode == 0
    finally:
        lab.move("shy", "n1")


DETECT = """
import socket, struct, sys
mac, targets = bytes.fromhex(sys.argv[1].replace(":", "")), sys.argv[2:]
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
for text in targets:
    target = socket.inet_pton(socket.AF_INET6, text)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    asked = struct.pack("!BBHI", 135, 0, 0, 0) + target
    summed = bytes(16) + group + struct.pack("!II", len(asked), 58) + asked
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    asked = asked[:2] + struct.pack("!H", ~total & 0xFFFF) + asked[4:]
    header = struct.pack("!IHBB", 6 << 28, 24, 58, 255) + bytes(16) + group
    out.send(b"\\x33\\x33" + group[12:] + mac + b"\\x86\\xdd" + header + asked)
"""
"""Duplicate address detection for whatever addresses."""


def detect(site: Site, workspace: str, *targets: str) -> None:
    mac = site.ports("lab")[f"{workspace}.grid"]["mac"]
    site.within("lab", workspace, *CLIENT_PYTHON, "-c", DETECT, mac, *targets)


def test_nobody_forms_what_another_has_however_often_it_says_so(lab: Site) -> None:
    stable, temporary, local = formed(lab)
    near = lab.ports("lab")["near.grid"]
    near_local = next(one["local"] for one in addresses(lab, "near") if one["scope"] == "link")
    taken = (stable, temporary, local, near["addresses"][0], near_local, f"{PREFIX}1", "fe80::1")
    detect(lab, "stranger", *taken)
    eventually(lambda: "address-refused" in lab.cli("events", "--json").stdout, what="that it was refused")
    detect(lab, "stranger", f"{PREFIX}bad:1")
    eventually(lambda: learned(lab, "stranger") == [f"{PREFIX}bad:1"], what="the one that is nobody's")
    assert pings(lab, "near", temporary) and pings(lab, "far", near["addresses"][0])


def test_a_flood_of_addresses_makes_few_of_them_the_ports(lab: Site) -> None:
    detect(lab, "stranger", *(f"{PREFIX}f:{number:x}" for number in range(1, 400)))
    eventually(lambda: len(learned(lab, "stranger")) >= 2, what="some of them")
    assert len(learned(lab, "stranger")) <= 9
    assert pings(lab, "near", lab.address("lab", "far.grid", 6))
