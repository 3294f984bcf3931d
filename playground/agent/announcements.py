"""Hears at devices where machines are expected what announces that one runs there: RARP, gratuitous ARP, unsolicited
neighbour advertisements. Decides nothing; sends nothing.

A hypervisor sends RARP for a machine as it lets it go on, before anybody else is told (QEMU: 5 times in 0.8 s), and
many guests announce themselves. Each is heard only at the device that the arriving machine itself has open, and only
what comes out of it: whatever others send, by whatever name, is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from ctypes import addressof, c_char, create_string_buffer
from pathlib import Path

from overlay.kernel import namespaces

log = logging.getLogger("agent")

_RARP, _ARP, _IPV6 = 0x8035, 0x0806, 0x86DD
_ETH_P_ALL = 0x0003  # linux/if_ether.h
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ICMPV6, _ADVERTISEMENT, _SOLICITED = 58, 136, 0x40  # RFC 4861 §4.4
_MOST = 64
"""Frames read in a row; what announces a machine is said again."""

_LOAD_HALF, _LOAD_BYTE, _EQUAL, _RETURN = 0x28, 0x30, 0x15, 0x06  # linux/bpf_common.h
_FILTER = (
    (_LOAD_HALF, 0, 0, 12),
    (_EQUAL, 6, 0, _RARP),
    (_EQUAL, 5, 0, _ARP),
    (_EQUAL, 0, 5, _IPV6),
    (_LOAD_BYTE, 0, 0, 20),
    (_EQUAL, 0, 3, _ICMPV6),
    (_LOAD_BYTE, 0, 0, 54),
    (_EQUAL, 0, 1, _ADVERTISEMENT),
    (_RETURN, 0, 0, 128),
    (_RETURN, 0, 0, 0),
)
"""What of a busy guest's frames wakes us at all."""


def announces(frame: bytes, mac: str) -> bool:
    """Whether an Ethernet frame says that the machine with this MAC is where it comes from."""
    own = bytes.fromhex(mac.replace(":", ""))
    if len(frame) < 42 or frame[6:12] != own:
        return False
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _RARP:
        return True
    if kind == _ARP:
        return frame[22:28] == own and frame[28:32] == frame[38:42]  # RFC 5227 §3
    if kind != _IPV6 or len(frame) < 78:
        return False
    is_advertised = frame[20] == _ICMPV6 and frame[54] == _ADVERTISEMENT
    return is_advertised and not frame[58] & _SOLICITED


class Announcements:
    """namespace: path of the data plane's. heard: is told the guest's id, in the event loop."""

    def __init__(self, namespace: Path, heard: Callable[[str], None]) -> None:
        self._namespace = namespace
        self._heard = heard
        self._open: dict[str, tuple[socket.socket, str, str]] = {}

    def expect(self, devices: Mapping[str, tuple[str, str]]) -> None:
        """Listens at exactly these devices, as far as they are there yet. devices: name → guest id and MAC."""
        for name, (_, *whose) in list(self._open.items()):
            if devices.get(name) != tuple(whose):
                self._close(name)
        for name, (guest, mac) in devices.items():
            if name not in self._open and (opened := self._opened(name)) is not None:
                self._open[name] = (opened, guest, mac)
                asyncio.get_running_loop().add_reader(opened.fileno(), self._hear, name)

    def close(self) -> None:
        """Listens nowhere."""
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str) -> None:
        opened, _, _ = self._open.pop(name)
        asyncio.get_running_loop().remove_reader(opened.fileno())
        opened.close()

    def _opened(self, name: str) -> socket.socket | None:
        try:
            namespace = os.open(self._namespace, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return namespaces.inside(namespace, lambda: listening(name))
        except OSError:
            return None  # it comes once its hypervisor has it open
        finally:
            os.close(namespace)

    def _hear(self, name: str) -> None:
        opened, guest, mac = self._open[name]
        for _ in range(_MOST):
            try:
                frame, address = opened.recvfrom(128)
            except BlockingIOError:
                return
            except OSError:  # the device went
                self._close(name)
                return
            if address[2] != socket.PACKET_OUTGOING and announces(frame, mac):
                log.info("guest announced guest=%s device=%s type=%s", guest, name, frame[12:14].hex())
                self._heard(guest)
                return


def listening(device: str) -> socket.socket:
    """A packet socket that hears what may announce a machine at a device of the calling thread's namespace. Raises
    OSError."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    with contextlib.ExitStack() as stack:
        stack.callback(opened.close)
        program = create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _FILTER))
        held = (c_char * len(program)).from_buffer(program)
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), addressof(held)))
        opened.bind((device, _ETH_P_ALL))
        stack.pop_all()
    return opened
