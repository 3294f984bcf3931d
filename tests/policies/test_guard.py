"""The guard: no address delivery crosses a bridge, everything else does, and a packet socket at the port sees all."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from policies import guard
from policies.kernel import nft
from policies.kernel.watch import GuardWatch

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.layers.dhcp import BOOTP, DHCP  # noqa: E402
from scapy.layers.dhcp6 import DHCP6_Solicit  # noqa: E402
from scapy.layers.inet import ICMP, IP, UDP  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

_T = TypeVar("_T")

CLIENT = "52:54:00:00:00:01"
L2 = Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff")
DISCOVER = UDP(sport=68, dport=67) / BOOTP(chaddr=CLIENT) / DHCP(options=[("message-type", "discover"), "end"])

DROPPED: dict[str, tuple[str, Packet]] = {
    "discover": ("dhcp4", L2 / IP(src="0.0.0.0", dst="255.255.255.255") / DISCOVER),
    "rogue offer": ("dhcp4", L2 / IP(src="10.0.0.9", dst="255.255.255.255") / UDP(sport=67, dport=68) / BOOTP(op=2)),
    "solicit": ("dhcp6", L2 / IPv6(src="fe80::1", dst="ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit()),
    "rogue advertise": ("dhcp6", L2 / IPv6(src="fe80::9", dst="fe80::1") / UDP(sport=547, dport=546) / Raw(b"\2abc")),
    "router solicitation": ("router_discovery", L2 / IPv6(src="fe80::1", dst="ff02::2") / ICMPv6ND_RS()),
    "rogue router": ("router_discovery", L2 / IPv6(src="fe80::9", dst="ff02::1") / ICMPv6ND_RA()),
    "rogue router behind extension headers": (
        "router_discovery",
        L2 / IPv6(src="fe80::9", dst="ff02::1") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / ICMPv6ND_RA(),
    ),
    "rogue router with a priority tag": (
        "router_discovery",
        L2 / Dot1Q(vlan=0) / IPv6(src="fe80::9", dst="ff02::1") / ICMPv6ND_RA(),
    ),
    "rogue router with two priority tags": (
        "stacked_tags",
        L2 / Dot1Q(vlan=0) / Dot1Q(vlan=0) / IPv6(src="fe80::9", dst="ff02::1") / ICMPv6ND_RA(),
    ),
    "discover with a service tag": (
        "dhcp4",
        L2 / Dot1AD(vlan=0) / IP(src="0.0.0.0", dst="255.255.255.255") / DISCOVER,
    ),
}

PASSED: dict[str, Packet] = {
    "gratuitous ARP": L2 / ARP(op=1, hwsrc=CLIENT, psrc="10.0.0.1", pdst="10.0.0.1"),
    "RARP announcement": Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff", type=0x8035) / ARP(op=3, hwsrc=CLIENT),
    "neighbour solicitation": L2 / IPv6(src="fe80::1", dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt="fe80::2"),
    "DNS": L2 / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1068, dport=53) / Raw(b"query"),
    "from port 67 to another": L2 / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=67, dport=5000) / Raw(b"x"),
    "a VLAN of the guests' own": L2 / Dot1Q(vlan=7) / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
    "two VLAN tags": L2 / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
    "ping": L2 / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
}


class Bridge:
    """A namespace with a bridge: a client's end `c1` behind port `p1`, and a neighbour's end `c2` behind `p2`."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "60"], stderr=subprocess.DEVNULL)
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        own = Path("/proc/self/ns/net").readlink()
        end = time.monotonic() + 2
        while self.path.readlink() == own:
            if self._holder.poll() is not None or time.monotonic() > end:
                self.close()
                pytest.skip("network namespaces cannot be made; be root, or use `unshare -Urmn`")
        # No device of the test's own asks for a router, so the counters count the test's frames.
        lines = ["link add br0 type bridge mcast_snooping 0", "link set br0 up"]
        for number in (1, 2):
            lines += [f"link add p{number} type veth peer name c{number}", f"link set p{number} master br0"]
            lines += [f"link set p{number} up", f"link set c{number} up"]
        self._run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
        self._run("ip -batch -", "\n".join(lines))

    def _run(self, command: str, text: str = "") -> None:
        argv = ["nsenter", f"--net={self.path}", *command.split()]
        subprocess.run(argv, input=text, text=True, check=True)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def inside(self, work: Callable[[], _T]) -> _T:
        results: list[_T] = []

        def run() -> None:
            fd = os.open(self.path, os.O_RDONLY)
            assert ctypes.CDLL(None).setns(fd, 0) == 0
            os.close(fd)
            results.append(work())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return results[0]

    def socket(self, device: str) -> socket.socket:
        """An ETH_P_ALL socket, as a responder at the port has one."""

        def work() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            raw.bind((device, 3))
            raw.settimeout(2)
            return raw

        return self.inside(work)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    found = Bridge()
    nft.load(found.path, guard.ruleset())
    with found.socket("c1") as sender, found.socket("c2") as receiver:
        wait_until_it_forwards(sender, receiver)
    yield found
    found.close()


def wait_until_it_forwards(sender: socket.socket, receiver: socket.socket) -> None:
    receiver.settimeout(0.05)
    for _ in range(60):
        sender.send(bytes(L2 / Raw(b"are you there".ljust(46))))
        try:
            while b"are you there" not in receiver.recv(2048):
                pass
            return
        except TimeoutError:
            continue
    raise AssertionError("the bridge forwards nothing")


