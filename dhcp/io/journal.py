"""Leases on disk: appended and synced before anybody is told, many at a time; read back at the start. Decides nothing.

A line a lease, the last one of an address counts. A line that a crash cut off, or that does not match its checksum, was
never acknowledged and is left out. The file is written anew, whole, when most of it is history.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from dhcp.leases import Lease, State

SLACK: Final = 4096
"""So many lines beyond twice what is alive are kept before the file is written anew."""


class Journal:
    """One folder's leases, by pool. Its methods may be called from one thread at a time; each may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._fd: int | None = None
        self._lines = 0

    def read(self) -> dict[tuple[str, int], Lease]:
        """What is written down, by pool and address."""
        found: dict[tuple[str, int], Lease] = {}
        self._lines = 0
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as lines:
            for line in lines:
                self._lines += 1
                if (read := _decoded(line)) is not None:
                    pool, lease = read
                    found[pool, lease.address] = lease
        return found

    def append(self, leases: Iterable[tuple[str, Lease]]) -> None:
        """On disk when it returns: one write, one sync, however many there are."""
        lines = [_encoded(pool, lease) for pool, lease in leases]
        if self._fd is None:
            self._fd = self._opened()
        data = b"".join(lines)
        written = os.write(self._fd, data)
        if written != len(data):  # a full disk takes a part of it; a torn line is left out by `read`
            os.write(self._fd, b"\n")
            raise OSError(28, "no space left for leases", str(self._path))
        os.fdatasync(self._fd)
        self._lines += len(lines)

    def is_long(self, alive: int) -> bool:
        """Whether writing it anew would pay."""
        return self._lines > 2 * alive + SLACK

    def rewrite(self, leases: Iterable[tuple[str, Lease]]) -> None:
        """Replaces the file whole."""
        fresh = self._path.with_name(self._path.name + ".new")
        lines = [_encoded(pool, lease) for pool, lease in leases]
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._path)
        self._sync_folder()
        self.close()
        self._lines = len(lines)

    def close(self) -> None:
        """Nothing is open any more; the next `append` opens the file again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _opened(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # what a crash cut off must not be joined to what comes
        if is_new:
            self._sync_folder()
        return descriptor

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _encoded(pool: str, lease: Lease) -> bytes:
    text = (
        f"{pool} {lease.address:08x} {lease.port} {lease.client.hex()} {lease.mac.hex() or '-'} {lease.state.value} "
        f"{lease.since_s!r} {lease.until_s!r}"
    ).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decoded(line: bytes) -> tuple[str, Lease] | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
            return None
        pool, address, port, client, mac, state, since_s, until_s = text.decode().split(" ")
        read = bytes.fromhex(client), b"" if mac == "-" else bytes.fromhex(mac)
        return pool, Lease(int(address, 16), port, *read, State(state), float(since_s), float(until_s))
    except ValueError:
        return None


def of_pool(found: dict[tuple[str, int], Lease], pool: str) -> Iterator[Lease]:
    """The leases of one pool."""
    return (lease for (name, _), lease in found.items() if name == pool)
