"""Pure. A file's text once a staged policy is enforced: in the place of the one that it replaces, or as it is.

Edits text and not values, so that comments and order stay. What is edited is read again and compared with what is
meant: a form of writing that this does not foresee is refused, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from playground.spec.problem import Place, SpecErrors, suggestion
from playground.spec.source import Document, Entries, Items, Scalar, read
from policies.codec import pack
from policies.model import Mode, Origin, Policy

_WORD = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[\w.:-]+")
_DASH = re.compile(r"( *)- +")
_IDLE = re.compile(r"\s*(#.*)?")


class NotPromotable(Exception):
    """Nothing was edited. The text is for people."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """policy: the staged one; name: what it is called once it is enforced. replaced: None where it replaces none.

    policies: all of them then, with their places as they are now. texts: of the files that change, by their names.
    """

    policy: Policy
    name: str
    replaced: Policy | None
    policies: tuple[Policy, ...]
    texts: Mapping[str, str]


def promote(
    name: str,
    policies: Iterable[Policy],
    places: Mapping[Origin, Place],
    texts: Mapping[str, str],
    again: Callable[[Mapping[str, str]], Iterable[Policy]],
) -> Promotion:
    """The edit that enforces a staged policy. texts: of all files, by name. again: the policies of edited ones.

    Raises NotPromotable.
    """
    policies = list(policies)
    policy = _staged(name, policies)
    alike = [one for one in policies if one.tier is policy.tier and one.name == policy.replaces]
    replaced = alike[0] if policy.replaces and alike else None
    called = replaced.name if replaced is not None else policy.name
    wanted = [
        replace(one, name=called, mode=Mode.ENFORCE, replaces="") if one is policy else one
        for one in policies
        if one is not replaced
    ]
    try:
        edited = _edited(policy, replaced, places, texts)
        changed = {file: text for file, text in edited.items() if text != texts[file]}
        is_meant = _meaning(again(edited)) == _meaning(wanted) and all(
            _rest(read(texts[file], file)) == _rest(read(text, file)) for file, text in changed.items()
        )
    except SpecErrors:
        is_meant = False
    if not is_meant:
        raise _unforeseen(places[policy.origin])
    return Promotion(policy, called, replaced, tuple(wanted), changed)


def _edited(
    policy: Policy, replaced: Policy | None, places: Mapping[Origin, Place], texts: Mapping[str, str]
) -> dict[str, str]:
    edited = dict(texts)
    concerned = [policy] if replaced is None else [policy, replaced]
    for one in sorted(concerned, key=lambda one: one.origin.line, reverse=True):  # what comes before stays where it was
        name, place = one.origin.file, places[one.origin]
        file = _File(name, edited[name])
        edited[name] = file.drop(place) if one is replaced else file.enforce(place, replaced.name if replaced else "")
    return edited


def _staged(name: str, policies: list[Policy]) -> Policy:
    staged = [one for one in policies if one.mode is Mode.STAGE]
    for one in policies:
        if one.name == name and one.mode is Mode.STAGE:
            return one
        if one.name == name:
            raise NotPromotable(f"{name} ({one.origin}) is enforced already: it has mode {one.mode.value}, not stage")
    if not staged:
        raise NotPromotable(f"no policy here is staged; one with `mode: stage` would be, and {name} is none at all")
    names = [one.name for one in staged]
    hint = suggestion(name, names)
    raise NotPromotable(f"there is no policy {name}{hint if 'mean' in hint else '; staged are: ' + ', '.join(names)}")


def _meaning(policies: Iterable[Policy]) -> list[tuple[str, str]]:
    """What policies say, by their names; those without one by what they say alone."""
    return sorted(("" if ":" in one.name else one.name, repr(pack(one))) for one in policies)


def _rest(document: Document) -> dict[str, object]:
    """All that a file says beside its policies."""
    return {key: document.value((key,)) for key in document.keys(()) if key != "policies"}


def _unforeseen(place: Place) -> NotPromotable:
    return NotPromotable(
        f"{place.file}:{place.line}: this is written in a way that can't be edited without losing something; do it by "
        "hand: take `mode` and `replaces` out of the staged policy, give it the name of the other, and take that out"
    )


class _File:
    """One file's text, and where its policies stand in it."""

    def __init__(self, name: str, text: str) -> None:
        self._text = text
        self._lines = text.splitlines(keepends=True)
        self._document: Document = read(text, name)

    def enforce(self, place: Place, name: str) -> str:
        """The text in which the policy at a place is not staged, and replaces nothing. name: its new one, or ""."""
        entries, _ = self._policy(place)
        cuts = [(*self._entry(place, entries, key), "") for key in ("mode", "replaces") if key in entries.keys]
        if name and "name" in entries.keys:
            cuts.append((*self._value(place, entries.values["name"]), name))
        elif name:
            first = min(entries.keys.values(), key=lambda key: (key.line, key.column))
            at = self._offset(first)
            between = ", " if self._is_flow(entries) else "\n" + " " * (first.column - 1)
            cuts.append((at, at, f"name: {name}{between}"))
        text = self._text
        is_last = any(not instead and text[end:].lstrip().startswith("}") for _, end, instead in cuts)
        for start, end, instead in sorted(cuts, reverse=True):
            text = text[:start] + instead + text[end:]
        at = self._offset(entries)
        return text[:at] + re.sub(r"\s*,\s*}", "}", text[at:], count=1) if is_last else text

    def drop(self, place: Place) -> str:
        """The text without the policy at a place: its lines, but for the comments before the next one."""
        entries, items = self._policy(place)
        first = entries.line - 1
        dash = _DASH.fullmatch(self._lines[first][: entries.column - 1])
        if dash is None:
            raise _unforeseen(place)
        later = [item.line - 1 for item in items.items if item.line > entries.line]
        last = min(later) if later else self._end(first, len(dash[1]))
        while _IDLE.fullmatch(self._lines[last - 1].rstrip("\r\n")):
            last -= 1
        return "".join([*self._lines[:first], *self._lines[last:]])

    def _end(self, first: int, indent: int) -> int:
        """The line after a list's last item, whose dash is indented so far."""
        for at in range(first + 1, len(self._lines)):
            line = self._lines[at].rstrip("\r\n")
            if not _IDLE.fullmatch(line) and len(line) - len(line.lstrip(" ")) <= indent:
                return at
        return len(self._lines)

    def _policy(self, place: Place) -> tuple[Entries, Items]:
        root = self._document.root
        items = root.values.get("policies") if isinstance(root, Entries) else None
        for item in items.items if isinstance(items, Items) else ():
            if isinstance(item, Entries) and (item.line, item.column) == (place.line, place.column):
                assert isinstance(items, Items)
                return item, items
        raise _unforeseen(place)

    def _entry(self, place: Place, entries: Entries, key: str) -> tuple[int, int]:
        """Where a key and its value stand, with what parts them from the next, or from those before."""
        start = self._offset(entries.keys[key])
        _, end = self._value(place, entries.values[key])
        if self._is_flow(entries):
            found = re.compile(r"\s*,\s*").match(self._text, end)
            return start, found.end() if found else end
        after = re.compile(r"[ \t]*(#[^\n]*)?(\r?\n|$)").match(self._text, end)
        if after is None:
            raise _unforeseen(place)
        others = [one for one in entries.keys.values() if one.line > entries.keys[key].line]
        if self._text[:start].rpartition("\n")[2].strip():  # the first one, after the dash: the next takes its place
            if not others:
                raise _unforeseen(place)
            return start, self._offset(min(others, key=lambda one: one.line))
        return self._text.rindex("\n", 0, start) + 1, after.end()

    def _value(self, place: Place, node: object) -> tuple[int, int]:
        if not isinstance(node, Scalar):
            raise _unforeseen(place)
        found = _WORD.match(self._text, self._offset(node))
        if found is None or found[0].strip("'\"") != node.text:
            raise _unforeseen(place)
        return found.span()

    def _is_flow(self, entries: Entries) -> bool:
        return self._text.startswith("{", self._offset(entries))

    def _offset(self, node: Scalar | Entries) -> int:
        return sum(map(len, self._lines[: node.line - 1])) + node.column - 1
