"""Pure. Holds a scene against what is expected of it: the lines of `tests:`. Each pair of a line must meet it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policies.ends import End, SpecialEnd, WorkspaceEnd, WorldEnd, end_text
from policies.explain import Explanation, explain, ports_text
from policies.ir import FIRST_IDENTITY, IR
from policies.model import (
    BlockPeer,
    EndpointPeer,
    Expectation,
    GatewayPeer,
    HostPeer,
    Origin,
    Peer,
    SamePeer,
    Scene,
    ServicesPeer,
    WorldPeer,
)
from policies.reach import Workspace
from policies.resolve import resolve
from policies.world import block_text, spans_of


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that does not do what a line of `tests:` says, and why. more: further pairs of which the same is true."""

    expectation: Expectation
    source: str
    destination: str
    explanation: Explanation
    more: int = 0

    @property
    def origin(self) -> Origin:
        """Where the line is."""
        return self.expectation.origin

    @property
    def message(self) -> str:
        """One sentence: the pair, what was expected, what is, and the line that decided."""
        by = self.explanation.decided_by
        place = f" by {by.policy or by.tier} ({by.origin})" if by.origin else f" by {by.tier}"
        wanted = "allow" if self.expectation.is_allowed else "deny"
        ports = self.expectation.ports
        met = self.explanation.allowed & ports
        verdict = "allowed" if ports <= met else "denied" if not met else f"allowed in part ({ports_text(met)})"
        pair = f"{ports_text(ports)} from {self.source} to {self.destination}"
        more = f", and so for {self.more} more pair{'s' * (self.more > 1)}" if self.more else ""
        return f"expected {wanted}, but {pair} is {verdict}{place}{more}"


def failures(scene: Scene, expectations: Iterable[Expectation], ir: IR | None = None) -> Iterator[Failure]:
    """What fails, line by line. `allow` means all of the ports, `deny` none of them.

    Workspaces with the same identities on the same networks are judged alike, so one pair stands for all of its kind.
    """
    form = ir or resolve(scene)
    ports = _ports_by_workspace(form)
    known: dict[tuple[Peer, ...], list[list[End]]] = {}

    def kinds(peers: tuple[Peer, ...]) -> list[list[End]]:
        if peers not in known:
            known[peers] = _kinds(ends_of(scene, peers), ports)
        return known[peers]

    for line in expectations:
        destinations = kinds(line.destinations)
        for sources in kinds(line.sources):
            for others in destinations:
                found = next(different(sources[:2], others[:2]), None)
                if found is None:
                    continue
                why = explain(scene, *found, line.ports, form)
                if not (why.is_allowed if line.is_allowed else not why.allowed & line.ports):
                    more = len(sources) * len(others) - len(_workspaces_in(sources) & _workspaces_in(others)) - 1
                    yield Failure(line, end_text(scene, found[0]), end_text(scene, found[1]), why, more)


_Ports = dict[Workspace, set[tuple[str, int]]]
"""By workspace: (network, end) of each of its ports."""


def _ports_by_workspace(ir: IR) -> _Ports:
    found: _Ports = {}
    for number, identity in enumerate(ir.identities, FIRST_IDENTITY):
        for workspace, network in identity.members:
            found.setdefault((identity.playground, workspace), set()).add((network, number))
    return found


def _kinds(ends: Iterable[End], ports: _Ports) -> list[list[End]]:
    """Ends by kind: those that no judgement tells apart."""
    found: dict[object, list[End]] = {}
    for end in ends:
        kind: object = end
        if isinstance(end, WorkspaceEnd):
            mine = ports.get(end.workspace, set())
            kind = end.workspace[0], frozenset(port for port in mine if end.networks is None or port[0] in end.networks)
        found.setdefault(kind, []).append(end)
    return list(found.values())


def _workspaces_in(ends: Iterable[End]) -> set[Workspace]:
    return {end.workspace for end in ends if isinstance(end, WorkspaceEnd)}


def pairs(scene: Scene, line: Expectation) -> Iterator[tuple[End, End]]:
    """The pairs that a line means: different ends, at least one of them a workspace."""
    yield from different(ends_of(scene, line.sources), ends_of(scene, line.destinations))


def different(sources: Iterable[End], destinations: list[End]) -> Iterator[tuple[End, End]]:
    """Pairs of different ends, at least one of them a workspace."""
    for source in sources:
        for destination in destinations:
            inside = [one.workspace for one in (source, destination) if isinstance(one, WorkspaceEnd)]
            if inside and len(set(inside)) == len(inside):
                yield source, destination


def ends_of(scene: Scene, peers: Iterable[Peer]) -> list[End]:
    """What peers mean as ends: workspaces by their selected ports, a block as all of its addresses.

    Raises ValueError for `same`, which means nothing without a subject.
    """
    found: dict[End, None] = {}
    for peer in peers:
        match peer:
            case EndpointPeer():
                found.update(dict.fromkeys(_workspaces(scene, peer)))
            case WorldPeer():
                found[WorldEnd()] = None
            case BlockPeer():
                found[WorldEnd(block_text(peer), tuple(spans_of(peer)))] = None
            case ServicesPeer():
                found[SpecialEnd("@services")] = None
            case HostPeer():
                found[SpecialEnd("@host")] = None
            case GatewayPeer(name):
                found[SpecialEnd(f"@gateway/{name}")] = None
            case SamePeer():
                raise ValueError("`same` means nothing in a test; name the ends")
    return list(found)


def _workspaces(scene: Scene, peer: EndpointPeer) -> list[End]:
    networks: dict[tuple[str, str], set[str]] = {}
    for endpoint in scene.endpoints:
        if (peer.playgrounds is None or endpoint.playground in peer.playgrounds) and peer.selector.matches(
            endpoint.labels
        ):
            networks.setdefault((endpoint.playground, endpoint.workspace), set()).add(endpoint.network)
    return [WorkspaceEnd(workspace, frozenset(found)) for workspace, found in sorted(networks.items())]
