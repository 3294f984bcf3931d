"""A real emulated site to measure on, and the hypervisor's part of it: taps as ports' ends. Measures nothing itself.

Controller, agents, responders and kernel are those of `playground up --emulate`. Workspaces are `external`: their ends
are taps that this process holds, so a frame is written into a port, and read from one, with no guest in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure

from overlay.kernel import namespaces
from overlay.mac import derived_mac
from playground import sandbox
from playground.client import Client, UnixAddress
from playground.records import port_id

NAME = "bench"
PLAYGROUND = "grid"
NETWORK = "net"

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000  # linux/if_tun.h
_IPV4, _UDP = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!HHHH")
_UDP_PROTOCOL, _DISCARD = 17, 9
_SIZE = 60
"""Of a frame, bytes: the least that Ethernet carries."""


def _make_tap(name: str) -> int:
    """A tap in the calling thread's namespace; its descriptor, without which it goes."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


@dataclass
class Port:
    """One external workspace's port. mac: as the site derives it from the names. tap: its end, open. address: IPv4;
    what the playground's file fixes, or the site gave; "" before that is known."""

    workspace: str
    host: str
    mac: str
    tap: int
    address: str = ""


def frame(to: Port, source: Port, number: int = 0) -> bytes:
    """A numbered datagram that nobody listens for: the guard of a port passes its own MAC and address alone."""
    macs = [bytes.fromhex(port.mac.replace(":", "")) for port in (to, source)]
    addresses = [socket.inet_aton(port.address) for port in (source, to)]
    payload = number.to_bytes(8, "big").ljust(_SIZE - 14 - _IPV4.size - _UDP.size, b"\0")
    length = _UDP.size + len(payload)
    head = _IPV4.pack(0x45, 0, _IPV4.size + length, 0, 0, 64, _UDP_PROTOCOL, 0, *addresses)
    checksum = sum(struct.unpack("!10H", head))
    checksum = ~(checksum % 0xFFFF) & 0xFFFF  # RFC 1071; a sum of words is never nought here
    head = _IPV4.pack(0x45, 0, _IPV4.size + length, 0, 0, 64, _UDP_PROTOCOL, checksum, *addresses)
    return b"".join((*macs, b"\x08\0", head, _UDP.pack(_DISCARD, _DISCARD, length, 0), payload))


def number_of(received: bytes, to: Port, source: Port) -> int | None:
    """The number of such a datagram; None of any other frame."""
    numbered = int.from_bytes(received[42:50], "big")
    return numbered if received == frame(to, source, numbered) else None


