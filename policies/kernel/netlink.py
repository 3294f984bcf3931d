"""Owns nfnetlink sockets inside a network namespace: framing, attributes, dumps, errors. Knows no message's meaning.

Layouts: linux/netlink.h, linux/netfilter/nfnetlink.h. Integers inside attributes are in network byte order.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK = 270, 1, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_CLONE_NEWNET = 0x40000000

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_TYPE_MASK = 0x3FFF
"""Upper bits of an attribute's type say "nested" and "network byte order"."""

BODY = 4
"""Where a message's attributes begin: after `struct nfgenmsg`."""

_BATCH = 128
"""Messages in one `send`; so few that the errors of all fit into the smallest receive buffer."""

_BUFFER = 4 << 20
"""Bytes that wait in the kernel for us, or from us, at most."""

_PATIENCE_S = 10.0
"""The kernel answers at once; who waits longer waits for what never comes."""

_CHUNK = 1 << 16
"""Bytes of one `recv`; the kernel puts at most 32 KiB of a list into one (netlink_dump)."""

Message = tuple[int, int, bytes]
"""Type (subsystem << 8 | message), flags beyond REQUEST and ACK, and all that follows the netlink header."""

T = TypeVar("T")


class NetfilterError(OSError):
    """The kernel refused a message."""


def body(family: int, *attributes: bytes, resource: int = 0) -> bytes:
    """`struct nfgenmsg` and what follows it."""
    return _FAMILY.pack(family, 0, resource) + b"".join(attributes)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!B", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def u64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!Q", value))


def nest(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(attributes))


def parse(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes from `offset` on, by type. A malformed tail is left out; of a repeated type the last counts."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def number(value: bytes) -> int:
    """An unsigned integer of any width in network byte order."""
    return int.from_bytes(value, "big")


def split(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message in what one `recv` gave."""
    offset = 0
    while offset + 16 <= len(datagram):
        length, kind, _, sequence, _ = _HEADER.unpack_from(datagram, offset)
        yield kind, sequence, datagram[offset + 16 : offset + length]
        offset += max(16, length + 3 & ~3)


def framed(message: Message, sequence: int, is_acknowledged: bool = True) -> bytes:
    """A message with its header."""
    kind, flags, content = message
    return _HEADER.pack(16 + len(content), kind, flags | _REQUEST | _ACK * is_acknowledged, sequence, 0) + content


def error_of(content: bytes) -> NetfilterError | None:
    """What an NLMSG_ERROR says; None if it acknowledges."""
    code = -_ERRNO.unpack_from(content)[0]
    return NetfilterError(code, os.strerror(code)) if code else None


def inside(namespace: Path | str, work: Callable[[], T]) -> T:
    """What `work` returns when it runs inside the network namespace at this path, in a thread that ends with it.

    A socket that it opens belongs to that namespace for ever. Raises OSError when there is none.
    """

    def enter() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        entered = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(entered, _CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(namespace))
        finally:
            os.close(entered)
        return work()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(enter).result()


def opened(groups: Sequence[int] = (), buffer: int = _BUFFER) -> socket.socket:
    """A blocking nfnetlink socket of the calling thread's namespace. groups: NFNLGRP_*; buffer: bytes. Raises OSError.

    In a user namespace the system's own limit bounds the buffer.
    """
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        for option, forced in ((socket.SO_SNDBUF, _SO_SNDBUFFORCE), (socket.SO_RCVBUF, _SO_RCVBUFFORCE)):
            try:
                made.setsockopt(socket.SOL_SOCKET, forced, buffer)
            except PermissionError:
                made.setsockopt(socket.SOL_SOCKET, option, buffer)
        made.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        made.bind((0, 0))
        for group in groups:
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        made.close()
        raise
    return made


class Netfilter:
    """One socket of questions and orders. For one thread at a time."""

    def __init__(self, namespace: Path | str) -> None:
        """namespace: path of a network namespace. Raises OSError."""
        self._socket = inside(namespace, opened)
        self._socket.settimeout(_PATIENCE_S)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> dict[int, NetfilterError]:
        """Sends all, in order; the errors of those that the kernel refused, by position. A refusal stops nothing."""
        refused: dict[int, NetfilterError] = {}
        for start in range(0, len(messages), _BATCH):
            chunk = messages[start : start + _BATCH]
            first, self._sequence = self._sequence + 1, self._sequence + len(chunk)
            self._socket.send(
                b"".join(framed(one, number, number == self._sequence) for number, one in enumerate(chunk, first))
            )
            for sequence, error in self._errors():
                refused[start + sequence - first] = error
        return refused

    def do(self, message: Message) -> None:
        """Sends one message. Raises NetfilterError."""
        for error in self.send([message]).values():
            raise error

    def get(self, kind: int, content: bytes) -> bytes | None:
        """The answer to one question; None if there is no such thing. Raises NetfilterError."""
        self._sequence += 1
        self._socket.send(framed((kind, 0, content), self._sequence))
        found = None
        for type_, part in self._receive():
            if type_ != _ERROR:
                found = part
                continue
            error = error_of(part)
            if error is not None and error.errno != errno.ENOENT:
                raise error
            return found
        raise AssertionError("every question is acknowledged")

    def dump(self, kind: int, content: bytes) -> list[bytes]:
        """All objects that the kernel lists. Raises NetfilterError."""
        self._sequence += 1
        self._socket.send(framed((kind, _DUMP, content), self._sequence, is_acknowledged=False))
        found: list[bytes] = []
        for type_, part in self._receive():
            if type_ == _DONE:
                return found
            if type_ != _ERROR:
                found.append(part)
            elif error := error_of(part):
                raise error
        raise AssertionError("every list has an end")

    def _errors(self) -> Iterator[tuple[int, NetfilterError]]:
        """Refusals up to the answer to the last message."""
        while True:
            for kind, sequence, content in split(self._socket.recv(_CHUNK)):
                if kind == _ERROR:
                    if error := error_of(content):
                        yield sequence, error
                    if sequence == self._sequence:
                        return

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        """What is said to the last message, without end."""
        while True:
            for kind, sequence, content in split(self._socket.recv(_CHUNK)):
                if sequence == self._sequence:
                    yield kind, content
