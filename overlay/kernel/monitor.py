"""Owns the sockets that hear of changes: devices, FDB, neighbours and filters of a data plane, ports in the host.

Says what to look at, never what is there now: a look at the kernel tells, and a lost message then matters no more than
a late one.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from overlay.diff import is_port_device, network_ids
from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink, parse, split, string
from overlay.parts import Focus, Part
from overlay.state import NetworkId, PortId, bridge_device, leg_device, port_device, vxlan_device

_LINK, _NEIGH, _TC = 1, 3, 4
_INDEX = struct.Struct("=i")
_NDMSG = struct.Struct("=B3xiHBB")

_EVERYTHING = (0, "")
_LOST = 0
"""Type of what stands for messages that were lost."""

_SHARED = (bridge_device, vxlan_device, leg_device)

_KEPT = 8192
"""Events that wait at most; more than that are a look at everything."""

Spot = tuple[int | str, str]
"""Where something changed. First the device: its index, a port's name, 0 for anywhere. Then what about it: the address
of an FDB or neighbour entry, `local` for the entries that a bridge makes by itself, `filter`, or empty for the device
itself."""

_Event = tuple[Netlink, int, bytes]


@dataclass(frozen=True, slots=True)
class Heard:
    """What events told to look at. ports: whose devices came, went or changed. networks: whose anything else did."""

    everything: bool = False
    networks: frozenset[NetworkId] = frozenset()
    ports: frozenset[PortId] = frozenset()

    def __bool__(self) -> bool:
        return self.everything or bool(self.networks or self.ports)

    def __or__(self, other: Heard) -> Heard:
        return Heard(self.everything or other.everything, self.networks | other.networks, self.ports | other.ports)


class Monitor:
    """Its descriptor can be polled or given to an event loop; it is readable until `take` or `forget` has read all."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._kept = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._kept, select.EPOLLIN)
        self._waiting: list[_Event] = []
        """Socket, type and body of each message: most are our own doing and forgotten without having been read."""
        self._host: Netlink | None = None
        self._plane: Netlink | None = None

    def fileno(self) -> int:
        return self._poll.fileno()

    def watch_host(self, namespace: int) -> None:
        """Hears of port devices that come and go in the host's namespace."""
        self._host = self._watch(namespace, [_LINK])

    def watch_plane(self, namespace: int) -> None:
        """Hears of everything in the data plane namespace."""
        self.forget_plane()
        self._plane = self._watch(namespace, [_LINK, _NEIGH, _TC])

    def forget_plane(self) -> None:
        if self._plane is not None:
            self._poll.unregister(self._plane.socket)
            self._plane.close()
            self._plane = None

    def close(self) -> None:
        self.forget_plane()
        if self._host is not None:
            self._host.close()
        self._poll.close()
        os.close(self._kept)

    def poll(self, timeout_s: float | None = None) -> bool:
        """Waits until there may be something to take."""
        return bool(self._poll.poll(timeout_s))

    def take(self) -> list[Spot]:
        """Where anything changed; it is forgotten with this call."""
        self._read()
        spots = [spot for spot in map(self._spot, self._waiting) if spot is not None]
        self._keep([])
        return list(dict.fromkeys(spots))

    def drop(self) -> None:
        """Forgets all that was heard so far."""
        self._read()
        self._keep([])

    def forget(self, focus: Focus, devices: Collection[str], indexes: Mapping[str, int]) -> None:
        """Forgets what was heard so far of what a look at a focus and these devices will show; the rest stays.

        indexes: of devices by name, as far as they are known.
        """
        self._read()
        if not self._waiting:
            return
        names = {f(id) for id, part in focus.items() if part is None for f in _SHARED} | set(devices)
        whole: set[int | str] = {*names, *(indexes[name] for name in names if name in indexes)}
        spots: set[Spot] = set()
        for id, part in focus.items():
            if part is not None:
                spots |= _shown(id, part, indexes)
        self._keep(
            [
                event
                for event in self._waiting
                if (spot := self._spot(event)) is not None and spot not in spots and spot[0] not in whole
            ]
        )

    def _keep(self, waiting: list[_Event]) -> None:
        self._waiting = waiting
        if waiting:
            os.eventfd_write(self._kept, 1)
        else:
            try:
                os.eventfd_read(self._kept)
            except BlockingIOError:
                return

    def _watch(self, namespace: int, groups: list[int]) -> Netlink:
        link = Netlink(namespace, groups)
        link.socket.setblocking(False)
        self._poll.register(link.socket, select.EPOLLIN)
        return link

    def _read(self) -> None:
        for link in (self._plane, self._host):
            if link is not None:
                self._waiting += [(link, kind, body) for kind, body in _messages(link.socket)]
        if len(self._waiting) > _KEPT and self._plane is not None:
            self._waiting = [(self._plane, _LOST, b"")]

    def _spot(self, event: _Event) -> Spot | None:
        """None: it tells of nothing that we look at."""
        link, kind, body = event
        if kind == _LOST:
            return _EVERYTHING
        if kind in (m.RTM_NEWLINK, m.RTM_DELLINK):
            name = parse(body, 16).get(m.IFLA_IFNAME)
            if name is not None and is_port_device(string(name)):
                return string(name), ""
            return (_INDEX.unpack_from(body, 4)[0], "") if link is self._plane else None
        if kind in (m.RTM_NEWNEIGH, m.RTM_DELNEIGH):
            return _entry(body)
        return _INDEX.unpack_from(body, 4)[0], "filter"


