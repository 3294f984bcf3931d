"""Owns what this machine can do, what is missing, and how to get it. Runs before any Python package is installed.

Standard library only. `checks` changes nothing; `fix` is for root, may be repeated, and says what it did.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from playground.doctor import kernel, packages, underlay, world
from playground.doctor.check import Check, FixFailed

__all__ = ["Check", "FixFailed", "checks", "fix", "why_no_sandbox"]

OLDEST_PYTHON = (3, 11)


def checks(*, for_tests: bool = False) -> list[Check]:
    """Everything that the software needs, tried rather than guessed. for_tests: what only the suite needs, too."""
    return [_python(), *packages.checks(for_tests), *kernel.checks(), *underlay.checks(), *world.checks()]


def fix(*, for_tests: bool = False, say: Callable[[str], None] = print) -> None:
    """As root: gets what is missing and can be had. Raises FixFailed with the cause, PermissionError."""
    if os.geteuid() != 0:
        raise PermissionError("only root can install packages and load modules")
    packages.fix(for_tests, say)
    kernel.fix(say)


def why_no_sandbox() -> str:
    """One line: why an emulated site can't be had here and what to do; empty when it can."""
    bad = next((check for check in kernel.checks() if not check.ok and not check.is_optional), None)
    return "" if bad is None else f"{bad.detail}; {bad.remedy}"


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        name="python",
        ok=sys.version_info >= OLDEST_PYTHON,
        detail=f"Python {version} at {sys.executable}",
        remedy="use Python 3.11 or newer: make demo PYTHON=python3.11",
    )
