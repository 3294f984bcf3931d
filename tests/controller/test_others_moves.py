"""Moves of machines that somebody else has begun: whom they are believed, and what is made of them, in whatever order
hosts tell of it."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest
from test_moves import Site, a_host, a_site, records, run, said

from playground.controller import moves as moves_module
from playground.controller.moves import Refused
from playground.records import Copied, Driver, HostRecord, MigrationRecord, Record, WorkspaceRecord


def a_hypervisors_site() -> list[Record]:
    """As `records`, its workspace a machine that libvirt copies."""
    found = records()
    for number, record in enumerate(found):
        match record:
            case HostRecord():
                found[number] = msgspec.structs.replace(record, drivers=(Driver("libvirt", "live", "", record.name),))
            case WorkspaceRecord():
                found[number] = msgspec.structs.replace(record, driver="libvirt")
    return found


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def test_a_machine_that_its_own_hypervisor_does_not_send_moves_nowhere() -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*a_hypervisors_site())
            with pytest.raises(Refused, match="the hypervisor of n1, where atlas/w is, does not send it anywhere"):
                await site.moves.announced(site.workspace, "n2", no)
            assert "w" not in site.world.grids["atlas"].migrations and site.binding.target is None
            with pytest.raises(Refused, match="does not offer the driver libvirt"):
                await site.say(a_host("far"))
                await site.moves.announced(site.workspace, "far", yes)

    run(work())


def test_one_that_is_expected_already_is_not_asked_about() -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*a_hypervisors_site())
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.moves.announced(site.workspace, "n2", no)
            with pytest.raises(Refused, match="is being moved to n2"):
                await site.moves.announced(site.workspace, "far", yes)
            assert site.move == move and move.led == ""

    run(work())


Said = tuple[str, str, str]
"""(host, its state, how the copy stands as it says)."""

GOES_WELL: list[Said] = [
    ("n2", "prepared", ""),
    ("n1", "running", "running"),
    ("n1", "preparing", "paused"),
    ("n2", "running", ""),
    ("n1", "leaving", "done"),
]
"""What both hosts say of a copy that nobody asked us for; each in its own order."""


def merged(whole: list[Said]) -> list[list[Said]]:
    """All ways in which what several hosts say can come in, each host's own order kept."""
    hosts = [host for host, *_ in whole]
    found = []
    for order in sorted(set(itertools.permutations(hosts))):
        left = {host: [one for one in whole if one[0] == host] for host in set(hosts)}
        found.append([left[host].pop(0) for host in order])
    return found


async def tell(site: Site, move: MigrationRecord, said_: Said) -> None:
    host, state, copied = said_
    generation = move.generation if host == "n2" else site.workspace.generation
    copy = Copied(move.generation, copied, "it broke off" if copied == "failed" else "") if copied else None  # type: ignore[arg-type]
    seen = said(host, generation, state, copied=copy)
    await site.moves.arrived(seen)  # as a session does, before the word is stored
    await site.say(seen)


@pytest.mark.parametrize("order", merged(GOES_WELL))
def test_in_whatever_order_hosts_tell_of_a_copy_it_ends_where_it_runs(order: list[Said]) -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*a_hypervisors_site())
            await site.moves.announced(site.workspace, "n2", yes)
            move = site.move
            assert (move.led, move.to, site.binding.copied) == ("hypervisor", "n2", True)
            for one in order:
                await tell(site, move, one)
                assert site.binding.active == site.workspace.host
            await site.until("activated")
            await site.converge("n1", "n2", "far")
            await site.until("settled")
            assert (site.binding.active, site.workspace.host, site.binding.generation) == ("n2", "n2", 2)

    run(work())


FAILS = [("n2", "prepared", ""), ("n1", "running", "running"), ("n1", "running", "failed"), ("n2", "prepared", "")]


@pytest.mark.parametrize("order", merged(FAILS))
def test_a_copy_that_its_source_says_has_failed_leaves_it_there(order: list[Said]) -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*a_hypervisors_site())
            await site.moves.announced(site.workspace, "n2", yes)
            move = site.move
            for one in order:
                await tell(site, move, one)
            await site.until("aborted")
            assert (site.binding.active, site.binding.target, site.move.cause) == ("n1", None, "it broke off")
            await tell(site, move, ("n2", "running", ""))  # late, of a move that is over
            assert site.binding.active == "n1"

    run(work())


def test_once_it_may_be_under_way_only_its_hypervisor_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "COPY_DEADLINE_S", 0.6)

    async def work() -> None:
        async with a_site() as site:
            await site.say(*a_hypervisors_site())
            await site.moves.announced(site.workspace, "n2", yes)
            await tell(site, site.move, ("n2", "prepared", ""))
            await site.until("copying")
            await site.gone("n1")
            await site.gone("n2")
            await asyncio.sleep(0.7)
            assert site.move.state == "copying" and not site.move.called_off
            assert (await site.moves.abort(site.workspace)).called_off

    run(work())
