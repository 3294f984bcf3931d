"""The wiring of a movable NIC: eth<i> in the guest, nicp<i> in its hidden NIC namespace, a leg to each host. No files.

    guest            NIC namespace                       host's data plane namespace
    eth0 ═══════ nicp0 ──redirect──▶ leg0-<host> ═══════ pg<port>
                       ◀──redirect──

`eth0` is never touched by a move. A flip swaps the target of one redirect. While two hosts have a leg, both deliver
unicast (whoever is re-pointed late loses nothing) and only the active one delivers group-addressed frames (one
broadcast stays one copy).
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from overlay.kernel import messages as m
from overlay.kernel import namespaces, programs
from overlay.kernel.netlink import Message, Netlink, NetlinkError, number, parse, string
from overlay.kernel.programs import PacketType
from playground.workspaces.drivers.api import Nic

HIDDEN_MTU = 65535
"""Of every hidden device and of pg<port>, bytes: veth's largest, so that none of them is ever the one that drops. A
guest that raises its own MTU is answered by the bridge or VXLAN device (frag needed), not lost in between."""

DAD_INTERVAL_MS = 200
"""Time between neighbour solicitations in the guest, so also how long DAD takes (RFC 4862 §5.1 has 1000). 200 is more
than any round trip in a site; neighbour reachability then gives up after 3 · 200 ms."""


_FEW = 64
"""So many devices are asked for one by one; for more, one dump of all costs less."""

_MIRRED, _PROGRAM = 1, 2
"""Priorities of redirects, by their way. While one is in use, adding or removing a node never swaps the head of the
device's filter chain; where both are for a moment, the first decides."""

_ABSENT = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})
"""No such redirect: no node, no filter table on the device yet (EINVAL), or no device."""

_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""A kernel without IPv6 has nothing to silence."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which frames a redirect takes. node: its place in the filter table, 0 or 1. word: of the frame, for u32.

    sent, handed: for a program, the types of those that leave by the other device, and of those that go on as if they
    had come out of its other end. What is handed over loses its type, so that is unicast alone: towards the guest what
    is for its MAC, which the leg has, too; towards the host what is for others, of which the guard knows.
    """

    node: int
    word: m.Word
    sent: frozenset[PacketType]
    handed: frozenset[PacketType] = frozenset()


_OTHER_HOST = frozenset({PacketType.OTHER_HOST})
EVERY_FRAME = Match(0, (b"\0\0\0\0", b"\0\0\0\0", -16), frozenset(PacketType) - _OTHER_HOST, _OTHER_HOST)
UNICAST = Match(0, (b"\0\0\1\0", b"\0\0\0\0", -16), _OTHER_HOST, frozenset({PacketType.HOST}))
GROUP = Match(1, (b"\0\0\1\0", b"\0\0\1\0", -16), frozenset({PacketType.BROADCAST, PacketType.MULTICAST}))
"""Multicast and broadcast: the low bit of the first octet (IEEE 802 §8.2)."""


@dataclass(frozen=True, slots=True)
class _End:
    """A device. peer: ifindex of a veth's other end, in whatever namespace that is, or 0."""

    index: int
    name: str
    peer: int


@dataclass(frozen=True, slots=True)
class _Step:
    """A message, what it does (for the error's text), and the refusals that mean it is so already."""

    message: Message
    what: str
    accept: frozenset[int] = frozenset()


def leg_name(index: int, host: str) -> str:
    """The NIC namespace's end of NIC `index` towards `host` (14 bytes at most; IFNAMSIZ leaves 15)."""
    return f"leg{index}-{hashlib.sha256(host.encode()).hexdigest()[:6]}"


