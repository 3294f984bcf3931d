"""Pure. Kernel tables as values, and as nft text: whole, or as the difference between two. Knows no policy, no kernel.

A table is put together from parts, one for each subject (a port, a playground), so that what one subject needs is made,
compared and changed by itself. Whatever is read back from a kernel tells which version it is: each rule and each set
has a comment with the fingerprint of its text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain as chained
from types import MappingProxyType
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

_NO_PART = Part()
_NO_ELEMENTS: Mapping[str, str] = MappingProxyType({})


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
        f"table {family} {name}\ndelete table {family} {name}\n{_block((family, name), parts)}"
        for (family, name), parts in ruleset.items()
    )


def difference(before: Ruleset, after: Ruleset) -> str:
    """One transaction from one ruleset to another, "" if they are equal; what it costs follows what has changed.

    Both are taken to be free of clashes, and of rules and elements that speak of what is not there.
    """
    return "".join(
        [
            *(f"delete table {family} {name}\n" for family, name in before if (family, name) not in after),
            *(
                "".join(_changed(table, before[table], parts)) if table in before else _block(table, parts)
                for table, parts in after.items()
            ),
        ]
    )


def _block(table: Table, parts: Parts) -> str:
    """The declaration of a table that is not there."""
    part = joined(parts)
    lines = [f"table {table[0]} {table[1]} {{"]
    lines += [f"counter {name} {{ }}" for name in sorted(part.counters)]
    for name, shape in part.sets.items():
        lines += [f"{shape.kind} {name} {{ {_shape_text(shape)}"]
        if found := part.elements.get(name):
            lines += [f"elements = {{ {_elements_text(found)} }}"]
        lines += ["}"]
    for name, chain in part.chains.items():
        lines += [f"chain {name} {{ {chain.hook}", *map(_rule_text, chain.rules), "}"]
    return "\n".join([*lines, "}", ""])


def _shape_text(shape: SetShape) -> str:
    return f'{shape.text} comment "{fingerprint(shape.text)}";'


def _rule_text(rule: str) -> str:
    return f'{rule} comment "{fingerprint(rule)}"'


def _elements_text(elements: Mapping[str, str]) -> str:
    return ", ".join(f"{key} : {value}" if value else key for key, value in elements.items())


def _changed(table: Table, before: Parts, after: Parts) -> Iterator[str]:
    """Commands in an order in which nothing in use is deleted, and nothing missing is used."""
    subjects = [key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)]
    if not subjects:
        return
    olds = [before.get(key, _NO_PART) for key in subjects]
    news = [after.get(key, _NO_PART) for key in subjects]
    sets, shapes = _merged(part.sets for part in olds), _merged(part.sets for part in news)
    gone_sets = [name for name, shape in sets.items() if shapes.get(name) != shape]
    new_sets = [name for name, shape in shapes.items() if sets.get(name) != shape]
    reshaped = set(gone_sets).intersection(new_sets)
    chains, wanted = _merged(part.chains for part in olds), _merged(part.chains for part in news)
    if reshaped:  # rare, so it may look at everything: a set in use can't be deleted
        users = {
            name: chain for part in after.values() for name, chain in part.chains.items() if _uses(chain, reshaped)
        }
        stale = {name: chain for part in before.values() for name, chain in part.chains.items() if name in users}
        chains, wanted = {**chains, **stale}, {**wanted, **users}
    gone_elements, new_elements = _changed_elements(olds, news)
    for name in reshaped:
        new_elements[name] = _merged(part.elements.get(name, {}) for part in after.values())
    for name in gone_sets:
        gone_elements.pop(name, None)
    rewritten = [
        name
        for name, chain in wanted.items()
        if ((old := chains.get(name)) is not chain and old != chain) or (reshaped and _uses(chain, reshaped))
    ]
    old_chains = [name for name, chain in chains.items() if name not in wanted or wanted[name].hook != chain.hook]
    new_chains = [name for name, chain in wanted.items() if name not in chains or chains[name].hook != chain.hook]
    counters = frozenset(chained.from_iterable(part.counters for part in olds))
    counted = frozenset(chained.from_iterable(part.counters for part in news))

    place = f"{table[0]} {table[1]}"
    for name in {**dict.fromkeys(old_chains), **dict.fromkeys(rewritten)}:
        if name in chains and chains[name].rules:
            yield f"flush chain {place} {name}\n"
    for name, found in gone_elements.items():
        yield f"delete element {place} {name} {{ {_elements_text(found)} }}\n"
    yield from (f"delete {sets[name].kind} {place} {name}\n" for name in gone_sets)
    yield from (f"delete chain {place} {name}\n" for name in old_chains)
    yield from (f"delete counter {place} {name}\n" for name in sorted(counters - counted))
    yield from (f"add counter {place} {name}\n" for name in sorted(counted - counters))
    for name in new_sets:
        yield f"add {shapes[name].kind} {place} {name} {{ {_shape_text(shapes[name])} }}\n"
    for name in new_chains:
        hook = wanted[name].hook
        yield f"add chain {place} {name} {{ {hook} }}\n" if hook else f"add chain {place} {name}\n"
    for name in rewritten:
        yield from (f"add rule {place} {name} {_rule_text(rule)}\n" for rule in wanted[name].rules)
    for name, found in new_elements.items():
        if found:
            yield f"add element {place} {name} {{ {_elements_text(found)} }}\n"


def _changed_elements(
    olds: list[Part], news: list[Part]
) -> tuple[dict[str, Mapping[str, str]], dict[str, Mapping[str, str]]]:
    """(those to delete, those to add) by set; one whose value has changed is in both."""
    gone: dict[str, dict[str, str]] = {}
    new: dict[str, dict[str, str]] = {}
    for old, now in zip(olds, news, strict=True):
        for name in old.elements.keys() | now.elements.keys():
            ours, theirs = old.elements.get(name, _NO_ELEMENTS), now.elements.get(name, _NO_ELEMENTS)
            if ours is theirs:
                continue
            for found, some, others in ((gone, ours, theirs), (new, theirs, ours)):
                differing = {key: value for key, value in some.items() if others.get(key) != value}
                if differing:
                    found.setdefault(name, {}).update(differing)
    for name in gone.keys() & new.keys():  # what has moved from one part to another stays
        both = [key for key, value in gone[name].items() if new[name].get(key) == value]
        for key in both:
            del gone[name][key], new[name][key]
    return (
        {name: found for name, found in sorted(gone.items()) if found},
        {name: found for name, found in sorted(new.items()) if found},
    )


def _merged(found: Iterable[Mapping[str, _T]]) -> dict[str, _T]:
    return dict(chained.from_iterable(one.items() for one in found))


def _uses(chain: Chain, sets: set[str]) -> bool:
    return any(f"@{name}" in f"{rule} ".replace(";", " ").split() for rule in chain.rules for name in sets)
