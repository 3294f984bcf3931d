"""What a hostile guest says, each with the reason for which nobody may hear it; and what any guest may say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from guarded_lab import LEG, Station, ll, v4, v6
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_INDAdv,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from policies.guard.reason import Reason
from policies.guard.rules import SERVICE_MAC

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "33:33:00:00:00:01"
NOBODY = "02:00:00:00:00:77"


@dataclass(frozen=True)
class Case:
    """me: who says it; you: whom it is meant for; other: a third station of the network."""

    me: Station
    you: Station
    other: Station

    def to(self, you: str = "", me: str = "", kind: int | None = None) -> Packet:
        fields = {"type": kind} if kind is not None else {}
        return Ether(src=me or self.me.mac, dst=you or self.you.mac, **fields)

    def ip(self, source: str = "", destination: str = "", **more: object) -> Packet:
        return IP(src=source or v4(self.me), dst=destination or v4(self.you), **more)

    def ip6(self, source: str = "", destination: str = "", **more: object) -> Packet:
        return IPv6(src=source or v6(self.me), dst=destination or v6(self.you), **more)

    def arp(self, **fields: object) -> Packet:
        usual = {"op": 2, "hwsrc": self.me.mac, "psrc": v4(self.me), "hwdst": self.you.mac, "pdst": v4(self.you)}
        return ARP(**{**usual, **fields})


Frame = Callable[[Case], Packet]

BODY = Raw(b"what nobody may hear".ljust(40, b"."))
DATA = UDP(sport=5000, dport=6000) / BODY
NONCE = Raw(b"\x0e\x01\1\2\3\4\5\6")
RA = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8::")
DISCOVER = UDP(sport=68, dport=67) / BOOTP(chaddr=b"\2\0\0\0\0\1") / DHCP(options=[("message-type", 1), "end"])
OFFER = UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP(options=[("message-type", 2), "end"])


def _sources4(case: Case) -> dict[str, str]:
    return {
        "another's": v4(case.other),
        "the target's own": v4(case.you),
        "the leg's": LEG[0],
        "none": "0.0.0.0",
        "loopback": "127.0.0.1",
        "multicast": "224.0.0.1",
        "limited broadcast": "255.255.255.255",
        "the subnet's broadcast": "10.0.0.255",
        "the world's": "198.51.100.1",
        "link-local": "169.254.1.1",
    }


def _sources6(case: Case) -> dict[str, str]:
    return {
        "another's": v6(case.other),
        "another's link-local": ll(case.other),
        "the target's own": v6(case.you),
        "the leg's": LEG[1],
        "the leg's link-local": LEG[2],
        "none": "::",
        "loopback": "::1",
        "multicast": "ff02::1",
        "mapped": "::ffff:10.0.0.1",
        "the world's": "2001:db8::1",
        "a second link-local": "fe80::1234",
    }


@cache
def attacks(case: Case) -> dict[str, tuple[Reason, Packet]]:
    """Every attack, as this case has it."""
    c, me, you, other = case, case.me, case.you, case.other
    bare4, bare6 = c.ip() / DATA, c.ip6() / DATA
    found: dict[str, tuple[Reason, Packet]] = {}

    def add(reason: Reason, frames: dict[str, Packet]) -> None:
        for name, frame in frames.items():
            assert (name, reason) not in found
            found[f"{reason.counter}: {name}"] = (reason, frame)

    for kind, body in {"IPv4": bare4, "IPv6": bare6}.items():
        add(
            Reason.SPOOFED_MAC,
            {
                f"{kind} from another's MAC": c.to(me=other.mac) / body,
                f"{kind} from the target's MAC": c.to(me=you.mac) / body,
                f"{kind} from a MAC of nobody": c.to(me=NOBODY) / body,
                f"{kind} from no MAC": c.to(me="00:00:00:00:00:00") / body,
                f"{kind} from a group MAC": c.to(me="01:00:5e:00:00:01") / body,
                f"{kind} broadcast from another's MAC": c.to(BROADCAST, other.mac) / body,
            },
        )
        add(Reason.SERVICE_MAC, {f"{kind} as the service leg": c.to(me=SERVICE_MAC) / body})
    add(
        Reason.SPOOFED_MAC,
        {
            "ARP of its own from another's MAC": c.to(me=other.mac) / c.arp(),
            "RARP from another's MAC": c.to(BROADCAST, other.mac, 0x8035) / c.arp(op=3, psrc="0.0.0.0"),
            "both MAC and address of another": c.to(me=other.mac) / c.ip(v4(other)) / DATA,
            "both of another, IPv6": c.to(me=other.mac) / c.ip6(v6(other)) / DATA,
        },
    )
    for name, source in _sources4(c).items():
        add(
            Reason.SPOOFED_ADDRESS,
            {
                f"UDP from {name}": c.to() / c.ip(source) / DATA,
                f"TCP from {name}": c.to() / c.ip(source) / TCP(sport=5000, dport=6000, flags="S"),
                f"ping from {name}": c.to() / c.ip(source) / ICMP() / BODY,
                f"broadcast from {name}": c.to(BROADCAST) / c.ip(source, "255.255.255.255") / DATA,
                f"a later fragment from {name}": c.to() / c.ip(source, frag=100, proto=17, id=7) / BODY,
            },
        )
    for name, source in _sources6(c).items():
        add(
            Reason.SPOOFED_ADDRESS,
            {
                f"UDPv6 from {name}": c.to() / c.ip6(source) / DATA,
                f"TCPv6 from {name}": c.to() / c.ip6(source) / TCP(sport=5000, dport=6000, flags="S"),
                f"pingv6 from {name}": c.to() / c.ip6(source) / ICMPv6EchoRequest(data=bytes(BODY)),
                f"IPv6 multicast from {name}": c.to(ALL_NODES) / c.ip6(source, "ff02::1") / DATA,
                f"a later IPv6 fragment from {name}": c.to()
                / c.ip6(source)
                / IPv6ExtHdrFragment(offset=100, id=7, nh=17)
                / BODY,
                f"behind extension headers from {name}": c.to()
                / c.ip6(source)
                / IPv6ExtHdrHopByHop()
                / IPv6ExtHdrDestOpt()
                / DATA,
            },
        )
    add(
        Reason.SPOOFED_ARP,
        {
            "answer for another": c.to() / c.arp(psrc=v4(other)),
            "answer for the leg": c.to() / c.arp(psrc=LEG[0]),
            "answer for the target itself": c.to() / c.arp(psrc=v4(you)),
            "question from another's address": c.to(BROADCAST) / c.arp(op=1, psrc=v4(other)),
            "announcement of another's address": c.to(BROADCAST) / c.arp(op=1, psrc=v4(other), pdst=v4(other)),
            "answer with another's MAC inside": c.to() / c.arp(hwsrc=other.mac),
            "answer with another's MAC and address inside": c.to() / c.arp(hwsrc=other.mac, psrc=v4(other)),
            "probe for another's address": c.to(BROADCAST) / c.arp(op=1, psrc="0.0.0.0", pdst=v4(other)),
            "probe with another's MAC inside": c.to(BROADCAST)
            / c.arp(op=1, hwsrc=other.mac, psrc="0.0.0.0", pdst=v4(me)),
            "answer from no address": c.to() / c.arp(psrc="0.0.0.0"),
            "answer as of IEEE 802": c.to() / c.arp(hwtype=6, psrc=v4(other)),
            "inverse ARP": c.to() / c.arp(op=9, psrc=v4(me)),
            "RARP for another's MAC": c.to(BROADCAST, kind=0x8035)
            / c.arp(op=3, hwsrc=other.mac, psrc="0.0.0.0", pdst="0.0.0.0"),
            "RARP that tells an address": c.to(BROADCAST, kind=0x8035) / c.arp(op=3, psrc=v4(other)),
            "RARP answer": c.to(kind=0x8035) / c.arp(op=4, psrc="0.0.0.0"),
            "cut short": c.to(kind=0x0806) / Raw(bytes(c.arp(psrc=v4(other)))[:12]),
        },
    )
    ns, na = ICMPv6ND_NS(tgt=v6(you)), ICMPv6ND_NA(tgt=v6(me), R=0, S=0, O=1)
    to_all = c.to(ALL_NODES)
    na_other = ICMPv6ND_NA(tgt=v6(other), R=0, S=0, O=1)
    add(
        Reason.SPOOFED_ND,
        {
            "advertisement of another's address": to_all
            / c.ip6(destination="ff02::1")
            / na_other
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
            "advertisement of another's without a MAC": c.to() / c.ip6() / na_other,
            "advertisement with another's MAC": c.to() / c.ip6() / na / ICMPv6NDOptDstLLAddr(lladdr=other.mac),
            "advertisement of another's link-local": c.to()
            / c.ip6(ll(me))
            / ICMPv6ND_NA(tgt=ll(other))
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
            "advertisement of the leg's": c.to()
            / c.ip6(ll(me))
            / ICMPv6ND_NA(tgt="fe80::1")
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
            "solicitation with another's MAC": c.to() / c.ip6() / ns / ICMPv6NDOptSrcLLAddr(lladdr=other.mac),
            "solicitation with another's MAC in a second option": c.to()
            / c.ip6()
            / ns
            / ICMPv6NDOptSrcLLAddr(lladdr=me.mac)
            / ICMPv6NDOptSrcLLAddr(lladdr=other.mac),
            "solicitation with another's MAC behind a nonce": c.to()
            / c.ip6()
            / ns
            / Raw(bytes(NONCE) + bytes(ICMPv6NDOptSrcLLAddr(lladdr=other.mac))),
            "advertisement with another's MAC in a second option": c.to()
            / c.ip6()
            / na
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac)
            / ICMPv6NDOptDstLLAddr(lladdr=other.mac),
            "duplicate detection of another's address": to_all / c.ip6("::", "ff02::1") / ICMPv6ND_NS(tgt=v6(other)),
            "duplicate detection with a MAC": to_all
            / c.ip6("::", "ff02::1")
            / ICMPv6ND_NS(tgt=v6(me))
            / ICMPv6NDOptSrcLLAddr(lladdr=other.mac),
            "advertisement in a fragment": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(m=1, id=7, nh=58)
            / na_other
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
            "advertisement in an atomic fragment": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(id=7, nh=58)
            / na_other
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
            "advertisement behind a hop-by-hop header": c.to() / c.ip6() / IPv6ExtHdrHopByHop() / na_other,
            "advertisement behind destination options": c.to() / c.ip6() / IPv6ExtHdrDestOpt() / na_other,
            "advertisement of its own behind a hop-by-hop header": c.to() / c.ip6() / IPv6ExtHdrHopByHop() / na,
            "solicitation from another's address": c.to() / c.ip6(v6(other)) / ns / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
            "inverse advertisement": c.to() / c.ip6() / ICMPv6ND_INDAdv(),
        },
    )
    add(
        Reason.SPOOFED_ADDRESS,
        {
            "advertisement of its own from another's address": c.to()
            / c.ip6(v6(other))
            / na
            / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        },
    )
    add(
        Reason.DHCP,
        {
            "discover": c.to(BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255") / DISCOVER,
            "discover from its address": c.to(BROADCAST) / c.ip(destination="255.255.255.255") / DISCOVER,
            "renewal, unicast": c.to() / c.ip() / DISCOVER,
            "offer": c.to(BROADCAST) / c.ip(destination="255.255.255.255") / OFFER,
            "offer, unicast": c.to() / c.ip() / OFFER,
            "offer from the leg's address": c.to() / c.ip(LEG[0]) / OFFER,
            "offer in a fragment": c.to() / c.ip(flags="MF", id=7) / OFFER,
            "offer in a first fragment of 8 bytes": c.to()
            / c.ip(flags="MF", id=7, proto=17)
            / Raw(bytes(UDP(sport=67, dport=68, len=300))),
            "solicit": c.to("33:33:00:01:00:02")
            / c.ip6(ll(me), "ff02::1:2")
            / UDP(sport=546, dport=547)
            / DHCP6_Solicit(),
            "advertise": c.to() / c.ip6(ll(me), ll(you)) / UDP(sport=547, dport=546) / DHCP6_Advertise(),
            "advertise behind extension headers": c.to()
            / c.ip6(ll(me), ll(you))
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / UDP(sport=547, dport=546)
            / DHCP6_Advertise(),
            "advertise in a fragment": c.to()
            / c.ip6(ll(me), ll(you))
            / IPv6ExtHdrFragment(m=1, id=7)
            / UDP(sport=547, dport=546)
            / BODY,
        },
    )
    add(
        Reason.ROUTER_DISCOVERY,
        {
            "solicitation": c.to("33:33:00:00:00:02") / c.ip6(ll(me), "ff02::2") / ICMPv6ND_RS(),
            "advertisement": to_all / c.ip6(ll(me), "ff02::1") / RA,
            "advertisement, unicast": c.to() / c.ip6(ll(me), ll(you)) / RA,
            "advertisement from the leg's address": to_all / c.ip6("fe80::1", "ff02::1") / RA,
            "advertisement behind a hop-by-hop header": to_all / c.ip6(ll(me), "ff02::1") / IPv6ExtHdrHopByHop() / RA,
            "advertisement behind many headers": to_all
            / c.ip6(ll(me), "ff02::1")
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / RA,
            "advertisement in a first fragment": to_all
            / c.ip6(ll(me), "ff02::1")
            / IPv6ExtHdrFragment(m=1, id=7, nh=58)
            / RA,
            "advertisement in an atomic fragment behind options": to_all
            / c.ip6(ll(me), "ff02::1")
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrFragment(id=7, nh=60)
            / IPv6ExtHdrDestOpt()
            / RA,
            "redirect": c.to() / c.ip6(ll(me), v6(you)) / ICMPv6ND_Redirect(tgt=ll(me), dst=v6(other)),
        },
    )
    add(
        Reason.TAGS,
        {
            "a VLAN": c.to() / Dot1Q(vlan=7) / bare4,
            "a VLAN, IPv6": c.to() / Dot1Q(vlan=7) / bare6,
            "a priority tag": c.to() / Dot1Q(vlan=0, prio=5) / bare4,
            "a priority tag, IPv6": c.to() / Dot1Q(vlan=0) / bare6,
            "two VLANs": c.to() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / bare4,
            "two priority tags": c.to() / Dot1Q(vlan=0) / Dot1Q(vlan=0) / bare4,
            "a service tag": c.to() / Dot1AD(vlan=7) / bare4,
            "a service tag of priority": c.to() / Dot1AD(vlan=0) / bare4,
            "a service tag and a VLAN": c.to() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / bare4,
            "an old service tag": c.to(kind=0x9100) / Raw(b"\0\7\x08\0" + bytes(bare4)),
            "an offer behind a priority tag": c.to(BROADCAST)
            / Dot1Q(vlan=0)
            / c.ip(destination="255.255.255.255")
            / OFFER,
            "an advertisement behind two tags": to_all / Dot1Q(vlan=0) / Dot1Q(vlan=0) / c.ip6(ll(me), "ff02::1") / RA,
            "spoofed ARP behind a tag": c.to() / Dot1Q(vlan=0) / c.arp(psrc=v4(other)),
        },
    )
    add(
        Reason.ETHERTYPE,
        {
            **{
                name: c.to(kind=kind) / BODY
                for name, kind in {
                    "MPLS": 0x8847,
                    "PPPoE discovery": 0x8863,
                    "PPPoE session": 0x8864,
                    "provider backbone": 0x88E7,
                    "MACsec": 0x88E5,
                    "EAPOL": 0x888E,
                    "LLDP, unicast": 0x88CC,
                    "slow protocols, unicast": 0x8809,
                    "time": 0x88F7,
                    "wake on LAN": 0x0842,
                    "network service header": 0x894F,
                    "HSR": 0x892F,
                    "RoCE": 0x8915,
                    "loopback": 0x9000,
                    "local experiment": 0x88B5,
                    "none": 0x0600,
                }.items()
            },
            "IPv4 in LLC": c.to(kind=200) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x0800) / bare4,
            "IPv6 in LLC": c.to(kind=200) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x86DD) / bare6,
            "spanning tree to one MAC": c.to(kind=38) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
            "Cisco discovery": c.to("01:00:0c:cc:cc:cc", kind=60) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(),
            "per-VLAN spanning tree": c.to("01:00:0c:cc:cc:cd", kind=60)
            / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
            / SNAP(OUI=0x0C, code=0x010B)
            / STP(),
        },
    )
    add(
        Reason.RESERVED_MULTICAST,
        {
            "spanning tree": c.to("01:80:c2:00:00:00", kind=38) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
            "provider spanning tree": c.to("01:80:c2:00:00:08", kind=38) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
            "pause": c.to("01:80:c2:00:00:01", kind=0x8808) / Raw(b"\0\1\xff\xff"),
            "LACP": c.to("01:80:c2:00:00:02", kind=0x8809) / BODY,
            "EAPOL": c.to("01:80:c2:00:00:03", kind=0x888E) / BODY,
            "LLDP": c.to("01:80:c2:00:00:0e", kind=0x88CC) / BODY,
            "registration": c.to("01:80:c2:00:00:21", kind=60) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / BODY,
            "IPv4 to it": c.to("01:80:c2:00:00:00") / bare4,
            "IPv6 to it": c.to("01:80:c2:00:00:2f") / bare6,
        },
    )
    loose = c.ip(options=[b"\x83\x07\x04" + bytes([10, 0, 0, 3]) + b"\0"]) / DATA
    add(
        Reason.SOURCE_ROUTING,
        {
            "loose source route": c.to() / loose,
            "strict source route": c.to() / c.ip(options=[b"\x89\x07\x04" + bytes([10, 0, 0, 3]) + b"\0"]) / DATA,
            "record route": c.to() / c.ip(options=[b"\x07\x07\x04" + bytes(4) + b"\0"]) / DATA,
            "timestamps": c.to() / c.ip(options=[b"\x44\x08\x05\0" + bytes(4)]) / DATA,
            "a source route behind padding": c.to()
            / c.ip(options=[b"\1\1\1\x83\x07\x04" + bytes([10, 0, 0, 3]) + b"\0\0"])
            / DATA,
            "malformed options": c.to() / c.ip(options=[b"\x83\xff\x04" + bytes([10, 0, 0, 3]) + b"\0"]) / DATA,
            "router alert and a source route": c.to()
            / c.ip(options=[b"\x94\4\0\0\x83\x07\x04" + bytes([10, 0, 0, 3]) + b"\0"])
            / DATA,
            "offer behind options": c.to() / c.ip(options=[b"\1\1\1\0"]) / OFFER,
            "IPv6 routing header 0": c.to()
            / c.ip6()
            / IPv6ExtHdrRouting(type=0, addresses=[v6(other)], segleft=1)
            / DATA,
            "IPv6 routing header 2": c.to() / c.ip6() / IPv6ExtHdrRouting(type=2, addresses=[v6(other)]) / DATA,
            "IPv6 segment routing": c.to()
            / c.ip6()
            / IPv6ExtHdrRouting(type=4, addresses=[v6(other)], segleft=1)
            / DATA,
            "IPv6 routing header used up": c.to()
            / c.ip6()
            / IPv6ExtHdrRouting(type=0, addresses=[v6(other)], segleft=0)
            / DATA,
            "IPv6 routing header behind others": c.to()
            / c.ip6()
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrRouting(addresses=[v6(other)])
            / DATA,
            "IPv6 routing header in a first fragment": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(m=1, id=7, nh=43)
            / IPv6ExtHdrRouting(addresses=[v6(other)])
            / DATA,
        },
    )
    cut = bytes(IPv6ExtHdrDestOpt(nh=58))[:4]
    add(
        Reason.HIDDEN_HEADERS,
        {
            "first fragment without ports": c.to() / c.ip(flags="MF", proto=17, id=7),
            "first fragment with half a header": c.to() / c.ip(flags="MF", proto=17, id=7) / Raw(b"\0\x43"),
            "datagram without ports": c.to() / c.ip(proto=17) / Raw(b"\0\x43"),
            "IPv4 longer than its frame": c.to() / c.ip(len=1000) / OFFER,
            "IPv4 shorter than its header": c.to() / c.ip(len=12) / OFFER,
            "IPv6 longer than its frame": c.to() / c.ip6(plen=1000) / OFFER,
            "IPv6 first fragment of nothing": c.to() / c.ip6() / IPv6ExtHdrFragment(m=1, id=7, nh=58),
            "IPv6 first fragment of nothing, UDP": c.to() / c.ip6() / IPv6ExtHdrFragment(m=1, id=7, nh=17),
            "IPv6 first fragment of options": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(m=1, id=7, nh=60)
            / Raw(bytes(IPv6ExtHdrDestOpt(nh=58))),
            "IPv6 first fragment of half its options": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(m=1, id=7, nh=60)
            / Raw(cut),
            "IPv6 first fragment of half its options, of no known kind": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(m=1, id=7, nh=60)
            / Raw(b"\xcc\xcd\1\4"),
            "IPv6 options without an end": c.to() / c.ip6(nh=60) / Raw(b"\x3b\4\1\4"),
            "a fragment of a later fragment": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(m=1, id=7, nh=44)
            / IPv6ExtHdrFragment(offset=10, id=8, nh=58)
            / RA,
            "IPv6 fragment header cut short": c.to() / c.ip6(nh=44) / Raw(b"\x3a\0\1\4"),
            "no next header, longer than its frame": c.to() / c.ip6(nh=59, plen=8),
            "IPv6 options cut short": c.to() / c.ip6(nh=60) / Raw(cut),
            "a later IPv6 fragment of options": c.to()
            / c.ip6()
            / IPv6ExtHdrFragment(offset=10, id=7, nh=60)
            / Raw(bytes(IPv6ExtHdrDestOpt(nh=58)) + bytes(RA)),
            "ICMPv6 without a type": c.to() / c.ip6(nh=58),
            "Shim6": c.to() / c.ip6(nh=140) / Raw(b"\x3a\0" + bytes(6) + bytes(RA)),
            "HIP": c.to() / c.ip6(nh=139) / Raw(b"\x3a\0" + bytes(6) + bytes(RA)),
            "mobility": c.to() / c.ip6(nh=135) / Raw(b"\x3a\0" + bytes(6) + bytes(RA)),
            "IPv4 as IPv6": c.to(kind=0x86DD) / Raw(bytes(bare4).ljust(80, b".")),
        },
    )
    add(
        Reason.SOURCE_ROUTING,
        {
            "IPv6 as IPv4": c.to(kind=0x0800) / Raw(bytes(bare6)),
            "a header of 16 bytes": c.to() / c.ip(ihl=4) / DATA,
        },
    )
    add(
        Reason.GROUP_TO_ONE,
        {
            "broadcast to one address": c.to(BROADCAST) / bare4,
            "multicast to one address": c.to("01:00:5e:00:00:05") / bare4,
            "broadcast to the world": c.to(BROADCAST) / c.ip(destination="198.51.100.1") / DATA,
            "multicast to one IPv6 address": c.to(ALL_NODES) / bare6,
            "duplicate detection to one address": to_all / c.ip6("::", v6(you)) / ICMPv6ND_NS(tgt=v6(me)),
            "broadcast to one IPv6 address": c.to(BROADCAST) / bare6,
            "NLB's multicast to one address": c.to("03:bf:0a:00:00:02") / bare4,
        },
    )
    add(
        Reason.OTHER_ADDRESS,
        {
            "to the accomplice's MAC, another's address": c.to() / c.ip(destination=v4(other)) / DATA,
            "to the accomplice's MAC, a broadcast address": c.to() / c.ip(destination="10.0.0.255") / DATA,
            "to the accomplice's MAC, limited broadcast": c.to() / c.ip(destination="255.255.255.255") / DATA,
            "to the accomplice's MAC, multicast": c.to() / c.ip(destination="224.0.0.5") / DATA,
            "to the accomplice's MAC, the world": c.to() / c.ip(destination="198.51.100.1") / DATA,
            "to the accomplice's MAC, another's IPv6": c.to() / c.ip6(destination=v6(other)) / DATA,
            "to the accomplice's MAC, another's link-local": c.to() / c.ip6(ll(me), ll(other)) / DATA,
            "to the accomplice's MAC, IPv6 multicast": c.to() / c.ip6(destination="ff02::1") / DATA,
            "to the accomplice's MAC, the IPv6 world": c.to() / c.ip6(destination="2001:db8::1") / DATA,
            "to the accomplice's MAC, an answer by ARP to another": c.to() / c.arp(pdst=v4(other)),
            "to the accomplice's MAC, RARP": c.to(kind=0x8035) / c.arp(op=3, psrc="0.0.0.0"),
        },
    )
    return found


NOT_BRIDGED = {
    *(f"reserved_multicast: {name}" for name in ("pause", "LACP", "EAPOL", "LLDP", "provider spanning tree")),
    *(f"spoofed_mac: {kind} from {what}" for kind in ("IPv4", "IPv6") for what in ("no MAC", "a group MAC")),
}
"""What a bridge forwards to nobody, guarded or not (IEEE 802.1Q table 8-1; br_handle_frame, net/bridge/br_input.c)."""


@cache
def rights(case: Case) -> dict[str, Packet]:
    """What any guest may say to any other."""
    c, me, you = case, case.me, case.you
    to_all = c.to(ALL_NODES)
    return {
        **{
            f"UDP to port {port}": c.to() / c.ip() / UDP(sport=5000, dport=port) / BODY
            for port in (53, 64, 66, 69, 71, 72, 5000)
        },
        **{
            f"UDPv6 to port {port}": c.to() / c.ip6() / UDP(sport=5000, dport=port) / BODY
            for port in (53, 67, 68, 545, 548, 5000)
        },
        "UDP from port 67": c.to() / c.ip() / UDP(sport=67, dport=5000) / BODY,
        "UDP to ports of DHCPv6": c.to() / c.ip() / UDP(sport=67, dport=546) / BODY,
        "TCP": c.to() / c.ip() / TCP(sport=5000, dport=22) / BODY,
        "TCP to port 67": c.to() / c.ip() / TCP(sport=5000, dport=67) / BODY,
        "TCPv6": c.to() / c.ip6() / TCP(sport=5000, dport=22) / BODY,
        "TCPv6 to port 547": c.to() / c.ip6() / TCP(sport=5000, dport=547) / BODY,
        "ping": c.to() / c.ip() / ICMP() / BODY,
        "pingv6": c.to() / c.ip6() / ICMPv6EchoRequest(data=bytes(BODY)),
        "pingv6 by link-local": c.to() / c.ip6(ll(me), ll(you)) / ICMPv6EchoRequest(data=bytes(BODY)),
        "an ICMP error": c.to() / c.ip() / ICMP(type=3, code=4, nexthopmtu=1400) / c.ip(v4(you), v4(me)) / DATA,
        "an ICMPv6 error": c.to() / c.ip6() / ICMPv6DestUnreach() / c.ip6(v6(you), v6(me)) / DATA,
        "SCTP": c.to() / c.ip(proto=132) / BODY,
        "SCTP over IPv6": c.to() / c.ip6(nh=132) / BODY,
        "ESP": c.to() / c.ip6(nh=50) / BODY,
        "an IP tunnel": c.to() / c.ip() / IP(src="10.99.0.1", dst="10.99.0.2") / DATA,
        "GRE": c.to() / c.ip(proto=47) / BODY,
        "no next header": c.to() / c.ip6(nh=59),
        "marked IPv4": c.to() / c.ip(tos=0xB8) / DATA,
        "marked IPv6": c.to() / c.ip6(tc=0xB8) / DATA,
        "a first fragment": c.to() / c.ip(flags="MF", id=9) / DATA,
        "a later fragment": c.to() / c.ip(frag=100, proto=17, id=9) / BODY,
        "a first fragment over IPv6": c.to() / c.ip6() / IPv6ExtHdrFragment(m=1, id=9) / DATA,
        "a later fragment over IPv6": c.to() / c.ip6() / IPv6ExtHdrFragment(offset=100, id=9, nh=17) / BODY,
        "a later fragment of a ping over IPv6": c.to() / c.ip6() / IPv6ExtHdrFragment(offset=9, id=9, nh=58) / BODY,
        "extension headers": c.to() / c.ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / DATA,
        "ARP question": c.to(BROADCAST) / c.arp(op=1, hwdst="00:00:00:00:00:00"),
        "ARP question to one": c.to() / c.arp(op=1),
        "ARP answer": c.to() / c.arp(),
        "ARP answer to a probe": c.to() / c.arp(pdst="0.0.0.0"),
        "ARP probe": c.to(BROADCAST) / c.arp(op=1, psrc="0.0.0.0", pdst=v4(me), hwdst="00:00:00:00:00:00"),
        "gratuitous ARP": c.to(BROADCAST) / c.arp(op=1, pdst=v4(me)),
        "gratuitous ARP, an answer": c.to(BROADCAST) / c.arp(pdst=v4(me), hwdst=BROADCAST),
        "RARP announcement": c.to(BROADCAST, kind=0x8035) / c.arp(op=3, psrc="0.0.0.0", pdst="0.0.0.0", hwdst=me.mac),
        "neighbour solicitation": c.to(f"33:33:ff:{you.mac[9:]}")
        / c.ip6(destination="ff02::1:ff00:1")
        / ICMPv6ND_NS(tgt=v6(you))
        / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "neighbour solicitation to one": c.to() / c.ip6() / ICMPv6ND_NS(tgt=v6(you)),
        "neighbour solicitation by link-local": c.to()
        / c.ip6(ll(me), ll(you))
        / ICMPv6ND_NS(tgt=ll(you))
        / ICMPv6NDOptSrcLLAddr(lladdr=me.mac),
        "duplicate detection": to_all / c.ip6("::", "ff02::1:ff00:1") / ICMPv6ND_NS(tgt=v6(me)),
        "duplicate detection of its link-local": to_all / c.ip6("::", "ff02::1:ff00:1") / ICMPv6ND_NS(tgt=ll(me)),
        "duplicate detection with a nonce": to_all / c.ip6("::", "ff02::1:ff00:1") / ICMPv6ND_NS(tgt=v6(me)) / NONCE,
        "neighbour advertisement": c.to()
        / c.ip6()
        / ICMPv6ND_NA(tgt=v6(me), R=0)
        / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        "neighbour advertisement without a MAC": c.to() / c.ip6() / ICMPv6ND_NA(tgt=v6(me), R=0),
        "unsolicited advertisement": to_all
        / c.ip6(destination="ff02::1")
        / ICMPv6ND_NA(tgt=v6(me), R=0, S=0)
        / ICMPv6NDOptDstLLAddr(lladdr=me.mac),
        "a report of multicast listeners": c.to("33:33:00:00:00:16")
        / c.ip6(ll(me), "ff02::16", hlim=1)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / ICMPv6MLReport2(),
        "a report of multicast listeners without an address": c.to("33:33:00:00:00:16")
        / c.ip6("::", "ff02::16", hlim=1)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / ICMPv6MLReport2(),
        "IGMP": c.to("01:00:5e:00:00:16")
        / c.ip(destination="224.0.0.22", proto=2, ttl=1, options=[b"\x94\4\0\0"])
        / Raw(b"\x22\0\xf9\xfd\0\0\0\0"),
        "IGMP without an address": c.to("01:00:5e:00:00:16")
        / c.ip("0.0.0.0", "224.0.0.22", proto=2, ttl=1, options=[b"\x94\4\0\0"])
        / Raw(b"\x22\0\xf9\xfd\0\0\0\0"),
        "broadcast": c.to(BROADCAST) / c.ip(destination="255.255.255.255") / DATA,
        "broadcast to the subnet": c.to(BROADCAST) / c.ip(destination="10.0.0.255") / DATA,
        "multicast": c.to("01:00:5e:00:00:fb") / c.ip(destination="224.0.0.251") / UDP(sport=5353, dport=5353) / BODY,
        "multicast over IPv6": c.to("33:33:00:00:00:fb")
        / c.ip6(ll(me), "ff02::fb")
        / UDP(sport=5353, dport=5353)
        / BODY,
    }
