"""Workspaces that are virtual machines of the host's libvirtd. Makes domains and the taps that they open.

A guest is made standing still: its hypervisor opens the taps, the data plane takes them, and when all is in force it is
let run. It moves by libvirt's own migration, from its host to the other's libvirtd; the taps of the target wait there
under the same names. Nothing of a guest is a child of the agent: both, and libvirtd, may die and come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from dhcp.scope import PortScope
from playground.hypervisors import kind
from playground.records import Move
from playground.uri import host_text
from playground.workspaces.departure import Arrival, Departure
from playground.workspaces.drivers import taps
from playground.workspaces.drivers.api import (
    Copy,
    CopyState,
    DriverError,
    Guest,
    GuestState,
    Observed,
    Process,
    Sending,
)
from playground.workspaces.drivers.libvirt import moving
from playground.workspaces.drivers.libvirt.accelerator import accelerator
from playground.workspaces.drivers.libvirt.door import Domain, Door, Moved, Unavailable
from playground.workspaces.drivers.libvirt.images import Images
from playground.workspaces.drivers.libvirt.notes import Note, Notes, Part
from playground.workspaces.drivers.libvirt.parts import Setting
from playground.workspaces.drivers.libvirt.states import State
from playground.workspaces.drivers.libvirt.xml import Mark, domain_uuid, domain_xml

log = logging.getLogger("agent")

_LOOK_S = 0.1
"""Between looks at a guest that was asked to shut down."""

_TOLD_S = 1.0
"""How long libvirt's word of how long a guest stood still is waited for: it may come after the migration's end."""

_SOCKET = Path("/run/libvirt/libvirt-sock")
"""Of the libvirtd at qemu:///system."""

_NO_WAY_IN = "a virtual machine is entered by its network or its console, not by exec"


