"""Pure. Sets of small numbers as one integer: bit N is set if N is in it; a negative one holds all from some N on."""

from __future__ import annotations

from collections.abc import Iterable


def bits(members: Iterable[int]) -> int:
    """The set of these numbers."""
    listed = list(members)
    if len(listed) < 8:
        found = 0
        for number in listed:
            found |= 1 << number
        return found
    field_of = bytearray(max(listed) // 8 + 1)
    for number in listed:
        field_of[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(field_of, "little")


_IS_ONE = bytes(1 if code == ord("1") else 0 for code in range(256))


def flags(found: int) -> bytes:
    """A byte for each number from 0, 0 or 1, up to the greatest member: what itertools.compress takes."""
    return bin(found)[:1:-1].encode().translate(_IS_ONE)


def numbers(found: int) -> list[int]:
    """The members, ascending, of a set that is not negative."""
    if found.bit_count() < 8:
        few = []
        while found:
            lowest = found & -found
            few.append(lowest.bit_length() - 1)
            found ^= lowest
        return few
    return [number for number, is_in in enumerate(flags(found)) if is_in]
