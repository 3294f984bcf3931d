"""Pure. What is wrong with a file, and where. Knows nothing of formats."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

MAX_SHOWN = 600
"""Characters of a path or message."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. line and column count from 1; path is `networks.grid.subnets[0]`, or "" for the file."""

    file: str
    line: int
    column: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal. message says what was read, what is wrong with it, and what is allowed."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __post_init__(self) -> None:
        for name in ("path", "message"):
            object.__setattr__(self, name, _shown(getattr(self, name)))

    @classmethod
    def at(cls, place: Place, message: str) -> Problem:
        """A problem at a place."""
        return cls(place.file, place.line, place.column, place.path, message)

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {path}{self.message}"


def _shown(text: str) -> str:
    """Its beginning and its end, where it is longer than anybody reads: what was read there may be a whole file."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 2]} … {text[-MAX_SHOWN // 2 :]}"


class SpecErrors(Exception):
    """A file is refused. problems: all that is wrong with it, in the file's order; never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda problem: (problem.file, problem.line, problem.column)))
        super().__init__("\n".join(map(str, self.problems)))


def suggestion(read: str, allowed: Iterable[str]) -> str:
    """`; did you mean X?` for a near miss, else what is allowed (at most a dozen words), else nothing."""
    words = sorted(allowed)
    if near := difflib.get_close_matches(read.lower(), words, n=1, cutoff=0.6):
        return f"; did you mean {near[0]}?"
    if not words:
        return ""
    more = f" and {len(words) - 12} more" if len(words) > 12 else ""
    return f"; allowed: {', '.join(words[:12])}{more}"
