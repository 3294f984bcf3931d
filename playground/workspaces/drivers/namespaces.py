"""Which process is which, and how a thread enters its namespaces. Knows nothing of guests, links or files of ours.

A pid alone names nobody: it is used again. A process is named by (pid, start time), and acted upon by a descriptor.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def in_network_namespace(namespace: int, work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own that has entered the network namespace of this descriptor, and dies with it.

    No thread is ever brought back, so none can be left in the wrong place. Sockets that `work` opens stay there.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            if _libc.setns(namespace, _CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"cannot enter a network namespace: {os.strerror(code)}")
            results.append(work())
        except BaseException as error:  # carried over to the caller's thread, whatever it is
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (/proc/PID/stat field 22); None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd (the caller closes it) of the process `pid` that started at `started`; None if it is no more."""
    if pid <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_ticks(pid) == started:
        return descriptor
    os.close(descriptor)
    return None


def boot_id() -> str:
    """Tells one boot of a kernel from the next."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def sharing_domain(folder: Path) -> str:
    """Equal exactly for callers that see the same processes, may enter the same namespaces and share `folder`."""
    where = folder.stat()
    pids, users = (Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("pid", "user"))
    return f"{boot_id()}:{pids}:{users}:{where.st_dev}:{where.st_ino}"
