"""Network namespaces of a test's own, with a bridge and guests on it, and what is done inside them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from policies.kernel.inside import Inside

_T = TypeVar("_T")


class Namespace:
    """One network namespace, held by a process that sleeps. `path` names it, `call` does something inside."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sleep", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        own = Path("/proc/self/ns/net").readlink()
        end = time.monotonic() + 5
        while self.path.readlink() == own:
            assert self._holder.poll() is None and time.monotonic() < end, "network namespaces cannot be made"
            time.sleep(0.001)
        self._inside = Inside(self.path)

    @property
    def pid(self) -> int:
        """Of the process that holds it, as `ip link … netns PID` takes it."""
        return self._holder.pid

    def call(self, work: Callable[..., _T], *args: object) -> _T:
        """Does it in a thread that is inside; one at a time."""
        return self._inside.call(work, *args)

    def run(self, command: str, text: str = "") -> str:
        """Runs a command inside, and says what it said. Asserts that it succeeds."""
        argv = ["nsenter", f"--net={self.path}", *command.split()]
        done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{text}"
        return done.stdout

    def close(self) -> None:
        """Ends it, with all that is inside."""
        self._inside.close()
        self._holder.kill()
        self._holder.wait()


_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
FENCE = b"\xff" * 6 + bytes.fromhex("02ffffffffff") + bytes.fromhex("88b5") + b"fence".ljust(46, b"\0")


class Bridged:
    """A namespace with bridges, and guests on them: a veth pair each, whose far end is `g<n>` in a namespace beside.

    Frames go in and are heard at the guests' ends by packet sockets, so nothing but the rules decides; all of it runs
    on one processor, so that frames come in the order in which they were sent.
    """

    def __init__(self, guests: dict[int, str]) -> None:
        """guests: number → bridge."""
        self._allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._allowed)})
        self.inner, self.outer = Namespace(), Namespace()
        self.sockets: dict[int, socket.socket] = {}
        lines = []
        for bridge in sorted(set(guests.values())):
            lines += [f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} addrgenmode none"]
            lines += [f"link set {bridge} up"]
        for number, bridge in guests.items():
            lines += [
                f"link add p{number} type veth peer name g{number} address {mac(number)} netns {self.outer.pid}",
                f"link set p{number} addrgenmode none",
                f"link set p{number} master {bridge}",
                f"link set p{number} up",
            ]
        self.inner.run("ip -batch -", "\n".join(lines))
        self.outer.run(
            "ip -batch -",
            "\n".join(f"link set g{n} addrgenmode none\nlink set g{n} mtu 1500 up" for n in guests),
        )
        for number in guests:
            self.sockets[number] = self.outer.call(_packet_socket, f"g{number}")
        for number in guests:
            others = [other for other, bridge in guests.items() if bridge == guests[number] and other != number]
            self._wait_until_forwarding(number, others)

    def _wait_until_forwarding(self, number: int, others: list[int]) -> None:
        end = time.monotonic() + 5
        missing = set(others)
        while missing:
            assert time.monotonic() < end, "the bridge forwards nothing"
            self.sockets[number].send(FENCE)
            time.sleep(0.005)
            missing = {other for other in missing if FENCE not in self._drained(other)}
        for one in self.sockets:
            self._drained(one)

    def _drained(self, number: int) -> list[bytes]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.sockets[number].recv(65536))
        return found

    def exchange(self, sent: list[tuple[int, bytes]]) -> dict[int, list[bytes]]:
        """Sends frames, each from its guest's end, and says what each guest heard."""
        for number, frame in sent:
            self.sockets[number].send(frame)
        heard: dict[int, list[bytes]] = {number: [] for number in self.sockets}
        is_quiet = False
        while not is_quiet:  # what was sent is delivered within `send`, but for what a busy machine leaves to ksoftirqd
            time.sleep(0.01)
            new = {number: self._drained(number) for number in self.sockets}
            is_quiet = not any(new.values())
            for number, frames in new.items():
                heard[number] += (frame for frame in frames if frame != FENCE)
        return heard

    def close(self) -> None:
        """Ends all of it."""
        for one in self.sockets.values():
            one.close()
        self.inner.close()
        self.outer.close()
        os.sched_setaffinity(0, self._allowed)


def mac(number: int) -> str:
    """A guest's."""
    return f"02:00:00:00:00:{number:02x}"


def framed(source: int, destination: int, version: int, packet: bytes) -> bytes:
    """An IP packet in a frame from a guest to a guest."""
    ends = bytes.fromhex((mac(destination) + mac(source)).replace(":", ""))
    return ends + _ETHERTYPES[version].to_bytes(2, "big") + packet


def _packet_socket(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE (asm/socket.h)
    made.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING (linux/if_packet.h)
    made.bind((device, 3))
    made.setblocking(False)
    return made
