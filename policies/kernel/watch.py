"""Owns the socket that hears when somebody touches the guard in one network namespace, and has the guard put back.

It says that the guard was touched, not how it is now: a look at the ruleset tells (`nft.is_loaded`).
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from policies import guard
from policies.kernel.nft import NftError, ensure_guard

_NETLINK_NETFILTER, _NFNLGRP_NFTABLES = 12, 7
"""linux/netlink.h; linux/netfilter/nfnetlink.h. Every change of tables, chains and rules is said to this group."""

_CLONE_NEWNET = 0x40000000
_NAME = guard.TABLE.encode() + b"\0"
"""Whatever is said of our table, or of anything in it, has this in it: the first attribute is the table's name
(linux/netfilter/nf_tables.h, NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE)."""

_CHUNK = 1 << 16


class GuardWatch:
    """The guard of one namespace. namespace: its path; another one may take its place there."""

    def __init__(self, namespace: Path) -> None:
        self._namespace = namespace
        self._poll = select.epoll()
        self._socket: socket.socket | None = None
        self._watched = (0, 0)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Always the same descriptor: readable once the guard may have been touched, until `touched` was asked."""
        return self._poll.fileno()

    def ensure(self) -> bool:
        """Loads the guard unless it is in force; whether it had to. What happens after is heard. Raises NftError."""
        try:
            found = self._namespace.stat()
            if (found.st_dev, found.st_ino) != self._watched:
                self._watch((found.st_dev, found.st_ino))
        except OSError as error:
            raise NftError(f"the rules of {self._namespace} can't be watched: {error.strerror}") from error
        return ensure_guard(self._namespace)

    def touched(self) -> bool:
        """Whether anything of the guard has changed since this was last asked; by `ensure`, too."""
        touched = False
        with self._lock:
            while self._socket is not None:
                try:
                    touched |= _NAME in self._socket.recv(_CHUNK)
                except BlockingIOError:
                    break
                except OSError:  # ENOBUFS: so much has changed that some of it was lost
                    touched = True
        return touched

    def close(self) -> None:
        """Hears no more."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        self._poll.close()

    def _watch(self, namespace: tuple[int, int]) -> None:
        with ThreadPoolExecutor(max_workers=1) as thread:  # a thread that has entered a namespace is of no other use
            heard = thread.submit(_open_inside, self._namespace).result()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket, self._watched = heard, namespace
            self._poll.register(heard, select.EPOLLIN)


def _open_inside(namespace: Path) -> socket.socket:
    """A socket of this namespace, non-blocking. Moves the calling thread there for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    entered = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(entered, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(entered)
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        heard.setblocking(False)
        heard.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
    except OSError:
        heard.close()
        raise
    return heard
