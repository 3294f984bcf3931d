"""Guests with a kernel's own network stack: they find each other, agree on addresses and path MTUs, and nothing that
they say on their own is dropped but questions for routers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from guarded_lab import FAR, ME, NEAR, Station, grown, ll, v4, v6
from stacks_lab import GUEST_MTU, PATH_MTU, Stacks

from policies.guard.reason import Reason

pytestmark = pytest.mark.system


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
