"""Pure. What was read of the kernel's tables, as a ruleset to compare with the one that should be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from policies.compile.tables import Chain, Part, Ruleset, SetShape, Table, fingerprint, joined
from policies.kernel.listing import TableFound

_STRANGE = "# not ours"
"""Stands for a rule or a shape that is not known by its fingerprint."""


def found_ruleset(found: Mapping[Table, TableFound], elements: Iterable[dict[str, Any]], wanted: Ruleset) -> Ruleset:
    """The tables as they are, one part each. elements: the entries of `list sets` and `list maps`, as JSON.

    A rule is what is wanted if its comment is the fingerprint of a rule that is wanted in that chain. The contents of
    sets that packets fill are no matter.
    """
    contents = {
        ((body["family"], body["table"]), body["name"]): body
        for entry in elements
        for body in entry.values()
        if "name" in body and "table" in body
    }
    return {
        table: {"found": _found_part(table, one, contents, joined(wanted.get(table, {})))}
        for table, one in found.items()
    }


def _found_part(
    table: Table, found: TableFound, contents: Mapping[tuple[Table, str], dict[str, Any]], wanted: Part
) -> Part:
    chains = {}
    for name, (hook, comments) in found.chains.items():
        ours = wanted.chains.get(name, Chain())
        known = {fingerprint(rule): rule for rule in ours.rules}
        rules = tuple(known.get(comment, _STRANGE) for comment in comments)
        chains[name] = ours if (rules, hook) == (ours.rules, ours.hook) else Chain(rules, hook)
    sets, elements = {}, {}
    for name, comment in found.sets.items():
        body = contents.get((table, name), {})
        kind = "map" if "map" in body else "set"
        shape = wanted.sets.get(name)
        if shape is not None and (shape.kind, fingerprint(shape.text)) == (kind, comment):
            sets[name] = shape
            if "dynamic" in shape.text:
                continue
        else:
            sets[name] = SetShape(kind, _STRANGE)
        elements[name] = _elements(body)
    return Part(chains, sets, elements, frozenset(found.counters))


def _elements(body: dict[str, Any]) -> dict[str, str]:
    key_type = _types(body.get("type", ""))
    if "map" not in body:
        return {_key_text(element, key_type): "" for element in body.get("elem", ())}
    return {_key_text(key, key_type): _text(value, body["map"]) for key, value in body.get("elem", ())}


def _types(said: Any) -> list[str]:
    """The type of each part of a key. nft 1.1 and newer say what a set is of by `typeof`, as expressions: of these only
    names of devices matter here."""
    if isinstance(said, dict):
        said = said["typeof"]
        parts = said.get("concat", [said])
        return ["ifname" if part.get("meta", {}).get("key", "").endswith("ifname") else "" for part in parts]
    return said if isinstance(said, list) else [said]


def _key_text(key: Any, types: list[str]) -> str:
    if isinstance(key, dict) and "elem" in key:  # with a statement of its own, or a timeout
        key = key["elem"]["val"]
    if isinstance(key, dict) and "concat" in key:
        return " . ".join(_text(part, kind) for part, kind in zip(key["concat"], types, strict=True))
    return _text(key, types[0])


def _text(value: Any, kind: Any) -> str:
    """As nft lists it in text."""
    if isinstance(value, dict):
        if "prefix" in value:
            return f"{value['prefix']['addr']}/{value['prefix']['len']}"
        if "range" in value:
            return "-".join(str(end) for end in value["range"])
        verdict, target = next(iter(value.items()))
        return f"{verdict} {target['target']}" if target else str(verdict)
    return f'"{value}"' if kind == "ifname" else str(value)


def wrong_objects(found: Ruleset, wanted: Ruleset) -> dict[str, int]:
    """How many objects of each kind are not as they should be: missing, changed, or of nobody's."""
    wrong: Counter[str] = Counter()
    for table in found.keys() | wanted.keys():
        if table not in found or table not in wanted:
            wrong["table"] += 1
            continue
        one, other = joined(found[table]), joined(wanted[table])
        wrong["chain"] += len(one.chains.keys() ^ other.chains.keys())
        for name in one.chains.keys() & other.chains.keys():
            wrong["hook"] += one.chains[name].hook != other.chains[name].hook
            wrong["rules"] += one.chains[name].rules != other.chains[name].rules
        wrong["set"] += sum(one.sets.get(name) != other.sets.get(name) for name in one.sets.keys() | other.sets.keys())
        for name in one.sets.keys() & other.sets.keys():
            ours, theirs = one.elements.get(name, {}), other.elements.get(name, {})
            wrong["element"] += sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
        wrong["counter"] += len(one.counters ^ other.counters)
    return {kind: count for kind, count in wrong.items() if count}
