"""Reads the blocks of docs/hosts.md that are to be run. Pure.

A fence `console try` holds commands as root's prompt shows them (`# `, continued by `> `; other lines are output), and
a fence `LANGUAGE try FILE` holds a file that the reader writes first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w+) try(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """files: name → text. steps: shell text of each console block, in order."""

    files: dict[str, str]
    steps: tuple[str, ...]


def read(text: str) -> Page:
    """The page's files and steps."""
    found = _FENCE.findall(text)
    files = {name: body for _, name, body in found if name}
    return Page(files, tuple(_commands(body) for language, name, body in found if language == "console" and not name))


def _commands(block: str) -> str:
    return "\n".join(line[2:] for line in block.splitlines() if line.startswith(("# ", "> ")))