def heard(raw: socket.socket, until: bytes) -> list[bytes]:
    """Frames up to the one that holds `until`."""
    frames: list[bytes] = []
    while not frames or until not in frames[-1]:
        frames.append(raw.recv(2048))
    return frames


FENCE = bytes(L2 / Raw(b"fence".ljust(46)))


@pytest.mark.system
@pytest.mark.parametrize("name", DROPPED)
def test_address_delivery_is_seen_at_the_port_and_crosses_no_bridge(bridge: Bridge, name: str) -> None:
    counter, packet = DROPPED[name]
    before = nft.counters(bridge.path)
    payload = bytes(packet)[-20:]
    with bridge.socket("c1") as client, bridge.socket("p1") as port, bridge.socket("c2") as neighbour:
        client.send(bytes(packet))
        client.send(FENCE)
        assert any(payload in frame for frame in heard(port, b"fence"))
        assert not any(payload in frame for frame in heard(neighbour, b"fence"))
    after = nft.counters(bridge.path)
    assert {name: after[name] - before[name] for name in after} == {n: int(n == counter) for n in guard.COUNTERS}


@pytest.mark.system
@pytest.mark.parametrize("name", PASSED)
def test_everything_else_crosses(bridge: Bridge, name: str) -> None:
    payload = bytes(PASSED[name])[-28:]
    with bridge.socket("c1") as client, bridge.socket("c2") as neighbour:
        client.send(bytes(PASSED[name]))
        client.send(FENCE)
        assert sum(payload in frame for frame in heard(neighbour, b"fence")) == 1


@pytest.mark.system
def test_a_reply_that_the_responder_sends_by_the_port_reaches_the_client(bridge: Bridge) -> None:
    packet = bytes(DROPPED["rogue offer"][1])
    with bridge.socket("p1") as port, bridge.socket("c1") as client:
        port.send(packet)
        port.send(FENCE)
        assert any(packet[-20:] in frame for frame in heard(client, b"fence"))


@pytest.mark.system
def test_the_guard_is_loaded_once_and_again_only_after_drift(bridge: Bridge) -> None:
    assert nft.is_loaded(bridge.path)
    assert not nft.ensure_guard(bridge.path)
    for drift in (
        f"flush chain bridge {guard.TABLE} {guard.CHAIN}",
        f"delete table bridge {guard.TABLE}",
        f"insert rule bridge {guard.TABLE} {guard.CHAIN} accept",
        f"add chain bridge {guard.TABLE} other",
    ):
        nft.load(bridge.path, drift)
        assert not nft.is_loaded(bridge.path)
        assert nft.ensure_guard(bridge.path)
        assert nft.is_loaded(bridge.path)


@pytest.mark.system
def test_a_stranger_that_touches_the_guard_is_heard_at_once_and_nobody_else(bridge: Bridge) -> None:
    watch = GuardWatch(bridge.path)
    try:
        assert not watch.ensure() and not watch.touched()
        nft.load(bridge.path, "add table bridge theirs; add chain bridge theirs c")
        assert select.select([watch], [], [], 2)[0] and not watch.touched()
        nft.load(bridge.path, "flush ruleset")
        assert select.select([watch], [], [], 2)[0] and watch.touched()
        assert watch.ensure() and nft.is_loaded(bridge.path)
        assert watch.touched() and not watch.touched()  # its own doing, once
        assert not watch.ensure()
    finally:
        watch.close()


@pytest.mark.system
def test_a_namespace_that_takes_the_place_of_another_is_watched_instead(bridge: Bridge, tmp_path: Path) -> None:
    other = Bridge()
    place = tmp_path / "namespace"
    place.symlink_to(bridge.path)
    watch = GuardWatch(place)
    try:
        watch.ensure()
        place.unlink()
        place.symlink_to(other.path)
        assert watch.ensure() and watch.touched()
        nft.load(other.path, f"delete table bridge {guard.TABLE}")
        assert select.select([watch], [], [], 2)[0] and watch.touched()
    finally:
        watch.close()
        other.close()


def test_a_namespace_that_is_not_there_can_not_be_watched(tmp_path: Path) -> None:
    watch = GuardWatch(tmp_path / "none")
    with pytest.raises(nft.NftError, match="none can't be watched"):
        watch.ensure()
    watch.close()


@pytest.mark.system
def test_other_tables_are_left_alone(bridge: Bridge) -> None:
    nft.load(bridge.path, "add table bridge theirs")
    nft.load(bridge.path, f"delete table bridge {guard.TABLE}")
    assert nft.counters(bridge.path) == {}
    nft.ensure_guard(bridge.path)
    nft.load(bridge.path, "delete table bridge theirs")


@pytest.mark.system
def test_a_refused_ruleset_changes_nothing_and_says_why(bridge: Bridge) -> None:
    with pytest.raises(nft.NftError, match="syntax error"):
        nft.load(bridge.path, f"delete table bridge {guard.TABLE}\nnonsense")
    assert nft.is_loaded(bridge.path)


def test_the_ruleset_is_the_same_every_time_and_names_its_version() -> None:
    assert guard.ruleset() == guard.ruleset()
    assert all(comment in guard.ruleset() for comment in guard.rule_comments())
    assert len(set(guard.rule_comments())) == len(guard.COUNTERS)


def test_a_missing_namespace_is_an_error_with_its_path() -> None:
    with pytest.raises(nft.NftError, match="/nowhere"):
        nft.is_loaded("/nowhere")
