"""The way to the world and back, as guests have it: addresses, routes, path MTU, and a gateway whose host dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from site_lab import CLIENT_PYTHON, MakeSite, Site

from playground import sandbox
from playground.client import Refused
from tests.waiting import eventually

pytestmark = pytest.mark.system

WORLD4, WORLD6 = "203.0.113.1", "2001:db8:ffff::1"
LAB = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
  vault: {subnets: [10.30.0.0/24, "fd00:30::/64"]}
workspaces:
  one: {networks: [grid], host: n1}
  two: {networks: [vault, grid], host: n2}
  shut: {networks: [vault], host: n3}
"""
WAN = "gateways: {wan: {kind: nat, networks: [grid], host: n1}}\n"

ASK = """
import json, socket, sys
kind, address, port, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
channel = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
channel.settimeout(2 if kind == "tcp" else 0.4)
channel.connect((address, port))
if kind == "tcp":
    told, heard = bytes(range(256)) * (size // 256), b""
    channel.sendall(told[:1])
    channel.settimeout(10)
    import threading
    threading.Thread(target=channel.sendall, args=(told[1:],)).start()
    while len(heard) < len(told) and (more := channel.recv(1 << 16)):
        heard += more
    print(json.dumps(heard == told))
else:
    for attempt in range(5):  # the first answers may not fit: then the other end learns the path's MTU
        channel.send(b"size %d\\n" % size)
        try:
            print(json.dumps(len(channel.recv(65536))))
            break
        except TimeoutError:
            continue
    else:
        print("0")
"""


def ask(site: Site, workspace: str, kind: str, address: str, size: int = 4096, port: int = 7) -> Any:
    """TCP: whether so many bytes come back as they were sent. UDP: the size of the answer that was asked for."""
    words = (*CLIENT_PYTHON, "-c", ASK, kind, address, str(port), str(size))
    return json.loads(site.within("lab", workspace, *words))


def pings(site: Site, workspace: str, address: str, *options: str, playground: str = "lab") -> bool:
    words = ("ping", "-c1", "-W1", *options, address)
    return ", 0% packet loss" in site.within(playground, workspace, *words, check=False)


def reaches_the_world(site: Site, workspace: str) -> bool:
    return all(pings(site, workspace, address) for address in (WORLD4, WORLD6))


def gateway(site: Site) -> dict[str, Any]:
    [one] = site.client.get("status")["playgrounds"][0]["gateways"]
    return dict(one)


@pytest.fixture(scope="module")
def lab(site: Site) -> Iterator[Site]:
    site.up(LAB + WAN)
    # an address that was just formed is tentative until nobody has answered for it (RFC 4862 §5.4)
    eventually(lambda: reaches_the_world(site, "one") and reaches_the_world(site, "two"), what="the world")
    yield site


@pytest.mark.parametrize("workspace", ["one", "two"])
def test_the_world_answers_in_both_families(lab: Site, workspace: str) -> None:
    assert reaches_the_world(lab, workspace)


@pytest.mark.parametrize("address", [WORLD4, WORLD6])
def test_streams_and_datagrams_pass_on_any_port(lab: Site, address: str) -> None:
    assert ask(lab, "two", "tcp", address, 1 << 20, port=443) is True
    assert ask(lab, "one", "udp", address, 100, port=53) == 100


def test_a_workspace_without_a_gateway_has_no_way_out(lab: Site) -> None:
    assert lab.within("lab", "shut", "ip", "route", "show", "default") == ""
    assert not pings(lab, "shut", WORLD4)


def test_a_workspace_on_two_networks_has_one_default_route(lab: Site) -> None:
    four = lab.within("lab", "two", "ip", "route", "show", "default")
    six = lab.within("lab", "two", "ip", "-6", "route", "show", "default")
    assert four.count("default") == 1 == six.count("default")
    assert "dev eth1" in four and "dev eth1" in six


@pytest.mark.parametrize("address", ["192.0.2.11", "192.0.2.13", "198.51.100.11", "10.30.0.1", "169.254.169.254"])
def test_hosts_and_closed_networks_are_out_of_reach(lab: Site, address: str) -> None:
    assert not pings(lab, "one", address)


