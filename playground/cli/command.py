"""What a command is, for the tables of commands. Data only; knows no command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """An option or positional as argparse takes it. complete: what a shell offers as its value."""

    names: tuple[str, ...]
    help: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    complete: str = ""
    """`file`, or a kind of name that the controller knows: `playground`, `workspace`, `host`, `port`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command. run: `module:function` below `playground.cli`: takes the namespace, returns the exit code."""

    name: str
    summary: str
    usage: str
    run: str
    description: str
    examples: tuple[tuple[str, str], ...]
    exits: tuple[tuple[int, str], ...]
    options: tuple[Option, ...] = ()
    takes_rest: bool = False
    """Whether another program's words follow a `--`."""


def option(*names: str, help: str, complete: str = "", **arguments: Any) -> Option:
    """An option as the tables write it; arguments are argparse's."""
    return Option(names, help, arguments, complete)


def number(text: str) -> float:
    """An option's value: a number from 0 to a billion. Raises ArgumentTypeError."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: a number from 0 to a billion")
    return found


def more_than_nothing(text: str) -> float:
    """As `number`, without 0, where that would say what nobody means. Raises ArgumentTypeError."""
    found = number(text)
    if not found:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: more than 0, or leave the option out")
    return found


TIMEOUT = option("--timeout", metavar="S", type=number, default=60.0, help="seconds to wait for it (default 60)")
JSON = option("--json", action="store_true", help="print JSON, for programs")

DONE = (0, "done")
NO = (1, "refused or not possible; stderr says why and what to do")
