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
from enum import Enum
from typing import Any, TypeVar

from playground.workspaces.drivers.api import DriverError
from playground.workspaces.drivers.libvirt.xml import NAMESPACE, Mark, read_mark, write_mark

log = logging.getLogger("agent")

T = TypeVar("T")

KEEPALIVE_S = 5
"""Between keep-alives of a connection, of which a third unanswered one ends it."""


class State(Enum):
    """Of a domain. LEFT: it stands still for a migration, on either side."""

    OFF = "off"
    PAUSED = "paused"
    LEFT = "left"
    RUNNING = "running"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of ours as libvirt shows it."""

    uuid: str
    state: State
    mark: Mark


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
    something has changed, "" for a connection that came or went. moved: hears that one has left by migration."""

    def __init__(self, uri: str, changed: Callable[[str], None], moved: Callable[[Moved], None]) -> None:
        self.uri = uri
        self._changed = changed
        self._moved = moved
        self._loop: asyncio.AbstractEventLoop | None = None
        self._libvirt: Any = None
        self._connection: Any = None
        self._marks: dict[str, Mark] = {}
        """By UUID: what was read of domains; they change by our own doing only, and with a migration."""
        self._lock = threading.RLock()

    async def connect(self) -> None:
        """Makes the connection unless there is one that lives. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connect)

    async def call(self, what: Callable[[Any], T]) -> T:
        """What `what` returns for the connection, in a thread. Raises DriverError with libvirt's words."""
        await self.connect()
        return await asyncio.to_thread(self._called, what)

    async def domains(self, uuids: Collection[str] | None = None) -> dict[str, Domain]:
        """Our domains by UUID, all or these of them."""
        return await self.call(lambda connection: self._domains(connection, uuids))

    async def define(self, uuid: str, xml: str) -> None:
        """The domain is known, and does not run yet."""

        def work(connection: Any) -> None:
            connection.defineXML(xml)
            self._marks.pop(uuid, None)

        await self.call(work)

    async def create_paused(self, uuid: str) -> None:
        """Its hypervisor is there, its processors stand still."""
        libvirt = _module()
        await self.call(
            lambda connection: connection.lookupByUUIDString(uuid).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        )

    async def resume(self, uuid: str, mark: Mark) -> None:
        """It runs, and says so of itself."""

        def work(connection: Any) -> None:
            domain = connection.lookupByUUIDString(uuid)
            domain.resume()
            self._mark(domain, mark)

        await self.call(work)

    async def shut_down(self, uuid: str) -> None:
        """It is asked to end; says nothing of whether it will."""
        await self.call(lambda connection: connection.lookupByUUIDString(uuid).shutdown())

    async def destroy(self, uuid: str) -> None:
        """It does not run, and is not known. One that is gone is fine."""
        await self.call(lambda connection: self._destroy(connection, uuid))

    async def migrate(self, uuid: str, to: str, flags: Collection[str], parameters: Mapping[str, object]) -> None:
        """Has the domain go to the libvirtd at `to`; returns when it is there. flags: names VIR_MIGRATE_… without that.
        Raises DriverError: then it goes on here."""
        libvirt = _module()
        number = 0
        for flag in flags:
            number |= getattr(libvirt, f"VIR_MIGRATE_{flag}")

        def work(connection: Any) -> None:
            connection.lookupByUUIDString(uuid).migrateToURI3(to, dict(parameters), number)

        await self.call(work)

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

    async def copied(self, uuid: str) -> float | None:
        """How much of a domain the migration out of here has copied, 0 to 1; None where none is under way."""
        libvirt = _module()

        def work(connection: Any) -> float | None:
            try:
                stats = connection.lookupByUUIDString(uuid).jobStats()
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
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
                connection.setKeepAlive(KEEPALIVE_S, 2)
                connection.registerCloseCallback(lambda *_: self._tell(""), None)
                any_event = connection.domainEventRegisterAny
                any_event(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
                any_event(None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_completed, None)
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
                    found[uuid] = Domain(uuid, self._state(*domain.state()), mark)
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
        for step in (domain.destroy, domain.undefine):
            try:
                step()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in gone:
                    raise

    def _state(self, state: int, reason: int) -> State:
        libvirt = self._libvirt
        match state:
            case libvirt.VIR_DOMAIN_RUNNING | libvirt.VIR_DOMAIN_BLOCKED | libvirt.VIR_DOMAIN_SHUTDOWN:
                return State.RUNNING
            case libvirt.VIR_DOMAIN_PAUSED:
                left = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY)
                return State.LEFT if reason in left else State.PAUSED
            case libvirt.VIR_DOMAIN_CRASHED:
                return State.CRASHED
            case _:
                return State.OFF

    # in libvirt's thread

    def _tell(self, uuid: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed, uuid)

    def _on_lifecycle(self, connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        uuid = domain.UUIDString()
        if event in (self._libvirt.VIR_DOMAIN_EVENT_UNDEFINED, self._libvirt.VIR_DOMAIN_EVENT_DEFINED):
            self._marks.pop(uuid, None)
        self._tell(uuid)

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
