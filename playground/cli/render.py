"""Pure but for asking what a stream is. How values look to people: tables, ages, counts, colour. Knows no commands."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

_ESCAPE = re.compile("\x1b\\[[0-9;]*m")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")

_GOOD = frozenset({"up", "running", "forwarding", "bound", "settled", "ok", "converged", "as modelled"})
_PENDING = frozenset({"gated", "waiting", "offered", "preparing", "prepared", "requested", "copying", "activated"})
_PASSING = frozenset({"converging", "leaving", "removing", "never"})
_BAD = frozenset({"gone", "failed", "unknown", "unplaced", "aborted", "differs", "incomplete"})


class Ink:
    """Colours words, or leaves them as they are."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    @classmethod
    def of(cls, stream: TextIO) -> Ink:
        """Colour where the stream is a terminal that has it and NO_COLOR (no-color.org) is not set."""
        return cls(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def state(self, word: str) -> str:
        """A state by its meaning: good green, pending yellow, bad red, others plain."""
        if word in _GOOD:
            return self._paint("32", word)
        if word in _PENDING or word in _PASSING:
            return self._paint("33", word)
        return self._paint("31", word) if word in _BAD else word

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def strong(self, text: str) -> str:
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled and text else text


PLAIN = Ink(False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], ink: Ink = PLAIN) -> str:
    """Left-aligned columns two spaces apart, no trailing spaces; a column that is empty in every row is left out."""
    body = [list(row) for row in rows]
    kept = [column for column in range(len(headings)) if not body or any(row[column] for row in body)] or [0]
    lines = [[headings[column] for column in kept], *([row[column] or "-" for column in kept] for row in body)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(kept))]
    painted = [[ink.faint(heading) for heading in lines[0]], *lines[1:]]
    return "\n".join(_row(line, widths) for line in painted)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    *padded, last = cells
    return "  ".join(
        [*(cell + " " * (width - _width(cell)) for cell, width in zip(padded, widths, strict=False)), last]
    )


def _width(text: str) -> int:
    """Columns that a terminal gives it: escapes none, wide East Asian characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in _ESCAPE.sub("", text)
    )


def printable(text: str) -> str:
    """Text from elsewhere on one line, its control characters shown and not obeyed by the terminal."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text.replace("\n", " "))


def age(seconds: float | None) -> str:
    """`4 s ago`, `3 min ago`, `5 h ago`, `2 d ago`; `never` for None."""
    if seconds is None:
        return "never"
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{int(max(seconds, 0) / size)} {unit} ago"
    return f"{int(seconds / 86400)} d ago"


def count(number: int, noun: str) -> str:
    """`1 port`, `2 ports`, `2 addresses`, `2 policies`, `2 gateways`."""
    if number == 1:
        return f"{number} {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeo":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def milliseconds(value: float | None) -> str:
    """`1.2 ms`, or `not measured`."""
    return "not measured" if value is None else f"{value:.1f} ms"


def mebibytes(size: float) -> str:
    """`512 MiB`, `1.5 GiB`."""
    return f"{size:g} MiB" if size < 1024 else f"{round(size / 1024, 1):g} GiB"


def spelled(names: Iterable[str], none: str = "none") -> str:
    """Names in a row, quoted for nobody: `a, b, c`."""
    return ", ".join(names) or none


def json_text(value: Any) -> str:
    """What `--json` prints."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def word(row: Mapping[str, Any], key: str) -> str:
    """A field of an answer as one printable cell; lists are joined, null and missing are empty."""
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, list):
        return printable(", ".join(str(entry) for entry in value))
    return printable(str(value))
