"""Takes the steps of `overlay.ops` into the kernel, in order and in as few messages as it can. Decides nothing."""

from __future__ import annotations

import errno
import os
import secrets

from overlay import ops as do
from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.converge import OpError
from overlay.kernel.netlink import Message, Netlink
from overlay.kernel.observe import Reader, read_link
from overlay.kernel.refusals import GUARDS, Refusals
from overlay.kernel.services import Services
from overlay.ops import Op
from overlay.topology import ADOPTED

Place = tuple[int, Netlink]
"""A namespace's descriptor, and a socket in it."""


class Batch:
    """Steps on their way into the kernel: messages for one socket wait together until another socket's turn comes."""

    def __init__(self, plane: Place, host: Place, reader: Reader, services: Services) -> None:
        self._fd, self._plane = plane
        self._host_fd, self._host = host
        self._reader = reader
        self._services = services
        self._waiting: list[tuple[Op, Message]] = []
        self._doomed: do.DeleteLink | None = None
        self._group = 0
        self._raised: list[str] = []
        self._refusals = Refusals()
        self._kinds: set[type[Op]] = set()
        """What kinds of steps wait."""

    @property
    def errors(self) -> list[OpError]:
        return self._refusals.errors

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        # A carrier counts once the kernel's link watch has run, up to 1 s later; since Linux 6.8 a look makes it run.
        for name in self._raised:
            read_link(self._plane, name)

    def add(self, op: Op) -> None:
        """Takes one step, now or with the next batch."""
        if self._kinds.intersection(GUARDS.get(type(op), ())):
            self._flush()  # so that what is refused is known
        if self._refusals.bars(op):
            return
        try:
            self._take(op)
        except OSError as error:
            self._refusals.note(op, error)

    def _take(self, op: Op) -> None:
        match op:
            case do.SetFlags():
                self._queue(op, m.set_flags(self._index(op.name), op.flags))
            case do.PutTunnelEntry():
                self._queue(op, m.put_tunnel_entry(self._index(op.name), op.mac, op.vtep))
            case do.DropTunnelEntry():
                self._queue(op, m.drop_tunnel_entry(self._index(op.name), op.mac))
            case do.PutForwarding():
                self._queue(op, m.put_forwarding(self._index(op.name), op.mac))
            case do.DropForwarding():
                self._queue(op, m.drop_forwarding(self._index(op.name), op.mac))
            case do.PutNeighbour():
                self._queue(op, m.put_neighbour(self._index(op.name), op.address, op.mac, router=op.router))
            case do.DropNeighbour():
                self._queue(op, m.drop_neighbour(self._index(op.name), op.address))
            case do.PutFlood():
                self._queue(op, m.put_flood(self._index(op.name), op.vtep))
            case do.DropFlood():
                self._queue(op, m.drop_flood(self._index(op.name), op.vtep))
            case do.Attach():
                index = self._index(op.name)
                self._queue(op, m.set_master(index, self._index(op.bridge)), m.set_flags(index, op.flags))
            case do.Detach():
                self._queue(op, m.set_master(self._index(op.name), 0))
            case do.Quieten():
                self._queue(op, m.quieten(self._index(op.name)))
            case do.SetDown():
                self._queue(op, m.set_up(self._index(op.name), False))
            case do.DisableSnooping():
                self._queue(op, m.disable_snooping(self._index(op.name)))
            case do.PutChase():
                self._flush()
                index = self._index(op.name)
                if op.mac not in self._reader.filters(index):
                    self._queue(op, m.ensure_clsact(index), m.put_chase(index, op.mac))
            case do.DropChase():
                self._flush()
                index = self._index(op.name)
                if (handle := self._reader.filters(index).get(op.mac)) is not None:
                    self._queue(op, m.drop_chase(index, handle))
            case do.SetUp(namespace="") | do.SetMtu(namespace=""):
                self._queue(op, _simple(op, self._index(op.name)))
                if isinstance(op, do.SetUp):
                    self._raised.append(op.name)
            case do.DeleteLink(namespace=""):
                index = self._index(op.name)
                self._group = self._group or fresh_group()
                self._waiting.append((op, m.doom_link(index, self._group)))
                self._doomed = op
            case do.SetUp() | do.SetMtu() | do.DeleteLink() | do.SetMac() | do.PutAddress() | do.DropAddress():
                self._flush()
                self._in_service(op)
            case _:
                self._flush()
                self._make(op)

    def _make(self, op: Op) -> None:
        """Steps that make, move or remove whole things; the batch before them is in the kernel."""
        match op:
            case do.CreateBridge():
                index = self._created(self._plane, op.name, m.create_bridge(op.name))
                # The MTU of a bridge counts as chosen only when it is changed, not when it is made with it.
                self._queue(op, m.set_mtu(index, op.mtu), m.quieten(index))
            case do.CreateVxlan():
                index = self._created(self._host, op.name, m.create_vxlan(op.name, op.mtu, op.tunnel, self._fd))
                # For chases, and now while nothing passes: the kernel stops a device that is up for as long as it puts
                # a qdisc on it (dev_deactivate in qdisc_graft, ingress or not), and what is sent meanwhile is lost.
                self._queue(op, m.quieten(index), m.ensure_clsact(index))
            case do.CreateLeg():
                target = self._services.open(op.namespace)
                try:
                    pair = m.create_veth(op.name, op.mtu, op.peer, op.mtu, target, op.mac)
                    index = self._created(self._plane, op.name, pair)
                finally:
                    os.close(target)
                self._queue(op, m.quieten(index))
            case do.Adopt():
                found = read_link(self._host, op.name)
                if found is None:
                    raise OSError(errno.ENODEV, "no such device in the host's namespace", op.name)
                alias = f"{ADOPTED} {found.alias}".strip()
                self._host.do(m.move_link(found.index, self._fd, alias, up=False))
                self._queue(op, m.quieten(self._renew(op.name)))
            case do.GiveBack():
                found = read_link(self._plane, op.name)
                if found is not None:
                    alias = found.alias.removeprefix(ADOPTED).strip()
                    self._plane.do(m.move_link(found.index, self._host_fd, alias, up=True))
            case do.CreateNamespace():
                self._services.create(op.name)
                self._reader.forget_foreign(op.name)
            case do.RemoveNamespace():
                self._services.remove(op.name)

    def _in_service(
        self, op: do.SetUp | do.SetMtu | do.DeleteLink | do.SetMac | do.PutAddress | do.DropAddress
    ) -> None:
        fd = self._services.open(op.namespace)

        def work() -> None:
            link = Netlink()
            try:
                found = read_link(link, op.name)
                if found is None:
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), op.name)
                match op:
                    case do.SetMac():
                        message = m.set_mac(found.index, op.mac)
                    case do.PutAddress():
                        message = m.put_address(found.index, op.address)
                    case do.DropAddress():
                        message = m.drop_address(found.index, op.address)
                    case _:
                        message = _simple(op, found.index)
                link.do(message)
                read_link(link, op.name)  # as in __exit__
            finally:
                link.close()

        try:
            namespaces.inside(fd, work)
        finally:
            os.close(fd)

    def _index(self, name: str) -> int:
        """The index that the last observation saw, else a fresh look. The kernel refuses a stale one."""
        found = self._reader.indexes.get(name)
        return self._renew(name) if found is None else found

    def _renew(self, name: str) -> int:
        self._flush()
        found = read_link(self._plane, name)
        if found is None:
            self._reader.indexes.pop(name, None)
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
        self._reader.indexes[name] = found.index
        return found.index

    def _created(self, link: Netlink, name: str, message: Message) -> int:
        """Makes a device and returns its index, also when it is there already.

        What is there already may be another thing: a VXLAN device of this VNI and port in the host's namespace, the
        other end of a pair. Then there is no device of this name, and the kernel's first refusal says why.
        """
        refused = [error for _, error in link.send([message])]
        try:
            if not refused or refused[0].errno == errno.EEXIST:
                return self._renew(name)
        except OSError:
            if not refused:
                raise
        raise OSError(refused[0].errno, f"{refused[0].strerror}")

    def _queue(self, op: Op, *messages: Message) -> None:
        self._bury()
        self._kinds.add(type(op))
        self._waiting += [(op, message) for message in messages]

    def _bury(self) -> None:
        """Deletions that follow each other are one message, before anything else is done."""
        if self._doomed is not None:
            self._waiting.append((self._doomed, m.delete_doomed(self._group)))
            self._doomed, self._group = None, 0

    def _flush(self) -> None:
        self._bury()
        waiting, self._waiting = self._waiting, []
        self._kinds.clear()
        for at, error in self._plane.send([message for _, message in waiting]):
            op, message = waiting[at]
            if not (error.errno == errno.EEXIST and message[0] == m.RTM_NEWQDISC):
                self._refusals.note(op, error)


def fresh_group() -> int:
    """A device group for one deletion, which nothing else is in."""
    return 1 + secrets.randbelow((1 << 31) - 1)


def _simple(op: do.SetUp | do.SetMtu | do.DeleteLink, index: int) -> Message:
    match op:
        case do.SetUp():
            return m.set_up(index, True)
        case do.SetMtu():
            return m.set_mtu(index, op.mtu)
        case do.DeleteLink():
            return m.delete_link(index)
