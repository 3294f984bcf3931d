"""What the guard leaves alone: the responder at the port, the service leg, allowed addresses, gateways; and what it
bounds: floods."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from contextlib import suppress

import pytest
from frames import ALL_NODES, BODY, BROADCAST, DATA, DISCOVER, NOBODY, OFFER, RA, Case, attacks
from guarded_lab import (
    FAR,
    FAR_TOO,
    GATEWAY,
    LEG,
    ME,
    NEAR,
    VRRP,
    Lab,
    Station,
    grown,
    heard_at,
    ll,
    only,
    port_of,
    v4,
    v6,
)
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from policies.guard.parts import GROUP_BURST, GROUP_PER_S, QUESTIONS_PER_S, questions_counter
from policies.guard.reason import Reason
from policies.guard.rules import SERVICE_MAC

pytestmark = pytest.mark.system


def test_a_packet_socket_at_the_port_hears_what_the_guard_drops(guarded: Lab) -> None:
    """Kernel fact (__netif_receive_skb_core, net/core/dev.c): taps come before the ingress hook, so a responder hears
    DHCP, solicitations and EAPOL that cross no bridge."""
    deaf = []
    with guarded.a.open(port_of(ME)) as port:
        for name, (_, frame) in attacks(Case(ME, NEAR, FAR)).items():
            guarded.say(ME, frame)
            mark = guarded.fence(ME, NEAR)
            if len(heard_at(port, mark)) != 1:
                deaf.append(name)
            guarded.hear(NEAR, mark)
    assert not deaf


FROM_LEG = Ether(src=SERVICE_MAC, dst=ME.mac)
ANSWERS: dict[str, Packet] = {
    "offer to all": Ether(src=SERVICE_MAC, dst=BROADCAST) / IP(src=LEG[0], dst="255.255.255.255") / OFFER,
    "offer to the address to be": FROM_LEG / IP(src=LEG[0], dst=v4(ME)) / OFFER,
    "offer to one MAC, all addresses": FROM_LEG / IP(src=LEG[0], dst="255.255.255.255") / OFFER,
    "refusal to an address that it should not have": FROM_LEG / IP(src=LEG[0], dst="10.0.0.77") / OFFER,
    "advertisement": Ether(src=SERVICE_MAC, dst=ALL_NODES) / IPv6(src=LEG[2], dst="ff02::1") / RA,
    "advertisement of a gateway": Ether(src=GATEWAY.mac, dst=ALL_NODES) / IPv6(src=ll(GATEWAY), dst="ff02::1") / RA,
    "advertisement to one MAC": FROM_LEG / IPv6(src=LEG[2], dst="ff02::1") / RA,
    "question by ARP": FROM_LEG / ARP(op=1, hwsrc=SERVICE_MAC, psrc=LEG[0], pdst=v4(ME)),
    "question for an address to be formed": FROM_LEG
    / IPv6(src=LEG[2], dst="fd00::77")
    / ICMPv6ND_NS(tgt="fd00::77")
    / ICMPv6NDOptSrcLLAddr(lladdr=SERVICE_MAC),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_responder_says_by_the_port_reaches_its_client(guarded: Lab, name: str) -> None:
    before = guarded.dropped()
    with guarded.a.open(port_of(ME)) as port:
        port.send(bytes(ANSWERS[name]))
        assert guarded.hear(ME, guarded.fence(NEAR, ME)) == [bytes(ANSWERS[name])]
    assert grown(before, guarded.dropped()) == {}


def test_even_a_packet_socket_says_nothing_by_a_port_for_another_mac(guarded: Lab) -> None:
    """Kernel fact (__dev_queue_xmit): frames of packet sockets traverse the egress hook."""
    before = guarded.dropped()
    with guarded.a.open(port_of(ME)) as port:
        with pytest.raises(OSError, match="No buffer space"):  # how that is told
            port.send(bytes(Ether(src=SERVICE_MAC, dst=NEAR.mac) / IP(src=LEG[0], dst=v4(ME)) / DATA))
        assert guarded.hear(ME, guarded.fence(NEAR, ME)) == []
    assert grown(before, guarded.dropped()) == only(Reason.OTHER_MAC)


def test_a_port_hears_no_unicast_for_another_mac_whatever_the_bridge_is_told(guarded: Lab) -> None:
    guarded.a.space.run(f"bridge fdb replace {NOBODY} dev {port_of(NEAR)} master static")
    for frame in (IP(src=v4(ME), dst=v4(NEAR)), IPv6(src=v6(ME), dst=v6(NEAR))):
        before = guarded.dropped()
        guarded.say(ME, Ether(src=ME.mac, dst=NOBODY) / frame / DATA)
        assert guarded.heard(ME) == 0
        assert guarded.dropped_since(before, only(Reason.OTHER_MAC)) == only(Reason.OTHER_MAC)
    guarded.a.space.run(f"bridge fdb del {NOBODY} dev {port_of(NEAR)} master")


TO_NEAR = (
    IP(src=v4(ME), dst=v4(NEAR)) / DATA,
    IPv6(src=v6(ME), dst=v6(NEAR)) / DATA,
    ARP(hwsrc=ME.mac, psrc=v4(ME), pdst=v4(NEAR)),
)


@pytest.mark.parametrize("packet", TO_NEAR, ids=["IPv4", "IPv6", "ARP"])
def test_what_looks_as_if_it_were_for_the_host_is_none_of_its_own(guarded: Lab, packet: Packet) -> None:
    """As what a NIC's redirect hands over does (PACKET_HOST): no stack takes what is for another (PACKET_OTHERHOST)."""
    (port,) = json.loads(guarded.a.space.run(f"ip -j link show {port_of(ME)}"))
    with guarded.a.open("br0") as bridge:
        frame = Ether(src=ME.mac, dst=port["address"]) / packet
        guarded.say(ME, frame)
        heard, (*_, kind, _, _) = bridge.recvfrom(2048)
    assert (heard, kind) == (bytes(frame), 3)


