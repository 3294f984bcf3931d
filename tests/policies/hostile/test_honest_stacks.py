"""Guests with a kernel's own network stack: they find each other, agree on addresses and path MTUs, and nothing that
they say on their own is dropped but questions for routers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from filter_lab import Namespace
from guarded_lab import FAR, HOSTS, ME, NEAR, UNDERLAY, Host, Station, grown, ll, v4, v6

from policies.guard.reason import Reason

pytestmark = pytest.mark.system

UNDERLAY_MTU, GUEST_MTU, PATH_MTU = 1500, 4000, 1450
"""The path's is the underlay's less VXLAN's 50 (RFC 7348); the guests think that they have more."""


class Stacks:
    """Both hosts, with ARP and ND suppression as hosts have it, and a guest's namespace for each of three stations."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.hosts = {name: self._closed(Host(name, HOSTS[name], HOSTS[_other(name)])) for name in HOSTS}
        self.guests = {station: self._closed(Namespace()) for station in (ME, NEAR, FAR)}
        link = f"ip link add up0 mtu {UNDERLAY_MTU} type veth peer name up0 mtu {UNDERLAY_MTU}"
        self.hosts["a"].space.run(f"{link} netns {self.hosts['b'].space.pid}")
        for name, host in self.hosts.items():
            host.space.run(f"ip addr add {UNDERLAY[name]}/24 dev up0")
            host.space.run("ip link set up0 up")
            host.space.run("sysctl -qw net.ipv6.conf.br0.addr_gen_mode=1 net.ipv6.conf.br0.disable_ipv6=0")
            host.space.run("bridge link set dev vx0 neigh_suppress on")
            known = [(address, station.mac) for station in host.peers for address in (*station.addresses, ll(station))]
            lines = [f"neigh replace {address} lladdr {mac} dev br0 nud permanent" for address, mac in known]
            host.space.run("ip -batch -", "\n".join(lines))
            host.guard()
        for station, guest in self.guests.items():
            end = f"c{int(station.mac[-2:], 16)}"
            space = next(host.space for host in self.hosts.values() if station in host.stations)
            space.run(f"ip link set {end} netns {guest.pid} name eth0")
            guest.run("sysctl -qw net.ipv6.neigh.eth0.retrans_time_ms=200")
            guest.run(f"ip link set eth0 mtu {GUEST_MTU} up")
            guest.run(f"ip addr add {v4(station)}/24 dev eth0")
            guest.run(f"ip addr add {v6(station)}/64 dev eth0")

    def _closed(self, made):  # type: ignore[no-untyped-def]
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()

    def dropped(self) -> dict[str, int]:
        """By both hosts."""
        both = [host.dropped() for host in self.hosts.values()]
        return {name: sum(one.get(name, 0) for one in both) for name in {**both[0], **both[1]}}

    def await_settled(self, station: Station) -> None:
        """Until it has found its addresses to be nobody else's."""
        end = time.monotonic() + 10
        while "tentative" in (said := self.guests[station].run("ip -6 addr show dev eth0")):
            assert time.monotonic() < end, said
            time.sleep(0.02)
        assert "dadfailed" not in said

    def ping(self, by: Station, to: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["nsenter", f"--net={self.guests[by].path}", "ping", "-n", "-c1", "-w5", *words, to]
        return subprocess.run(argv, capture_output=True, text=True, check=False)


def _other(name: str) -> str:
    return next(other for other in HOSTS if other != name)


@pytest.fixture(scope="module")
def stacks() -> Iterator[Stacks]:
    found = Stacks()
    try:
        for station in found.guests:
            found.await_settled(station)
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("to", [NEAR, FAR], ids=["here", "on another host"])
def test_guests_find_and_reach_each_other_both_ways(stacks: Stacks, to: Station) -> None:
    for by, target in ((ME, to), (to, ME)):
        for address in (*target.addresses, f"{ll(target)}%eth0"):
            done = stacks.ping(by, address)
            assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_that_a_kernel_says_on_its_own_is_dropped_but_questions_for_routers(stacks: Stacks) -> None:
    assert stacks.dropped().keys() <= {Reason.ROUTER_DISCOVERY.counter}


@pytest.mark.parametrize("to", [v4(FAR), v6(FAR)], ids=["IPv4", "IPv6"])
def test_a_packet_larger_than_the_path_is_answered_with_the_path_s_mtu(stacks: Stacks, to: str) -> None:
    """The tunnel answers in the other guest's name (iptunnel_pmtud_build_icmp, net/ipv4/ip_tunnel_core.c), so that it
    comes in by the tunnel, and must be taken for that guest's."""
    before = stacks.dropped()
    end = time.monotonic() + 5
    while f"mtu {PATH_MTU}" not in stacks.guests[ME].run(f"ip route get {to}"):
        assert time.monotonic() < end
        stacks.ping(ME, to, "-M", "do", "-s", str(GUEST_MTU - 100), "-w1")
    assert stacks.ping(ME, to, "-M", "dont", "-s", str(GUEST_MTU - 100)).returncode == 0  # in fragments
    assert grown(before, stacks.dropped()) == {}


def test_who_takes_another_s_address_gets_nothing_of_it_and_does_not_disturb_it(stacks: Stacks) -> None:
    thief = stacks.guests[NEAR]
    before = stacks.dropped()
    for address in (f"{v4(ME)}/32", f"{v6(ME)}/128"):
        thief.run(f"ip addr add {address} dev eth0")
    try:
        stacks.guests[FAR].run("ip neigh flush dev eth0")
        for address in ME.addresses * 3:
            assert stacks.ping(FAR, address).returncode == 0
        for source, to in zip(ME.addresses, FAR.addresses, strict=True):
            assert stacks.ping(NEAR, to, "-I", source, "-w1").returncode != 0
        stacks.await_settled(ME)
    finally:
        for address in (f"{v4(ME)}/32", f"{v6(ME)}/128"):
            thief.run(f"ip addr del {address} dev eth0")
    assert {Reason.SPOOFED_ARP.counter, Reason.SPOOFED_ND.counter} <= grown(before, stacks.dropped()).keys()


def test_a_second_link_local_address_is_not_heard_of(stacks: Stacks) -> None:
    guest, before = stacks.guests[ME], stacks.dropped()
    guest.run("ip addr add fe80::2222/64 dev eth0 nodad")
    try:
        assert stacks.ping(ME, f"{ll(NEAR)}%eth0", "-I", "fe80::2222", "-w1").returncode != 0
        assert stacks.ping(NEAR, "fe80::2222%eth0", "-w1").returncode != 0
    finally:
        guest.run("ip addr del fe80::2222/64 dev eth0")
    assert grown(before, stacks.dropped())
