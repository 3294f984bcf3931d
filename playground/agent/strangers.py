"""Hears who announces a MAC where it does not belong: RARP and gratuitous ARP that come in by the data plane's devices.
Evidence only: whatever is heard moves nothing, and the guard has dropped the frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from ctypes import addressof, c_char, create_string_buffer
from pathlib import Path

from overlay.diff import is_port_device
from overlay.kernel import namespaces
from overlay.state import Gate, NetworkId, vxlan_device
from playground.derive import Derived
from playground.records import Stranger
from playground.view import View

log = logging.getLogger("agent")

MOST = 16
"""Of which it is told at a time."""

FORGOTTEN_S = 600.0
"""After so long a silence one is told of no more."""

_ETH_P_ALL, _ARP, _RARP = 0x0003, 0x0806, 0x8035  # linux/if_ether.h
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23  # linux/socket.h, linux/if_packet.h
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_AT_ONCE = 64
"""Frames that are read in a row: whoever sends more is heard again after _REST_S."""

_REST_S = 0.25

_LOAD, _LOAD_HALF, _TAX, _EQUAL, _EQUAL_X, _RETURN = 0x20, 0x28, 0x07, 0x15, 0x1D, 0x06  # linux/bpf_common.h
_ANNOUNCEMENTS = (
    (_LOAD_HALF, 0, 0, 12),
    (_EQUAL, 5, 0, _RARP),
    (_EQUAL, 0, 5, _ARP),
    (_LOAD, 0, 0, 28),  # the sender's address
    (_TAX, 0, 0, 0),
    (_LOAD, 0, 0, 38),  # the one that is asked for, or told of: RFC 5227 §3
    (_EQUAL_X, 0, 1, 0),
    (_RETURN, 0, 0, 64),
    (_RETURN, 0, 0, 0),
)

Whose = Callable[[str, str], tuple[str, str] | None]
"""Of a device's name and a MAC that came in there: the port that the MAC belongs to, by id, and the one where it was,
"" for the tunnel; None where it may be there."""


class Strangers:
    """namespace: path of the data plane's. news: is called where one more is to be told of."""

    def __init__(self, namespace: Path, whose: Whose, news: Callable[[], None]) -> None:
        self._namespace = namespace
        self._whose = whose
        self._news = news
        self._socket: socket.socket | None = None
        self._heard: dict[tuple[str, str], tuple[Stranger, float]] = {}
        """By device and MAC: since when, and when last (monotonic)."""

    def listen(self) -> None:
        """Listens from now on, if there is a data plane."""
        if self._socket is not None:
            return
        try:
            namespace = os.open(self._namespace, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            self._socket = namespaces.inside(namespace, _opened)
        except OSError as error:
            log.warning("announcements of strangers not heard error=%s", error)
            return
        finally:
            os.close(namespace)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._hear, self._socket)

    def told(self) -> tuple[Stranger, ...]:
        """Those heard lately, the first of them first."""
        until = time.monotonic() - FORGOTTEN_S
        for key in [key for key, (_, last_s) in self._heard.items() if last_s < until]:
            del self._heard[key]
        return tuple(sorted((one for one, _ in self._heard.values()), key=lambda one: one.since_utc_s))

    def close(self) -> None:
        """Listens no more."""
        opened, self._socket = self._socket, None
        if opened is not None:
            asyncio.get_running_loop().remove_reader(opened.fileno())
            opened.close()

    def _hear(self, opened: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame, (device, *_) = opened.recvfrom(64)
            except BlockingIOError:
                return
            except OSError:  # a device went down
                return
            if len(frame) >= 14:
                self.take(device, frame[6:12].hex(":"))
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened.fileno())
        loop.call_later(_REST_S, self._again, opened)

    def _again(self, opened: socket.socket) -> None:
        if opened is self._socket:
            asyncio.get_running_loop().add_reader(opened.fileno(), self._hear, opened)

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


def _opened() -> socket.socket:
    """Hears announcements that come in at all devices of the calling thread's namespace. Frames of a bridge's ports
    reach no listener of one type alone. Raises OSError."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
    with contextlib.ExitStack() as stack:
        stack.callback(opened.close)
        program = create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _ANNOUNCEMENTS))
        held = (c_char * len(program)).from_buffer(program)
        filtering = struct.pack("HL", len(_ANNOUNCEMENTS), addressof(held))
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        while select.select([opened], [], [], 0)[0]:  # what came before the filter was there
            opened.recv(1)
        stack.pop_all()
    return opened


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
