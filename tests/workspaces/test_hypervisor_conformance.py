"""What every hypervisor's driver does with a machine: the same claims for the double, for libvirt's own test driver,
and for QEMU under libvirtd."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from libvirt_lab import Libvirtd, a_libvirtd, why_no_libvirtd

from playground.machine import Disk, Machine
from playground.workspaces.drivers import taps
from playground.workspaces.drivers.api import (
    CopyState,
    DriverError,
    Guest,
    GuestState,
    Hypervisor,
    Nic,
    Observed,
    Sending,
)
from playground.workspaces.drivers.libvirt.driver import LibvirtDriver
from playground.workspaces.drivers.libvirt.xml import domain_uuid
from playground.workspaces.drivers.memory_hypervisor import PAUSE_MS, Fabric, MemoryHypervisor, Phase
from tests.waiting import eventually

T = TypeVar("T")

NIC = Nic("7a010e8d8fc9", "pg7a010e8d8fc9", "02:00:00:00:00:01", 1450, 0)
GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", (NIC,), 1, 16, Machine(type="qemu", model="pc"))

RUNNING, PREPARED, SUSPENDED, SAVED, FAILED, ELSEWHERE = (
    GuestState.RUNNING,
    GuestState.PREPARED,
    GuestState.SUSPENDED,
    GuestState.SAVED,
    GuestState.FAILED,
    GuestState.ELSEWHERE,
)


class Lab:
    """One host with a hypervisor, and what others than its agent do there."""

    guest = GUEST
    driver: Hypervisor

    def __init__(self) -> None:
        self.told: list[str] = []
        self._runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.close()

    def restart_agent(self) -> None:
        """The driver begins anew, with what it left on the host."""

    def halt(self) -> None:
        """Somebody else suspends the machine."""

    def end(self) -> None:
        """The machine dies."""

    def seen(self, guest: Guest | None = None) -> Observed | None:
        id = (guest or self.guest).id
        some, whole = self.run(self.driver.observe({id, "f" * 12})), self.run(self.driver.observe())
        assert some.get(id) == whole.get(id), "a look at some differs from one at all"
        assert self.run(self.driver.observe(set())) == {}
        return whole.get(id)

    def state(self) -> GuestState | None:
        found = self.seen()
        return found.state if found is not None else None

    def bring_up(self) -> None:
        self.run(self.driver.prepare(self.guest))
        self.run(self.driver.start(self.guest))

    def hears(self, what: Callable[[], object]) -> None:
        """Something happens, and the driver is told of the machine."""
        self.told.clear()
        what()
        eventually(lambda: self.run(self._turn()) or self.guest.id in self.told, 10, "an event")

    async def _turn(self) -> None:
        await asyncio.sleep(0.01)


class Remembered(Lab):
    def __init__(self) -> None:
        super().__init__()
        self.fabric = Fabric()
        self.restart_agent()

    def restart_agent(self) -> None:
        self.driver = MemoryHypervisor("a", self.fabric, self.told.append)

    def halt(self) -> None:
        self.fabric.halt("a", GUEST.id, "suspended by another tool")

    def end(self) -> None:
        self.fabric.end("a", GUEST.id, "its hypervisor's process has died")


class Libvirt(Lab):
    """uri: of what runs the machine. type: of machines there."""

    def __init__(self, uri: str, type: str, folder: Path) -> None:
        super().__init__()
        libvirt = importlib.import_module("libvirt")
        self.uri, self.folder = uri, folder
        self.guest = replace(GUEST, machine=Machine(type=type, model="pc", disks=(Disk(size_mib=1),)))
        self.restart_agent()
        self.run(self.driver.observe())
        self.libvirt = libvirt.open(uri)  # libvirt's test driver forgets all when its last connection is closed

    def restart_agent(self) -> None:
        self.driver = LibvirtDriver(self.folder / "none", self.uri, "", self.folder, self.told.append, lambda _: None)

    def domain(self) -> Any:
        return self.libvirt.lookupByUUIDString(domain_uuid(GUEST.id))

    def halt(self) -> None:
        self.domain().suspend()

    def end(self) -> None:
        self.domain().destroy()

    def close(self) -> None:
        self.run(self.driver.remove(GUEST.id, 0))
        self.libvirt.close()
        super().close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    if reason := why_no_libvirtd():
        pytest.skip(reason)
    with a_libvirtd() as running:
        yield running


@pytest.fixture(
    params=["memory", "test", pytest.param("qemu", marks=[pytest.mark.system, pytest.mark.vm])],
)
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if request.param != "memory" and importlib.util.find_spec("libvirt") is None:
        pytest.skip("libvirt-python is not installed")
    made: Lab
    match request.param:
        case "memory":
            made = Remembered()
        case "test":
            for name in ("make", "release", "remove"):
                monkeypatch.setattr(taps, name, lambda *_, **__: None)
            made = Libvirt("test:///default", "test", tmp_path)
        case _:
            made = Libvirt(request.getfixturevalue("daemon").uri, "qemu", tmp_path)
    yield made
    made.close()


def test_a_machine_is_prepared_then_runs_then_is_gone(lab: Lab) -> None:
    assert isinstance(lab.driver, Hypervisor) and lab.run(lab.driver.offered())
    assert lab.state() is None
    for _ in range(2):
        lab.run(lab.driver.prepare(lab.guest))
        assert lab.state() is PREPARED
    for _ in range(2):
        lab.run(lab.driver.start(lab.guest))
        assert lab.state() is RUNNING
    for _ in range(2):
        lab.run(lab.driver.stop(lab.guest.id, 0))
        assert lab.state() is GuestState.ABSENT
    lab.run(lab.driver.remove(lab.guest.id, 0))
    assert lab.state() is None


def test_a_machine_is_shown_as_it_was_made(lab: Lab) -> None:
    guest = replace(lab.guest, reboots=3, resumes=2)
    lab.run(lab.driver.prepare(guest))
    lab.run(lab.driver.start(replace(guest, resumes=5)))
    seen = lab.seen()
    assert seen is not None and (seen.playground, seen.name, seen.nics) == ("atlas", "w", (NIC,))
    assert (seen.made_of, seen.reboots, seen.resumes, seen.ended) == (lab.guest.made_of, 3, 5, 0)


def test_a_running_machine_is_neither_prepared_nor_lost_by_a_new_agent(lab: Lab) -> None:
    lab.bring_up()
    lab.run(lab.driver.prepare(lab.guest))
    assert lab.state() is RUNNING
    lab.restart_agent()
    assert lab.state() is RUNNING


def test_a_suspended_machine_stands_still_until_it_is_started(lab: Lab) -> None:
    lab.bring_up()
    for _ in range(2):
        lab.run(lab.driver.suspend(lab.guest.id)) if lab.state() is RUNNING else None
        seen = lab.seen()
        assert seen is not None and (seen.state, seen.cause) == (SUSPENDED, "")
    lab.restart_agent()
    assert lab.state() is SUSPENDED
    lab.run(lab.driver.start(lab.guest))
    assert lab.state() is RUNNING


def test_a_machine_that_somebody_else_suspends_is_shown_so_with_the_reason_and_told_of(lab: Lab) -> None:
    lab.bring_up()
    lab.hears(lab.halt)
    seen = lab.seen()
    assert seen is not None and (seen.state, seen.cause) == (SUSPENDED, "suspended by another tool")
    lab.run(lab.driver.start(lab.guest))
    assert lab.state() is RUNNING


def test_a_saved_machine_has_its_memory_back_and_stands_still_till_it_is_started(lab: Lab) -> None:
    lab.bring_up()
    lab.run(lab.driver.save(lab.guest.id))
    assert lab.state() is SAVED
    lab.restart_agent()
    assert lab.state() is SAVED
    lab.run(lab.driver.prepare(lab.guest))
    assert lab.state() is SUSPENDED
    lab.run(lab.driver.start(lab.guest))
    assert lab.state() is RUNNING
    seen = lab.seen()
    assert seen is not None and seen.ended == 0


def test_a_suspended_machine_can_be_saved_and_a_saved_one_stopped(lab: Lab) -> None:
    lab.bring_up()
    lab.run(lab.driver.suspend(lab.guest.id))
    lab.run(lab.driver.save(lab.guest.id))
    assert lab.state() is SAVED
    lab.run(lab.driver.stop(lab.guest.id, 0))
    assert lab.state() is GuestState.ABSENT
    lab.run(lab.driver.prepare(lab.guest))
    assert lab.state() is PREPARED, "it begins anew: what was saved is gone"


def test_what_does_not_run_is_neither_suspended_saved_nor_sent(lab: Lab) -> None:
    for verb in (lab.driver.suspend, lab.driver.save):
        with pytest.raises(DriverError):
            lab.run(verb(lab.guest.id))
    with pytest.raises(DriverError):
        lab.run(lab.driver.activate(lab.guest))
    with pytest.raises(DriverError):
        lab.run(lab.driver.console(lab.guest.id, False))
    lab.run(lab.driver.stop(lab.guest.id, 0))
    lab.run(lab.driver.depart(lab.guest.id))
    assert lab.state() is None


def test_a_machine_that_ends_by_itself_has_failed_and_is_counted_when_it_is_made_anew(lab: Lab) -> None:
    lab.bring_up()
    for number in (1, 2):
        lab.hears(lab.end)
        seen = lab.seen()
        assert seen is not None and seen.state is FAILED and seen.cause
        lab.restart_agent()
        lab.bring_up()
        again = lab.seen()
        assert again is not None and (again.state, again.ended, again.ended_cause) == (RUNNING, number, seen.cause)


def test_no_traffic_of_a_running_machine_is_given_away(lab: Lab) -> None:
    lab.bring_up()
    with pytest.raises(DriverError, match="runs on this host"):
        lab.run(lab.driver.depart(lab.guest.id))
    assert lab.run(lab.driver.activate(lab.guest, 7)) == 0.0
    seen = lab.seen()
    assert seen is not None and (seen.state, seen.move) == (RUNNING, 7)


def test_a_machine_that_is_expected_is_elsewhere_until_it_departs(lab: Lab) -> None:
    lab.run(lab.driver.expect(lab.guest, 7))
    seen = lab.seen()
    assert seen is not None and (seen.state, seen.move) == (ELSEWHERE, 7)
    lab.restart_agent()
    assert lab.state() is ELSEWHERE
    lab.run(lab.driver.depart(lab.guest.id))
    assert lab.state() is None


def test_a_machine_that_can_not_be_sent_runs_on_with_the_cause(lab: Lab) -> None:
    lab.bring_up()
    lab.run(lab.driver.send(lab.guest, 7, Sending("qemu+tcp://127.0.0.1:1/system")))

    def failed() -> bool:
        lab.run(lab._turn())
        seen = lab.run(lab.driver.observe()).get(lab.guest.id)
        return seen is not None and seen.copy is not None and seen.copy.state is CopyState.FAILED

    assert eventually(failed, 20, "its copying failed")
    seen = lab.seen()
    assert seen is not None and seen.state is RUNNING and seen.copy is not None and seen.copy.cause
    assert seen.copy.move == 7


def test_nobody_enters_a_machine_by_exec(lab: Lab) -> None:
    lab.bring_up()
    with pytest.raises(DriverError, match="console"):
        lab.run(lab.driver.exec(lab.guest.id, ["true"], 0, 1, 2, False))
    with pytest.raises(DriverError, match="console"):
        lab.run(lab.driver.terminal(lab.guest.id))


def test_a_look_at_one_machine_touches_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    released: list[tuple[list[str], bool]] = []
    for name in ("make", "remove"):
        monkeypatch.setattr(taps, name, lambda *_, **__: None)
    monkeypatch.setattr(taps, "release", lambda names, *, is_free: released.append((list(names), is_free)))
    lab = Libvirt("test:///default", "test", tmp_path)
    nics = [replace(NIC, device=f"pg{number:012x}") for number in range(2)]
    guests = [replace(lab.guest, id=f"{number:012x}", name=f"w-{number}", nics=(nics[number],)) for number in range(2)]
    try:
        for guest in guests:
            lab.run(lab.driver.prepare(guest))
            lab.run(lab.driver.start(guest))
        assert set(lab.run(lab.driver.observe())) == {guest.id for guest in guests}
        assert sorted(released) == [([nic.device], True) for nic in nics]
        for guest in guests:
            seen = lab.seen(guest)
            assert seen is not None and seen.state is RUNNING
        assert len(released) == 2
        lab.libvirt.lookupByUUIDString(domain_uuid(guests[1].id)).destroy()
        assert lab.run(lab.driver.observe({guests[1].id}))[guests[1].id].state is FAILED
        assert released[2:] == [([nics[1].device], False)]
    finally:
        for guest in guests:
            lab.run(lab.driver.remove(guest.id, 0))
        lab.close()


class Copying:
    """The double's machine while it is copied from a to b, step by step."""

    def __init__(self) -> None:
        self.fabric = Fabric(stepped=True)
        self.told: list[str] = []
        self.a = MemoryHypervisor("a", self.fabric, lambda _: self.told.append("a"))
        self.b = MemoryHypervisor("b", self.fabric, lambda _: self.told.append("b"))

    async def begin(self) -> None:
        await self.a.prepare(GUEST)
        await self.a.start(GUEST)
        await self.b.expect(GUEST, 7)
        await self.a.send(GUEST, 7, Sending("b"))

    async def seen(self) -> tuple[GuestState | None, CopyState | None, GuestState | None]:
        here, there = (await self.a.observe()).get(GUEST.id), (await self.b.observe()).get(GUEST.id)
        copy = here.copy.state if here is not None and here.copy is not None else None
        return here.state if here else None, copy, there.state if there else None


