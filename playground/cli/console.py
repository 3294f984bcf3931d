"""`console`: joins this terminal to a machine's serial line, or shows what was said on it. Changes no byte."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from playground.cli import site
from playground.cli.execute import join, raw_terminal, signals_for
from playground.cli.failure import UsageFailure
from playground.cli.remote import Command, Order

LEAVE = b"\x1d"
"""Ctrl-], as telnet and virsh have it."""


class Line(Command):
    """A serial line; the key that leaves it is not the machine's."""

    def write(self, data: bytes) -> None:
        """Sends all before that key; with it, the line has ended."""
        said, leaves, _ = data.partition(LEAVE)
        super().write(said)
        if leaves:
            self.code = 0


def console(args: argparse.Namespace) -> int:
    if args.log and args.force:
        raise UsageFailure("--log reads what was said, and needs no line: leave --force out")
    if args.follow and not args.log:
        raise UsageFailure("--follow goes with --log")
    if args.log:
        words = ["@console-log", *(["--follow"] if args.follow else [])]
    else:
        words = ["@console", *(["--force"] if args.force else [])]
    is_typed = not args.log and os.isatty(0) and os.isatty(1)
    order = Order(words, args.workspace)
    line = Command(site.client_of(args), order) if args.log else Line(site.client_of(args), order)
    if is_typed:
        print(f"playground: the console of {args.workspace}; Ctrl-] leaves", file=sys.stderr)
    sys.stdout.flush()
    try:
        with raw_terminal() if is_typed else contextlib.nullcontext(), signals_for(False) as signals:
            return join(line, 0, 1, 2, signals)
    finally:
        line.close()
