"""Owns the connection to one host's libvirtd: calls, events, and a connection that comes back. Decides nothing.

libvirt-python is imported when the first connection is made: without it, and without a libvirtd, a host just offers no
virtual machines. Its calls block, so each runs in a thread; its events are heard by one thread for the whole process.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from xml.etree import ElementTree

from playground.workspaces.drivers.api import DriverError
from playground.workspaces.drivers.libvirt.line import Line
from playground.workspaces.drivers.libvirt.states import State, cause_of, state_of
from playground.workspaces.drivers.libvirt.xml import (
    NAMESPACE,
    Mark,
    knows_model,
    named_model,
    read_mark,
    write_mark,
)

log = logging.getLogger("agent")

T = TypeVar("T")

KEEPALIVE_S = 5
"""Between keep-alives of a connection, of which a third unanswered one ends it."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of ours as libvirt shows it. cause: why it is off, or stands still, by libvirt's word. has_left: that it
    went by a migration."""

    uuid: str
    state: State
    mark: Mark
    cause: str = ""
    has_left: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A domain has left by migration: how long it stood still, in ms, where libvirt knows."""

    uuid: str
    pause_ms: float | None


class Unavailable(DriverError):
    """There is no connection; the text says why."""


_loop_runs = threading.Lock()
_is_running = False


def _module() -> Any:
    """libvirt-python, its event loop running. Raises Unavailable."""
    global _is_running
    try:
        libvirt = importlib.import_module("libvirt")
    except ImportError as error:
        raise Unavailable(f"libvirt-python is not installed ({error}); pip install 'playground[libvirt]'") from None
    with _loop_runs:
        if not _is_running:
            libvirt.registerErrorHandler(lambda *_: None, None)
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=_turn, args=(libvirt,), name="libvirt", daemon=True).start()
            _is_running = True
    return libvirt


