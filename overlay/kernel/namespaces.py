"""Owns network namespaces by name: making, finding, entering, removing. Must not look at what is inside one.

A thread that has entered another namespace is never used for anything else: `inside` starts one and lets it end, so no
error can leave the caller's thread in the wrong place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

DIRECTORY = Path("/run/netns")
"""Where iproute2 keeps names of network namespaces (ip-netns(8)); names made here are usable by its commands."""

CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)

_T = TypeVar("_T")


def own() -> int:
    """A file descriptor of the calling thread's network namespace; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def find(name: str, directory: Path = DIRECTORY) -> int | None:
    """A file descriptor of the namespace of that name, which the caller closes; None when there is none."""
    try:
        fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if _is_namespace(fd):
        return fd
    os.close(fd)
    return None


def names(directory: Path = DIRECTORY) -> list[str]:
    """What `directory` holds, in order; some may be leftovers that are no namespace."""
    try:
        return sorted(entry.name for entry in os.scandir(directory))
    except FileNotFoundError:
        return []


def create(name: str, prepare: Callable[[], None], directory: Path = DIRECTORY) -> int:
    """Makes a namespace and returns its descriptor. `prepare` runs inside before the name exists, so whoever finds the
    name finds it prepared, after a crash too. Raises FileExistsError when the name is taken, else OSError."""
    fd = _make(prepare)
    try:
        publish(fd, name, directory)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def scratch() -> Iterator[int]:
    """A descriptor of a new namespace without a name, for the length of a block. Raises OSError."""
    fd = _make(lambda: None)
    try:
        yield fd
    finally:
        os.close(fd)


def publish(fd: int, name: str, directory: Path = DIRECTORY) -> None:
    """Gives the namespace behind `fd` a name. Raises FileExistsError when another namespace has it."""
    _share(directory)
    target = directory / name
    with suppress(FileExistsError):
        os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    if (existing := find(name, directory)) is not None:
        os.close(existing)
        raise FileExistsError(errno.EEXIST, "a network namespace has this name", str(target))
    _check(_libc.mount(f"/proc/self/fd/{fd}".encode(), bytes(target), b"none", _MS_BIND, None), "mount", str(target))


def remove(name: str, directory: Path = DIRECTORY) -> None:
    """Takes the name away; the namespace ends when nothing uses it any more. No such name is fine."""
    target = directory / name
    if _libc.umount2(bytes(target), _MNT_DETACH) and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        _raise("umount", str(target))
    target.unlink(missing_ok=True)


def inside(fd: int, work: Callable[[], _T]) -> _T:
    """What `work` returns or raises when it runs, in a thread of its own, in the namespace behind `fd`.

    Sockets that it opens belong to that namespace for ever; `/proc/sys/net` is that namespace's.
    """

    def enter() -> _T:
        _check(_libc.setns(fd, CLONE_NEWNET), "setns", f"descriptor {fd}")
        return work()

    return _in_thread(enter)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of the namespace file at `path`, for the length of a block."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def is_same(one: int, other: int) -> bool:
    """Whether two descriptors are of one namespace."""
    return os.path.sameopenfile(one, other)


def _make(prepare: Callable[[], None]) -> int:
    def make() -> int:
        _check(_libc.unshare(CLONE_NEWNET), "unshare", "network namespace")
        prepare()
        return own()

    return _in_thread(make)


def _is_namespace(fd: int) -> bool:
    """A file that only waits for a mount lies on the file system of its folder, not on nsfs."""
    return os.fstat(fd).st_dev == Path("/proc/self/ns/net").stat().st_dev


def _share(directory: Path) -> None:
    """Makes the folder a shared mount, as ip-netns(8) does: a name comes and goes in every mount namespace."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = bytes(directory)
    if _libc.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        _raise("mount --make-shared", str(directory))
    _check(_libc.mount(path, path, b"none", _MS_BIND | _MS_REC, None), "mount", str(directory))
    _check(_libc.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None), "mount --make-shared", str(directory))


def _in_thread(work: Callable[[], _T]) -> _T:
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(result: int, operation: str, thing: str) -> None:
    if result:
        _raise(operation, thing)


def _raise(operation: str, thing: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{operation}: {os.strerror(number)}", thing)
