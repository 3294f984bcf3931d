"""Random rules of the inet family, of the words that rules of ours are made of, in more ways than any compiler does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF))
PORTS = st.one_of(st.sampled_from([0, 1, 22, 23, 255, 256, 65534, 65535]), st.integers(0, 65535))
FOURS = st.sampled_from(
    [
        *("10.0.0.1", "0.0.0.0", "255.255.255.255"),
        *("10.0.0.0/24", "10.0.0.0/9", "128.0.0.0/1", "0.0.0.0/0"),
        *("10.0.2.3-10.0.2.9", "0.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.255"),
    ]
)
SIXES = st.sampled_from(
    ["fd00::1", "fd00::/64", "fd00::/7", "fe80::1-fe80::9", "ff00::/8", "::", "::-1::", "fd00:0:0:1::/64"]
)
BYTES = [
    *("@nh,0,8 0x45", "@th,16,16 & 0xfff8 != 0x40", "@ll,7,1 1", "@ll,48,48 0x020000000001", "@th,0,16 != 0"),
    *("meta pkttype other", "meta protocol ip6", "tcp flags & (syn | rst) == 0"),
]
VERDICTS = ["accept", "drop", "return", "jump a", "goto b"]
PROTOCOLS = ["tcp", "udp", "sctp", "icmp", "ipv6-icmp"]


def one_of(words: Sequence[str], *, is_inverted: bool = False) -> str:
    listed = words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
    return f"!= {listed}" if is_inverted else listed


@st.composite
def spans(draw: st.DrawFn) -> str:
    first, last = sorted((draw(PORTS), draw(PORTS)))
    return str(first) if draw(st.booleans()) or first == last else f"{first}-{last}"


def _are_apart(words: Sequence[str]) -> bool:
    """libnftables refuses ports that overlap in one set."""
    found = sorted(tuple(map(int, (word.split("-") * 2)[:2])) for word in words)
    return all(one[1] < other[0] for one, other in pairwise(found))


@st.composite
def matches(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 12))
    side = draw(st.sampled_from(["saddr", "daddr"]))
    if kind == 0:
        words = draw(st.lists(st.sampled_from(PROTOCOLS), min_size=1, max_size=4, unique=True))
        return f"meta l4proto {one_of(words, is_inverted=draw(st.booleans()))}"
    if kind == 1:
        return f"{draw(st.sampled_from(['meta', 'ct']))} mark {draw(NUMBERS)}"
    if kind == 2:
        number = draw(NUMBERS)
        return f"ct mark and {number} {draw(st.sampled_from(['==', '!=']))} {number}"
    if kind == 3:
        return f"ct state {draw(st.sampled_from(['new', 'related', 'invalid', 'established']))}"
    if kind == 4:
        words = draw(st.lists(spans(), min_size=1, max_size=5).filter(_are_apart))
        return f"ct original {draw(st.sampled_from(['proto-src', 'proto-dst']))} {one_of(words)}"
    if kind == 5:
        return f"ct original ip {side} {draw(FOURS)}"
    if kind == 6:
        some = draw(st.sampled_from(["{ 10.0.0.1, 10.0.0.3-10.0.0.9, 10.0.1.0/24 }", "{ 10.0.0.1, 10.0.0.9 }"]))
        return f"ct original ip {side} {some}"
    if kind == 7:
        return f"ct original ip6 {side} {draw(SIXES)}"
    if kind == 8:
        return f'iifname "{draw(st.sampled_from(["br1", "br0123456789ab"]))}"'
    if kind == 9:
        return draw(st.sampled_from(["iifname . ip saddr @known", "iifname . ip saddr != @known"]))
    if kind == 10:
        return f"ct direction {draw(st.sampled_from(['original', 'reply']))}"
    if kind == 11:
        return draw(
            st.sampled_from(
                [
                    "@nh,0,8 0x45",
                    "@th,16,16 & 0xfff8 != 0x40",
                    "@ll,7,1 1",
                    "@ll,48,48 0x020000000001",
                    "@th,0,16 != 0",
                    "meta pkttype other",
                    "meta protocol ip6",
                    "tcp flags & (syn | rst) == 0",
                ]
            )
        )
    return f"ip {side} 10.0.0.1" if draw(st.booleans()) else f"ip6 {side} fd00::1"


@st.composite
def endings(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 7))
    verdict = draw(st.sampled_from(VERDICTS))
    if kind == 0:
        keys = draw(st.lists(NUMBERS, min_size=1, max_size=4, unique=True))
        return f"meta mark vmap {{ {', '.join(f'{key} : {draw(st.sampled_from(VERDICTS))}' for key in keys)} }}"
    if kind == 1:
        return "iifname . ct original ip saddr vmap @jumps"
    if kind == 2:
        return f"{draw(st.sampled_from(['meta', 'ct']))} mark set {draw(NUMBERS)} {verdict}"
    if kind == 3:
        over = draw(st.sampled_from(["", "over "]))
        return f'limit rate {over}{draw(st.integers(1, 999))}/second burst 40 packets log prefix "v1 ab reply" group 7'
    if kind == 4:
        return f'counter name "c" {verdict}'
    if kind == 5:
        return draw(
            st.sampled_from(["reject with icmpx admin-prohibited", "ct state vmap { invalid : drop, new : goto a }"])
        )
    if kind == 6:
        return f"meta pkttype set {draw(st.sampled_from(['host', 'other']))} {verdict}"
    return verdict


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Matches, then what is done; such as nft takes."""
    first = draw(st.lists(matches(), max_size=3))
    return " ".join([*first, draw(endings())])
