"""What every workspace driver does: it makes guests and the ends of their ports, and knows nothing of networks or
bridges.

All verbs are idempotent and may be interrupted at any instruction; the next call finishes the work. A driver keeps no
state of its own that a restart would lose: `observe` reads what really runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

from playground.machine import Machine
from playground.manner import PLAIN, Manner
from playground.records import Move
from playground.workspaces.departure import Arrival, Departure


@dataclass(frozen=True, slots=True)
class Nic:
    """One port of a guest. device: the name that its end must have in the data plane namespace. mtu: guest IP packet,
    bytes."""

    port: str
    device: str
    mac: str
    mtu: int
    index: int


MadeOf = tuple[float, int, Machine]
"""Processors, memory in MiB, and the rest of a virtual machine."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A workspace as a driver sees it. id: 12 hex digits. hostname: its DNS label. nics in order, eth0 first. cpus,
    memory_mib, machine: of one on a hypervisor. reboots, resumes: how many of each have been asked for so far."""

    id: str
    playground: str
    name: str
    hostname: str
    nics: tuple[Nic, ...]
    cpus: float = 0.0
    memory_mib: int = 0
    machine: Machine | None = None
    reboots: int = 0
    resumes: int = 0

    @property
    def made_of(self) -> MadeOf | None:
        """As of a workspace's record: None of one on no hypervisor."""
        return (self.cpus, self.memory_mib, self.machine) if self.machine is not None else None


class GuestState(Enum):
    """What a driver finds. PREPARED: ends exist, the guest does not run yet. ELSEWHERE: it runs, carried by another
    host. SUSPENDED: it has run, and stands still in memory. SAVED: its memory is a file, its ends are gone."""

    ABSENT = "absent"
    PREPARED = "prepared"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SAVED = "saved"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"


class CopyState(Enum):
    """How the copying of a guest stands, as the host that it leaves knows. PAUSED: it stands still, about to go on
    there."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Copy:
    """What a hypervisor says of copying a guest to another host. move: the move that it is for. cause: why it failed.
    done: of its memory, 0 to 1. pause_ms: how long the guest stood still, once that is known."""

    move: int
    state: CopyState
    cause: str = ""
    done: float = 0.0
    pause_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One guest as found now. cause says why when FAILED, and when SUSPENDED by nobody who asked for it through us.
    playground and name: as it was made, where the driver knows. move: the generation of the move that brought it to the
    host that carries it, 0 when none did. nics, made_of: what it was made with; empty where the driver does not make
    them. copy: of the last move away from here. reboots: as it was made; resumes: as it was let run last. ended: how
    often it has ended by itself here, and ended_cause: why it did last. has_vanished: its hypervisor does not know it
    any more, and nobody here what became of it: it may have gone to another host."""

    guest: str
    state: GuestState
    cause: str = ""
    playground: str = ""
    name: str = ""
    move: int = 0
    nics: tuple[Nic, ...] = ()
    made_of: MadeOf | None = None
    copy: Copy | None = None
    reboots: int = 0
    resumes: int = 0
    ended: int = 0
    ended_cause: str = ""
    has_vanished: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """A command started inside a guest (or its host). pid is in the agent's own pid namespace."""

    pid: int


@dataclass(frozen=True, slots=True)
class Sending:
    """Where a guest is to be copied, and how. to, folder: the target's `Hypervisor.peer` and `Hypervisor.folder`.
    is_one_kernel: its disks are the same files there, found so by the kernel that both hosts are of."""

    to: str
    folder: str = ""
    manner: Manner = PLAIN
    is_one_kernel: bool = False


class DriverError(Exception):
    """The driver could not do it; the text is one sentence of cause for `status`."""


