"""Pure. What a probe tries, and what should come of it: pairs of workspaces, their addresses, and the ports at which
verdicts between them can turn. Judges by the evaluator, over the records; knows no packets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from playground.controller.world import Grid
from playground.records import PolicyRecord, PortRecord, WorkspaceRecord
from playground.view import endpoints_of, gateways_of, policy_of
from policies.connections import WORLD
from policies.ends import WorldEnd, ends_outside
from policies.evaluate import allowed
from policies.ir import FIRST_IDENTITY, IR
from policies.model import Direction, Scene, Subnet
from policies.ports import LIMITS, NOTHING, Ports, Protocol
from policies.resolve import resolve

OUTSIDE = 47473
"""A port that no policy is likely to name."""

MOST_PORTS = 24
"""Ports of one protocol that are tried between two workspaces; of more, those that are spread out evenly."""

MOST_TRIES = 20_000
"""Knocks of one probe. Beyond that, of pairs that policies can't tell apart only some are knocked between."""

ECHO = 8
"""Echo request, as policies number ICMP."""


@dataclass(frozen=True, slots=True)
class Try:
    """One packet to one address. port: `icmp` (an echo request), `tcp/22` or `udp/53`."""

    source: str
    destination: str
    address: str
    port: str
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """echoes: between all pairs; knocks: where somebody polices. alike: pairs without knocks, as others of the same
    identities have them."""

    echoes: tuple[Try, ...]
    knocks: tuple[Try, ...] = ()
    alike: int = 0


def plan(
    grid: Grid,
    site_policies: Iterable[PolicyRecord],
    running: Collection[WorkspaceRecord],
    world: Sequence[str] = (),
) -> Plan:
    """Between all ordered pairs of workspaces that run; and, where there are gateways, from each to the world.

    world: addresses there that answer an echo request.
    """
    judging = _Judging(grid, tuple(site_policies))
    echoes: list[Try] = []
    found: dict[_Alike, list[tuple[Try, ...]]] = defaultdict(list)
    for source in running:
        mine = {port.network_id: port for port in _ports(grid, source)}
        for destination in running:
            if destination.name == source.name:
                continue
            ports = _ports(grid, destination)
            shared = [port for port in ports if port.network_id in mine]
            for port in shared or ports:
                own = mine.get(port.network_id)
                for address in port.addresses:
                    granted = judging.allowed(own, port) if own is not None else NOTHING
                    may = granted.holds(Protocol.ICMP, ECHO)
                    echoes.append(Try(source.name, destination.name, address, "icmp", may))
            if judging.is_policed and shared:
                pairs = [(mine[port.network_id], port) for port in shared]
                key = tuple((judging.end(own), judging.end(port)) for own, port in pairs)
                found[key].append(tuple(judging.knocks(source.name, destination.name, pairs)))
    if gateways_of(grid.ports.values()):
        echoes += [judging.outward(source.name, _ports(grid, source), at) for source in running for at in world]
    kept, alike = _bounded(found)
    return Plan(tuple(echoes), tuple(kept), alike)


def open_pair(
    grid: Grid, site_policies: Iterable[PolicyRecord], pairs: Iterable[tuple[PortRecord, PortRecord]], preferred: int
) -> tuple[PortRecord, PortRecord, int] | None:
    """The first (source, destination) of one network with a UDP port that is open between them, and that port: the
    preferred one, else the last. None if there is no such pair."""
    judging = _Judging(grid, tuple(site_policies))
    for source, destination in pairs:
        granted = judging.allowed(source, destination)
        if granted.holds(Protocol.UDP, preferred):
            return source, destination, preferred
        if ranges := dict(granted.parts).get(Protocol.UDP):
            return source, destination, ranges[-1][1]
    return None


def echo_pair(
    grid: Grid, site_policies: Iterable[PolicyRecord], pairs: Iterable[tuple[PortRecord, PortRecord]]
) -> tuple[PortRecord, PortRecord] | None:
    """The first (source, destination) of one network of which the source may send echo requests, None without one."""
    judging = _Judging(grid, tuple(site_policies))
    return next((pair for pair in pairs if judging.allowed(*pair).holds(Protocol.ICMP, ECHO)), None)


_Alike = tuple[tuple[int, int], ...]
"""What a pair's verdicts depend on: the ends of source and destination on each network that they share."""