def test_the_doubles_copies_go_through_the_phases_that_were_measured() -> None:
    async def work() -> None:
        copying = Copying()
        await copying.begin()
        steps = {
            Phase.STARTED: (RUNNING, CopyState.RUNNING, ELSEWHERE),
            Phase.PAUSED: (ELSEWHERE, CopyState.PAUSED, ELSEWHERE),
            Phase.RESUMED: (ELSEWHERE, CopyState.PAUSED, RUNNING),
            Phase.STOPPED: (ELSEWHERE, CopyState.DONE, RUNNING),
            Phase.COMPLETED: (ELSEWHERE, CopyState.DONE, RUNNING),
        }
        for phase, seen in steps.items():
            assert copying.fabric.advance(GUEST.id) is phase
            assert await copying.seen() == seen
        assert copying.fabric.advance(GUEST.id) is None and copying.told == ["b", "a", "b", "a", "a"]
        here = (await copying.a.observe())[GUEST.id]
        assert here.copy is not None and here.copy.pause_ms == PAUSE_MS
        await copying.a.depart(GUEST.id)
        assert await copying.seen() == (None, None, RUNNING)

    asyncio.run(work())


@pytest.mark.parametrize("phases", [0, 1, 2, 3])
def test_a_copy_of_the_doubles_that_breaks_off_runs_on_at_one_host_and_the_target_alone_is_told(phases: int) -> None:
    async def work() -> None:
        copying = Copying()
        await copying.begin()
        for _ in range(phases):
            copying.fabric.advance(GUEST.id)
        copying.told.clear()
        await copying.a.call_off(GUEST.id)
        if phases < 3:
            assert await copying.seen() == (RUNNING, CopyState.FAILED, ELSEWHERE) and copying.told == ["b"]
        else:
            assert (await copying.seen())[2] is RUNNING and copying.told == [], "it runs at the target already"

    asyncio.run(work())
