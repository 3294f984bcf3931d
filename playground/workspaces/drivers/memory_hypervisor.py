"""Virtual machines that are only remembered: the double of the libvirt driver, held to it by one suite. Touches no
kernel.

Hosts that share a `Fabric` reach each other's hypervisors. Whoever holds it sees what there is, steps copies through
the phases that QEMU and libvirt were seen to go through (`Phase`), and breaks things as they break.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from playground.records import Move
from playground.workspaces.departure import Arrival, Departure
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

_NO_WAY_IN = "a virtual machine is entered by its network or its console, not by exec"


class Power(Enum):
    """Of a machine on one host. HALTED: it has run, and stands still. LEFT: it stands still as it leaves or arrives."""

    OFF = "off"
    MADE = "made"
    RUNNING = "running"
    HALTED = "halted"
    LEFT = "left"
    SAVED = "saved"
    STOPPED = "stopped"


class Part(Enum):
    """A host's part in a machine."""

    OWN = "own"
    ARRIVING = "arriving"
    GONE = "gone"


class Phase(Enum):
    """What a live migration does, in the order in which libvirt 9 with QEMU 7.2 was seen to do it."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPED = "stopped"
    COMPLETED = "completed"


_AT_TARGET = frozenset({Phase.STARTED, Phase.RESUMED})
"""The target's hypervisor tells of these, the source's of all others; of a copy that failed, the target's alone."""

PAUSE_MS = 40.0
"""What a copy says of how long its guest stood still."""


@dataclass(slots=True)
class Room:
    """What one host has of a machine. cause: why it stands still, or has ended, where nobody asked us for that.
    has_left: it went by a copy."""

    guest: Guest
    part: Part
    power: Power = Power.OFF
    move: int = 0
    is_asked: bool = False
    has_run: bool = False
    cause: str = ""
    copy: Copy | None = None
    ended: int = 0
    ended_cause: str = ""
    has_left: bool = False


@dataclass(slots=True)
class _Copying:
    source: str
    target: str
    phases: list[Phase]


