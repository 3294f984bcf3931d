"""The packet socket of a data plane namespace, with its filter. Opens it; reads and sends nothing.

All devices are heard through one socket (ETH_P_ALL: a bridge port's frames reach no other kind of listener), a classic
BPF program passes only DHCP of both kinds to a server, router solicitations, duplicate address detection and what tells
where a virtual router is, and frames that leave are not seen at all (PACKET_IGNORE_OUTGOING, which also spares the
kernel a copy of each).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

from dhcp import frame, ra, v6
from dhcp.render import SERVER_PORT

_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_ETH_P_ALL: Final = 3
_RECEIVE_BUFFER: Final = 4 << 20

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_AT_X = 0x20, 0x28, 0x30, 0x48
_LOAD_X_HEADER_LENGTH, _AND, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0xB1, 0x54, 0x15, 0x45, 0x06

_NEXT: Final = ""
_FILTER: Final = (
    # (label, code, operand, label if true, label if false); linux/filter.h. Offsets are from the Ethernet header.
    ("source", _LOAD_WORD, 6, _NEXT, _NEXT),
    ("registered", _JUMP_EQUAL, 0x00005E00, _NEXT, "start"),
    ("kind", _LOAD_BYTE, 10, _NEXT, _NEXT),
    ("of IPv4", _JUMP_EQUAL, 1, "says", _NEXT),
    ("of IPv6", _JUMP_EQUAL, 2, _NEXT, "start"),
    ("says", _LOAD_HALF, 12, _NEXT, _NEXT),
    ("tells by arp", _JUMP_EQUAL, 0x0806, "accept", _NEXT),
    ("tells by 4", _JUMP_EQUAL, 0x0800, _NEXT, "tells by 6"),
    ("protocol 4", _LOAD_BYTE, 23, _NEXT, _NEXT),
    ("vrrp 4", _JUMP_EQUAL, frame.VRRP, "accept", "start"),
    ("tells by 6", _JUMP_EQUAL, 0x86DD, _NEXT, "start"),
    ("protocol 6", _LOAD_BYTE, 20, _NEXT, _NEXT),
    ("vrrp 6", _JUMP_EQUAL, frame.VRRP, "accept", _NEXT),
    ("icmp 6", _JUMP_EQUAL, 58, _NEXT, "start"),
    ("type 6", _LOAD_BYTE, 54, _NEXT, _NEXT),
    ("tells by nd", _JUMP_EQUAL, ra.NEIGHBOUR_ADVERTISEMENT, "accept", _NEXT),
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
    ("icmpv6", _JUMP_EQUAL, 58, "icmp type", _NEXT),
    ("udp6", _JUMP_EQUAL, 17, _NEXT, "drop"),
    ("port6", _LOAD_HALF, 56, _NEXT, _NEXT),
    ("server6", _JUMP_EQUAL, v6.SERVER_PORT, "accept", "drop"),
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
