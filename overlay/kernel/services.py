"""Owns service namespaces, known by their mark: makes, finds and removes them. Must not touch one that is not ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.netlink import Netlink
from overlay.kernel.observe import read_link

_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/forwarding": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # No device, however it gets here, sends router solicitations or listener reports of ours to a tenant.
    "net/ipv6/conf/default/addr_gen_mode": "1",
}


class ForeignNamespaceError(FileExistsError):
    """A network namespace of the name that we need exists and does not carry our mark."""


class Services:
    """The service namespaces of one data plane. mark: the ifalias of `lo` in each, which no other data plane's have."""

    def __init__(self, mark: str, directory: Path) -> None:
        self.mark = mark
        self._directory = directory

    def create(self, name: str) -> None:
        """Makes it with its loopback up, unless it is there. Raises ForeignNamespaceError, else OSError."""
        found = namespaces.find(name, self._directory)
        if found is None:
            found = namespaces.create(name, lambda: prepare(self.mark), self._directory)
        try:
            refuse_foreign(found, self._directory / name, self.mark)
        finally:
            os.close(found)

    def open(self, name: str) -> int:
        """Its descriptor, which the caller closes. Raises OSError when there is none, or none of ours."""
        found = namespaces.find(name, self._directory)
        if found is None:
            raise OSError(errno.ENOENT, "no such network namespace", name)
        try:
            refuse_foreign(found, self._directory / name, self.mark)
        except BaseException:
            os.close(found)
            raise
        return found

    def remove(self, name: str) -> None:
        """Takes it away; no such name is fine. Raises ForeignNamespaceError."""
        try:
            os.close(self.open(name))
        except FileNotFoundError:
            return
        namespaces.remove(name, self._directory)


def prepare(mark: str, sysctls: Mapping[str, str] | None = None) -> None:
    """Marks the calling thread's namespace, which has no name yet, and sets what every namespace of ours has."""
    link = Netlink()
    try:
        link.do(m.set_alias(1, mark))
        link.do(m.set_up(1, True))
    finally:
        link.close()
    set_sysctls(sysctls or {})


def set_sysctls(more: Mapping[str, str]) -> int:
    """How many had to be changed in the calling thread's namespace. One that this kernel lacks needs no setting."""
    changed = 0
    for name, value in {**_SYSCTLS, **more}.items():
        path = Path("/proc/sys") / name
        with suppress(FileNotFoundError):
            if path.read_text().strip() != value:
                path.write_text(value)
                changed += 1
    return changed


def refuse_foreign(fd: int, path: Path, mark: str) -> None:
    """Raises ForeignNamespaceError unless `lo` in the namespace behind `fd` has this mark."""

    def alias() -> str:
        link = Netlink()
        try:
            lo = read_link(link, "lo")
            return lo.alias if lo else ""
        finally:
            link.close()

    if namespaces.inside(fd, alias) != mark:
        raise ForeignNamespaceError(
            errno.EEXIST,
            f"a network namespace {path.name!r} exists that is not ours; rename it, or give us another name",
            str(path),
        )
