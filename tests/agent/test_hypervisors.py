"""What is done about guests that a hypervisor copies: it is told to, told to stop, and believed where they run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from playground.agent.guests import Guests
from playground.derive import Role, Want
from playground.machine import Machine
from playground.records import Move
from playground.workspaces.drivers.api import (
    Copy,
    CopyState,
    DriverError,
    Guest,
    GuestState,
    Hypervisor,
    Nic,
    Observed,
    Process,
    Sending,
)

NIC = Nic("0" * 12, "pg" + "0" * 12, "02:00:00:00:00:01", 1450, 0)
GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", (NIC,), 1, 96, Machine(kernel="/boot/vmlinuz"))


class Told:
    """A hypervisor that finds what it is given, and notes what it is told."""

    name = "libvirt"
    move: Move = "live"
    domain = ""
    peer = "qemu+tcp://192.0.2.11/system"

    def __init__(self) -> None:
        self.seen: dict[str, Observed] = {}
        self.calls: list[str] = []
        self.cause = ""

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        if self.cause:
            raise DriverError(self.cause)
        return {id: seen for id, seen in self.seen.items() if guests is None or id in guests}

    async def offered(self) -> bool:
        return not self.cause

    async def prepare(self, guest: Guest) -> None:
        self.calls.append("prepare")

    async def prepare_arrival(self, guest: Guest) -> None:
        self.calls.append("prepare_arrival")

    async def expect(self, guest: Guest, move: int) -> None:
        self.calls.append(f"expect {move}")

    async def start(self, guest: Guest) -> None:
        self.calls.append("start")

    async def renew(self, guest_id: str) -> None:
        self.calls.append("renew")

    async def send(self, guest: Guest, move: int, sending: Sending) -> None:
        self.calls.append(f"send {move} {sending.to}")

    async def call_off(self, guest_id: str) -> None:
        self.calls.append("call_off")

    async def activate(self, guest: Guest, move: int = 0) -> float:
        self.calls.append("activate")
        return 0.0

    async def reclaim(self, guest: Guest, move: int) -> float:
        self.calls.append("reclaim")
        return 0.0

    async def depart(self, guest_id: str) -> None:
        self.calls.append("depart")

    async def stop(self, guest_id: str, grace_s: float) -> None:
        self.calls.append("stop")

    async def remove(self, guest_id: str, grace_s: float) -> None:
        self.calls.append("remove")

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        raise DriverError("no way in")

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        raise DriverError("no way in")


def a_want(role: Role, move: int = 0, concluded: int = 0, send_to: str = "", called_off: bool = False) -> Want:
    return Want(
        id=GUEST.id,
        playground="atlas",
        name="w",
        driver="libvirt",
        role=role,
        generation=1,
        guest=GUEST,
        ports=(NIC.port,),
        adopt=True,
        move=move,
        concluded=concluded,
        send_to=send_to,
        called_off=called_off,
    )


def a_sight(state: GuestState, move: int = 0, copy: Copy | None = None) -> Observed:
    return Observed(GUEST.id, state, "", "atlas", "w", move, GUEST.nics, GUEST.made_of, copy)


def done(want: Want | None, seen: Observed | None, cause: str = "") -> list[str]:
    """What the hypervisor is told in one pass."""

    async def work() -> list[str]:
        told = Told()
        assert isinstance(told, Hypervisor)

        async def nothing(*_: object) -> None:
            return None

        guests = Guests(
            {"libvirt": told},
            ready=lambda want: True,
            stale=lambda want: True,
            anew=lambda want: None,
            passed=nothing,
            again=lambda: None,
            landed=nothing,
        )
        if seen is not None:
            told.seen[GUEST.id] = seen
        await guests.observe()
        if cause:
            told.cause = cause
            await guests.observe()
            assert guests.away == {"libvirt": cause} and guests.state(GUEST.id) is (
                seen.state if seen is not None else GuestState.ABSENT
            )
        guests.step({GUEST.id: want} if want is not None else {}, {GUEST.id}, may_open=True)
        await asyncio.gather(*guests._busy.values())
        return told.calls

    return asyncio.run(work())


RUNNING, PREPARED, ELSEWHERE, FAILED = (
    GuestState.RUNNING,
    GuestState.PREPARED,
    GuestState.ELSEWHERE,
    GuestState.FAILED,
)
TO = "qemu+tcp://192.0.2.12/system"


@pytest.mark.parametrize(
    ("want", "seen", "told"),
    [
        (a_want(Role.RUN), None, ["prepare"]),
        (a_want(Role.RUN), a_sight(PREPARED), ["start"]),
        (a_want(Role.RUN), a_sight(RUNNING), []),
        (a_want(Role.RUN), a_sight(FAILED), ["prepare"]),
        (a_want(Role.RUN), replace(a_sight(RUNNING), made_of=(1, 128, GUEST.machine)), ["stop"]),
        (a_want(Role.STOP), a_sight(RUNNING), ["stop"]),
        (None, a_sight(RUNNING), ["remove"]),
        (None, a_sight(ELSEWHERE), ["depart"]),
        (a_want(Role.ARRIVE, 5, 4), None, ["expect 5"]),
        (a_want(Role.ARRIVE, 5, 4), a_sight(ELSEWHERE, 5), []),
        (a_want(Role.ARRIVE, 5, 4), a_sight(ELSEWHERE, 3, Copy(3, CopyState.DONE)), ["expect 5"]),
        (a_want(Role.TAKE, 5, 4), a_sight(ELSEWHERE, 5), []),
        (a_want(Role.TAKE, 5, 4), a_sight(RUNNING, 5), []),
        (a_want(Role.RUN, 5, 4, TO), a_sight(RUNNING), [f"send 5 {TO}"]),
        (a_want(Role.RUN, 5, 4, TO), a_sight(RUNNING, 0, Copy(5, CopyState.RUNNING)), []),
        (a_want(Role.RUN, 5, 4, TO), a_sight(RUNNING, 0, Copy(5, CopyState.FAILED, "no")), []),
        (a_want(Role.RUN, 6, 5, TO), a_sight(RUNNING, 0, Copy(5, CopyState.FAILED, "no")), [f"send 6 {TO}"]),
        (a_want(Role.RUN, 5, 4, TO), a_sight(ELSEWHERE, 0, Copy(5, CopyState.PAUSED)), []),
        (a_want(Role.RUN, 5, 4, TO, True), a_sight(RUNNING, 0, Copy(5, CopyState.RUNNING)), ["call_off"]),
        (a_want(Role.RUN, 5, 5), a_sight(RUNNING, 0, Copy(5, CopyState.RUNNING)), ["call_off"]),
        (a_want(Role.RUN, 5, 5), a_sight(RUNNING, 0, Copy(5, CopyState.FAILED)), []),
        (a_want(Role.HOLD, 5, 4), a_sight(ELSEWHERE, 5, Copy(5, CopyState.DONE)), []),
        (a_want(Role.AWAY, 5, 5), a_sight(ELSEWHERE, 5, Copy(5, CopyState.DONE)), ["depart"]),
        (a_want(Role.AWAY, 5, 5), a_sight(RUNNING, 5), []),
        (a_want(Role.RUN, 5, 5), a_sight(ELSEWHERE, 5, Copy(5, CopyState.DONE)), ["prepare"]),
    ],
)
def test_what_a_hypervisor_is_told(want: Want | None, seen: Observed | None, told: list[str]) -> None:
    assert done(want, seen) == told


def test_a_hypervisor_that_is_away_leaves_its_guests_as_they_were() -> None:
    assert done(a_want(Role.RUN), a_sight(RUNNING), "no libvirtd at qemu:///system") == []


@pytest.mark.parametrize(("role", "move"), list(itertools.product(Role, (0, 5))))
def test_no_role_ends_a_machine_that_runs_but_that_it_is_wanted_stopped(role: Role, move: int) -> None:
    told = done(a_want(role, 5, 5), a_sight(RUNNING, move))
    assert ("stop" in told or "remove" in told) == (role is Role.STOP)
