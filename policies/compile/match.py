"""Pure. Sets of ports as nft text that matches a flow's original direction, and ICMPv6 types as ICMP's numbers."""

from __future__ import annotations

from policies.ports import EVERYTHING, LIMITS, Ports, Protocol, Range

_NAMES = {
    Protocol.TCP: ("tcp",),
    Protocol.UDP: ("udp",),
    Protocol.SCTP: ("sctp",),
    Protocol.ICMP: ("icmp", "ipv6-icmp"),
}

_BY_MEANING = {128: 8, 129: 0, 1: 3, 2: 3, 3: 11, 4: 12}
"""ICMPv6 type (RFC 4443) → ICMP type (RFC 792): echo, its reply, unreachable, too big, time exceeded, bad parameter."""

_NO_MEANING = 255
"""ICMPv6 types that ICMP lacks count as this one, which nobody uses (RFC 6918): what speaks of all types, speaks of
them."""


def icmp_type(icmp6_type: int) -> int:
    """The ICMP type that an ICMPv6 type counts as."""
    return _BY_MEANING.get(icmp6_type, _NO_MEANING)


def matches(ports: Ports, key: str = "proto-dst") -> tuple[str, ...]:
    """Texts of which just one matches each flow whose protocol and port are in the set; ("",) for everything.

    key: "proto-src" for flows that began before they were known, and are known the wrong way round; not for ICMP.

    A port 0, which the set can't hold, goes with port 1. ICMP's type and code are what connection tracking has for
    a destination port, type × 256 + code; so ICMP is told by its type in the original direction, an echo reply by 8.
    """
    if ports == EVERYTHING:
        return ("",)
    parts = dict(ports.parts)
    whole = [protocol for protocol in _NAMES if parts.get(protocol) == (LIMITS[protocol],)]
    found: list[str] = []
    if Protocol.OTHER in parts:
        found.append(f"meta l4proto != {_one_of([name for key in _NAMES if key not in whole for name in _NAMES[key]])}")
    elif whole:
        found.append(f"meta l4proto {_one_of([name for key in whole for name in _NAMES[key]])}")
    partial: dict[tuple[Range, ...], list[str]] = {}
    for protocol, ranges in parts.items():
        if protocol in whole or protocol is Protocol.OTHER:
            continue
        if protocol is Protocol.ICMP:
            found += _icmp(ranges)
        else:
            partial.setdefault(ranges, []).extend(_NAMES[protocol])
    for ranges, names in partial.items():
        listed = [_range(first if first > 1 else 0, last) for first, last in ranges]
        found.append(f"meta l4proto {_one_of(names)} ct original {key} {_one_of(listed)}")
    return tuple(found)


def _icmp(ranges: tuple[Range, ...]) -> list[str]:
    sixes = [kind for kind in range(256) if any(first <= icmp_type(kind) <= last for first, last in ranges)]
    found = [("icmp", list(ranges)), ("ipv6-icmp", _runs(sixes))]
    return [
        f"meta l4proto {name} ct original proto-dst {_one_of([_range(a << 8, b << 8 | 255) for a, b in kinds])}"
        for name, kinds in found
        if kinds
    ]


def _runs(numbers: list[int]) -> list[Range]:
    found: list[Range] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
