"""Pure. Sets of ports: what of the traffic between two ends a rule speaks of, with the algebra of sets.

The universe is TCP, UDP and SCTP ports 1 to 65535, ICMP by type, and all other IP protocols as one indivisible whole.
ICMP and ICMPv6 are one word: types are numbered as ICMPv4 numbers them, and ICMPv6 joins by meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from operator import and_, or_, sub


class Protocol(Enum):
    """Spelt as the JSON contract spells it."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"
    OTHER = "OTHER"

    __hash__ = object.__hash__  # Enum's own runs Python for each of the many hashes of sets; members are singletons


Range = tuple[int, int]
"""(first, last), both included."""

LIMITS: dict[Protocol, Range] = {
    Protocol.TCP: (1, 65535),
    Protocol.UDP: (1, 65535),
    Protocol.SCTP: (1, 65535),
    Protocol.ICMP: (0, 255),
    Protocol.OTHER: (0, 0),
}


@dataclass(frozen=True, slots=True)
class Ports:
    """A set. parts: protocol → sorted, disjoint, non-adjacent ranges, protocols in declared order, none empty.

    Canonical: equal sets are equal values, and hash alike.
    """

    parts: tuple[tuple[Protocol, tuple[Range, ...]], ...] = ()

    @classmethod
    def of(cls, protocol: Protocol, first: int | None = None, last: int | None = None) -> Ports:
        """One protocol's ports from first to last; last defaults to first, and both to all of the protocol.

        Raises ValueError outside LIMITS.
        """
        lowest, highest = LIMITS[protocol]
        begin = lowest if first is None else first
        end = (highest if first is None else begin) if last is None else last
        if not lowest <= begin <= end <= highest:
            raise ValueError(f"{begin}-{end} is no range of {protocol.value}; allowed: {lowest}-{highest}")
        return cls(((protocol, ((begin, end),)),))

    @classmethod
    def union(cls, sets: Iterable[Ports]) -> Ports:
        """All that any of them holds."""
        ranges: dict[Protocol, list[Range]] = {}
        for one in sets:
            for protocol, parts in one.parts:
                ranges.setdefault(protocol, []).extend(parts)
        return _canonical({protocol: _merged(parts) for protocol, parts in ranges.items()})

    def __or__(self, other: Ports) -> Ports:
        if self is other or not other.parts:
            return self
        return Ports.union((self, other)) if self.parts else other

    def __and__(self, other: Ports) -> Ports:
        if self is EVERYTHING or self is other:
            return other
        if other is EVERYTHING:
            return self
        theirs = dict(other.parts)
        return _canonical(
            {protocol: _common(parts, theirs[protocol]) for protocol, parts in self.parts if protocol in theirs}
        )

    def __sub__(self, other: Ports) -> Ports:
        if not other.parts:
            return self
        theirs = dict(other.parts)
        return _canonical({protocol: _without(parts, theirs.get(protocol, ())) for protocol, parts in self.parts})

    def __le__(self, other: Ports) -> bool:
        return not self - other

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def is_everything(self) -> bool:
        """Whether nothing at all is left out."""
        return self == EVERYTHING

    def holds(self, protocol: Protocol, number: int) -> bool:
        """Whether one port (or ICMP type) is in the set."""
        return any(first <= number <= last for first, last in dict(self.parts).get(protocol, ()))


def _canonical(parts: dict[Protocol, tuple[Range, ...]]) -> Ports:
    return Ports(tuple((protocol, parts[protocol]) for protocol in Protocol if parts.get(protocol)))


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def _common(ours: tuple[Range, ...], theirs: tuple[Range, ...]) -> tuple[Range, ...]:
    """Both in order, in one walk: whichever range ends first can meet nothing that follows."""
    found: list[Range] = []
    mine = other = 0
    while mine < len(ours) and other < len(theirs):
        (first, last), (begin, end) = ours[mine], theirs[other]
        if first <= end and begin <= last:
            found.append((max(first, begin), min(last, end)))
        if last < end:
            mine += 1
        else:
            other += 1
    return tuple(found)


def _without(ours: tuple[Range, ...], theirs: tuple[Range, ...]) -> tuple[Range, ...]:
    """Both in order, in one walk."""
    found: list[Range] = []
    other = 0
    for first, last in ours:
        while other < len(theirs) and theirs[other][1] < first:
            other += 1
        hole, left = other, first  # the last hole may reach into the next range, too
        while hole < len(theirs) and theirs[hole][0] <= last:
            begin, end = theirs[hole]
            if left < begin:
                found.append((left, begin - 1))
            left = end + 1
            hole += 1
        if left <= last:
            found.append((left, last))
        other = max(other, hole - 1)
    return tuple(found)


class Algebra:
    """The same where the very same objects meet again and again: what comes of two of them is made once, so that a set
    of thousands of ports costs its size once, and not for each pair of ends that is asked about it."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, int, int], tuple[Ports, Ports, Ports]] = {}

    def both(self, one: Ports, other: Ports) -> Ports:
        """one & other."""
        return self._once(and_, one, other)

    def either(self, one: Ports, other: Ports) -> Ports:
        """one | other."""
        return self._once(or_, one, other)

    def without(self, one: Ports, other: Ports) -> Ports:
        """one - other."""
        return self._once(sub, one, other)

    def _once(self, how: Callable[[Ports, Ports], Ports], one: Ports, other: Ports) -> Ports:
        key = how, id(one), id(other)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = one, other, how(one, other) or NOTHING
        return found[2]


EVERYTHING = Ports(tuple((protocol, (LIMITS[protocol],)) for protocol in Protocol))
NOTHING = Ports()
