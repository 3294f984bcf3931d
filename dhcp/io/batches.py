"""Frames out of a packet socket, many a system call (recvmmsg(2)). Reads nothing in them, and does not own the socket.

Python's own `recvfrom` asks the kernel for a device's name with each frame, and tells of a socket that is empty by an
exception: together that is as much as the answer to a frame.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import socket
import struct
from typing import Final

MOST: Final = 64
"""Frames of one `receive`, so that a flood leaves room for names and the agent."""
LIMIT: Final = 2048
"""Bytes of a frame that are read."""

_SIOCGIFNAME: Final = 0x8910
_IFREQ: Final = struct.Struct("16si20x")
_ADDRESS_BYTES: Final = 20
_INDEX_WORD: Final = 1
"""Of struct sockaddr_ll, packet(7): its size, and where it has the device."""


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", _Message), ("received", ctypes.c_uint))


_WORDS: Final = ctypes.sizeof(_Header) // 4
_RECEIVED: Final = _Header.received.offset // 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)


class Batches:
    """One socket of `dhcp.io.sockets`."""

    def __init__(self, opened: socket.socket) -> None:
        self._fd: Final = opened.fileno()
        self._data: Final = mmap.mmap(-1, MOST * LIMIT)
        at = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        self._names: Final = bytearray(MOST * _ADDRESS_BYTES)
        names_at = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        self._vectors: Final = (_Vector * MOST)()
        held = bytearray(MOST * ctypes.sizeof(_Header))
        self._headers: Final = (_Header * MOST).from_buffer(held)
        for n, (vector, header) in enumerate(zip(self._vectors, self._headers, strict=True)):
            vector.base, vector.length = at + n * LIMIT, LIMIT
            header.message.name, header.message.name_length = names_at + n * _ADDRESS_BYTES, _ADDRESS_BYTES
            header.message.vectors, header.message.vector_count = ctypes.addressof(vector), 1
        self._headers_at: Final = ctypes.addressof(self._headers)
        self._lengths: Final = memoryview(held).cast("I")[_RECEIVED::_WORDS]
        self._indexes: Final = memoryview(self._names).cast("i")[_INDEX_WORD :: _ADDRESS_BYTES // 4]

    def receive(self) -> list[tuple[int, bytes]]:
        """What has come, at most `MOST` frames: the index of the device that each came by, and the frame, whole or its
        first `LIMIT` bytes. Empty where nothing has; an error (ENETDOWN is told once when a device goes down) means
        none of our frames."""
        count = _libc.recvmmsg(self._fd, self._headers_at, MOST, socket.MSG_DONTWAIT, None)
        data, ends = self._data, zip(range(0, count * LIMIT, LIMIT), self._lengths, self._indexes, strict=False)
        return [(index, data[at : at + length]) for at, length, index in ends]

    def device(self, index: int) -> str:
        """Its name; empty where there is none any more."""
        try:
            found = fcntl.ioctl(self._fd, _SIOCGIFNAME, _IFREQ.pack(b"", index))
        except OSError:
            return ""
        return found[:16].rstrip(b"\0").decode()