class Driver(Protocol):
    """The seam between the agent and a hypervisor. `host` below is the host whose agent calls."""

    name: str
    move: Move
    domain: str
    """Moves of kind same-kernel work between hosts whose domains are equal and not empty."""

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        """Every guest of this driver with anything on this host, by guest id. guests: only these of them are looked
        for."""
        ...

    async def prepare(self, guest: Guest) -> None:
        """The ends of all ports exist in the data plane namespace, up, in no bridge; the guest does not run."""
        ...

    async def prepare_arrival(self, guest: Guest) -> None:
        """Like `prepare`, for a guest that runs on another host and will be moved here; it goes on undisturbed."""
        ...

    async def start(self, guest: Guest) -> None:
        """The guest runs. Called once its ports are programmed, so its first DISCOVER is answered."""
        ...

    async def renew(self, guest_id: str) -> None:
        """The guest's DHCP clients ask again, because what they are to be told has changed. Does what it can."""
        ...

    async def activate(self, guest: Guest, move: int = 0) -> float:
        """The guest's traffic goes by this host from now on; returns its pause in ms. move: what `observe` then says
        brought it here. Raises DriverError once another host has reclaimed the guest from that move, or a later one."""
        ...

    async def reclaim(self, guest: Guest, move: int) -> float:
        """Like `activate`, by the host that the guest belongs to now that this move is over: from now on no `activate`
        for it succeeds elsewhere. Raises DriverError when a later move has brought the guest where it is."""
        ...

    async def depart(self, guest_id: str) -> None:
        """This host's ends of a guest that has moved away, or has not arrived, are gone; the guest goes on where it
        is."""
        ...

    async def stop(self, guest_id: str, grace_s: float) -> None:
        """The guest is gone with all its ends: asked first, after `grace_s` made to."""
        ...

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        """A new terminal, one of the guest's own: descriptors of its master and its slave, the caller's to close."""
        ...

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        """Starts a command inside the guest with these file descriptors. tty: stdin is a pty's slave, made
        controlling."""
        ...


@runtime_checkable
class Hypervisor(Driver, Protocol):
    """A driver whose guests are copied from host to host by what runs them: where one is, that decides and tells.

    Its `activate` and `reclaim` say that a guest runs here, and are refused where it does not. Its `stop` leaves what
    the guest has on disk, and no memory; anybody may start it then, and it is found, as ABSENT. Its `prepare` of a
    SAVED one makes it SUSPENDED, with the memory that it had; its `start` lets one go on that stands still, whoever had
    it do so.
    """

    peer: str
    """How other hosts' hypervisors reach this one's."""

    folder: Path
    """Where it has what it makes for its guests: their disks, what they write on their serial lines."""

    async def offered(self) -> bool:
        """Whether guests can be made here now."""
        ...

    async def expect(self, guest: Guest, move: int, copies_storage: bool = False) -> None:
        """As `prepare_arrival`; move: what `observe` says brought the guest here, once it runs here. copies_storage:
        disks that its host has made come along."""
        ...

    async def send(self, guest: Guest, move: int, sending: Sending) -> None:
        """Begins to copy a guest that runs here to another host; `observe` then says how that goes."""
        ...

    async def suspend(self, guest_id: str) -> None:
        """A guest that runs stands still, its memory and its ends where they are."""
        ...

    async def save(self, guest_id: str) -> None:
        """A guest's memory is a file on this host, and nothing of it runs or has ends. Raises DriverError when it can't
        be: then it goes on as it was."""
        ...

    async def console(self, guest_id: str, is_forced: bool) -> int:
        """The guest's first serial line: a stream socket's descriptor that carries its bytes both ways, the caller's to
        close, which gives the line back. is_forced: whoever else has it loses it. Raises DriverError."""
        ...

    async def said(self, guest_id: str) -> Path:
        """The file that all that the guest says on that line is added to. Raises DriverError where there is none."""
        ...

    async def departing(self, guest_id: str, to: str) -> Departure:
        """What a guest that runs here needs where it goes. to: that host's `peer`, which is tried."""
        ...

    async def arriving(self, departure: Departure, copies_storage: bool) -> Arrival:
        """Whether a guest that departs so might come; nothing is changed."""
        ...

    async def is_leaving(self, guest_id: str) -> bool:
        """Whether a guest is being copied from here to another host now, whoever had that begun."""
        ...

    async def follow(self, guest: Guest, move: int) -> None:
        """Somebody else has had a guest copied to another host, or is about to; `observe` says how that goes, as after
        `send`."""
        ...

    def begins(self, guest_id: str, is_so: bool) -> None:
        """Somebody else has the hypervisor start a guest of this host, and it answers nothing of that meanwhile: until
        this is no longer so, it is not asked."""
        ...

    async def make_room(self, guest: Guest) -> None:
        """The ends of all ports wait for a guest that somebody else has started here; the hypervisor is not asked."""
        ...

    async def call_off(self, guest_id: str) -> None:
        """What `send` began, if it is under way, ends; the guest goes on here."""
        ...

    async def remove(self, guest_id: str, grace_s: float) -> None:
        """As `stop`, and nothing of it is left."""
        ...
