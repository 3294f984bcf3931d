"""Waiting for what a test claims, with a deadline. Knows nothing of what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_S = 0.02


def eventually(look: Callable[[], T], seconds: float = 15.0, what: str = "") -> T:
    """The first true answer of `look`. AssertionError with its last answer when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not so within {seconds:g} s: {what or look}; last seen {found!r}"
        time.sleep(LOOK_S)
