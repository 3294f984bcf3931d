"""Owns the taps that hypervisors open: makes them in this host's namespace, removes them there and in the data plane's.
Knows no guests.

A hypervisor opens a tap by its name in its own namespace, so that is where each one is made and waits; the data plane
has it while it is open (`overlay.state.LocalPort.adopt`). Flags are those that QEMU asks for: one that differs in them
can't be attached (tun_set_iff, linux/if_tun.h).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink
from overlay.kernel.observe import read_link
from overlay.topology import WAITS

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

_HERE = Path("/proc/thread-self/ns/net")


def opened(name: str) -> int:
    """Opens a tap in the calling thread's network namespace, made if there is none; the descriptor is the caller's to
    close. Raises OSError: EBUSY when somebody has it open."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except OSError:
        os.close(tun)
        raise
    return tun


def make(name: str, mtu: int) -> None:
    """A tap that stays when nobody has it open, up, silent, not to be adopted yet, in the calling thread's network
    namespace. mtu: bytes. Raises OSError."""
    draft = _draft(name)
    tun = opened(draft)
    try:
        fcntl.ioctl(tun, TUNSETPERSIST, 1)
    finally:
        os.close(tun)
    with closing(Netlink()) as link:
        if (found := read_link(link, draft)) is not None:
            link.do(m.rename(found.index, name))
            link.do(m.set_alias(found.index, WAITS))
            link.do(m.quieten(found.index))
            link.do(m.set_mtu(found.index, mtu))
            link.do(m.set_up(found.index, True))  # of a device that is down the kernel does not tell who opens it


def release(names: Collection[str], *, is_free: bool) -> None:
    """These taps of the calling thread's namespace may be adopted while they are open, or may not: a hypervisor that
    starts asks for them by name after it has opened them. Raises OSError."""
    alias = "" if is_free else WAITS
    with closing(Netlink()) as link:
        for name in names:
            if (found := read_link(link, name)) is not None and found.alias != alias:
                link.do(m.set_alias(found.index, alias), ignore=(errno.ENODEV,))


def _draft(name: str) -> str:
    """A tap's name while we have it open ourselves: by its own it would be taken for one that a hypervisor has."""
    return f"nt{name[2:]}"


def remove(names: Collection[str], dataplane: Path) -> None:
    """These devices are gone, here and in the data plane's namespace. Raises OSError."""
    for namespace in (_HERE, dataplane):
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            with closing(Netlink(descriptor)) as link:
                for name in (*names, *map(_draft, names)):
                    if (found := read_link(link, name)) is not None:
                        link.do(m.delete_link(found.index), ignore=(errno.ENODEV,))
        finally:
            os.close(descriptor)
