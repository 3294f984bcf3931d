"""Pure. The way of a packet: the chains and sets that all playgrounds share, and how it comes to a playground's judges.

A packet of a connection that was accepted passes by one comparison; any other is led to whoever judges its ends here.
"""

from __future__ import annotations

from policies.compile.judges import REFUSE, forwards_name
from policies.compile.marks import REFUSED, TURNED
from policies.compile.places import FAMILIES, Blocks
from policies.compile.tables import Chain, Part, SetShape

TABLE = ("inet", "playground_policy")

MOST_CONNECTIONS, MOST_NEW_PER_SECOND = 16384, 2000
"""Of one source address: connections at a time, and new ones a second, after a burst of two seconds' worth. A few
hundred workspaces that all go as far fit into what a kernel tracks (nf_conntrack_max, 262144 by default)."""

OVERFLOW = "connections_refused"
"""Counter of the packets that a source's bounds refused."""

MOST_TOLD_PER_SECOND = 100
"""Refusals that one source address is told of a second, after a burst of twice as many; of the others it hears
nothing."""

_EPHEMERAL = 32768
"""Ports from here on are those of clients (Linux: ip_local_port_range; RFC 6056 §3.2), those below of servers."""

REVERSED = 0x40000000
"""A bit of the mark of a connection that is known the wrong way round, as its first packet seen here was an answer."""

_QUESTION = f"proto-src {_EPHEMERAL}-65535 ct original proto-dst 0-{_EPHEMERAL - 1}"
_ANSWER = f"proto-src 0-{_EPHEMERAL - 1} ct original proto-dst {_EPHEMERAL}-65535"
"""What began a connection that was not seen to begin is guessed by its ports, where they tell; else both ways are
tried."""

_MAPS = (
    ("ends", "daddr"),
    ("egress", "saddr"),
    ("ingress", "daddr"),
    ("back_egress", "daddr"),
    ("back_ingress", "saddr"),
)
"""Maps that all playgrounds share, of each IP version, and where their key is in the direction of the flow."""


def _static() -> Part:
    sets = {}
    for family in FAMILIES.values():
        for side, key in _MAPS:
            value = "meta mark" if side == "ends" else "verdict"
            sets[f"{side}_{family}"] = SetShape("map", f"typeof iifname . ct original {family} {key} : {value};")
        sets[f"silent_{family}"] = SetShape("set", f"typeof iifname . {family} saddr;")
        shape = f"typeof iifname . {family} saddr; size 65535; flags dynamic,timeout; timeout 10s;"
        sets[f"told_{family}"] = SetShape("set", shape)
        for bound in ("new", "open"):
            shape = f"typeof iifname . ct original {family} saddr; size 65535; flags dynamic;"
            if bound == "new":
                shape = f"typeof iifname . ct original {family} saddr; size 65535; flags dynamic,timeout; timeout 10s;"
            sets[f"{bound}_{family}"] = SetShape("set", shape)
    sets["marked"] = SetShape("map", f"typeof meta mark : ct zone; size {_MOST};")
    sets["zones"] = SetShape("map", "typeof iifname : ct zone;")
    sets["accepted"] = SetShape("set", f"typeof ct mark; size {_MOST};")
    sets["policed"] = SetShape("map", "typeof iifname : verdict;")
    sets["broadcasts"] = SetShape("set", "typeof iifname . ip daddr;")
    chains = {
        # Before defragmentation (-400): fragments of two playgrounds may have equal addresses and numbers.
        "enter": Chain(
            (
                # For a bridge, what is for any one machine is for its host. Most is, and is not asked for its address.
                "meta pkttype host ct zone set meta mark map @marked return",
                *(f"{match} notrack accept" for match in _TO_MANY),
                # What the guard has not marked, as what a service leg says.
                "ct zone set iifname map @zones return",
                # A bridge that nobody polices comes here only if somebody has turned its switch: it would share a zone.
                "notrack",
            ),
            "type filter hook prerouting priority -450; policy accept;",
        ),
        "pass": Chain(
            # Most packets are of connections that were accepted: it costs less to know that than whose bridge it is.
            ("ct mark @accepted meta mark set 0 accept", "iifname vmap @policed"),
            "type filter hook forward priority 0; policy accept;",
        ),
        NEIGHBOURS: Chain(("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } meta mark set 0 accept",)),
        STATELESS: Chain(
            (
                f"jump {NEIGHBOURS}",
                *(
                    f"{match} iifname . {family} saddr @silent_{family} drop"
                    for match, family in zip(_TO_MANY, _OF_MANY, strict=True)
                ),
                *(f"{match} meta mark set 0 accept" for match in _TO_MANY),
                "drop",
            )
        ),
        "bounds": Chain(
            tuple(
                f'add @{name}_{family} {{ iifname . ct original {family} saddr {over} }} counter name "{OVERFLOW}" drop'
                for family in FAMILIES.values()
                for name, over in (
                    ("new", f"limit rate over {MOST_NEW_PER_SECOND}/second burst {2 * MOST_NEW_PER_SECOND} packets"),
                    ("open", f"ct count over {MOST_CONNECTIONS}"),
                )
            )
        ),
        REFUSE: Chain(
            (
                "ct state new jump bounds",
                *(
                    f"add @told_{family} {{ iifname . {family} saddr limit rate over {MOST_TOLD_PER_SECOND}/second "
                    f"burst {2 * MOST_TOLD_PER_SECOND} packets }} drop"
                    for family in FAMILIES.values()
                ),
                f"meta mark set {REFUSED} {TURNED} accept",
            )
        ),
    }
    return Part(chains, sets, {}, frozenset({OVERFLOW}))


