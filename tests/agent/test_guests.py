"""Who may take a guest that is found elsewhere: only by records that know of the move that brought it there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from dataclasses import replace

import pytest

from playground.agent import guests as guests_module
from playground.agent.guests import Guests
from playground.agent.reports import observed_workspace
from playground.derive import Role, Want
from playground.workspaces.drivers.api import DriverError, Guest, GuestState, Nic, Observed
from playground.workspaces.drivers.memory import Machine, MemoryDriver

GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", (Nic("0" * 12, "pg" + "0" * 12, "02:00:00:00:00:01", 1450, 0),))


def a_want(role: Role, move: int, concluded: int) -> Want:
    return Want(
        id=GUEST.id,
        playground="atlas",
        name="w",
        driver="memory",
        role=role,
        generation=1,
        guest=GUEST,
        ports=("0" * 12,),
        adopt=False,
        move=move,
        concluded=concluded,
    )


async def nothing() -> None:
    return None


class Host:
    """One host's guests over a shared machine; `turn` is one pass, waited out."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.driver = MemoryDriver(name, machine)
        self.guests = Guests(
            {"memory": self.driver},
            ready=lambda want: True,
            stale=lambda want: False,
            anew=lambda want: None,
            passed=nothing,
            again=lambda: None,
            landed=self._landed,
        )
        self.landed: list[GuestState] = []
        """What was to be said of the guest whenever its traffic had just come here."""

    async def _landed(self, want: Want) -> None:
        self.landed.append(self.guests.state(want.id))

    async def turn(self, want: Want) -> None:
        await self.guests.observe()
        self.guests.step({want.id: want}, {want.id}, may_open=True)
        await asyncio.gather(*self.guests._busy.values())


async def moved(machine: Machine, move: int) -> tuple[Host, Host]:
    """A guest that ran on n1 and that move number `move` has just brought to n2; both still have its ends."""
    source, target = Host("n1", machine), Host("n2", machine)
    await source.driver.prepare(GUEST)
    await source.driver.start(GUEST)
    await target.driver.prepare_arrival(GUEST)
    await target.driver.activate(GUEST, move)
    return source, target


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(whole())


@pytest.mark.parametrize(("known", "concluded"), [(0, 0), (6, 6), (7, 6)])
def test_a_source_that_does_not_know_the_move_to_be_over_leaves_its_guest_where_it_went(
    known: int, concluded: int
) -> None:
    async def work() -> None:
        machine = Machine()
        source, _ = await moved(machine, 7)
        await source.turn(a_want(Role.RUN, known, concluded))
        assert machine.guests[GUEST.id].host == "n2"

    run(work())


def test_a_source_takes_its_guest_back_from_a_move_that_was_called_off() -> None:
    async def work() -> None:
        machine = Machine()
        source, target = await moved(machine, 7)
        await source.turn(a_want(Role.RUN, 7, 7))
        assert machine.guests[GUEST.id].host == "n1"
        await target.turn(a_want(Role.TAKE, 7, 6))  # it has not heard yet that its move was called off
        assert machine.guests[GUEST.id].host == "n1"

    run(work())


def test_a_source_that_takes_its_guest_back_while_it_is_moved_again_stops_no_move() -> None:
    """Its target flipped alone after the first move was called off, and the source was away then."""

    async def work() -> None:
        machine = Machine()
        source, target = await moved(machine, 7)
        await source.turn(a_want(Role.RUN, 9, 8))
        assert machine.guests[GUEST.id].host == "n1"
        await target.turn(a_want(Role.TAKE, 9, 8))
        assert machine.guests[GUEST.id].host == "n2"
        assert target.guests.has_arrived(a_want(Role.TAKE, 9, 8))

    run(work())


def test_a_target_whose_flip_is_late_finds_its_move_called_off() -> None:
    """The source's look comes before the flip: what it then says in the ledger is what keeps the guest with it."""

    async def work() -> None:
        machine = Machine()
        source, target = Host("n1", machine), Host("n2", machine)
        await source.driver.prepare(GUEST)
        await source.driver.start(GUEST)
        await target.driver.prepare_arrival(GUEST)
        await source.turn(a_want(Role.RUN, 7, 7))
        with pytest.raises(DriverError, match="called off"):
            await target.driver.activate(GUEST, 7)
        assert machine.guests[GUEST.id].host == "n1"
        machine.calls.clear()
        await source.turn(a_want(Role.RUN, 7, 7))
        assert machine.calls == []

    run(work())


def placed_anew(role: Role) -> Want:
    """Of a workspace that was removed and is placed again, after move number 7 and before number 11."""
    return replace(a_want(role, 9, 9), placed=9)


def test_where_a_workspace_is_placed_anew_the_guest_of_an_earlier_one_is_taken() -> None:
    """Its host never heard of the removal, and the new one had prepared for a move that was called off by it."""

    async def work() -> None:
        machine = Machine()
        source, target = await moved(machine, 7)
        await source.turn(placed_anew(Role.RUN))
        assert machine.guests[GUEST.id].host == "n1"
        await target.turn(placed_anew(Role.AWAY))
        assert machine.guests[GUEST.id].ends == {"n1"}

    run(work())


