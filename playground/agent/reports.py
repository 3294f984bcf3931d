"""What a host says of itself: observations, told when they are new. Decides nothing; knows no kernel.

Whoever observes notes what it has looked at; what stands as it was said is not said again.
"""

from __future__ import annotations

from collections.abc import Iterable

from playground.records import key_of
from playground.wire import Observation, Report


class Reports:
    """Everything observed, and what of it the controller has not been told."""

    def __init__(self) -> None:
        self._observed: dict[str, Observation] = {}
        self._unsaid: set[str] = set()
        self._is_whole_due = True

    def note(self, observation: Observation) -> None:
        """This is so now."""
        key = key_of(observation)
        if self._observed.get(key) != observation:
            self._observed[key] = observation
            self._unsaid.add(key)

    def drop(self, key: str) -> None:
        """Nothing is to be said under this key (any more)."""
        if self._observed.pop(key, None) is not None:
            self._unsaid.add(key)

    def keep(self, keys: Iterable[str]) -> None:
        """Drops everything else."""
        for key in self._observed.keys() - set(keys):
            self.drop(key)

    def begin(self) -> None:
        """A new connection: the next report says everything."""
        self._is_whole_due = True

    def due(self) -> Report | None:
        """What has to be said now, if anything."""
        if self._is_whole_due:
            return Report(True, list(self._observed.values()), [])
        fresh = [self._observed[key] for key in sorted(self._unsaid) if key in self._observed]
        gone = sorted(key for key in self._unsaid if key not in self._observed)
        return Report(False, fresh, gone) if fresh or gone else None

    def said(self, report: Report) -> None:
        """That much has been told."""
        self._is_whole_due = self._is_whole_due and not report.whole
        for observation in report.observed:
            if self._observed.get(key := key_of(observation)) == observation:
                self._unsaid.discard(key)
        self._unsaid.difference_update(key for key in report.gone if key not in self._observed)
