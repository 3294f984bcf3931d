"""Offers DHCP servers exchanges of four messages at a rate that no client's own work bounds. Decides nothing.

perfdhcp renders each message, waits for its answer and keeps state for it: on two cores it takes as much as a server,
and is the end of what can be seen of one. Here both messages of every exchange are whole frames before the first is
sent, they leave by `sendmmsg` a millisecond's worth at a time, the second `THINKING_S` after the first whatever was
answered, and answers wait in one socket's buffer until all is over; then each is read, and counts if it is the right
one.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import measure

from overlay.kernel import namespaces

TICK_S: Final = 0.001
THINKING_S: Final = 0.02
"""From a client's first message to its second."""
SETTLE_S: Final = 0.3
"""How long answers may still come once all is sent."""
_BUFFER: Final = 1 << 30
_STRIDE: Final = 1024
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS = 33, 263, 6
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

Figures = dict[str, Any]


class Exchange(NamedTuple):
    """Both frames of one client, whole. device: the index that they leave by."""

    device: int
    first: bytes
    second: bytes


def highest(
    servers: Sequence[str], rates: Sequence[int], offered: Callable[[str, int, Path], Figures | None]
) -> Figures:
    """By server what came of the highest rate of which less than 1 % went lost: all servers at one rate, then at the
    next. A rate is too much if it is so twice, as other work may be in the way once; after two such in a row, or where
    nothing at all is known of it, a server is asked no more. offered: of a server at a rate, in an empty folder."""
    best: Figures = {}
    failed = dict.fromkeys(servers, 0)
    for rate in rates:
        for which in [which for which, times in failed.items() if times < 2]:
            for _ in range(2):
                with tempfile.TemporaryDirectory(prefix="pgbd-") as folder:
                    figures = offered(which, rate, Path(folder))
                if figures is None or figures["dropped"] < 0.01:
                    break
            if figures is None or figures["dropped"] >= 0.01:
                failed[which] += 1
            else:
                best[which], failed[which] = figures, 0
    return best


class _Frames:
    """Frames ready to leave, each by its own device."""

    def __init__(self, frames: Sequence[tuple[int, bytes]]) -> None:
        self._bytes = ctypes.create_string_buffer(len(frames) * _STRIDE)
        self._addresses = ctypes.create_string_buffer(len(frames) * 20)
        self._vectors = ctypes.create_string_buffer(len(frames) * 16)
        self._headers = ctypes.create_string_buffer(len(frames) * 64)
        data, addresses = ctypes.addressof(self._bytes), ctypes.addressof(self._addresses)
        vectors = ctypes.addressof(self._vectors)
        for at, (device, frame) in enumerate(frames):
            struct.pack_into(f"{len(frame)}s", self._bytes, at * _STRIDE, frame)
            struct.pack_into("=HHiHBB8s", self._addresses, at * 20, socket.AF_PACKET, 0, device, 0, 0, 6, frame[:6])
            struct.pack_into("=QQ", self._vectors, at * 16, data + at * _STRIDE, len(frame))
            # struct mmsghdr: msg_name, msg_namelen, msg_iov, msg_iovlen, nothing else
            header = (addresses + at * 20, 20, vectors + at * 16, 1, 0, 0, 0, 0)
            struct.pack_into("=QI4xQQQQI4xI4x", self._headers, at * 64, *header)
        self._count = len(frames)

    def send(self, opened: socket.socket, begin: int, end: int) -> int:
        """Those numbered so; how many left."""
        at = begin
        while at < min(end, self._count):
            address = ctypes.addressof(self._headers) + at * 64
            done = _LIBC.sendmmsg(opened.fileno(), address, min(end, self._count) - at, 0)
            if done <= 0:
                at += 1  # its queue is full, or the like: as if lost on its way
                continue
            at += done
        return at - begin


def _open() -> tuple[socket.socket, socket.socket]:
    sends = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    hears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    hears.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    return sends, hears


def offer(
    clients: int, exchanges: Sequence[Exchange], rate: int, pid: int, ether_type: int, judge: Callable[[bytes], str]
) -> Figures:
    """What came of exchanges offered at a rate, and what a server took for each. clients: descriptor of the namespace
    that they are sent in. judge: "first" or "second" for the right answer to a client's message, else anything."""
    sends, hears = namespaces.inside(clients, _open)
    with sends, hears:
        firsts = _Frames([(one.device, one.first) for one in exchanges])
        seconds = _Frames([(one.device, one.second) for one in exchanges])
        opened = namespaces.inside(clients, lambda: _hear(hears, ether_type))
        assert opened is hears
        before, softirq = _process_s(pid), _softirq_s()
        begun = time.monotonic()
        done_first = done_second = 0
        ticks = 0
        while done_second < len(exchanges):
            ticks += 1
            now = begun + ticks * TICK_S
            if (left := now - time.monotonic()) > 0:
                time.sleep(left)
            elapsed = time.monotonic() - begun
            due = min(int(elapsed * rate), len(exchanges))
            done_first += firsts.send(sends, done_first, due)
            due = min(int((elapsed - THINKING_S) * rate), len(exchanges))
            done_second += seconds.send(sends, done_second, due) if due > done_second else 0
        took = time.monotonic() - begun
        time.sleep(SETTLE_S)
        used, softirq = _process_s(pid) - before, _softirq_s() - softirq
        found = {"first": 0, "second": 0}
        for data in _read(hears):
            if (which := judge(data)) in found:
                found[which] += 1
        return {
            "offered_per_s": rate,
            "per_s": round(found["second"] / took),
            "dropped": round(1 - min(found.values()) / len(exchanges), 4),
            "cpu_us": round(used / max(found["second"], 1) * 1e6, 1),
            "softirq_us": round(softirq / max(found["second"], 1) * 1e6, 1),
        }


def _hear(opened: socket.socket, ether_type: int) -> socket.socket:
    """Begins to queue what comes."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ether_type), 0, 0, 0, 0, bytes(8))
    if _LIBC.bind(opened.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), "bind")
    return opened


def _read(opened: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(opened.recv(2048))
        except BlockingIOError:
            lost = struct.unpack("II", opened.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
            assert not lost, f"{lost} answers did not find room here"
            return found


def _process_s(pid: int) -> float:
    """User and system time of a process, all its threads, seconds."""
    return measure.cpu_s(Path(f"/proc/{pid}/stat").read_text())


def _softirq_s() -> float:
    """Of the whole machine, all processors: what the packets on their way took, and what else there was."""
    return int(Path("/proc/stat").read_text().split()[7]) / os.sysconf("SC_CLK_TCK")
