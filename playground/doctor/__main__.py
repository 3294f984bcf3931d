"""`python -m playground.doctor`: what `playground doctor` does, before any Python package is installed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys

from playground.doctor import Check, FixFailed, checks, fix, packages


def parser() -> argparse.ArgumentParser:
    """The flags; set-up uses those that `playground doctor` does not show."""
    made = argparse.ArgumentParser(prog="playground doctor", description="What this machine can do, and lacks.")
    made.add_argument("--fix", action="store_true", help="get what is missing (as root)")
    made.add_argument("--json", action="store_true", help="list of {name, ok, detail, remedy, is_fixable, is_optional}")
    made.add_argument("--packages", action="store_true", help="look at packages only, and be silent when all are there")
    made.add_argument("--for-tests", action="store_true", help="what only the test suite needs, too")
    return made


def main(argv: list[str] | None = None) -> int:
    """0: all that is needed is there."""
    options = parser().parse_args(argv)
    if options.fix and (code := _fix(options)):
        return code
    found = packages.checks(options.for_tests) if options.packages else checks(for_tests=options.for_tests)
    bad = [check for check in found if not check.ok and (options.packages or not check.is_optional)]
    if options.json:
        print(json.dumps([dataclasses.asdict(check) for check in found], indent=1))
    elif options.packages:
        for remedy in dict.fromkeys(check.remedy for check in bad):
            print(f"missing: {', '.join(c.name.removeprefix('package ') for c in bad)}; {remedy}", file=sys.stderr)
    else:
        show(found)
    return 1 if bad else 0


def show(found: list[Check]) -> None:
    """One line a check; what to do below the list, once each."""
    width = max(len(check.name) for check in found)
    for check in found:
        mark = "ok" if check.ok else "--" if check.is_optional else "NO"
        print(f"{mark}  {check.name:{width}}  {check.detail}")
    for remedy in dict.fromkeys(check.remedy for check in found if not check.ok and check.remedy):
        print(f"\n{remedy}")


def _fix(options: argparse.Namespace) -> int:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if os.geteuid() != 0:
        say("doctor: only root can fix: use sudo")
        return 1
    try:
        if options.packages:
            packages.fix(options.for_tests, say)
        else:
            fix(for_tests=options.for_tests, say=say)
    except (FixFailed, OSError) as error:
        say(f"doctor: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
