"""A kernel in memory: the double of `overlay.kernel.apply.DataPlane`. Touches nothing outside itself.

It stands under the same convergence and the same judgement of refusals, takes each step in the same calls, and lets go
wrong at each of them what a plan of faults says. The same suite runs against both
(tests/overlay/test_kernel_conformance.py).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, NoReturn, TypeVar

from overlay import ops as do
from overlay.diff import is_port_device, network_ids
from overlay.kernel.converge import Convergence, OpError
from overlay.kernel.drift import Left
from overlay.kernel.faults import Call, FailAfter, Fault, Interrupt, Meddle, Refuse
from overlay.kernel.monitor import Heard
from overlay.kernel.netlink import DUMPS, NetlinkError
from overlay.kernel.refusals import Refusals
from overlay.ops import Op
from overlay.parts import Focus, within
from overlay.state import NetworkId, PortId, bridge_device, leg_device, port_device, vxlan_device
from overlay.topology import LegEnd, Link, Neighbour, ObservedState, PortFlags, Tables

_T = TypeVar("_T")

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
        self._indexes: dict[str, int] = {}
        self._made = 0
        self._legs: dict[str, tuple[str, str]] = {}
        self._doomed: list[str] = []
        self._events = threading.Lock()
        """Of what waits and was heard: one thread waits for events while others plug and converge."""
        self._waiting = Heard()
        self._heard = Heard()
        self.faults: Sequence[Fault] = ()
        """What goes wrong from now on. Calls are counted from the last `restart`."""
        self.restart()
        self.after_call: Callable[[], object] = lambda: None
        """Called after each call that was done."""

    def restart(self) -> None:
        """Counts calls anew."""
        self.calls: list[Call] = []
        self.looked_at = 0
        """The first call of the last look."""
        self.struck_at = -1
        """The last call at which a fault happened."""
        self._counts: Counter[str] = Counter()

    def plug(self, name: str, kind: str = "veth", *, in_host: bool = False, idle: bool = False) -> None:
        """A device appears, up, as a workspace driver or a hypervisor makes it. idle: a tap that nobody has open."""
        (self.host if in_host else self.links)[name] = Link(kind, mtu=1500, quiet=False, idle=idle)
        self._indexes.pop(name, None)
        self._tell(name)

    def hold(self, name: str, is_open: bool) -> None:
        """A tap is opened by somebody, or let go."""
        where = self.host if name in self.host else self.links
        where[name] = replace(where[name], idle=not is_open)
        self._tell(name)

    def unplug(self, name: str) -> None:
        """A device vanishes, with all that hangs on it."""
        self.host.pop(name, None)
        if name in self.links:
            self._delete(name)
        self._tell(name)

    def _tell(self, name: str) -> None:
        told = Heard(ports=frozenset({PortId(name[2:])})) if is_port_device(name) else Heard(everything=True)
        with self._events:
            self._waiting |= told

    def wait_event(self, timeout_s: float | None = None) -> bool:
        """Whether something changed since the last look; never waits."""
        with self._events:
            waiting, self._waiting = self._waiting, Heard()
            self._heard |= waiting
        return bool(waiting)

    def heard(self) -> Heard:
        """What the changes that `wait_event` told of since the last call were about."""
        with self._events:
            heard, self._heard = self._heard, Heard()
        return heard

    def is_quiet(self) -> bool:
        """Whether nothing has changed but what was looked at or heard of."""
        with self._events:
            return not (self._waiting or self._heard)

    def forget_events(self, focus: Focus | None = None, devices: Collection[str] = ()) -> None:
        seen = {PortId(name[2:]) for name in devices}
        with self._events:
            self._waiting = Heard() if focus is None else replace(self._waiting, ports=self._waiting.ports - seen)

    def ensure(self) -> int:
        return self._call("ensure", "", lambda: 0)

    def is_open(self) -> bool:
        return True

    def indexes(self) -> Mapping[str, int]:
        for name in self._indexes.keys() - self.links.keys():
            del self._indexes[name]
        for name in self.links.keys() - self._indexes.keys():
            self._made += 1
            self._indexes[name] = self._made
        return self._indexes

    def observe(self, focus: Focus | None = None, devices: Iterable[str] = ()) -> ObservedState:
        """All of it, or only what a focus names and these devices. List by list: between two of them things happen."""
        self.looked_at = len(self.calls)
        parts = {id: part for id, part in focus.items() if part is not None} if focus is not None else {}
        whole = focus.keys() - parts.keys() if focus is not None else None
        links = self._call("list_links", "", lambda: dict(self.links))
        host = self._call("list_links", "host", lambda: frozenset(self._adoptable()))
        ids = network_ids(links)
        if focus is not None:
            bridges = {bridge_device(id) for id in focus.keys() - parts.keys()}
            named = {*devices, *(f(id) for id in focus for f in (bridge_device, vxlan_device))}
            named |= {leg_device(id) for id in focus.keys() - parts.keys()}
            named |= {port_device(port) for part in parts.values() for port in part.ports}
            links = {name: link for name, link in links.items() if name in named or link.master in bridges}
            host, ids = host & named, set(focus)
        fdb = self._call("list_fdb", "", lambda: {id: self._tables(id) for id in ids})
        near = self._call("list_neighbours", "", lambda: {id: self._tables(id).neighbours for id in ids})
        tables = {}
        for id in sorted(ids):
            found = replace(fdb[id], neighbours=near[id], chases=frozenset())
            if (id not in parts or parts[id].chases) and vxlan_device(id) in links:
                tunnel = vxlan_device(id)
                chases = self._call("list_filters", tunnel, lambda n=tunnel: frozenset(self._of(n).chases))  # type: ignore[misc]
                found = replace(found, chases=chases)
            tables[id] = replace(within(found, parts[id]), floods=frozenset()) if id in parts else found
        services: Mapping[str, Mapping[str, LegEnd]] = {}
        if whole is None or whole:
            services = self._call("list_services", "", lambda: {n: dict(ends) for n, ends in self.services.items()})
        return ObservedState(links, tables, host, services)

    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        refusals = Refusals()
        self._doomed.clear()
        for op, after in zip_longest(ops, ops[1:]):
            if refusals.bars(op):
                continue
            try:
                self._take(op, refusals)
                if isinstance(op, do.DeleteLink) and not op.namespace and not isinstance(after, do.DeleteLink):
                    self._send(refusals, op, ("delete_doomed", "", self._bury))
                self.applied.append(op)
            except OSError as error:
                refusals.note(op, error)
        return refusals.errors

    def _call(self, kind: str, device: str, effect: Callable[[], _T]) -> _T:
        """One call to the kernel, with what the faults make of it."""
        number, self._counts[kind] = self._counts[kind], self._counts[kind] + 1
        at = len(self.calls)
        self.calls.append(Call(kind, device))
        due = [
            fault.what
            for fault in self.faults
            if fault.nth == (number if fault.kind else at) and fault.kind in ("", kind)
        ]
        failing = 0
        for what in due:
            self.struck_at = at
            match what:
                case Meddle():
                    what.edit(self)
                case Interrupt() if what.times >= DUMPS:
                    _fail(errno.EINTR)
                case Refuse():
                    _fail(what.errno)
                case FailAfter():
                    failing = what.errno
        result = effect()
        self.after_call()
        if failing:
            _fail(failing)
        return result

    def _send(self, refusals: Refusals, op: Op, *messages: tuple[str, str, Callable[[], object]]) -> None:
        """Messages of one step in a batch: one that is refused stops no other."""
        for kind, device, effect in messages:
            try:
                self._call(kind, device, effect)
            except OSError as error:
                refusals.note(op, error)

    def remove(self) -> None:
        """Gives adopted devices back and drops all else."""
        for name, link in list(self.links.items()):
            if link.adopted:
                self._give_back(name)
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

    def _take(self, op: Op, refusals: Refusals) -> None:
        """The calls of one step, as `overlay.kernel.batch` makes them."""
        match op:
            case do.CreateNamespace():
                self._call("create_namespace", op.name, lambda: self._create_service(op.name))
            case do.RemoveNamespace():
                self._call("remove_namespace", op.name, lambda: self._remove_service(op.name))
            case do.CreateBridge():
                new = Link("bridge", up=False, mtu=1500, quiet=False)
                self._call("create_bridge", op.name, lambda: self.links.setdefault(op.name, new))
                self._send(refusals, op, self._setting("set_mtu", op.name, mtu=op.mtu))
                self._send(refusals, op, self._setting("quieten", op.name, quiet=True))
            case do.CreateVxlan():
                new = Link("vxlan", up=False, mtu=op.mtu, tunnel=op.tunnel, quiet=False)
                self._call("create_vxlan", op.name, lambda: self.links.setdefault(op.name, new))
                self._send(refusals, op, self._setting("quieten", op.name, quiet=True))
                self._send(refusals, op, ("ensure_clsact", op.name, lambda: self._link(op.name)))
            case do.CreateLeg():
                self._call("open_namespace", op.namespace, lambda: self._service(op.namespace))
                self._call("create_veth", op.name, lambda: self._create_leg(op))
                self._send(refusals, op, self._setting("quieten", op.name, quiet=True))
            case do.Adopt():
                self._call("move_link", op.name, lambda: self._adopt(op.name))
                self._send(refusals, op, self._setting("quieten", op.name, quiet=True))
            case do.GiveBack():
                self._call("move_link", op.name, lambda: self._give_back(op.name))
            case do.Attach():
                self._send(
                    refusals,
                    op,
                    ("set_master", op.name, lambda: self._attach(op.name, op.bridge)),
                    ("set_flags", op.name, lambda: self._set_flags(op.name, op.flags)),
                )
            case do.PutChase():
                if op.mac not in self._holding(op.name).chases:
                    self._send(refusals, op, ("ensure_clsact", op.name, lambda: self._link(op.name)))
                    self._send(refusals, op, ("put_chase", op.name, lambda: self._change(op)))
            case do.DropChase():
                if op.mac in self._holding(op.name).chases:
                    self._send(refusals, op, ("drop_chase", op.name, lambda: self._change(op)))
            case do.DeleteLink(namespace=""):
                self._send(refusals, op, ("doom_link", op.name, lambda: self._doom(op.name)))
            case do.SetUp() | do.SetMtu() | do.DeleteLink() | do.SetMac() | do.PutAddress() | do.DropAddress() if (
                op.namespace
            ):
                ends = self._call("open_namespace", op.namespace, lambda: self._service(op.namespace))
                kind = "delete_link" if isinstance(op, do.DeleteLink) else _word(op)
                self._call(kind, op.name, lambda: self._set_end(ends, op))
            case _:
                self._send(refusals, op, (_word(op), op.name, lambda: self._change(op)))

    def _change(self, op: Op) -> None:
        """What one message does to one device or its entries."""
        match op:
            case do.PutTunnelEntry():
                self._holding(op.name).tunnel[op.mac] = op.vtep
            case do.DropTunnelEntry():
                self._holding(op.name).tunnel.pop(op.mac, None)
            case do.PutFlood():
                self._holding(op.name).floods.add(op.vtep)
            case do.DropFlood():
                self._holding(op.name).floods.discard(op.vtep)
            case do.PutChase():
                self._holding(op.name).chases.add(op.mac)
            case do.DropChase():
                self._holding(op.name).chases.discard(op.mac)
            case do.PutNeighbour():
                self._holding(op.name).neighbours[op.address] = Neighbour(op.mac, op.router)
            case do.DropNeighbour():
                self._holding(op.name).neighbours.pop(op.address, None)
            case do.PutForwarding():
                self._of(self._port(op.name).master).forwarding[op.mac] = op.name
            case do.DropForwarding():
                entries = self._of(self._link(op.name).master)
                if entries.forwarding.get(op.mac) == op.name:
                    del entries.forwarding[op.mac]
            case do.Detach():
                self._link(op.name)
                self._detach(op.name)
            case do.SetFlags():
                self._set_flags(op.name, op.flags)
            case do.SetMtu():
                self._set(op.name, mtu=op.mtu)
            case do.Quieten():
                self._set(op.name, quiet=True)
            case do.DisableSnooping():
                self._set(op.name, snooping=False)
            case do.SetUp():
                self._set(op.name, up=True)
            case do.SetDown():
                self._set(op.name, up=False)

    def _setting(self, kind: str, name: str, **changes: Any) -> tuple[str, str, Callable[[], object]]:
        return kind, name, lambda: self._set(name, **changes)

    def _set(self, name: str, **changes: Any) -> None:
        self.links[name] = replace(self._link(name), **changes)

    def _set_flags(self, name: str, flags: PortFlags) -> None:
        self.links[name] = replace(self._port(name), flags=flags)

    def _attach(self, name: str, bridge: str) -> None:
        self._link(bridge)
        if self._link(name).master != bridge:
            self._detach(name)
            self._set(name, master=bridge, flags=NEW_PORT)

    def _adoptable(self) -> Iterator[str]:
        return (name for name, link in self.host.items() if is_port_device(name) and not link.idle)

    def _adopt(self, name: str) -> None:
        if name not in self.host:
            _fail(errno.ENODEV)
        self.links[name] = replace(self.host.pop(name), up=False, adopted=True)

    def _give_back(self, name: str) -> None:
        if link := self.links.get(name):
            self._detach(name)
            del self.links[name]
            self.host[name] = replace(link, up=True, master="", flags=None, adopted=False)

    def _doom(self, name: str) -> None:
        self._link(name)
        self._doomed.append(name)

    def _bury(self) -> None:
        for name in self._doomed:
            if name in self.links:  # a veth goes with its other end
                self._delete(name)
        self._doomed.clear()

    def _create_service(self, name: str) -> None:
        if name in self.foreign:
            raise FileExistsError(errno.EEXIST, "a network namespace of this name exists that is not ours", name)
        self.services.setdefault(name, {})

    def _remove_service(self, name: str) -> None:
        for device in self.services.pop(name, {}):
            self._delete_end(name, device)

    def _create_leg(self, op: do.CreateLeg) -> None:
        ends = self._service(op.namespace)
        if op.name in self.links or op.peer in ends:
            _fail(errno.EEXIST)
        self.links[op.name] = Link("veth", up=False, mtu=op.mtu, quiet=False)
        ends[op.peer] = LegEnd(op.mac, op.mtu, False, frozenset())
        self._legs[op.name] = (op.namespace, op.peer)

    def _set_end(self, ends: dict[str, LegEnd], op: Op) -> None:
        if op.name not in ends:
            _fail(errno.ENODEV)
        match op:
            case do.SetUp():
                ends[op.name] = replace(ends[op.name], up=True)
            case do.SetMtu():
                ends[op.name] = replace(ends[op.name], mtu=op.mtu)
            case do.SetMac():
                ends[op.name] = replace(ends[op.name], mac=op.mac)
            case do.PutAddress():
                ends[op.name] = replace(ends[op.name], addresses=ends[op.name].addresses | {op.address})
            case do.DropAddress():
                ends[op.name] = replace(ends[op.name], addresses=ends[op.name].addresses - {op.address})
            case do.DeleteLink():
                del ends[op.name]
                self._delete_end(op.namespace, op.name)

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
        self._indexes.pop(name, None)
        del self.links[name]
        if leg := self._legs.pop(name, None):
            namespace, device = leg
            self.services.get(namespace, {}).pop(device, None)

    def _delete_end(self, namespace: str, device: str) -> None:
        for name in [name for name, leg in self._legs.items() if leg == (namespace, device)]:
            self._legs.pop(name)
            self._delete(name)


def _word(op: Op) -> str:
    """The name of the message that a step of one message is."""
    match op:
        case do.SetDown():
            return "set_up"
        case do.Detach():
            return "set_master"
        case _:
            return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(op).__name__)[1:]


def _fail(number: int) -> NoReturn:
    raise NetlinkError(number, os.strerror(number))
