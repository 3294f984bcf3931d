"""Owns BPF programs that hand a frame on to a veth's other end, and the trial whether this kernel runs such. Pins none.

Numbers are those of linux/bpf.h. A program is a few instructions, packed here and loaded by bpf(2); it lives as long as
its descriptor or a filter that holds it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import time
from collections.abc import Collection
from contextlib import ExitStack, closing
from enum import IntEnum
from pathlib import Path

from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.netlink import Netlink

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
"""Of the system call bpf, by machine (asm/unistd.h)."""

_PROG_LOAD, _SCHED_CLS = 5, 3
_INSTRUCTION = struct.Struct("<BBhi")
"""Operation, registers (destination in the low half), offset in instructions, constant. Of little-endian machines."""

_ATTRIBUTES = struct.Struct("=IIQQIIQII16s")
"""The start of bpf_attr for BPF_PROG_LOAD, up to and with prog_name."""

_SET, _LOAD_WORD, _JUMP_EQUAL, _CALL, _EXIT = 0xB4, 0x61, 0x15, 0x85, 0x95
_REDIRECT, _REDIRECT_PEER = 23, 155
_PACKET_TYPE_AT = 4
"""Of pkt_type in __sk_buff, bytes."""

_NEXT_FILTER = -1
"""TC_ACT_UNSPEC (linux/pkt_cls.h)."""

_TRIAL_S = 0.2


class PacketType(IntEnum):
    """What a frame's destination MAC is to the device that it came in by (linux/if_packet.h)."""

    HOST = 0
    BROADCAST = 1
    MULTICAST = 2
    OTHER_HOST = 3


def load(to: int, sent: Collection[PacketType], handed: Collection[PacketType] = ()) -> int:
    """A program's descriptor, which the caller closes. Raises OSError where the kernel or the machine runs no such.

    Frames of the types `sent` leave by the device with index `to`. Those of `handed` go on as if they had just come in
    by its other end, a veth's in another network namespace: without waiting in a queue, and with the type HOST (since
    Linux 6.16 whatever it was, skb_scrub_packet; before, it stays). All else goes to the next filter.
    """
    code = _program(to, sent, handed)
    number = _NUMBERS.get(platform.machine())
    if number is None or struct.calcsize("P") != 8:  # a process of 32 bits has other numbers
        raise OSError(errno.ENOSYS, f"programs are not made for {platform.machine()}")
    held, license_ = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"Apache-2.0")
    count = len(code) // _INSTRUCTION.size
    where, terms = ctypes.addressof(held), ctypes.addressof(license_)
    attributes = _ATTRIBUTES.pack(_SCHED_CLS, count, where, terms, 0, 0, 0, 0, 0, b"redirect")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    fd = int(libc.syscall(ctypes.c_long(number), _PROG_LOAD, attributes, len(attributes)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return fd


def attempt() -> None:
    """A frame is handed over and counted at the other end, in scratch namespaces (some 10 ms). Raises OSError if not.

    Kernels before 6.7 hand over and count nothing: a guest's counters would lack what it receives.
    """
    with ExitStack() as held:
        here, there = (held.enter_context(namespaces.scratch()) for _ in range(2))
        with closing(Netlink(here)) as near, closing(Netlink(there)) as far:
            near.do(m.create_veth("one", 1500, "other", 1500, there))  # the near end stays down: it says nothing itself
            near.do(m.set_up(_index(near, "lo"), True))
            far.do(m.set_up(_index(far, "other"), True))
            program = load(_index(near, "one"), (), (PacketType.HOST,))
            held.callback(os.close, program)
            near.do(m.ensure_clsact(_index(near, "lo")))
            near.do(m.put_program(_index(near, "lo"), program, "trial", priority=1, handle=1))
        namespaces.inside(here, _speak)
        deadline = time.monotonic() + _TRIAL_S
        while not namespaces.inside(there, lambda: _received("other")):
            if time.monotonic() > deadline:
                raise OSError(errno.EOPNOTSUPP, "a frame that is handed over is not counted at the other end")
            time.sleep(0.001)


def _program(to: int, sent: Collection[PacketType], handed: Collection[PacketType]) -> bytes:
    """An unreachable instruction would be refused, so there is an end only for what is asked for."""
    ways = [(helper, kinds) for helper, kinds in ((_REDIRECT, sent), (_REDIRECT_PEER, handed)) if kinds]
    code = [_pack(_LOAD_WORD, 2, source=1, offset=_PACKET_TYPE_AT), _pack(_SET, 1, constant=to)]
    ends = [[_pack(_SET, 0, constant=_NEXT_FILTER), _pack(_EXIT)]]
    ends += [[_pack(_SET, 2), _pack(_CALL, constant=helper), _pack(_EXIT)] for helper, _ in ways]
    jumps = [(kind, sum(map(len, ends[: at + 1]))) for at, (_, kinds) in enumerate(ways) for kind in kinds]
    for at, (kind, over) in enumerate(jumps):
        code.append(_pack(_JUMP_EQUAL, 2, offset=len(jumps) - at - 1 + over, constant=kind))
    return b"".join([*code, *(instruction for end in ends for instruction in end)])


def _pack(operation: int, destination: int = 0, *, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return _INSTRUCTION.pack(operation, source << 4 | destination, offset, constant)


def _index(link: Netlink, name: str) -> int:
    (index,) = struct.unpack_from("=i", link.get(m.RTM_GETLINK, m.get_link(name)), 4)
    return int(index)


def _speak() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"", ("127.0.0.1", 9))


def _received(device: str) -> int:
    """Frames, by /proc/net/dev (netdevice(7))."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == f"{device}:")
