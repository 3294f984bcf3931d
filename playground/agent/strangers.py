"""Hears who announces a MAC where it does not belong: RARP and gratuitous ARP that the guard has dropped, and tells of.
Evidence only: whatever is heard moves nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from overlay.diff import is_port_device
from overlay.kernel import namespaces
from overlay.state import Gate, NetworkId, vxlan_device
from playground.derive import Derived
from playground.records import Stranger
from playground.view import View
from policies.guard.rules import STRANGERS_GROUP
from policies.kernel.nflog import LogSocket

log = logging.getLogger("agent")

MOST = 16
"""Of which it is told at a time."""

FORGOTTEN_S = 600.0
"""After so long a silence one is told of no more."""

_SIOCGIFNAME = 0x8910  # linux/sockios.h
_ARP, _RARP = b"\x08\x06", b"\x80\x35"

Whose = Callable[[str, str], tuple[str, str] | None]
"""Of a device's name and a MAC that came in there: the port that the MAC belongs to, by id, and the one where it was,
"" for the tunnel; None where it may be there."""


class Strangers:
    """namespace: path of the data plane's. news: is called where one more is to be told of."""

    def __init__(self, namespace: Path, whose: Whose, news: Callable[[], None]) -> None:
        self._namespace = namespace
        self._whose = whose
        self._news = news
        self._log: LogSocket | None = None
        self._names: socket.socket | None = None
        """Any one of the namespace: by it the kernel tells the names of its devices."""
        self._heard_in = (0, 0)
        self._heard: dict[tuple[str, str], tuple[Stranger, float]] = {}
        """By device and MAC: since when, and when last (monotonic)."""

    def listen(self) -> None:
        """Listens from now on, if there is a data plane; also where one took the place of another. Cheap."""
        try:
            found = self._namespace.stat()
            if (found.st_dev, found.st_ino) == self._heard_in:
                return
            self.close()
            namespace = os.open(self._namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._names = namespaces.inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            finally:
                os.close(namespace)
            self._log = LogSocket(self._namespace, STRANGERS_GROUP)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("announcements of strangers not heard error=%s", error)
            return
        self._heard_in = found.st_dev, found.st_ino
        asyncio.get_running_loop().add_reader(self._log.fileno(), self._hear)

    def told(self) -> tuple[Stranger, ...]:
        """Those heard lately, the first of them first."""
        until = time.monotonic() - FORGOTTEN_S
        for key in [key for key, (_, last_s) in self._heard.items() if last_s < until]:
            del self._heard[key]
        return tuple(sorted((one for one, _ in self._heard.values()), key=lambda one: one.since_utc_s))

    def close(self) -> None:
        """Listens no more."""
        self._heard_in = (0, 0)
        if self._log is not None:
            asyncio.get_running_loop().remove_reader(self._log.fileno())
            self._log.close()
            self._log = None
        if self._names is not None:
            self._names.close()
            self._names = None

    def _hear(self) -> None:
        assert self._log is not None
        for index, frame in self._log.frames():
            if is_announcement(frame) and (device := self._name(index)):
                self.take(device, frame[6:12].hex(":"))

    def _name(self, index: int) -> str:
        """Of a device; "" of one that is gone."""
        assert self._names is not None
        try:
            asked = fcntl.ioctl(self._names, _SIOCGIFNAME, struct.pack("16si20x", b"", index))
        except OSError:
            return ""
        return asked[:16].rstrip(b"\0").decode()

    def take(self, device: str, mac: str) -> None:
        """A MAC announced itself, coming in by a device."""
        key = (device, mac)
        if key in self._heard:
            self._heard[key] = (self._heard[key][0], time.monotonic())
            return
        if len(self._heard) >= MOST or (found := self._whose(device, mac)) is None:
            return
        port, at = found
        self._heard[key] = (Stranger(port, mac, at, time.time()), time.monotonic())
        log.warning("a port's MAC elsewhere port=%s mac=%s device=%s", port, mac, device)
        self._news()


def is_announcement(frame: bytes) -> bool:
    """Whether a frame says where a station is, and asks for nobody: RARP, or ARP whose sender's address is the one that
    it is about (RFC 5227 §3)."""
    return frame[12:14] == _RARP or (frame[12:14] == _ARP and len(frame) >= 42 and frame[28:32] == frame[38:42])


def stranger(view: View, derived: Derived, device: str, mac: str) -> tuple[str, str] | None:
    """See `Whose`, by what this host was shown. By the tunnel, what is being moved may come from its other end."""
    id = device[2:]
    if is_port_device(device):
        for scope in view.playgrounds().values():
            if (here := scope.ports.get(id)) is None:
                continue
            if mac in (here.mac, *here.allowed_macs):
                return None
            others = (one for one in scope.ports.values() if one.network_id == here.network_id and one.mac == mac)
            return next(((one.id, id) for one in others), None)
        return None
    network = derived.state.networks.get(NetworkId(id))
    if network is None or device != vxlan_device(network.id):
        return None
    for port in network.ports.values():
        if port.mac == mac and port.gate is Gate.OPEN and derived.bound[port.id].target is None:
            return port.id, ""
    return None
