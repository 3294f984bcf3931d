"""What every driver of guests on one kernel does: the same claims for the real one and for its double."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from namespace_lab import Host, a_guest, capture, run

from playground.workspaces.drivers.api import Driver, DriverError, GuestState
from playground.workspaces.drivers.memory import Machine, MemoryDriver
from playground.workspaces.drivers.netns import NetnsDriver
from tests.waiting import eventually

GUEST = a_guest(nics=2)


@dataclass
class Site:
    """Two hosts of one kernel, and the ways in which the world breaks what they made."""

    a: Driver
    b: Driver
    machine: Machine | None = None
    folder: Path | None = None
    hosts: tuple[Host, Host] | None = None

    def restart_agents(self) -> None:
        """Drivers without memory."""
        if self.machine is not None:
            self.a, self.b = MemoryDriver("a", self.machine), MemoryDriver("b", self.machine)
        if self.folder is not None and self.hosts is not None:
            self.a, self.b = (NetnsDriver(host.name, host.dataplane, folder=self.folder) for host in self.hosts)

    def kill_guest(self) -> None:
        if self.machine is not None:
            self.machine.die(GUEST.id)
        if self.folder is not None:
            pid = json.loads((self.folder / GUEST.id / "guest.json").read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda: self.states()["a"] is GuestState.FAILED)

    def remove_end(self) -> None:
        if self.machine is not None:
            self.machine.lose_ends(GUEST.id, "a")
        if self.hosts is not None:
            self.hosts[0].run("ip", "link", "del", GUEST.nics[1].device)

    def states(self) -> dict[str, GuestState | None]:
        found = {}
        for host, driver in (("a", self.a), ("b", self.b)):
            before, some = run(driver.observe()), run(driver.observe({GUEST.id, "f" * 12}))
            whole = run(driver.observe())
            assert some in (before, whole), "a look at some differs from one at all"
            assert run(driver.observe(set())) == {}
            found[host] = whole.get(GUEST.id)
        return {host: seen.state if seen else None for host, seen in found.items()}


@pytest.fixture(params=["memory", pytest.param("netns", marks=pytest.mark.system)])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    if request.param == "memory":
        machine = Machine()
        yield Site(MemoryDriver("a", machine), MemoryDriver("b", machine), machine=machine)
        return
    hosts: tuple[Host, Host] = request.getfixturevalue("hosts")
    folder: Path = request.getfixturevalue("folder")
    a, b = (NetnsDriver(host.name, host.dataplane, folder=folder) for host in hosts)
    yield Site(a, b, folder=folder, hosts=hosts)
    run(a.stop(GUEST.id, 0))
    run(b.stop(GUEST.id, 0))
    assert hosts[0].devices() | hosts[1].devices() == set()
    assert [path.name for path in folder.iterdir()] == ["lock"]


def bring_up(site: Site) -> None:
    run(site.a.prepare(GUEST))
    run(site.a.start(GUEST))


def move_to_b(site: Site) -> None:
    run(site.b.prepare_arrival(GUEST))
    run(site.b.activate(GUEST))


def test_a_guest_is_prepared_then_runs_then_is_gone(site: Site) -> None:
    assert site.states() == {"a": None, "b": None}
    run(site.a.prepare(GUEST))
    assert site.states() == {"a": GuestState.PREPARED, "b": None}
    run(site.a.start(GUEST))
    assert site.states() == {"a": GuestState.RUNNING, "b": None}
    run(site.a.stop(GUEST.id, 1))
    assert site.states() == {"a": None, "b": None}


def test_every_verb_may_be_repeated(site: Site) -> None:
    for _ in range(2):
        run(site.a.prepare(GUEST))
    for _ in range(2):
        run(site.a.start(GUEST))
    for _ in range(2):
        run(site.b.prepare_arrival(GUEST))
    for _ in range(2):
        run(site.b.activate(GUEST))
    for _ in range(2):
        run(site.a.depart(GUEST.id))
    assert site.states() == {"a": None, "b": GuestState.RUNNING}
    for _ in range(2):
        run(site.b.stop(GUEST.id, 1))
    assert site.states() == {"a": None, "b": None}


def test_a_move_goes_by_arrival_activation_and_departure(site: Site) -> None:
    bring_up(site)
    run(site.b.prepare_arrival(GUEST))
    assert site.states() == {"a": GuestState.RUNNING, "b": GuestState.ELSEWHERE}
    assert run(site.b.activate(GUEST)) < 1000
    assert site.states() == {"a": GuestState.ELSEWHERE, "b": GuestState.RUNNING}
    run(site.a.depart(GUEST.id))
    assert site.states() == {"a": None, "b": GuestState.RUNNING}


def test_a_guest_may_come_back_before_its_source_let_it_go(site: Site) -> None:
    bring_up(site)
    move_to_b(site)
    run(site.a.prepare_arrival(GUEST))
    run(site.a.activate(GUEST))
    run(site.b.depart(GUEST.id))
    assert site.states() == {"a": GuestState.RUNNING, "b": None}


def test_an_aborted_arrival_leaves_the_guest_where_it_was(site: Site) -> None:
    bring_up(site)
    run(site.b.prepare_arrival(GUEST))
    run(site.b.depart(GUEST.id))
    assert site.states() == {"a": GuestState.RUNNING, "b": None}
    run(site.b.depart(GUEST.id))


@pytest.mark.parametrize("landed", [False, True])
def test_a_host_that_reclaims_its_guest_has_it_whenever_the_flip_to_another_comes(site: Site, landed: bool) -> None:
    bring_up(site)
    run(site.b.prepare_arrival(GUEST))
    if landed:
        run(site.b.activate(GUEST, 7))
    run(site.a.reclaim(GUEST, 7))
    with pytest.raises(DriverError, match="called off"):
        run(site.b.activate(GUEST, 7))
    assert site.states() == {"a": GuestState.RUNNING, "b": GuestState.ELSEWHERE}
    run(site.b.activate(GUEST, 8))
    with pytest.raises(DriverError, match="later move"):
        run(site.a.reclaim(GUEST, 7))
    assert site.states() == {"a": GuestState.ELSEWHERE, "b": GuestState.RUNNING}


def test_agents_that_restart_find_everything_as_it_was(site: Site) -> None:
    bring_up(site)
    run(site.b.prepare_arrival(GUEST))
    site.restart_agents()
    assert site.states() == {"a": GuestState.RUNNING, "b": GuestState.ELSEWHERE}
    run(site.b.activate(GUEST))
    site.restart_agents()
    assert site.states() == {"a": GuestState.ELSEWHERE, "b": GuestState.RUNNING}


def test_a_guest_that_another_host_carries_is_neither_prepared_nor_started_nor_stopped(site: Site) -> None:
    bring_up(site)
    with pytest.raises(DriverError, match="host a"):
        run(site.b.prepare(GUEST))
    with pytest.raises(DriverError, match="host a"):
        run(site.b.start(GUEST))
    run(site.b.stop(GUEST.id, 0))
    assert site.states() == {"a": GuestState.RUNNING, "b": None}


def test_traffic_is_not_taken_without_an_arrival_nor_dropped_by_a_departure(site: Site) -> None:
    bring_up(site)
    with pytest.raises(DriverError, match="not prepared"):
        run(site.b.activate(GUEST))
    with pytest.raises(DriverError, match="goes by this host"):
        run(site.a.depart(GUEST.id))
    assert site.states() == {"a": GuestState.RUNNING, "b": None}


def test_what_does_not_exist_is_not_started_moved_or_entered(site: Site) -> None:
    for verb in (site.a.start, site.a.prepare_arrival, site.a.activate):
        with pytest.raises(DriverError, match="does not run"):
            run(verb(GUEST))
    with pytest.raises(DriverError, match="does not run"):
        capture(site.a, GUEST.id, ["true"])
    run(site.a.depart(GUEST.id))
    run(site.a.stop(GUEST.id, 1))


def test_a_guest_whose_init_died_is_failed_with_its_cause_and_prepared_anew(site: Site) -> None:
    bring_up(site)
    site.kill_guest()
    assert "ended" in run(site.a.observe())[GUEST.id].cause
    with pytest.raises(DriverError, match="ended"):
        run(site.a.start(GUEST))
    run(site.a.prepare(GUEST))
    assert site.states()["a"] is GuestState.PREPARED


def test_an_end_that_somebody_removed_is_named_and_made_again_under_the_running_guest(site: Site) -> None:
    bring_up(site)
    site.remove_end()
    seen = run(site.a.observe())[GUEST.id]
    assert seen.state is GuestState.RUNNING and "gone" in seen.cause
    run(site.a.prepare(GUEST))
    seen = run(site.a.observe())[GUEST.id]
    assert seen.state is GuestState.RUNNING and seen.cause == ""


def test_other_nics_are_refused_while_it_runs_and_made_while_it_does_not(site: Site) -> None:
    run(site.a.prepare(GUEST))
    fewer = a_guest(nics=1)
    run(site.a.prepare(fewer))
    run(site.a.start(fewer))
    with pytest.raises(DriverError, match="stop it first"):
        run(site.a.prepare(GUEST))
    assert site.states()["a"] is GuestState.RUNNING


def test_a_command_runs_with_the_given_descriptors_and_its_exit_code_comes_back(site: Site) -> None:
    bring_up(site)
    code, text = capture(site.a, GUEST.id, ["sh", "-c", "cat; echo told >&2; exit 7"], stdin="heard\n")
    assert (code, text) == (7, "heard\ntold\n")


def test_hosts_of_one_kernel_have_one_domain(site: Site) -> None:
    assert site.a.domain == site.b.domain != ""


def test_a_guest_is_shown_with_the_reboots_that_it_was_made_after(site: Site) -> None:
    run(site.a.prepare(replace(GUEST, reboots=2)))
    site.restart_agents()
    assert run(site.a.observe())[GUEST.id].reboots == 2
