"""Pure. Parts the world by address: into cells that no block in use and no ownership tells apart further.

The world is all of IPv4 and IPv6; what a playground owns is no part of the world as that playground sees it. Knows
nothing of rules and gateways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from policies.bitset import numbers
from policies.model import BlockPeer, Scene

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

Span = tuple[int, int, int]
"""(IP version, first, last): addresses as numbers, both included."""

Cell = tuple[Span, ...]
"""Addresses that no policy tells apart, as sorted, disjoint spans."""

_LAST = {4: 2**32 - 1, 6: 2**128 - 1}


@dataclass(frozen=True, slots=True)
class World:
    """cells: sorted by first address, IPv4 first. blocks: to each block its cells; owned: to each playground those
    that are not world to it; both as sets of numbers of cells."""

    cells: tuple[Cell, ...]
    blocks: Mapping[BlockPeer, int]
    owned: Mapping[str, int]


def part_world(blocks: Iterable[BlockPeer], owned: Mapping[str, Sequence[Span]]) -> World:
    """The coarsest cells that tell all blocks and all owners apart; what everybody owns is in none.

    owned: by playground, disjoint spans.
    """
    known = sorted(set(blocks), key=_block_order)
    owners = sorted(owned)
    toggles: dict[tuple[int, int], list[int]] = {(version, 0): [] for version in _LAST}
    marked: list[Iterable[Span]] = [*(spans_of(block) for block in known), *(owned[name] for name in owners)]
    for number, spans in enumerate(marked):
        for version, first, last in spans:
            toggles.setdefault((version, first), []).append(number)
            toggles.setdefault((version, last + 1), []).append(number)
    everybody = (1 << len(owners)) - 1
    found: dict[int, list[Span]] = {}
    inside = 0
    places = sorted(toggles)
    for (version, first), (following, begin) in zip(places, [*places[1:], (0, 0)], strict=True):
        for number in toggles[version, first]:
            inside ^= 1 << number
        last = begin - 1 if following == version else _LAST[version]
        if first <= last and (not owners or inside >> len(known) != everybody):
            found.setdefault(inside, []).append((version, first, last))
    members: list[int] = [0] * len(marked)
    for cell, signature in enumerate(found):
        for number in numbers(signature):
            members[number] |= 1 << cell
    return World(
        tuple(tuple(merged(spans)) for spans in found.values()),
        dict(zip(known, members, strict=False)),
        dict(zip(owners, members[len(known) :], strict=True)),
    )


def owned_spans(scene: Scene) -> dict[str, list[Span]]:
    """By playground: its subnets, and its endpoints' addresses outside them; sorted and merged."""
    found: dict[str, list[Span]] = {endpoint.playground: [] for endpoint in scene.endpoints}
    for subnet in scene.subnets:
        found.setdefault(subnet.playground, []).append(span_of(subnet.prefix))
    for endpoint in scene.endpoints:
        for text in endpoint.addresses:
            address = ip_address(text)
            found[endpoint.playground].append((address.version, int(address), int(address)))
    return {playground: merged(spans) for playground, spans in found.items()}


def span_of(prefix: Network) -> Span:
    """A prefix's addresses."""
    return prefix.version, int(prefix.network_address), int(prefix.broadcast_address)


def spans_of(block: BlockPeer) -> list[Span]:
    """A block's addresses without its exceptions; sorted and disjoint."""
    version, first, last = span_of(block.cidr)
    left: list[Span] = []
    for _, begin, end in merged(span_of(hole) for hole in block.excepted if hole.version == version):
        if first > last or begin > last:
            break
        if begin > first:
            left.append((version, first, begin - 1))
        first = max(first, end + 1)
    if first <= last:
        left.append((version, first, last))
    return left


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same addresses in as few spans as can be, sorted."""
    found: list[Span] = []
    for version, first, last in sorted(spans):
        if found and found[-1][0] == version and first <= found[-1][2] + 1:
            found[-1] = (version, found[-1][1], max(found[-1][2], last))
        else:
            found.append((version, first, last))
    return found


def span_text(span: Span) -> str:
    """FIRST-LAST, as `connections` names a part of the world."""
    version, first, last = span
    kind = IPv4Address if version == 4 else IPv6Address
    return f"{kind(first)}-{kind(last)}"


def do_meet(some: Iterable[Span], others: Iterable[Span]) -> bool:
    """Whether any address is in both."""
    listed = list(others)
    return any(
        version == its and first <= end and begin <= last for version, first, last in some for its, begin, end in listed
    )


def block_text(block: BlockPeer) -> str:
    """As people write it."""
    holes = f" except {', '.join(map(str, block.excepted))}" if block.excepted else ""
    return f"{block.cidr}{holes}"


def _block_order(block: BlockPeer) -> tuple[Span, list[Span]]:
    return span_of(block.cidr), sorted(span_of(hole) for hole in block.excepted)
