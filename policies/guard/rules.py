"""Pure. What all guarded devices share: the sets of who is behind which device, and the chains that judge by them.

`check` judges what comes in by a device, `towards` what goes out by a port. A MAC is 48 raw bits here: nft's own
words for Ethernet (`ether saddr`) look at the device that a frame came in by, and on its way out there is none.
Whatever can't be read is dropped: a rule passes what it has seen, and the last one of each chain drops.
"""

from __future__ import annotations

from typing import Final

from policies.compile.marks import UNJUDGED, UNJUDGED_BITS
from policies.compile.tables import Chain, Part, SetShape
from policies.guard import answers
from policies.guard.reason import Reason

SERVICE_MAC: Final = "02:70:67:00:00:01"
"""The service leg's, on every host."""


def drop(reason: Reason) -> str:
    """Counted, and gone."""
    return f'counter name "{reason.counter}" drop'


GROUP: Final = "@ll,7,1 1"
"""A group address, broadcast among them: the first byte's lowest bit (IEEE 802 §8.2)."""

SOURCE, DESTINATION = "iifname . @ll,48,48", "oifname . @ll,0,48"
"""What a frame is looked up by: the device that it came in by, or goes out by, and the station's MAC there."""

DESTINED: Final = {4: f"{DESTINATION} . ip daddr", 6: f"meta protocol ip6 {DESTINATION} . @nh,192,128"}
"""... and the address, by version."""

MACS, BROADCASTS = "macs", "broadcasts"
PAIRS: Final = {4: "pairs4", 6: "pairs6"}
RANGES: Final = {4: "ranges4", 6: "ranges6"}
_SETS: Final = {
    MACS: SetShape("set", "typeof iifname . @ll,48,48;"),
    PAIRS[4]: SetShape("set", "typeof iifname . @ll,48,48 . ip saddr;"),
    # An address of IPv6 is 128 raw bits, too: nft has no word for what neighbour discovery is about.
    PAIRS[6]: SetShape("set", "typeof iifname . @ll,48,48 . @nh,64,128;"),
    RANGES[4]: SetShape("set", "typeof iifname . @ll,48,48 . ip saddr; flags interval;"),
    RANGES[6]: SetShape("set", "typeof iifname . @ll,48,48 . @nh,64,128; flags interval;"),
    BROADCASTS: SetShape("set", "typeof iifname . ip daddr;"),
}


def _known(looked_up: str, version: int, verdict: str) -> tuple[str, str]:
    """Rules that pass what is a pair of the device's, or in a range of its."""
    return (f"{looked_up} @{PAIRS[version]} {verdict}", f"{looked_up} @{RANGES[version]} {verdict}")


_SERVICE: Final = hex(int(SERVICE_MAC.replace(":", ""), 16))
TO_SERVICE: Final = f"@ll,0,48 {_SERVICE}"
"""To the network's gateway, where its names are answered."""
_SENDER: Final = "iifname . @nh,64,48"
"""By ARP: its device, and the MAC that it tells of."""
_TARGET: Final = "@th,64,128"
"""Of neighbour discovery: the address that it is about (RFC 4861 §4.3, §4.4)."""
_OPTION, _OPTION_MAC = "@th,192,16", "@th,208,48"
"""Its first option: type and length in units of 8 bytes, and the MAC in it (RFC 4861 §4.6.1)."""
_SOLICIT, _ADVERT = "icmpv6 type nd-neighbor-solicit", "icmpv6 type nd-neighbor-advert"
_ALONE, _WITH_OPTION = "ip6 length 24", "ip6 length 32"

STRANGERS_GROUP: Final = 2
"""The NFLOG group of ARP and RARP by stations that are not a device's."""

HELD: Final = "held"
_STRANGE: Final = "check_strange"
_IS_UNJUDGED = f"meta mark and {UNJUDGED_BITS} == {UNJUDGED}"