@dataclass
class Lab:
    """One emulated site with one playground of external workspaces, each with one port in one network."""

    info: sandbox.SandboxInfo
    client: Client = field(init=False)
    ports: dict[str, Port] = field(default_factory=dict)
    wanted: dict[str, tuple[str, int]] = field(default_factory=dict)
    """name → host and scale (0: a single one), as the playground's file is to say."""

    def __post_init__(self) -> None:
        self.client = Client(UnixAddress(self.info.run_dir / "controller.sock"), timeout=300)

    # the site

    def await_hosts(self, seconds: float = 30.0) -> None:
        """Every host is up."""
        self.await_(lambda: all(h["state"] == "up" for h in self.client.get("hosts")), seconds, "hosts up")

    @staticmethod
    def await_(look: Any, seconds: float, what: str, every_s: float = 0.02) -> None:
        """Returns when `look` says yes. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            time.sleep(every_s)

    def progress(self) -> dict[str, Any]:
        return dict(self.client.get(f"playgrounds/{PLAYGROUND}/progress"))

    def converged(self, seconds: float = 300.0) -> None:
        """The controller says that everything is as asked."""
        self.await_(lambda: self.progress()["converged"], seconds, "converged", 0.05)

    def program(self, name: str) -> int:
        """The pid of the controller or `agent-HOST`, as the sandbox numbers it."""
        return next(int(p["pid"]) for p in sandbox.ask(self.info, "status")["programs"] if p["name"] == name)

    def proc(self, pid: int) -> Path:
        """/proc/PID of a process that the sandbox numbers so."""
        return Path(f"/proc/{self.info.pid}/root/proc/{pid}")

    def responder(self, host: str) -> int:
        """The pid of a host's responder, as the sandbox numbers it."""
        mine = f"/hosts/{host}/".encode()
        for path in Path(f"/proc/{self.info.pid}/root/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (path / "cmdline").read_bytes()
                if b"playground.responder" in words and mine in words:
                    return int(path.name)
        raise LookupError(f"no responder on {host}")

    def cpu_s(self, hosts: Sequence[str]) -> dict[str, float]:
        """Processor time so far, by program, seconds."""
        pids = {"controller": self.program("controller")}
        for host in hosts:
            pids |= {f"agent-{host}": self.program(f"agent-{host}"), f"responder-{host}": self.responder(host)}
        return {name: measure.cpu_s((self.proc(pid) / "stat").read_text()) for name, pid in pids.items()}

    def smaps(self, host: str) -> dict[str, str]:
        """/proc/PID/smaps_rollup of a host's agent and responder, which has DHCP and DNS."""
        pids = {"agent": self.program(f"agent-{host}"), "responder": self.responder(host)}
        return {name: (self.proc(pid) / "smaps_rollup").read_text() for name, pid in pids.items()}

    def namespace(self, host: str) -> int:
        """A descriptor of a host's own network namespace; the caller closes it."""
        held = next(h["namespaces"] for h in sandbox.ask(self.info, "status")["hosts"] if h["name"] == host)
        return os.open(f"/proc/{self.info.pid}/fd/{held['net']}", os.O_RDONLY | os.O_CLOEXEC)

    def dataplane(self, host: str) -> int:
        """A descriptor of a host's data plane namespace; the caller closes it."""
        root = self.proc(self.program(f"agent-{host}")) / "root"
        return os.open(root / "run/netns/playground", os.O_RDONLY | os.O_CLOEXEC)

    # the playground

    def text(self) -> str:
        """The playground's file: each group at its host, by scale, and each single workspace."""
        lines = [f"name: {PLAYGROUND}", "networks:", f"  {NETWORK}: {{subnets: [10.64.0.0/16]}}", "workspaces:"]
        lines += [
            f"  {name}: {{networks: [{self._nic(name)}], driver: external, host: {host}"
            f"{f', scale: {scale}' if scale else ''}}}"
            for name, (host, scale) in self.wanted.items()
        ]
        return "\n".join(lines) + "\n"

    def _nic(self, name: str) -> str:
        port = self.ports.get(name)
        return f"{{network: {NETWORK}, address: {port.address}}}" if port and port.address else NETWORK

    def learn(self) -> None:
        """The addresses that the site gave are known."""
        for row in self.client.get("ports"):
            self.ports[row["workspace"]].address = next(a for a in row["addresses"] if "." in a)

    def put(self) -> dict[str, Any]:
        """The file is given to the controller, as `up` does; its answer says that all is committed."""
        return dict(self.client.put("playgrounds", {"file": "grid.yaml", "text": self.text()}))

    def make_ends(
        self, workspaces: Sequence[str], host: str, adopted: bool = False, addresses: Sequence[str] = ()
    ) -> None:
        """The workspaces' taps exist: the hypervisor's part is done. addresses: those that the file fixes.

        They are made in the data plane's namespace; adopted: in the host's, from where the agent has to move them, for
        which the kernel takes some 20 ms each.
        """

        ids = [port_id(PLAYGROUND, name, NETWORK) for name in workspaces]

        with _closing(self.namespace(host) if adopted else self.dataplane(host)) as namespace:
            taps = namespaces.inside(namespace, lambda: [_make_tap(f"pg{id}") for id in ids])
        fixed = addresses or [""] * len(ids)
        for name, id, tap, address in zip(workspaces, ids, taps, fixed, strict=True):
            self.ports[name] = Port(name, host, derived_mac(id), tap, address)

    def close(self) -> None:
        for port in self.ports.values():
            os.close(port.tap)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def first_arrivals(
    pairs: dict[str, tuple[Port, Port]], seconds: float, every_s: float = 0.02, sample: int = 8
) -> dict[str, float]:
    """When (`time.perf_counter`) the first frame of each pair (sender, receiver) came through; returns once all have.

    While nothing comes through only a few pairs are tried each `every_s`; when something does, all that are missing:
    a look must not cost the processors that the work is to be done on. Raises TimeoutError.
    """
    poll = select.epoll()
    of_tap = {to.tap: name for name, (_, to) in pairs.items()}
    for tap in of_tap:
        poll.register(tap, select.EPOLLIN)
    frames = {name: frame(to, source) for name, (source, to) in pairs.items()}
    arrived: dict[str, float] = {}
    deadline = time.monotonic() + seconds
    turn, moved = 0, False
    try:
        while len(arrived) < len(pairs):
            missing = [name for name in pairs if name not in arrived]
            if not moved:
                missing = [missing[(turn + i) % len(missing)] for i in range(min(sample, len(missing)))]
                turn += sample
            for name in missing:
                with contextlib.suppress(OSError):  # not up yet: EIO, ENETDOWN
                    os.write(pairs[name][0].tap, frames[name])
            moved = False
            until = time.perf_counter() + every_s
            while (left := until - time.perf_counter()) > 0:
                for tap, _ in poll.poll(left):
                    name = of_tap[tap]
                    if frames[name] in frames_of(pairs[name][1]) and name not in arrived:
                        arrived[name] = time.perf_counter()
                        moved = True
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(pairs) - len(arrived)} of {len(pairs)} pairs got nothing in {seconds:g} s")
    finally:
        poll.close()
    return arrived


def frames_of(port: Port) -> list[bytes]:
    """All frames that wait at a port's tap."""
    found = []
    with contextlib.suppress(OSError):  # EAGAIN: no more; EIO: the tap is not up
        while True:
            found.append(os.read(port.tap, 2048))
    return found


@contextlib.contextmanager
def emulated(hosts: int, name: str = NAME, kind: type[Lab] = Lab) -> Iterator[Lab]:
    """A fresh site in folders of its own; nothing of it is left afterwards, however this process ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    top = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))  # short: a Unix socket's path has 107 bytes
    os.environ |= {"PLAYGROUND_SITE": name, "PLAYGROUND_RUN": str(top / "r"), "PLAYGROUND_STATE": str(top / "s")}
    try:
        made = kind(sandbox.ensure(name, hosts, leash=True))
        try:
            made.await_hosts()
            yield made
        finally:
            made.close()
            sandbox.stop(name)
    finally:
        shutil.rmtree(top, ignore_errors=True)
