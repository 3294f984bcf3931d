"""Owns the socket that hears what rules log in one network namespace. Knows no rule.

Packets never wait for it: what does not fit into its buffer is lost, and counted. Layouts:
linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from pathlib import Path

from policies.flows import WITH_PORTS, WITH_TYPES
from policies.kernel import netlink
from policies.kernel.netlink import BODY, attribute, body, number, parse, split, u16, u32
from policies.verdicts import LOG_GROUP, LoggedPacket, read_prefix

_PACKET, _CONFIG = 0x400, 0x401
"""NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_*."""

_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_FLAGS = 1, 2, 3, 4, 6
_BIND, _COPY_PACKET = 1, 2
_F_SEQ = 0x1
_INDEV, _PAYLOAD, _PREFIX, _SEQ, _HARDWARE_HEADER = 4, 9, 10, 12, 16

_SIOCGIFNAME = 0x8910  # linux/sockios.h; a netlink socket hands it on to its namespace's devices

_COPIED = 128
"""Bytes of a packet that are heard: both headers of all but the oddest."""

_GATHERED_BYTES, _GATHERED_CS = 32 << 10, 5
"""The kernel gathers packets until they are that many bytes or waited that many hundredths of a second."""

_BUFFER = 1 << 20
_READ = 256
"""Datagrams read in one go at most: whoever reads has other things to do."""

_EXTENSIONS = frozenset({0, 43, 60, 135})
"""IPv6 extension headers of one form (RFC 8200 §4; RFC 6275): hop-by-hop, routing, destination, mobility."""

_FRAGMENT, _AUTHENTICATION = 44, 51
_NO_FAMILY = 0


class LogSocket:
    """What a group of one namespace logs; one listener a group. lost: packets that were not heard, so far."""

    def __init__(self, namespace: Path | str, group: int = LOG_GROUP) -> None:
        """namespace: its path. Raises OSError; EBUSY (or EEXIST) when somebody else listens."""
        self.lost = 0
        self._next: int | None = None
        self._socket = netlink.inside(namespace, lambda: netlink.opened(buffer=_BUFFER))
        try:
            self._configure(group, attribute(_CFG_CMD, bytes([_BIND])))
            mode = struct.pack("!IBx", _COPIED, _COPY_PACKET)
            gathered = u32(_CFG_NLBUFSIZ, _GATHERED_BYTES) + u32(_CFG_TIMEOUT, _GATHERED_CS)
            self._configure(group, attribute(_CFG_MODE, mode) + gathered)
            self._configure(group, u16(_CFG_FLAGS, _F_SEQ))
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable once something was logged."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self, now_utc_s: float) -> list[LoggedPacket]:
        """What was logged since; bounded, so there may be more."""
        return [parse_logged(content, now_utc_s) for content in self._contents()]

    def frames(self) -> list[tuple[int, bytes]]:
        """The same of frames as they came in: the index of the device, and the frame's beginning."""
        return [parse_frame(content) for content in self._contents()]

    def device(self, index: int) -> str:
        """The name of a device of the namespace; "" of one that is gone."""
        try:
            named = fcntl.ioctl(self._socket, _SIOCGIFNAME, struct.pack("16si20x", b"", index))
        except OSError:
            return ""
        return named[:16].rstrip(b"\0").decode()

    def _contents(self) -> list[bytes]:
        found = []
        for _ in range(_READ):
            try:
                datagram = self._socket.recv(1 << 17)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # the gap in the numbers tells how many were lost
                    raise
                continue
            for kind, _, content in split(datagram):
                if kind == _PACKET:
                    self._count(content)
                    found.append(content)
        return found

    def _count(self, content: bytes) -> None:
        sequence = parse(content, BODY).get(_SEQ)
        if sequence is None:
            return
        this = number(sequence)
        if self._next is not None:
            self.lost += this - self._next & 0xFFFFFFFF
        self._next = this + 1

    def _configure(self, group: int, *attributes: bytes) -> None:
        message = netlink.framed((_CONFIG, 0, body(_NO_FAMILY, *attributes, resource=group)), 0)
        self._socket.send(message)
        for kind, _, content in split(self._socket.recv(1 << 17)):
            if kind != _PACKET and (error := netlink.error_of(content)):
                raise error


def parse_logged(content: bytes, now_utc_s: float) -> LoggedPacket:
    """A logged packet, however little of it is there."""
    found = parse(content, BODY)
    id, is_reply = read_prefix(found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"))
    protocol, ends, rest = _network(found.get(_PAYLOAD, b""))
    ports, type_ = None, None
    if protocol in WITH_PORTS and len(rest) >= 4:
        first, second = struct.unpack_from("!HH", rest)
        ports = (second, first) if is_reply else (first, second)
    elif protocol in WITH_TYPES and rest:
        type_ = rest[0]
    source, destination = reversed(ends) if is_reply else ends
    return LoggedPacket(now_utc_s, id, protocol, source, destination, ports, type_)


def parse_frame(content: bytes) -> tuple[int, bytes]:
    """(index of the device that it came in by, 0 if it came by none; its header and what follows, however little)."""
    found = parse(content, BODY)
    return number(found.get(_INDEV, b"")), found.get(_HARDWARE_HEADER, b"") + found.get(_PAYLOAD, b"")


def _network(payload: bytes) -> tuple[int, tuple[str, str], bytes]:
    """Protocol, source and destination, and what is there of the transport's header (RFC 791, RFC 8200)."""
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= 20:
        protocol, family, addresses = payload[9], socket.AF_INET, payload[12:20]
        is_first = not (payload[6] & 0x1F or payload[7])
        rest = payload[(payload[0] & 0xF) * 4 :] if is_first else b""
    elif version == 6 and len(payload) >= 40:
        family, addresses = socket.AF_INET6, payload[8:40]
        protocol, rest = _transport(payload[6], payload[40:])
    else:
        return 0, ("", ""), b""
    half = len(addresses) // 2
    return protocol, (socket.inet_ntop(family, addresses[:half]), socket.inet_ntop(family, addresses[half:])), rest


def _transport(protocol: int, rest: bytes) -> tuple[int, bytes]:
    """Past IPv6's extension headers: the protocol, and what is there of its header; nothing of a later fragment."""
    while len(rest) >= 8:
        if protocol in _EXTENSIONS:
            length = (rest[1] + 1) * 8
        elif protocol == _AUTHENTICATION:
            length = (rest[1] + 2) * 4
        elif protocol == _FRAGMENT:
            if rest[2] or rest[3] & 0xF8:
                return rest[0], b""
            length = 8
        else:
            break
        protocol, rest = rest[0], rest[length:]
    return protocol, rest
