"""Which process is which. Knows nothing of guests, links or files of ours.

A pid alone names nobody: it is used again. A process is named by (pid, start time), and acted upon by a descriptor.
"""

from __future__ import annotations

import os
from pathlib import Path


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
