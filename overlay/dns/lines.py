"""Sockets to other resolvers, each for one question at a time. Knows nothing of what is said by them.

Each question has a port that the kernel picks at random and a random id (RFC 5452 §9). To make a socket and tell the
loop of it costs more than all else that a question does, so a few are kept: dissolved, when they have no port at which
anything could arrive, and connected anew.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable
from typing import Final

from overlay.dns.message import TCP_LIMIT

KEPT: Final = 8
"""Lines that are kept while nobody uses them, of each family."""
_NOBODY: Final = bytes(16)
"""A socket address of AF_UNSPEC: connecting to it dissolves the association, and gives back the port (connect(2))."""
_connect: Final = ctypes.CDLL(None, use_errno=True).connect  # Python's knows addresses of the socket's family alone


class Line:
    """A socket that the loop reads. id: of the question that goes by it now, or next. heard: called with what arrives;
    with no bytes for an error, as when nobody is there."""

    __slots__ = ("connect", "fd", "heard", "id", "is_v6", "recv", "send", "socket")

    def __init__(self, is_v6: bool) -> None:
        """Raises OSError."""
        self.is_v6: Final = is_v6
        self.id = os.urandom(2)
        self.heard: Callable[[bytes], None] | None = None
        self.socket: Final = socket.socket(
            socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        )
        self.fd: Final = self.socket.fileno()
        self.connect: Final = self.socket.connect
        self.send: Final = self.socket.send
        self.recv: Final = self.socket.recv
        # By its number: for a socket asyncio makes texts of it, 40 µs of them.
        asyncio.get_running_loop().add_reader(self.fd, self._read)

    def close(self) -> None:
        """The loop knows it no more."""
        asyncio.get_running_loop().remove_reader(self.fd)
        self.socket.close()

    def _read(self) -> None:
        try:
            message = self.recv(TCP_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if self.heard is not None:  # else it came late, for the question before
            self.heard(message)


class Lines:
    """Lines to resolvers' `port`. keeps: how many, of each family. Belongs to a running loop once one is taken."""

    def __init__(self, port: int) -> None:
        self._port: Final = port
        self._kept: Final[tuple[list[Line], list[Line]]] = [], []
        self.keeps = KEPT

    def take(self, resolver: str, heard: Callable[[bytes], None]) -> Line:
        """A line to a resolver, until it is put back. Raises OSError."""
        is_v6 = ":" in resolver
        kept = self._kept[is_v6]
        line = kept.pop() if kept else Line(is_v6)
        try:
            line.connect((resolver, self._port))
        except OSError:
            line.close()
            raise
        line.heard = heard
        return line

    def put_back(self, line: Line) -> None:
        """Nobody hears what arrives by it any more."""
        line.heard = None
        line.id = os.urandom(2)
        kept = self._kept[line.is_v6]
        if len(kept) < self.keeps and _connect(line.fd, _NOBODY, len(_NOBODY)) == 0:
            kept.append(line)
        else:
            line.close()

    def close(self) -> None:
        """Closes those that nobody uses."""
        for kept in self._kept:
            for line in kept:
                line.close()
            kept.clear()