@pytest.mark.parametrize(("move", "stays"), [(0, False), (7, False), (11, True)])
def test_a_guest_from_before_its_workspace_was_placed_elsewhere_ends(move: int, stays: bool) -> None:
    """One that a later move has brought, which was called off, is taken back by its host."""

    async def work() -> None:
        machine = Machine()
        host = Host("n2", machine)
        await host.driver.prepare(GUEST)
        await host.driver.start(GUEST)
        if move:
            await host.driver.activate(GUEST, move)
        await host.turn(placed_anew(Role.AWAY))
        assert (GUEST.id in machine.guests) == stays

    run(work())


def test_a_guest_is_made_and_started_with_nothing_else_done_to_it() -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine)
        for _ in range(4):
            await host.turn(placed_anew(Role.RUN))
        assert [verb for _, verb, _ in machine.calls] == ["prepare", "start"]

    run(work())


def test_a_target_takes_what_it_is_told_to() -> None:
    async def work() -> None:
        machine = Machine()
        source, target = await moved(machine, 7)
        await source.turn(a_want(Role.TAKE, 8, 7))
        assert machine.guests[GUEST.id].host == "n1"
        assert source.guests.has_arrived(a_want(Role.TAKE, 8, 7))
        assert source.landed == [GuestState.RUNNING]
        assert not target.guests.has_arrived(a_want(Role.TAKE, 8, 7))

    run(work())


def test_a_cause_ends_with_what_it_was_the_cause_of() -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n2", machine)
        first, second = a_want(Role.ARRIVE, 7, 6), a_want(Role.ARRIVE, 8, 7)
        await host.guests.observe()
        host.guests.step({GUEST.id: first}, {GUEST.id}, may_open=True)
        while GUEST.id not in host.guests.causes:  # there is no such guest on this machine
            await asyncio.sleep(0)
        host.guests.step({GUEST.id: second}, {GUEST.id}, may_open=True)
        assert GUEST.id not in host.guests.causes
        for task in host.guests._busy.values():
            task.cancel()

    run(work())


class Blind(MemoryDriver):
    """A driver whose looks fail now and then."""

    fails: Exception | None = None

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails
        return await super().observe(guests)


@pytest.mark.parametrize("error", [DriverError("no namespace"), OSError(22, "Invalid argument"), KeyError("x")])
def test_a_guest_whose_look_failed_after_an_action_is_acted_on_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests_module, "RETRY_S", 0.01)

    async def work() -> None:
        host = Host("n1", Machine())
        driver = Blind("n1", Machine())
        host.driver, host.guests.drivers = driver, {"memory": driver}
        want = a_want(Role.RUN, 0, 0)
        await host.guests.observe()
        host.guests.step({want.id: want}, {want.id}, may_open=True)
        driver.fails = error
        await asyncio.gather(*host.guests._busy.values())
        assert not host.guests._busy
        for _ in range(2):  # what the failed look left is seen by the next; then the guest is started
            await host.guests.observe({want.id})
            host.guests.step({want.id: want}, (), may_open=True)
            await asyncio.gather(*host.guests._busy.values())
        assert host.guests.state(want.id) is GuestState.RUNNING

    asyncio.run(work())


def test_whoever_waits_for_a_look_that_fails_looks_for_itself() -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine)
        driver = Blind("n1", machine)
        host.guests.drivers = {"memory": driver}
        await driver.prepare(GUEST)
        driver.fails = DriverError("no namespace")
        first, second = await asyncio.gather(
            host.guests.observe({GUEST.id}), host.guests.observe({"f" * 12}), return_exceptions=True
        )
        assert isinstance(first, DriverError) and second is None
        assert host.guests.state(GUEST.id) is GuestState.PREPARED

    asyncio.run(work())


def test_a_guest_prepared_before_an_edit_of_its_nics_is_made_anew() -> None:
    async def work() -> None:
        host = Host("n1", Machine())
        await host.driver.prepare(GUEST)
        wider = replace(GUEST, nics=(*GUEST.nics, Nic("1" * 12, "pg" + "1" * 12, "02:00:00:00:00:02", 1450, 1)))
        want = replace(a_want(Role.RUN, 0, 0), guest=wider, ports=tuple(nic.port for nic in wider.nics))
        host.guests.ready = lambda want: host.guests.observed[want.id][1].nics == want.guest.nics
        for _ in range(3):
            await host.turn(want)
        assert host.guests.state(GUEST.id) is GuestState.RUNNING
        assert host.guests.observed[GUEST.id][1].nics == wider.nics

    asyncio.run(work())


def test_a_reboot_is_a_guest_made_anew_once() -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine)
        for want in (a_want(Role.RUN, 0, 0), replace(a_want(Role.RUN, 0, 0), guest=replace(GUEST, reboots=1))):
            for _ in range(5):
                await host.turn(want)
        assert [verb for _, verb, _ in machine.calls] == ["prepare", "start", "stop", "prepare", "start"]
        assert host.guests.observed[GUEST.id][1].reboots == 1

    run(work())


def test_what_is_made_anew_says_what_it_waits_for_and_has_not_failed() -> None:
    said = observed_workspace(
        "n1",
        a_want(Role.RUN, 0, 0),
        GuestState.RUNNING,
        cause="",
        is_ready=True,
        has_arrived=False,
        differs=True,
        pause_ms=None,
    )
    assert said.state == "preparing" and "what ran before ends first" in said.cause
