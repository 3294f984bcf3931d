"""Which network namespace a word of the agent's means now, and work inside it. Keeps none open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NewType, TypeVar

from overlay.kernel import namespaces

Identity = NewType("Identity", tuple[int, int])
"""Device and inode: tells a namespace from another one that took its name later."""

_T = TypeVar("_T")


def path_of(netns: str) -> Path:
    """A name means a file in /run/netns, an absolute path itself."""
    return namespaces.DIRECTORY / netns


def identity(netns: str) -> Identity | None:
    """Which namespace the name means now; None when there is none."""
    try:
        found = path_of(netns).stat()
    except OSError:
        return None
    return Identity((found.st_dev, found.st_ino))


def inside(netns: str, work: Callable[[], _T]) -> tuple[Identity, _T]:
    """What `work` returns inside, and where that was. Raises OSError: no such namespace, not permitted, or its own."""
    with namespaces.opened(path_of(netns)) as fd:
        found = os.fstat(fd)
        return Identity((found.st_dev, found.st_ino)), namespaces.inside(fd, work)
