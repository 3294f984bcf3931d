"""A host without a guard: what its guests say is heard nowhere else, as each host judges what its tunnel brings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from frames import BODY, BROADCAST, DATA, NOT_BRIDGED, Case, attacks, rights
from guarded_lab import FAR, FAR_TOO, GATEWAY, ME, NEAR, VRRP, Lab, grown, ll, only, v4, v6
from scapy.layers.inet import IP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from policies.guard.reason import Reason

pytestmark = pytest.mark.system

CASE = Case(FAR, ME, NEAR)
HERE = (ME, NEAR, VRRP)


@pytest.fixture(scope="module")
def lab(guarded: Lab) -> Iterator[Lab]:
    guarded.b.unguard()
    yield guarded
    guarded.guard()


@pytest.mark.parametrize("name", [name for name in attacks(CASE) if name not in NOT_BRIDGED])
def test_what_a_guest_elsewhere_may_not_say_is_heard_by_nobody_here(lab: Lab, name: str) -> None:
    reason, frame = attacks(CASE)[name]
    before = lab.dropped()
    lab.say(FAR, frame)
    assert lab.heard(FAR, HERE) == 0
    assert lab.dropped_since(before, only(reason)) == only(reason)


PAIRS: dict[str, tuple[Reason, Packet]] = {
    "one's MAC and another's address": (
        Reason.SPOOFED_ADDRESS,
        Ether(src=FAR.mac, dst=ME.mac) / IP(src=v4(FAR_TOO), dst=v4(ME)) / DATA,
    ),
    "one's MAC and another's IPv6 address": (
        Reason.SPOOFED_ADDRESS,
        Ether(src=FAR.mac, dst=ME.mac) / IPv6(src=v6(FAR_TOO), dst=v6(ME)) / DATA,
    ),
    "one's MAC and another's link-local": (
        Reason.SPOOFED_ADDRESS,
        Ether(src=FAR.mac, dst=ME.mac) / IPv6(src=ll(FAR_TOO), dst=ll(ME)) / DATA,
    ),
    "one's MAC and another's address, broadcast": (
        Reason.SPOOFED_ADDRESS,
        Ether(src=FAR.mac, dst=BROADCAST) / IP(src=v4(FAR_TOO), dst="10.0.0.255") / DATA,
    ),
    "one's MAC and an address behind the gateway": (
        Reason.SPOOFED_ADDRESS,
        Ether(src=FAR.mac, dst=ME.mac) / IP(src="198.51.100.1", dst=v4(ME)) / DATA,
    ),
    "one's MAC in ARP of another's address": (
        Reason.SPOOFED_ARP,
        Ether(src=FAR.mac, dst=ME.mac) / ARP(op=2, hwsrc=FAR.mac, psrc=v4(FAR_TOO), hwdst=ME.mac, pdst=v4(ME)),
    ),
    "another's MAC in ARP of one's address": (
        Reason.SPOOFED_ARP,
        Ether(src=FAR.mac, dst=ME.mac) / ARP(op=2, hwsrc=FAR_TOO.mac, psrc=v4(FAR), hwdst=ME.mac, pdst=v4(ME)),
    ),
    "another's MAC in a solicitation": (
        Reason.SPOOFED_ND,
        Ether(src=FAR.mac, dst=ME.mac)
        / IPv6(src=v6(FAR), dst=v6(ME))
        / ICMPv6ND_NS(tgt=v6(ME))
        / ICMPv6NDOptSrcLLAddr(lladdr=FAR_TOO.mac),
    ),
    "another's MAC in an advertisement": (
        Reason.SPOOFED_ND,
        Ether(src=FAR.mac, dst=ME.mac)
        / IPv6(src=v6(FAR), dst=v6(ME))
        / ICMPv6ND_NA(tgt=v6(FAR))
        / ICMPv6NDOptDstLLAddr(lladdr=FAR_TOO.mac),
    ),
    "a station of this host": (
        Reason.SPOOFED_MAC,
        Ether(src=NEAR.mac, dst=ME.mac) / IP(src=v4(NEAR), dst=v4(ME)) / DATA,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_mac_and_an_address_that_do_not_belong_together_are_heard_by_nobody_here(lab: Lab, name: str) -> None:
    reason, frame = PAIRS[name]
    before = lab.dropped()
    lab.say(FAR, frame)
    assert lab.heard(FAR, HERE) == 0
    assert lab.dropped_since(before, only(reason)) == only(reason)


@pytest.mark.parametrize("name", rights(CASE))
def test_what_a_guest_elsewhere_may_say_is_heard_once(lab: Lab, name: str) -> None:
    frame = bytes(rights(CASE)[name])
    before = lab.dropped()
    lab.say(FAR, frame)
    assert lab.hear(ME, lab.fence(FAR, ME)).count(frame) == 1
    lab.heard(FAR)
    assert grown(before, lab.dropped()) == {}


def test_a_gateway_elsewhere_speaks_for_the_world_and_for_no_address_of_the_playground(lab: Lab) -> None:
    for source in ("198.51.100.1", "192.168.0.1", "2001:db8::1", "2606:4700::1"):
        frame = Ether(src=GATEWAY.mac, dst=ME.mac)
        frame /= IPv6(src=source, dst=v6(ME)) if ":" in source else IP(src=source, dst=v4(ME))
        lab.say(GATEWAY, frame / DATA)
        assert lab.heard(GATEWAY, (ME,)) == 1
    for source in (v4(NEAR), "10.0.9.9", "224.0.0.1", "127.0.0.1", "255.255.255.255", v6(NEAR), "fd00::9", "ff02::1"):
        frame = Ether(src=GATEWAY.mac, dst=ME.mac)
        frame /= IPv6(src=source, dst=v6(ME)) if ":" in source else IP(src=source, dst=v4(ME))
        before = lab.dropped()
        lab.say(GATEWAY, frame / BODY)
        assert lab.heard(GATEWAY, (ME,)) == 0
        assert lab.dropped_since(before, only(Reason.SPOOFED_ADDRESS)) == only(Reason.SPOOFED_ADDRESS)
