"""What a namespace workspace may do to its machine: little. Standard library only; knows nothing of NICs or clients.

A guest's root is its machine's root (or, without root, its owner), and it sees its machine's files. So what is not its
own is read-only or out of sight, and the capabilities with which that could be undone are gone for good.
`docs/decisions/0005-netns-workspace.md` says what this isolates and what it does not.
"""

# pathlib would cost every workspace a megabyte.
# ruff: noqa: PTH102, PTH103, PTH106, PTH110, PTH112, PTH120, PTH123, PTH211

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC = 1, 2, 4, 8, 0x1000, 0x2000, 0x4000
_MOUNT_SETATTR = 442
"""System call number, the same on every architecture (Linux 5.12)."""
_AT_FDCWD, _MOUNT_ATTR_RDONLY = -100, 1
_PR_CAPBSET_DROP = 24

KEPT = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_BROADCAST": 11,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "IPC_LOCK": 14,
    "SYS_CHROOT": 18,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
"""The capabilities of a guest's root (linux/capability.h): all of its network, none of its machine. Not SYS_ADMIN: it
unmounts and enters. Not DAC_READ_SEARCH: it opens hidden files by handle."""

WRITABLE = (b"/tmp", b"/var/tmp")
"""What a guest shares with its machine to write in."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi")
_MASKED = ("kcore", "kmsg", "keys", "timer_list", "sched_debug")

libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def check(result: int, doing: str) -> None:
    """Raises OSError for a libc call that failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {doing}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    result = libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    check(result, f"mount {kind or source} on {target}")


def mount_points() -> list[bytes]:
    """Of this process's mount namespace, in the order in which they were mounted."""
    with open("/proc/self/mountinfo", "rb") as table:
        return [line.split()[4].decode("unicode_escape").encode("latin-1") for line in table]


def confine(hidden: Sequence[str]) -> None:
    """All of it but the capabilities. For a mount namespace of the caller's own, with a /run and a /proc of its own.

    hidden: absolute paths that the guest must not see. Raises OSError.
    """
    own_devices()
    for path in hidden:
        hide(path)
    for kept in WRITABLE:
        if os.path.isdir(kept):
            path = os.fsdecode(kept)
            mount(path, path, "", MS_BIND | MS_REC)
    for point in mount_points():
        if not _is_below(point, (b"/proc", b"/dev", b"/run", *WRITABLE)):
            _make_read_only(point)
    _guard_proc()


def hide(path: str) -> None:
    """An empty, read-only folder (or file) lies over it; nothing at all where there is nothing."""
    if os.path.isdir(path):
        mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k")
    elif os.path.exists(path):
        mount("/dev/null", path, "", MS_BIND)


def own_devices() -> None:
    """A /dev of harmless nodes, with terminals and shared memory of the guest's own: no disk, no kernel log."""
    made = "/run/dev"
    os.mkdir(made)
    mount("tmpfs", made, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            os.makedirs(os.path.dirname(f"{made}/{name}"), exist_ok=True)
            with open(f"{made}/{name}", "w"):
                pass
            mount(f"/dev/{name}", f"{made}/{name}", "", MS_BIND)  # a user namespace may bind nodes, not make them
    for name in ("pts", "shm"):
        os.mkdir(f"{made}/{name}")
    mount("devpts", f"{made}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,mode=620,ptmxmode=666")
    mount("tmpfs", f"{made}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
    os.symlink("pts/ptmx", f"{made}/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{made}/{name}")
    mount(made, "/dev", "", MS_MOVE)
    os.rmdir(made)


def _guard_proc() -> None:
    """Knobs of the whole machine turn for nobody in a guest; those of its own network do."""
    mount("/proc/sys/net", "/proc/sys/net", "", MS_BIND)
    for name in _READ_ONLY:
        path = f"/proc/{name}"
        if os.path.exists(path):
            mount(path, path, "", MS_BIND | MS_REC)
            _make_read_only(path.encode())
    for name in _MASKED:
        hide(f"/proc/{name}")


def _make_read_only(point: bytes) -> None:
    """One mount, for this namespace. A mount that another one covers can't be reached, nor does it matter."""
    attributes = _MountAttributes(attr_set=_MOUNT_ATTR_RDONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, ctypes.c_char_p(point), 0, ctypes.byref(attributes), size) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOENT):
        raise OSError(code, f"cannot make {os.fsdecode(point)} read-only: {os.strerror(code)}")


def _is_below(point: bytes, folders: Sequence[bytes]) -> bool:
    return any(point == folder or point.startswith(folder + b"/") for folder in folders)


def bound_capabilities() -> None:
    """What this process executes from here on has the KEPT capabilities at most; its own stay (capabilities(7))."""
    kept = set(KEPT.values())
    for number in range(64):
        if number in kept:
            continue
        if libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) != 0:
            code = ctypes.get_errno()
            if code == errno.EINVAL:  # beyond the kernel's last
                return
            raise OSError(code, f"cannot drop capability {number}: {os.strerror(code)}")
