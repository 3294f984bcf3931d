"""The one packet socket of a data plane namespace: client frames in, answers out by the same device. Decides nothing.

All devices are heard through one socket (ETH_P_ALL: a bridge port's frames reach no other kind of listener), a classic
BPF program passes only DHCP to a server, router solicitations and duplicate address detection, and frames that leave
are not seen at all (PACKET_IGNORE_OUTGOING, which also spares the kernel a copy of each). The socket keeps its
namespace alive: whoever opened it closes it when the namespace is to go.
"""

from __future__ import annotations

import asyncio
import ctypes
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dhcp import ask, frame, message, ra
from dhcp.reason import Reason
from dhcp.scope import PortScope
from dhcp.server import REPORTED, SERVER_PORT, Bound, LeaseKind

_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_ETH_P_ALL: Final = 3
_RECEIVE_BUFFER: Final = 4 << 20
_FRAME_LIMIT: Final = 2048
_DRAIN: Final = 64
"""Frames per turn of the loop, so that a flood leaves room for names and the agent."""

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_AT_X = 0x20, 0x28, 0x30, 0x48
_LOAD_X_HEADER_LENGTH, _AND, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0xB1, 0x54, 0x15, 0x45, 0x06
_NEXT: Final = ""
_FILTER: Final = (
    # (label, code, operand, label if true, label if false); linux/filter.h. Offsets are from the Ethernet header.
    ("start", _LOAD_HALF, 12, _NEXT, _NEXT),
    ("type", _JUMP_EQUAL, 0x0800, _NEXT, "arp"),
    ("protocol", _LOAD_BYTE, 23, _NEXT, _NEXT),
    ("udp", _JUMP_EQUAL, 17, _NEXT, "drop"),
    ("fragment", _LOAD_HALF, 20, _NEXT, _NEXT),
    ("first", _JUMP_SET, 0x1FFF, "drop", _NEXT),  # later fragments have no ports
    ("header", _LOAD_X_HEADER_LENGTH, 14, _NEXT, _NEXT),
    ("port", _LOAD_HALF_AT_X, 16, _NEXT, _NEXT),
    ("server", _JUMP_EQUAL, SERVER_PORT, "accept", "drop"),
    ("arp", _JUMP_EQUAL, 0x0806, _NEXT, "ipv6"),
    ("operation", _LOAD_HALF, 20, _NEXT, _NEXT),
    ("reply", _JUMP_EQUAL, frame.ARP_REPLY, "accept", "drop"),
    ("ipv6", _JUMP_EQUAL, 0x86DD, _NEXT, "drop"),
    ("next header", _LOAD_BYTE, 20, _NEXT, _NEXT),
    ("icmpv6", _JUMP_EQUAL, 58, _NEXT, "drop"),
    ("icmp type", _LOAD_BYTE, 54, _NEXT, _NEXT),
    ("solicitation", _JUMP_EQUAL, ra.SOLICITATION, "accept", _NEXT),
    ("neighbour", _JUMP_EQUAL, ra.NEIGHBOUR_SOLICITATION, _NEXT, "answer"),
    # duplicate address detection only: its source is the unspecified address
    ("source 1", _LOAD_WORD, 22, _NEXT, _NEXT),
    ("is 0 1", _JUMP_EQUAL, 0, _NEXT, "drop"),
    ("source 2", _LOAD_WORD, 26, _NEXT, _NEXT),
    ("is 0 2", _JUMP_EQUAL, 0, _NEXT, "drop"),
    ("source 3", _LOAD_WORD, 30, _NEXT, _NEXT),
    ("is 0 3", _JUMP_EQUAL, 0, _NEXT, "drop"),
    ("source 4", _LOAD_WORD, 34, _NEXT, _NEXT),
    ("is 0 4", _JUMP_EQUAL, 0, "accept", "drop"),
    # neighbours ask each other from other addresses; our questions come from a link-local one
    ("answer", _JUMP_EQUAL, ra.NEIGHBOUR_ADVERTISEMENT, _NEXT, "drop"),
    ("destination", _LOAD_HALF, 38, _NEXT, _NEXT),
    ("range", _AND, 0xFFC0, _NEXT, _NEXT),
    ("link-local", _JUMP_EQUAL, 0xFE80, "accept", "drop"),
    ("accept", _RETURN, 0xFFFF, _NEXT, _NEXT),
    ("drop", _RETURN, 0, _NEXT, _NEXT),
)


