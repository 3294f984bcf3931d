"""Nameless namespaces as a host and its guests, a responder of their own, and an agent that is a few lines.

A namespace lives as long as its descriptor, so nothing can be left behind, whatever a test does.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dhcp.io.sockets import open_socket
from dhcp.leases import Lease
from dhcp.scope import PortScope, Scope4, ScopeRa
from overlay.state import LEG_LINK_LOCAL, LEG_MAC
from playground.responder import netns
from playground.responder.protocol import Name, View, name_key, port_key, view_key

CLONE_NEWNET = 0x40000000
SERVER = "10.20.0.1"
ORIGIN = "atlas.internal"
VIEW = view_key("atlas")


def why_not_permitted() -> str:
    """Why this process can't make network namespaces and hear frames in them; empty when it can."""
    for tool in ("ip", "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    try:
        with Namespace() as made:
            netns.inside(made.path, open_socket)[1].close()
        return ""
    except OSError as error:
        return f"network namespaces are not permitted here: {error.strerror}"


def until(claim: Callable[[], Any], seconds: float = 5.0, what: str = "") -> Any:
    """The first true value of the claim; fails when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := claim()):
        assert time.monotonic() < end, what or "it did not come true in time"
        time.sleep(0.01)
    return found


def waits_for(pid: int, lock: Path) -> bool:
    """Whether a process has come as far as to try the lock."""
    try:
        return any(path.readlink() == lock for path in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


class Namespace:
    """A network namespace without a name."""

    def __init__(self) -> None:
        made: list[int | OSError] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
            else:
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        self.descriptor = made[0]
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def argv(self, *argv: str) -> list[str]:
        """A command line that runs in the namespace."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, check: bool = True) -> str:
        """A command's output."""
        done = subprocess.run(self.argv(*argv), capture_output=True, text=True, timeout=20)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *commands: str) -> None:
        """`ip` commands, in one process."""
        argv = self.argv("ip", "-batch", "-")
        done = subprocess.run(argv, input="\n".join(commands), capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr


class Guest(Namespace):
    """A namespace whose eth0 is the far end of a port."""

    def __init__(self, host: Host, number: int) -> None:
        super().__init__()
        self.port = f"{number:012x}"
        self.mac = f"02:00:00:00:00:{number:02x}"
        self.address = f"10.20.0.{number}"
        device = f"pg{self.port}"
        host.plane.ip(
            f"link add {device} type veth peer name eth0 address {self.mac} netns {self.path}",
            f"link set {device} addrgenmode none master br0 up",
        )
        self.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/dad_transmits")

    def up(self) -> None:
        """eth0 gets its carrier."""
        self.ip("link set lo up", "link set eth0 up")

    def ipv4(self) -> str:
        """The IPv4 address of eth0; empty while it has none."""
        shown = json.loads(self.run("ip", "-j", "-4", "address", "show", "dev", "eth0"))
        return next((entry["local"] for link in shown for entry in link.get("addr_info", ())), "")

    def scope(self, with_v4: bool = True, with_ra: bool = False) -> PortScope:
        """All that a guest may be told."""
        v4 = Scope4(
            address=self.address,
            prefix_len=24,
            server=SERVER,
            mtu=1400,
            dns=(SERVER,),
            hostname=f"worker-{self.port[-1]}",
            domain=f"grid.{ORIGIN}",
            search=(f"grid.{ORIGIN}", ORIGIN),
            routes=(("169.254.169.254/32", SERVER),),
        )
        ra = ScopeRa(
            LEG_LINK_LOCAL, prefixes=(("fd00:20::/64", True),), mtu=1400, rdnss=("fd00:20::1",), dnssl=(ORIGIN,)
        )
        return PortScope(self.mac, LEG_MAC, v4 if with_v4 else None, ra if with_ra else None)

    def socket(self) -> socket.socket:
        """A packet socket on eth0 that hears all that arrives there."""

        def work() -> socket.socket:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            opened.bind(("eth0", 3))
            return opened

        _, opened = netns.inside(self.path, work)
        opened.settimeout(5)
        return opened


class Host:
    """A data plane namespace with one bridge, and a service namespace with a leg on it."""

    def __init__(self) -> None:
        self.plane, self.service = Namespace(), Namespace()
        self.plane.ip(
            "link add br0 type bridge mcast_snooping 0",
            "link set br0 addrgenmode none up",
            f"link add lg0 type veth peer name sv0 address {LEG_MAC} netns {self.service.path}",
            "link set lg0 addrgenmode none master br0 up",
        )
        self.service.ip(
            "link set lo up",
            "link set sv0 up",
            f"address add {SERVER}/24 dev sv0",
            "address add fd00:20::1/64 dev sv0 nodad",
        )

    def view(self) -> View:
        """Names are answered on the leg."""
        subnets = ("10.20.0.0/24", "fd00:20::/64")
        return View(netns=self.service.path, listen=(SERVER, "fd00:20::1"), origin=ORIGIN, reverse=subnets)

    def close(self) -> None:
        """Lets both namespaces go."""
        os.close(self.plane.descriptor)
        os.close(self.service.descriptor)


class Responder:
    """The process, as an agent starts it."""

    def __init__(self, folder: Path, data_plane: str) -> None:
        self.folder = folder
        self.socket = folder / "r.sock"
        self.log = folder / "r.log"
        self.argv = [sys.executable, "-m", "playground.responder"]
        self.argv += ["--socket", str(self.socket), "--state", str(folder / "r.json")]
        self.argv += ["--netns", data_plane, "--log", str(self.log)]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Starts it, anew after it ended; it serves when this returns."""
        self.process = subprocess.Popen(self.argv)
        try:
            until(self.serves, what="the responder does not serve its socket")
        except BaseException:
            self.kill()
            raise
        return self.process

    def serves(self) -> bool:
        """Whether something answers at the socket."""
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX) as tried:
            return tried.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Ends it, and wants a clean end."""
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(5) == 0


class Agent:
    """Says what is to be answered, and keeps what the responder says."""

    def __init__(self, responder: Responder) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(str(responder.socket))
        self._lines = self._socket.makefile("rb")
        self._seq = 0
        self.leased: list[dict[str, Any]] = []
        self.given: list[Lease] = []
        self.problems: dict[str, str] = {}

    def tell(self, update: Mapping[str, Any] | None = None, delete: tuple[str, ...] = (), whole: bool = False) -> None:
        """Returns when it is in effect."""
        self._seq += 1
        message = {"set": update or {}, "delete": delete, "whole": whole, "seq": self._seq}
        self._socket.sendall(msgspec.json.encode(message) + b"\n")
        self.hear(lambda: self._acked == self._seq)

    _acked = 0

    def hear(self, claim: Callable[[], Any]) -> Any:
        """Reads what the responder says until the claim holds; a silence of 5 s fails."""
        while not (found := claim()):
            said = json.loads(self._lines.readline())
            if leased := said.get("leased"):
                self.leased.append(leased)
            if given := said.get("given"):
                self.given.append(msgspec.convert(given, Lease))
            if problem := said.get("problem"):
                self.problems[problem["key"]] = problem["cause"]
            if told := said.get("told"):
                self._told = told["ports"]
            self._acked = said.get("ack", self._acked)
        return found

    def ask(self, *ports: str) -> list[dict[str, Any]]:
        """What the responder says of ports."""
        self._told: list[dict[str, Any]] | None = None
        self._socket.sendall(msgspec.json.encode({"seq": 0, "ask": {"id": 1, "ports": ports}}) + b"\n")
        self.hear(lambda: self._told is not None)
        assert self._told is not None
        return self._told

    def kinds(self, port: str) -> list[str]:
        """What was said of a port's lease, in order."""
        return [leased["kind"] for leased in self.leased if leased["port"] == port]

    def close(self) -> None:
        """Goes away without a word."""
        self._lines.close()
        self._socket.close()


def answers_for(guest: Guest, host: Host, with_ra: bool = False) -> dict[str, Any]:
    """The keys of one guest, and the view."""
    return {
        port_key(guest.port): guest.scope(with_ra=with_ra),
        VIEW: host.view(),
        name_key("atlas", guest.port): a_name(guest),
    }


def a_name(guest: Guest) -> Name:
    """A guest's name and addresses."""
    return Name(workspace=f"worker-{guest.port[-1]}", network="grid", addresses=(guest.address, eui64(guest.mac)))


def eui64(mac: str) -> str:
    """The address that a host makes of a prefix and its MAC (RFC 4291 appendix A)."""
    parts = [int(part, 16) for part in mac.split(":")]
    parts[0] ^= 2
    packed = bytes((*parts[:3], 0xFF, 0xFE, *parts[3:]))
    return str(ipaddress.IPv6Address(bytes.fromhex("fd000020") + bytes(4) + packed))


def needs(tool: str) -> None:
    """Skips where a client is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
