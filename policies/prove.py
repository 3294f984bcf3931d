"""Pure. Compares what a kernel holds, read back, with what the intermediate form says: flow by flow, end by end.

Does not know how policies are compiled: it follows the first packets of flows through whatever rules there are. That
all objects are those that were put there, `verify` tells; this tells that they say what they should.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from policies.bitset import numbers
from policies.compile.marks import unjudged
from policies.evaluate import towards
from policies.explain import ports_text
from policies.interpret import SIX_ALIKE, Flow, NotUnderstood, Table
from policies.ir import IR
from policies.model import Direction
from policies.ports import EVERYTHING, Ports

MOST = 50
"""Differences that are told; who has more has one cause for them."""


@dataclass(frozen=True, slots=True)
class ProvedNetwork:
    """zone: that its flows should be in. ends: to each name the end of the intermediate form that it is, its addresses,
    and whether it is judged here: ports, gateways, and the service leg as SERVICES."""

    name: str
    bridge: str
    zone: int
    ends: Mapping[str, tuple[int, tuple[str, ...], bool]]


@dataclass(frozen=True, slots=True)
class Claim:
    """What the kernel should mean for one playground. counters: names of those that it should have."""

    ir: IR
    playground: str
    networks: tuple[ProvedNetwork, ...]
    counters: frozenset[str] = frozenset()


def prove(entries: Iterable[Mapping[str, Any]], claim: Claim) -> list[str]:
    """What is not as it should be, a sentence each, MOST of them at most. entries: `list table` as JSON."""
    table = Table.read(entries)
    found: list[str] = [f"counter {name} is not there" for name in sorted(claim.counters - table.counters)]
    for network in claim.networks:
        for difference in _of_network(table, claim.ir, claim.playground, network):
            found.append(f"network {network.name}: {difference}")
            if len(found) >= MOST:
                return found
    return found


def _of_network(table: Table, ir: IR, playground: str, network: ProvedNetwork) -> Iterator[str]:
    blocks = [ip_network(text) for _, texts, _ in network.ends.values() for text in texts if "/" in text]
    places = _told_apart(table, network.bridge, _places(network))
    world = _told_apart(
        table,
        network.bridge,
        (
            (f"the world at {address}", cell, address, False)
            for cell in numbers(ir.world(playground))
            for address in _samples(ir.cells[cell - ir.first_cell])
            if not any(ip_address(address) in block for block in blocks)
        ),
    )
    told: set[str] = set()
    for one in places:
        if not one[3]:
            continue
        for other in places + world:
            if other is one or (":" in one[2]) != (":" in other[2]) or one[0] == other[0]:
                continue
            for source, destination in ((one, other), (other, one)):
                if other[3] and destination is one:
                    continue  # seen from the other side
                try:
                    difference = _of_flow(table, ir, network, source, destination)
                except NotUnderstood as error:
                    difference = f"a rule that is none of ours: {error}"
                if difference and difference not in told:
                    told.add(difference)
                    yield difference


_Place = tuple[str, int, str, bool]
"""(name, end, address, whether it is judged here)."""


def _places(network: ProvedNetwork) -> Iterator[_Place]:
    """Every address once: one that names of one end share is judged where any of them is; that of different ends is
    nobody's, and left out."""
    found: dict[str, _Place | None] = {}
    for name, (end, addresses, is_here) in network.ends.items():
        for text in addresses:
            block = ip_network(text)
            if block.num_addresses > 1:
                continue
            address = str(block.network_address)
            place = found.setdefault(address, (name, end, address, is_here))
            if place is not None and place[1] != end:
                found[address] = None
            elif place is not None and is_here and not place[3]:
                found[address] = (name, end, address, is_here)
    return (place for place in found.values() if place is not None)


def _told_apart(table: Table, bridge: str, places: Iterable[_Place]) -> list[_Place]:
    """Of those that neither the model nor any rule tells apart two at most: one is no other end to itself."""
    found: dict[Hashable, list[_Place]] = {}
    for place in places:
        alike = found.setdefault((place[1], place[3], table.told_by(bridge, place[2])), [])
        if len(alike) < 2 and all(place[0] != other[0] for other in alike):
            alike.append(place)
    return [place for alike in found.values() for place in alike]


def _of_flow(table: Table, ir: IR, network: ProvedNetwork, source: _Place, destination: _Place) -> str:
    flow = Flow(network.bridge, source[2], destination[2])
    # the guard marks what comes in by a port, and nobody marks what the service leg says
    entering, entered = table.accepted("prerouting", replace(flow, mark=unjudged(network.zone) if source[3] else 0))
    if entered.zone != network.zone:
        return f"flows are tracked in zone {entered.zone}, not in {network.zone}"
    passing, _ = table.accepted("forward", flow)
    both, without = table.algebra.both, table.algebra.without
    wanted = SIX_ALIKE if flow.version == 6 else EVERYTHING
    ports = both(both(entering, passing), wanted)
    if source[3]:
        wanted = both(wanted, _consent(ir, Direction.EGRESS, source[1], destination[1]))
    if destination[3]:
        wanted = both(wanted, _consent(ir, Direction.INGRESS, destination[1], source[1]))
    differing = ("lets through", without(ports, wanted)), ("stops", without(wanted, ports))
    what = [f"{word} {ports_text(part)}" for word, part in differing if part]
    return f"from {source[0]} to {destination[0]} the kernel {' and '.join(what)}" if what else ""


def _consent(ir: IR, direction: Direction, subject: int, other: int) -> Ports:
    return towards(ir.chain(direction, subject), other) if ir.is_identity(subject) else EVERYTHING


def _samples(cell: Iterable[tuple[int, int, int]]) -> Iterator[str]:
    """The first and the last address of each span of a cell, but for those that are nobody's own."""
    for version, first, last in cell:
        for number in {first, last}:
            address = IPv4Address(number) if version == 4 else IPv6Address(number)
            if not (address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255"):
                yield str(address)
