"""Owns the socket by which a workspace's init hears what routers advertise of name servers (RFC 8106). Writes no file.

The kernel takes addresses from router advertisements by itself, and hands the rest of them on to whoever listens
(RTM_NEWNDUSEROPT). Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator

RTM_NEWNDUSEROPT, ND_USEROPT_GROUP = 68, 20
"""linux/rtnetlink.h"""
RDNSS, DNSSL = 25, 31
FOREVER = 0xFFFFFFFF
MOST = 8
"""Servers, and domains, that are kept of one NIC; RFC 8106 §5.3.1 asks for three at least."""

Told = tuple[tuple[str, ...], tuple[str, ...]]
"""Name servers and search domains of one NIC, the ones heard of first in front."""


class Routers:
    """What routers have advertised, while it holds. Time is monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[tuple[int, int, str], float] = {}
        self._told: dict[int, Told] = {}
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 1 << (ND_USEROPT_GROUP - 1)))
        fcntl.fcntl(self._socket, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._socket, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)  # it tells by SIGIO that there is news

    def next_s(self) -> float:
        """When `changed` should be asked though there is no news: the next time that something ceases to hold."""
        return min(self._until.values(), default=float("inf"))

    def changed(self, now_s: float) -> dict[int, Told]:
        """Each NIC, by index, of which something else holds now than when this was last asked: all that holds."""
        while True:
            try:
                message = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some was lost; the next advertisement says it again
                continue
            for index, option, values, lifetime in read(message):
                self._take(index, option, values, lifetime, now_s)
        self._until = {key: until for key, until in self._until.items() if until > now_s}
        before, self._told = self._told, self._all()
        return {
            index: self._told.get(index, ((), ()))
            for index in before.keys() | self._told.keys()
            if before.get(index) != self._told.get(index)
        }

    def _take(self, index: int, option: int, values: list[str], lifetime: int, now_s: float) -> None:
        for value in values:
            key = (index, option, value)
            kept = sum(known[:2] == key[:2] for known in self._until)
            if lifetime == 0:
                self._until.pop(key, None)
            elif key in self._until or kept < MOST:
                self._until[key] = float("inf") if lifetime == FOREVER else now_s + lifetime

    def _all(self) -> dict[int, Told]:
        found: dict[int, tuple[list[str], list[str]]] = {}
        for index, option, value in self._until:
            found.setdefault(index, ([], []))[option == DNSSL].append(value)
        return {index: (tuple(servers), tuple(domains)) for index, (servers, domains) in found.items()}


def read(message: bytes) -> Iterator[tuple[int, int, list[str], int]]:
    """The options in what the kernel said: NIC index, RDNSS or DNSSL, addresses or domains, lifetime in seconds."""
    at = 0
    while at + 16 <= len(message):
        length, kind = struct.unpack_from("=IH", message, at)
        if length < 16:
            return
        body = message[at + 16 : at + length]
        at += (length + 3) & ~3
        if kind != RTM_NEWNDUSEROPT or len(body) < 16 + 8:
            continue
        _, size, index = struct.unpack_from("=BxHi", body)  # struct nduseroptmsg; one option follows it
        option = body[16 : 16 + size]
        if len(option) < 8 or option[1] * 8 > len(option):
            continue
        option = option[: option[1] * 8]
        (lifetime,) = struct.unpack_from("!I", option, 4)
        if option[0] == RDNSS:
            yield index, RDNSS, list(servers(option[8:])), lifetime
        elif option[0] == DNSSL:
            yield index, DNSSL, list(domains(option[8:])), lifetime


def servers(data: bytes) -> Iterator[str]:
    """Addresses of 16 bytes each. Those of the link come without their zone."""
    for at in range(0, len(data) - 15, 16):
        yield socket.inet_ntop(socket.AF_INET6, data[at : at + 16])


def domains(data: bytes) -> Iterator[str]:
    """Uncompressed names, padded with zeros (RFC 8106 §5.2); those that are no host names are passed over."""
    at, labels = 0, list[str]()
    while at < len(data):
        size = data[at]
        label = data[at + 1 : at + 1 + size]
        at += 1 + size
        if len(label) < size:
            return
        if size:
            labels.append(label.decode("latin-1"))
            continue
        if labels and all(map(is_label, labels)):
            yield ".".join(labels)
        labels = []


def is_label(text: str) -> bool:
    """Whether a resolver may be given it: letters, digits, `_`, and `-` inside, 63 at most (RFC 1123 §2.1)."""
    plain = text.replace("-", "").replace("_", "")
    return len(text) <= 63 and plain.isascii() and plain.isalnum() and not (text.startswith("-") or text.endswith("-"))
