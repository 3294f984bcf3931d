"""Pure. Lists who may talk to whom, by name: workspaces, `@world`, or parts of it where a policy tells them apart.

A workspace to itself is not listed. Pairs are streamed, out of blocks in which sources are alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from policies.bitset import numbers
from policies.ir import IR
from policies.model import Direction, EndpointPeer, Peer, Scene, WorldPeer
from policies.ports import Ports, Protocol
from policies.reach import Reach, Workspace, WorldRow
from policies.resolve import resolve
from policies.world import Span, merged, span_text

WORLD = "@world"

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Block:
    """The same ports between each source and each destination; where one is in both, not to itself. Names, as listed.

    world: EGRESS if the destinations are parts of the world, INGRESS if the sources are, None between workspaces.
    """

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    ports: Ports
    world: Direction | None = None

    @property
    def pairs(self) -> int:
        """How many connections this is."""
        both = 0 if self.world else len(set(self.sources).intersection(self.destinations))
        return len(self.sources) * len(self.destinations) - both


@dataclass(frozen=True, slots=True)
class Connection:
    """What one end may send to another: a workspace, `@world`, or a part of it as FIRST-LAST."""

    source: str
    destination: str
    ports: Ports

    def to_json(self) -> Json:
        """As `policy connections --json` lists it."""
        return {"from": self.source, "to": self.destination, "connections": ports_json(self.ports)}


def connections(
    scene: Scene,
    ir: IR | None = None,
    *,
    sources: Collection[str] | None = None,
    destinations: Collection[str] | None = None,
    ports: Ports | None = None,
    is_staged: bool = False,
) -> Iterator[Connection]:
    """Every ordered pair of different ends that may talk, each once, in no order that means anything; see blocks."""
    for block in blocks(scene, ir, sources=sources, destinations=destinations, ports=ports, is_staged=is_staged):
        for source in block.sources:
            for destination in block.destinations:
                if source != destination:
                    yield Connection(source, destination, block.ports)


def blocks(
    scene: Scene,
    ir: IR | None = None,
    *,
    sources: Collection[str] | None = None,
    destinations: Collection[str] | None = None,
    ports: Ports | None = None,
    is_staged: bool = False,
) -> Iterator[Block]:
    """The same as blocks. ir: that of scene, where it is known.

    sources, destinations: names to list (see selected), `@world` for all of it; None for everything. ports: list only
    what of them is allowed. is_staged: as if what is staged were enforced.
    """
    reach = Reach(scene, ir or resolve(scene), is_staged)
    called = names(scene)
    for alike, row in reach.rows():
        listed = _listed(alike, called, sources)
        for allowed, reached in row.items() if listed else ():
            toward = _listed(reached, called, destinations)
            if toward and (kept := allowed if ports is None else allowed & ports):
                yield Block(listed, toward, kept)
    for direction, mine, others in (
        (Direction.EGRESS, sources, destinations),
        (Direction.INGRESS, destinations, sources),
    ):
        if others is not None and WORLD not in others:
            continue
        for playground, alike, cells in reach.world_rows(direction):
            listed = _listed(alike, called, mine)
            for part, allowed in world_parts(reach.ir, playground, cells) if listed else ():
                if kept := allowed if ports is None else allowed & ports:
                    ends = (listed, part) if direction is Direction.EGRESS else (part, listed)
                    yield Block(*ends, kept, direction)


def _listed(
    workspaces: Iterable[Workspace], called: dict[Workspace, str], among: Collection[str] | None
) -> tuple[str, ...]:
    listed = map(called.__getitem__, workspaces)
    return tuple(listed) if among is None else tuple(name for name in listed if name in among)


def world_parts(ir: IR, playground: str, row: WorldRow) -> Iterator[tuple[tuple[str, ...], Ports]]:
    """A row's parts of the world, as they are listed, with their ports: `@world` where it is all one."""
    for ports, cells in row.items():
        if cells == ir.world(playground):
            yield (WORLD,), ports
        else:
            yield tuple(map(span_text, spans_of_ends(ir, cells))), ports


def spans_of_ends(ir: IR, ends: int) -> list[Span]:
    """The addresses of those ends that are cells of the world, in as few spans as can be."""
    return merged(span for number in numbers(ends >> ir.first_cell) for span in ir.cells[number])


def names(scene: Scene) -> dict[Workspace, str]:
    """What each workspace is called: its name, after its playground's where there are several."""
    known = {(endpoint.playground, endpoint.workspace) for endpoint in scene.endpoints}
    if len({playground for playground, _ in known}) == 1:
        return {key: key[1] for key in known}
    return {key: f"{key[0]}/{key[1]}" for key in known}


def selected(scene: Scene, peers: Iterable[Peer]) -> frozenset[str]:
    """Names of the workspaces with an endpoint that one of the peers selects, and `@world`: what the filters take."""
    called = names(scene)
    found = set()
    for peer in peers:
        if isinstance(peer, WorldPeer):
            found.add(WORLD)
        elif isinstance(peer, EndpointPeer):
            found |= {
                called[endpoint.playground, endpoint.workspace]
                for endpoint in scene.endpoints
                if (peer.playgrounds is None or endpoint.playground in peer.playgrounds)
                and peer.selector.matches(endpoint.labels)
            }
    return frozenset(found)


def ports_json(ports: Ports) -> str | list[Json]:
    """`"all"`, or ranges by protocol. Protocols beside the four are told only as part of `"all"`."""
    if ports.is_everything:
        return "all"
    return [
        {"protocol": protocol.value, "ports": [[first, last] for first, last in ranges]}
        for protocol, ranges in ports.parts
        if protocol is not Protocol.OTHER
    ]
