"""Pure. Flows as the kernel's connection tracking knows them: which way each began, and in what state it is.

A flow goes along when its workspace moves, so the new host knows in which direction it began and that it was accepted.
Numbers are the kernel's: linux/netfilter/nf_conntrack_{common,tcp,sctp}.h.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

SEEN_REPLY, ASSURED, CONFIRMED = 1 << 1, 1 << 2, 1 << 3
"""Bits of a status: packets have gone both ways; it is not dropped early; it is in the table."""

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})
WITH_TYPES = frozenset({ICMP, ICMPV6})


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a flow. Addresses are canonical text, both of one family.

    numbers: (source port, destination port) of a protocol with ports; (identifier, type, code) of ICMP and ICMPv6; ()
    of any other protocol.
    """

    source: str
    destination: str
    protocol: int
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry. original: the direction in which it began; reply: what answers look like, addresses swapped.

    timeout_s: until it is forgotten if nothing comes. mark: the verdict kept with it. state: TCP_CONNTRACK_* or
    SCTP_CONNTRACK_*, else 0. tags: SCTP's verification tags (original, reply).
    """

    original: Tuple
    reply: Tuple
    zone: int = 0
    status: int = 0
    timeout_s: int = 0
    mark: int = 0
    state: int = 0
    tags: tuple[int, int] = (0, 0)


def turned(flow: Flow) -> Flow:
    """The same flow as if it had begun at its other end."""
    return replace(flow, original=flow.reply, reply=flow.original, tags=(flow.tags[1], flow.tags[0]))


class Among:
    """Addresses, and whole prefixes of them, to look others up in. Raises ValueError for what is neither."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._alone = frozenset(texts)
        self._blocks = [ip_network(text) for text in self._alone if "/" in text]

    def __contains__(self, address: object) -> bool:
        if address in self._alone or not self._blocks:
            return address in self._alone
        one = ip_address(str(address))
        return any(one in block for block in self._blocks)


def concerns(flow: Flow, addresses: Container[str]) -> bool:
    """Whether it has one of these addresses at either end."""
    return flow.original.source in addresses or flow.original.destination in addresses


def is_sound(flow: Flow) -> bool:
    """Whether a flow that somebody else has told of can be one: everything in its range, all addresses of a family."""
    numbers = (flow.status, flow.timeout_s, flow.mark, *flow.tags)
    if not (0 <= flow.zone < 1 << 16 and 0 <= flow.state < 1 << 8 and all(0 <= one < 1 << 32 for one in numbers)):
        return False
    try:
        ends = (flow.original.source, flow.original.destination, flow.reply.source, flow.reply.destination)
        families = {ip_address(end).version if "%" not in end else 0 for end in ends}
    except ValueError:
        return False
    return len(families) == 1 and 0 not in families and all(map(_is_sound, (flow.original, flow.reply)))


def _is_sound(way: Tuple) -> bool:
    if way.protocol in WITH_TYPES:
        limits: tuple[int, ...] = (1 << 16, 1 << 8, 1 << 8)
    else:
        limits = (1 << 16, 1 << 16) if way.protocol in WITH_PORTS else ()
    is_counted = len(way.numbers) == len(limits) and 0 <= way.protocol < 1 << 8
    return is_counted and all(0 <= one < limit for one, limit in zip(way.numbers, limits, strict=True))
