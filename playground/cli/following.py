"""Goes on with what a person follows while its controller comes and goes, and says so. Knows no question."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from playground.cli import site
from playground.cli.failure import Failure
from playground.client import Unreachable

RETRY_S = 0.5
"""How often a controller that is away is asked."""

T = TypeVar("T")


class Following:
    """One command's. The first question is the caller's own, and may fail; from then on a controller is waited for."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._is_emulated = not site.is_remote(args) and site.is_emulated(site.name_of(args))

    def ask(self, question: Callable[[], T], resume: Callable[[], T] | None = None) -> T:
        """The answer, however long the controller is away; where it was, to `resume`. Raises Failure once an emulated
        site has ended."""
        is_away = False
        while True:
            try:
                answer = (resume or question)() if is_away else question()
            except Unreachable as error:
                if self._is_emulated and not site.is_emulated(name := site.name_of(self._args)):
                    raise Failure(f"site {name} has ended") from error
                if not is_away:
                    print(f"playground: {error}; waiting for it, Ctrl-C ends", file=sys.stderr)
                is_away = True
                time.sleep(RETRY_S)
                continue
            if is_away:
                print("playground: the controller answers again", file=sys.stderr)
            return answer
