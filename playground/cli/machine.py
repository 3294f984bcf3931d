"""`doctor`, `schema`, `store check`: what can be told without a controller. Owns only how it is printed."""

from __future__ import annotations

import argparse
import sys

from playground.cli import render
from playground.cli.failure import DONE, REFUSED


def store(args: argparse.Namespace) -> int:
    """1 with a sentence for each thing that is wrong."""
    from playground.store.check import check

    problems = check(args.path)
    if args.json:
        print(render.json_text({"path": args.path, "problems": problems}))
    elif not problems:
        print(f"{args.path}: sound")
    for problem in problems if not args.json else ():
        said = render.printable(problem)
        print(said if args.path in said else f"{args.path}: {said}", file=sys.stderr)
    return REFUSED if problems else DONE


def doctor(args: argparse.Namespace) -> int:
    """The doctor's own program: it also runs before this command can."""
    from playground.doctor.__main__ import main

    return main([flag for flag, given in (("--fix", args.fix), ("--json", args.json)) if given])


def schema(args: argparse.Namespace) -> int:
    """The schema that the file of a kind is checked by."""
    from playground.spec import json_schema

    print(render.json_text(json_schema(args.kind)))
    return DONE