_CHAINS: Final = {
    # What still has a mark on its way out. ARP has no judge, so its mark says nothing.
    HELD: (
        *(f"{_IS_UNJUDGED} meta protocol {version} {drop(Reason.UNJUDGED)}" for version in ("ip", "ip6")),
        answers.UNANSWERED,
    ),
    answers.CHAIN: answers.RULES,
    # What a port or a tunnel says: it returns if that may pass.
    "check": (
        f"@ll,48,48 {_SERVICE} {drop(Reason.SERVICE_MAC)}",
        f"{SOURCE} != @{MACS} goto {_STRANGE}",
        f"@ll,0,40 0x0180c20000 {drop(Reason.RESERVED_MULTICAST)}",
        # The type of a frame with a tag is that of its tag, wherever the kernel keeps it.
        "@ll,96,16 0x0800 goto check_ipv4",
        "@ll,96,16 0x86dd goto check_ipv6",
        "@ll,96,16 0x0806 goto check_arp",
        "@ll,96,16 0x8035 goto check_rarp",
        f"@ll,96,16 {{ 0x8100, 0x88a8, 0x9100, 0x9200 }} {drop(Reason.TAGS)}",
        drop(Reason.ETHERTYPE),
    ),
    # Who announces a MAC where it does not belong is told of, whoever may be hurt by it; it moves nothing.
    _STRANGE: (
        f"@ll,96,16 {{ 0x0806, 0x8035 }} limit rate 20/second burst 40 packets log group {STRANGERS_GROUP}",
        drop(Reason.SPOOFED_MAC),
    ),
    "check_arp": (
        f"@nh,0,48 != 0x000108000604 {drop(Reason.SPOOFED_ARP)}",  # Ethernet, IPv4
        # A probe (RFC 5227 §2.1.1): who probes for another's address says that it is taken.
        *_known(f"arp operation request arp saddr ip 0.0.0.0 {_SENDER} @{MACS} {SOURCE} . arp daddr ip", 4, "return"),
        *_known(f"arp operation {{ request, reply }} {_SENDER} . arp saddr ip", 4, "return"),
        drop(Reason.SPOOFED_ARP),
    ),
    "check_rarp": (  # what a hypervisor announces a moved machine with: it says nothing of addresses
        f"@nh,0,64 0x0001080006040003 @nh,112,32 0 {_SENDER} @{MACS} return",
        drop(Reason.SPOOFED_ARP),
    ),
    "check_ipv4": (
        "@nh,0,8 != 0x45 jump check_options4",
        "meta l4proto udp ip frag-off & 0x1fff == 0 goto check_udp4",
        "meta l4proto != 255 goto check_source4",
        drop(Reason.HIDDEN_HEADERS),  # lengths that don't fit
    ),
    "check_options4": (  # RFC 7126; multicast needs router alerts (RFC 2113), alone in a header of 24 bytes
        "@nh,0,8 0x46 @nh,160,32 0x94040000 return",
        drop(Reason.SOURCE_ROUTING),
    ),
    "check_udp4": (  # RFC 2131 §4.1
        f"@th,16,16 {{ 67, 68 }} {drop(Reason.DHCP)}",
        "@th,16,16 != 0 goto check_source4",
        drop(Reason.HIDDEN_HEADERS),
    ),
    "check_source4": (
        f"{GROUP} ip daddr != {{ 224.0.0.0/4, 255.255.255.255 }} iifname . ip daddr != @{BROADCASTS} "
        f"{drop(Reason.GROUP_TO_ONE)}",
        *_known(f"{SOURCE} . ip saddr", 4, "return"),
        f"{GROUP} ip saddr 0.0.0.0 ip protocol igmp return",  # before it has an address (RFC 3376 §4.2.13)
        drop(Reason.SPOOFED_ADDRESS),
    ),
    "check_ipv6": (
        f"{GROUP} ip6 daddr != ff00::/8 {drop(Reason.GROUP_TO_ONE)}",
        f"exthdr rt exists {drop(Reason.SOURCE_ROUTING)}",
        # Mobility, HIP, Shim6 and experiments: headers that nobody here can look behind (RFC 7045 §4).
        f"meta l4proto {{ 135, 139, 140, 253, 254 }} {drop(Reason.HIDDEN_HEADERS)}",
        "frag frag-off != 0 goto check_fragment6",
        "meta l4proto 59 @nh,48,8 59 goto check_source6",  # nothing follows
        # Three bytes: of one, two or four the kernel reads something of later fragments, too (nft_payload_fast_eval).
        "@th,0,24 0-0xffffff goto check_upper6",
        drop(Reason.HIDDEN_HEADERS),  # headers cut short, or lengths that don't fit (RFC 7112)
    ),
    "check_upper6": (
        "meta l4proto udp goto check_udp6",
        "meta l4proto ipv6-icmp goto check_icmp6",
        "goto check_source6",
    ),
    "check_fragment6": (  # a later one; the first was judged, and without it nobody can put this one to use
        "frag id 0-0xffffffff meta l4proto != 255 goto check_source6",
        drop(Reason.HIDDEN_HEADERS),
    ),
    "check_udp6": (  # RFC 8415 §7.2
        f"@th,16,16 {{ 546, 547 }} {drop(Reason.DHCP)}",
        "@th,16,16 != 0 goto check_source6",
        drop(Reason.HIDDEN_HEADERS),
    ),
    "check_icmp6": (
        f"icmpv6 type {{ nd-router-solicit, nd-router-advert, nd-redirect }} {drop(Reason.ROUTER_DISCOVERY)}",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } goto check_nd",
        f"icmpv6 type {{ ind-neighbor-solicit, ind-neighbor-advert }} {drop(Reason.SPOOFED_ND)}",  # RFC 3122
        "icmpv6 type != 255 goto check_source6",
        drop(Reason.HIDDEN_HEADERS),
    ),
    "check_nd": (
        f"ip6 nexthdr != ipv6-icmp {drop(Reason.SPOOFED_ND)}",  # fragments (RFC 6980) and extension headers
        *_known(f"{_SOLICIT} ip6 saddr :: {SOURCE} . {_TARGET}", 6, "goto check_detection"),
        f"{_SOLICIT} ip6 saddr :: {drop(Reason.SPOOFED_ND)}",
        f"{_SOLICIT} {_ALONE} goto check_source6",
        *_known(
            f"{_SOLICIT} {_WITH_OPTION} {_OPTION} 0x0101 iifname . {_OPTION_MAC} . @nh,64,128",
            6,
            "goto check_source6",
        ),
        *_known(f"{_ADVERT} {_ALONE} {SOURCE} . {_TARGET}", 6, "goto check_source6"),
        *_known(
            f"{_ADVERT} {_WITH_OPTION} {_OPTION} 0x0201 iifname . {_OPTION_MAC} . {_TARGET}",
            6,
            "goto check_source6",
        ),
        drop(Reason.SPOOFED_ND),
    ),
    "check_detection": (  # of duplicates (RFC 4862 §5.4.2), with or without a nonce (RFC 7527 §4)
        f"{_ALONE} return",
        f"{_WITH_OPTION} {_OPTION} 0x0e01 return",
        drop(Reason.SPOOFED_ND),
    ),
    "check_source6": (
        *_known(f"{SOURCE} . @nh,64,128", 6, "return"),
        # before it has an address (RFC 3590 §4)
        f"{GROUP} ip6 saddr :: icmpv6 type {{ mld-listener-report, mld-listener-done, mld2-listener-report }} return",
        drop(Reason.SPOOFED_ADDRESS),
    ),
    # What goes out by a port, but for what its own chain has passed already.
    "towards": (
        f"{GROUP} accept",
        f"@ll,48,48 {_SERVICE} @ll,96,16 0x0800 @nh,72,8 17 @th,0,16 67 accept",  # of DHCP, to whom nobody declared
        f"{DESTINATION} != @{MACS} {drop(Reason.OTHER_MAC)}",
        f"@ll,48,48 {_SERVICE} accept",  # answers of DHCP go to addresses that the client has not yet
        *(rule for version, destined in DESTINED.items() for rule in _known(destined, version, "accept")),
        "arp daddr ip 0.0.0.0 accept",  # the answer to a probe
        *_known(f"{DESTINATION} . arp daddr ip", 4, "accept"),
        drop(Reason.OTHER_ADDRESS),
    ),
}

SHARED: Final = Part(
    chains={name: Chain(rules) for name, rules in _CHAINS.items()},
    sets=_SETS,
    counters=frozenset(reason.counter for reason in Reason),
)
"""The part of no device: what the parts of all devices speak of."""
