"""Pure. Whom a workspace finds on a host, as far as selectors ask: hard rules that keep it away, wishes that cost.

Counts are made once for each selector in use and kept while workspaces are placed, so a thousand alike cost a thousand
looks, not a million.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping

from playground.inventory import ANY
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

    def add(self, workspace: WorkspaceRecord, host: str, number: int = 1) -> None:
        """One more is there; of -1 one less."""
        kind = kind_of(workspace)
        self._changed.append((host, workspace.playground, kind, number))
        for (playground, text), counts in self._selected.items():
            if playground == workspace.playground and _selects(text, workspace.labels):
                counts[host] += number
        if kind[1] and (kept := self._kept_away.get(workspace.playground)) is not None:
            kept[kind[1]][host] += number

    def misfit(self, workspace: WorkspaceRecord, host: str) -> str | None:
        """Why it can't be beside those who are there, or None."""
        wants = workspace.neighbours or ANY
        if wants.anti_affinity and self._of(workspace.playground, wants.anti_affinity)[host] > 0:
            return f"a workspace with {wants.anti_affinity} is there"
        for text, counts in self._keeping_away(workspace.playground).items():
            if counts[host] > 0 and _selects(text, workspace.labels):
                return f"a workspace there keeps {text} away"
        if wants.affinity:
            there = self._of(workspace.playground, wants.affinity)
            is_first = _selects(wants.affinity, workspace.labels) and not any(
                number > 0 for name, number in there.items() if name not in self._leaving
            )
            if there[host] <= 0 and not is_first:
                return f"no workspace with {wants.affinity} is there"
        return None

    def discord(self, workspace: WorkspaceRecord, host: str) -> int:
        """How much that it would rather have otherwise: 0 where all is as it prefers."""
        wants = workspace.neighbours or ANY
        found = 0
        if wants.preferred_anti_affinity:
            found += self._of(workspace.playground, wants.preferred_anti_affinity)[host]
        if wants.preferred_affinity:
            found += self._of(workspace.playground, wants.preferred_affinity)[host] <= 0
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