@dataclass(slots=True)
class Fabric:
    """What hypervisors that reach each other hold. rooms: by host, then by guest. disks: (host, guest) of machines that
    have some. calls: every verb, as (host, verb, guest id, what else was said). refusals: verb → cause, which raises it
    for as long as it stands here. away: hosts whose hypervisor does not answer. deaf: hosts whose agents hear nothing.
    lines: the far ends of consoles, by guest. stepped: copies go on only by `advance`."""

    rooms: dict[str, dict[str, Room]] = field(default_factory=dict)
    disks: set[tuple[str, str]] = field(default_factory=set)
    calls: list[tuple[str, str, str, str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    lines: dict[str, socket.socket] = field(default_factory=dict)
    stepped: bool = False
    _hear: dict[str, Callable[[str], None]] = field(default_factory=dict)
    _copying: dict[str, _Copying] = field(default_factory=dict)

    def join(self, host: str, changed: Callable[[str], None]) -> dict[str, Room]:
        """What is on this host; whoever joined as it before hears no more."""
        self._hear[host] = changed
        return self.rooms.setdefault(host, {})

    def put(self, host: str, room: Room) -> None:
        """This is so on a host."""
        self.rooms.setdefault(host, {})[room.guest.id] = room

    def tell(self, host: str, guest_id: str) -> None:
        """An event."""
        if host not in self.deaf and host not in self.away and host in self._hear:
            self._hear[host](guest_id)

    def end(self, host: str, guest_id: str, cause: str) -> None:
        """The machine ends unasked."""
        room = self.rooms[host][guest_id]
        room.power, room.cause = Power.OFF, cause
        self.tell(host, guest_id)

    def halt(self, host: str, guest_id: str, cause: str) -> None:
        """The machine stands still unasked."""
        room = self.rooms[host][guest_id]
        room.power, room.cause, room.is_asked = Power.HALTED, cause, False
        self.tell(host, guest_id)

    def begin(self, guest_id: str, source: str, target: str) -> None:
        """A copy begins; a target that has not prepared refuses it, as there is no tap."""
        there = self.rooms.get(target, {}).get(guest_id)
        if target in self.away or target not in self.rooms:
            self._failed(source, guest_id, "unable to connect to server")
        elif there is None or there.part is not Part.ARRIVING:
            self._failed(source, guest_id, "target managed='no' but specified dev doesn't exist")
        else:
            self._copying[guest_id] = _Copying(source, target, list(Phase))

    def leaves(self, guest_id: str, host: str) -> bool:
        """Whether it is being copied from a host."""
        return guest_id in self._copying and self._copying[guest_id].source == host

    def advance(self, guest_id: str) -> Phase | None:
        """The copy's next phase happens and is told of; None when it is over."""
        copying = self._copying.get(guest_id)
        if copying is None:
            return None
        phase = copying.phases.pop(0)
        here, there = self.rooms[copying.source][guest_id], self.rooms[copying.target][guest_id]
        copy = here.copy or Copy(0, CopyState.RUNNING)
        match phase:
            case Phase.STARTED:
                there.power = Power.LEFT
            case Phase.PAUSED:
                here.power = Power.LEFT
                if here.copy is not None:
                    here.copy = replace(copy, state=CopyState.PAUSED, done=1.0)
            case Phase.RESUMED:
                there.power, there.part, there.has_run = Power.RUNNING, Part.OWN, True
                there.guest = here.guest
            case Phase.STOPPED:
                here.power, here.has_left = Power.OFF, True
                if here.copy is not None:
                    here.part, here.move = Part.GONE, copy.move
                    here.copy = Copy(copy.move, CopyState.DONE, done=1.0)
            case Phase.COMPLETED:
                if here.copy is not None:
                    here.copy = Copy(here.copy.move, CopyState.DONE, done=1.0, pause_ms=PAUSE_MS)
                del self._copying[guest_id]
        self.tell(copying.target if phase in _AT_TARGET else copying.source, guest_id)
        return phase

    def fail(self, guest_id: str, cause: str) -> None:
        """The copy breaks off before it runs at the target, which alone is told; at the source it goes on."""
        copying = self._copying.get(guest_id)
        if copying is None or Phase.RESUMED not in copying.phases:
            return
        del self._copying[guest_id]
        self.rooms[copying.target][guest_id].power = Power.OFF
        self.tell(copying.target, guest_id)
        self._failed(copying.source, guest_id, cause)

    def _failed(self, source: str, guest_id: str, cause: str) -> None:
        room = self.rooms[source][guest_id]
        if room.power is Power.LEFT:
            room.power = Power.RUNNING
        if room.copy is not None:
            room.copy = Copy(room.copy.move, CopyState.FAILED, cause)


class MemoryHypervisor:
    """The hypervisor of one host of a `Fabric`. It keeps nothing itself: another one of the same host goes on."""

    name = "libvirt"
    move: Move = "live"
    domain = ""

    def __init__(self, host: str, fabric: Fabric, changed: Callable[[str], None] = lambda guest: None) -> None:
        self.peer = host
        self.folder = Path("/")
        self._host = host
        self._fabric = fabric
        self._rooms = fabric.join(host, changed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def offered(self) -> bool:
        """Whether it answers."""
        return self._host not in self._fabric.away

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        """Every machine with anything on this host, or these of them."""
        self._answer()
        return {id: _observed(room) for id, room in self._rooms.items() if guests is None or id in guests}

    async def prepare(self, guest: Guest) -> None:
        """It is there and stands still. One that runs stays as it is; a saved one has its memory back."""
        self._note("prepare", guest.id)
        room = self._rooms.get(guest.id)
        if room is not None and room.power in (Power.RUNNING, Power.LEFT):
            return
        if room is not None and room.part is Part.OWN and room.power is Power.SAVED:
            room.power = Power.HALTED
            return
        made = self._rooms[guest.id] = Room(guest, Part.OWN, Power.MADE)
        if room is not None and room.has_run and room.power is Power.OFF and room.part is Part.OWN:
            made.ended, made.ended_cause = room.ended + 1, room.cause
        elif room is not None:
            made.ended, made.ended_cause = room.ended, room.ended_cause
        self._fabric.disks.add((self._host, guest.id))

    async def prepare_arrival(self, guest: Guest) -> None:
        """As `expect`, of no move."""
        await self.expect(guest, 0)

    async def expect(self, guest: Guest, move: int, copies_storage: bool = False) -> None:
        """Its ends wait here. One that runs here already is here."""
        self._note("expect", guest.id, move)
        room = self._rooms.get(guest.id)
        if room is not None and room.power in (Power.RUNNING, Power.LEFT):
            room.part, room.move = Part.OWN if room.power is Power.RUNNING else Part.ARRIVING, move
            return
        self._rooms[guest.id] = Room(guest, Part.ARRIVING, move=move)

    async def start(self, guest: Guest) -> None:
        """It runs, or goes on."""
        self._note("start", guest.id)
        room = self._rooms.get(guest.id)
        if room is None or room.power not in (Power.MADE, Power.HALTED, Power.RUNNING):
            raise DriverError("there is no machine to start")
        room.power, room.has_run, room.is_asked, room.cause = Power.RUNNING, True, False, ""
        room.guest = guest

    async def suspend(self, guest_id: str) -> None:
        """It stands still."""
        self._note("suspend", guest_id)
        room = self._running(guest_id)
        room.power, room.is_asked, room.cause = Power.HALTED, True, ""

    async def save(self, guest_id: str) -> None:
        """Its memory is kept, and nothing of it runs."""
        self._note("save", guest_id)
        room = self._rooms.get(guest_id)
        if room is None or room.power not in (Power.RUNNING, Power.HALTED, Power.MADE):
            raise DriverError("there is no machine that could be saved")
        room.power, room.is_asked, room.cause = Power.SAVED, True, ""

    async def renew(self, guest_id: str) -> None:
        """Nothing."""

    async def send(self, guest: Guest, move: int, sending: Sending) -> None:
        """Begins to copy it; `sending.to` is a host of the fabric."""
        self._note("send", guest.id, f"{move} {sending.to}")
        room = self._running(guest.id)
        if room.copy is not None and room.copy.move == move and room.copy.state is CopyState.RUNNING:
            return
        room.copy = Copy(move, CopyState.RUNNING)
        self._fabric.begin(guest.id, self._host, sending.to)
        if not self._fabric.stepped:
            task = asyncio.create_task(self._go_on(guest.id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _go_on(self, guest_id: str) -> None:
        while self._fabric.advance(guest_id) is not None:
            await asyncio.sleep(0)

    async def departing(self, guest_id: str, to: str) -> Departure:
        """It needs nothing that there is not everywhere."""
        self._note("departing", guest_id, to)
        self._running(guest_id)
        is_away = to in self._fabric.away or to not in self._fabric.rooms
        return Departure("memory", "", "", "", unreachable="unable to connect to server" if is_away else "")

    async def arriving(self, departure: Departure, copies_storage: bool) -> Arrival:
        """Whatever it is, it may come."""
        self._note("arriving", "")
        return Arrival()

    async def is_leaving(self, guest_id: str) -> bool:
        """Whether a copy of it is under way."""
        self._note("is_leaving", guest_id)
        return self._fabric.leaves(guest_id, self._host)

    async def follow(self, guest: Guest, move: int) -> None:
        """It goes by a copy that somebody else had begin (`Fabric.begin`)."""
        self._note("follow", guest.id, move)
        room = self._rooms.get(guest.id)
        if room is None or room.part is Part.GONE:
            return
        if self._fabric.leaves(guest.id, self._host):
            room.copy = Copy(move, CopyState.PAUSED if room.power is Power.LEFT else CopyState.RUNNING)
        elif room.has_left:
            room.part, room.move, room.copy = Part.GONE, move, Copy(move, CopyState.DONE, done=1.0)
        else:
            room.copy = Copy(move, CopyState.FAILED, "its copying broke off")

    def begins(self, guest_id: str, is_so: bool) -> None:
        """Nothing: it answers always."""

    async def make_room(self, guest: Guest) -> None:
        """Whoever starts it, finds it."""
        self._note("make_room", guest.id)
        self._rooms[guest.id] = Room(guest, Part.OWN)

    async def call_off(self, guest_id: str) -> None:
        """Its copying ends, unless it runs at the target already."""
        self._note("call_off", guest_id)
        self._fabric.fail(guest_id, "operation aborted: migration out: canceled by client")

    async def activate(self, guest: Guest, move: int = 0) -> float:
        """Refused unless it runs here."""
        self._note("activate", guest.id)
        room = self._rooms.get(guest.id)
        if room is None or room.power is not Power.RUNNING:
            raise DriverError("its virtual machine does not run on this host")
        room.part, room.move = Part.OWN, move
        return 0.0

    async def reclaim(self, guest: Guest, move: int) -> float:
        """As `activate`."""
        return await self.activate(guest, move)

    async def depart(self, guest_id: str) -> None:
        """Nothing of it is here. Refused while it runs here."""
        self._note("depart", guest_id)
        room = self._rooms.get(guest_id)
        if room is not None and room.power is Power.RUNNING:
            raise DriverError("its virtual machine runs on this host: move it away first")
        self._rooms.pop(guest_id, None)

    async def stop(self, guest_id: str, grace_s: float) -> None:
        """It is gone with its memory; its disks stay, and anybody may start it."""
        self._note("stop", guest_id)
        if (room := self._rooms.pop(guest_id, None)) is not None:
            self._rooms[guest_id] = Room(room.guest, Part.OWN, Power.STOPPED)

    async def remove(self, guest_id: str, grace_s: float) -> None:
        """Its disks go, too."""
        self._note("remove", guest_id)
        self._rooms.pop(guest_id, None)
        self._fabric.disks.discard((self._host, guest_id))

    async def console(self, guest_id: str, is_forced: bool) -> int:
        """A socket whose other end stands in `Fabric.lines`."""
        self._note("console", guest_id)
        if (room := self._rooms.get(guest_id)) is None or room.power not in (Power.RUNNING, Power.HALTED, Power.MADE):
            raise DriverError("there is no machine with a console")
        if (held := self._fabric.lines.get(guest_id)) is not None:
            if not is_forced and _is_held(held):
                raise DriverError("somebody else has this console open")
            held.close()
        ours, self._fabric.lines[guest_id] = socket.socketpair()
        return ours.detach()

    async def said(self, guest_id: str) -> Path:
        """Always raises DriverError."""
        raise DriverError("what it says is not kept")

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        """Always raises DriverError."""
        raise DriverError(_NO_WAY_IN)

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        """Always raises DriverError."""
        raise DriverError(_NO_WAY_IN)

    def _answer(self) -> None:
        if (cause := self._fabric.away.get(self._host)) is not None:
            raise DriverError(cause)

    def _note(self, verb: str, guest_id: str, said: object = "") -> None:
        self._answer()
        self._fabric.calls.append((self._host, verb, guest_id, str(said)))
        if cause := self._fabric.refusals.get(verb):
            raise DriverError(cause)

    def _running(self, guest_id: str) -> Room:
        room = self._rooms.get(guest_id)
        if room is None or room.power is not Power.RUNNING:
            raise DriverError("its virtual machine does not run on this host")
        return room


def _is_held(line: socket.socket) -> bool:
    """Whether the other end is open."""
    try:
        return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _state(room: Room) -> tuple[GuestState, str]:
    match room.power:
        case Power.RUNNING:
            return GuestState.RUNNING, ""
        case Power.LEFT:
            return GuestState.ELSEWHERE, ""
        case Power.MADE:
            return GuestState.PREPARED, ""
        case Power.HALTED:
            cause = "" if room.is_asked else room.cause
            return (GuestState.SUSPENDED, cause) if room.has_run else (GuestState.PREPARED, "")
        case Power.SAVED:
            return GuestState.SAVED, ""
        case Power.STOPPED:
            return GuestState.ABSENT, ""
        case Power.OFF if room.part is not Part.OWN or room.has_left:
            return GuestState.ELSEWHERE, ""
        case Power.OFF:
            return GuestState.FAILED, room.cause or "its virtual machine has ended"


def _observed(room: Room) -> Observed:
    state, cause = _state(room)
    guest = room.guest
    return Observed(
        guest=guest.id,
        state=state,
        cause=cause,
        playground=guest.playground,
        name=guest.name,
        move=room.move,
        nics=guest.nics,
        made_of=guest.made_of,
        copy=room.copy,
        reboots=guest.reboots,
        resumes=guest.resumes,
        ended=room.ended,
        ended_cause=room.ended_cause,
    )
