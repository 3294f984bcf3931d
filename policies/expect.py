"""Pure. Holds a scene against what is expected of it: the lines of `tests:`. Each pair of a line must meet it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policies.ends import End, SpecialEnd, WorkspaceEnd, WorldEnd, end_text
from policies.explain import Explanation, explain, ports_text
from policies.ir import IR
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
from policies.resolve import resolve
from policies.world import block_text, spans_of


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that does not do what a line of `tests:` says, and why."""

    expectation: Expectation
    source: str
    destination: str
    explanation: Explanation

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
        return (
            f"expected {wanted}, but {ports_text(ports)} from {self.source} to {self.destination} is {verdict}{place}"
        )


def failures(scene: Scene, expectations: Iterable[Expectation], ir: IR | None = None) -> Iterator[Failure]:
    """All pairs that fail, line by line. `allow` means all of the ports, `deny` none of them."""
    form = ir or resolve(scene)
    for line in expectations:
        for source, destination in pairs(scene, line):
            found = explain(scene, source, destination, line.ports, form)
            if not (found.is_allowed if line.is_allowed else not found.allowed & line.ports):
                yield Failure(line, end_text(scene, source), end_text(scene, destination), found)


def pairs(scene: Scene, line: Expectation) -> Iterator[tuple[End, End]]:
    """The pairs that a line means: different ends, at least one of them a workspace."""
    destinations = ends_of(scene, line.destinations)
    for source in ends_of(scene, line.sources):
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
