"""Owns one host's data plane namespace: makes it, opens its door to observe and apply, removes it. Decides nothing.

Everything blocks; one caller at a time (a lock sees to it).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from overlay import ops as do
from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.batch import Batch, fresh_group
from overlay.kernel.converge import Convergence, OpError
from overlay.kernel.drift import Left
from overlay.kernel.monitor import Heard, Monitor, resolve
from overlay.kernel.netlink import Netlink
from overlay.kernel.observe import Reader, read_links
from overlay.kernel.services import ForeignNamespaceError, Services, prepare, refuse_foreign, set_sysctls
from overlay.ops import Op
from overlay.parts import Focus
from overlay.topology import ObservedState

__all__ = ["DataPlane", "ForeignNamespaceError"]

_BRIDGE_SYSCTLS = {
    # Some kernels have these on in every new namespace; our rules sit at the bridge, not in the IP hooks below it.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}


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
        self._heard = Heard()
        self._monitor.watch_host(self._host_fd)
        self._services = Services(f"playground service of {name}", directory)
        self._fd: int | None = None
        self._plane: Netlink | None = None
        self._reader: Reader | None = None

    @property
    def path(self) -> Path:
        """The namespace's file, as `nsenter --net=` and `ip netns` take it."""
        return self._directory / self.name

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
                indexes = self._reader.indexes if self._reader is not None else {}
                if heard := resolve(self._monitor.take(), indexes, self._left.is_at):
                    self._heard |= heard
                    return True

    def heard(self) -> Heard:
        """What the changes that `wait_event` told of since the last call were about."""
        with self._lock:
            heard, self._heard = self._heard, Heard()
            return heard

    def forget_events(self, focus: Focus | None = None, devices: Collection[str] = ()) -> None:
        with self._lock:
            if focus is None:
                self._monitor.drop()
            elif self._reader is not None:
                self._monitor.forget(focus, devices, self._reader.indexes)

    def ensure(self) -> int:
        """Finds or makes the namespace. Raises ForeignNamespaceError when somebody else's has the name, else OSError.

        A name that was taken away is given back to the namespace that we hold, with all that is in it. Loading
        br_netfilter turns its hooks on in namespaces that exist; they are turned off again.
        """
        with self._lock:
            found = namespaces.find(self.name, self._directory)
            if found is not None and self._fd is not None and namespaces.is_same(found, self._fd):
                os.close(found)
                return namespaces.inside(self._fd, lambda: set_sysctls(_BRIDGE_SYSCTLS))
            if found is not None:
                try:
                    refuse_foreign(found, self.path, self.mark)
                    namespaces.inside(found, lambda: set_sysctls(_BRIDGE_SYSCTLS))
                except BaseException:
                    os.close(found)
                    raise
                repaired = int(self._fd is not None)
                self._use(found)
                return repaired
            if self._fd is not None:
                namespaces.publish(self._fd, self.name, self._directory)
                return 1
            self._use(namespaces.create(self.name, lambda: prepare(self.mark, _BRIDGE_SYSCTLS), self._directory))
            return 0

    def is_open(self) -> bool:
        return self._fd is not None

    def indexes(self) -> Mapping[str, int]:
        return self._reader.indexes if self._reader is not None else {}

    def observe(self, focus: Focus | None = None, devices: Iterable[str] = ()) -> ObservedState:
        """What the kernel shows: all of it, or what a focus names and these devices. Empty before `ensure`."""
        with self._lock:
            if self._reader is None:
                found = namespaces.find(self.name, self._directory)
                if found is None:
                    return ObservedState()
                os.close(found)
                self.ensure()
            assert self._reader is not None
            return self._reader.everything() if focus is None else self._reader.some(focus, devices)

    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        """Takes the steps in order, neighbouring ones in one batch. One that fails stops no other."""
        with self._lock:
            if self._fd is None:
                self.ensure()
            assert self._fd is not None and self._plane is not None and self._reader is not None
            plane, host = (self._fd, self._plane), (self._host_fd, self._host)
            with Batch(plane, host, self._reader, self._services) as batch:
                for op in ops:
                    batch.add(op)
            return batch.errors

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
            group = fresh_group()
            doomed = [m.doom_link(raw.index, group) for raw in read_links(self._plane) if raw.link.kind]
            self._plane.send([*doomed, m.delete_doomed(group)])
            self._remove_services()
            namespaces.remove(self.name, self._directory)
            self._forget()
            self._left = Left()

    def _use(self, fd: int) -> None:
        self._forget()
        self._fd = fd
        self._plane = Netlink(fd)
        self._reader = Reader(self._plane, self._host, self._services.mark, self._directory)
        self._monitor.watch_plane(fd)

    def _forget(self) -> None:
        self._monitor.forget_plane()
        if self._plane is not None:
            self._plane.close()
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._plane = self._reader = None

    def _remove_services(self) -> None:
        reader = self._reader or Reader(self._host, self._host, self._services.mark, self._directory)
        for name in reader.services():
            self._services.remove(name)
