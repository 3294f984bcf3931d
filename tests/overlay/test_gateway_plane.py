"""A gateway on a real host: what passes it, what never does, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from overlay_lab import NET, Lab, a_port, mac, port_id

from overlay.gateways import UPLINK, Gateway, GatewayLeg, uplink_device
from overlay.kernel import forwarding, namespaces, uplinks
from overlay.kernel.apply import DataPlane
from overlay.kernel.gateways import GatewayPlane, GatewayStatus
from overlay.kernel.netlink import Netlink
from overlay.mac import link_local
from overlay.state import HostState, Network
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("permitted")]

ID = "0123456789ab"
NAME = "dp1-lab-gw.wan"
WORLD4, WORLD6 = "203.0.113.1", "2001:db8:ffff::1"
LEG = GatewayLeg(port_id(99), mac(99), 1450, ("10.0.0.99/24", "fd00::63/64", f"{link_local(mac(99))}/64"))
GATEWAY = Gateway(ID, NAME, (LEG,), ("10.0.0.0/24", "fd00::/64"), ("192.0.2.1",))
SETTINGS = ("ipv4/conf/un1/forwarding", "ipv6/conf/un1/force_forwarding", "ipv6/conf/all/forwarding", "ipv4/ip_forward")


@dataclass
class Outside:
    """Host h1 with guest g10, the world beyond its device un1, and a place `lan` behind its device un2."""

    lab: Lab
    plane: DataPlane
    gateways: GatewayPlane

    def begin(self) -> GatewayStatus:
        status = self.gateways.converge({ID: GATEWAY})[ID]
        self.plane.converge(self.state)
        return status

    @property
    def state(self) -> HostState:
        ports = {port_id(10): a_port(10), port_id(99): a_port(99, router=True)}
        return HostState("192.0.2.1", {NET: Network(NET, vni=4711, mtu=1450, ports=ports)})

    def reaches_the_world(self) -> bool:
        return self.lab.pings("g10", WORLD4) and self.lab.pings("g10", WORLD6)

    def is_silent(self, source: str, target: str, *options: str) -> bool:
        """Whether nothing comes back within a time that is long on one machine."""
        return not self.lab.pings(source, target, "-W0.3", *options)

    def settings(self) -> dict[str, str]:
        def read() -> dict[str, str]:
            paths = {name: Path("/proc/sys/net") / name for name in SETTINGS}
            return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}

        return self.lab.inside("h1", read)

    def tables(self) -> set[str]:
        return set(self.lab.run("h1", "nft list tables").stdout.splitlines())

    def links(self) -> set[str]:
        return {line.split(": ")[1].partition("@")[0] for line in self.lab.run("h1", "ip -o link").stdout.splitlines()}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, permitted: None) -> Iterator[Outside]:
    lab = Lab(tmp_path_factory.mktemp("netns"))
    try:
        plane = lab.host(1)
        for name, device, four, six in (("world", "un1", "198.51.100", "2001:db8:1"), ("lan", "un2", "10.9.9", "fd99")):
            path = lab.namespace(name)
            lab.run("h1", f"ip link add {device} type veth peer name eth0 netns {path}")
            for where, link, end in (("h1", device, 1), (name, "eth0", 2)):
                lab.run(where, f"ip addr add {four}.{end}/24 dev {link}")
                lab.run(where, f"ip addr add {six}::{end}/64 dev {link} nodad")
                lab.run(where, f"ip link set {link} up")
            lab.run(name, f"ip route add default via {four}.1")
            lab.run(name, f"ip route add default via {six}::1")
        lab.run("h1", "ip route add default via 198.51.100.2")
        lab.run("h1", "ip route add default via 2001:db8:1::2")
        for address in (WORLD4, WORLD6):
            lab.run("world", f"ip addr add {address} dev lo")
        lab.guest(1, 10, mtu=1450)
        lab.run("g10", "ip route add default via 10.0.0.99")
        lab.run("g10", f"ip route add default via {link_local(mac(99))} dev eth0")
        gateways = GatewayPlane("dp1", host=lab.folder / "h1", directory=lab.folder)
        yield Outside(lab, plane, gateways)
        gateways.converge({})
        gateways.close()
    finally:
        lab.close()


@pytest.fixture
def begun(outside: Outside) -> Outside:
    assert outside.begin() == GatewayStatus()
    return outside


def test_a_guest_reaches_the_world_in_both_families(begun: Outside) -> None:
    assert eventually(begun.reaches_the_world)


def test_what_is_as_it_should_be_is_left_alone(begun: Outside) -> None:
    before = begun.lab.run("h1", "nft -a list ruleset").stdout, begun.links()
    inner = begun.lab.run(NAME, "nft -a list ruleset").stdout
    begun.gateways.converge({ID: GATEWAY})
    after = begun.lab.run("h1", "nft -a list ruleset").stdout, begun.links()
    assert [line.partition(" counter")[0] for line in before[0].splitlines()] == [
        line.partition(" counter")[0] for line in after[0].splitlines()
    ]
    assert before[1] == after[1]
    assert inner.count("handle") == begun.lab.run(NAME, "nft -a list ruleset").stdout.count("handle")


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("192.0.2.1", id="the-underlay"),
        pytest.param("198.51.100.1", id="the-hosts-own-address"),
        pytest.param("10.9.9.1", id="another-of-the-hosts-own"),
        pytest.param("169.254.169.254", id="metadata-of-a-cloud"),
        pytest.param("2001:db8:1::1", id="the-hosts-own-address6"),
    ],
)
def test_the_host_itself_is_out_of_reach(begun: Outside, address: str) -> None:
    assert begun.is_silent("g10", address)


def test_what_the_host_says_of_a_packet_comes_in_the_gateways_name(begun: Outside) -> None:
    lab = begun.lab
    for way in ("198.51.100.2", "2001:db8:1::2"):
        lab.run("h1", f"ip route change default via {way} dev un1 mtu lock 1300")
    try:
        for address, size, own in ((WORLD4, "1400", "10.0.0.99"), (WORLD6, "1380", "fd00::63")):
            said = lab.run("g10", f"ping -c2 -W0.3 -M do -s {size} {address}", check=False).stdout
            assert f"From {own}" in said and "1300" in said
    finally:
        for way in ("198.51.100.2", "2001:db8:1::2"):
            lab.run("h1", f"ip route change default via {way} dev un1")
        for family in ("-4", "-6"):
            lab.run("g10", f"ip {family} route flush cache")


def test_the_world_begins_nothing(begun: Outside) -> None:
    begun.lab.run("world", "ip route replace 10.0.0.0/24 via 198.51.100.1")
    begun.lab.run("h1", "ip route replace 10.0.0.0/24 dev " + uplink_device(ID))
    try:
        assert begun.is_silent("world", "10.0.0.10")
    finally:
        begun.lab.run("h1", "ip route del 10.0.0.0/24")


def test_the_host_becomes_a_router_for_nobody_else(begun: Outside) -> None:
    assert begun.settings()["ipv4/conf/un1/forwarding"] == "1"
    assert begun.is_silent("world", "10.9.9.2")
    assert begun.is_silent("world", "fd99::2")


def test_a_guest_with_anothers_address_is_not_translated(begun: Outside) -> None:
    begun.lab.run("g10", "ip addr add 10.77.0.1/32 dev lo")
    begun.lab.run("g10", "ip addr add fd77::1/128 dev lo nodad")
    assert begun.is_silent("g10", WORLD4, "-I", "10.77.0.1")
    assert begun.is_silent("g10", WORLD6, "-I", "fd77::1")


@pytest.mark.parametrize(
    ("where", "command"),
    [
        (NAME, "nft flush chain inet playground_gateway translation"),
        (NAME, f"ip link del {UPLINK}"),
        pytest.param(NAME, f"ip addr flush dev {UPLINK}", marks=pytest.mark.long),
        pytest.param(NAME, "ip route del default", marks=pytest.mark.long),
        pytest.param(NAME, "ip -6 route del default", marks=pytest.mark.long),
        (NAME, f"ip link del pg{port_id(99)}"),
        pytest.param(NAME, "sysctl -qw net.ipv4.ip_forward=0", marks=pytest.mark.long),
        ("h1", "nft delete table inet dp1_gateways"),
        pytest.param("h1", f"ip link set {uplink_device(ID)} down", marks=pytest.mark.long),
        ("h1", "sysctl -qw net.ipv4.conf.un1.forwarding=0"),
    ],
)
def test_what_somebody_broke_is_mended(begun: Outside, where: str, command: str) -> None:
    begun.lab.run(where, command)
    begun.begin()
    assert eventually(begun.reaches_the_world)


def test_a_foreign_table_that_drops_is_named_and_left_alone(begun: Outside) -> None:
    lab = begun.lab
    lab.run("h1", "nft add table ip strict")
    lab.run("h1", "nft add chain ip strict FORWARD { type filter hook forward priority 0; policy drop; }")
    try:
        [warning] = begun.begin().warnings
        assert "ip strict" in warning and "gw*" in warning
        lab.run("h1", 'nft add rule ip strict FORWARD iifname "gw*" accept')
        lab.run("h1", 'nft add rule ip strict FORWARD oifname "gw*" accept')
        assert begun.begin() == GatewayStatus()
        assert eventually(begun.reaches_the_world)
    finally:
        lab.run("h1", "nft delete table ip strict")


def test_a_host_without_a_way_out_says_so(begun: Outside) -> None:
    begun.lab.run("h1", "ip route del default")
    try:
        assert begun.begin().warnings == ("this host has no default route for IPv4",)
    finally:
        begun.lab.run("h1", "ip route add default via 198.51.100.2")


def test_nothing_is_left_and_nothing_of_others_goes(outside: Outside) -> None:
    lab = outside.lab
    outside.gateways.converge({})
    lab.run("h1", "nft add table inet foreign")
    before = outside.settings(), outside.tables(), outside.links()
    outside.begin()
    assert outside.settings() != before[0] and outside.tables() > before[1]
    outside.gateways.converge({})
    assert (outside.settings(), outside.tables(), outside.links()) == before
    assert not (lab.folder / NAME).exists()
    lab.run("h1", "nft delete table inet foreign")


def test_one_who_comes_after_a_crash_finds_what_was_opened(outside: Outside) -> None:
    outside.gateways.converge({})
    before = outside.settings()
    outside.begin()
    successor = GatewayPlane("dp1", host=outside.lab.folder / "h1", directory=outside.lab.folder)
    try:
        successor.converge({})
    finally:
        successor.close()
    assert outside.settings() == before


def test_forwarding_that_the_operator_chose_stays(outside: Outside) -> None:
    outside.gateways.converge({})
    outside.lab.run("h1", "sysctl -qw net.ipv4.conf.un1.forwarding=1")
    try:
        outside.begin()
        outside.gateways.converge({})
        assert outside.settings()["ipv4/conf/un1/forwarding"] == "1"
    finally:
        outside.lab.run("h1", "sysctl -qw net.ipv4.conf.un1.forwarding=0")


def test_a_host_that_becomes_a_router_by_somebodys_choice_is_one(outside: Outside) -> None:
    """As Docker does when it starts: what we held back for gateways alone is everybody's then."""
    lab = outside.lab
    outside.begin()
    assert outside.is_silent("world", "10.9.9.2")
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        lab.run("h1", f"sysctl -qw {setting}=1")
    try:
        outside.begin()
        assert eventually(lambda: lab.pings("world", "10.9.9.2") and lab.pings("world", "fd99::2"))
        assert eventually(outside.reaches_the_world)
        lab.run("h1", "sysctl -qw net.ipv4.conf.un1.forwarding=0")
        [warning] = outside.begin().warnings
        assert "un1" in warning and "turned net.ipv4.conf" in warning
        lab.run("h1", "sysctl -qw net.ipv4.conf.un1.forwarding=1")
        outside.gateways.converge({})
        assert lab.pings("world", "10.9.9.2")
    finally:
        for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            lab.run("h1", f"sysctl -qw {setting}=0")
    assert outside.settings()["ipv6/conf/un1/force_forwarding"] == "0"