class Wiring:
    """One guest's NIC namespace, opened. Every verb may be repeated, and finishes what an interrupted one began."""

    def __init__(self, nic_namespace: int) -> None:
        self._kernel = Netlink(nic_namespace)

    def close(self) -> None:
        """Lets the NIC namespace go."""
        self._kernel.close()

    def has_legs(self, host: str, nics: Sequence[Nic]) -> bool:
        """Whether every NIC has an end at this host."""
        ends = _read_ends(self._kernel)
        return all(leg_name(nic.index, host) in ends for nic in nics)

    def make_nics(self, guest_namespace: int, nics: Sequence[Nic]) -> None:
        """eth<i> in the guest, down, with its MAC and MTU, and nicp<i> here, up."""
        ends = _read_ends(self._kernel)
        missing = [nic for nic in nics if f"nicp{nic.index}" not in ends]
        _take(self._kernel, [_pair(f"nicp{n.index}", f"eth{n.index}", guest_namespace, n.mtu, n.mac) for n in missing])
        ends = _read_ends(self._kernel)
        inner = [ends[f"nicp{nic.index}"] for nic in nics]
        _take(self._kernel, [*map(_add_clsact, inner), *map(_set_up, inner)])

    def make_legs(self, host: str, dataplane: int, nics: Sequence[Nic]) -> None:
        """pg<port> in the data plane namespace, up and silent, and its other end here, delivering unicast only.

        A device of that name that is not our end (the remains of an earlier guest) is removed first.
        """
        with closing(Netlink(dataplane)) as outside:
            ends = _read_ends(self._kernel)
            names = {nic.device: leg_name(nic.index, host) for nic in nics}
            missing = [device for device, leg in names.items() if not _are_peers(ends.get(leg), _find(outside, device))]
            _take(self._kernel, [_delete(ends[names[device]]) for device in missing if names[device] in ends])
            _take(outside, [_delete(end) for device in missing if (end := _find(outside, device))])
            _take(self._kernel, [_pair(names[device], device, dataplane, HIDDEN_MTU) for device in missing])
            namespaces.inside(dataplane, lambda: _disable_ipv6(list(names)))
            there = [_read_end(outside, device) for device in names]
            _take(outside, [*map(_silence, there), *map(_set_up, there)])
        ends = _read_ends(self._kernel)
        todo: list[_Step] = []
        with ExitStack() as held:
            for nic in nics:
                leg, inner = ends[leg_name(nic.index, host)], ends[f"nicp{nic.index}"]
                todo += [_set_mac(leg, nic.mac), _add_clsact(leg), *_redirect(leg, UNICAST, inner, held), _set_up(leg)]
            _take(self._kernel, todo)

    def flip(self, host: str, nics: Sequence[Nic]) -> float:
        """All traffic of the guest goes by this host's legs from now on: one batch. Returns how long it took, in ms."""
        ends = _read_ends(self._kernel)
        todo: list[_Step] = []
        with ExitStack() as held:
            for nic in nics:
                inner, to = ends[f"nicp{nic.index}"], ends[leg_name(nic.index, host)]
                todo += [step for leg in _legs(ends, nic.index) if leg != to for step in _stop_redirect(leg, GROUP)]
                todo += _redirect(inner, EVERY_FRAME, to, held) + _redirect(to, GROUP, inner, held)
            before = time.perf_counter()
            _take(self._kernel, todo)
            return (time.perf_counter() - before) * 1000

    def remove_legs(self, host: str | None, nics: Sequence[Nic]) -> None:
        """This host's ends are gone; with None, those of all hosts."""
        ends = _read_ends(self._kernel)
        legs = [leg for nic in nics for leg in _legs(ends, nic.index)]
        wanted = None if host is None else {leg_name(nic.index, host) for nic in nics}
        _take(self._kernel, [_delete(leg) for leg in legs if wanted is None or leg.name in wanted])


def raise_nics(guest_namespace: int, nics: Sequence[Nic]) -> None:
    """Brings eth<i> up in the guest, with quick duplicate address detection."""

    def quicken() -> None:
        for nic in nics:
            interval = Path(f"/proc/sys/net/ipv6/neigh/eth{nic.index}/retrans_time_ms")
            if interval.exists():
                interval.write_text(str(DAD_INTERVAL_MS))

    namespaces.inside(guest_namespace, quicken)
    with closing(Netlink(guest_namespace)) as inside:
        _take(inside, [_set_up(_read_end(inside, f"eth{nic.index}")) for nic in nics])


def remove_devices(dataplane: int, nics: Sequence[Nic]) -> None:
    """Removes the ends that a dead guest may have left in this data plane namespace."""
    with closing(Netlink(dataplane)) as outside:
        _take(outside, [_delete(end) for nic in nics if (end := _find(outside, nic.device))])


def device_names(namespace: int, among: Collection[str] | None = None) -> frozenset[str]:
    """Names of all devices in a namespace, or of those of `among` that it has."""
    with closing(Netlink(namespace)) as kernel:
        if among is not None and len(among) <= _FEW:
            return frozenset(name for name in among if _find(kernel, name) is not None)
        found = frozenset(_read_ends(kernel))
    return found if among is None else found.intersection(among)


