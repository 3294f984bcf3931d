"""The `playground` command's way in: finds the command's code, and turns every end into an exit code and a sentence."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from playground.cli.commands import COMMANDS, DAEMONS, FAMILIES
from playground.cli.failure import BUG, DONE, INTERRUPTED, REFUSED, USAGE, BadFile, Failure

if TYPE_CHECKING:
    from playground.client import Problem

_FOLDER_REFUSES = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


def main(argv: list[str] | None = None) -> int:
    """Runs one command line (default: this process's) and returns its exit code. Raises nothing."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our results has gone (`… | head`). What Python flushes at exit goes nowhere either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except Exception as error:
        return _end(error, words)


def _run(words: list[str]) -> int:
    from playground.cli import parser

    before, name, after = parser.find(words)
    if name == "help":
        words = [*before, *after, "--help"]
        before, name, after = parser.find(words)
    if name in DAEMONS:
        return _daemon(name, before, after)
    if name == "__names":
        from playground.cli.complete import names

        return names(before, after)
    if name in FAMILIES and after[:1] in (["--help"], ["-h"]):
        print(parser.family(name))
        return DONE
    try:
        if name and name not in COMMANDS:
            raise parser.unknown(name)
        args = parser.parse(words)
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except parser.Stop as stop:
        print(f"usage: {stop.usage.removeprefix('usage: ')}", file=sys.stderr)
        print(f"playground: {stop}", file=sys.stderr)
        return USAGE
    if args.version:
        from playground import __version__

        print(f"playground {__version__}")
        return DONE
    if args.command is None:
        parser.build().print_help(sys.stderr)
        return USAGE
    module, _, function = COMMANDS[args.command].run.partition(":")
    return int(getattr(import_module(f"playground.cli.{module}"), function)(args))


def _daemon(name: str, before: list[str], after: list[str]) -> int:
    """Runs a daemon's own program on its own words; a site named before the command is passed on."""
    from playground.cli import parser

    site = parser.parse(before).site
    passed = ["--site", site, *after] if site else after
    return int(import_module(f"playground.{name}.__main__").main(passed))


def _end(error: Exception, words: list[str]) -> int:
    from playground.client import Refused, Unreachable

    if isinstance(error, BadFile) or (isinstance(error, Refused) and error.problems):
        _say_problems(error.problems, as_json="--json" in words)
        return REFUSED
    if isinstance(error, Failure):
        print(f"playground: {error}", file=sys.stderr)
        return error.code
    if isinstance(error, Refused):
        print(f"playground: {error}", file=sys.stderr)
        return REFUSED
    if isinstance(error, Unreachable):
        print(f"playground: {error}; {_remedy(error)}", file=sys.stderr)
        return REFUSED
    if isinstance(error, OSError) and error.filename is not None and error.errno in _FOLDER_REFUSES:
        said = os.strerror(error.errno).lower()
        print(
            f"playground: {error.filename}: {said}; PLAYGROUND_RUN and PLAYGROUND_STATE choose folders", file=sys.stderr
        )
        return REFUSED
    return _bug(error, words)


def _say_problems(problems: tuple[Problem, ...], as_json: bool) -> None:
    from playground.cli import render

    for problem in problems:
        print(render.printable(str(problem)), file=sys.stderr)
    print(f"playground: {render.count(len(problems), 'problem')}, nothing was changed", file=sys.stderr)
    if as_json:
        fields = ("file", "line", "column", "path", "message")
        print(render.json_text({"problems": [{key: getattr(problem, key) for key in fields} for problem in problems]}))


def _remedy(error: object) -> str:
    from playground.client import TcpAddress, Unreachable
    from playground.sandbox import find

    address = error.address if isinstance(error, Unreachable) else None
    if isinstance(address, TcpAddress):
        return "is it running, and is this its address?"
    if address is not None and find(address.path.parent.name):
        return "the emulated site runs and starts it again: try again in a few seconds"
    return "start a site with `playground up FILE --emulate N`, or `playground controller`, or name one with --site"


def _bug(error: Exception, words: list[str]) -> int:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    if "--debug" in words:
        sys.stderr.write(text)
    with tempfile.NamedTemporaryFile("w", prefix="playground-bug-", suffix=".txt", delete=False) as file:
        file.write(f"playground {' '.join(words)}\n{text}")
    print(f"playground: a bug of ours: {type(error).__name__}: {error}; details are in {file.name}", file=sys.stderr)
    return BUG


if __name__ == "__main__":
    sys.exit(main())