def test_a_namespace_and_a_device_of_others_are_not_taken(outside: Outside) -> None:
    lab = outside.lab
    outside.gateways.converge({})
    lab.namespace(NAME)
    assert "not ours" in outside.begin().cause
    outside.gateways.converge({})
    assert (lab.folder / NAME).exists()
    lab.run("h1", f"umount {lab.folder / NAME}")
    (lab.folder / NAME).unlink()
    lab.run("h1", f"ip link add {uplink_device(ID)} type bridge")
    assert "not ours" in outside.begin().cause
    outside.gateways.converge({})
    assert uplink_device(ID) in outside.links()
    lab.run("h1", f"ip link del {uplink_device(ID)}")


class Broken(Exception):
    """Stands in for an agent that is killed."""


@pytest.mark.long
def test_a_making_or_a_removal_that_was_broken_off_anywhere_is_finished_by_whoever_comes_next(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of either is the last one of an agent; its successor, without any memory, makes all, or nothing."""
    left = [0]

    def mortal(step: Callable[..., Any]) -> Callable[..., Any]:
        def work(*words: Any, **more: Any) -> Any:
            if not left[0]:
                raise Broken
            left[0] -= 1
            return step(*words, **more)

        return work

    steps = ((Netlink, "do"), (uplinks, "run"), (forwarding, "open_"), (namespaces, "create"), (namespaces, "remove"))
    whole = {step: getattr(*step) for step in steps}
    outside.gateways.converge({})
    nothing = outside.settings(), outside.tables(), outside.links()

    def broken_off(after: int, wanted: dict[str, Gateway]) -> bool:
        """Whether a converge by a new agent was broken off after so many steps."""
        left[0] = after
        agent = GatewayPlane("dp1", host=outside.lab.folder / "h1", directory=outside.lab.folder)
        with monkeypatch.context() as patched:
            for owner, name in steps:
                patched.setattr(owner, name, mortal(whole[owner, name]))
            try:
                agent.converge(wanted)
                return False
            except Broken:
                return True
            finally:
                agent.close()

    made = 0
    while broken_off(made, {ID: GATEWAY}):
        made += 1
        if made % 2:  # both ways from every other place
            outside.begin()
            assert eventually(outside.reaches_the_world)
        assert not broken_off(1000, {})
        assert (outside.settings(), outside.tables(), outside.links()) == nothing
    removed = 0
    outside.begin()
    while broken_off(removed, {}):
        removed += 1
        outside.begin()
        assert eventually(outside.reaches_the_world)
    assert made > 15 and removed > 3
    assert (outside.settings(), outside.tables(), outside.links()) == nothing