def test_a_packet_that_does_not_fit_is_answered_on_both_ways(lab: Site) -> None:
    mtu = lab.client.get("status")["playgrounds"][0]["networks"][0]["mtu"]
    assert pings(lab, "two", WORLD4, "-M", "do", "-s", str(mtu - 28))
    assert pings(lab, "two", WORLD6, "-M", "do", "-s", str(mtu - 48))
    # 1472 and 1452 bytes fit the world's link and not the overlay: the world is told, and sends them in pieces
    assert ask(lab, "two", "udp", WORLD4, 1472) == 1472
    assert ask(lab, "two", "udp", WORLD6, 1452) == 1452


def test_a_narrow_link_beyond_the_host_is_told_to_the_guest(lab: Site) -> None:
    ways = ("198.51.100.1", "2001:db8:fffe::1")
    for way in ways:
        lab.on("n1", "ip", "route", "change", "default", "via", way, "dev", "eth1", "mtu", "lock", "1300")
    try:
        for address, header in ((WORLD4, 28), (WORLD6, 48)):
            assert not pings(lab, "one", address, "-M", "do", "-s", "1400")
            assert pings(lab, "one", address, "-M", "do", "-s", str(1300 - header))
            assert ask(lab, "one", "tcp", address, 1 << 18) is True
    finally:
        for way in ways:
            lab.on("n1", "ip", "route", "change", "default", "via", way, "dev", "eth1")
        for family in ("-4", "-6"):
            lab.within("lab", "one", "ip", family, "route", "flush", "cache")


def test_ports_are_workspaces_only_and_status_has_the_gateway(lab: Site) -> None:
    assert all(not name.startswith("@") for name in lab.ports())
    assert (gateway(lab)["state"], gateway(lab)["host"], gateway(lab)["networks"]) == ("running", "n1", ["grid"])


@pytest.mark.parametrize(("path", "words"), [("migrate", {"host": "n2", "measure": False}), ("stop", {})])
def test_a_gateway_is_no_workspace_to_be_moved_or_stopped(lab: Site, path: str, words: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="is a gateway"):
        lab.client.post(path, {"workspace": "lab/@wan", **words})


def test_the_model_holds_beside_a_gateway(lab: Site) -> None:
    lab.assert_reachable("lab")


def test_a_gateway_that_comes_and_goes_is_told_to_guests_that_run(lab: Site) -> None:
    pids = lab.pids("lab")
    lab.up(LAB)
    eventually(lambda: not lab.within("lab", "one", "ip", "-6", "route", "show", "default"), what="no route for IPv6")
    eventually(lambda: not lab.within("lab", "one", "ip", "route", "show", "default"), what="no route for IPv4")
    assert lab.on("n1", "ls", "/run/netns").split() == ["playground", "playground-lab"]
    assert "gateways" not in lab.on("n1", "nft", "list", "tables")
    assert not [line for line in lab.on("n1", "ip", "-o", "link").splitlines() if ": gw" in line]
    lab.up(LAB + WAN)
    eventually(lambda: reaches_the_world(lab, "one"), what="the world again")
    assert lab.pids("lab") == pids


def test_a_gateway_follows_its_host_line(lab: Site) -> None:
    lab.up(LAB + WAN.replace("n1", "n3"))
    eventually(lambda: gateway(lab)["host"] == "n3" and gateway(lab)["state"] == "running", what="the gateway on n3")
    eventually(lambda: reaches_the_world(lab, "two"), what="the world by n3")
    eventually(lambda: "gw." not in lab.on("n1", "ls", "/run/netns"), what="nothing on n1")
    lab.up(LAB + WAN)
    eventually(lambda: gateway(lab)["host"] == "n1" and reaches_the_world(lab, "two"), what="the gateway on n1")


@pytest.mark.long
def test_an_agent_that_dies_takes_no_packet_along(lab: Site) -> None:
    before = gateway(lab)["generation"]
    lab.on("n1", "kill", "-STOP", str(lab.program("agent-n1")["pid"]))
    try:
        assert reaches_the_world(lab, "two")
    finally:
        lab.on("n1", "kill", "-CONT", str(lab.program("agent-n1")["pid"]))
    lab.kill("agent-n1")
    assert reaches_the_world(lab, "two")
    assert gateway(lab)["generation"] == before


POLICIES = """\
policies:
  - {name: part-of-the-world, subject: one, egress: [{to: 203.0.113.128/25}, {to: "2001:db8:ffff::2/128"}]}
  - {name: one-port-of-it, subject: two, egress: [{to: "@world", ports: [tcp/443, icmp]}]}
"""
CONNECT = """
import json, socket, sys
found = []
for address, port in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as channel:
        channel.settimeout(0.4)
        try:
            channel.connect((address, port))
            found.append([address, port])
        except TimeoutError:
            pass
print(json.dumps(found))
"""


