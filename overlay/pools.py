"""Pure. Which addresses of a pool are free; integers inside, strings only in `parse_address` and `address_text`.

Knows nothing of who holds an address. A pool costs memory for what was touched, never for what it spans: a /64 is as
cheap as a /24.
"""

from __future__ import annotations

import functools
import ipaddress
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Version = Literal[4, 6]

_CHUNK_BITS = 12
_CHUNK = 1 << _CHUNK_BITS

REMEMBERED = 65536
"""Texts whose reading is kept, about 20 MB at most: the same addresses are read again with every change of a file."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The addresses first … last, both included, as integers of one family."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"no span: {self.first} to {self.last}")

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def overlaps(self, other: Span) -> bool:
        """Whether any address lies in both."""
        return self.first <= other.last and other.first <= self.last

    @property
    def size(self) -> int:
        """Number of addresses (no `__len__`: that fails beyond 2^63)."""
        return self.last - self.first + 1


@functools.lru_cache(maxsize=REMEMBERED)
def parse_address(text: str) -> tuple[Version, int]:
    """(4 or 6, integer) of an address without zone. Raises ValueError."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return 4, int(address)
    if address.scope_id is not None:
        raise ValueError(f"{text!r} has a zone, which means something on one host only")
    return 6, int(address)


@functools.lru_cache(maxsize=REMEMBERED)
def address_text(version: Version, address: int) -> str:
    """Canonical text of an address: dotted quad, or compressed lower-case IPv6 (RFC 5952)."""
    return str(ipaddress.IPv4Address(address) if version == 4 else ipaddress.IPv6Address(address))


def address_hex(version: Version, address: int) -> str:
    """Fixed-width hex: 8 digits for IPv4, 32 for IPv6; sorts as the addresses do."""
    return f"{address:0{8 if version == 4 else 32}x}"


def subtract(spans: Iterable[Span], holes: Iterable[Span]) -> tuple[Span, ...]:
    """Disjoint, ascending, non-adjacent spans of all addresses in `spans` and in none of `holes`."""
    cut = merge(holes)
    left: list[Span] = []
    for span in merge(spans):
        first = span.first
        for hole in cut:
            if hole.last < first:
                continue
            if hole.first > span.last:
                break
            if hole.first > first:
                left.append(Span(first, hole.first - 1))
            first = hole.last + 1
        if first <= span.last:
            left.append(Span(first, span.last))
    return tuple(left)


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses as disjoint, ascending spans; adjacent ones are joined."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.first <= merged[-1].last + 1:
            if span.last > merged[-1].last:
                merged[-1] = Span(merged[-1].first, span.last)
        else:
            merged.append(span)
    return tuple(merged)


class Pool:
    """A set of addresses of which some are taken; lowest free first.

    A tree of bitmaps, each one Python int of 4096 bits: at level 0 a bit is an address (1 = free), above it a bit is a
    node one level lower (1 = something in it is free). A node is made when it is first changed; until then it is what
    the spans say. Every operation touches one node a level: one level up to 4096 addresses, two up to a /8, six in a
    /64.
    """

    __slots__ = ("_firsts", "_levels", "_nodes", "_origin", "_spans", "_taken", "size")

    def __init__(self, spans: Iterable[Span], exclude: Iterable[Span] = ()) -> None:
        self._spans = subtract(spans, exclude)
        self._firsts = [span.first for span in self._spans]
        self._origin = self._spans[0].first if self._spans else 0
        extent = self._spans[-1].last - self._origin if self._spans else 0
        self._levels = max(1, -(-extent.bit_length() // _CHUNK_BITS))
        self._nodes: dict[tuple[int, int], int] = {}
        self._taken = 0
        self.size = sum(span.size for span in self._spans)
        """Number of addresses, taken or not."""

    @property
    def free(self) -> int:
        """Number of addresses that are not taken."""
        return self.size - self._taken

    def __contains__(self, address: int) -> bool:
        """Whether the pool spans the address, taken or not."""
        at = bisect_left(self._firsts, address + 1) - 1
        return at >= 0 and address <= self._spans[at].last

    def __iter__(self) -> Iterator[int]:
        """All addresses of the pool in ascending order, taken or not."""
        for span in self._spans:
            yield from range(span.first, span.last + 1)

    def is_free(self, address: int) -> bool:
        """Whether `take` would succeed."""
        if address not in self:
            return False
        offset = address - self._origin
        return bool(self._node(0, offset >> _CHUNK_BITS) >> (offset & (_CHUNK - 1)) & 1)

    def lowest_free(self) -> int | None:
        """The lowest address that is not taken, or None when all are."""
        if not self.free:
            return None
        index = 0
        for level in range(self._levels - 1, -1, -1):
            bits = self._node(level, index)
            index = index << _CHUNK_BITS | ((bits & -bits).bit_length() - 1)
        return self._origin + index

    def allocate(self) -> int | None:
        """Takes the lowest free address and returns it; None when all are taken."""
        address = self.lowest_free()
        if address is not None:
            self._clear(address - self._origin)
        return address

    def take(self, address: int) -> bool:
        """Takes this very address. False when it is taken already, or not in the pool."""
        if not self.is_free(address):
            return False
        self._clear(address - self._origin)
        return True

    def release(self, address: int) -> bool:
        """Frees an address. False when it is free already, or not in the pool."""
        if address not in self or self.is_free(address):
            return False
        index = address - self._origin
        for level in range(self._levels):
            index, bit = index >> _CHUNK_BITS, 1 << (index & (_CHUNK - 1))
            before = self._node(level, index)
            self._nodes[level, index] = before | bit
            if before:
                break
        self._taken -= 1
        return True

    def _clear(self, index: int) -> None:
        for level in range(self._levels):
            index, bit = index >> _CHUNK_BITS, 1 << (index & (_CHUNK - 1))
            after = self._node(level, index) & ~bit
            self._nodes[level, index] = after
            if after:
                break
        self._taken += 1

    def _node(self, level: int, index: int) -> int:
        node = self._nodes.get((level, index))
        return self._untouched(level, index) if node is None else node

    def _untouched(self, level: int, index: int) -> int:
        """The bitmap of a node while nothing in it is taken."""
        shift = level * _CHUNK_BITS
        base = index << _CHUNK_BITS
        first = self._origin + (base << shift)
        last = first + (_CHUNK << shift) - 1
        bits = 0
        at = max(0, bisect_left(self._firsts, first + 1) - 1)
        for span in self._spans[at:]:
            if span.first > last:
                break
            if span.last < first:
                continue
            low = (max(span.first, first) - self._origin >> shift) - base
            high = (min(span.last, last) - self._origin >> shift) - base
            bits |= ((1 << high - low + 1) - 1) << low
        return bits
