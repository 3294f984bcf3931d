"""Pure. The static rules that keep address delivery at the port: one nftables text, the same on every host, always.

DHCP and router discovery are answered at a port by a packet socket. Such a socket sees a frame before any rule does
(net/core/dev.c taps before the bridge), so dropping the frame at the bridge silences nobody: no client's question
leaves its port, and no guest can answer another's.
"""

from __future__ import annotations

import hashlib

FAMILY, TABLE, CHAIN = "bridge", "playground_guard", "answered_at_the_port"

COUNTERS = ("dhcp4", "dhcp6", "router_discovery", "stacked_tags")
"""Names of the counters: frames dropped, each counted once however many ports it would have reached."""

# `meta protocol` and not `ether type`: the latter is that of a VLAN tag where there is one, and a receiver takes a
# priority tag (VLAN 0, IEEE 802.1Q) off and goes on with what lies behind.
_MATCHES = (
    # Client and server ports in both directions (RFC 2131 §4.1, RFC 8415 §7.2).
    ("dhcp4", "meta protocol ip udp dport { 67, 68 }"),
    ("dhcp6", "meta protocol ip6 udp dport { 546, 547 }"),
    # Found behind extension headers too (RFC 7113 §2); fragments of them no receiver takes (RFC 6980 §5).
    ("router_discovery", "meta protocol ip6 icmpv6 type { nd-router-solicit, nd-router-advert }"),
    # One tag is looked behind, two are not; behind a priority tag nothing but a way round the above has a second.
    ("stacked_tags", "@ll,96,16 { 0x8100, 0x88a8 } @ll,116,12 0 meta protocol { 0x8100, 0x88a8 }"),
)


def ruleset() -> str:
    """The whole ruleset as `nft -f` takes it: it replaces an older one of ours in one transaction.

    At the bridge's prerouting hook, before forwarding is decided: whatever port or VXLAN device a frame came in by.
    """
    mark = rule_comments()
    rules = [
        f'        {match} counter name "{counter}" drop comment "{comment}"'
        for (counter, match), comment in zip(_MATCHES, mark, strict=True)
    ]
    return "\n".join(
        [
            f"table {FAMILY} {TABLE}",
            f"delete table {FAMILY} {TABLE}",
            f"table {FAMILY} {TABLE} {{",
            *(f"    counter {name} {{ }}" for name in COUNTERS),
            f"    chain {CHAIN} {{",
            "        type filter hook prerouting priority -300; policy accept;",
            *rules,
            "    }",
            "}",
            "",
        ]
    )


def rule_comments() -> tuple[str, ...]:
    """One comment a rule, in order. It names the rule's text, so what is read back tells which version is loaded."""
    return tuple(f"{counter} {hashlib.sha256(match.encode()).hexdigest()[:12]}" for counter, match in _MATCHES)
