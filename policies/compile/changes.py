"""Pure. The difference between two rulesets as commands, and these as nft text. Knows no kernel.

All commands of a difference are one transaction, in an order in which nothing in use is deleted, and nothing missing is
used. What they cost to find follows what has changed: parts that are the same object are not looked into.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import chain as chained
from types import MappingProxyType
from typing import NamedTuple, TypeVar, assert_never

from policies.compile.tables import (
    Chain,
    KeptParts,
    Part,
    Parts,
    Ruleset,
    SetShape,
    Table,
    declared,
    elements_text,
    rule_text,
    shape_text,
)

_T = TypeVar("_T")

_NO_PART = Part()
_NO_ELEMENTS: Mapping[str, str] = MappingProxyType({})
_UNKNOWN = SetShape("set", "")
"""Of a set that nobody declares: the kernel will refuse its elements."""


class DeclareTable(NamedTuple):
    """A whole table that is not there."""

    table: Table
    parts: Parts


class DeleteTable(NamedTuple):
    table: Table


class FlushChain(NamedTuple):
    table: Table
    name: str


class DeleteChain(NamedTuple):
    table: Table
    name: str


class AddChain(NamedTuple):
    """hook: as tables.Chain has it."""

    table: Table
    name: str
    hook: str


class AddRules(NamedTuple):
    """At the end of a chain, in order."""

    table: Table
    chain: str
    rules: tuple[str, ...]


class DeleteSet(NamedTuple):
    table: Table
    name: str
    kind: str


class AddSet(NamedTuple):
    table: Table
    name: str
    shape: SetShape


class DeleteElements(NamedTuple):
    table: Table
    name: str
    shape: SetShape
    elements: Mapping[str, str]


class AddElements(NamedTuple):
    table: Table
    name: str
    shape: SetShape
    elements: Mapping[str, str]


class DeleteCounter(NamedTuple):
    table: Table
    name: str


class AddCounter(NamedTuple):
    table: Table
    name: str


Command = (
    DeclareTable
    | DeleteTable
    | FlushChain
    | DeleteChain
    | AddChain
    | AddRules
    | DeleteSet
    | AddSet
    | DeleteElements
    | AddElements
    | DeleteCounter
    | AddCounter
)


def difference(before: Ruleset, after: Ruleset) -> list[Command]:
    """From one ruleset to another; none if they are equal.

    Both are taken to be free of clashes, and of rules and elements that speak of what is not there.
    """
    found: list[Command] = [DeleteTable(table) for table in before if table not in after]
    for table, parts in after.items():
        if table not in before:
            found.append(DeclareTable(table, parts))
        elif parts is not before[table]:
            found += _changed(table, before[table], parts)
    return found


def as_text(commands: Iterable[Command]) -> str:
    """For `nft -f`."""
    return "".join(map(_text, commands))


def _text(command: Command) -> str:
    place = " ".join(command.table)
    match command:
        case DeclareTable(table, parts):
            return declared(table, parts)
        case DeleteTable():
            return f"delete table {place}\n"
        case FlushChain(_, name):
            return f"flush chain {place} {name}\n"
        case DeleteChain(_, name):
            return f"delete chain {place} {name}\n"
        case AddChain(_, name, hook):
            return f"add chain {place} {name} {{ {hook} }}\n" if hook else f"add chain {place} {name}\n"
        case AddRules(_, name, rules):
            return "".join(f"add rule {place} {name} {rule_text(rule)}\n" for rule in rules)
        case DeleteSet(_, name, kind):
            return f"delete {kind} {place} {name}\n"
        case AddSet(_, name, shape):
            return f"add {shape.kind} {place} {name} {{ {shape_text(shape)} }}\n"
        case DeleteElements(_, name, _, elements):
            return f"delete element {place} {name} {{ {elements_text(elements)} }}\n"
        case AddElements(_, name, _, elements):
            return f"add element {place} {name} {{ {elements_text(elements)} }}\n"
        case DeleteCounter(_, name):
            return f"delete counter {place} {name}\n"
        case AddCounter(_, name):
            return f"add counter {place} {name}\n"
        case _:
            assert_never(command)


def _changed(table: Table, before: Parts, after: Parts) -> Iterator[Command]:
    subjects = _differing(before, after)
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

    for name in {**dict.fromkeys(old_chains), **dict.fromkeys(rewritten)}:
        if name in chains and chains[name].rules:
            yield FlushChain(table, name)
    for name, shape in _shapes(gone_elements, before).items():
        yield DeleteElements(table, name, shape, gone_elements[name])
    yield from (DeleteSet(table, name, sets[name].kind) for name in gone_sets)
    yield from (DeleteChain(table, name) for name in old_chains)
    yield from (DeleteCounter(table, name) for name in sorted(counters - counted))
    yield from (AddCounter(table, name) for name in sorted(counted - counters))
    yield from (AddSet(table, name, shapes[name]) for name in new_sets)
    yield from (AddChain(table, name, wanted[name].hook) for name in new_chains)
    yield from (AddRules(table, name, wanted[name].rules) for name in rewritten if wanted[name].rules)
    for name, shape in _shapes(new_elements, after).items():
        if found := new_elements[name]:
            yield AddElements(table, name, shape, found)


def _differing(before: Parts, after: Parts) -> list[Hashable]:
    if isinstance(before, KeptParts) and isinstance(after, KeptParts):
        return after.differing(before)
    return [key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)]


def _shapes(names: Iterable[str], parts: Parts) -> dict[str, SetShape]:
    """The shapes of some sets."""
    known = parts.sets if isinstance(parts, KeptParts) else _merged(part.sets for part in parts.values() if part.sets)
    return {name: known.get(name, _UNKNOWN) for name in names}


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