def _assemble() -> bytes:
    """The filter as `struct sock_filter`s: a jump counts the instructions that it leaves out."""
    index = {label: at for at, (label, *_) in enumerate(_FILTER)}
    program = bytearray()
    for at, (_, code, operand, if_true, if_false) in enumerate(_FILTER):
        jumps = (index[label] - at - 1 if label else 0 for label in (if_true, if_false))
        program += struct.pack("HBBI", code, *jumps, operand)
    return bytes(program)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a device's client did with its lease, or which address it formed. address, mac: strings as in the scope."""

    device: str
    address: str
    mac: str
    kind: LeaseKind


@dataclass(slots=True)
class _Port:
    scope: PortScope
    bound: Bound | None
    advertisement: bytes | None
    schedule: ra.Schedule
    questions: dict[str, bytes]
    """For the addresses that the client is expected to have and was not heard to take."""
    timer: asyncio.TimerHandle | None = None
    asked: int = 0
    asking: asyncio.TimerHandle | None = None


def attach_filter(opened: socket.socket) -> None:
    """Lets only frames through that may deserve an answer; the parsers judge exactly. Raises OSError."""
    program = _assemble()
    buffer = ctypes.create_string_buffer(program, len(program))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_FILTER), ctypes.addressof(buffer)))


def open_socket() -> socket.socket:
    """The socket, in the network namespace that the calling thread is in. Raises OSError."""
    # Hears at once; what comes in before the filter is there is left to the parsers.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
    try:
        attach_filter(opened)
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:  # in a user namespace: as much as net.core.rmem_max lets us
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    except OSError:
        opened.close()
        raise
    return opened