def test_policies_tell_parts_of_the_world_and_its_ports_apart(lab: Site) -> None:
    lab.up(LAB + WAN + POLICIES)
    doors = [[address, port] for address in (WORLD4, "203.0.113.129", WORLD6, "2001:db8:ffff::2") for port in (80, 443)]
    words = (*CLIENT_PYTHON, "-c", CONNECT, json.dumps(doors))
    part = [door for door in doors if door[0] in ("203.0.113.129", "2001:db8:ffff::2")]
    try:
        assert json.loads(lab.within("lab", "one", *words)) == part
        assert json.loads(lab.within("lab", "two", *words)) == [door for door in doors if door[1] == 443]
        lab.assert_reachable("lab")
    finally:
        lab.up(LAB + WAN)


ONE_FAMILY = """\
name: {name}
networks:
  grid: {{subnets: [{subnet}]}}
gateways: {{wan: {{kind: nat, networks: [grid], host: n1}}}}
workspaces:
  w: {{networks: [grid], host: {host}}}
"""


@pytest.mark.long
def test_equal_subnets_and_single_families_share_a_host_over_an_ipv6_underlay(a_site: MakeSite) -> None:
    """Two playgrounds with one subnet, and two with one family each, all with their gateways on one host."""
    site = a_site("south", 2, underlay="ipv6")
    for name, subnet in (("red", "10.9.0.0/24"), ("blue", "10.9.0.0/24"), ("six", "fd09::/64")):
        site.up(ONE_FAMILY.format(name=name, subnet=subnet, host="n1" if name == "red" else "n2"))
    for name, address in (("red", WORLD4), ("blue", WORLD4), ("six", WORLD6)):
        eventually(lambda n=name, a=address: pings(site, "w", a, playground=n), what=f"the world of {name}")
    assert site.address("red", "w.grid") == site.address("blue", "w.grid")
    assert not pings(site, "w", "2001:db8::11", playground="six")  # the underlay
    assert site.on("n1", "ls", "/run/netns").count("-gw.wan") == 3
    site.down("red")
    assert pings(site, "w", WORLD4, playground="blue")
    for name in ("blue", "six"):
        site.down(name)
    assert "gateways" not in site.on("n1", "nft", "list", "tables")


@pytest.mark.long
def test_a_gateway_whose_host_dies_is_handed_over_and_stays_there(a_site: MakeSite) -> None:
    site = a_site("west", 3)
    site.up(LAB.replace(", host: n1", ", host: n2") + WAN.replace(", host: n1", ""))
    first = gateway(site)
    eventually(lambda: reaches_the_world(site, "one"), what="the world")
    routes = [site.within("lab", "one", "ip", family, "route", "show", "default") for family in ("-4", "-6")]
    assert first["host"] == "n1"  # where fewest are, so that the host that dies is not the asker's
    sandbox.ask(site.info, "kill-host", host=first["host"])
    eventually(lambda: gateway(site)["host"] != first["host"], 30, "another host")
    eventually(lambda: reaches_the_world(site, "one"), 10, "the world again")
    second = gateway(site)
    assert second["generation"] > first["generation"]
    now = [site.within("lab", "one", "ip", family, "route", "show", "default") for family in ("-4", "-6")]
    assert [line.partition(" expires")[0] for line in now] == [line.partition(" expires")[0] for line in routes]
    [said] = [event for event in site.client.get("events", {"after": 0}) if event["kind"] == "gateway-moved"]
    assert "broken" in said["text"] and first["host"] in said["text"]
    sandbox.ask(site.info, "start-host", host=first["host"])
    site.await_hosts()
    eventually(lambda: "gw." not in site.on(first["host"], "ls", "/run/netns"), what="nothing of it where it was")
    assert gateway(site) == second
    assert reaches_the_world(site, "one")
    site.down("lab")
    for host in ("n1", "n2", "n3"):
        assert site.on(host, "ls", "/run/netns").split() in (["playground"], [])
        assert not [line for line in site.on(host, "ip", "-o", "link").splitlines() if ": gw" in line]
        assert "gateways" not in site.on(host, "nft", "list", "tables")
