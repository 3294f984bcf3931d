"""Hears who announces a MAC where it does not belong: RARP and gratuitous ARP that the guard has dropped, and tells of.
Evidence only: whatever is heard moves nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from overlay.diff import is_port_device
from overlay.state import Gate, NetworkId, vxlan_device
from playground.agent.logged import Logged
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

_ARP, _RARP = b"\x08\x06", b"\x80\x35"

Whose = Callable[[str, str], tuple[str, str] | None]
"""Of a device's name and a MAC that came in there: the port that the MAC belongs to, by id, and the one where it was,
"" for the tunnel; None where it may be there."""


class Strangers:
    """namespace: path of the data plane's. news: is called where one more is to be told of."""

    def __init__(self, namespace: Path, whose: Whose, news: Callable[[], None]) -> None:
        self._whose = whose
        self._news = news
        self._logged = Logged(namespace, STRANGERS_GROUP, "announcements of strangers", self._hear)
        self._heard: dict[tuple[str, str], tuple[Stranger, float]] = {}
        """By device and MAC: since when, and when last (monotonic)."""

    def listen(self) -> None:
        """Listens from now on, if there is a data plane. Cheap."""
        self._logged.listen()

    def told(self) -> tuple[Stranger, ...]:
        """Those heard lately, the first of them first."""
        until = time.monotonic() - FORGOTTEN_S
        for key in [key for key, (_, last_s) in self._heard.items() if last_s < until]:
            del self._heard[key]
        return tuple(sorted((one for one, _ in self._heard.values()), key=lambda one: one.since_utc_s))

    def close(self) -> None:
        """Listens no more."""
        self._logged.close()

    def _hear(self, logged: LogSocket) -> None:
        for index, frame in logged.frames():
            if is_announcement(frame) and (device := logged.device(index)):
                self.take(device, frame[6:12].hex(":"))

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
