"""Turns the table of commands into an argument parser and its help. Imports no command, and nothing that is slow."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

from playground.cli.command import Command, Option
from playground.cli.commands import COMMANDS, FAMILIES, GLOBALS, GROUPS
from playground.cli.failure import USAGE

WIDTH = 100
"""Columns of help, whatever the terminal: the reference in docs/ holds the same text."""

OVERVIEW = """\
Private grids of virtual machines: one file describes workspaces and their networks, one command makes them real."""

OVERALL = "playground [--site NAME] COMMAND …"

FIRST_STEPS = """\
first steps:
  playground demo                                three emulated hosts, a grid, a move under traffic; leaves no trace
  playground up examples/atlas.yaml --emulate 3  the same grid, to stay
  playground status                              what should be, what is, and why where they differ
  playground down --all                          all away again

exit codes: 0 done, 1 refused or not possible, 2 usage, 3 not converged in time, 70 our bug, 130 interrupted
`playground COMMAND --help` says more, with examples."""


class Stop(Exception):
    """The words on the command line are wrong: exit 2."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Stop(message, self.format_usage().strip())


def build() -> argparse.ArgumentParser:
    """The parser of all commands; the namespace has `command` (a name in COMMANDS) and each option's value."""
    parser = _Parser(
        prog="playground",
        usage=OVERALL,
        description=f"{OVERVIEW}\n\n{overview()}",
        epilog=FIRST_STEPS,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    _add(parser, GLOBALS, suppress=False)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", help=argparse.SUPPRESS, prog="playground")
    for command in COMMANDS.values():
        sub = commands.add_parser(
            command.name,
            usage=usage(command),
            description=f"{command.summary[0].upper()}{command.summary[1:]}.\n\n{command.description}".strip(),
            epilog=epilog(command),
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        _add(sub, command.options, suppress=False)
        _add(sub.add_argument_group("for every command"), GLOBALS, suppress=True)
    return parser


def find(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Words before the command, its name (of one word or two; empty without one), words after it."""
    with_value = {name for one in GLOBALS if "metavar" in one.arguments for name in one.names}
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in with_value else 1
    name, after = words[at] if at < len(words) else "", words[at + 1 :]
    if name in FAMILIES and after and not after[0].startswith("-"):
        name, after = f"{name} {after[0]}", after[1:]
    return words[:at], name, after


def family(name: str) -> str:
    """The commands that begin with a word, a line each."""
    lines = [f"  {name} {word:<13} {COMMANDS[f'{name} {word}'].summary}" for word in FAMILIES[name]]
    return "\n".join([f"usage: playground {name} COMMAND …", "", *lines])


def parse(argv: list[str]) -> argparse.Namespace:
    """The namespace of a command line. Raises Stop; `--help` raises SystemExit."""
    words, rest = _split(argv)
    before, name, after = find(words)
    words = [*before, name, *after] if name else words
    args, unread = build().parse_known_args(words)
    if unread:
        raise _unread(COMMANDS.get(args.command), unread)
    if rest is not None:
        command = COMMANDS.get(args.command)
        if command is None or not command.takes_rest:
            raise Stop("`--` goes with `playground exec` only", usage(COMMANDS["exec"]))
    args.rest = rest or []
    return args


def unknown(word: str) -> Stop:
    """What is said of a word that is no command."""
    first = word.partition(" ")[0]
    if first in FAMILIES:
        listed = f"write one of {', '.join(FAMILIES[first])} after {first}"
        hint = listed if word == first else _meant(word, COMMANDS) or listed
        return Stop(f"there is no command {word}; {hint}", f"playground {first} COMMAND …")
    return Stop(f"there is no command {word}; {_meant(word, COMMANDS) or '`playground --help` lists them'}", OVERALL)


def _unread(command: Command | None, words: list[str]) -> Stop:
    """What is said of words that the parser had no use for."""
    shown = usage(command) if command else OVERALL
    if command and command.takes_rest:
        return Stop(f"not understood: {' '.join(words)}; the words of CMD come after `--`", shown)
    for word in words:
        if word.startswith("-"):
            known = [name for option in (*(command.options if command else ()), *GLOBALS) for name in option.names]
            return Stop(f"there is no option {word}; {_meant(word, known) or '--help lists them'}", shown)
    return Stop(f"not understood: {' '.join(words)}", shown)


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def overview() -> str:
    """The commands by what they are for, a line each."""
    lines: list[str] = []
    for group, names in GROUPS.items():
        lines += ["", f"{group}:"] if lines else [f"{group}:"]
        lines += [f"  {name:<18} {COMMANDS[name].summary}" for name in names]
    return "\n".join(lines)


def usage(command: Command) -> str:
    """`playground up FILE [options]`."""
    return f"playground {command.usage}"


def epilog(command: Command) -> str:
    """Examples and exit codes."""
    width = max(len(line) for line, _ in command.examples)
    examples = "\n".join(f"  {line:<{width}}  {says}".rstrip() for line, says in command.examples)
    codes = "\n".join(f"  {code:<2}  {says}" for code, says in command.exits)
    return f"examples:\n{examples}\n\nexit codes:\n{codes}"


def _split(argv: list[str]) -> tuple[list[str], list[str] | None]:
    """Words before the first `--`, and those after it (None without one): they are another program's."""
    if "--" not in argv:
        return argv, None
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _add(target: argparse._ActionsContainer, options: tuple[Option, ...], *, suppress: bool) -> None:
    for option in options:
        arguments = dict(option.arguments)
        if suppress:
            arguments["default"] = argparse.SUPPRESS
        target.add_argument(*option.names, help=option.help, **arguments)


__all__ = ["USAGE", "Stop", "build", "epilog", "overview", "parse", "usage"]
