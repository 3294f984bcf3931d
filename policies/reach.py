"""Pure. Which workspaces a workspace reaches, by all networks that they share and with both ends' consent, in rows.

Workspaces that are on the same networks with the same identities are of one kind; kinds that are judged alike as
sources share one row. A row is made when it is asked for and forgotten after, so memory grows with kinds, not pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain as chained
from itertools import compress

from policies.bitset import bits, flags, numbers
from policies.evaluate import split
from policies.ir import FIRST_IDENTITY, IR
from policies.model import Direction, Scene
from policies.ports import EVERYTHING, NOTHING, Ports

Workspace = tuple[str, str]
"""(playground, name)."""

Row = dict[Ports, tuple[Workspace, ...]]
"""From one source: allowed ports → the workspaces reached on just these; the source itself may be among them."""

WorldRow = dict[Ports, int]
"""Between one workspace and the world: allowed ports → cells of the world, as ends. Disjoint, nothing that is empty."""

_Profile = tuple[tuple[int, int], ...]
"""A kind: its (scope, end) pairs, one for each distinct endpoint; a scope is a network's place among the networks."""

Parts = tuple[tuple[int, int, int], ...]
"""What a row depends on: for each endpoint (scope, number of its egress chain, number of its column)."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """A network. reached: for each identity from `first` on, the kinds with an endpoint of it here."""

    playground: str
    first: int
    reached: tuple[tuple[int, ...], ...]
    is_doubled: bool
    """Whether a kind has more than one endpoint here."""


class Reach:
    """All rows of a scene. is_staged: as if what is staged were enforced."""

    def __init__(self, scene: Scene, ir: IR, is_staged: bool = False) -> None:
        self.ir = ir
        self._egress, self._ingress = (
            tuple(ir.numbers[id(chain)] for chain in ir.tables(direction)[is_staged])
            for direction in (Direction.EGRESS, Direction.INGRESS)
        )
        self._ports = _PortsTable()
        self._splits = [[(self._ports.number(ports), ends) for ports, ends in split(one).items()] for one in ir.chains]
        networks = sorted({(endpoint.playground, endpoint.network) for endpoint in scene.endpoints})
        scopes = {network: number for number, network in enumerate(networks)}
        profiles: dict[Workspace, set[tuple[int, int]]] = {}
        for end, identity in enumerate(ir.identities, FIRST_IDENTITY):
            for workspace, network in identity.members:
                scope = scopes[identity.playground, network]
                profiles.setdefault((identity.playground, workspace), set()).add((scope, end))
        by_profile: dict[_Profile, list[Workspace]] = {}
        for key in sorted(profiles.keys() - scene.hidden):
            by_profile.setdefault(tuple(sorted(profiles[key])), []).append(key)
        self._profiles = list(by_profile)
        self._members = [tuple(members) for members in by_profile.values()]
        self._scopes = _scopes(networks, self._profiles)
        self._outward = {
            scopes[g.playground, n] for g in scene.gateways for n in g.networks if (g.playground, n) in scopes
        }
        self._inward = {
            scopes[g.playground, n]
            for g in scene.gateways
            if g.is_open_inward
            for n in g.networks
            if (g.playground, n) in scopes
        }
        self._columns = _Columns(ir, self._ingress, self._splits)

        self.alike: dict[Parts, tuple[Workspace, ...]] = self._alike()
        """Workspaces by what their rows depend on: those that share a row."""

    def _alike(self) -> dict[Parts, tuple[Workspace, ...]]:
        found: dict[Parts, list[int]] = {}
        for kind, profile in enumerate(self._profiles):
            found.setdefault(tuple(self._part(*port) for port in profile), []).append(kind)
        return {parts: self._spread(kinds) for parts, kinds in found.items()}

    def row(self, parts: Parts) -> Row:
        """The row of all who share it; made anew each time."""
        return {self._ports[number]: self._spread(kinds) for number, kinds in self._reached(parts).items()}

    def rows(self) -> Iterator[tuple[tuple[Workspace, ...], Row]]:
        """Sources that share a row, and the row. Every listed workspace is in one; a row may be empty."""
        return ((sources, self.row(parts)) for parts, sources in self.alike.items())

    def world_rows(self, direction: Direction) -> Iterator[tuple[str, tuple[Workspace, ...], WorldRow]]:
        """(playground, workspaces, row): what passes from them to the world (EGRESS), or from it to them (INGRESS)."""
        open_here = self._outward if direction is Direction.EGRESS else self._inward
        table = self._egress if direction is Direction.EGRESS else self._ingress
        alike: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for kind, profile in enumerate(self._profiles):
            ways = sorted({table[end - FIRST_IDENTITY] for scope, end in profile if scope in open_here})
            if ways:
                alike.setdefault((self._members[kind][0][0], tuple(ways)), []).append(kind)
        for (playground, judges), mine in alike.items():
            found = {0: self.ir.world(playground)}
            for judge in judges:
                refined: dict[int, int] = {}
                for number, ends in self._splits[judge]:
                    for before, cells in found.items():
                        if both := cells & ends:
                            after = self._ports.union(before, number)
                            refined[after] = refined.get(after, 0) | both
                found = refined
            yield (
                playground,
                self._spread(mine),
                {self._ports[number]: cells for number, cells in found.items() if number},
            )

    def _part(self, scope: int, end: int) -> tuple[int, int, int]:
        return scope, self._egress[end - FIRST_IDENTITY], self._columns.of[end - FIRST_IDENTITY]

    def _spread(self, kinds: Iterable[int]) -> tuple[Workspace, ...]:
        return tuple(chained.from_iterable(self._members[kind] for kind in kinds))

    def _reached(self, parts: Parts) -> dict[int, list[int]]:
        """Kinds by the number of the ports on which they are reached: the union over all ways."""
        if len(parts) == 1 and not self._scopes[parts[0][0]].is_doubled:
            return dict(self._reached_by(parts[0]))
        found: dict[int, int] = {}
        for part in parts:
            for number, kinds in self._reached_by(part):
                for kind in kinds:
                    before = found.get(kind)
                    found[kind] = number if before is None else self._ports.union(before, number)
        by_ports: dict[int, list[int]] = {}
        for kind, number in found.items():
            by_ports.setdefault(number, []).append(kind)
        return by_ports

    def _reached_by(self, part: tuple[int, int, int]) -> Iterator[tuple[int, list[int]]]:
        scope, egress, column = self._scopes[part[0]], part[1], part[2]
        here = ((1 << len(scope.reached)) - 1) << scope.first
        found: dict[int, int] = {}
        consents = self._columns.row(column)
        for outward, towards in self._splits[egress]:
            towards &= here
            if not outward or not towards:
                continue
            for inward, consenting in consents:
                if (both := towards & consenting) and (number := self._ports.both(outward, inward)):
                    found[number] = found.get(number, 0) | both
        for number, ends in found.items():
            yield number, list(chained.from_iterable(compress(scope.reached, flags(ends >> scope.first))))


class _Columns:
    """The consent of destinations, turned round: for each source the ports that each destination takes from it.

    Sources that no ingress rule tells apart share a column.
    """

    def __init__(self, ir: IR, ingress: tuple[int, ...], splits: list[list[tuple[int, int]]]) -> None:
        everyone = ((1 << len(ir.identities)) - 1) << FIRST_IDENTITY
        self._subjects: dict[int, list[int]] = {}
        for end, number in enumerate(ingress, FIRST_IDENTITY):
            self._subjects.setdefault(number, []).append(end)
        otherwise: dict[int, list[int]] = {}
        spoken: dict[int, list[tuple[int, int]]] = {}
        for number, subjects in self._subjects.items():
            for ports, ends in splits[number]:
                if ends < 0:
                    otherwise.setdefault(ports, []).extend(subjects)
                elif named := ends & everyone:
                    spoken.setdefault(named, []).append((number, ports))
        self._otherwise = {ports: bits(subjects) for ports, subjects in otherwise.items()}
        self._spoken = list(spoken.values())
        named_in: list[list[int]] = [[] for _ in ir.identities]
        for place, named in enumerate(spoken):
            for end in numbers(named):
                named_in[end - FIRST_IDENTITY].append(place)
        keys: dict[tuple[int, ...], int] = {}
        self.of = [keys.setdefault(tuple(places), len(keys)) for places in named_in]
        """For each identity its column's number."""
        self._keys = list(keys)
        self._last: tuple[int, list[tuple[int, int]]] = -1, []

    def row(self, column: int) -> list[tuple[int, int]]:
        """(number of ports that are not none, destinations that take just these), disjoint."""
        if self._last[0] == column:
            return self._last[1]
        taken: dict[int, list[int]] = {}
        for place in self._keys[column]:
            for chain, ports in self._spoken[place]:
                taken.setdefault(ports, []).extend(self._subjects[chain])
        named = {ports: bits(subjects) for ports, subjects in taken.items()}
        others = ~bits(chained.from_iterable(taken.values()))
        found = {ports: subjects & others for ports, subjects in self._otherwise.items()}
        for ports, subjects in named.items():
            found[ports] = found.get(ports, 0) | subjects
        listed = [(ports, subjects) for ports, subjects in found.items() if ports and subjects]
        self._last = column, listed
        return listed


