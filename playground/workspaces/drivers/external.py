"""Workspaces that somebody else runs. Looks for the devices `pg<port id>` that they bring; makes and moves nothing.

The device is a tap or veth in this host's namespace; the overlay adopts it from there into the data plane namespace
and gives it back in the end. What this driver remembers is only what it was asked to watch: an agent that restarts asks
again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from enum import Enum
from pathlib import Path

from playground.records import Move
from playground.workspaces.drivers.api import DriverError, Guest, GuestState, Observed, Process
from playground.workspaces.drivers.nic import device_names

_NO_WAY_IN = "an external workspace is run by somebody else, who alone can start commands in it"


class _Part(Enum):
    """This host's part in a guest: its device is here, it counts as running here, or it will come here."""

    PREPARED = GuestState.PREPARED
    STARTED = GuestState.RUNNING
    EXPECTED = GuestState.ELSEWHERE


class ExternalDriver:
    """dataplane: the data plane namespace's name in /run/netns, or the path of a namespace."""

    name = "external"
    move: Move = "live"
    domain = ""

    def __init__(self, dataplane: str = "playground") -> None:
        self._dataplane = Path("/run/netns") / dataplane
        self._watched: dict[str, tuple[Guest, _Part]] = {}
        self._moves: dict[str, int] = {}
        self._asked: set[str] = set()
        self._look: asyncio.Task[frozenset[str]] | None = None
        """Begins at the loop's next turn, and answers for all devices that were asked for before."""

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        """Every guest that was prepared here and not stopped, or these of them; FAILED names a device that is gone."""
        watched = {id: seen for id, seen in self._watched.items() if guests is None or id in guests}
        devices = await self._devices(*(guest for guest, _ in watched.values()))
        return {id: _observed(guest, part, devices, self._moves.get(id, 0)) for id, (guest, part) in watched.items()}

    async def prepare(self, guest: Guest) -> None:
        """Raises DriverError until all devices are there."""
        part = self._watched.get(guest.id, (guest, _Part.PREPARED))[1]
        await self._watch(guest, _Part.PREPARED if part is _Part.EXPECTED else part)

    async def prepare_arrival(self, guest: Guest) -> None:
        """As `prepare`: whoever moves the guest makes its device here first."""
        await self._watch(guest, self._watched.get(guest.id, (guest, _Part.EXPECTED))[1])

    async def start(self, guest: Guest) -> None:
        """Starts nothing; from now on the guest counts as running."""
        await self._watch(guest, _Part.STARTED)

    async def renew(self, guest_id: str) -> None:
        """Nothing: its clients are its owner's."""

    async def activate(self, guest: Guest, move: int = 0) -> float:
        """Moves nothing, as somebody else did; how long the guest paused is not known here, so 0."""
        await self.start(guest)
        self._moves[guest.id] = move
        return 0.0

    async def reclaim(self, guest: Guest, move: int) -> float:
        """As `activate`: where the guest is, only its owner decides."""
        return await self.activate(guest, move)

    async def depart(self, guest_id: str) -> None:
        """Watches the guest no longer."""
        self._forget(guest_id)

    async def stop(self, guest_id: str, grace_s: float) -> None:
        """Ends nothing; watches the guest no longer."""
        self._forget(guest_id)

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        """Always raises DriverError, as `exec` does."""
        raise DriverError(_NO_WAY_IN)

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        """Always raises DriverError: there is no way in."""
        raise DriverError(_NO_WAY_IN)

    async def _watch(self, guest: Guest, part: _Part) -> None:
        if missing := _missing(guest, await self._devices(guest)):
            raise DriverError(f"waits for a tap or veth named {missing} in this host's namespace")
        self._watched[guest.id] = (guest, part)

    def _forget(self, guest_id: str) -> None:
        self._watched.pop(guest_id, None)
        self._moves.pop(guest_id, None)

    async def _devices(self, *guests: Guest) -> frozenset[str]:
        """Names of those of these guests' devices that are there, and perhaps of others: an agent that begins asks for
        all of its guests in one moment, each by itself."""
        self._asked.update(nic.device for guest in guests for nic in guest.nics)
        if self._look is None:
            self._look = asyncio.create_task(self._find_asked())
        return await asyncio.shield(self._look)

    async def _find_asked(self) -> frozenset[str]:
        await asyncio.sleep(0)
        asked, self._asked, self._look = self._asked, set(), None
        return await asyncio.to_thread(self._find, asked)

    def _find(self, wanted: set[str]) -> frozenset[str]:
        """Which of these names devices have in this host's namespace or, if there is one, the data plane namespace."""
        found: frozenset[str] = frozenset()
        for namespace in (Path("/proc/thread-self/ns/net"), self._dataplane):
            try:
                descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                found |= device_names(descriptor, wanted)
            finally:
                os.close(descriptor)
        return found


def _missing(guest: Guest, devices: frozenset[str]) -> str:
    return next((nic.device for nic in guest.nics if nic.device not in devices), "")


def _observed(guest: Guest, part: _Part, devices: frozenset[str], move: int) -> Observed:
    state, cause = part.value, ""
    if missing := _missing(guest, devices):
        state, cause = GuestState.FAILED, f"its tap or veth {missing} is gone"
    return Observed(guest.id, state, cause, guest.playground, guest.name, move)
