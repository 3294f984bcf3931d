"""Owns the exit codes, and the errors that a command ends with. Prints nothing.

0 done · 1 refused or not possible · 2 usage · 3 not converged in time · 4 done, but what was promised was not kept ·
70 our bug · 130 interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playground.client import Problem

DONE = 0
REFUSED = 1
USAGE = 2
NOT_CONVERGED = 3
BROKEN = 4
BUG = 70
INTERRUPTED = 130


class Failure(Exception):
    """A command can't go on. The text is one sentence of cause and one of remedy, without a final period."""

    code = REFUSED


class UsageFailure(Failure):
    """The words on the command line don't fit together in a way that the parser can't see."""

    code = USAGE


class NotConverged(Failure):
    """It was accepted, and is not so yet."""

    code = NOT_CONVERGED


class BadFile(Failure):
    """A file was refused; nothing has changed. All its problems, in the file's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
