"""A kernel in memory: the double of `overlay.kernel.apply.DataPlane`. Touches nothing outside itself.

The same suite runs against both (tests/overlay/test_kernel_conformance.py).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from overlay import ops as do
from overlay.diff import is_port_device, network_ids
from overlay.kernel.converge import Convergence, OpError
from overlay.kernel.drift import Left
from overlay.ops import Op
from overlay.parts import Focus, within
from overlay.state import NetworkId, bridge_device, leg_device, port_device, vxlan_device
from overlay.topology import LegEnd, Link, Neighbour, ObservedState, PortFlags, Tables

NEW_PORT = PortFlags(learning=True, unicast_flood=True)
"""What Linux gives a new bridge port (net/bridge/br_if.c, `new_nbp`)."""


@dataclass(slots=True)
class _Entries:
    """What hangs on one bridge or VXLAN device."""

    forwarding: dict[str, str] = field(default_factory=dict)
    neighbours: dict[str, Neighbour] = field(default_factory=dict)
    tunnel: dict[str, str] = field(default_factory=dict)
    floods: set[str] = field(default_factory=set)
    chases: set[str] = field(default_factory=set)


class MemoryDataPlane(Convergence):
    """Holds devices, entries and namespaces as Linux does: what hangs on a device goes with it.

    `links`, `host` and `foreign` are for the test to change as somebody else would: by `plug`, `unplug`, or directly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, Link] = {}
        self.host: dict[str, Link] = {}
        self.services: dict[str, dict[str, LegEnd]] = {}
        self.foreign: set[str] = set()
        """Names of network namespaces that are somebody else's."""
        self.applied: list[Op] = []
        """Every step ever taken, in order."""
        self._entries: dict[str, _Entries] = {}
        self._legs: dict[str, tuple[str, str]] = {}
        self._changed = False

    def plug(self, name: str, kind: str = "veth", *, in_host: bool = False) -> None:
        """A device appears, up, as a workspace driver or a hypervisor makes it."""
        (self.host if in_host else self.links)[name] = Link(kind, mtu=1500)
        self._changed = True

    def unplug(self, name: str) -> None:
        """A device vanishes, with all that hangs on it."""
        self.host.pop(name, None)
        if name in self.links:
            self._delete(name)
        self._changed = True

    def wait_event(self, timeout_s: float | None = None) -> bool:
        """Whether something changed since the last look; never waits."""
        changed, self._changed = self._changed, False
        return changed

    def forget_events(self, focus: Focus | None = None, devices: Collection[str] = ()) -> None:
        self._changed = False

    def ensure(self) -> int:
        return 0

    def is_open(self) -> bool:
        return True

    def observe(self, focus: Focus | None = None, devices: Iterable[str] = ()) -> ObservedState:
        """All of it, or only what a focus names and these devices."""
        ids = network_ids(self.links)
        services = {name: dict(ends) for name, ends in self.services.items()}
        host_ports = frozenset(filter(is_port_device, self.host))
        if focus is None:
            return ObservedState(dict(self.links), {id: self._tables(id) for id in ids}, host_ports, services)
        parts = {id: part for id, part in focus.items() if part is not None}
        whole = focus.keys() - parts.keys()
        bridges = {bridge_device(id) for id in whole}
        named = {*devices, *(f(id) for id in focus for f in (bridge_device, vxlan_device))}
        named |= {leg_device(id) for id in whole}
        named |= {port_device(port) for part in parts.values() for port in part.ports}
        return ObservedState(
            links={name: link for name, link in self.links.items() if name in named or link.master in bridges},
            tables={
                id: self._tables(id) if part is None else replace(within(self._tables(id), part), floods=frozenset())
                for id, part in focus.items()
            },
            host_ports=host_ports & named,
            services=services if whole else {},
        )

    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        errors = []
        for op in ops:
            try:
                self._take(op)
                self.applied.append(op)
            except OSError as error:
                errors.append(OpError(op, error.errno or 0, f"{error.strerror} ({errno.errorcode[error.errno or 0]})"))
        return errors

    def remove(self) -> None:
        """Gives adopted devices back and drops all else."""
        for name, link in list(self.links.items()):
            if link.adopted:
                self._take(do.GiveBack(name))
        self.links.clear()
        self.services.clear()
        self._entries.clear()
        self._legs.clear()
        self._left = Left()

    def _tables(self, network: NetworkId) -> Tables:
        bridge, tunnel = self._of(bridge_device(network)), self._of(vxlan_device(network))
        return Tables(
            forwarding=dict(bridge.forwarding),
            tunnel=dict(tunnel.tunnel),
            floods=frozenset(tunnel.floods),
            neighbours=dict(bridge.neighbours),
            chases=frozenset(tunnel.chases),
        )

    def _take(self, op: Op) -> None:
        match op:
            case do.CreateNamespace():
                if op.name in self.foreign:
                    _fail(errno.EEXIST)
                self.services.setdefault(op.name, {})
            case do.RemoveNamespace():
                for device in self.services.pop(op.name, {}):
                    self._delete_end(op.name, device)
            case do.CreateBridge():
                self._create(op.name, Link("bridge", up=False, mtu=op.mtu))
            case do.CreateVxlan():
                self._create(op.name, Link("vxlan", up=False, mtu=op.mtu, tunnel=op.tunnel))
            case do.CreateLeg():
                ends = self._service(op.namespace)
                if op.name not in self.links and op.peer not in ends:
                    self.links[op.name] = Link("veth", up=False, mtu=op.mtu)
                    ends[op.peer] = LegEnd(op.mac, op.mtu, False, frozenset())
                    self._legs[op.name] = (op.namespace, op.peer)
            case do.DeleteLink(namespace=""):
                if op.name in self.links:
                    self._delete(op.name)
            case do.DeleteLink():
                if self.services.get(op.namespace, {}).pop(op.name, None):
                    self._delete_end(op.namespace, op.name)
            case do.Adopt():
                if op.name not in self.host:
                    _fail(errno.ENODEV)
                self.links[op.name] = replace(self.host.pop(op.name), up=False, adopted=True, quiet=True)
            case do.GiveBack():
                if link := self.links.get(op.name):
                    self._detach(op.name)
                    del self.links[op.name]
                    self.host[op.name] = replace(link, up=True, master="", flags=None, adopted=False)
            case do.PutTunnelEntry():
                self._holding(op.name).tunnel[op.mac] = op.vtep
            case do.DropTunnelEntry():
                self._of(op.name).tunnel.pop(op.mac, None)
            case do.PutFlood():
                self._holding(op.name).floods.add(op.vtep)
            case do.DropFlood():
                self._of(op.name).floods.discard(op.vtep)
            case do.PutChase():
                self._holding(op.name).chases.add(op.mac)
            case do.DropChase():
                self._of(op.name).chases.discard(op.mac)
            case do.PutNeighbour():
                self._holding(op.name).neighbours[op.address] = Neighbour(op.mac, op.router)
            case do.DropNeighbour():
                self._of(op.name).neighbours.pop(op.address, None)
            case do.PutForwarding():
                self._of(self._port(op.name).master).forwarding[op.mac] = op.name
            case do.DropForwarding():
                if link := self.links.get(op.name):
                    entries = self._of(link.master)
                    if entries.forwarding.get(op.mac) == op.name:
                        del entries.forwarding[op.mac]
            case _:
                self._set(op)

    def _set(self, op: Op) -> None:
        """Steps that change one device."""
        match op:
            case do.Attach():
                self._link(op.bridge)
                link = self._link(op.name)
                self._detach(op.name)
                self.links[op.name] = replace(link, master=op.bridge, flags=op.flags)
            case do.Detach():
                if op.name in self.links:
                    self._detach(op.name)
            case do.SetFlags():
                self.links[op.name] = replace(self._port(op.name), flags=op.flags)
            case do.SetMtu(namespace=""):
                self.links[op.name] = replace(self._link(op.name), mtu=op.mtu)
            case do.Quieten():
                self.links[op.name] = replace(self._link(op.name), quiet=True)
            case do.DisableSnooping():
                self.links[op.name] = replace(self._link(op.name), snooping=False)
            case do.SetUp(namespace=""):
                self.links[op.name] = replace(self._link(op.name), up=True)
            case do.SetDown():
                self.links[op.name] = replace(self._link(op.name), up=False)
            case do.SetUp():
                self._set_end(op.namespace, op.name, up=True)
            case do.SetMtu():
                self._set_end(op.namespace, op.name, mtu=op.mtu)
            case do.SetMac():
                self._set_end(op.namespace, op.name, mac=op.mac)
            case do.PutAddress():
                self._set_end(op.namespace, op.name, add=op.address)
            case do.DropAddress():
                if op.name in self.services.get(op.namespace, {}):
                    self._set_end(op.namespace, op.name, drop=op.address)

    def _create(self, name: str, link: Link) -> None:
        self.links.setdefault(name, link)

    def _link(self, name: str) -> Link:
        if name not in self.links:
            _fail(errno.ENODEV)
        return self.links[name]

    def _port(self, name: str) -> Link:
        link = self._link(name)
        if not link.master:
            _fail(errno.EOPNOTSUPP)
        return link

    def _of(self, name: str) -> _Entries:
        return self._entries.setdefault(name, _Entries()) if name in self.links else _Entries()

    def _holding(self, name: str) -> _Entries:
        self._link(name)
        return self._of(name)

    def _service(self, name: str) -> dict[str, LegEnd]:
        if name not in self.services:
            _fail(errno.ENOENT)
        return self.services[name]

    def _set_end(
        self,
        namespace: str,
        name: str,
        *,
        up: bool | None = None,
        mtu: int | None = None,
        mac: str = "",
        add: str = "",
        drop: str = "",
    ) -> None:
        ends = self._service(namespace)
        if name not in ends:
            _fail(errno.ENODEV)
        end = ends[name]
        ends[name] = LegEnd(
            mac or end.mac,
            mtu or end.mtu,
            end.up if up is None else up,
            (end.addresses | {add} - {""}) - {drop},
        )

    def _detach(self, name: str) -> None:
        link = self.links[name]
        if link.master:
            entries = self._of(link.master)
            entries.forwarding = {mac: port for mac, port in entries.forwarding.items() if port != name}
        self.links[name] = replace(link, master="", flags=None)

    def _delete(self, name: str) -> None:
        for other in [other for other, link in self.links.items() if link.master == name]:
            self._detach(other)
        self._detach(name)
        self._entries.pop(name, None)
        del self.links[name]
        if leg := self._legs.pop(name, None):
            namespace, device = leg
            self.services.get(namespace, {}).pop(device, None)

    def _delete_end(self, namespace: str, device: str) -> None:
        for name in [name for name, leg in self._legs.items() if leg == (namespace, device)]:
            self._legs.pop(name)
            self._delete(name)


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))