def _take(kernel: Netlink, steps: Sequence[_Step]) -> None:
    """All steps in one batch; a refused one stops none. Raises NetlinkError that names the first."""
    for at, error in kernel.send([step.message for step in steps]):
        if error.errno not in steps[at].accept:
            raise NetlinkError(error.errno, f"cannot {steps[at].what}: {error.strerror}")


def _pair(name: str, peer: str, namespace: int, peer_mtu: int = HIDDEN_MTU, peer_mac: str = "") -> _Step:
    message = m.create_veth(name, HIDDEN_MTU, peer, peer_mtu, namespace, peer_mac)
    return _Step(message, f"make {name} with its peer {peer}")


def _set_up(end: _End) -> _Step:
    return _Step(m.set_up(end.index, True), f"bring {end.name} up")


def _silence(end: _End) -> _Step:
    return _Step(m.quieten(end.index), f"silence {end.name}", _NO_IPV6)


def _set_mac(end: _End, mac: str) -> _Step:
    return _Step(m.set_mac(end.index, mac), f"give {end.name} its MAC")


def _delete(end: _End) -> _Step:
    return _Step(m.delete_link(end.index), f"remove {end.name}", frozenset({errno.ENODEV}))


def _add_clsact(end: _End) -> _Step:
    return _Step(m.ensure_clsact(end.index), f"add clsact to {end.name}", frozenset({errno.EEXIST}))


@cache
def hands_over() -> bool:
    """Whether redirects are programs, which cost less and save what is for the guest a queue; else u32 and mirred.
    Tried once in a process."""
    try:
        programs.attempt()
    except OSError:
        return False
    return True


def _redirect(end: _End, match: Match, to: _End, held: ExitStack) -> list[_Step]:
    """By the way that this process takes, instead of the other one. What is in `held` is needed until it is so."""
    what = f"redirect {end.name} to {to.name}"
    if not hands_over():
        put = m.put_redirect(end.index, [match.word], to.index, priority=_MIRRED, handle=_handle(match))
        return [_Step(put, what), _drop(end, match, _PROGRAM)]
    program = programs.load(to.index, match.sent, match.handed)
    held.callback(os.close, program)
    put = m.put_program(end.index, program, f"to {to.name}", priority=_PROGRAM, handle=_handle(match))
    return [_Step(put, what), _drop(end, match, _MIRRED)]


def _stop_redirect(end: _End, match: Match) -> list[_Step]:
    """What it matched then ends at the device, where nobody listens."""
    return [_drop(end, match, priority) for priority in (_MIRRED, _PROGRAM)]


def _drop(end: _End, match: Match, priority: int) -> _Step:
    message = m.drop_filter(end.index, _handle(match), priority=priority)
    return _Step(message, f"remove a redirect of {end.name}", _ABSENT)


def _handle(match: Match) -> int:
    """A node of u32's first table; programs may have any."""
    return 0x80000800 | match.node


def _read_ends(kernel: Netlink) -> dict[str, _End]:
    """All devices of the socket's namespace, by name."""
    found = map(_end, kernel.dump(m.RTM_GETLINK, m.list_links()))
    return {end.name: end for end in found}


def _read_end(kernel: Netlink, name: str) -> _End:
    try:
        return _end(kernel.get(m.RTM_GETLINK, m.get_link(name)))
    except NetlinkError as error:
        raise NetlinkError(error.errno, f"cannot find {name}: {error.strerror}") from error


def _find(kernel: Netlink, name: str) -> _End | None:
    try:
        return _read_end(kernel, name)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _end(body: bytes) -> _End:
    (index,) = struct.unpack_from("=i", body, 4)
    found = parse(body, 16)
    return _End(index, string(found[m.IFLA_IFNAME]), number(found[m.IFLA_LINK]) if m.IFLA_LINK in found else 0)


def _legs(ends: dict[str, _End], index: int) -> list[_End]:
    return [end for name, end in ends.items() if name.startswith(f"leg{index}-")]


def _are_peers(one: _End | None, other: _End | None) -> bool:
    return one is not None and other is not None and one.peer == other.index and other.peer == one.index


def _disable_ipv6(devices: Sequence[str]) -> None:
    for device in devices:
        switch = Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")
