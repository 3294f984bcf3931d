"""Knocks at many ports at once, and watches which knocks arrive. Knows nothing of policies or of what should arrive.

A plain script for inside a guest, standard library only: `python -I -S knock.py knock [--seconds 1.5]` reads a JSON
list of `{"id", "address", "port"}` (port: `tcp/22`, `udp/53`) from stdin, and prints `{"id", "sent", "answered"}` of
each in the same order. sent: the [address, port] that it went out from, null if it could not; answered: whether the
other end's TCP has said yes or no, null for UDP. `knock.py watch` says `watching` on stderr, and on SIGTERM prints a
list of `[protocol, source, source port, destination, destination port]`: what has arrived meanwhile, each once.

A knock is a TCP connection that is closed as soon as it is open, or a datagram of 8 bytes. It takes no listener to see
one arrive, and none that is there is disturbed by more than that. Watching needs CAP_NET_RAW.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
PROTOCOLS = {"tcp": TCP, "udp": UDP}
MAGIC = b"pgknock!"

AT_ONCE = 256
"""Knocks that are waited for at a time: each is an open file."""

SAID_AGAIN_S = 0.3
"""How often a datagram is sent again. TCP says itself again what was not answered, after a second (RFC 6298 §2.1)."""

MOST_SEEN = 200_000
ETH_P_ALL, PACKET_OUTGOING = 0x0003, 4
SO_ATTACH_FILTER = 26

_LD_W, _LD_B, _LDX_LENGTH, _LD_W_X, _LD_B_X, _AND, _JEQ, _RET = 0x20, 0x30, 0xB1, 0x40, 0x50, 0x54, 0x15, 0x06
_WORD = int.from_bytes(MAGIC[:4], "big")
_FILTER: tuple[tuple[int, int, int, int], ...] = (
    (_LD_B, 0, 0, 0),
    (_AND, 0, 0, 0xF0),
    (_JEQ, 0, 9, 0x40),
    (_LD_B, 0, 0, 9),  # IPv4
    (_LDX_LENGTH, 0, 0, 0),
    (_JEQ, 0, 3, TCP),
    (_LD_B_X, 0, 0, 13),
    (_AND, 0, 0, 0x12),
    (_JEQ, 13, 12, 0x02),
    (_JEQ, 0, 11, UDP),
    (_LD_W_X, 0, 0, 8),
    (_JEQ, 10, 9, _WORD),
    (_JEQ, 0, 8, 0x60),
    (_LD_B, 0, 0, 6),  # IPv6
    (_JEQ, 0, 3, TCP),
    (_LD_B, 0, 0, 40 + 13),
    (_AND, 0, 0, 0x12),
    (_JEQ, 4, 3, 0x02),
    (_JEQ, 0, 2, UDP),
    (_LD_W, 0, 0, 40 + 8),
    (_JEQ, 1, 0, _WORD),
    (_RET, 0, 0, 0),
    (_RET, 0, 0, 128),
)
"""What may be a knock, for the kernel to choose (linux/filter.h; offsets from the network header): TCP with SYN and
without ACK, or UDP whose payload begins as ours does. A busy guest's other packets are never seen."""


@dataclass(slots=True)
class Knock:
    """One port to knock at. sockaddr is None where the address is not one; sent, answered: see the module."""

    id: object
    family: int
    protocol: int
    sockaddr: tuple[str | int | bytes, ...] | None
    sent: tuple[str, int] | None = None
    answered: bool | None = None


def read_knock(entry: dict[str, object]) -> Knock:
    """A knock as given. Raises KeyError or ValueError for what names no port."""
    word, _, number = str(entry["port"]).partition("/")
    try:
        found = socket.getaddrinfo(str(entry["address"]), int(number), flags=socket.AI_NUMERICHOST)[0]
    except socket.gaierror:
        return Knock(entry["id"], 0, PROTOCOLS[word], None)
    return Knock(entry["id"], found[0], PROTOCOLS[word], tuple(found[4]))


def knock(knocks: Sequence[Knock], seconds: float) -> None:
    """Knocks at all, `AT_ONCE` at a time, and waits for answers for so many seconds each time. Fills them in."""
    for start in range(0, len(knocks), AT_ONCE):
        _knock(knocks[start : start + AT_ONCE], seconds)


