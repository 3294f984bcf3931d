"""Hosts, guests and a wire between them, each a network namespace with a name in a folder of the test's own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from overlay.kernel import namespaces
from overlay.kernel.apply import DataPlane
from overlay.state import LocalPort, NetworkId, PortId, RemotePort, port_device

_T = TypeVar("_T")

NET = NetworkId("0000000000aa")
OTHER_NET = NetworkId("0000000000bb")


def port_id(number: int) -> PortId:
    return PortId(f"{number:012x}")


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def a_port(number: int, **changes: object) -> LocalPort:
    fields: dict[str, object] = {
        "id": port_id(number),
        "mac": mac(number),
        "addresses": (f"10.0.0.{number}", f"fd00::{number:x}"),
    }
    return LocalPort(**{**fields, **changes})  # type: ignore[arg-type]


def a_remote(number: int, vtep: str) -> RemotePort:
    return RemotePort(mac(number), (f"10.0.0.{number}", f"fd00::{number:x}"), vtep)


def missing_right(folder: Path) -> str:
    """Why namespaces cannot be made here; empty when they can."""
    try:
        os.close(namespaces.create("probe", lambda: None, folder))
    except OSError as error:
        return f"network namespaces cannot be made ({error.strerror}); be root, or use `unshare -Urmn`"
    clear(["probe"], folder)
    return ""


def clear(names: list[str], folder: Path) -> None:
    """Removes namespaces and the mount that holds their names."""
    for name in names:
        namespaces.remove(name, folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


class Capture:
    """Every frame that a device in a namespace receives or sends from now on."""

    def __init__(self, lab: Lab, namespace: str, device: str) -> None:
        def work() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            raw.bind((device, 3))
            return raw

        self._socket = lab.inside(namespace, work)
        self._socket.setblocking(False)
        self.frames: list[bytes] = []

    def read(self) -> list[bytes]:
        """All frames so far."""
        while True:
            try:
                self.frames.append(self._socket.recv(65536))
            except BlockingIOError:
                return self.frames

    def holding(self, part: bytes) -> list[bytes]:
        return [frame for frame in self.read() if part in frame]

    def close(self) -> None:
        self._socket.close()


class Lab:
    """Namespaces `h1`, `h2`, … on one wire, a data plane in each, guests on those."""

    def __init__(self, folder: Path, underlay: str = "192.0.2.", mtu: int = 1500) -> None:
        self.folder = folder
        self.underlay = underlay
        self.mtu = mtu
        self._names: list[str] = []
        self._planes: dict[int, DataPlane] = {}
        self.namespace("wire")
        self.run("wire", "ip link add u0 type bridge mcast_snooping 0")
        self.run("wire", "ip link set u0 up")

    def namespace(self, name: str) -> Path:
        def prepare() -> None:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            for family in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{family}/accept_dad").write_text("0")

        os.close(namespaces.create(name, prepare, self.folder))
        self._names.append(name)
        return self.folder / name

    def host(self, number: int) -> DataPlane:
        """Host `h<number>` with its data plane `dp<number>`; its underlay address ends in the number."""
        name = f"h{number}"
        path = self.namespace(name)
        length = 64 if ":" in self.underlay else 24
        self.run("wire", f"ip link add w{number} mtu {self.mtu} type veth peer name un0 mtu {self.mtu} netns {path}")
        self.run("wire", f"ip link set w{number} master u0 up")
        self.run(name, f"ip addr add {self.vtep(number)}/{length} dev un0" + (" nodad" if length == 64 else ""))
        self.run(name, "ip link set un0 up")
        plane = DataPlane(f"dp{number}", host=path, directory=self.folder)
        plane.ensure()
        self._planes[number] = plane
        return plane

    def vtep(self, number: int) -> str:
        return f"{self.underlay}{number}"

    def guest(self, host: int, number: int, mtu: int = 1500, *, in_host: bool = False) -> str:
        """Namespace `g<number>` whose eth0 is the other end of a port device, which nobody has attached yet."""
        name = f"g{number}"
        path = self.namespace(name)
        where = self.folder / (f"h{host}" if in_host else f"dp{host}")
        device = port_device(port_id(number))
        self.run(
            "wire",
            f"ip link add {device} mtu {mtu} netns {where} type veth"
            f" peer name eth0 mtu {mtu} address {mac(number)} netns {path}",
        )
        self.run(name, f"ip addr add 10.0.0.{number}/24 dev eth0")
        self.run(name, f"ip addr add fd00::{number:x}/64 dev eth0 nodad")
        self.run(name, "ip link set eth0 up")
        return name

    def run(self, name: str, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command, split at spaces, inside a namespace."""
        argv = ["nsenter", f"--net={self.folder / name}", *command.split()]
        return subprocess.run(argv, capture_output=True, text=True, check=check)

    def pings(self, source: str, target: str, *options: str) -> bool:
        """Whether one echo request is answered within a second."""
        return self.run(source, " ".join(("ping -c1 -W1", *options, target)), check=False).returncode == 0

    def inside(self, name: str, work: Callable[[], _T]) -> _T:
        with namespaces.opened(self.folder / name) as fd:
            return namespaces.inside(fd, work)

    def capture(self, namespace: str, device: str) -> Capture:
        return Capture(self, namespace, device)

    def send(self, namespace: str, device: str, frame: bytes, count: int = 1) -> None:
        """Sends a frame by a device, as whoever is in that namespace would."""

        def work() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((device, 0))
                for _ in range(count):
                    raw.send(frame)

        self.inside(namespace, work)

    def close(self) -> None:
        """Nothing is left: no namespace, no mount."""
        for plane in self._planes.values():
            plane.remove()
            plane.close()
        clear(self._names, self.folder)


def frame(destination: str, source: str, payload: bytes, ethertype: int = 0x88B5) -> bytes:
    """An Ethernet frame, by default of the type for local experiments (IEEE 802)."""
    raw = bytes.fromhex((destination + source).replace(":", ""))
    return raw + ethertype.to_bytes(2, "big") + payload.ljust(46, b"\0")