def _turn(libvirt: Any) -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class Door:
    """uri: of the libvirtd, as qemu:///system. changed: hears, in the event loop, the UUID of a domain of which
    something has changed, "" for a connection that came or went. moved: hears that one has left by migration; paused:
    the UUID of one that has just been stopped for that."""

    def __init__(
        self,
        uri: str,
        changed: Callable[[str], None],
        moved: Callable[[Moved], None],
        paused: Callable[[str], None],
    ) -> None:
        self.uri = uri
        self._paused = paused
        self._changed = changed
        self._moved = moved
        self._loop: asyncio.AbstractEventLoop | None = None
        self._libvirt: Any = None
        self._connection: Any = None
        self._marks: dict[str, Mark] = {}
        """By UUID: what was read of domains; they change by our own doing only, and with a migration."""
        self._switching: set[str] = set()
        """UUIDs of domains that are to go on at their target once all of their memory has been copied once."""
        self._lock = threading.RLock()

    async def connect(self) -> None:
        """Makes the connection unless there is one that lives. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connect)

    async def call(self, what: Callable[[Any], T]) -> T:
        """What `what` returns for the connection, in a thread. Raises DriverError with libvirt's words."""
        await self.connect()
        return await asyncio.to_thread(self._called, what)

    async def architectures(self) -> tuple[str, ...]:
        """Of the processors that a domain may have here, by name."""

        def work(connection: Any) -> tuple[str, ...]:
            found = ElementTree.fromstring(connection.getCapabilities()).iterfind("guest/arch")
            return tuple(sorted({str(arch.get("name")) for arch in found}))

        return await self.call(work)

    async def types(self) -> tuple[str, ...]:
        """Of machines that can be made here, as `kvm`, `lxc`: the types of domain that its hypervisor runs."""

        def work(connection: Any) -> tuple[str, ...]:
            found = ElementTree.fromstring(connection.getCapabilities()).iterfind("guest/arch/domain")
            return tuple(sorted({str(domain.get("type")) for domain in found}))

        return await self.call(work)

    async def domains(self, uuids: Collection[str] | None = None) -> dict[str, Domain]:
        """Our domains by UUID, all or these of them."""
        return await self.call(lambda connection: self._domains(connection, uuids))

    async def define(self, uuid: str, xml: str, is_checked: bool = False) -> None:
        """The domain is known, and does not run yet. is_checked: what libvirt's schema does not have is refused."""
        libvirt = _module()
        flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if is_checked else 0

        def work(connection: Any) -> None:
            connection.defineXMLFlags(xml, flags)
            self._marks.pop(uuid, None)

        await self.call(work)

    async def create_paused(self, uuid: str) -> None:
        """Its hypervisor is there, its processors stand still; with the memory that it has in a file, if it has. Of
        hypervisors that can't begin so, they stand still an instant later."""
        libvirt = _module()

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            try:
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                    raise
                domain.create()
                domain.suspend()

        await self.call(work)

    async def resume(self, uuid: str, mark: Mark) -> None:
        """It runs, and says so of itself. One that runs is fine."""

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            if domain.state()[0] == self._libvirt.VIR_DOMAIN_PAUSED:
                domain.resume()
            self._mark(domain, mark)

        await self.call(work)

    async def suspend(self, uuid: str, mark: Mark) -> None:
        """It says of itself that it is to stand still, and does."""

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            self._mark(domain, mark)
            if domain.state()[0] != self._libvirt.VIR_DOMAIN_PAUSED:
                domain.suspend()

        await self.call(work)

    async def save(self, uuid: str, mark: Mark) -> None:
        """Its memory is in a file of libvirt's, and it is off; where it begins again it stands still."""

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            self._mark(domain, mark)
            try:
                domain.managedSave(self._libvirt.VIR_DOMAIN_SAVE_PAUSED)
            except self._libvirt.libvirtError as error:
                if error.get_error_code() != self._libvirt.VIR_ERR_INVALID_ARG:
                    raise
                domain.managedSave(0)

        await self.call(work)

    async def console(self, uuid: str, is_forced: bool) -> int:
        """A descriptor that carries the first serial line's bytes, as `Hypervisor.console`."""
        libvirt = _module()

        def work(connection: Any) -> Any:
            domain = connection.lookupByUUIDString(uuid)

            def opened(flags: int) -> Any:
                stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
                domain.openConsole(None, stream, flags)
                return stream

            flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if is_forced else libvirt.VIR_DOMAIN_CONSOLE_SAFE
            try:
                try:
                    return opened(flags)
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                        raise
                    return opened(0)  # LXC takes no flags
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED and not is_forced:
                    raise DriverError(f"somebody else has this console open ({_said(error)})") from None
                raise

        return Line(libvirt, await self.call(work)).join()

    async def shut_down(self, uuid: str) -> None:
        """It is asked to end; says nothing of whether it will."""
        await self.call(lambda connection: connection.lookupByUUIDString(uuid).shutdown())

    async def power_off(self, uuid: str) -> bool:
        """It does not run, and has no memory in a file; whether it is known nevertheless."""
        return await self.call(lambda connection: self._power_off(connection, uuid))

    async def destroy(self, uuid: str) -> None:
        """It does not run, and is not known. One that is gone is fine."""
        await self.call(lambda connection: self._destroy(connection, uuid))

    async def migrate(
        self, uuid: str, to: str, flags: Collection[str], parameters: Mapping[str, object], pause_ms: int
    ) -> None:
        """Has the domain go to the libvirtd at `to`; returns when it is there. flags: names VIR_MIGRATE_… without that.
        pause_ms: it is copied on and on until the rest takes no longer; by POSTCOPY it goes on there once all has been
        copied once. Raises DriverError: then it goes on here."""
        libvirt = _module()
        number = 0
        for flag in flags:
            number |= getattr(libvirt, f"VIR_MIGRATE_{flag}")

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            domain.migrateSetMaxDowntime(pause_ms)
            domain.migrateToURI3(to, dict(parameters), number)

        if "POSTCOPY" in flags:
            self._switching.add(uuid)
        try:
            await self.call(work)
        finally:
            self._switching.discard(uuid)

    async def described(self, uuid: str) -> tuple[str, str]:
        """A domain's XML as another libvirtd would be told: as it runs, and as it is started next."""
        libvirt = _module()

        def work(connection: Any) -> tuple[str, str]:
            domain = connection.lookupByUUIDString(uuid)
            migratable, inactive = libvirt.VIR_DOMAIN_XML_MIGRATABLE, libvirt.VIR_DOMAIN_XML_INACTIVE
            return domain.XMLDesc(migratable), domain.XMLDesc(migratable | inactive)

        return await self.call(work)

    async def why_no_processor(self, kind: str, arch: str, model: str, cpu: str) -> str | None:
        """Why a machine like that can't have this processor here, "" when it can, None where libvirt can't tell. cpu:
        the element of its XML, "" for what its hypervisor takes by itself. Raises DriverError for a machine that is
        not to be had here at all."""
        libvirt = _module()
        fine = (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)

        def work(connection: Any) -> str | None:
            found = connection.getDomainCapabilities(None, arch or None, model or None, kind or None)
            name = named_model(cpu)
            if kind == "qemu":
                return "" if not name or knows_model(found, name) else f"its processor {name} can't be emulated there"
            if not name:
                return None
            try:
                compared = connection.compareHypervisorCPU(None, arch or None, model or None, kind, cpu, 0)
            except libvirt.libvirtError:
                return None
            return "" if compared in fine else f"the processor there lacks what {name} has"

        return await self.call(work)

    async def why_unreachable(self, uri: str) -> str:
        """Why a libvirtd can't be reached from this host, "" when it can. Opens a connection of its own, and closes
        it."""
        libvirt = _module()

        def work() -> str:
            try:
                connection = libvirt.open(uri)
            except libvirt.libvirtError as error:
                return _said(error)
            connection.close()
            return ""

        return await asyncio.to_thread(work)

    async def abort(self, uuid: str) -> None:
        """Whatever copies the domain stops; nothing where nothing does."""
        libvirt = _module()

        def work(connection: Any) -> None:
            try:
                connection.lookupByUUIDString(uuid).abortJob()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
                    raise

        await self.call(work)

    async def keep(self, uuid: str) -> None:
        """It is defined here, also where somebody had it come here for as long as it runs."""
        libvirt = _module()

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            if not domain.isPersistent():
                connection.defineXML(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))

        await self.call(work)

    async def copied(self, uuid: str) -> float | None:
        """How much of a domain the migration out of here has copied, 0 to 1; None where none is under way."""
        libvirt = _module()

        def work(connection: Any) -> float | None:
            try:
                stats = connection.lookupByUUIDString(uuid).jobStats()
            except libvirt.libvirtError as error:
                if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_SUPPORT):
                    return None
                raise
            is_leaving = stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
            if not is_leaving or stats.get("type") == libvirt.VIR_DOMAIN_JOB_NONE:
                return None
            total = stats.get("memory_total", 0)
            return min(1.0, stats.get("memory_processed", 0) / total) if total else 0.0

        return await self.call(work)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except self._libvirt.libvirtError:
                log.debug("libvirt connection was gone when it was closed")

    # in threads

    def _connect(self) -> None:
        with self._lock:
            if self._connection is not None and self._connection.isAlive():
                return
            libvirt = self._libvirt = _module()
            self._connection = None
            self._marks.clear()
            try:
                connection = libvirt.open(self.uri)
                any_event = connection.domainEventRegisterAny
                any_event(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
                any_event(None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_completed, None)
                any_event(None, libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._on_iteration, None)
                try:
                    connection.setKeepAlive(KEEPALIVE_S, 2)
                    connection.registerCloseCallback(lambda *_: self._tell(""), None)
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # there is no daemon between us and it
                        raise
            except libvirt.libvirtError as error:
                raise Unavailable(f"no libvirtd at {self.uri}: {_said(error)}") from None
            self._connection = connection

    def _called(self, what: Callable[[Any], T]) -> T:
        connection, libvirt = self._connection, self._libvirt
        if connection is None:
            raise Unavailable(f"no libvirtd at {self.uri}")
        try:
            return what(connection)
        except libvirt.libvirtError as error:
            raise DriverError(_said(error)) from None

    def _domains(self, connection: Any, uuids: Collection[str] | None) -> dict[str, Domain]:
        libvirt = self._libvirt
        if uuids is None:
            domains = connection.listAllDomains(0)
        else:
            domains = []
            for uuid in uuids:
                try:
                    domains.append(connection.lookupByUUIDString(uuid))
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                        raise
        found: dict[str, Domain] = {}
        for domain in domains:
            try:
                uuid = domain.UUIDString()
                mark = self._read_mark(domain, uuid)
                if mark is not None:
                    found[uuid] = self._shown(domain, uuid, mark)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it went meanwhile
                    raise
        if uuids is None:
            self._marks = {uuid: mark for uuid, mark in self._marks.items() if uuid in found}
        return found

    def _read_mark(self, domain: Any, uuid: str) -> Mark | None:
        if (known := self._marks.get(uuid)) is not None:
            return known
        libvirt = self._libvirt
        try:
            mark = read_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, 0))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return None  # somebody else's
            raise
        except ValueError as error:
            log.warning("domain with a mark that can't be read domain=%s error=%s", uuid, error)
            return None
        self._marks[uuid] = mark
        return mark

    def _mark(self, domain: Any, mark: Mark) -> None:
        libvirt = self._libvirt
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, write_mark(mark), "playground", NAMESPACE, flags)
        self._marks[domain.UUIDString()] = mark

    def _power_off(self, connection: Any, uuid: str) -> bool:
        libvirt = self._libvirt
        gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
        try:
            domain = connection.lookupByUUIDString(uuid)
            is_known = bool(domain.isPersistent())
            if self._is_saved(domain):
                domain.managedSaveRemove()
            domain.destroy()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in gone:
                raise
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
        return is_known

    def _destroy(self, connection: Any, uuid: str) -> None:
        libvirt = self._libvirt
        gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
        self._marks.pop(uuid, None)
        try:
            domain = connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return
            raise
        for step in (domain.destroy, lambda: self._undefine(domain)):
            try:
                step()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in gone:
                    raise

    def _undefine(self, domain: Any) -> None:
        """With all that libvirt keeps of it. Not every driver knows all of these."""
        libvirt = self._libvirt
        kept = ("MANAGED_SAVE", "SNAPSHOTS_METADATA", "CHECKPOINTS_METADATA", "NVRAM")
        every = sum(getattr(libvirt, f"VIR_DOMAIN_UNDEFINE_{one}") for one in kept)
        for flags in (every, libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA):
            try:
                domain.undefineFlags(flags)
                return
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                    raise
        domain.undefine()

    def _shown(self, domain: Any, uuid: str, mark: Mark) -> Domain:
        libvirt = self._libvirt
        state, reason = domain.state()
        shown = state_of(libvirt, state, reason)
        cause = cause_of(libvirt, state, reason)
        if shown is State.OFF and self._is_saved(domain):
            return Domain(uuid, State.SAVED, mark)
        if shown is State.LEFT and mark.halted:  # QEMU reads a saved memory as it reads one that migrates
            return Domain(uuid, State.PAUSED, mark)
        if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
            cause = f"{cause}: {self._broken_disks(domain)}"
        left = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
        return Domain(uuid, shown, mark, cause, (state, reason) == left)

    def _is_saved(self, domain: Any) -> bool:
        libvirt = self._libvirt
        try:
            return bool(domain.hasManagedSaveImage())
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # LXC keeps no memory in files
                raise
            return False

    def _broken_disks(self, domain: Any) -> str:
        """Which of a domain's disks failed, and how: `vda, no space left`."""
        libvirt = self._libvirt
        try:
            errors = domain.diskErrors()
        except libvirt.libvirtError:
            errors = {}
        full = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE
        said = [f"{disk}, {'no space left' if number == full else 'I/O error'}" for disk, number in errors.items()]
        return "; ".join(sorted(said)) or "which disk is not known"

    # in libvirt's thread

    def _tell(self, uuid: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed, uuid)

    def _on_lifecycle(self, connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        uuid = domain.UUIDString()
        if event in (self._libvirt.VIR_DOMAIN_EVENT_UNDEFINED, self._libvirt.VIR_DOMAIN_EVENT_DEFINED):
            self._marks.pop(uuid, None)
        leaves = (self._libvirt.VIR_DOMAIN_EVENT_SUSPENDED, self._libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
        if (event, detail) == leaves and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._paused, uuid)
        self._tell(uuid)

    def _on_iteration(self, connection: Any, domain: Any, iteration: int, opaque: Any) -> None:
        uuid = domain.UUIDString()
        if iteration > 1 and uuid in self._switching:
            self._switching.discard(uuid)
            # libvirt is not called from where its events are heard
            threading.Thread(target=self._switch, args=(uuid,), name="post-copy", daemon=True).start()

    def _switch(self, uuid: str) -> None:
        try:
            self._called(lambda connection: connection.lookupByUUIDString(uuid).migrateStartPostCopy(0))
        except DriverError as error:
            log.info("no post-copy domain=%s cause=%s", uuid, error)  # it was done, or called off, meanwhile

    def _on_completed(self, connection: Any, domain: Any, stats: Mapping[str, Any], opaque: Any) -> None:
        libvirt = self._libvirt
        if stats.get("operation", 0) != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
            return
        pause = stats.get("downtime")
        if self._loop is not None and not self._loop.is_closed():
            moved = Moved(domain.UUIDString(), float(pause) if pause is not None else None)
            self._loop.call_soon_threadsafe(self._moved, moved)


def _said(error: Exception) -> str:
    """libvirt's sentence, without what comes before it."""
    return str(error).removeprefix("internal error: ")
