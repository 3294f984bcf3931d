"""Pure. What a host's kernel is to hold of all devices and playgrounds, put together at the cost of what has changed.

The same devices and playgrounds always give the same tables, whatever was there before: `GuardTable` and `PolicyTable`
only keep what they made.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

from policies.compile.playground import Compiled, policy_table, policy_table_after
from policies.compile.tables import KeptParts, Part, Parts
from policies.guard.parts import judged
from policies.verdicts import Judgement


class GuardTable:
    """Parts in groups, a group for each device or other thing, whose keys no other group has."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, Parts] = {}
        self._table = KeptParts({})
        self._judged: dict[str, tuple[Parts, tuple[int | None, int], Parts]] = {}

    def of(self, groups: Mapping[Hashable, Parts]) -> KeptParts:
        """All of them. A group that is the same object as the last time is not looked into."""
        changed: dict[Hashable, Part | None] = {}
        for name in self._groups.keys() - groups.keys():
            changed.update(dict.fromkeys(self._groups[name]))
            self._judged.pop(str(name), None)
        for name, parts in groups.items():
            old = self._groups.get(name, {})
            if old is not parts:
                changed.update((key, None) for key in old if key not in parts)
                changed.update((key, part) for key, part in parts.items() if old.get(key) is not part)
        self._groups, self._table = dict(groups), self._table.patched(changed)
        return self._table

    def judged(self, device: str, parts: Parts, bridge: int | None, zone: int) -> Parts:
        """Those of a device whose packets policies judge (`guard.judged`); the same object for the same arguments."""
        known = self._judged.get(device)
        if known is None or known[0] is not parts or known[1] != (bridge, zone):
            known = self._judged[device] = parts, (bridge, zone), {**parts, device: judged(parts[device], bridge, zone)}
        return known[2]


class PolicyTable:
    """Playgrounds by id."""

    def __init__(self) -> None:
        self._compiled: dict[str, Compiled] = {}
        self._table = policy_table([])

    def of(self, compiled: Mapping[str, Compiled]) -> KeptParts:
        """All of them (`policy_table`)."""
        self._table = policy_table_after(self._table, self._compiled, compiled)
        self._compiled = dict(compiled)
        return self._table


class JudgementsOf(Mapping[str, Judgement]):
    """Of several playgrounds, gathered only when somebody asks."""

    def __init__(self, compiled: tuple[Compiled, ...]) -> None:
        self._compiled = compiled

    def __getitem__(self, id: str) -> Judgement:
        for one in self._compiled:
            if id in one.judgements:
                return one.judgements[id]
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        return iter({id: None for one in self._compiled for id in one.judgements})

    def __len__(self) -> int:
        return sum(1 for _ in self)