def _knock(knocks: Sequence[Knock], seconds: float) -> None:
    due = time.monotonic() + seconds
    with contextlib.ExitStack() as closing:
        waiting: dict[socket.socket, Knock] = {}
        datagrams: list[socket.socket] = []
        for one in knocks:
            if one.sockaddr is None:
                continue
            channel = closing.enter_context(_channel(one))
            if not _send(channel, one):
                continue
            address = channel.getsockname()
            one.sent = address[0], address[1]
            if one.protocol == TCP:
                waiting[channel] = one
            else:
                datagrams.append(channel)
        said = time.monotonic()
        poll = select.poll()
        for channel in waiting:
            poll.register(channel, select.POLLOUT)
        by_file = {channel.fileno(): channel for channel in waiting}
        while (waiting or datagrams) and (left := due - time.monotonic()) > 0:
            for file, _ in poll.poll(min(left, SAID_AGAIN_S) * 1000):
                channel = by_file[file]
                poll.unregister(channel)
                refusal = channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                waiting.pop(channel).answered = refusal in (0, errno.ECONNREFUSED)
            if time.monotonic() - said >= SAID_AGAIN_S:
                said = time.monotonic()
                for channel in datagrams:
                    with contextlib.suppress(OSError):  # of the one before: nobody listens there, or it was rejected
                        channel.send(MAGIC)


def _channel(one: Knock) -> socket.socket:
    channel = socket.socket(one.family, socket.SOCK_STREAM if one.protocol == TCP else socket.SOCK_DGRAM)
    channel.setblocking(False)
    if one.protocol == TCP:
        one.answered = False
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    return channel


def _send(channel: socket.socket, one: Knock) -> bool:
    """Whether the first of it could go out."""
    try:
        channel.connect(one.sockaddr or ())
        if one.protocol == UDP:
            channel.send(MAGIC)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def open_watch() -> socket.socket:
    """A socket that hears knocks as they come in by any device. Raises PermissionError without CAP_NET_RAW."""
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    program = b"".join(struct.pack("=HBBI", *step) for step in _FILTER)
    kept = ctypes.create_string_buffer(program)
    heard.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), ctypes.addressof(kept)))
    return heard


def parse_arrival(packet: bytes) -> tuple[int, str, int, str, int] | None:
    """(protocol, source, source port, destination, destination port) of a packet from its network header on, None for
    no knock."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        protocol, family, ends, rest = packet[9], socket.AF_INET, packet[12:20], packet[(packet[0] & 0xF) * 4 :]
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        protocol, family, ends, rest = packet[6], socket.AF_INET6, packet[8:40], packet[40:]
    else:
        return None
    is_begun = protocol == TCP and len(rest) >= 20 and rest[13] & 0x12 == 0x02
    if not is_begun and not (protocol == UDP and rest[8:16] == MAGIC):
        return None
    source, destination = (socket.inet_ntop(family, part) for part in (ends[: len(ends) // 2], ends[len(ends) // 2 :]))
    return protocol, source, *struct.unpack_from("!H", rest), destination, *struct.unpack_from("!H", rest, 2)


def watch() -> list[tuple[int, str, int, str, int]]:
    """What arrives until SIGTERM."""
    woken, wakes = os.pipe()
    signal.signal(signal.SIGTERM, lambda number, frame: os.write(wakes, b"!"))
    seen: dict[tuple[int, str, int, str, int], None] = {}
    with open_watch() as heard:
        heard.setblocking(False)
        print("watching", file=sys.stderr, flush=True)
        is_over = False
        while not is_over:
            is_over = woken in select.select([heard.fileno(), woken], [], [])[0]
            with contextlib.suppress(BlockingIOError):
                while len(seen) < MOST_SEEN:
                    packet, where = heard.recvfrom(2048)
                    arrival = parse_arrival(packet) if where[2] != PACKET_OUTGOING else None
                    if arrival is not None:
                        seen[arrival] = None
    return list(seen)


def main(argv: list[str]) -> int:
    """See the module's first lines."""
    parser = argparse.ArgumentParser(description="knock at many ports, or watch for knocks")
    parser.add_argument("verb", choices=("knock", "watch"))
    parser.add_argument("--seconds", type=float, default=1.5, help="how long answers are waited for")
    asked = parser.parse_args(argv)
    if asked.verb == "watch":
        print(json.dumps(watch()), flush=True)
        return 0
    knocks = [read_knock(entry) for entry in json.load(sys.stdin)]
    knock(knocks, asked.seconds)
    print(json.dumps([{"id": one.id, "sent": one.sent, "answered": one.answered} for one in knocks]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
