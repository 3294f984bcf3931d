"""Owns the sockets that hear of changes: devices, FDB, neighbours and filters of a data plane, ports in the host.

Says that something changed, never what: a look at the kernel tells, and a lost message then matters no more than a
late one.
"""

from __future__ import annotations

import errno
import select
import socket

from overlay.diff import is_port_device
from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink, parse, split, string

_LINK, _NEIGH, _TC = 1, 3, 4


class Monitor:
    """Its descriptor can be polled or given to an event loop; it is readable until `wait` or `drain` has read all."""

    def __init__(self) -> None:
        self._poll = select.epoll()
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

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether something changed that matters, within `timeout_s` (None: wait for ever)."""
        ready = self._poll.poll(timeout_s)
        return bool(ready) and self.drain()

    def drain(self) -> bool:
        """Reads all that waits; whether any of it mattered."""
        matters = False
        for link in (self._plane, self._host):
            if link is not None:
                matters |= _read_all(link.socket, only_ports=link is self._host)
        return matters

    def _watch(self, namespace: int, groups: list[int]) -> Netlink:
        link = Netlink(namespace, groups)
        link.socket.setblocking(False)
        self._poll.register(link.socket, select.EPOLLIN)
        return link


def _read_all(channel: socket.socket, *, only_ports: bool) -> bool:
    matters = False
    while True:
        try:
            datagram = channel.recv(1 << 17)
        except BlockingIOError:
            return matters
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            matters = True  # some were lost: look at everything
            continue
        matters = matters or not only_ports or any(_is_port(kind, body) for kind, _, _, body in split(datagram))


def _is_port(kind: int, body: bytes) -> bool:
    if kind not in (m.RTM_NEWLINK, m.RTM_DELLINK):
        return False
    name = parse(body, 16).get(m.IFLA_IFNAME)
    return name is not None and is_port_device(string(name))
