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
        print(f"{args.path}: {render.printable(problem)}", file=sys.stderr)
    return REFUSED if problems else DONE
