"""Pure. Kernel tables as values, and as nft text that replaces whatever stands there. Knows no policy, no kernel.

A table is put together from parts, one for each subject (a port, a playground), so that what one subject needs is made,
compared and changed by itself. Whatever is read back from a kernel tells which version it is: each rule and each set
has a comment with the fingerprint of its text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain as chained
from typing import TypeVar

_T = TypeVar("_T")

Table = tuple[str, str]
"""(family, name) as nft spells them: ("inet", "playground_policy")."""


@dataclass(frozen=True, slots=True)
class Chain:
    """rules: nft text of each, in order, without comments. hook: of a base chain, `type … hook … priority …; policy …;`
    as nft lists it, so `priority` is a number; "" for a chain that others jump to."""

    rules: tuple[str, ...] = ()
    hook: str = ""


@dataclass(frozen=True, slots=True)
class SetShape:
    """A named set, or a map (kind "map"), without its elements. text: its statements, each ended by `;`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Part:
    """What one subject contributes to a table. Names and keys are disjoint from those of all other parts of the table.

    elements: set → key → value ("" in a set); the set may be another part's. They are spelt as nft lists them: names of
    devices quoted, addresses and prefixes canonical, numbers decimal. Rules and elements may speak of other parts'
    chains, sets and counters. A set that packets fill has no elements here, and keeps its contents as long as it stays.
    """

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, SetShape] = field(default_factory=dict)
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()


Parts = Mapping[Hashable, Part]
"""By subject."""

Ruleset = Mapping[Table, Parts]
"""All that is ours. A part that has not changed is the same object as before: comparing it costs nothing."""

_BUCKETS = 512


class KeptParts(Parts):
    """Parts that never change. What is made of them by `patched` shares what it does not change, so neither to make it
    nor to tell what differs costs the size of the table. sets: the shapes of all that parts declare."""

    __slots__ = ("_buckets", "sets")

    def __init__(self, parts: Parts) -> None:
        buckets: list[dict[Hashable, Part]] = [{} for _ in range(_BUCKETS)]
        for key, part in parts.items():
            buckets[hash(key) % _BUCKETS][key] = part
        self._buckets = tuple(buckets)
        self.sets: Mapping[str, SetShape] = {
            name: shape for part in parts.values() for name, shape in part.sets.items()
        }

    def patched(self, changed: Mapping[Hashable, Part | None]) -> KeptParts:
        """With these instead, or without those that are None."""
        if not changed:
            return self
        buckets, own = list(self._buckets), set()
        gone: list[Part] = []
        for key, part in changed.items():
            place = hash(key) % _BUCKETS
            if place not in own:
                own.add(place)
                buckets[place] = buckets[place].copy()
            if (old := buckets[place].pop(key, None)) is not None:
                gone.append(old)
            if part is not None:
                buckets[place][key] = part
        made = KeptParts.__new__(KeptParts)
        made._buckets = tuple(buckets)
        made.sets = self.sets
        come = [part for part in changed.values() if part is not None]
        if any(part.sets for part in (*gone, *come)):
            left = {name: shape for name, shape in self.sets.items() if not any(name in part.sets for part in gone)}
            made.sets = left | {name: shape for part in come for name, shape in part.sets.items()}
        return made

    def differing(self, other: KeptParts) -> list[Hashable]:
        """Keys whose parts are not the same object, or that only one of them has."""
        found: list[Hashable] = []
        for ours, theirs in zip(self._buckets, other._buckets, strict=True):
            if ours is not theirs:
                found += [key for key, part in ours.items() if theirs.get(key) is not part]
                found += [key for key in theirs if key not in ours]
        return found

    def __getitem__(self, key: Hashable) -> Part:
        return self._buckets[hash(key) % _BUCKETS][key]

    def __iter__(self) -> Iterator[Hashable]:
        return chained.from_iterable(self._buckets)

    def __len__(self) -> int:
        return sum(map(len, self._buckets))


class Clash(ValueError):
    """Two parts of a table have one name or one key; says which."""


def fingerprint(text: str) -> str:
    """What names the version of a rule or a set in its comment: ten hex digits."""
    return blake2b(text.encode(), digest_size=5).hexdigest()


def joined(parts: Parts) -> Part:
    """A table's parts as one. Raises Clash."""
    elements: dict[str, list[Mapping[str, str]]] = {}
    for part in parts.values():
        for name, found in part.elements.items():
            elements.setdefault(name, []).append(found)
    return Part(
        _united("chain", [part.chains for part in parts.values()]),
        _united("set", [part.sets for part in parts.values()]),
        {name: _united(f"element of {name}", found) for name, found in elements.items()},
        frozenset(_united("counter", [dict.fromkeys(part.counters) for part in parts.values()])),
    )


def _united(what: str, found: list[Mapping[str, _T]]) -> dict[str, _T]:
    united = dict(chained.from_iterable(one.items() for one in found))
    if len(united) < sum(map(len, found)):
        names = list(chained.from_iterable(found))
        raise Clash(f"{what} {next(name for name in names if names.count(name) > 1)} is in two parts")
    return united


def whole(ruleset: Ruleset) -> str:
    """One transaction that replaces whatever stands under these tables' names. Raises Clash."""
    return "".join(
        f"table {family} {name}\ndelete table {family} {name}\n{declared((family, name), parts)}"
        for (family, name), parts in ruleset.items()
    )


def declared(table: Table, parts: Parts) -> str:
    """The declaration of a table that is not there. Raises Clash."""
    part = joined(parts)
    lines = [f"table {table[0]} {table[1]} {{"]
    lines += [f"counter {name} {{ }}" for name in sorted(part.counters)]
    for name, shape in part.sets.items():
        lines += [f"{shape.kind} {name} {{ {shape_text(shape)}"]
        if found := part.elements.get(name):
            lines += [f"elements = {{ {elements_text(found)} }}"]
        lines += ["}"]
    for name, chain in part.chains.items():
        lines += [f"chain {name} {{ {chain.hook}", *map(rule_text, chain.rules), "}"]
    lines += ["}"]
    for name in sorted(part.elements.keys() - part.sets.keys()):  # nowhere: that is the kernel's to refuse
        lines += [f"add element {table[0]} {table[1]} {name} {{ {elements_text(part.elements[name])} }}"]
    return "\n".join([*lines, ""])


def shape_text(shape: SetShape) -> str:
    """With the fingerprint that tells it when it is read back."""
    return f'{shape.text} comment "{fingerprint(shape.text)}";'


def rule_text(rule: str) -> str:
    """With its fingerprint, too."""
    return f'{rule} comment "{fingerprint(rule)}"'


def elements_text(elements: Mapping[str, str]) -> str:
    """Between the braces."""
    return ", ".join(f"{key} : {value}" if value else key for key, value in elements.items())
