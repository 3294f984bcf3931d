"""What speaks against taking an agent's things away: who is still on the host, and whose disks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from playground.agent.removal import carries
from playground.workspaces.drivers.api import DriverError, GuestState, Observed


@dataclass
class Told:
    """A driver that says what it was told."""

    name: str = "libvirt"
    seen: tuple[Observed, ...] = ()
    problem: str = ""

    async def observe(self) -> dict[str, Observed]:
        if self.problem:
            raise DriverError(self.problem)
        return {one.guest: one for one in self.seen}


def a_guest(name: str, state: GuestState = GuestState.RUNNING) -> Observed:
    return Observed(f"id-{name}", state, playground="lab", name=name)


def found(images: Path, *drivers: Told) -> list[str]:
    return asyncio.run(carries(drivers, images))  # type: ignore[arg-type]


def test_all_that_is_on_the_host_counts_and_what_has_left_does_not(tmp_path: Path) -> None:
    namespaces = Told("netns", (a_guest("b"), a_guest("a", GuestState.FAILED), a_guest("gone", GuestState.ELSEWHERE)))
    machines = Told(seen=(a_guest("web", GuestState.PREPARED), a_guest("none", GuestState.ABSENT)))
    assert found(tmp_path / "images", namespaces, machines) == ["lab/a", "lab/b", "lab/web"]
    assert found(tmp_path / "images", Told()) == []


def test_disks_of_stopped_machines_are_told_of(tmp_path: Path) -> None:
    for guest in ("id-web", "other"):
        (tmp_path / guest).mkdir()
    assert found(tmp_path, Told(seen=(a_guest("web"),))) == ["lab/web", f"disks of 1 stopped machine in {tmp_path}"]


def test_a_driver_that_cannot_tell_keeps_the_host_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="can't be told which workspaces of driver libvirt are here: no libvirtd answers"):
        found(tmp_path, Told(problem="no libvirtd answers"))