def test_the_service_leg_and_a_guest_talk_to_each_other(guarded: Lab) -> None:
    before = guarded.dropped()
    with guarded.a.open("sv0") as leg:
        for source, answer in (
            (IP(src=v4(ME), dst=LEG[0]), IP(src=LEG[0], dst=v4(ME))),
            (IPv6(src=v6(ME), dst=LEG[1]), IPv6(src=LEG[1], dst=v6(ME))),
            (IPv6(src=ll(ME), dst=LEG[2]), IPv6(src=LEG[2], dst=ll(ME))),
        ):
            question = bytes(Ether(src=ME.mac, dst=SERVICE_MAC) / source / UDP(sport=5000, dport=53) / BODY)
            guarded.say(ME, question)
            assert leg.recv(2048) == question
            leg.send(bytes(FROM_LEG / answer / UDP(sport=53, dport=5000) / BODY))
            assert len(guarded.hear(ME, guarded.fence(NEAR, ME))) == 1
    assert grown(before, guarded.dropped()) == {}


VMAC, VIP, VIP6 = VRRP.allowed_macs[0], "10.0.0.100", "fd00::100"


def virtual(you: Station) -> dict[str, Packet]:
    """What a port says that is allowed a virtual MAC and addresses, and machines nested in it."""
    own, theirs = Ether(src=VRRP.mac, dst=you.mac), Ether(src=VMAC, dst=you.mac)
    unsolicited = ICMPv6ND_NA(tgt=VIP6, S=0) / ICMPv6NDOptDstLLAddr(lladdr=VMAC)
    to_all = Ether(src=VMAC, dst=ALL_NODES)
    return {
        "VRRP": Ether(src=VMAC, dst="01:00:5e:00:00:12") / IP(src=v4(VRRP), dst="224.0.0.18", proto=112) / BODY,
        "VRRP over IPv6": to_all / IPv6(src=ll(VRRP), dst="ff02::12", nh=112) / BODY,
        "gratuitous ARP": Ether(src=VMAC, dst=BROADCAST) / ARP(op=1, hwsrc=VMAC, psrc=VIP, pdst=VIP),
        "a probe": Ether(src=VRRP.mac, dst=BROADCAST) / ARP(op=1, hwsrc=VRRP.mac, psrc="0.0.0.0", pdst=VIP),
        "unsolicited advertisement": to_all / IPv6(src=VIP6, dst="ff02::1") / unsolicited,
        "duplicate detection": to_all / IPv6(src="::", dst="ff02::1") / ICMPv6ND_NS(tgt=VIP6),
        "UDP": theirs / IP(src=VIP, dst=v4(you)) / DATA,
        "UDPv6": own / IPv6(src=VIP6, dst=v6(you)) / DATA,
        "UDP of a nested machine": own / IP(src="10.9.3.4", dst=v4(you)) / DATA,
        "UDPv6 of a nested machine": theirs / IPv6(src="fd09::5", dst=v6(you)) / DATA,
    }