class _PortsTable:
    """Numbers sets of ports, so that equal ones are compared and combined once. 0 is nothing, 1 everything."""

    LIMIT = 1 << 16
    """Combinations remembered: enough where few sets recur, little memory where each pair has its own."""

    def __init__(self) -> None:
        self._numbers: dict[Ports, int] = {NOTHING: 0, EVERYTHING: 1}
        self._sets = [NOTHING, EVERYTHING]
        self._both: dict[tuple[int, int], int] = {}
        self._union: dict[tuple[int, int], int] = {}

    def __getitem__(self, number: int) -> Ports:
        return self._sets[number]

    def number(self, ports: Ports) -> int:
        known = self._numbers.setdefault(ports, len(self._sets))
        if known == len(self._sets):
            self._sets.append(ports)
        return known

    def both(self, one: int, other: int) -> int:
        if one == 1 or one == other:
            return other
        if other == 1:
            return one
        known = self._both.get((one, other))
        if known is None:
            if len(self._both) >= self.LIMIT:
                self._both.clear()
            known = self._both[one, other] = self.number(self._sets[one] & self._sets[other])
        return known

    def union(self, one: int, other: int) -> int:
        if one == other or not other:
            return one
        if not one:
            return other
        known = self._union.get((one, other))
        if known is None:
            if len(self._union) >= self.LIMIT:
                self._union.clear()
            known = self._union[one, other] = self.number(self._sets[one] | self._sets[other])
        return known


def _scopes(networks: list[tuple[str, str]], profiles: list[_Profile]) -> list[_Scope]:
    here: list[dict[int, list[int]]] = [{} for _ in networks]
    doubled = set()
    for kind, profile in enumerate(profiles):
        seen = set()
        for scope, end in profile:
            here[scope].setdefault(end, []).append(kind)
            if scope in seen:
                doubled.add(scope)
            seen.add(scope)
    found = []
    for scope, (playground, _) in enumerate(networks):
        first, last = min(here[scope], default=0), max(here[scope], default=-1)
        reached = tuple(tuple(here[scope].get(end, ())) for end in range(first, last + 1))
        found.append(_Scope(playground, first, reached, scope in doubled))
    return found
