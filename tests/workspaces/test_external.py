from __future__ import annotations

import asyncio

import pytest
from namespace_lab import Host, a_guest, run

from playground.workspaces.drivers.api import DriverError, GuestState
from playground.workspaces.drivers.external import ExternalDriver

pytestmark = pytest.mark.system
GUEST = a_guest()
DEVICE = GUEST.nics[0].device


def plug(host: Host) -> None:
    host.run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "theirs")


def test_it_waits_by_name_for_the_device_that_somebody_brings(hosts: tuple[Host, Host]) -> None:
    driver = ExternalDriver(hosts[0].dataplane)
    with pytest.raises(DriverError, match=DEVICE):
        run(driver.prepare(GUEST))
    assert run(driver.observe()) == {}
    plug(hosts[0])
    run(driver.prepare(GUEST))
    assert run(driver.observe())[GUEST.id].state is GuestState.PREPARED
    run(driver.start(GUEST))
    assert run(driver.observe())[GUEST.id].state is GuestState.RUNNING
    assert run(driver.observe({GUEST.id, "f" * 12})) == run(driver.observe())
    assert run(driver.observe(set())) == {}


def test_a_device_that_vanished_is_named(hosts: tuple[Host, Host]) -> None:
    driver = ExternalDriver(hosts[0].dataplane)
    plug(hosts[0])
    run(driver.start(GUEST))
    hosts[0].run("ip", "link", "del", DEVICE)
    seen = run(driver.observe())[GUEST.id]
    assert seen.state is GuestState.FAILED and DEVICE in seen.cause


def test_it_moves_and_ends_nothing_of_theirs(hosts: tuple[Host, Host]) -> None:
    driver = ExternalDriver(hosts[0].dataplane)
    plug(hosts[0])
    run(driver.prepare_arrival(GUEST))
    assert run(driver.activate(GUEST)) == 0.0
    run(driver.stop(GUEST.id, 1))
    assert run(driver.observe()) == {}
    assert DEVICE in hosts[0].devices()


def test_guests_that_are_asked_for_in_one_moment_cost_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, looks = ExternalDriver(), []

    def find(wanted: set[str]) -> frozenset[str]:
        looks.append(wanted)
        return frozenset(wanted - {missing.nics[0].device})

    monkeypatch.setattr(driver, "_find", find)
    guests = [a_guest(number) for number in range(50)]
    missing = guests[7]

    async def prepare_all() -> list[object]:
        return await asyncio.gather(*map(driver.prepare, guests), return_exceptions=True)

    told = run(prepare_all())
    assert looks == [{guest.nics[0].device for guest in guests}]
    assert [isinstance(one, DriverError) for one in told] == [guest is missing for guest in guests]


def test_nobody_gets_in_by_it() -> None:
    with pytest.raises(DriverError, match="somebody else"):
        run(ExternalDriver().exec(GUEST.id, ["true"], 0, 1, 2, False))