@pytest.mark.parametrize("you", [NEAR, FAR], ids=["here", "on another host"])
@pytest.mark.parametrize("name", virtual(NEAR))
def test_what_a_port_is_allowed_to_speak_for_passes(guarded: Lab, name: str, you: Station) -> None:
    before = guarded.dropped()
    guarded.say(VRRP, virtual(you)[name])
    assert guarded.heard(VRRP, (you,)) == 1
    guarded.heard(VRRP)
    assert grown(before, guarded.dropped()) == {}


@pytest.mark.parametrize("by", [ME, FAR], ids=["from here", "from another host"])
def test_what_is_sent_to_allowed_addresses_and_macs_arrives(guarded: Lab, by: Station) -> None:
    before = guarded.dropped()
    for mac in VRRP.macs:
        for address in (v4(VRRP), VIP, "10.9.200.1", v6(VRRP), VIP6, "fd09::77"):
            head = Ether(src=by.mac, dst=mac)
            head /= IPv6(src=v6(by), dst=address) if ":" in address else IP(src=v4(by), dst=address)
            guarded.say(by, head / DATA)
            assert guarded.heard(by, (VRRP,)) == 1
        guarded.say(by, Ether(src=by.mac, dst=mac) / ARP(op=2, hwsrc=by.mac, psrc=v4(by), hwdst=mac, pdst=VIP))
        assert guarded.heard(by, (VRRP,)) == 1
    assert grown(before, guarded.dropped()) == {}


def test_what_one_is_allowed_another_is_not(guarded: Lab) -> None:
    for mac, source, reason in (
        (VMAC, v4(ME), Reason.SPOOFED_MAC),
        (ME.mac, VIP, Reason.SPOOFED_ADDRESS),
        (ME.mac, "10.9.3.4", Reason.SPOOFED_ADDRESS),
    ):
        before = guarded.dropped()
        guarded.say(ME, Ether(src=mac, dst=NEAR.mac) / IP(src=source, dst=v4(NEAR)) / DATA)
        assert guarded.heard(ME) == 0
        assert guarded.dropped_since(before, only(reason)) == only(reason)


@pytest.mark.parametrize("you", [FAR, ME], ids=["here", "on another host"])
def test_a_gateway_carries_the_world_both_ways_and_no_address_of_the_playground(guarded: Lab, you: Station) -> None:
    there, back = Ether(src=you.mac, dst=GATEWAY.mac), Ether(src=GATEWAY.mac, dst=you.mac)
    before = guarded.dropped()
    late = IP(src="203.0.113.9", dst=v4(you)) / ICMP(type=11) / IP(src=v4(you), dst="198.51.100.1") / DATA
    guarded.say(GATEWAY, back / late)  # from a router on the way, as traceroute hears it
    assert guarded.heard(GATEWAY, (you,)) == 1
    for world in ("198.51.100.1", "192.168.7.7", "2001:db8::1"):
        own = v6(you) if ":" in world else v4(you)
        ip = IPv6 if ":" in world else IP
        guarded.say(you, there / ip(src=own, dst=world) / DATA)
        assert guarded.heard(you, (GATEWAY,)) == 1
        guarded.say(GATEWAY, back / ip(src=world, dst=own) / DATA)
        assert guarded.heard(GATEWAY, (you,)) == 1
    assert grown(before, guarded.dropped()) == {}
    for owned in (v4(NEAR), "10.0.77.1", v6(FAR_TOO), "fd00::77"):
        own = v6(you) if ":" in owned else v4(you)
        ip = IPv6 if ":" in owned else IP
        for by, to, frame, reason in (
            (you, GATEWAY, there / ip(src=own, dst=owned), Reason.OTHER_ADDRESS),
            (GATEWAY, you, back / ip(src=owned, dst=own), Reason.SPOOFED_ADDRESS),
        ):
            before = guarded.dropped()
            guarded.say(by, frame / DATA)
            assert guarded.heard(by, (to,)) == 0
            assert guarded.dropped_since(before, only(reason)) == only(reason)


