"""Addresses that a NIC may use beside its own: those that it is allowed, reached where they were announced last, and
those that its client forms itself. Policies judge them as the NIC's own; nobody forms another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from site_lab import CLIENT_PYTHON, Site

from tests.waiting import eventually

pytestmark = pytest.mark.system

SHARED4, SHARED6, LOCAL = "10.30.0.250", "fd00:30::250", "fe80::250"
ROUTER, ROUTER4, ROUTER6 = "00:00:5e:00:01:07", "10.30.0.252", "fd00:30::252"
NESTED = "10.99.0.7"
LAB = """\
name: lab
networks:
  grid: {subnets: [10.30.0.0/24, "fd00:30::/64"]}
workspaces:
  near:
    labels: {role: front}
    host: n1
    networks:
      - network: grid
        allow: &shared
          addresses: [10.30.0.250, "fd00:30::250", "fe80::250", 10.30.0.252, "fd00:30::252"]
          macs: ["00:00:5e:00:01:07"]
  beside: {labels: {role: front}, host: n1, networks: [{network: grid, allow: *shared}]}
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
  - {name: nested, subject: role=nest, ingress: [{from: role=friend, ports: icmp/echo}], on_deny: reject}
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


BECOME = f"""
cd /proc/sys/net
ip link add vr link eth0 address {ROUTER} type macvlan mode private
echo 1 > ipv4/conf/eth0/arp_ignore
echo 0 > ipv4/conf/all/rp_filter; echo 0 > ipv4/conf/vr/rp_filter
echo 1 > ipv6/conf/vr/addr_gen_mode
ip link set vr up
ip address add {ROUTER4}/32 dev vr
ip address add {ROUTER6}/128 dev vr nodad
"""
"""A virtual router as keepalived makes one with `use_vmac`: addresses on a device of their own, which has its MAC."""


def become(site: Site, workspace: str) -> None:
    """A workspace is the virtual router now, and says so."""
    site.within("lab", workspace, "sh", "-ec", BECOME)
    site.within("lab", workspace, *CLIENT_PYTHON, "-c", ANNOUNCE, "vr", ROUTER, ROUTER4, ROUTER6)


def routers(site: Site) -> list[str]:
    """Workspaces that are taken for the virtual router."""
    return [name.partition(".")[0] for name, port in site.ports("lab").items() if ROUTER in port["routers"]]


@pytest.fixture(scope="module")
def handed_over(lab: Site) -> Iterator[Site]:
    """The virtual router is `far`, and was two workspaces of another host before."""
    friends = ("friend-1", "friend-2")
    for workspace in ("near", "beside", "far"):
        become(lab, workspace)
        eventually(lambda workspace=workspace: routers(lab) == [workspace], what=f"{workspace} to be the router")
        for friend in friends:
            for address in (ROUTER4, ROUTER6):
                eventually(
                    lambda f=friend, a=address: pings(lab, f, a, "0.5"), what=f"{workspace}'s answer to {friend}"
                )
        if workspace != "far":
            lab.within("lab", workspace, "ip", "link", "del", "vr")
    yield lab
    lab.within("lab", "far", "ip", "link", "del", "vr")


@pytest.mark.parametrize("friend", ["friend-1", "friend-2"])
def test_a_virtual_router_is_reached_by_its_one_mac_wherever_it_goes(handed_over: Site, friend: str) -> None:
    """Those who knew it before have nothing to learn: its MAC is the same, and frames to it take another way."""
    known = handed_over.within("lab", friend, "ip", "neigh", "show", ROUTER4)
    assert ROUTER in known
    assert pings(handed_over, friend, ROUTER4) and pings(handed_over, friend, ROUTER6)


def test_a_virtual_router_is_judged_as_the_port_that_it_is_at(handed_over: Site) -> None:
    assert is_closed(handed_over, "stranger", ROUTER4) and is_closed(handed_over, "stranger", ROUTER6)
    ran = handed_over.cli("policy", "verify")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_who_may_not_be_the_virtual_router_takes_nothing_by_saying_so(handed_over: Site) -> None:
    for _ in range(5):
        handed_over.within("lab", "stranger", *CLIENT_PYTHON, "-c", ANNOUNCE, "eth0", ROUTER, ROUTER4, ROUTER6)
    assert pings(handed_over, "friend-1", ROUTER4) and pings(handed_over, "friend-2", ROUTER6)
    assert routers(handed_over) == ["far"]


