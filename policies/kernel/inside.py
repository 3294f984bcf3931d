"""Owns a thread that has entered a network namespace for good, to do there what is to be done there. Nothing else."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CLONE_NEWNET = 0x40000000


class Inside:
    """One thread in the network namespace at this path. Sockets that it opens may be used by any thread. Raises OSError
    if there is none, or this process may not enter."""

    def __init__(self, namespace: Path) -> None:
        self._file = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace")
        try:
            self._thread.submit(_enter, self._file).result()
        except OSError:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Names this very namespace, for this process, until `close`."""
        return Path(f"/proc/self/fd/{self._file}")

    def is_at(self, namespace: Path) -> bool:
        """Whether the namespace at a path is still this one; another one may have taken its place there."""
        try:
            found, ours = namespace.stat(), os.fstat(self._file)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def call(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Does it there, one at a time, and waits."""
        return self._thread.submit(work, *args, **kwargs).result()

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()
        os.close(self._file)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