_MOST = 16384
"""Policed bridges, and policed playgrounds, of a host. Every packet is looked up by them, and a set whose size is told
is of the kind that finds most quickly (nft_set_hash.c: the tables never grow)."""

_TO_MANY = ("ip daddr 224.0.0.0/4", "ip daddr 255.255.255.255", "iifname . ip daddr @broadcasts", "ip6 daddr ff00::/8")
_OF_MANY = ("ip", "ip", "ip", "ip6")
"""Multicast and broadcast, which no connection tracks, and the family of each match."""

STATELESS, NEIGHBOURS = "stateless", "neighbours"

STATIC = _static()
"""What all playgrounds share."""


def lenient_chains(id: str, generation: int, blocks: Blocks, known: tuple[str, ...]) -> dict[str, Chain]:
    """A playground's chain and those beside it, for flows that may be known the wrong way round."""
    turned, keys = generation | REVERSED, FAMILIES.values()
    backwards: list[str] = []
    for side, own, other in (("egress", "daddr", "saddr"), ("ingress", "saddr", "daddr")):
        backwards.append("meta mark set 0")
        backwards += [f"meta mark set iifname . ct original {key} {other} map @ends_{key}" for key in FAMILIES.values()]
        backwards += blocks.marks[other]
        backwards += [f"iifname . ct original {key} {own} vmap @back_{side}_{key}" for key in keys]
    return {
        f"p_{id}": Chain(
            (
                *known,
                f"ct mark {turned} meta mark set 0 accept",
                f"ct mark and {REVERSED} == {REVERSED} goto b_{id}",
                f"ct state new tcp flags & (syn | rst) == 0 ct original {_QUESTION} goto {forwards_name(id)}",
                f"ct state new tcp flags & (syn | rst) == 0 goto b_{id}",
                f"goto {forwards_name(id)}",
            )
        ),
        f"b_{id}": Chain((*backwards, "ct state new jump bounds", f"ct mark set {turned} meta mark set 0 accept")),
        forwards_name(id): Chain(
            (
                f"ct mark and {REVERSED} == {REVERSED} ct mark set {REVERSED} drop",
                f"ct state new tcp flags & (syn | rst) == 0 ct original {_ANSWER} drop",
                *judging(generation, blocks),
            )
        ),
    }


def known(generation: int, stateless: str) -> tuple[str, ...]:
    return (
        f"ct mark {generation} meta mark set 0 accept",
        "ct state related meta mark set 0 accept",
        f"ct state vmap {{ invalid : drop, untracked : goto {stateless} }}",
    )


def judging(generation: int, blocks: Blocks) -> tuple[str, ...]:
    """No packet is accepted before both sides spoke, if they are here."""
    rules: list[str] = []
    for side, own, other in (("egress", "saddr", "daddr"), ("ingress", "daddr", "saddr")):
        rules.append("meta mark set 0")
        rules += [f"meta mark set iifname . ct original {key} {other} map @ends_{key}" for key in FAMILIES.values()]
        rules += blocks.marks[other]
        rules += [f"iifname . ct original {key} {own} vmap @{side}_{key}" for key in FAMILIES.values()]
        rules += blocks.jumps[side]
    return (*rules, *_accepting(generation))


def _accepting(mark: int) -> tuple[str, ...]:
    return ("ct state new jump bounds", f"ct mark set {mark} meta mark set 0 accept")