REFUSED = """
import socket, sys
made = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
made.settimeout(3)
made.connect((sys.argv[1], 9))
try:
    made.send(b"?"), made.recv(1)
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("by", ["friend-1", "stranger"], ids=["from another host", "here"])
@pytest.mark.parametrize("version", [4, 6])
def test_who_is_refused_is_told_so(lab: Site, by: str, version: int) -> None:
    address = lab.address("lab", "nest.grid", version)
    assert "ConnectionRefusedError" in lab.within("lab", by, *CLIENT_PYTHON, "-c", REFUSED, address)


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


PREFIX = "fd00:31::"
HOME = """\
name: home
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
    said = site.within("home", workspace, "ip", "-j", "-6", "address", "show", "dev", "eth0")
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


def echoes(site: Site, workspace: str, address: str, by: str = "", seconds: str = "2") -> bool:
    source = ("-I", by) if by else ()
    said = site.within("home", workspace, "ping", "-6", "-c1", f"-W{seconds}", *source, address, check=False)
    return ", 0% packet loss" in said


def learned(site: Site, workspace: str) -> list[str]:
    return list(site.ports("home")[f"{workspace}.grid"]["learned"])


@pytest.fixture(scope="module")
def home(site: Site) -> Iterator[Site]:
    site.up(HOME)
    site.within("home", "shy", "sh", "-c", SHY)
    yield site


def test_a_client_that_hides_its_mac_is_reached_and_judged_by_the_addresses_that_it_forms(home: Site) -> None:
    stable, temporary, local = formed(home)
    assert ":ff:fe" not in stable + temporary + local
    eventually(lambda: {stable, temporary, local} <= {*learned(home, "shy")}, what="all that it formed")
    for friend in ("near", "far"):
        target = home.address("home", f"{friend}.grid", 6)
        for address in (stable, temporary):
            assert eventually(lambda address=address, t=target: echoes(home, "shy", t, by=address), what="an answer")
            assert echoes(home, friend, address)
        assert eventually(lambda friend=friend: echoes(home, friend, f"{local}%eth0"), what="a link-local answer")
    assert not any(echoes(home, "stranger", address, seconds="0.3") for address in (stable, temporary))


def test_they_go_along_when_their_workspace_moves_and_stay_through_restarts(home: Site) -> None:
    stable, temporary, local = formed(home)
    eventually(lambda: {stable, temporary, local} <= {*learned(home, "shy")}, what="all that it formed")
    assert home.move("shy", "n3")["state"] == "settled"
    try:
        for friend in ("near", "far"):
            assert echoes(home, friend, temporary) and echoes(home, friend, f"{local}%eth0")
        home.kill("agent-n3")
        assert echoes(home, "far", temporary)
        eventually(lambda: home.cli("policy", "verify").returncode == 0, what="an agent that finds all as it should be")
        assert {stable, temporary, local} <= {*learned(home, "shy")}
        assert echoes(home, "far", temporary)
    finally:
        home.move("shy", "n1")


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
    mac = site.ports("home")[f"{workspace}.grid"]["mac"]
    site.within("home", workspace, *CLIENT_PYTHON, "-c", DETECT, mac, *targets)


def test_nobody_forms_what_another_has_however_often_it_says_so(home: Site) -> None:
    stable, temporary, local = formed(home)
    near = home.ports("home")["near.grid"]
    near_local = next(one["local"] for one in addresses(home, "near") if one["scope"] == "link")
    taken = (stable, temporary, local, near["addresses"][0], near_local, f"{PREFIX}1", "fe80::1")
    detect(home, "stranger", *taken)
    eventually(lambda: "address-refused" in home.cli("events", "--json").stdout, what="that it was refused")
    detect(home, "stranger", f"{PREFIX}bad:1")
    eventually(lambda: learned(home, "stranger") == [f"{PREFIX}bad:1"], what="the one that is nobody's")
    assert echoes(home, "near", temporary) and echoes(home, "far", near["addresses"][0])


def test_a_flood_of_addresses_makes_few_of_them_the_ports(home: Site) -> None:
    detect(home, "stranger", *(f"{PREFIX}f:{number:x}" for number in range(1, 400)))
    eventually(lambda: len(learned(home, "stranger")) >= 2, what="some of them")
    assert len(learned(home, "stranger")) <= 9
    assert echoes(home, "near", home.address("home", "far.grid", 6))
