"""Pure. The commands' reference in docs/commands.md, written from the table that the parser is made from."""

from __future__ import annotations

from playground.cli.command import Command, Option
from playground.cli.commands import COMMANDS, GLOBALS, GROUPS
from playground.cli.parser import usage

_HEAD = """\
# Commands

Written from the commands themselves by `pytest tests/cli --update-golden`; a test holds the two equal.

Results go to stdout, all else to stderr. `--json` is there wherever something is shown, and a list is `[]` when it is
empty. Progress is shown on a terminal, not in a pipe. A workspace is `NAME`, or `PLAYGROUND/NAME` where `NAME` alone is
ambiguous.

Exit codes: 0 done · 1 refused or not possible · 2 usage · 3 not converged in time · 70 our bug · 130 interrupted.
"""


def markdown() -> str:
    """The whole file."""
    parts = [_HEAD, "## Options of every command\n", _options(GLOBALS)]
    for group, names in GROUPS.items():
        parts.append(f"\n## {group.capitalize()}\n")
        parts += [_command(COMMANDS[name]) for name in names]
    return "\n".join(parts)


def _command(command: Command) -> str:
    width = max(len(line) for line, _ in command.examples)
    examples = "\n".join(f"{line:<{width}}  # {says}" if says else line for line, says in command.examples)
    exits = " · ".join(f"{code}: {says}" for code, says in command.exits)
    return (
        f"### {command.name}\n\n{_sentence(command.summary)}\n\n```\n{usage(command)}\n```\n\n{command.description}\n\n"
        + (f"{_options(command.options)}\n" if command.options else "")
        + f"```sh\n{examples}\n```\n\nExit codes: {exits}.\n"
    )


def _options(options: tuple[Option, ...]) -> str:
    rows = [f"| `{_shown(option)}` | {_escaped(option.help)} |" for option in options]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def _shown(option: Option) -> str:
    metavar = option.arguments.get("metavar", "")
    return f"{option.names[0]} {metavar}".strip() if option.names[0].startswith("-") else str(metavar)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
