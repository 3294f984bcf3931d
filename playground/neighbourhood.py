"""Pure. Whom a workspace finds on a host, as far as selectors ask: hard rules that keep it away, wishes that cost.

Counts are made once for each selector in use and kept while workspaces are placed, so a thousand alike cost a thousand
looks, not a million.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from playground.inventory import ANY, PACKED, Neighbours
from playground.records import WorkspaceRecord
from policies.selector import Selector, SelectorError, parse_selector

Kind = tuple[tuple[tuple[str, str], ...], str]
"""What neighbours see of a workspace: its labels in order, and whom it keeps away (a selector, "" for nobody)."""


def kind_of(workspace: WorkspaceRecord) -> Kind:
    """All workspaces of one kind are alike to their neighbours."""
    kept_away = workspace.neighbours.anti_affinity if workspace.neighbours is not None else ""
    return tuple(sorted(workspace.labels.items())), kept_away


@functools.lru_cache(maxsize=4096)
def _selector(text: str) -> Selector | None:
    """None for what can't be read, which selects nobody: admission refused it."""
    try:
        return parse_selector(text)
    except SelectorError:
        return None


def _selects(text: str, labels: Mapping[str, str]) -> bool:
    selector = _selector(text)
    return selector is not None and selector.matches(labels)


_NOBODY: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Around:
    """A workspace's neighbours on each host, counted. near: None where it may be without. against: who keeps it away,
    by whom they keep away. is_free: nobody minds anybody."""

    wants: Neighbours
    near: Counter[str] | None
    apart: Counter[str]
    against: list[tuple[str, Counter[str]]]
    preferred: Counter[str] | None
    disliked: Counter[str]
    is_free: bool

    def misfit(self, host: str) -> str | None:
        """Why it can't be beside those who are there, or None."""
        if self.is_free:
            return None
        if self.apart[host] > 0:
            return f"a workspace with {self.wants.anti_affinity} is there"
        for text, counts in self.against:
            if counts[host] > 0:
                return f"a workspace there keeps {text} away"
        if self.near is not None and self.near[host] <= 0:
            return f"no workspace with {self.wants.affinity} is there"
        return None

    def discord(self, host: str) -> int:
        """How much that it would rather have otherwise: 0 where all is as it prefers."""
        return 0 if self.is_free else self.disliked[host] + (self.preferred is not None and self.preferred[host] <= 0)


class Neighbourhood:
    """kinds: of each host, by playground, how many of each kind are there. leaving: hosts whose workspaces have to go,
    and so attract nobody."""

    def __init__(
        self, kinds: Mapping[str, Mapping[str, Mapping[Kind, int]]], leaving: Container[str] = frozenset()
    ) -> None:
        self._leaving = leaving
        self._kinds = kinds
        self._changed: list[tuple[str, str, Kind, int]] = []
        self._selected: dict[tuple[str, str], Counter[str]] = {}
        self._kept_away: dict[str, dict[str, Counter[str]]] = {}
        self._met: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[int, list[tuple[str, Counter[str]]]]] = {}
        """By playground and labels what `_against` found, among so many."""

    def add(self, workspace: WorkspaceRecord, host: str, number: int = 1) -> None:
        """One more is there; of -1 one less."""
        kind = kind_of(workspace)
        self._changed.append((host, workspace.playground, kind, number))
        for (playground, text), counts in self._selected.items():
            if playground == workspace.playground and _selects(text, workspace.labels):
                counts[host] += number
        if kind[1] and (kept := self._kept_away.get(workspace.playground)) is not None:
            kept[kind[1]][host] += number

    def around(self, workspace: WorkspaceRecord) -> Around:
        """What there is to be said of each host, as the counts are now."""
        wants, of, against = workspace.neighbours or ANY, workspace.playground, self._against(workspace)
        near = self._of(of, wants.affinity) if wants.affinity else None
        is_first = (
            near is not None
            and _selects(wants.affinity, workspace.labels)
            and not any(number > 0 for host, number in near.items() if host not in self._leaving)
        )
        return Around(
            wants,
            None if is_first else near,
            self._of(of, wants.anti_affinity) if wants.anti_affinity else _NOBODY,
            against,
            self._of(of, wants.preferred_affinity) if wants.preferred_affinity else None,
            self._of(of, wants.preferred_anti_affinity) if wants.preferred_anti_affinity else _NOBODY,
            not against and wants in (ANY, PACKED),
        )

    def _against(self, workspace: WorkspaceRecord) -> list[tuple[str, Counter[str]]]:
        """Those among whom others keep away that this one is of, and where they are kept away."""
        kept = self._keeping_away(workspace.playground)
        if not kept:
            return []
        alike = (workspace.playground, kind_of(workspace)[0])
        known, found = self._met.get(alike, (0, []))
        if known != len(kept):
            found = [one for one in kept.items() if _selects(one[0], workspace.labels)]
            self._met[alike] = (len(kept), found)
        return found

    def _all(self, playground: str) -> Iterator[tuple[str, Kind, int]]:
        for host, by_playground in self._kinds.items():
            for kind, number in by_playground.get(playground, {}).items():
                yield host, kind, number
        for host, whose, kind, number in self._changed:
            if whose == playground:
                yield host, kind, number

    def _of(self, playground: str, text: str) -> Counter[str]:
        """How many workspaces a selector selects, by host."""
        counts = self._selected.get((playground, text))
        if counts is None:
            counts = self._selected[playground, text] = Counter()
            for host, (labels, _), number in self._all(playground):
                if _selects(text, dict(labels)):
                    counts[host] += number
        return counts

    def _keeping_away(self, playground: str) -> dict[str, Counter[str]]:
        """How many workspaces keep others away, by whom they do and host."""
        kept = self._kept_away.get(playground)
        if kept is None:
            kept = self._kept_away[playground] = defaultdict(Counter)
            for host, (_, text), number in self._all(playground):
                if text:
                    kept[text][host] += number
        return kept