def _bounded(found: Mapping[_Alike, list[tuple[Try, ...]]]) -> tuple[list[Try], int]:
    """As many pairs as there is room for, of each kind at least one; how many were left out."""
    if sum(len(knocks) for pairs in found.values() for knocks in pairs) <= MOST_TRIES:
        return [one for pairs in found.values() for knocks in pairs for one in knocks], 0
    kept: list[Try] = []
    taken = 0
    for round_ in range(max(map(len, found.values()))):
        these = [pairs[round_] for pairs in found.values() if round_ < len(pairs)]
        if round_ and len(kept) + sum(map(len, these)) > MOST_TRIES:
            break
        kept += [one for knocks in these for one in knocks]
        taken += len(these)
    return kept, sum(map(len, found.values())) - taken


def _ports(grid: Grid, workspace: WorkspaceRecord) -> list[PortRecord]:
    return [grid.ports[port] for port in workspace.ports if port in grid.ports]


class _Judging:
    """One playground's policies, as its records have them."""

    def __init__(self, grid: Grid, site_policies: tuple[PolicyRecord, ...]) -> None:
        records = (*site_policies, *grid.policies.values())
        self.is_policed = bool(records)
        self._ir: IR = resolve(_scene(grid, records))
        self._ends = {
            (identity.playground, *member): end
            for end, identity in enumerate(self._ir.identities, FIRST_IDENTITY)
            for member in identity.members
        }
        self._allowed: dict[tuple[int, int], Ports] = {}
        self._tried: dict[tuple[int, int], tuple[tuple[str, Protocol, int], ...]] = {}

    def end(self, port: PortRecord) -> int:
        return self._ends[port.playground, port.workspace, port.network]

    def allowed(self, source: PortRecord, destination: PortRecord) -> Ports:
        """What may pass between two ports of one network."""
        key = self.end(source), self.end(destination)
        if (known := self._allowed.get(key)) is None:
            known = self._allowed[key] = allowed(self._ir, *key)
        return known

    def outward(self, source: str, ports: Iterable[PortRecord], address: str) -> Try:
        """From a workspace to an address of the world, by the one port that its default route goes by."""
        version = ip_address(address).version
        may = False
        for port in ports:
            if port.router and any(ip_address(own).version == version for own in port.addresses):
                cells = ends_outside(self._ir, WorldEnd.at(ip_address(address)), port.playground)
                may = any(allowed(self._ir, self.end(port), cell).holds(Protocol.ICMP, ECHO) for cell in cells)
        return Try(source, WORLD, address, "icmp", may)

    def knocks(self, source: str, destination: str, pairs: Iterable[tuple[PortRecord, PortRecord]]) -> Iterator[Try]:
        """Between two workspaces, on each network that they share."""
        for own, port in pairs:
            granted = self.allowed(own, port)
            for text, protocol, number in self._turning(self.end(own), self.end(port)):
                for address in port.addresses:
                    yield Try(source, destination, address, text, granted.holds(protocol, number))

    def _turning(self, source: int, destination: int) -> tuple[tuple[str, Protocol, int], ...]:
        """Where verdicts between two ends can turn, and a port where none does."""
        if (known := self._tried.get((source, destination))) is None:
            rules = (
                *self._ir.chain(Direction.EGRESS, source).towards(destination),
                *self._ir.chain(Direction.INGRESS, destination).towards(source),
            )
            known = self._tried[source, destination] = tuple(
                (f"{protocol.value.lower()}/{number}", protocol, number)
                for protocol in (Protocol.TCP, Protocol.UDP)
                for number in boundaries(protocol, (rule.ports for rule in rules))
            )
        return known


def boundaries(protocol: Protocol, sets: Iterable[Ports]) -> list[int]:
    """First and last of every range, those just outside it, and one outside all; `MOST_PORTS` at most."""
    lowest, highest = LIMITS[protocol]
    found = {
        number
        for ports in sets
        for first, last in dict(ports.parts).get(protocol, ())
        if (first, last) != (lowest, highest)
        for number in (first - 1, first, last, last + 1)
        if lowest <= number <= highest
    }
    listed = sorted(found)
    if len(listed) >= MOST_PORTS:
        listed = [listed[place * len(listed) // (MOST_PORTS - 1)] for place in range(MOST_PORTS - 1)]
    return sorted({*listed, OUTSIDE})


def _scene(grid: Grid, records: Iterable[PolicyRecord]) -> Scene:
    return Scene(
        endpoints=endpoints_of(grid.ports.values()),
        policies=tuple(map(policy_of, records)),
        gateways=gateways_of(grid.ports.values()),
        subnets=tuple(
            Subnet(network.playground, network.name, ip_network(subnet))
            for network in grid.networks.values()
            for subnet in network.subnets
        ),
    )
