"""Owns one host's data plane namespace: makes it, takes the steps of `overlay.ops` in it, removes it. Decides nothing.

Everything blocks; one caller at a time (a lock sees to it).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from overlay import ops as do
from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.converge import Convergence, OpError
from overlay.kernel.monitor import Monitor
from overlay.kernel.netlink import Message, Netlink
from overlay.kernel.observe import Reader, read_link, read_links
from overlay.ops import Op
from overlay.state import NetworkId
from overlay.topology import ADOPTED, ObservedState

_PLANE_SYSCTLS = {
    # Off in case the bridge module filters by default: rules of ours sit at the bridge, not below it.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/forwarding": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # No device, however it gets here, sends router solicitations or listener reports of ours to a tenant.
    "net/ipv6/conf/default/addr_gen_mode": "1",
}
_SERVICE_SYSCTLS = {name: value for name, value in _PLANE_SYSCTLS.items() if "bridge" not in name}

_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL})
"""What the kernel says when the thing to remove, or the device it was on, is gone."""

_DROPS = (
    do.RemoveNamespace | do.DeleteLink | do.Detach | do.DropAddress | do.DropTunnelEntry | do.DropForwarding
    | do.DropNeighbour | do.DropFlood | do.DropChase
)  # fmt: skip


class ForeignNamespaceError(OSError):
    """A network namespace of the name that we need exists and does not carry our mark."""


class DataPlane(Convergence):
    """One host's data plane, in the network namespace `name`.

    The host is the namespace of the thread that makes this object, or the one at `host`. VXLAN sockets are opened there
    and adopted devices come from there. Nothing is touched before `ensure` or `converge`.
    """

    def __init__(
        self,
        name: str = "playground",
        *,
        host: str | os.PathLike[str] | None = None,
        directory: Path = namespaces.DIRECTORY,
    ) -> None:
        super().__init__()
        self.name = name
        self._directory = directory
        self._host_fd = namespaces.own() if host is None else os.open(host, os.O_RDONLY | os.O_CLOEXEC)
        self._host = Netlink(self._host_fd)
        self._monitor = Monitor()
        self._monitor.watch_host(self._host_fd)
        self._fd: int | None = None
        self._plane: Netlink | None = None
        self._reader: Reader | None = None

    @property
    def path(self) -> Path:
        """The namespace's file, as `nsenter --net=` and `ip netns` take it."""
        return self._directory / self.name

    @property
    def service_mark(self) -> str:
        """The ifalias of `lo` in service namespaces of this data plane."""
        return f"playground service of {self.name}"

    @property
    def mark(self) -> str:
        """The ifalias of `lo` in the data plane namespace."""
        return f"playground data plane {self.name}"

    def close(self) -> None:
        """Lets go of all descriptors; the data plane stays as it is."""
        with self._lock:
            self._forget()
            self._monitor.close()
            self._host.close()
            os.close(self._host_fd)

    def fileno(self) -> int:
        """Becomes readable when something changed that a converge should look at; for `loop.add_reader`."""
        return self._monitor.fileno()

    def wait_event(self, timeout_s: float | None = None) -> bool:
        """Waits for such a change; False when there was none in time. Several become one.

        May be called by another thread than the one that converges: what a converge does itself is no event.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._monitor.poll(left):
                return False
            with self._lock:
                if self._monitor.take():
                    return True

    def forget_events(self, devices: Collection[str] | None = None) -> None:
        with self._lock:
            if devices is None:
                self._monitor.take()
            elif self._reader is not None:
                known = self._reader.indexes
                self._monitor.forget([*devices, *(known[name] for name in devices if name in known)])

    def ensure(self) -> int:
        """Finds or makes the namespace. Raises ForeignNamespaceError when somebody else's has the name, else OSError.

        A name that was taken away is given back to the namespace that we hold, with all that is in it.
        """
        with self._lock:
            found = namespaces.find(self.name, self._directory)
            if found is not None and self._fd is not None and namespaces.is_same(found, self._fd):
                os.close(found)
                return 0
            if found is not None:
                try:
                    self._refuse_foreign(found, self.name, self.mark)
                    namespaces.inside(found, lambda: _set_sysctls(_PLANE_SYSCTLS))
                except BaseException:
                    os.close(found)
                    raise
                repaired = int(self._fd is not None)
                self._use(found)
                return repaired
            if self._fd is not None:
                namespaces.publish(self._fd, self.name, self._directory)
                return 1
            self._use(namespaces.create(self.name, lambda: _prepare(self.mark, _PLANE_SYSCTLS), self._directory))
            return 0

    def observe(self, networks: Collection[NetworkId] | None = None, devices: Iterable[str] = ()) -> ObservedState:
        """What the kernel shows: all of it, or these networks and devices. Empty before the namespace exists."""
        with self._lock:
            if self._reader is None:
                found = namespaces.find(self.name, self._directory)
                if found is None:
                    return ObservedState()
                os.close(found)
                self.ensure()
            assert self._reader is not None
            return self._reader.everything() if networks is None else self._reader.some(networks, devices)

    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        """Takes the steps in order, neighbouring ones in one batch. One that fails stops no other."""
        with self._lock:
            self.ensure()
            assert self._fd is not None and self._plane is not None and self._reader is not None
            with _Application(self._fd, self._plane, self._host_fd, self._host, self._reader, self) as application:
                for op in ops:
                    application.add(op)
            return application.errors

    def remove(self) -> None:
        """Gives adopted devices back and removes every namespace of ours. What is already gone is fine."""
        with self._lock:
            found = namespaces.find(self.name, self._directory)
            if found is not None:
                os.close(found)
            if found is None and self._fd is None:
                self._remove_services()
                return
            self.ensure()
            assert self._plane is not None
            observed = self.observe()
            back = [do.GiveBack(name) for name, link in sorted(observed.links.items()) if link.adopted]
            errors = self.apply(back)
            if errors:
                raise OSError(errors[0].errno, str(errors[0]))
            # A namespace ends some time after its last user; these are gone when the call returns.
            doomed = [m.doom_link(raw.index) for raw in read_links(self._plane) if raw.link.kind]
            self._plane.send([*doomed, m.delete_doomed()])
            self._remove_services()
            namespaces.remove(self.name, self._directory)
            self._forget()
            self._left = ObservedState()

    def create_service(self, name: str) -> None:
        """A service namespace with our mark and its loopback up. Raises ForeignNamespaceError."""
        found = namespaces.find(name, self._directory)
        if found is None:
            found = namespaces.create(name, lambda: _prepare(self.service_mark, _SERVICE_SYSCTLS), self._directory)
        try:
            self._refuse_foreign(found, name, self.service_mark)
        finally:
            os.close(found)

    def remove_service(self, name: str) -> None:
        """Raises ForeignNamespaceError when it is not ours."""
        found = namespaces.find(name, self._directory)
        if found is None:
            return
        try:
            self._refuse_foreign(found, name, self.service_mark)
        finally:
            os.close(found)
        namespaces.remove(name, self._directory)

    def open_service(self, name: str) -> int:
        """A descriptor of a service namespace, which the caller closes. Raises OSError when there is none of ours."""
        found = namespaces.find(name, self._directory)
        if found is None:
            raise OSError(errno.ENOENT, "no such network namespace", name)
        try:
            self._refuse_foreign(found, name, self.service_mark)
        except BaseException:
            os.close(found)
            raise
        return found

    def _remove_services(self) -> None:
        reader = self._reader or Reader(self._host, self._host, self.service_mark, self._directory)
        for name in reader.services():
            self.remove_service(name)

    def _refuse_foreign(self, fd: int, name: str, mark: str) -> None:
        def alias() -> str:
            link = Netlink()
            try:
                lo = read_link(link, "lo")
                return lo.alias if lo else ""
            finally:
                link.close()

        if namespaces.inside(fd, alias) != mark:
            raise ForeignNamespaceError(
                errno.EEXIST,
                f"a network namespace {name!r} exists that is not ours; rename it, or give us another name",
                str(self._directory / name),
            )

    def _use(self, fd: int) -> None:
        self._forget()
        self._fd = fd
        self._plane = Netlink(fd)
        self._reader = Reader(self._plane, self._host, self.service_mark, self._directory)
        self._monitor.watch_plane(fd)

    def _forget(self) -> None:
        self._monitor.forget_plane()
        if self._plane is not None:
            self._plane.close()
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._plane = self._reader = None


class _Application:
    """Steps on their way into the kernel: messages for one socket wait together until another socket's turn comes."""

    def __init__(self, fd: int, plane: Netlink, host_fd: int, host: Netlink, reader: Reader, owner: DataPlane) -> None:
        self._fd, self._plane, self._host_fd, self._host = fd, plane, host_fd, host
        self._reader = reader
        self._owner = owner
        self._waiting: list[tuple[Op, Message]] = []
        self._doomed: do.DeleteLink | None = None
        self.errors: list[OpError] = []

    def __enter__(self) -> _Application:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def add(self, op: Op) -> None:
        """Takes one step, now or with the next batch."""
        try:
            self._take(op)
        except OSError as error:
            self._note(op, error)

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
            case do.DeleteLink(namespace=""):
                index = self._index(op.name)
                self._waiting.append((op, m.doom_link(index)))
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
                self._plane.do(m.create_bridge(op.name), ignore=(errno.EEXIST,))
                index = self._renew(op.name)
                # The MTU of a bridge counts as chosen only when it is changed, not when it is made with it.
                self._queue(op, m.set_mtu(index, op.mtu), m.quieten(index))
            case do.CreateVxlan():
                self._host.do(m.create_vxlan(op.name, op.mtu, op.tunnel, self._fd), ignore=(errno.EEXIST,))
                self._queue(op, m.quieten(self._renew(op.name)))
            case do.CreateLeg():
                target = self._owner.open_service(op.namespace)
                try:
                    self._plane.do(m.create_leg(op.name, op.peer, target, op.mac, op.mtu), ignore=(errno.EEXIST,))
                finally:
                    os.close(target)
                self._queue(op, m.quieten(self._renew(op.name)))
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
                self._owner.create_service(op.name)
                self._reader.forget_foreign(op.name)
            case do.RemoveNamespace():
                self._owner.remove_service(op.name)

    def _in_service(
        self, op: do.SetUp | do.SetMtu | do.DeleteLink | do.SetMac | do.PutAddress | do.DropAddress
    ) -> None:
        fd = self._owner.open_service(op.namespace)

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

    def _queue(self, op: Op, *messages: Message) -> None:
        self._bury()
        self._waiting += [(op, message) for message in messages]

    def _bury(self) -> None:
        """Deletions that follow each other are one message, before anything else is done."""
        if self._doomed is not None:
            self._waiting.append((self._doomed, m.delete_doomed()))
            self._doomed = None

    def _flush(self) -> None:
        self._bury()
        waiting, self._waiting = self._waiting, []
        for at, error in self._plane.send([message for _, message in waiting]):
            op, message = waiting[at]
            if not (error.errno == errno.EEXIST and message[0] == m.RTM_NEWQDISC):
                self._note(op, error)

    def _note(self, op: Op, error: OSError) -> None:
        number = error.errno or 0
        if isinstance(op, _DROPS) and number in _ABSENT:
            return
        if number == errno.EEXIST and not isinstance(error, ForeignNamespaceError | FileExistsError):
            return
        name = errno.errorcode.get(number, str(number))
        self.errors.append(OpError(op, number, f"{error.strerror or error} ({name})"))


def _simple(op: do.SetUp | do.SetMtu | do.DeleteLink, index: int) -> Message:
    match op:
        case do.SetUp():
            return m.set_up(index, True)
        case do.SetMtu():
            return m.set_mtu(index, op.mtu)
        case do.DeleteLink():
            return m.delete_link(index)


def _prepare(mark: str, sysctls: dict[str, str]) -> None:
    """Runs inside a namespace that has no name yet."""
    link = Netlink()
    try:
        link.do(m.set_alias(1, mark))
        link.do(m.set_up(1, True))
    finally:
        link.close()
    _set_sysctls(sysctls)


def _set_sysctls(values: dict[str, str]) -> None:
    """In the calling thread's namespace. One that this kernel lacks needs no setting."""
    for name, value in values.items():
        path = Path("/proc/sys") / name
        with suppress(FileNotFoundError):
            if path.read_text().strip() != value:
                path.write_text(value)
