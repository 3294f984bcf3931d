"""Enters network namespaces for the time of opening a socket. Only for processes with one thread that matters."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NewType

RUN_NETNS: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)

Identity = NewType("Identity", tuple[int, int])
"""Device and inode: tells a namespace from another one that took its name later."""


def path_of(netns: str) -> Path:
    """A name means a file in /run/netns, an absolute path itself."""
    return Path(netns) if netns.startswith("/") else RUN_NETNS / netns


def identity(netns: str) -> Identity | None:
    """Which namespace the name means now; None when there is none."""
    try:
        found = path_of(netns).stat()
    except OSError:
        return None
    return Identity((found.st_dev, found.st_ino))


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@contextmanager
def inside(netns: str) -> Iterator[Identity]:
    """The calling thread is in the namespace within the block. Raises OSError: no such namespace, or not permitted."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(path_of(netns), os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(away)
            _enter(away)
        finally:
            os.close(away)
        try:
            yield Identity((found.st_dev, found.st_ino))
        finally:
            _enter(home)
    finally:
        os.close(home)