class LibvirtDriver:
    """dataplane: path of the data plane's namespace. uri: of this host's libvirtd. peer: URI by which other hosts'
    libvirtd reach it. state: folder of its own. changed: hears the id of a guest that libvirt told of, "" for all.
    tells: what a port's client is told by DHCP and advertisements, None where that is not known. paused: hears of one
    that has just been stopped, to go on where it is copied to: libvirt answers late then."""

    name = "libvirt"
    move: Move = "live"
    domain = ""

    def __init__(
        self,
        dataplane: Path,
        uri: str,
        peer: str,
        state: Path,
        changed: Callable[[str], None],
        tells: Callable[[str], PortScope | None],
        paused: Callable[[str], None] = lambda guest: None,
    ) -> None:
        self._tells = tells
        self._paused = paused
        self.peer = peer
        self.folder = state
        self._dataplane = dataplane
        self._tried = state / "accelerator"
        self._logs = state / "consoles"
        self._notes = Notes(state / "guests")
        self._images = Images(state / "images")
        self._changed = changed
        self._door = Door(uri, self._told, self._moved, self._stopped)
        self._guests: dict[str, str] = {}
        """Guest ids by UUID."""
        self._released: dict[str, bool] = {}
        """By guest: whether its taps may be adopted, as it was said last."""
        self._copies: dict[str, Copy] = {}
        self._pauses: dict[str, float] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        """Guests that somebody else is starting now."""
        self._begins = asyncio.Event()

    async def offered(self) -> bool:
        """Whether there is a libvirtd that answers."""
        if self._door.uri == "qemu:///system" and not _SOCKET.exists():
            return False  # before libvirt-python is loaded for it
        try:
            await self._door.connect()
        except Unavailable:
            return False
        return True

    async def archs(self) -> tuple[str, ...]:
        """Of the processors that it has or emulates, by name; none where libvirt does not say."""
        try:
            return await self._door.architectures()
        except DriverError:
            return ()

    async def types(self) -> tuple[str, ...]:
        """Of machines that can be made here, as `kvm`; none where libvirt does not say."""
        try:
            return await self._door.types()
        except DriverError:
            return ()

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        """Every domain of ours, and every guest that was to run here, is expected or has left."""
        notes = await asyncio.to_thread(self._notes.read, guests)
        if not notes and not await self.offered():
            return {}
        domains = await self._domains(guests, notes)
        found = {domain.mark.guest.id: domain for domain in domains.values()}
        for id, domain in found.items():
            note = notes.get(id)
            is_away = note is not None and (note.part is not Part.OWN or note.stopped)
            if note is None or (is_away and domain.state is State.RUNNING):
                move = note.move if note is not None else 0
                notes[id] = Note(domain.mark.guest, Part.OWN, move, ran=domain.mark.started)
                await asyncio.to_thread(self._notes.put, notes[id])
                if move:
                    await self._door.keep(domain.uuid)
        await asyncio.to_thread(self._release, notes, found)
        self._guests.update((domain_uuid(id), id) for id in notes)
        for id, note in notes.items():
            if note.sending and id not in self._sending:
                notes[id] = await self._recall(note, found.get(id))
        return {
            id: _begun(note) if id in self._begun else self._observed(id, note, found.get(id))
            for id, note in notes.items()
        }

    async def _domains(self, guests: Collection[str] | None, notes: Mapping[str, Note]) -> dict[str, Domain]:
        """Those of these guests, or all; without those that libvirt is starting, of which it would answer when it has,
        and that may wait for us."""
        while True:
            self._begins.clear()
            wanted: set[str] | None
            if self._begun:
                asked = notes.keys() if guests is None else guests
                wanted = {domain_uuid(guest) for guest in asked if guest not in self._begun}
            else:
                wanted = None if guests is None else {domain_uuid(guest) for guest in guests}
            looking = asyncio.ensure_future(self._door.domains(wanted))
            begins = asyncio.ensure_future(self._begins.wait())
            try:
                await asyncio.wait((looking, begins), return_when=asyncio.FIRST_COMPLETED)
            finally:
                begins.cancel()
            if looking.done():
                return looking.result()
            looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits for it

    async def _recall(self, note: Note, domain: Domain | None) -> Note:
        """How a copy stands that an agent before this one began, or somebody else: libvirt goes on with it. Returns its
        note of now."""
        id = note.guest.id
        known = self._copies.get(id)
        if note.part is not Part.OWN or (known is not None and known.state is not CopyState.RUNNING):
            return note
        if domain is None or domain.has_left:
            self._copies[id] = Copy(note.sending, CopyState.DONE, done=1.0, pause_ms=self._pauses.get(id))
            note = Note(note.guest, Part.GONE, note.sending)
            await asyncio.to_thread(self._notes.put, note)
        elif domain.state is State.LEFT:
            self._copies[id] = Copy(note.sending, CopyState.RUNNING, done=1.0)
        elif (done := await self._door.copied(domain.uuid)) is not None:
            self._copies[id] = Copy(note.sending, CopyState.RUNNING, done=done)
        else:
            cause = "its copying broke off"
            if domain.state in (State.OFF, State.CRASHED):
                cause = f"its virtual machine ended while it was copied: {domain.cause or _ENDED}"
            self._copies[id] = Copy(note.sending, CopyState.FAILED, cause)
        return note

    async def prepare(self, guest: Guest) -> None:
        """The domain exists and stands still, its taps open. One that runs already stays as it is; one that was saved
        has its memory back, and where that fails stays saved."""
        uuid = domain_uuid(guest.id)
        self._guests[uuid] = guest.id
        domain, note = await self._look(guest.id)
        if domain is not None and domain.state in (State.RUNNING, State.LEFT):
            return
        if domain is not None and domain.state is State.SAVED and note is not None and note.part is Part.OWN:
            await asyncio.to_thread(self._make_taps, domain.mark.guest)
        else:
            await self._door.destroy(uuid)
            self._copies.pop(guest.id, None)
            setting = await asyncio.to_thread(self._make_ends, guest, _made_anew(guest, note, domain))
            has_foreign = guest.machine is not None and bool(guest.machine.extra)
            await self._door.define(uuid, domain_xml(guest, setting), is_checked=has_foreign)
        await self._door.create_paused(uuid)

    async def prepare_arrival(self, guest: Guest) -> None:
        """As `expect`, of no move."""
        await self.expect(guest, 0)

    async def expect(self, guest: Guest, move: int, copies_storage: bool = False) -> None:
        """Its taps wait here; libvirt opens them when it comes, and where its disks come along fills empty ones."""
        self._guests[domain_uuid(guest.id)] = guest.id
        domain = (await self._door.domains({domain_uuid(guest.id)})).get(domain_uuid(guest.id))
        if domain is not None and domain.state in (State.RUNNING, State.LEFT):
            await asyncio.to_thread(self._notes.put, Note(guest, Part.ARRIVING, move))
            return
        await self._door.destroy(domain_uuid(guest.id))
        await asyncio.to_thread(self._await_ends, guest, Note(guest, Part.ARRIVING, move, copies=copies_storage))

    async def start(self, guest: Guest) -> None:
        """Its processors run."""
        note = (await asyncio.to_thread(self._notes.read, [guest.id])).get(guest.id)
        if note is not None and not note.ran:
            await asyncio.to_thread(self._notes.put, msgspec.structs.replace(note, ran=True))
        await self._door.resume(domain_uuid(guest.id), Mark(guest, started=True))

    async def suspend(self, guest_id: str) -> None:
        """Its processors stand still, and it says that they are to."""
        domain = await self._here(guest_id)
        await self._door.suspend(domain.uuid, replace(domain.mark, halted=True))

    async def save(self, guest_id: str) -> None:
        """libvirt keeps its memory; its taps go."""
        domain = await self._here(guest_id)
        await self._door.save(domain.uuid, replace(domain.mark, halted=True))
        devices = [nic.device for nic in domain.mark.guest.nics]
        try:
            await asyncio.to_thread(taps.remove, devices, self._dataplane)
        except OSError as error:
            raise DriverError(f"its ends can't be removed: {error}") from error

    async def console(self, guest_id: str, is_forced: bool) -> int:
        """By libvirt's stream: one at a time has it."""
        return await self._door.console(domain_uuid(guest_id), is_forced)

    async def said(self, guest_id: str) -> Path:
        """What its serial line is logged to."""
        log = self._logs / f"{guest_id}.log"
        if not await asyncio.to_thread(log.exists):
            raise DriverError("it has said nothing on its serial line here")
        return log

    async def _look(self, guest_id: str) -> tuple[Domain | None, Note | None]:
        uuid = domain_uuid(guest_id)
        domain = (await self._door.domains({uuid})).get(uuid)
        return domain, (await asyncio.to_thread(self._notes.read, [guest_id])).get(guest_id)

    async def _here(self, guest_id: str) -> Domain:
        """A machine that runs or stands still on this host. Raises DriverError."""
        domain, _ = await self._look(guest_id)
        if domain is None or domain.state not in (State.RUNNING, State.PAUSED):
            raise DriverError("its virtual machine does not run on this host")
        return domain

    async def renew(self, guest_id: str) -> None:
        """Nothing: what runs in it is its owner's, and asks when its lease is due."""

    async def send(self, guest: Guest, move: int, sending: Sending) -> None:
        """Begins to copy the guest; `observe` says how that goes."""
        if guest.id in self._sending:
            return
        self._copies[guest.id] = Copy(move, CopyState.RUNNING)
        self._pauses.pop(guest.id, None)
        # known before it is noted: a note without it is one of an agent that is no more, whose copy may have broken off
        task = asyncio.create_task(self._send(guest, move, sending))
        self._sending[guest.id] = task
        task.add_done_callback(lambda _: self._sending.pop(guest.id, None))

    async def _send(self, guest: Guest, move: int, sending: Sending) -> None:
        uuid = domain_uuid(guest.id)
        began = time.monotonic()
        try:
            note = (await asyncio.to_thread(self._notes.read, [guest.id])).get(guest.id)
            note = note if note is not None else Note(guest, Part.OWN, ran=True)
            await asyncio.to_thread(self._notes.put, msgspec.structs.replace(note, guest=guest, sending=move))
            live, inactive = await self._door.described(uuid)
            parameters = moving.parameters(sending, live, inactive, self.folder)
            pause_ms = sending.manner.longest_pause_ms or moving.USUAL_PAUSE_MS
            await self._door.migrate(uuid, sending.to, moving.flags(sending), parameters, pause_ms)
            await asyncio.to_thread(self._notes.put, Note(guest, Part.GONE, move, copies=sending.manner.copy_storage))
            until = time.monotonic() + _TOLD_S
            while guest.id not in self._pauses and time.monotonic() < until:
                await asyncio.sleep(_LOOK_S / 5)
            self._copies[guest.id] = Copy(move, CopyState.DONE, done=1.0, pause_ms=self._pauses.get(guest.id))
            log.info("guest sent guest=%s to=%s s=%.2f", guest.id, sending.to, time.monotonic() - began)
        except (DriverError, OSError) as error:
            log.warning("guest not sent guest=%s to=%s cause=%s", guest.id, sending.to, error)
            if not await self._has_left(guest.id):
                self._copies[guest.id] = Copy(move, CopyState.FAILED, str(error))
        self._changed(guest.id)

    async def _has_left(self, guest_id: str) -> bool:
        """Whether what libvirt told as a failure was one of telling: its domain is gone from here, or nobody can say;
        then `observe` finds out."""
        try:
            domain = (await self._door.domains({domain_uuid(guest_id)})).get(domain_uuid(guest_id))
        except DriverError:
            return True
        return domain is None or domain.has_left

    async def departing(self, guest_id: str, to: str) -> Departure:
        """As its domain is now. Raises DriverError where it has none."""
        (live, _), unreachable = await asyncio.gather(
            self._door.described(domain_uuid(guest_id)), self._door.why_unreachable(to)
        )
        return await asyncio.to_thread(moving.departure, live, self.folder, unreachable)

    async def arriving(self, departure: Departure, copies_storage: bool) -> Arrival:
        """By what libvirt says of processors, and by the files that are here."""
        cause = await self._door.why_no_processor(departure.kind, departure.arch, departure.model, departure.cpu)
        return await asyncio.to_thread(moving.arrival, departure, copies_storage, cause, self.folder)

    async def is_leaving(self, guest_id: str) -> bool:
        """By libvirt's word of what it is doing with the domain."""
        return await self._door.copied(domain_uuid(guest_id)) is not None

    async def follow(self, guest: Guest, move: int) -> None:
        """Notes it; `observe` asks libvirt."""
        note = (await asyncio.to_thread(self._notes.read, [guest.id])).get(guest.id)
        note = note if note is not None else Note(guest, Part.OWN, ran=True)
        await asyncio.to_thread(self._notes.put, msgspec.structs.replace(note, sending=move))
        self._copies[guest.id] = Copy(move, CopyState.RUNNING)
        self._pauses.pop(guest.id, None)

    async def call_off(self, guest_id: str) -> None:
        """Nothing copies the guest any more."""
        await self._door.abort(domain_uuid(guest_id))

    async def activate(self, guest: Guest, move: int = 0) -> float:
        """Libvirt alone decides where it runs: refused unless that is here."""
        domain = (await self._door.domains({domain_uuid(guest.id)})).get(domain_uuid(guest.id))
        if domain is None or domain.state is not State.RUNNING:
            raise DriverError("its virtual machine does not run on this host")
        await asyncio.to_thread(self._notes.put, Note(guest, Part.OWN, move, ran=True))
        return 0.0

    async def reclaim(self, guest: Guest, move: int) -> float:
        """As `activate`."""
        return await self.activate(guest, move)

    async def depart(self, guest_id: str) -> None:
        """Its ends are gone, and what is known of it here. A domain that runs here is never ended by this."""
        uuid = domain_uuid(guest_id)
        domain = (await self._door.domains({uuid})).get(uuid)
        if domain is not None and domain.state is State.RUNNING:
            raise DriverError("its virtual machine runs on this host: move it away first")
        note = (await asyncio.to_thread(self._notes.read, [guest_id])).get(guest_id)
        if domain is not None and domain.state is State.LEFT and await self._door.copied(uuid) is not None:
            raise DriverError("its hypervisor still copies its memory from here")
        await self._door.destroy(uuid)
        if note is not None and note.copies and note.part is not Part.OWN:
            await asyncio.to_thread(self._images.remove, guest_id)
        await asyncio.to_thread(self._forget, guest_id, domain)
        await asyncio.to_thread((self._logs / f"{guest_id}.log").unlink, missing_ok=True)

    async def stop(self, guest_id: str, grace_s: float) -> None:
        """Shut down, after `grace_s` destroyed; its disks stay, and its domain is known: anybody may start it."""
        uuid = domain_uuid(guest_id)
        domain = (await self._door.domains({uuid})).get(uuid)
        if domain is not None and domain.state is State.RUNNING and grace_s > 0:
            await self._door.shut_down(uuid)
            until = time.monotonic() + grace_s
            while time.monotonic() < until:
                now = (await self._door.domains({uuid})).get(uuid)
                if now is None or now.state is not State.RUNNING:
                    break
                await asyncio.sleep(_LOOK_S)
        is_known = await self._door.power_off(uuid)
        await asyncio.to_thread(self._forget, guest_id, domain, is_known)

    async def remove(self, guest_id: str, grace_s: float) -> None:
        """As `stop`, and its domain and disks go too, and what it has said."""
        await self.stop(guest_id, grace_s)
        await self._door.destroy(domain_uuid(guest_id))
        await asyncio.to_thread(self._forget, guest_id, None)
        await asyncio.to_thread(self._images.remove, guest_id)
        await asyncio.to_thread((self._logs / f"{guest_id}.log").unlink, missing_ok=True)

    def begins(self, guest_id: str, is_so: bool) -> None:
        """Somebody else has libvirt start it, which answers nothing of it meanwhile."""
        if is_so:
            self._begun.add(guest_id)
            self._begins.set()
        else:
            self._begun.discard(guest_id)

    async def make_room(self, guest: Guest) -> None:
        """Its taps wait here for whoever starts it; libvirt is asked nothing."""
        self._guests[domain_uuid(guest.id)] = guest.id
        note = (await asyncio.to_thread(self._notes.read, [guest.id])).get(guest.id)
        ended, cause = (note.ended, note.ended_cause) if note is not None else (0, "")
        await asyncio.to_thread(self._make_ends, guest, Note(guest, Part.OWN, ended=ended, ended_cause=cause, ran=True))

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        """Always raises DriverError."""
        raise DriverError(_NO_WAY_IN)

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        """Always raises DriverError."""
        raise DriverError(_NO_WAY_IN)

    def _make_taps(self, guest: Guest) -> None:
        try:
            taps.remove([nic.device for nic in guest.nics], self._dataplane)
            for nic in () if kind(_type(guest)).makes_ends else guest.nics:
                taps.make(nic.device, nic.mtu)
        except OSError as error:
            raise DriverError(f"its ends can't be made: {error}") from error
        self._released[guest.id] = False

    def _await_ends(self, guest: Guest, note: Note) -> None:
        """Of one that comes. Disks that an earlier stay has left are no ground for those that come along now."""
        try:
            self._notes.put(note)
            if note.copies:
                self._images.remove(guest.id)
                self._images.ensure(guest)
            self._images.seed(guest, self._told_at(guest))
            self._make_taps(guest)
            self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DriverError(f"its ends can't be made: {error}") from error

    def _make_ends(self, guest: Guest, note: Note) -> Setting:
        """The note first: whatever is made is known to be ours."""
        try:
            self._notes.put(note)
            disks, seed = self._images.ensure(guest), self._images.seed(guest, self._told_at(guest))
            self._make_taps(guest)
            self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DriverError(f"its ends can't be made: {error}") from error
        return Setting(_type(guest) or accelerator(self._tried), disks, str(self._logs / f"{guest.id}.log"), seed)

    def _told_at(self, guest: Guest) -> dict[str, PortScope]:
        found = {nic.port: self._tells(nic.port) for nic in guest.nics}
        return {port: scope for port, scope in found.items() if scope is not None}

    def _release(self, notes: Mapping[str, Note], domains: Mapping[str, Domain]) -> None:
        """Lets the data plane have the taps of those whose hypervisor runs, and keeps those of all others."""
        for id, note in notes.items():
            is_free = id in domains and domains[id].state not in (State.OFF, State.SAVED, State.CRASHED)
            if self._released.get(id) != is_free:
                taps.release([nic.device for nic in note.guest.nics], is_free=is_free)
                self._released[id] = is_free

    def _forget(self, guest_id: str, domain: Domain | None, is_known: bool = False) -> None:
        """is_known: its domain is not, and nothing else is left."""
        note = self._notes.read([guest_id]).get(guest_id)
        guest = note.guest if note is not None else domain.mark.guest if domain is not None else None
        try:
            if guest is not None:
                taps.remove([nic.device for nic in guest.nics], self._dataplane)
            if is_known and guest is not None:
                self._notes.put(Note(guest, Part.OWN, stopped=True))
            else:
                self._notes.drop(guest_id)
        except OSError as error:
            raise DriverError(f"its ends can't be removed: {error}") from error
        for kept in (self._released, self._copies, self._pauses):
            kept.pop(guest_id, None)

    def _observed(self, id: str, note: Note, domain: Domain | None) -> Observed:
        guest = domain.mark.guest if domain is not None else note.guest
        state, cause = _state(note, domain)
        if state is GuestState.FAILED and id in self._sending:
            state, cause = GuestState.ELSEWHERE, ""  # libvirt has done with it here, and we have not heard its word yet
        copy = self._copies.get(id)
        if copy is not None and copy.state is CopyState.RUNNING and domain is not None and domain.state is State.LEFT:
            copy = replace(copy, state=CopyState.PAUSED)
        if copy is None and note.part is Part.GONE:
            copy = Copy(note.move, CopyState.DONE, done=1.0)
        return Observed(
            guest=id,
            state=state,
            cause=cause,
            playground=guest.playground,
            name=guest.name,
            move=note.move,
            nics=guest.nics,
            made_of=guest.made_of,
            copy=copy,
            reboots=guest.reboots,
            resumes=guest.resumes,
            ended=note.ended,
            ended_cause=note.ended_cause,
            has_vanished=state is GuestState.FAILED and domain is None,
        )

    def _told(self, uuid: str) -> None:
        self._changed(self._guests.get(uuid, ""))

    def _stopped(self, uuid: str) -> None:
        guest = self._guests.get(uuid)
        copy = self._copies.get(guest) if guest is not None else None
        if guest is not None and copy is not None and copy.state is CopyState.RUNNING:
            self._paused(guest)

    def _moved(self, moved: Moved) -> None:
        guest = self._guests.get(moved.uuid)
        if guest is None or moved.pause_ms is None:
            return
        self._pauses[guest] = moved.pause_ms
        if (copy := self._copies.get(guest)) is not None and copy.state is CopyState.DONE:
            self._copies[guest] = replace(copy, pause_ms=moved.pause_ms)
        self._changed(guest)