class PacketServer:
    """Answers at devices. `counters` says what was not answered and why.

    Scopes may be set before there is a socket, and outlive one: `attach` takes a socket of `open_socket`, `detach`
    closes it. on_heard is called after the answer has been sent.
    """

    def __init__(self, on_heard: Callable[[Heard], None]) -> None:
        self.counters: Counter[Reason] = Counter()
        self.answered = 0
        self._on_heard = on_heard
        self._ports: dict[str, _Port] = {}
        self._socket: socket.socket | None = None

    def set(self, device: str, scope: PortScope) -> None:
        """Answers at `device` by `scope` from now on, and advertises. Raises ValueError, leaving all as it was."""
        bound = Bound(scope) if scope.v4 is not None else None
        advertisement = ra.advertisement(scope) if scope.ra is not None else None
        former = self._ports.get(device)
        self.drop(device)
        if former is not None and (gone := ra.withdrawal(former.scope, scope)) is not None:
            self._send(device, gone)
        loop = asyncio.get_running_loop()
        port = _Port(scope, bound, advertisement, ra.Schedule(loop.time()), ask.questions(scope))
        self._ports[device] = port
        self._advertise(device, port)
        self._ask_later(device, port)

    def drop(self, device: str) -> None:
        """Is silent at `device`; no error when it was."""
        port = self._ports.pop(device, None)
        for timer in (port.timer, port.asking) if port is not None else ():
            if timer is not None:
                timer.cancel()

    def attach(self, opened: socket.socket) -> None:
        """Hears and answers through `opened`, and owns it; every port gets its advertisements anew."""
        self.detach()
        self._socket = opened
        loop = asyncio.get_running_loop()
        loop.add_reader(opened, self._drain)
        for device, port in self._ports.items():
            port.schedule = ra.Schedule(loop.time())
            self._advertise(device, port)
            self._ask_later(device, port)

    def detach(self) -> None:
        """Closes the socket, and with it the hold on its namespace."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Forgets all ports and closes the socket."""
        for device in list(self._ports):
            self.drop(device)
        self.detach()

    def _drain(self) -> None:
        opened = self._socket
        for _ in range(_DRAIN):
            if opened is None or opened is not self._socket:
                return
            try:
                data, (device, *_) = opened.recvfrom(_FRAME_LIMIT)
            except BlockingIOError:
                return
            except OSError:  # ENETDOWN is told once when a device goes down, and means none of our frames
                continue
            reason = self._receive(device, data)
            if reason is not None:
                self.counters[reason] += 1

    def _receive(self, device: str, data: bytes) -> Reason | None:
        port = self._ports.get(device)
        if port is None:
            return Reason.UNKNOWN_PORT
        datagram = frame.parse_udp4(data)
        if datagram is not None:
            return self._dhcp(device, port, datagram)
        solicitation = frame.parse_icmp6(data)
        if solicitation is not None:
            return self._solicitation(device, port, solicitation)
        answer = frame.parse_arp_reply(data)
        if answer is not None:
            return self._answer(device, port, *answer)
        return Reason.NOT_FOR_US

    def _answer(self, device: str, port: _Port, mac: bytes, address: bytes) -> Reason | None:
        """What a client answers by ARP."""
        if port.bound is None or port.scope.v4 is None:
            return Reason.NO_SCOPE
        if mac != port.bound.mac:
            return Reason.FOREIGN_MAC
        if socket.inet_ntoa(address) != port.scope.v4.address:
            return Reason.FOREIGN_ADDRESS
        if port.questions.pop(port.scope.v4.address, None) is None:
            return Reason.NOT_FOR_US  # a neighbour has asked: that the client has it is known
        self._on_heard(Heard(device, port.scope.v4.address, port.scope.mac, LeaseKind.BOUND))
        return None

    def _dhcp(self, device: str, port: _Port, datagram: frame.Datagram) -> Reason | None:
        if datagram.destination_port != SERVER_PORT:
            return Reason.NOT_FOR_US
        bound = port.bound
        if bound is None:
            return Reason.NO_SCOPE
        if datagram.source_mac != bound.mac:
            return Reason.FOREIGN_MAC
        request = message.parse(datagram.payload)
        if isinstance(request, Reason):
            return request
        reply = bound.answer(request)
        reason: Reason | None = None
        if isinstance(reply, Reason):
            reason = reply
            kind = REPORTED.get(reply)
        else:
            ports = (SERVER_PORT, reply.port)
            sent = frame.udp4(reply.to_mac, bound.server_mac, bound.server, reply.destination, ports, reply.payload)
            if not self._send(device, sent):
                return Reason.NOT_SENT
            kind = REPORTED.get(reply.act)
        if kind is not None and port.scope.v4 is not None:
            if kind is LeaseKind.BOUND:
                port.questions.pop(port.scope.v4.address, None)
            self._on_heard(Heard(device, port.scope.v4.address, port.scope.mac, kind))
        return reason

    def _solicitation(self, device: str, port: _Port, solicitation: frame.Icmp6) -> Reason | None:
        if port.advertisement is None or port.scope.ra is None:
            return Reason.NO_SCOPE
        if solicitation.source_mac != frame.mac(port.scope.mac):
            return Reason.FOREIGN_MAC
        if solicitation.body[0] in (ra.NEIGHBOUR_SOLICITATION, ra.NEIGHBOUR_ADVERTISEMENT):
            prefixes = [prefix for prefix, autonomous in port.scope.ra.prefixes if autonomous]
            formed = ra.formed_address(solicitation, prefixes)
            if formed is None:
                return Reason.NOT_FOR_US
            port.questions.pop(formed, None)
            self._on_heard(Heard(device, formed, port.scope.mac, LeaseKind.FORMED))
            return None
        reason = ra.check_solicitation(solicitation)
        if reason is None:
            port.schedule = port.schedule.after_solicitation(asyncio.get_running_loop().time())
            self._advertise(device, port)
            self._ask_later(device, port)  # it has just come up, however long ago the last question was
        return reason

    def _advertise(self, device: str, port: _Port) -> None:
        """Sends what is due, and sets the timer for what is not."""
        if port.advertisement is None:
            return
        if port.timer is not None:
            port.timer.cancel()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if port.schedule.next_s <= now:
            if self._socket is not None and not self._send(device, port.advertisement):
                self.counters[Reason.NOT_SENT] += 1
            port.schedule = port.schedule.after_sending(now, random.random())
        port.timer = loop.call_at(port.schedule.next_s, self._advertise, device, port)

    def _ask_later(self, device: str, port: _Port, asked: int = 0) -> None:
        """Sets the timer for the next question, in place of the one that was set, while any is open."""
        if port.asking is not None:
            port.asking.cancel()
        port.asked = asked
        if port.questions:
            port.asking = asyncio.get_running_loop().call_later(ask.after_s(asked), self._ask, device, port)

    def _ask(self, device: str, port: _Port) -> None:
        """Asks for what the client was not heard to take: that was missed, or is to come. It is advertised to as well:
        what it solicited may have been lost in a move, and it solicits again only after 4 s."""
        for question in port.questions.values():
            self._send(device, question)
        if any(":" in address for address in port.questions):
            port.schedule = port.schedule.after_solicitation(asyncio.get_running_loop().time())
            self._advertise(device, port)
        self._ask_later(device, port, port.asked + 1)

    def _send(self, device: str, data: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(data, (device, 0))
        except OSError:  # no such device, down, or its queue is full; the client asks again
            return False
        self.answered += 1
        return True
