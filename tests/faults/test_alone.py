"""A host that no controller reaches: what runs goes on, what ends is started anew by what it was shown last while that
is fresh enough, and what has gone elsewhere meanwhile stays closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doubled_site import Site, play
from test_crash_doubled import LAB, down, move, up

from overlay.state import PortId, port_device
from playground.agent.standing import FILE, Standing, StandingFile, told
from playground.controller import sessions, status
from playground.records import BindingRecord, encode, port_id, workspace_id
from playground.store.api import Put

A = workspace_id("lab", "a")
PORT = port_id("lab", "a", "grid")
DEVICE = port_device(PortId(PORT))
STALE_S = 60.0

Play = Callable[[Callable[[Site], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setattr(sessions, "MAX_STALE_S", STALE_S)
    return lambda scene: play(tmp_path, monkeypatch, scene)


def runs(site: Site, host: str = "n1") -> bool:
    guest = site.machine.guests.get(A)
    return guest is not None and guest.alive and guest.running and guest.host == host


def test_a_host_that_was_long_quiet_starts_what_ended_when_it_is_cut_off(plays: Play) -> None:
    """How old its view is counts from when the controller was heard last, not from when it last had news."""

    async def scene(site: Site) -> None:
        await up(site, LAB)
        await asyncio.sleep(5 * STALE_S)
        site.cut("n1")
        await asyncio.sleep(10)
        site.machine.die(A)
        site.hosts["n1"].unplug([DEVICE])
        await asyncio.sleep(30)
        assert runs(site) and DEVICE in site.hosts["n1"].open_ports()

    plays(scene)


@pytest.mark.parametrize(("away_s", "comes_up"), [(0.8 * STALE_S, True), (1.2 * STALE_S, False)])
def test_rebooted_alone_a_host_comes_up_from_its_cache_while_that_is_fresh(
    plays: Play, away_s: float, comes_up: bool
) -> None:
    async def scene(site: Site) -> None:
        await up(site, LAB)
        await asyncio.sleep(2 * STALE_S)
        site.cut("n1")
        await asyncio.sleep(away_s)
        assert runs(site), "what runs goes on for ever"
        site.reboot("n1")
        await asyncio.sleep(10)
        assert (runs(site), DEVICE in site.hosts["n1"].open_ports()) == (comes_up, comes_up)
        site.join("n1")
        await site.converged("lab")
        assert runs(site)
        site.assert_nothing_is_twice()
        await down(site)

    plays(scene)


def test_a_clock_that_went_back_makes_no_view_fresh(plays: Play) -> None:
    """A machine without a clock of its own boots years ago."""

    async def scene(site: Site) -> None:
        await up(site, LAB)
        site.cut("n1")
        site.set_clock_back(1e6)
        site.reboot("n1")
        await asyncio.sleep(10)
        assert not runs(site)
        site.join("n1")
        await site.converged("lab")

    plays(scene)


def test_a_port_that_the_host_saw_moved_away_stays_closed_when_it_reboots_alone(plays: Play) -> None:
    async def scene(site: Site) -> None:
        await up(site, LAB)
        await move(site, "n3")
        site.cut("n1")
        site.reboot("n1")
        await asyncio.sleep(10)
        assert runs(site, "n3") and DEVICE not in site.hosts["n1"].open_ports()
        site.join("n1")
        await site.converged("lab")
        site.assert_nothing_is_twice()

    plays(scene)


def test_a_port_that_was_bound_elsewhere_unseen_closes_once_the_host_is_connected(plays: Play) -> None:
    """The host could not know; its guest is ended where the records say so, and runs at one place."""

    async def scene(site: Site) -> None:
        await up(site, LAB)
        site.cut("n1")
        await asyncio.sleep(20)
        items = site.items()
        binding, workspace = items[f"claim/active/{PORT}"], items["workspace/lab/a"]
        assert isinstance(binding, BindingRecord)
        elsewhere = [  # as somebody's hand, or a later placement off lost hosts, would do it
            msgspec.structs.replace(binding, active="n3", source="n3", generation=binding.generation + 1),
            msgspec.structs.replace(workspace, host="n3", pin="n3", generation=workspace.generation + 1),
        ]
        keys = (f"claim/active/{PORT}", "workspace/lab/a")
        await site.store.commit([], [Put(k, encode(r)) for k, r in zip(keys, elsewhere, strict=True)])
        site.reboot("n1")
        await asyncio.sleep(10)
        site.join("n1")
        await site.converged("lab")
        assert runs(site, "n3")
        site.assert_nothing_is_twice()

    plays(scene)


def test_a_host_says_since_when_it_is_alone_and_why(tmp_path: Path) -> None:
    file = StandingFile(tmp_path / FILE)
    file.alone(1000.0, "", 4600.0)
    file.connected(1010.0)
    file.alone(2000.0, "http://192.0.2.1:7470: timed out", 5600.0)
    file.alone(2002.0, "http://192.0.2.1:7470: refused", 5600.0)
    kept = msgspec.json.decode((tmp_path / FILE).read_bytes(), type=Standing)
    assert kept == Standing(False, 2000.0, "http://192.0.2.1:7470: refused", 5600.0)
    assert told("n1", tmp_path, 2042.0) == (
        "n1: its agent does not run; what it left running goes on, nothing is mended or started",
        False,
    )


def test_the_hosts_of_a_site_say_since_when_they_are_gone(plays: Play) -> None:
    async def scene(site: Site) -> None:
        await up(site, LAB)
        before = site.wall_s()
        site.cut("n1")
        await site.until(lambda c: "n1" not in c.world.alive, "n1 gone")
        await asyncio.sleep(30)
        assert site.life is not None
        row = status.hosts(site.life.controller.world)[0]
        assert (row["name"], row["state"]) == ("n1", "gone")
        assert before < row["since"] < before + 15

    plays(scene)
