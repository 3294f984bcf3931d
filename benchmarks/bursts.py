"""Bursts of small packets from one guest to another, and the processor time that the way of one takes.

Where all is one kernel, a packet's whole way, up to the queue of the socket that it is for, is done within the sender's
own system call: by devices that pass on at once what they get. So the processor time of the sender's thread is the
way's cost, and others who keep the processors busy are hardly seen in it, which they are in packets a second.

Run by itself it is one of the two ends, in a guest; it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import repeat

PORT = 5201
SIZE = 64
"""Bytes that a packet carries."""

_PYTHON = (sys.executable, "-I", "-S", __file__)


class Bursts:
    """Two guests, for as long as both ends run."""

    def __init__(self, client: list[str], server: list[str], to: str) -> None:
        """client, server: command lines that enter the guests; to: the server's address."""
        self._ends = [
            subprocess.Popen([*enter, *_PYTHON, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for enter, words in ((server, ["take", to]), (client, ["send", to]))
        ]
        for end in self._ends:
            if self._line(end) != "ready":
                raise RuntimeError("an end of the bursts does not start")

    def take(self, count: int) -> float:
        """Sends so many; microseconds of processor time that each took."""
        sender = self._ends[1]
        assert sender.stdin is not None
        sender.stdin.write(f"{count}\n")
        sender.stdin.flush()
        return float(self._line(sender))

    def close(self) -> None:
        """Ends both."""
        for end in self._ends:
            end.kill()
            end.communicate()

    @staticmethod
    def _line(end: subprocess.Popen[str]) -> str:
        assert end.stdout is not None
        return end.stdout.readline().strip()


@contextlib.contextmanager
def between(client: list[str], server: list[str], to: str) -> Iterator[Bursts]:
    """See Bursts."""
    made = Bursts(client, server, to)
    try:
        yield made
    finally:
        made.close()


def by_turns(ways: Mapping[str, Bursts], rounds: int, count: int = 2000) -> dict[str, list[float]]:
    """What a packet took in each round, by way; every other round goes the other way round."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for way in ways.values():
        way.take(count)
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            seen[name].append(ways[name].take(count))
    return seen


def _send(to: str) -> None:
    content = bytes(SIZE)
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((to, PORT))
        print("ready", flush=True)
        for line in sys.stdin:
            count, send = int(line), opened.send
            began = time.thread_time_ns()
            for _ in repeat(None, count):
                send(content)
            print((time.thread_time_ns() - began) / count / 1000, flush=True)


def _take(at: str) -> None:
    """Takes nothing out of its queue: the packets end there."""
    with socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        opened.bind((at, PORT))
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"send": _send, "take": _take}[sys.argv[1]](sys.argv[2])
