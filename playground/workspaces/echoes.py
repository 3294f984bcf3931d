"""A stream of echo requests that measures a silence: for what runs no program of ours, as virtual machines.

A plain script for inside a guest, standard library only: `python -I -S echoes.py ADDRESS [--rate 1000] [--seconds 600]`
asks until SIGTERM or SIGINT, writes `asking ADDRESS` to stderr with the first answer, and prints
`{"sent", "received", "lost", "duplicated", "gap_ms", "gap_utc_s", "losses"}` at its end; gap_ms is the longest time
between two answers, gap_utc_s when it began; losses are `[utc_s, number]`, when requests were sent that got none, and
how many in a row. It needs CAP_NET_RAW. ICMP: RFC 792; ICMPv6: RFC 4443 §4.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass, field
from types import FrameType

ECHO4, REPLY4 = 8, 0
ECHO6, REPLY6 = 128, 129
MAGIC = b"pgechoes"
MOST_LOSSES = 50
LINGER_S = 0.3
"""How long answers are waited for after the last request."""


@dataclass(slots=True)
class Tally:
    """Pure. Counts answers. Times are ns, of one clock; sent_ns: of each request."""

    sent_ns: array[int] = field(default_factory=lambda: array("q"))
    received: int = 0
    duplicated: int = 0
    gap_ns: int = 0
    gap_at_ns: int | None = None
    last_ns: int | None = None
    _seen: bytearray = field(default_factory=bytearray)

    @property
    def sent(self) -> int:
        return len(self.sent_ns)

    def send(self, now_ns: int) -> None:
        """One more request is on its way."""
        self.sent_ns.append(now_ns)
        self._seen.append(0)

    def arrive(self, number: int, now_ns: int) -> None:
        """The answer to one request."""
        self._note_silence(now_ns)
        self.last_ns = now_ns
        if self._seen[number]:
            self.duplicated += 1
            return
        self._seen[number] = 1
        self.received += 1

    def end(self, now_ns: int) -> None:
        """No more requests are sent: a silence that lasts until now counts."""
        self._note_silence(now_ns)

    def _note_silence(self, now_ns: int) -> None:
        if self.last_ns is not None and now_ns - self.last_ns > self.gap_ns:
            self.gap_ns, self.gap_at_ns = now_ns - self.last_ns, self.last_ns

    def losses(self) -> list[tuple[int, int]]:
        """When requests were sent that got no answer, and how many in a row; the `MOST_LOSSES` largest, in order."""
        found, start = [], self._seen.find(0)
        while start >= 0:
            end = self._seen.find(1, start)
            end = self.sent if end < 0 else end
            found.append((self.sent_ns[start], end - start))
            start = self._seen.find(0, end)
        return sorted(sorted(found, key=lambda one: -one[1])[:MOST_LOSSES])

    def result(self, utc_ns: int = 0) -> dict[str, object]:
        """What is printed. utc_ns: UTC less the clock that times are of."""
        return {
            "sent": self.sent,
            "received": self.received,
            "lost": self.sent - self.received,
            "duplicated": self.duplicated,
            "gap_ms": round(self.gap_ns / 1e6, 3),
            "gap_utc_s": None if self.gap_at_ns is None else round((self.gap_at_ns + utc_ns) / 1e9, 4),
            "losses": [[round((at + utc_ns) / 1e9, 4), number] for at, number in self.losses()],
        }


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(family: int, identifier: int, number: int, size: int = 0) -> bytes:
    """The number in full is in the data: an echo's own has 16 bits. size: of the data, as far as that is more and even.
    For ICMPv6 the kernel fills the checksum in."""
    kind = ECHO4 if family == socket.AF_INET else ECHO6
    data = (MAGIC + struct.pack("!Q", number)).ljust(size - size % 2, b"\0")
    packet = struct.pack("!BBHHH", kind, 0, 0, identifier, number & 0xFFFF) + data
    if family == socket.AF_INET:
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    return packet


def answered(family: int, packet: bytes, identifier: int) -> int | None:
    """The number of the request that a packet answers, None for none of ours."""
    if family == socket.AF_INET:
        packet = packet[(packet[0] & 0xF) * 4 :] if packet else packet
    if len(packet) < 24:
        return None
    kind, code, _, whose, _, magic, number = struct.unpack_from("!BBHHH8sQ", packet)
    reply = REPLY4 if family == socket.AF_INET else REPLY6
    return number if (kind, code, whose, magic) == (reply, 0, identifier, MAGIC) else None


def run(address: str, rate: int, seconds: float) -> Tally:
    """Asks until it is told to end, or for so long."""
    family, _, _, _, target = socket.getaddrinfo(address, None, type=socket.SOCK_RAW, flags=socket.AI_NUMERICHOST)[0]
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    channel = socket.socket(family, socket.SOCK_RAW, protocol)
    channel.setblocking(False)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    identifier = int.from_bytes(os.urandom(2), "big")
    tally, ended = Tally(), False

    def end(signo: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True

    for signo in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signo, end)
    began = time.monotonic_ns()
    step, until, said = 1_000_000_000 // rate, began + int(seconds * 1e9), False
    due = began
    while not ended and (now := time.monotonic_ns()) < until:
        if now >= due:
            with contextlib.suppress(OSError):  # no route, or no buffer just now: it counts as lost
                channel.sendto(request(family, identifier, tally.sent), target)
            tally.send(now)
            due = max(due + step, now - 20 * step)  # a machine that was busy is not made up for at once
        _read(channel, family, identifier, tally, max(0, due - time.monotonic_ns()) / 1e9)
        if tally.received and not said:
            said = True
            print(f"asking {address}", file=sys.stderr, flush=True)
    stopped = time.monotonic_ns()
    while (left := stopped + int(LINGER_S * 1e9) - time.monotonic_ns()) > 0 and tally.received < tally.sent:
        _read(channel, family, identifier, tally, left / 1e9)
    tally.end(stopped)
    return tally


def _read(channel: socket.socket, family: int, identifier: int, tally: Tally, wait_s: float) -> None:
    """All answers that are there, waiting for a first one."""
    if not select.select([channel], [], [], wait_s)[0]:
        return
    while True:
        try:
            packet = channel.recv(2048)
        except BlockingIOError:
            return
        if (number := answered(family, packet, identifier)) is not None and number < tally.sent:
            tally.arrive(number, time.monotonic_ns())


def main(argv: list[str]) -> int:
    """See the module's first lines."""
    parser = argparse.ArgumentParser(description="measure a silence by echo requests")
    parser.add_argument("address")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    asked = parser.parse_args(argv)
    tally = run(asked.address, asked.rate, asked.seconds)
    print(json.dumps(tally.result(time.time_ns() - time.monotonic_ns())), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