def resolve(spots: Iterable[Spot], indexes: Mapping[str, int], home: Callable[[str], str]) -> Heard:
    """What to look at. indexes: of devices by name. home: the bridge that a port's device was in, or empty."""
    names = {index: name for name, index in indexes.items()}
    everything, networks, ports = False, set(), set()
    for device, what in spots:
        name = device if isinstance(device, str) else names.get(device, "")
        if is_port_device(name) and not what:
            ports.add(PortId(name[2:]))
        elif found := network_ids([home(name) if is_port_device(name) else name]):
            networks |= found
        else:
            everything = True
    return Heard(everything, frozenset(networks), frozenset(ports))


def _shown(id: NetworkId, part: Part, indexes: Mapping[str, int]) -> set[Spot]:
    """The spots that a look at a part shows."""
    bridge, tunnel = (indexes.get(f(id), -1) for f in (bridge_device, vxlan_device))
    ports = [port_device(port) for port in part.ports]
    spots: set[Spot] = {(bridge, ""), (tunnel, ""), *((name, "") for name in ports)}
    known = [tunnel, *(indexes[name] for name in ports if name in indexes)]
    spots.update((index, what) for index in known for what in (*part.macs, "local"))
    spots.update((bridge, address) for address in part.addresses)
    spots.update((tunnel, f"flood {vtep}") for vtep in part.vteps)
    return spots | ({(tunnel, "filter")} if part.chases else set())


def _entry(body: bytes) -> Spot:
    family, index, state, _, _ = _NDMSG.unpack_from(body)
    found = parse(body, 12)
    raw, to = found.get(m.NDA_LLADDR), found.get(m.NDA_DST)
    if family != m.AF_BRIDGE:
        return index, socket.inet_ntop(family, to) if to is not None else ""
    mac = bytes(raw).hex(":") if raw is not None else ""
    if mac == m.FLOOD_MAC and to is not None:
        return index, f"flood {socket.inet_ntop(socket.AF_INET if len(to) == 4 else socket.AF_INET6, to)}"
    return index, "local" if m.NDA_MASTER in found and state & m.NUD_PERMANENT else mac


def _messages(channel: socket.socket) -> list[tuple[int, bytes]]:
    """Type and body of all that waits. Type 0 stands for what the kernel could not keep."""
    found: list[tuple[int, bytes]] = []
    while True:
        try:
            found += [(kind, body) for kind, _, _, body in split(channel.recv(1 << 17))]
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found.append((_LOST, b""))
