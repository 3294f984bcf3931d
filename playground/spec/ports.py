"""Pure. Ports as files write them (`tcp/22`, `udp/5000-5100`, `sctp`, `icmp/echo`), read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from playground.spec.problem import suggestion
from policies.ports import EVERYTHING, LIMITS, Ports, Protocol

ICMP_KINDS = {
    "echo": 8,
    "echo-reply": 0,
    "unreachable": 3,
    "redirect": 5,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp": 13,
    "timestamp-reply": 14,
}
"""By the names of RFC 792, RFC 950 and RFC 1256, as ICMPv4 numbers them; ICMPv6 joins by meaning."""

_PROTOCOLS = {protocol.value.lower(): protocol for protocol in Protocol if protocol is not Protocol.OTHER}
_NUMBERS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse_ports(text: str) -> Ports:
    """One entry of `ports:`. Raises ValueError with what is allowed."""
    word, slash, rest = text.strip().partition("/")
    protocol = _PROTOCOLS.get(word)
    if protocol is None:
        hint = f"; write them with their protocol, as tcp/{text}" if _NUMBERS.fullmatch(text.strip()) else ""
        raise ValueError(f"unknown protocol {word[:60]!r}{hint or suggestion(word, _PROTOCOLS)}")
    if not slash:
        return Ports.of(protocol)
    if protocol is Protocol.ICMP and rest in ICMP_KINDS:
        return Ports.of(protocol, ICMP_KINDS[rest])
    found = _NUMBERS.fullmatch(rest)
    if not found and protocol is Protocol.ICMP:
        raise ValueError(f"unknown kind of ICMP {rest[:60]!r}{suggestion(rest, ICMP_KINDS)}")
    if not found:
        raise ValueError(f"read {text[:60]!r}; write {word}/PORT, {word}/FIRST-LAST, or {word} for all of its ports")
    first, last = int(found[1]), int(found[2] or found[1])
    lowest, highest = LIMITS[protocol]
    if first > last:
        raise ValueError(f"{text!r} is reversed; write {word}/{last}-{first}")
    if not lowest <= first <= last <= highest:
        raise ValueError(f"{text!r} is out of range; {word} has {lowest} to {highest}")
    return Ports.of(protocol, first, last)


def port_words(ports: Ports) -> Iterable[str]:
    """The entries of `ports:` that mean this set; none for everything, which a rule says by leaving the key out.

    Raises ValueError for what no list of entries says: other protocols than the four, but not everything.
    """
    if ports == EVERYTHING:
        return
    kinds = {number: kind for kind, number in ICMP_KINDS.items()}
    for protocol, ranges in ports.parts:
        if protocol is Protocol.OTHER:
            raise ValueError("other protocols than TCP, UDP, SCTP and ICMP can't be written by themselves")
        word = protocol.value.lower()
        for first, last in ranges:
            if (first, last) == LIMITS[protocol]:
                yield word
            elif first < last:
                yield f"{word}/{first}-{last}"
            else:
                yield f"{word}/{kinds.get(first, first) if protocol is Protocol.ICMP else first}"
