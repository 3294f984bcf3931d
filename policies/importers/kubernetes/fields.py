"""Pure. Takes typed values out of read documents, and refuses misfits at their line; knows no kinds.

As the API server's decoder does, a null counts as if the key were not there, and in a list as an empty value.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Any

from policies.importers.kubernetes.documents import Fields, Items


class MisfitError(ValueError):
    """A value is not what the schema wants. line: 0 where the text has none; the message has the path."""

    def __init__(self, at: At, message: str) -> None:
        super().__init__(f"{at.path}: {message}" if at.path else message)
        self.line = at.line


class At:
    """A value and where it stands. All methods raise MisfitError."""

    __slots__ = ("line", "path", "value")

    def __init__(self, value: Any, line: int, path: str) -> None:
        self.value = value
        self.line = line
        self.path = path

    def fields(self, known: Collection[str] | None = None) -> dict[str, At]:
        """The keys that have a value. Others than `known` are refused, null or not; None knows them all."""
        if self.value is None:
            return {}
        if not isinstance(self.value, Fields):
            raise MisfitError(self, f"read {described(self.value)} where a mapping should be")
        found = {}
        for key, value in self.value.items():
            at = At(value, self.value.lines.get(key, self.line), f"{self.path}.{key}" if self.path else key)
            if known is not None and key not in known:
                raise MisfitError(at, f"unknown field{_guess(key, known)}")
            if value is not None:
                found[key] = at
        return found

    def field(self, key: str) -> At:
        """One key's value, which may be missing; other keys are no matter."""
        return self.fields().get(key, At(None, self.line, f"{self.path}.{key}" if self.path else key))

    def items(self, most: int | None = None, least: int = 0) -> list[At]:
        """The items of a list; a missing one has none."""
        if self.value is None:
            values: Sequence[Any] = ()
        elif isinstance(self.value, Items | list):
            values = self.value
        else:
            raise MisfitError(self, f"read {described(self.value)} where a list should be")
        if len(values) < least:
            raise MisfitError(self, f"the list is empty; at least {least} is needed")
        if most is not None and len(values) > most:
            raise MisfitError(self, f"the list has {len(values)} items; at most {most} are allowed")
        lines = self.value.lines if isinstance(self.value, Items) else []
        return [
            At(value, lines[index] if index < len(lines) else self.line, f"{self.path}[{index}]")
            for index, value in enumerate(values)
        ]

    def text(self) -> str:
        """A text, not empty."""
        if isinstance(self.value, str) and self.value:
            return self.value
        hint = '; write it in quotes, as "…"' if isinstance(self.value, bool | int | float) else ""
        raise MisfitError(self, f"read {described(self.value)} where a text should be{hint}")

    def word(self, allowed: Collection[str]) -> str:
        """One of some words."""
        text = self.text()
        if text not in allowed:
            raise MisfitError(self, f"read {text[:60]!r}; allowed: {', '.join(allowed)}")
        return text

    def whole(self, first: int, last: int) -> int:
        """A whole number from first to last."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise MisfitError(self, f"read {described(self.value)} where a whole number should be")
        if not first <= self.value <= last:
            raise MisfitError(self, f"{self.value} is out of range; allowed: {first}-{last}")
        return self.value

    def truth(self) -> bool:
        """true or false; false when missing."""
        if self.value is None:
            return False
        if not isinstance(self.value, bool):
            raise MisfitError(self, f"read {described(self.value)} where true or false should be")
        return self.value

    def texts(self) -> dict[str, str]:
        """A mapping of texts, as labels are; a null is the empty text."""
        if self.value is None:
            return {}
        if not isinstance(self.value, Fields):
            raise MisfitError(self, f"read {described(self.value)} where a mapping should be")
        found = {}
        for key, value in self.value.items():
            if value is not None and not isinstance(value, str):
                at = At(value, self.value.lines.get(key, self.line), f"{self.path}.{key}")
                raise MisfitError(at, f'read {described(value)} where a text should be; write it in quotes, as "…"')
            found[key] = value or ""
        return found


def described(value: Any) -> str:
    """What was read, for a message: short, and with its kind where the kind is the mistake."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {str(value)[:60]}" if abs(value) < 10**50 else "a number too large"
        case str():
            return repr(value[:60])
        case list():
            return "a list"
        case _:
            return "a mapping"


def _guess(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key[:60], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
