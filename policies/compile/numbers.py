"""Pure. Numbers that a packet's mark carries for the ends of a playground. Knows nothing of what policies say.

A number is a hash of one member of an identity, its smallest, so it stays when others come and go, when a restarted
host counts again, and when identities part: then one of the parts keeps it. Zero is whoever has none: the world.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from policies.bitset import bits, numbers
from policies.ir import FIRST_IDENTITY, IR, SERVICES
from policies.world import Cell

NO_END, SERVICES_NUMBER, _FIRST = 0, 1, 16

Member = tuple[str, str]
"""(workspace, network)."""


@dataclass(frozen=True)
class EndNumbers:
    """Those of one playground, for as long as its identities, gateways and the world stay.

    numbers: to ends of the intermediate form, identities and gateways of this playground, and SERVICES. members: the
    end that a (workspace, network) is; gateways: by name. cells: of the world as this playground sees it, by end.
    """

    playground: str
    numbers: dict[int, int]
    members: dict[Member, int]
    gateways: dict[str, int]
    cells: dict[int, Cell]

    @cached_property
    def identities(self) -> frozenset[int]:
        """Those that members are."""
        return frozenset(self.members.values())

    @cached_property
    def ends(self) -> int:
        """All of them, as a set: who can be at the other end."""
        return bits(self.numbers) | bits(self.cells)


def number_ends(ir: IR, playground: str) -> EndNumbers:
    """Numbers for a playground. Two that hash alike are told apart in the order of their names."""
    named: list[tuple[tuple[str, ...], int]] = []
    members = {}
    for end, identity in enumerate(ir.identities, FIRST_IDENTITY):
        if identity.playground == playground:
            members.update(dict.fromkeys(identity.members, end))
            named.append((("member", *min(identity.members)), end))
    gateways = {name: end for end, (place, name) in enumerate(ir.gateways, ir.first_gateway) if place == playground}
    named += [(("gateway", name), end) for name, end in gateways.items()]
    found, taken = {SERVICES: SERVICES_NUMBER}, set()
    for name, end in sorted(named):
        number = next(number for number in _candidates(name) if number not in taken)
        taken.add(number)
        found[end] = number
    cells = {end: ir.cells[end - ir.first_cell] for end in numbers(ir.world(playground))}
    return EndNumbers(playground, found, members, gateways, cells)


def _candidates(name: tuple[str, ...]) -> Iterable[int]:
    for attempt in range(1 << 16):
        digest = blake2b("\0".join((*name, str(attempt))).encode(), digest_size=4).digest()
        number = int.from_bytes(digest, "big") & 0x7FFFFFFF
        if number >= _FIRST:
            yield number
