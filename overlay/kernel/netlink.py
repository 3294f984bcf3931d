"""Owns rtnetlink sockets: framing, batches, dumps, errors (RFC 3549; linux/netlink.h). Knows no message's meaning.

A message is packed with `struct` and many go in one `send`, which costs microseconds a message; see
docs/decisions/0003-netlink.md for why no library does this.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence

from overlay.kernel import namespaces

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 1, 10, 11, 12
_ACK_TLVS, _CAPPED = 0x200, 0x100
_ACK_MESSAGE = 1
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_TYPE_MASK = 0x3FFF
"""Upper bits of an attribute's type say "nested" and "network byte order" (linux/netlink.h)."""

BATCH = 256
"""Messages in one `send`: enough that the system call costs nothing, few enough for the default socket buffer."""

QUESTIONS = 32
"""Requests in one `send`: so few that all answers fit into the default receive buffer (the kernel drops the rest)."""

DUMPS = 24
"""How often a list that changes while it is read is read; with more and more time between, 0.2 s in all."""

_RECEIVE = 1 << 16
"""Bytes of one `recv`. The kernel puts at most 32 KiB of a list into one (NLMSG_GOODSIZE, netlink_dump)."""

Message = tuple[int, int, bytes]
"""Type, flags beyond REQUEST, and all that follows the netlink header."""


class NetlinkError(OSError):
    """The kernel refused a message. `strerror` holds its own words where it has any (extended ACK)."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u16be(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nest(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(attributes))


def parse(data: bytes | memoryview, offset: int = 0) -> dict[int, memoryview]:
    """Attributes from `offset` on, by type. Malformed tails are left out; of a repeated type the last counts."""
    view = memoryview(data)
    found: dict[int, memoryview] = {}
    end = len(view)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(view, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & _TYPE_MASK] = view[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def string(value: memoryview) -> str:
    return bytes(value).rstrip(b"\0").decode(errors="replace")


def number(value: memoryview) -> int:
    """An unsigned integer of 1, 2, 4 or 8 bytes in host byte order."""
    return int.from_bytes(value, sys.byteorder)


class Netlink:
    """One rtnetlink socket, for ever in the network namespace in which it was opened. For one thread at a time."""

    def __init__(self, namespace: int | None = None, groups: Sequence[int] = ()) -> None:
        """namespace: descriptor of a network namespace, or None for the calling thread's. groups: RTNLGRP_* to hear."""
        self._sequence = 0
        self.socket = _open() if namespace is None else namespaces.inside(namespace, _open)
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def close(self) -> None:
        self.socket.close()

    def send(self, messages: Sequence[Message]) -> list[tuple[int, NetlinkError]]:
        """Sends all, in order; returns position and error of each that the kernel refused. A refusal stops nothing."""
        refused: list[tuple[int, NetlinkError]] = []
        for start in range(0, len(messages), BATCH):
            chunk = messages[start : start + BATCH]
            first = self._sequence + 1
            self._sequence += len(chunk)
            parts = []
            for sequence, (kind, flags, body) in enumerate(chunk, first):
                acknowledge = ACK if sequence == self._sequence else 0
                parts.append(_HEADER.pack(16 + len(body), kind, flags | REQUEST | acknowledge, sequence, 0) + body)
            self.socket.send(b"".join(parts))
            refused += [(start + sequence - first, error) for sequence, error in self._errors(self._sequence)]
        return refused

    def do(self, message: Message, ignore: tuple[int, ...] = ()) -> None:
        """Sends one message. Raises NetlinkError when the kernel refuses it with an errno not in `ignore`."""
        for _, error in self.send([message]):
            if error.errno not in ignore:
                raise error

    def get(self, kind: int, body: bytes) -> bytes:
        """The answer to one request, without its netlink header. Raises NetlinkError."""
        self._sequence += 1
        self.socket.send(_HEADER.pack(16 + len(body), kind, REQUEST, self._sequence, 0) + body)
        while True:
            for type_, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if type_ == _ERROR:
                    raise _error(payload, flags)
                return payload

    def ask(self, requests: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """The answers to many requests (type, body), in order, each without its netlink header; None where refused."""
        answers: list[bytes | None] = []
        for start in range(0, len(requests), QUESTIONS):
            chunk = requests[start : start + QUESTIONS]
            first = self._sequence + 1
            self._sequence += len(chunk)
            parts = [
                _HEADER.pack(16 + len(body), kind, REQUEST, sequence, 0) + body
                for sequence, (kind, body) in enumerate(chunk, first)
            ]
            self.socket.send(b"".join(parts))
            found: dict[int, bytes | None] = {}
            while len(found) < len(chunk):
                for type_, _, sequence, payload in self._receive():
                    if sequence >= first:
                        found[sequence] = None if type_ == _ERROR else payload
            answers += [found[sequence] for sequence in range(first, first + len(chunk))]
        return answers

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Every object that the kernel lists, each without its netlink header; read again while it changes.

        Raises NetlinkError: EINTR when it never stops changing. What then was read may lack objects that are there,
        and whoever took it for the truth would remove what depends on them.
        """
        for attempt in range(DUMPS):
            objects, consistent = self._dump(kind, body)
            if consistent:
                return objects
            if attempt >= DUMPS // 2:
                time.sleep(0.001 * attempt)
        raise NetlinkError(errno.EINTR, f"the list kept changing while it was read, {DUMPS} times")

    def _dump(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self.socket.send(_HEADER.pack(16 + len(body), kind, REQUEST | DUMP, self._sequence, 0) + body)
        objects: list[bytes] = []
        consistent = True
        while True:
            for type_, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                consistent &= not flags & _DUMP_INTERRUPTED
                if type_ == _DONE:
                    if len(payload) >= 4 and _ERRNO.unpack_from(payload)[0]:
                        raise _error(payload, flags)
                    return objects, consistent
                if type_ == _ERROR:
                    raise _error(payload, flags)
                objects.append(payload)

    def _errors(self, last: int) -> Iterator[tuple[int, NetlinkError]]:
        """Refusals up to the acknowledgement of the message numbered `last`."""
        while True:
            for type_, flags, sequence, payload in self._receive():
                if type_ == _ERROR:
                    if _ERRNO.unpack_from(payload)[0]:
                        yield sequence, _error(payload, flags)
                    if sequence == last:
                        return

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        return list(split(self.socket.recv(_RECEIVE)))


def split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message in what one `recv` gave."""
    offset = 0
    while offset + 16 <= len(datagram):
        length, type_, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        yield type_, flags, sequence, datagram[offset + 16 : offset + length]
        offset += max(16, length + 3 & ~3)


def _open() -> socket.socket:
    raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    for option, forced in ((socket.SO_SNDBUF, _SO_SNDBUFFORCE), (socket.SO_RCVBUF, _SO_RCVBUFFORCE)):
        try:
            raw.setsockopt(socket.SOL_SOCKET, forced, 8 << 20)
        except PermissionError:  # in a user namespace the system's limit holds; batches fit into it all the same
            raw.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
    for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
        raw.setsockopt(_SOL_NETLINK, option, 1)
    raw.bind((0, 0))
    return raw


def _error(payload: bytes, flags: int) -> NetlinkError:
    code = -_ERRNO.unpack_from(payload)[0]
    words = os.strerror(code)
    if flags & _ACK_TLVS and flags & _CAPPED:
        message = parse(payload, 20).get(_ACK_MESSAGE)
        if message is not None:
            words = f"{words}: {string(message)}"
    return NetlinkError(code, words)
