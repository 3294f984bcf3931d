"""Asks many addresses at once whether they answer an echo request. Knows nothing of policies or of what should answer.

A plain script for inside a guest, standard library only: `python -I -S prober.py [--tries 3] [--seconds 1]` reads a
JSON list of `{"id", "address"}` (other keys are ignored) from stdin, and prints `{"id", "reachable", "rtt_ms"}` of each
in the same order; rtt_ms is null for what did not answer itself. It needs CAP_NET_RAW. ICMP: RFC 792; ICMPv6: RFC 4443
§4.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

ECHO4, REPLY4 = 8, 0
ECHO6, REPLY6 = 128, 129
MAGIC = b"pgprobe!"
AT_ONCE = 64
"""Requests sent before answers are read again, so that the receive buffer never overflows."""

MAX_TARGETS = 65536
ICMP6_FILTER = 1  # linux/icmpv6.h


@dataclass(slots=True)
class Target:
    """One address to ask. sockaddr is None where the address is not one; rtt_ns is None until it answered."""

    id: object
    family: int
    sockaddr: tuple[str | int | bytes, ...] | None
    rtt_ns: int | None = None


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words."""
    padded = data + bytes(len(data) % 2)
    total = int(sum(struct.unpack(f"!{len(padded) // 2}H", padded)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def encode_request(family: int, identifier: int, number: int, now_ns: int) -> bytes:
    """An echo request that carries its own time. For ICMPv6 the kernel fills the checksum in (RFC 3542 §3.1)."""
    kind = ECHO4 if family == socket.AF_INET else ECHO6
    packet = struct.pack("!BBHHH", kind, 0, 0, identifier, number) + MAGIC + struct.pack("!Q", now_ns)
    if family == socket.AF_INET:
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    return packet


def parse_reply(family: int, packet: bytes, identifier: int) -> tuple[int, int] | None:
    """(number, time) of an echo reply of ours, else None. An IPv4 raw socket shows the IP header, IPv6 does not."""
    if family == socket.AF_INET:
        if not packet:
            return None
        packet = packet[(packet[0] & 0xF) * 4 :]
    if len(packet) < 24:
        return None
    kind, code, _, whose, number, magic, asked_ns = struct.unpack_from("!BBHHH8sQ", packet)
    reply = REPLY4 if family == socket.AF_INET else REPLY6
    ours = kind == reply and code == 0 and whose == identifier and magic == MAGIC
    return (number, asked_ns) if ours else None


def read_target(entry: dict[str, object]) -> Target:
    """A target as given; an address that is not one is simply never reachable."""
    try:
        found = socket.getaddrinfo(str(entry["address"]), None, type=socket.SOCK_RAW, flags=socket.AI_NUMERICHOST)[0]
    except socket.gaierror:
        return Target(entry["id"], 0, None)
    return Target(entry["id"], found[0], tuple(found[4]))


def open_sockets(targets: Sequence[Target]) -> dict[int, socket.socket]:
    """One raw socket a family that is needed."""
    opened: dict[int, socket.socket] = {}
    for family in sorted({target.family for target in targets if target.sockaddr}):
        protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
        channel = socket.socket(family, socket.SOCK_RAW, protocol)
        channel.setblocking(False)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        if family == socket.AF_INET6:
            blocked = bytearray(b"\xff" * 32)  # a set bit blocks that type (RFC 3542 §3.2)
            struct.pack_into("=I", blocked, REPLY6 // 32 * 4, 0xFFFFFFFF & ~(1 << REPLY6 % 32))
            channel.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(blocked))
        opened[family] = channel
    return opened


def probe(targets: Sequence[Target], tries: int, seconds: float) -> None:
    """Asks all targets, those that have not answered `tries` times in `seconds`, and ends once all have. Fills rtt_ns.

    Raises PermissionError without CAP_NET_RAW, ValueError for more than 65536 targets (an echo's number has 16 bits).
    """
    if len(targets) > MAX_TARGETS:
        raise ValueError(f"{len(targets)} targets; one prober asks at most {MAX_TARGETS}")
    channels = open_sockets(targets)
    identifier = int.from_bytes(os.urandom(2), "big")
    try:
        for _ in range(tries):
            due = time.monotonic() + seconds / tries
            silent = [number for number, target in enumerate(targets) if target.sockaddr and target.rtt_ns is None]
            if not silent:
                return
            for at, number in enumerate(silent):
                family, sockaddr = targets[number].family, targets[number].sockaddr
                request = encode_request(family, identifier, number, time.monotonic_ns())
                try:
                    channels[family].sendto(request, sockaddr or ())
                except OSError:
                    continue  # no route, or no buffer just now: that is what the further tries are for
                if at % AT_ONCE == AT_ONCE - 1:
                    _read(channels, targets, identifier, 0.0)
            while any(targets[number].rtt_ns is None for number in silent) and (wait := due - time.monotonic()) > 0:
                _read(channels, targets, identifier, wait)
    finally:
        for channel in channels.values():
            channel.close()


def _read(channels: dict[int, socket.socket], targets: Sequence[Target], identifier: int, wait_s: float) -> None:
    """Takes all replies that are there, waiting for a first one."""
    families = {channel: family for family, channel in channels.items()}
    for channel in select.select(list(families), [], [], wait_s)[0]:
        while True:
            try:
                packet, sender = channel.recvfrom(2048)
            except BlockingIOError:
                break
            number, asked_ns = parse_reply(families[channel], packet, identifier) or (MAX_TARGETS, 0)
            if number >= len(targets):
                continue
            target = targets[number]
            # An answer from another address than the one asked (a broadcast's, a translated one) is none.
            if target.rtt_ns is None and target.sockaddr and target.sockaddr[0] == sender[0]:
                target.rtt_ns = time.monotonic_ns() - asked_ns


def main(argv: list[str]) -> int:
    """See the module's first lines."""
    parser = argparse.ArgumentParser(description="probe many addresses by ICMP echo")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="in all")
    asked = parser.parse_args(argv)
    targets = [read_target(entry) for entry in json.load(sys.stdin)]
    probe(targets, asked.tries, asked.seconds)
    results = [
        {
            "id": target.id,
            "reachable": target.rtt_ns is not None,
            "rtt_ms": None if target.rtt_ns is None else round(target.rtt_ns / 1e6, 3),
        }
        for target in targets
    ]
    print(json.dumps(results), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
