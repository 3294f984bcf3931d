"""Pure. What a change means: the connections that it opens and those that it cuts, not how the text differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from policies.connections import WORLD, Json, names, ports_json, spans_of_ends
from policies.model import Direction, Scene
from policies.ports import NOTHING, Ports
from policies.reach import Parts, Reach, Row, Workspace
from policies.resolve import resolve
from policies.world import Span, merged, span_text


@dataclass(frozen=True, slots=True)
class Change:
    """What between two ends, as connections lists them, may begin now and could not before, and the other way."""

    source: str
    destination: str
    opened: Ports
    cut: Ports

    def to_json(self) -> Json:
        """As `policy diff --json` lists it."""
        return {
            "from": self.source,
            "to": self.destination,
            "opened": ports_json(self.opened) if self.opened else [],
            "cut": ports_json(self.cut) if self.cut else [],
        }


def difference(before: Scene, after: Scene, is_staged: bool = False) -> Iterator[Change]:
    """Every pair of ends between which something changes. A workspace that comes or goes opens or cuts all it has.

    is_staged: of after, as if what is staged were enforced; of one and the same scene, what `promote` would do.
    """
    called = _names(before, after)
    old, new = Reach(before, resolve(before)), Reach(after, resolve(after), is_staged)
    for sources, was, now in _rows(old, new):
        opened, cut = _gained(was, now), _gained(now, was)
        for source in sources:
            for destination in sorted(opened.keys() | cut.keys()):
                if destination != source:
                    yield Change(
                        called[source],
                        called[destination],
                        opened.get(destination, NOTHING),
                        cut.get(destination, NOTHING),
                    )
    for direction in Direction:
        for workspaces, part, opened_there, cut_there in _world_changes(old, new, direction):
            for workspace in workspaces:
                ends = (called[workspace], part) if direction is Direction.EGRESS else (part, called[workspace])
                yield Change(*ends, opened_there, cut_there)


def _names(before: Scene, after: Scene) -> dict[Workspace, str]:
    """As connections names them; with the playground if either side or both together need it."""
    both = Scene((*before.endpoints, *after.endpoints), ())
    return names(both)


def _rows(old: Reach, new: Reach) -> Iterator[tuple[list[Workspace], dict[Workspace, Ports], dict[Workspace, Ports]]]:
    """(sources, row before, row after) for those whose rows differ."""
    were = {workspace: parts for parts, workspaces in old.alike.items() for workspace in workspaces}
    are = {workspace: parts for parts, workspaces in new.alike.items() for workspace in workspaces}
    groups: dict[tuple[Parts | None, Parts | None], list[Workspace]] = {}
    for workspace in sorted(were.keys() | are.keys()):
        groups.setdefault((were.get(workspace), are.get(workspace)), []).append(workspace)
    for (mine_before, mine_after), sources in groups.items():
        was: Row = {} if mine_before is None else old.row(mine_before)
        now: Row = {} if mine_after is None else new.row(mine_after)
        if was != now:
            yield sources, _by_workspace(was), _by_workspace(now)


def _by_workspace(row: Row) -> dict[Workspace, Ports]:
    return {workspace: ports for ports, workspaces in row.items() for workspace in workspaces}


def _gained(before: dict[Workspace, Ports], after: dict[Workspace, Ports]) -> dict[Workspace, Ports]:
    """What is in after and not in before; a pair of sets of ports is compared once."""
    known: dict[tuple[int, int], Ports] = {}
    found = {}
    for workspace, ports in after.items():
        had = before.get(workspace, NOTHING)
        if ports is had:
            continue
        gained = known.get((id(ports), id(had)))
        if gained is None:
            gained = known[id(ports), id(had)] = ports - had
        if gained:
            found[workspace] = gained
    return found


_Parted = tuple[tuple[Span, Ports], ...]
"""What passes between a workspace and the world, by addresses: disjoint, where nothing passes left out."""


def _world_changes(old: Reach, new: Reach, direction: Direction) -> Iterator[tuple[list[Workspace], str, Ports, Ports]]:
    """(workspaces, part of the world as it is listed, opened, cut)."""
    were, are = _world(old, direction), _world(new, direction)
    groups: dict[tuple[str, _Parted, _Parted], list[Workspace]] = {}
    for workspace in sorted(were.keys() | are.keys()):
        was, now = were.get(workspace, ()), are.get(workspace, ())
        if was != now:
            groups.setdefault((workspace[0], was, now), []).append(workspace)
    for (playground, was, now), workspaces in groups.items():
        found: dict[tuple[Ports, Ports], list[Span]] = {}
        for span, had, has in _side_by_side(was, now):
            if had != has:
                found.setdefault((has - had, had - has), []).append(span)
        wholes = [spans_of_ends(reach.ir, reach.ir.world(playground)) for reach in (old, new)]
        for (opened, cut), spans in found.items():
            listed = merged(spans)
            for part in [WORLD] if listed in wholes else map(span_text, listed):
                yield workspaces, part, opened, cut


def _world(reach: Reach, direction: Direction) -> dict[Workspace, _Parted]:
    found = {}
    for _, workspaces, row in reach.world_rows(direction):
        parted = tuple(
            sorted(
                ((span, ports) for ports, ends in row.items() for span in spans_of_ends(reach.ir, ends)),
                key=lambda one: one[0],
            )
        )
        for workspace in workspaces:
            found[workspace] = parted
    return found


def _side_by_side(before: _Parted, after: _Parted) -> Iterator[tuple[Span, Ports, Ports]]:
    """Both over the same spans: (span, ports before, ports after)."""
    edges: dict[int, set[int]] = {}
    for (version, first, last), _ in (*before, *after):
        edges.setdefault(version, set()).update((first, last + 1))
    for version, places in edges.items():
        ordered = sorted(places)
        for first, following in pairwise(ordered):
            span = version, first, following - 1
            yield span, _at(before, version, first), _at(after, version, first)


def _at(parted: _Parted, version: int, address: int) -> Ports:
    for (its, first, last), ports in parted:
        if its == version and first <= address <= last:
            return ports
    return NOTHING
