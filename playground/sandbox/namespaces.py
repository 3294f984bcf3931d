"""Owns the Linux calls that Python's os module lacks: unshare, setns, mount, and who a process is. Decides nothing.

Standard library only, and without threads: the first process of a sandbox runs on it. (os.unshare and os.setns exist
from Python 3.12 on; Debian 12 has 3.11.)
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2

_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _checked(result: int, call: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{call}: {os.strerror(errno)}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError; a new PID namespace holds for children only."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """setns(2): joins the namespace behind `fd`; kind is its CLONE_NEW… flag, 0 for any."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: Path | str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError that names the target."""
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    _checked(result, f"mount {kind or source} on {target}")


def unmount(target: Path | str) -> None:
    """umount2(2) with MNT_DETACH: gone from the tree at once, from memory when its last user ends."""
    _checked(_libc.umount2(ctypes.c_char_p(os.fsencode(target)), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def adopt_orphans() -> None:
    """The calling process, not the machine's first, becomes the parent of its orphaned descendants; prctl(2)."""
    _checked(_libc.prctl(ctypes.c_int(_PR_SET_CHILD_SUBREAPER), ctypes.c_ulong(1)), "prctl")


def own_mounts() -> None:
    """A mount namespace whose mounts nobody outside sees.

    Slave rather than private: what is unmounted outside (a USB disk) has to go here too, else it stays busy for ever.
    """
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_SLAVE)


def unshare_as_root(flags: int) -> None:
    """`flags` in a new user namespace in which the caller is root and nobody else exists; user_namespaces(7).

    Raises OSError where the system forbids it: at once, or (AppArmor's restriction) with the first privileged act.
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    unshare(flags)


def started(pid: int) -> str | None:
    """Who process `pid` is: boot id and start time (clock ticks, proc(5)), so that a reused pid is told apart.

    None when there is no such process, or only its zombie: that runs no more.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"