def test_a_flood_of_broadcasts_is_bounded_and_hurts_no_neighbour(guarded: Lab) -> None:
    head = Ether(src=ME.mac, dst=BROADCAST)
    flood = bytes(head / ARP(op=1, hwsrc=ME.mac, psrc=v4(ME), pdst=v4(FAR)))
    sent, passed, others = 6000, Counter[Station](), [station for station in guarded.ends if station != ME]
    before, began = guarded.dropped(), time.monotonic()
    for _ in range(sent // 50):  # what an end's socket holds without more rights
        for _ in range(50):
            guarded.say(ME, flood)
        passed.update({other: len(guarded.hear(other, guarded.fence(ME, other))) for other in others})
    took = time.monotonic() - began
    assert GROUP_BURST // 2 < passed[NEAR] <= GROUP_BURST + GROUP_PER_S * took + 1
    assert passed == Counter(dict.fromkeys(others, passed[NEAR]))
    assert grown(before, guarded.dropped()) == {Reason.FLOOD.counter: sent - passed[NEAR]}
    guarded.say(NEAR, Ether(src=NEAR.mac, dst=BROADCAST) / ARP(op=1, hwsrc=NEAR.mac, psrc=v4(NEAR), pdst=v4(FAR)))
    assert guarded.heard(NEAR, (FAR,)) == 1  # the bound is each port's own
    guarded.heard(NEAR)


def test_a_flood_of_questions_is_bounded_from_whichever_address_and_stops_nobody_elses(guarded: Lab) -> None:
    def asks(station: Station, source: str, mac: str = SERVICE_MAC, server: str = LEG[0]) -> bytes:
        return bytes(Ether(src=station.mac, dst=mac) / IP(src=source, dst=server) / UDP(sport=4000, dport=53) / DATA)

    allowed = [asks(VRRP, f"10.9.{number >> 8}.{number & 255}") for number in range(512)]
    with guarded.a.open("sv0") as leg:
        before, began, sent = guarded.dropped(), time.monotonic(), 3 * QUESTIONS_PER_S
        for number in range(sent):
            guarded.say(VRRP, allowed[number % len(allowed)])
        took = time.monotonic() - began
        [(name, stopped)] = grown(before, guarded.dropped()).items()
        assert name == questions_counter(port_of(VRRP))
        assert sent - QUESTIONS_PER_S * (1 + took) - 1 <= stopped <= sent - QUESTIONS_PER_S
        leg.settimeout(0)
        with suppress(BlockingIOError):
            while leg.recv(65535):
                pass
        leg.settimeout(5)
        guarded.say(NEAR, asks(NEAR, v4(NEAR)))
        assert leg.recv(65535) == asks(NEAR, v4(NEAR))
        guarded.say(
            VRRP, asks(VRRP, v4(VRRP), NEAR.mac, v4(NEAR))
        )  # a name server that is a neighbour is not ours to guard
        assert guarded.heard(VRRP, (NEAR,)) == 1
    assert grown(before, guarded.dropped()) == {name: stopped}


def test_a_flood_of_macs_is_dropped_and_no_bridge_learns_one(guarded: Lab) -> None:
    draw = random.Random(7)
    before, sent = guarded.dropped(), 3000
    known = guarded.a.space.run("bridge fdb show br br0"), guarded.b.space.run("bridge fdb show br br0")
    body = bytes(IP(src=v4(ME), dst=v4(NEAR)) / DATA)
    for _ in range(sent):
        mac = bytes([draw.randrange(256) & 0xFE]) + draw.randbytes(5)
        guarded.say(ME, bytes.fromhex(NEAR.mac.replace(":", "")) + mac + b"\x08\0" + body)
    assert guarded.heard(ME) == 0
    assert guarded.dropped_since(before, only(Reason.SPOOFED_MAC, sent)) == only(Reason.SPOOFED_MAC, sent)
    assert known == (guarded.a.space.run("bridge fdb show br br0"), guarded.b.space.run("bridge fdb show br br0"))


def test_a_flood_of_what_is_dropped_leaves_the_neighbours_their_traffic(guarded: Lab) -> None:
    spoofs = [bytes(frame) for _, frame in attacks(Case(ME, NEAR, FAR)).values()]
    for number in range(40):
        for frame in spoofs[number % 7 :: 7]:
            guarded.say(ME, frame)
        assert guarded.hear(FAR, guarded.fence(NEAR, FAR)) == []
        assert guarded.hear(NEAR, guarded.fence(FAR, NEAR)) == []


def test_a_discovery_is_heard_at_the_port_whatever_its_sender_has_flooded(guarded: Lab) -> None:
    discover = bytes(Ether(src=ME.mac, dst=BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255") / DISCOVER)
    with guarded.a.open(port_of(ME)) as port:
        guarded.say(ME, discover)
        assert heard_at(port, guarded.fence(ME, NEAR)) == [discover]
    guarded.heard(ME)


def test_the_tables_are_read_back_as_they_were_put(guarded: Lab) -> None:
    """Every key is spelt as the kernel tells it, or each look would find something to repair."""
    for host in (guarded.a, guarded.b):
        outcome = host.look()
        assert (outcome.cause, dict(outcome.refused), dict(outcome.repaired)) == ("", {}, {})