_ENDED = "its virtual machine has ended"


def _type(guest: Guest) -> str:
    """Of its machine, "" where nobody says."""
    return guest.machine.type if guest.machine is not None else ""


def _begun(note: Note) -> Observed:
    """A guest that somebody else has libvirt start."""
    guest = note.guest
    return Observed(
        guest.id, GuestState.PREPARED, "", guest.playground, guest.name, note.move, guest.nics, guest.made_of
    )


def _made_anew(guest: Guest, note: Note | None, domain: Domain | None) -> Note:
    """The note of a guest that is made here; one that had run and ended by itself is counted."""
    if note is None or note.part is not Part.OWN:
        return Note(guest, Part.OWN)
    if not note.ran or (domain is not None and domain.state not in (State.OFF, State.CRASHED)):
        return Note(guest, Part.OWN, ended=note.ended, ended_cause=note.ended_cause)
    cause = _state(note, domain)[1]
    log.warning("guest ended by itself guest=%s cause=%s", guest.id, cause)
    return Note(guest, Part.OWN, ended=note.ended + 1, ended_cause=cause)


def _state(note: Note | None, domain: Domain | None) -> tuple[GuestState, str]:
    """What a note and a domain mean together."""
    state = domain.state if domain is not None else State.OFF
    match state:
        case State.RUNNING:
            return GuestState.RUNNING, ""
        case State.LEFT:
            return GuestState.ELSEWHERE, ""
        case State.PAUSED:
            assert domain is not None
            if note is not None and note.part is Part.ARRIVING:
                return GuestState.ELSEWHERE, ""
            if not domain.mark.started:
                return GuestState.PREPARED, ""
            return GuestState.SUSPENDED, "" if domain.mark.halted else domain.cause or "it stands still"
        case State.SAVED if note is None or note.part is Part.OWN:
            assert domain is not None
            return GuestState.SAVED, ""
    if note is None or note.stopped:
        return GuestState.ABSENT, ""
    if note.part is not Part.OWN:
        return GuestState.ELSEWHERE, ""
    if domain is not None and domain.has_left:
        return GuestState.ELSEWHERE, "it went to another host by a migration that nobody told us of"
    return GuestState.FAILED, (domain.cause if domain is not None else "its domain is gone") or _ENDED


def peer_uri(transport: str, address: str) -> str:
    """How another host's libvirtd reaches the one at this address. transport: tcp, tls or ssh."""
    return f"qemu+{transport}://{host_text(address)}/system"
