"""Streams that measure what a move costs: numbered datagrams at a steady rate, and a TCP transfer with a checksum.

A plain script for inside a guest: `python -I -S stream.py send|receive|tcp-send|tcp-receive …`, standard library only.
Knows nothing of hosts or moves. Receivers write `listening PORT` to stderr once they are ready, and one JSON object to
stdout at their end. SIGTERM and SIGINT end any of them early, and properly.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import zlib
from dataclasses import dataclass, field
from types import FrameType

HEADER = struct.Struct("!4sBxxxQQQQ")
"""magic, kind, run (random), number, planned (datagrams in all), time since the sender's start in ns."""

MAGIC = b"pgst"
DATA, END = 0, 1
END_REPEATS, END_INTERVAL_S = 10, 0.03
LINGER_S = 0.2
"""How long a receiver waits for late datagrams after the end marker."""

MOST_LOSSES = 50
BLOCK = 65536
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module does not name it


@dataclass(slots=True)
class Tally:
    """Pure. Counts one stream's arrivals. Times are ns, of one clock; `offset` is since the sender's start."""

    planned: int = 0
    received: int = 0
    duplicated: int = 0
    reordered: int = 0
    gap_ns: int = 0
    gap_at_ns: int | None = None
    sent: int | None = None
    last_ns: int | None = None
    _highest: int = -1
    _first: tuple[int, int] = (0, 0)
    _last: tuple[int, int] = (0, 0)
    _seen: bytearray = field(default_factory=bytearray)

    def arrive(self, number: int, planned: int, offset_ns: int, now_ns: int) -> None:
        """One datagram."""
        self.planned = planned
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 1024 - len(self._seen)))
        # Silence before the first arrival counts from the sender's start: a stream that began unheard has a gap too.
        self._note_silence(offset_ns, now_ns)
        self._first, self._last = (number, now_ns) if self.last_ns is None else self._first, (number, now_ns)
        self.last_ns = max(now_ns, self.last_ns or 0)
        if self._seen[number]:
            self.duplicated += 1
            return
        self._seen[number] = 1
        self.received += 1
        if number < self._highest:
            self.reordered += 1
        self._highest = max(self._highest, number)

    def end(self, sent: int | None, offset_ns: int, now_ns: int) -> None:
        """The stream is over: at its end marker (only the first counts), or when the receiver has no more patience.

        sent: as the marker says; None without one, and then the planned number counts.
        """
        if self.sent is None:
            self._note_silence(offset_ns, now_ns)
            self.sent = self.planned if sent is None else sent

    def _note_silence(self, offset_ns: int, now_ns: int) -> None:
        began = now_ns - offset_ns if self.last_ns is None else self.last_ns
        if now_ns - began > self.gap_ns:
            self.gap_ns, self.gap_at_ns = now_ns - began, began

    def losses(self) -> list[tuple[int, int]]:
        """When datagrams were due that did not arrive, by the sender's steady rate, and how many in a row; the
        `MOST_LOSSES` largest, in order."""
        sent = self.sent if self.sent is not None else self.planned
        seen = bytes(self._seen[:sent]).ljust(sent, b"\0")
        (first, began), (last, ended) = self._first, self._last
        step = (ended - began) / (last - first) if last > first else 0.0
        found, start = [], seen.find(0)
        while start >= 0:
            end = seen.find(1, start)
            end = sent if end < 0 else end
            found.append((began + int((start - first) * step), end - start))
            start = seen.find(0, end)
        return sorted(sorted(found, key=lambda one: -one[1])[:MOST_LOSSES])

    def result(self) -> dict[str, object]:
        """What is printed. gap_ms: the longest silence while the stream ran; gap_utc_s: when it began; losses:
        `[utc_s, number]`."""
        sent = self.sent if self.sent is not None else self.planned
        return {
            "sent": sent,
            "received": self.received,
            "lost": max(sent - self.received, 0),
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "gap_ms": round(self.gap_ns / 1e6, 3),
            "gap_utc_s": None if self.gap_at_ns is None else round(self.gap_at_ns / 1e9, 4),
            "losses": [[round(at / 1e9, 4), number] for at, number in self.losses()],
        }


