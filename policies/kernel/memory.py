"""Tables in memory: the double of `enforcement.Enforcement`, for tests of whoever uses it. Touches no kernel.

The same suite runs against both (tests/policies/kernel/test_enforcement.py).
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress

from policies.compile.tables import Part, Ruleset, Table, joined
from policies.kernel.enforcement import Outcome, changed_parts
from policies.prove import Claim
from policies.verify import differences

_NO_PART = Part()


class MemoryEnforcement:
    """Tests read in_force and policed, and set the rest; `tamper` is what somebody else does behind our back.

    cause: every `converge` fails with it, and changes nothing. refuses: parts that it will not take, with its words.
    bridges: those that are there; None for any. lacks: why it can't police. packets: what `counters` tells.
    """

    def __init__(self) -> None:
        self.in_force: Ruleset = {}
        self.policed: frozenset[str] = frozenset()
        self.cause = ""
        self.refuses: dict[tuple[Table, Hashable], str] = {}
        self.bridges: frozenset[str] | None = None
        self.lacks: str | None = None
        self.packets: dict[tuple[str, str], tuple[int, int]] = {}
        self.is_closed = False
        self._tampered: dict[str, int] = {}
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """See Enforcement."""
        return self._event

    def tamper(self, **objects: int) -> None:
        """Somebody changes so many objects of these kinds: table=1."""
        self._tampered = {kind: self._tampered.get(kind, 0) + number for kind, number in objects.items()}
        os.eventfd_write(self._event, 1)

    def converge(self, ruleset: Ruleset, policed: frozenset[str] = frozenset(), *, is_doubted: bool = False) -> Outcome:
        """See Enforcement."""
        if self.cause:
            return Outcome(self.cause)
        for parts in ruleset.values():
            joined(parts)
        refused = {}
        now = {table: dict(parts) for table, parts in self.in_force.items()}
        for table, key in changed_parts(self.in_force, ruleset):
            if (table, key) in self.refuses and key in ruleset.get(table, {}):
                refused[table, key] = self.refuses[table, key]
                continue
            now.setdefault(table, {})[key] = ruleset.get(table, {}).get(key, _NO_PART)
        self.in_force = now if refused else ruleset
        self.policed = policed if self.bridges is None else policed & self.bridges
        repaired, self._tampered = self._tampered, {}
        return Outcome("", refused, policed - self.policed, repaired, tuple(_tampered(repaired)))

    def touched(self) -> bool:
        """See Enforcement."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        return bool(self._tampered)

    def counters(self) -> dict[tuple[str, str], tuple[int, int]]:
        """See Enforcement."""
        return dict(self.packets)

    def differences(
        self, ruleset: Ruleset, policed: frozenset[str] = frozenset(), claims: Sequence[tuple[Table, Claim]] = ()
    ) -> list[str]:
        """See Enforcement."""
        return [*differences(self.in_force, ruleset), *_tampered(self._tampered)]

    def can_police(self) -> str | None:
        """See Enforcement."""
        return self.lacks

    def close(self) -> None:
        """See Enforcement."""
        if not self.is_closed:
            os.close(self._event)
        self.is_closed = True


def _tampered(objects: Mapping[str, int]) -> list[str]:
    return [f"{number} of {kind} changed" for kind, number in objects.items()]
