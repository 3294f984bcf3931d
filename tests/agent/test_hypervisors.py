"""What is done about guests that a hypervisor copies: it is told to, told to stop, and believed where they run."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from playground.agent.guests import Guests
from playground.derive import Role, Want
from playground.machine import Machine
from playground.workspaces.drivers.api import Copy, CopyState, Guest, GuestState, Hypervisor, Nic, Observed, Sending
from playground.workspaces.drivers.memory_hypervisor import Fabric, MemoryHypervisor, Part, Power, Room

NIC = Nic("0" * 12, "pg" + "0" * 12, "02:00:00:00:00:01", 1450, 0)
GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", (NIC,), 1, 96, Machine(kernel="/boot/vmlinuz"))


def a_want(role: Role, move: int = 0, concluded: int = 0, to: str = "", called_off: bool = False) -> Want:
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
        sending=Sending(to) if to else None,
        called_off=called_off,
    )


def a_sight(state: GuestState, move: int = 0, copy: Copy | None = None) -> Observed:
    return Observed(GUEST.id, state, "", "atlas", "w", move, GUEST.nics, GUEST.made_of, copy)


def a_room(seen: Observed) -> Room:
    """What a host has that is seen so."""
    power = {
        GuestState.RUNNING: Power.RUNNING,
        GuestState.PREPARED: Power.MADE,
        GuestState.SUSPENDED: Power.HALTED,
        GuestState.SAVED: Power.SAVED,
        GuestState.ELSEWHERE: Power.LEFT,
    }.get(seen.state, Power.OFF)
    assert seen.made_of is not None
    cpus, memory, machine = seen.made_of
    guest = replace(GUEST, cpus=cpus, memory_mib=memory, machine=machine, reboots=seen.reboots, resumes=seen.resumes)
    has_run = seen.state not in (GuestState.PREPARED, GuestState.FAILED)
    return Room(guest, Part.OWN, power, seen.move, not seen.cause, has_run, seen.cause, seen.copy)


def done(want: Want | None, seen: Observed | None, cause: str = "", is_certain: bool = True) -> list[str]:
    """What the hypervisor is told in one pass."""

    async def work() -> list[str]:
        fabric = Fabric(stepped=True)
        told = MemoryHypervisor("n1", fabric)
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
            certain=lambda: is_certain,
        )
        if seen is not None:
            fabric.put("n1", a_room(seen))
        await guests.observe()
        if seen is not None:
            found = guests.observed[GUEST.id][1]
            assert found == replace(seen, cause=found.cause, has_vanished=False)
            guests.observed[GUEST.id] = ("libvirt", replace(found, has_vanished=seen.has_vanished))
        if cause:
            fabric.away["n1"] = cause
            await guests.observe()
            assert guests.away == {"libvirt": cause} and guests.state(GUEST.id) is (
                seen.state if seen is not None else GuestState.ABSENT
            )
        guests.step({GUEST.id: want} if want is not None else {}, {GUEST.id}, may_open=True)
        await asyncio.gather(*guests._busy.values())
        return [f"{verb} {argument}".strip() for _, verb, _, argument in fabric.calls]

    return asyncio.run(work())


RUNNING, PREPARED, ELSEWHERE, FAILED, SUSPENDED, SAVED = (
    GuestState.RUNNING,
    GuestState.PREPARED,
    GuestState.ELSEWHERE,
    GuestState.FAILED,
    GuestState.SUSPENDED,
    GuestState.SAVED,
)
HALTED = replace(a_sight(SUSPENDED), cause="suspended by another tool")


def newer(want: Want, **numbers: int) -> Want:
    """The same of a guest that more was asked of."""
    return replace(want, guest=replace(want.guest, **numbers))


TO = "qemu+tcp://192.0.2.12/system"


@pytest.mark.parametrize(
    ("want", "seen", "told"),
    [
        (a_want(Role.RUN), None, ["prepare"]),
        (a_want(Role.RUN), a_sight(PREPARED), ["start"]),
        (a_want(Role.RUN), a_sight(RUNNING), []),
        (a_want(Role.RUN), a_sight(FAILED), ["prepare"]),
        (a_want(Role.RUN), replace(a_sight(RUNNING), made_of=(1, 128, GUEST.machine)), ["stop"]),
        (newer(a_want(Role.RUN), reboots=1), a_sight(RUNNING), ["stop"]),
        (newer(a_want(Role.RUN), reboots=1), replace(a_sight(RUNNING), reboots=1), []),
        (newer(a_want(Role.RUN), reboots=1), a_sight(SUSPENDED), ["stop"]),
        (a_want(Role.RUN), a_sight(SUSPENDED), ["start"]),
        (a_want(Role.RUN), HALTED, []),
        (newer(a_want(Role.RUN), resumes=1), HALTED, ["start"]),
        (newer(a_want(Role.RUN), resumes=1), replace(HALTED, resumes=1), []),
        (newer(a_want(Role.RUN), resumes=1), a_sight(RUNNING), []),
        (a_want(Role.RUN), a_sight(SAVED), ["prepare"]),
        (newer(a_want(Role.RUN), reboots=1), a_sight(SAVED), ["prepare"]),
        (a_want(Role.SUSPEND), a_sight(RUNNING), ["suspend"]),
        (a_want(Role.SUSPEND), a_sight(SUSPENDED), []),
        (a_want(Role.SUSPEND), HALTED, []),
        (a_want(Role.SUSPEND), a_sight(PREPARED), []),
        (a_want(Role.SUSPEND), None, ["prepare"]),
        (a_want(Role.SUSPEND), a_sight(FAILED), ["prepare"]),
        (a_want(Role.SUSPEND), a_sight(SAVED), ["prepare"]),
        (a_want(Role.SUSPEND, 5, 5), a_sight(ELSEWHERE, 5, Copy(5, CopyState.DONE)), ["prepare"]),
        (a_want(Role.SAVE), a_sight(RUNNING), ["save"]),
        (a_want(Role.SAVE), a_sight(SUSPENDED), ["save"]),
        (a_want(Role.SAVE), HALTED, ["save"]),
        (a_want(Role.SAVE), a_sight(SAVED), []),
        (a_want(Role.SAVE), a_sight(FAILED), []),
        (a_want(Role.SAVE), None, []),
        (a_want(Role.STOP), a_sight(SUSPENDED), ["stop"]),
        (a_want(Role.STOP), a_sight(SAVED), ["stop"]),
        (a_want(Role.AWAY, 5, 5), a_sight(SAVED, 5), []),
        (replace(a_want(Role.AWAY, 5, 5), placed=5), a_sight(SAVED), ["stop"]),
        (a_want(Role.HOLD, 5, 4), a_sight(SUSPENDED), []),
        (None, a_sight(SAVED), ["remove"]),
        (None, a_sight(SUSPENDED), ["remove"]),
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
        (a_want(Role.RUN, 5, 5), replace(HALTED, copy=Copy(5, CopyState.RUNNING)), ["call_off"]),
        (a_want(Role.RUN, 5, 4), replace(HALTED, copy=Copy(5, CopyState.RUNNING)), []),
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


async def nothing(*_: object) -> None:
    return None


def some_guests(fabric: Fabric) -> Guests:
    return Guests(
        {"libvirt": MemoryHypervisor("n1", fabric)},
        ready=lambda want: True,
        stale=lambda want: True,
        anew=lambda want: None,
        passed=nothing,
        again=lambda: None,
        landed=nothing,
    )


def word(want: Want, seen: Observed, later: Want | None = None, then: Observed | None = None) -> list[bool]:
    """Whether a machine that announces itself is believed, at once and after another pass."""

    async def work() -> list[bool]:
        fabric = Fabric(stepped=True)
        guests = some_guests(fabric)
        fabric.put("n1", a_room(seen))
        await guests.observe()
        guests.step({GUEST.id: want}, {GUEST.id}, may_open=False)
        believed = [guests.announced(GUEST.id) is not None and GUEST.id in guests.arrived()]
        if later is not None:
            fabric.put("n1", a_room(then or seen))
            await guests.observe()
            guests.step({GUEST.id: later}, {GUEST.id}, may_open=False)
            believed.append(guests.is_announced(GUEST.id))
        await asyncio.gather(*guests._busy.values())
        return believed

    return asyncio.run(work())


@pytest.mark.parametrize("role", Role)
def test_a_machine_is_believed_that_it_is_here_only_where_it_is_about_to_come(role: Role) -> None:
    assert word(a_want(role, 5, 4), a_sight(ELSEWHERE, 5)) == [role is Role.TAKE]


def test_a_machines_word_counts_until_its_hypervisor_speaks_or_the_move_is_over() -> None:
    take, seen = a_want(Role.TAKE, 5, 4), a_sight(ELSEWHERE, 5)
    assert word(take, seen, take) == [True, True]
    assert word(take, seen, a_want(Role.RUN, 5, 4)) == [True, True]
    assert word(take, seen, take, a_sight(RUNNING, 5)) == [True, False]
    assert word(take, seen, a_want(Role.AWAY, 5, 5)) == [True, False]
    assert word(take, seen, a_want(Role.TAKE, 7, 6)) == [True, False]


@pytest.mark.parametrize("role", Role)
def test_only_what_a_hypervisor_copies_here_is_listened_for(role: Role) -> None:
    async def work() -> None:
        guests = some_guests(Fabric())
        guests.step({GUEST.id: a_want(role, 5, 4)}, {GUEST.id}, may_open=False)
        assert guests.expected() == ({NIC.device: (GUEST.id, NIC.mac)} if role is Role.TAKE else {})
        await asyncio.gather(*guests._busy.values())

    asyncio.run(work())


def test_what_stands_still_to_go_on_elsewhere_is_believed_by_its_hypervisors_word_alone() -> None:
    async def work() -> None:
        fabric = Fabric(stepped=True)
        guests = some_guests(fabric)
        fabric.put("n1", a_room(a_sight(RUNNING, 0, Copy(5, CopyState.RUNNING))))
        await guests.observe()
        assert guests.paused(GUEST.id) is None, "nobody wants anything of it"
        guests.step({GUEST.id: a_want(Role.RUN, 5, 4, TO)}, {GUEST.id}, may_open=True)
        assert guests.paused(GUEST.id) is not None and guests.paused(GUEST.id) is None
        seen = guests.observed[GUEST.id][1]
        assert seen.state is ELSEWHERE and seen.copy == Copy(5, CopyState.PAUSED)
        assert guests.paused("f" * 12) is None
        await asyncio.gather(*guests._busy.values())

    asyncio.run(work())


FOLLOWED = replace(a_want(Role.RUN, 5, 4), is_followed=True)


@pytest.mark.parametrize(
    ("want", "seen", "told"),
    [
        (FOLLOWED, a_sight(RUNNING), ["follow 5"]),
        (FOLLOWED, a_sight(FAILED), ["follow 5"]),
        (FOLLOWED, a_sight(ELSEWHERE), ["follow 5"]),
        (FOLLOWED, a_sight(RUNNING, 0, Copy(4, CopyState.FAILED)), ["follow 5"]),
        (FOLLOWED, a_sight(RUNNING, 0, Copy(5, CopyState.RUNNING)), []),
        (replace(FOLLOWED, called_off=True), a_sight(RUNNING, 0, Copy(5, CopyState.RUNNING)), ["call_off"]),
        (a_want(Role.AWAY, 5, 5), a_sight(FAILED), ["depart"]),
    ],
)
def test_what_is_told_of_a_copy_that_somebody_else_began(want: Want, seen: Observed, told: list[str]) -> None:
    assert done(want, seen) == told


@pytest.mark.parametrize("is_certain", [False, True])
def test_one_that_vanished_is_made_anew_only_by_what_the_controller_says_now(is_certain: bool) -> None:
    assert done(a_want(Role.RUN), replace(a_sight(FAILED), has_vanished=True), is_certain=is_certain) == (
        ["prepare"] if is_certain else []
    )


@pytest.mark.parametrize("learns", range(6))
@pytest.mark.parametrize("fails", [False, True])
def test_whenever_its_host_learns_of_a_copy_it_says_how_that_ended(learns: int, fails: bool) -> None:
    async def work() -> Copy | None:
        fabric = Fabric(stepped=True)
        source, target = MemoryHypervisor("n1", fabric), MemoryHypervisor("n2", fabric)
        await source.prepare(GUEST)
        await source.start(GUEST)
        await target.expect(GUEST, 5)
        assert not await source.is_leaving(GUEST.id)
        fabric.begin(GUEST.id, "n1", "n2")
        assert await source.is_leaving(GUEST.id)
        for step in range(6):
            if step == learns:
                await source.follow(GUEST, 5)
            if fails and step == 2:
                fabric.fail(GUEST.id, "canceled by client")
            fabric.advance(GUEST.id)
        await source.follow(GUEST, 5)  # as an agent does that looks again
        return (await source.observe())[GUEST.id].copy

    copy = asyncio.run(work())
    assert copy is not None
    assert (copy.move, copy.state) == (5, CopyState.FAILED if fails else CopyState.DONE)
