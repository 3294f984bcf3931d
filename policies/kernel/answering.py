"""Owns the pairs of devices beside policed bridges that answer refused packets (`policies.guard.answers`); makes and
removes no other device. Raw route netlink (linux/if_link.h, linux/veth.h); knows no rule."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection, Mapping

from policies.guard.answers import Pair, pair_of
from policies.kernel.listing import text_of
from policies.kernel.netlink import CREATE, EXCL, attribute, nest, parse

_DUMP = 0x300
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_IFF_UP = 1
_IFNAME, _MTU, _LINKINFO, _KIND, _DATA, _AF_SPEC = 3, 4, 18, 1, 2, 26
_PEER = 1
_ADDR_GEN_MODE, _NONE = 8, 1
_IFINFO = struct.Struct("=BBHiII")
_LARGEST_MTU = 65535

_QUIET = nest(_AF_SPEC, nest(socket.AF_INET6, attribute(_ADDR_GEN_MODE, bytes([_NONE]))))
_A_VETH = attribute(_KIND, b"veth")

Ask = Callable[[int, int, bytes], list[bytes]]
"""(message type, flags, content) → what follows the headers of all that is answered. Raises OSError."""


def converge(ask: Ask, bridges: Collection[int]) -> int:
    """Makes the pairs of these bridges, by index, all that there are; how many were made. Raises OSError."""
    found = _found(ask)
    missing = [pair for pair in map(pair_of, bridges) if not _is_there(pair, found)]
    for pair in missing:
        _remove(ask, pair.near_index)
        _make(ask, pair)
    kept = {index for pair in map(pair_of, bridges) for index in (pair.near_index, pair.far_index)}
    for index, _ in found.values():
        if index not in kept:
            _remove(ask, index)
    return len(missing)


def missing(ask: Ask, bridges: Collection[int]) -> list[str]:
    """The near ends of pairs that are not there, not whole, or down. Raises OSError."""
    found = _found(ask)
    return sorted(pair.near for pair in map(pair_of, bridges) if not _is_there(pair, found))


def _found(ask: Ask) -> dict[str, tuple[int, bool]]:
    """Index, and whether it is up, of each end, by name."""
    found = {}
    for body in ask(_GETLINK, _DUMP, _IFINFO.pack(0, 0, 0, 0, 0, 0) + nest(_LINKINFO, _A_VETH)):
        if _is_of_a_pair(name := text_of(parse(body, _IFINFO.size)[_IFNAME])):
            _, _, _, index, flags, _ = _IFINFO.unpack_from(body)
            found[name] = index, bool(flags & _IFF_UP)
    return found


def _is_there(pair: Pair, found: Mapping[str, tuple[int, bool]]) -> bool:
    ends = found.get(pair.near), found.get(pair.far)
    return ends == ((pair.near_index, True), (pair.far_index, True))


def _is_of_a_pair(name: str) -> bool:
    """Whether a device is one of ours, by its name."""
    return name[:2] == "rj" and name[-1:] in ("a", "b")


def _make(ask: Ask, pair: Pair) -> None:
    mtu = attribute(_MTU, struct.pack("=I", _LARGEST_MTU))
    far = _IFINFO.pack(0, 0, 0, pair.far_index, 0, 0) + attribute(_IFNAME, pair.far.encode() + b"\0") + mtu
    near = _IFINFO.pack(0, 0, 0, pair.near_index, 0, 0) + attribute(_IFNAME, pair.near.encode() + b"\0") + mtu
    ask(_NEWLINK, CREATE | EXCL, near + nest(_LINKINFO, _A_VETH, nest(_DATA, attribute(_PEER, far))))
    for index in (pair.near_index, pair.far_index):
        ask(_NEWLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0) + _QUIET)
        ask(_NEWLINK, 0, _IFINFO.pack(0, 0, 0, index, _IFF_UP, _IFF_UP))


def _remove(ask: Ask, index: int) -> None:
    try:
        ask(_DELLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
