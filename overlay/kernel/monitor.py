"""Owns the sockets that hear of changes: devices, FDB, neighbours and filters of a data plane, ports in the host.

Says that something changed, never what: a look at the kernel tells, and a lost message then matters no more than a
late one.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Collection

from overlay.diff import is_port_device
from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink, parse, split, string

_LINK, _NEIGH, _TC = 1, 3, 4
_INDEX = struct.Struct("=i")
_EVERYTHING = 0
"""Stands for a device that is not known: some messages were lost."""


class Monitor:
    """Its descriptor can be polled or given to an event loop; it is readable until `take` or `forget` has read all."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._kept = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._kept, select.EPOLLIN)
        self._touched: set[int | str] = set()
        """Indexes of devices in the data plane, names of ports in the host."""
        self._host: Netlink | None = None
        self._plane: Netlink | None = None

    def fileno(self) -> int:
        return self._poll.fileno()

    def watch_host(self, namespace: int) -> None:
        """Hears of port devices that come and go in the host's namespace."""
        self._host = self._watch(namespace, [_LINK])

    def watch_plane(self, namespace: int) -> None:
        """Hears of everything in the data plane namespace."""
        self.forget_plane()
        self._plane = self._watch(namespace, [_LINK, _NEIGH, _TC])

    def forget_plane(self) -> None:
        if self._plane is not None:
            self._poll.unregister(self._plane.socket)
            self._plane.close()
            self._plane = None

    def close(self) -> None:
        self.forget_plane()
        if self._host is not None:
            self._host.close()
        self._poll.close()
        os.close(self._kept)

    def poll(self, timeout_s: float | None = None) -> bool:
        """Waits until there may be something to take."""
        return bool(self._poll.poll(timeout_s))

    def take(self) -> bool:
        """Whether anything changed that matters; it is forgotten with this call."""
        self._read()
        changed = bool(self._touched)
        self._keep(set())
        return changed

    def forget(self, devices: Collection[int | str]) -> None:
        """Forgets what was heard so far of these devices; the rest stays to be taken."""
        self._read()
        self._keep(self._touched.difference(devices))

    def _keep(self, touched: set[int | str]) -> None:
        self._touched = touched
        if touched:
            os.eventfd_write(self._kept, 1)
        else:
            try:
                os.eventfd_read(self._kept)
            except BlockingIOError:
                return

    def _watch(self, namespace: int, groups: list[int]) -> Netlink:
        link = Netlink(namespace, groups)
        link.socket.setblocking(False)
        self._poll.register(link.socket, select.EPOLLIN)
        return link

    def _read(self) -> None:
        for link in (self._plane, self._host):
            if link is not None:
                for kind, body in _messages(link.socket):
                    if kind == _EVERYTHING:
                        self._touched.add(_EVERYTHING)
                    elif link is self._plane:
                        # ifinfomsg, ndmsg and tcmsg all have the index of the device here.
                        self._touched.add(_INDEX.unpack_from(body, 4)[0])
                    elif (name := _port_name(kind, body)) is not None:
                        self._touched.add(name)


def _messages(channel: socket.socket) -> list[tuple[int, bytes]]:
    """Type and body of all that waits. Type 0 stands for what the kernel could not keep."""
    found: list[tuple[int, bytes]] = []
    while True:
        try:
            found += [(kind, body) for kind, _, _, body in split(channel.recv(1 << 17))]
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found.append((_EVERYTHING, b""))


def _port_name(kind: int, body: bytes) -> str | None:
    if kind not in (m.RTM_NEWLINK, m.RTM_DELLINK):
        return None
    name = parse(body, 16).get(m.IFLA_IFNAME)
    return string(name) if name is not None and is_port_device(string(name)) else None
