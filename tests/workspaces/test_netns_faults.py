"""A driver killed at every point of every verb, and the next one that finishes the work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from namespace_lab import Host, a_guest, capture, run

from overlay.kernel.netlink import Netlink
from playground.workspaces.drivers import netns
from playground.workspaces.drivers.api import Guest, GuestState
from playground.workspaces.drivers.ledger import Ledger
from playground.workspaces.drivers.netns import NetnsDriver
from tests.waiting import eventually

pytestmark = pytest.mark.system
GUEST = a_guest()
DEVICE = GUEST.nics[0].device
Verb = Callable[[NetnsDriver], Coroutine[Any, Any, Any]]


def killed_at(step: int, make: Callable[[], NetnsDriver], verb: Verb) -> bool:
    """Runs the verb in a process that is killed as it is about to take its step number `step`; False when it has none.

    Steps are what others can see: batches to the kernel, entries written or removed, processes started or signalled.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    taken = 0

    def counted(step_of: Callable[..., Any]) -> Callable[..., Any]:
        def take(*arguments: Any, **named: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken > step:
                os.kill(os.getpid(), signal.SIGKILL)
            return step_of(*arguments, **named)

        return take

    Netlink.send = counted(Netlink.send)  # type: ignore[method-assign]
    Ledger.write = counted(Ledger.write)  # type: ignore[method-assign]
    Ledger.remove = counted(Ledger.remove)  # type: ignore[method-assign]
    netns.subprocess.run = counted(netns.subprocess.run)  # type: ignore[attr-defined]
    netns.signal.pidfd_send_signal = counted(netns.signal.pidfd_send_signal)  # type: ignore[attr-defined]
    code = 1
    try:
        run(verb(make()))
        code = 0
    finally:
        os._exit(code)


class Pair:
    """Two hosts; drivers are made anew each time, as a restarted agent has none."""

    def __init__(self, hosts: tuple[Host, Host], folder: Path) -> None:
        self.hosts, self.folder = hosts, folder

    def a(self) -> NetnsDriver:
        return NetnsDriver("a", self.hosts[0].dataplane, folder=self.folder)

    def b(self) -> NetnsDriver:
        return NetnsDriver("b", self.hosts[1].dataplane, folder=self.folder)

    def bring_up(self) -> None:
        run(self.a().prepare(GUEST))
        run(self.a().start(GUEST))

    def end(self) -> None:
        run(self.a().stop(GUEST.id, 0))
        run(self.b().stop(GUEST.id, 0))
        run(self.a().stop(GUEST.id, 0))
        assert eventually(lambda: self.hosts[0].devices() | self.hosts[1].devices() == set())
        assert [path.name for path in self.folder.iterdir()] == ["lock"]


@pytest.fixture
def pair(hosts: tuple[Host, Host], folder: Path) -> Pair:
    return Pair(hosts, folder)


def test_a_preparation_killed_anywhere_is_finished_by_the_next(pair: Pair) -> None:
    step = 0
    while killed_at(step, pair.a, lambda driver: driver.prepare(GUEST)):
        run(pair.a().prepare(GUEST))
        assert run(pair.a().observe())[GUEST.id].state is GuestState.PREPARED
        run(pair.a().start(GUEST))
        assert capture(pair.a(), GUEST.id, ["true"])[0] == 0
        pair.end()
        step += 1
    assert step > 5
    pair.end()


@pytest.mark.parametrize("mends", [False, True], ids=["anew", "of a lost end"])
def test_a_guest_is_said_to_be_whole_only_if_its_traffic_passes(pair: Pair, mends: bool) -> None:
    """What a restarted agent finds is all that it knows: it prepares what is neither prepared nor running, or lacks
    something, and starts what is prepared."""

    def lose() -> None:
        if mends:
            pair.bring_up()
            pair.hosts[0].run("ip", "link", "del", DEVICE)

    def received() -> int:
        shown = json.loads(pair.hosts[0].run("ip", "-j", "-s", "link", "show", DEVICE))
        return int(shown[0]["stats64"]["rx"]["packets"])

    step = 0
    lose()
    while killed_at(step, pair.a, lambda driver: driver.prepare(GUEST)):
        seen = run(pair.a().observe()).get(GUEST.id)
        if seen is None or seen.cause or seen.state not in (GuestState.PREPARED, GuestState.RUNNING):
            run(pair.a().prepare(GUEST))
        run(pair.a().start(GUEST))
        before = received()
        assert eventually(lambda before=before: received() > before), f"nothing passes after step {step}: {seen}"
        assert not run(pair.a().observe())[GUEST.id].cause
        pair.end()
        lose()
        step += 1
    assert step > 4
    pair.end()


def test_a_preparation_killed_anywhere_is_cleaned_by_stop(pair: Pair) -> None:
    step = 0
    while killed_at(step, pair.a, lambda driver: driver.prepare(GUEST)):
        pair.end()
        step += 1
    pair.end()


@pytest.mark.parametrize("finish", ["again", "abort"])
def test_an_arrival_killed_anywhere_is_finished_or_taken_back(pair: Pair, finish: str) -> None:
    async def arrive(driver: NetnsDriver) -> None:
        await driver.prepare_arrival(GUEST)
        await driver.activate(GUEST)

    pair.bring_up()
    pair.hosts[0].run("ip", "address", "add", "10.0.0.1/24", "dev", DEVICE)
    assert capture(pair.a(), GUEST.id, ["ip", "address", "add", "10.0.0.2/24", "dev", "eth0"])[0] == 0
    step = 0
    while killed_at(step, pair.b, arrive):
        here = run(pair.b().observe()).get(GUEST.id)
        assert here is None or here.state is GuestState.ELSEWHERE
        if finish == "again":
            run(arrive(pair.b()))
            assert run(pair.b().observe())[GUEST.id].state is GuestState.RUNNING
            run(arrive(pair.a()))
        run(pair.b().depart(GUEST.id))
        assert run(pair.b().observe()) == {}
        assert run(pair.a().observe())[GUEST.id].state is GuestState.RUNNING
        pair.hosts[0].run("ping", "-c", "1", "-W", "1", "10.0.0.2")
        step += 1
    assert step > 2
    run(arrive(pair.a()))
    pair.end()


def test_a_stop_killed_anywhere_is_finished_by_the_next(pair: Pair) -> None:
    step = 0
    pair.bring_up()
    while killed_at(step, pair.a, lambda driver: driver.stop(GUEST.id, 1)):
        pair.end()
        pair.bring_up()
        step += 1
    assert step > 1
    pair.end()


def test_two_hosts_that_prepare_one_guest_at_once_make_one(pair: Pair) -> None:

    async def both() -> tuple[BaseException | None, BaseException | None]:
        return await asyncio.gather(pair.a().prepare(GUEST), pair.b().prepare(GUEST), return_exceptions=True)

    outcomes = run(both())
    assert sum(outcome is None for outcome in outcomes) == 1
    assert len(pair.hosts[0].devices() | pair.hosts[1].devices()) == 1
    pair.end()


def test_six_guests_are_up_within_a_second(pair: Pair) -> None:

    driver = pair.a()
    guests = [a_guest(number) for number in range(1, 7)]

    async def up(guest: Guest) -> None:
        await driver.prepare(guest)
        await driver.start(guest)

    async def all_up() -> None:
        await asyncio.gather(*(up(guest) for guest in guests))

    before = time.monotonic()
    run(all_up())
    took = time.monotonic() - before
    for guest in guests:
        run(driver.stop(guest.id, 1))
    assert took < 1.5  # measured 0.2 s on two idle cores
    assert pair.hosts[0].devices() == set()


def test_devices_and_folders_of_others_stay(pair: Pair) -> None:
    pair.hosts[0].run("ip", "link", "add", "pg000000000099", "type", "veth", "peer", "name", "foreign")
    pair.bring_up()
    run(pair.a().stop(GUEST.id, 1))
    assert pair.hosts[0].devices() == {"pg000000000099", "foreign"}
