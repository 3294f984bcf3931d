"""Workspaces that are only remembered: the double of the netns driver, held to it by one suite. Touches no kernel.

Hosts that share a `Machine` are hosts of one kernel; whoever holds it sees what guests exist, what ends each host has,
and can break things (`die`, `lose_ends`) as a kernel would.
"""

from __future__ import annotations

import os
import pty
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from playground.records import Move
from playground.workspaces.drivers.api import DriverError, Guest, GuestState, Observed, Process


@dataclass(slots=True)
class MemoryGuest:
    """A remembered guest. host: who carries its traffic. ends: the hosts that have its ends."""

    guest: Guest
    host: str
    ends: set[str] = field(default_factory=set)
    running: bool = False
    alive: bool = True
    move: int = 0


@dataclass(slots=True)
class Machine:
    """What the hosts of one kernel share. calls: every verb, as (host, verb, guest id), for tests to read."""

    guests: dict[str, MemoryGuest] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    """Verb → cause: that verb raises DriverError for as long as it stands here."""

    def die(self, guest_id: str) -> None:
        """The guest's init ends unasked, and its ends with it."""
        self.guests[guest_id].alive = False
        self.guests[guest_id].ends.clear()

    def lose_ends(self, guest_id: str, host: str) -> None:
        """Somebody removes this host's ends of the guest."""
        self.guests[guest_id].ends.discard(host)


class MemoryDriver:
    """The driver of one host of a `Machine`."""

    name = "memory"
    move: Move = "same-kernel"

    def __init__(self, host: str, machine: Machine) -> None:
        self._host = host
        self._machine = machine
        self.domain = f"machine-{id(machine)}"

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        """Every guest with anything on this host, or these of them."""
        entries = (entry for id, entry in self._machine.guests.items() if guests is None or id in guests)
        found = map(self._observed, entries)
        return {seen.guest: seen for seen in found if seen is not None}

    async def prepare(self, guest: Guest) -> None:
        """The guest exists with ends here; one that runs here gets lost ends back."""
        self._note("prepare", guest.id)
        entry = self._machine.guests.get(guest.id)
        if entry is not None and entry.alive and entry.host != self._host:
            if entry.host in entry.ends:
                raise DriverError(f"it runs on host {entry.host}: move it from there, or stop it there first")
            entry = None
        if entry is not None and entry.alive and entry.guest.nics != guest.nics:
            if entry.running:
                raise DriverError("its NICs differ from those it runs with: stop it first")
            entry = None
        if entry is None or not entry.alive:
            entry = self._machine.guests[guest.id] = MemoryGuest(guest, self._host)
        entry.ends.add(self._host)

    async def prepare_arrival(self, guest: Guest) -> None:
        """Ends here, beside those of the host that carries the guest."""
        self._note("prepare_arrival", guest.id)
        self._alive(guest.id).ends.add(self._host)

    async def start(self, guest: Guest) -> None:
        """The guest runs."""
        self._note("start", guest.id)
        entry = self._alive(guest.id)
        if entry.host != self._host:
            raise DriverError(f"it runs on host {entry.host}")
        entry.running = True

    async def renew(self, guest_id: str) -> None:
        """Notes that it was asked."""
        self._note("renew", guest_id)
        self._alive(guest_id)

    async def activate(self, guest: Guest, move: int = 0) -> float:
        """This host carries the guest; no pause."""
        self._note("activate", guest.id)
        entry = self._alive(guest.id)
        if move and entry.move >= move and entry.host != self._host:
            raise DriverError(f"it was called off: host {entry.host} has it")
        return self._flip(entry, move)

    async def reclaim(self, guest: Guest, move: int) -> float:
        """This host carries the guest, and no host does by that move any more."""
        self._note("reclaim", guest.id)
        entry = self._alive(guest.id)
        if entry.move > move:
            raise DriverError(f"a later move has brought it to host {entry.host}")
        return self._flip(entry, move)

    async def depart(self, guest_id: str) -> None:
        """No ends here any more."""
        self._note("depart", guest_id)
        entry = self._machine.guests.get(guest_id)
        if entry is not None and entry.alive and entry.host == self._host:
            raise DriverError("its traffic goes by this host: move it away first")
        if entry is not None:
            entry.ends.discard(self._host)

    async def stop(self, guest_id: str, grace_s: float) -> None:
        """The guest is gone; where another host carries it, only this host's ends."""
        self._note("stop", guest_id)
        entry = self._machine.guests.get(guest_id)
        if entry is not None and entry.alive and entry.host != self._host:
            entry.ends.discard(self._host)
        else:
            self._machine.guests.pop(guest_id, None)

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        """One of this machine's."""
        self._alive(guest_id)
        return pty.openpty()

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        """Runs the command on this machine, as there is no guest to run it in."""
        self._note("exec", guest_id)
        self._alive(guest_id)
        copies = [os.dup(fd) for fd in (stdin, stdout, stderr)]
        try:
            actions = [(os.POSIX_SPAWN_DUP2, copy, target) for target, copy in enumerate(copies)]
            return Process(os.posix_spawnp(argv[0], list(argv), dict(os.environ), file_actions=actions))
        except FileNotFoundError as error:
            raise DriverError(f"{argv[0]}: not found") from error
        finally:
            for copy in copies:
                os.close(copy)

    def _note(self, verb: str, guest_id: str) -> None:
        self._machine.calls.append((self._host, verb, guest_id))
        if cause := self._machine.refusals.get(verb):
            raise DriverError(cause)

    def _alive(self, guest_id: str) -> MemoryGuest:
        entry = self._machine.guests.get(guest_id)
        if entry is None or not entry.alive:
            raise DriverError("it does not run on this kernel" if entry is None else "its init has ended")
        return entry

    def _flip(self, entry: MemoryGuest, move: int) -> float:
        if self._host not in entry.ends:
            raise DriverError("its arrival on this host is not prepared")
        entry.host, entry.move = self._host, move
        return 0.0

    def _observed(self, entry: MemoryGuest) -> Observed | None:
        is_here = self._host in entry.ends
        if entry.host != self._host:
            return _seen(entry, GuestState.ELSEWHERE) if is_here and entry.alive else None
        if not entry.alive:
            return _seen(entry, GuestState.FAILED, "its init has ended unasked")
        cause = "" if is_here else "its ends are gone from the data plane namespace"
        if entry.running:
            return _seen(entry, GuestState.RUNNING, cause)
        return _seen(entry, GuestState.PREPARED if is_here else GuestState.ABSENT, cause)


def _seen(entry: MemoryGuest, state: GuestState, cause: str = "") -> Observed:
    guest = entry.guest
    return Observed(guest.id, state, cause, guest.playground, guest.name, entry.move, guest.nics, reboots=guest.reboots)