class Stop:
    """Asked for by SIGTERM or SIGINT. It can be waited for beside a socket, as Python restarts interrupted calls."""

    def __init__(self) -> None:
        self.asked = False
        self._woken, waker = socket.socketpair()
        self._waker = waker
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        for signo in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signo, self._ask)

    def before(self, channel: socket.socket, seconds: float) -> bool:
        """Waits for something to read: False when asked to stop, or when nothing came in time."""
        return channel in select.select([channel, self._woken], [], [], seconds)[0] and not self.asked

    def _ask(self, signo: int, frame: FrameType | None) -> None:
        self.asked = True


def connect(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket towards an address or name, IPv4 or IPv6."""
    family, _, _, _, target = socket.getaddrinfo(address, port, type=kind)[0]
    opened = socket.socket(family, kind)
    opened.connect(target)
    return opened


def listen(port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket bound to a port (0: any) for IPv4 and IPv6, announced on stderr."""
    try:
        opened = socket.socket(socket.AF_INET6, kind)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        where = "::"
    except OSError:  # a kernel without IPv6
        opened = socket.socket(socket.AF_INET, kind)
        where = ""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((where, port))
    if kind == socket.SOCK_STREAM:
        opened.listen()
    print(f"listening {opened.getsockname()[1]}", file=sys.stderr, flush=True)
    return opened


def send(address: str, port: int, rate: float, seconds: float) -> dict[str, int | float]:
    """Sends rate · seconds datagrams on an absolute schedule; what was due while the sender slept is sent at once.

    A datagram that the kernel refuses (no route, port unreachable) counts as sent: it did not arrive. late_ms: the most
    that one left after its time; a receiver's gap up to that says nothing of the network.
    """
    stop = Stop()
    planned = int(rate * seconds)
    run = int.from_bytes(os.urandom(8), "big")
    sent = refused = 0
    late = 0.0
    with connect(address, port, socket.SOCK_DGRAM) as channel:
        start = time.monotonic()
        while sent < planned and not stop.asked:
            due = start + sent / rate
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            now = time.monotonic()
            late = max(late, now - due)
            try:
                channel.send(HEADER.pack(MAGIC, DATA, run, sent, planned, int((now - start) * 1e9)))
            except OSError:
                refused += 1
            sent += 1
        for _ in range(END_REPEATS):
            try:
                channel.send(HEADER.pack(MAGIC, END, run, sent, planned, int((time.monotonic() - start) * 1e9)))
            except OSError:
                refused += 1
            time.sleep(END_INTERVAL_S)
    return {"sent": sent, "refused": refused, "late_ms": round(late * 1000, 3)}


def receive(port: int, patience: float) -> dict[str, object]:
    """Counts one stream: from its first datagram to its end marker, or until nothing came for `patience` seconds.

    Arrivals are timed by the kernel, so that a receiver that had to wait for the CPU shows no gap that there was not.
    """
    stop = Stop()
    tally = Tally()
    run: int | None = None
    offset = 0
    with listen(port, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        channel.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        wait = patience
        while stop.before(channel, wait):
            data, ancillary, _, _ = channel.recvmsg(2048, 64)
            if len(data) < HEADER.size:
                continue
            magic, kind, from_run, number, planned, offset = HEADER.unpack_from(data)
            if magic != MAGIC or (run is not None and from_run != run):
                continue
            run = from_run
            now = _arrival(ancillary)
            if kind == DATA:
                tally.arrive(number, planned, offset, now)
            else:
                tally.end(number, offset, now)
                wait = LINGER_S
                if time.time_ns() - now > LINGER_S * 1e9:
                    break
        tally.end(None, offset, time.time_ns())
    return tally.result()


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("@ll", value)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def tcp_send(address: str, port: int, seconds: float, mbps: float) -> dict[str, int | float]:
    """Sends blocks of 64 KiB (length before each) for so long, then 0, their CRC-32 and the number of bytes.

    mbps: ceiling in Mb/s; 0 is none.
    """
    stop = Stop()
    block = os.urandom(BLOCK)
    framed = struct.pack("!I", BLOCK) + block
    total = checksum = 0
    with connect(address, port, socket.SOCK_STREAM) as channel:
        start = time.monotonic()
        while time.monotonic() - start < seconds and not stop.asked:
            channel.sendall(framed)
            total += BLOCK
            checksum = zlib.crc32(block, checksum)
            if mbps and (ahead := start + total * 8 / (mbps * 1e6) - time.monotonic()) > 0:
                time.sleep(ahead)
        channel.sendall(struct.pack("!IIQ", 0, checksum, total))
        took = time.monotonic() - start
    return {"bytes": total, "mbps": round(total * 8 / took / 1e6, 1)}


def tcp_receive(port: int, patience: float) -> dict[str, int | float | bool]:
    """Takes one transfer. stall_ms: the longest wait for more; intact: all came, unharmed, to the end."""
    stop = Stop()
    total = checksum = 0
    stall = 0.0
    intact = False
    with listen(port, socket.SOCK_STREAM) as door:
        if not stop.before(door, patience):
            return {"bytes": 0, "mbps": 0.0, "stall_ms": round(patience * 1000, 3), "intact": False}
        channel = door.accept()[0]
    with channel:
        buffer = bytearray(BLOCK)
        start = last = time.monotonic()

        def take(count: int) -> memoryview:
            nonlocal stall, last
            have = memoryview(buffer)[:count]
            filled = 0
            while filled < count:
                if not stop.before(channel, patience):
                    raise ConnectionError("the transfer was given up")
                got = channel.recv_into(have[filled:])
                now = time.monotonic()
                stall, last = max(stall, now - last), now
                if got == 0:
                    raise ConnectionError("the transfer ended in the middle")
                filled += got
            return have

        try:
            while length := struct.unpack("!I", take(4))[0]:
                if length > BLOCK:
                    raise ConnectionError("this is no transfer of ours")
                checksum = zlib.crc32(take(length), checksum)
                total += length
            intact = struct.unpack("!IQ", take(12)) == (checksum, total)
        except OSError:  # reset, timed out or cut short: not intact, and the time since the last byte is a stall
            stall = max(stall, time.monotonic() - last)
    took = max(time.monotonic() - start, 1e-9)
    rate = round(total * 8 / took / 1e6, 1)
    return {"bytes": total, "mbps": rate, "stall_ms": round(stall * 1000, 3), "intact": intact}


def main(argv: list[str]) -> int:
    """The command line; prints one JSON object."""
    parser = argparse.ArgumentParser(description="measure a network by a stream")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("send", "tcp-send", "receive", "tcp-receive"):
        options = verbs.add_parser(verb)
        options.add_argument("--port", type=int, required=True)
        if verb.endswith("send"):
            options.add_argument("--to", required=True, help="address or name")
            options.add_argument("--seconds", type=float, default=5.0)
        else:
            options.add_argument("--patience", type=float, default=10.0, help="seconds of silence that end it")
        if verb == "send":
            options.add_argument("--rate", type=float, default=1000.0, help="datagrams a second")
        if verb == "tcp-send":
            options.add_argument("--mbps", type=float, default=0.0, help="ceiling; 0 is none")
    asked = parser.parse_args(argv)
    result: object
    if asked.verb == "send":
        result = send(asked.to, asked.port, asked.rate, asked.seconds)
    elif asked.verb == "receive":
        result = receive(asked.port, asked.patience)
    elif asked.verb == "tcp-send":
        result = tcp_send(asked.to, asked.port, asked.seconds, asked.mbps)
    else:
        result = tcp_receive(asked.port, asked.patience)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
