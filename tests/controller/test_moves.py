"""Moves, driven through the store: what agents report becomes what the records say, and nothing is at two places."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from playground.controller import moves as moves_module
from playground.controller.events import EventLog
from playground.controller.execution import NotPossible
from playground.controller.moves import Measured, Metering, Moves, Refused
from playground.controller.preflight import Preflight
from playground.controller.world import World
from playground.manner import PLAIN, Manner
from playground.placement import may_be_on
from playground.questions import Departing, TellArrival, TellDeparture
from playground.records import (
    AliveRecord,
    BindingRecord,
    Copied,
    Driver,
    HostRecord,
    MigrationRecord,
    ObservedHost,
    ObservedWorkspace,
    PortRecord,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
    port_id,
    workspace_id,
)
from playground.store.api import Delete, Put
from playground.store.memory import MemoryStore
from playground.workspaces.departure import Arrival, Departure

PORT = port_id("atlas", "w", "grid")


def a_host(name: str, domain: str = "kernel") -> HostRecord:
    return HostRecord(name=name, site="lab", underlay="192.0.2.1", drivers=(Driver("netns", "same-kernel", domain),))


def records() -> list[Record]:
    found: list[Record] = [a_host("n1"), a_host("n2"), a_host("far", "another kernel")]
    found += [AliveRecord(host=h, session="s") for h in ("n1", "n2", "far")]
    found.append(
        WorkspaceRecord(
            playground="atlas", name="w", id=workspace_id("atlas", "w"), driver="netns", ports=(PORT,), host="n1"
        )
    )
    found.append(
        PortRecord(
            playground="atlas",
            workspace="w",
            network="grid",
            network_id="0" * 12,
            id=PORT,
            mac="02:00:00:00:00:01",
            addresses=("10.0.0.2",),
        )
    )
    found.append(BindingRecord(port=PORT, playground="atlas", workspace="w", active="n1", source="n1"))
    found.append(said("n1", 1, "running"))
    return found


def said(host: str, generation: int, state: str, **fields: object) -> ObservedWorkspace:
    record = ObservedWorkspace(playground="atlas", workspace="w", host=host, generation=generation, state=state)
    return msgspec.structs.replace(record, **fields)


async def no_meter(move: MigrationRecord) -> Metering | None:
    return None


class FakeCarrier:
    """Keeps the states of the moves in which it was asked; needed only where it is said to be."""

    def __init__(self) -> None:
        self.needed, self.fails = False, False
        self.carried: list[str] = []

    def is_needed(self, move: MigrationRecord) -> bool:
        return self.needed

    async def carry(self, move: MigrationRecord) -> None:
        self.carried.append(move.state)
        if self.fails:
            raise RuntimeError("a bug")


class FakeAsking:
    """Hosts that answer what stands here: of each, by the question's name; or why they can't."""

    def __init__(self) -> None:
        self.departing = Departing(Departure("qemu", "x86_64", "pc", "<cpu/>"), passes=True)
        self.arrival = Arrival()
        self.cause = ""
        self.asked: list[tuple[str, object]] = []

    async def ask(self, host: str, question: object, kind: type, timeout_s: float) -> object:
        self.asked.append((host, question))
        if self.cause:
            raise NotPossible(self.cause)
        return self.departing if kind is Departing else self.arrival


class Site:
    """A controller's moves over a store in memory; `say` is what an agent's report does."""

    def __init__(self, meter: Callable[[MigrationRecord], Awaitable[Metering | None]]) -> None:
        self.carrier = FakeCarrier()
        self.asking, self.peer = FakeAsking(), "sender"
        self.store = MemoryStore()
        self.world = World(self.store)
        self.preflight = Preflight(self.world, self.asking, self.measurable)  # type: ignore[arg-type]
        events = EventLog(self.store, self.world)
        self.moves = Moves(self.store, self.world, events, meter, self.carrier, self.preflight)

    async def measurable(self, workspace: WorkspaceRecord, target: str) -> str:
        return self.peer

    async def say(self, *what: Record) -> None:
        revision = await self.store.commit([], [Put(key_of(r), encode(r)) for r in what])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def gone(self, host: str) -> None:
        revision = await self.store.commit([], [Delete(f"alive/{host}")])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    @property
    def workspace(self) -> WorkspaceRecord:
        found = self.world.workspace("atlas", "w")
        assert found is not None
        return found

    @property
    def binding(self) -> BindingRecord:
        return self.world.grids["atlas"].bindings[PORT]

    @property
    def move(self) -> MigrationRecord:
        return self.world.grids["atlas"].migrations["w"]

    async def until(self, state: str) -> None:
        async with asyncio.timeout(5):
            while self.move.state != state:
                await self.world.moved(self.world.revision)

    async def converge(self, *hosts: str) -> None:
        revision = self.world.revision
        await self.say(*(ObservedHost(host=h, version="1", applied=revision) for h in hosts))


@asynccontextmanager
async def a_site(meter: Callable[[MigrationRecord], Awaitable[Metering | None]] = no_meter) -> AsyncIterator[Site]:
    site = Site(meter)
    await site.store.commit([], [Put(key_of(r), encode(r)) for r in records()])
    await site.world.load()
    tasks = [asyncio.create_task(site.world.follow()), asyncio.create_task(site.moves.run())]
    try:
        yield site
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await site.store.close()


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(whole())


def test_a_move_goes_through_its_states_and_ends_at_the_target() -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            assert (site.binding.active, site.binding.target, site.binding.phase) == ("n1", "n2", "requested")
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            assert site.binding.active == "n1"
            await site.say(said("n2", move.generation, "running", pause_ms=1.5))
            await site.until("activated")
            assert (site.binding.active, site.binding.generation) == ("n2", 2)
            assert site.workspace.host == "n2"
            await site.converge("n1", "n2")
            await site.until("settled")
            assert (site.binding.active, site.binding.source, site.binding.target) == ("n2", "n2", None)
            assert site.move.pause_ms == 1.5

    run(work())


@pytest.mark.parametrize("fails", [False, True])
def test_flows_are_carried_before_the_flip_and_after_it_and_hold_no_move_up(fails: bool) -> None:
    async def work() -> None:
        async with a_site() as site:
            site.carrier.needed, site.carrier.fails = True, fails
            move = await site.moves.request(site.workspace, "n2", measure=False)
            assert site.carrier.carried == []
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            assert site.carrier.carried == ["prepared"]
            await site.moves.arrived(said("n2", move.generation, "running"))
            await site.converge("n1", "n2")
            await site.until("settled")
            assert site.carrier.carried == ["prepared", "activated"]

    run(work())


def test_where_nobody_polices_no_flows_are_carried() -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            await site.moves.arrived(said("n2", move.generation, "running"))
            await site.converge("n1", "n2")
            await site.until("settled")
            assert site.carrier.carried == []

    run(work())


def test_an_arrival_flips_the_bindings_before_it_is_stored() -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            for seen in (said("n1", move.generation, "running"), said("n2", move.generation - 1, "running")):
                await site.moves.arrived(seen)
                assert site.binding.active == "n1"
            await site.moves.arrived(said("n2", move.generation, "running", pause_ms=0.5))
            assert (site.move.state, site.binding.active, site.move.pause_ms) == ("activated", "n2", 0.5)
            await site.say(said("n2", move.generation, "running"))
            await site.converge("n1", "n2")
            await site.until("settled")
            assert site.binding.generation == 2

    run(work())


def test_a_report_of_an_earlier_move_moves_nothing() -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation - 1, "running"))
            await asyncio.sleep(0.25)
            assert site.move.state == "requested"
            assert site.binding.active == "n1"

    run(work())


@pytest.mark.parametrize("state", ["requested", "copying"])
def test_an_abort_gives_the_port_back(state: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            if state == "copying":
                await site.say(said("n2", move.generation, "prepared"))
                await site.until("copying")
            await site.moves.abort(site.workspace)
            assert (site.binding.active, site.binding.target, site.binding.phase) == ("n1", None, "bound")
            assert site.move.state == "aborted"

    run(work())


def test_an_arrived_workspace_is_not_taken_back_by_an_abort() -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            await site.say(said("n2", move.generation, "running"))
            await site.until("activated")
            with pytest.raises(Refused, match="already at n2"):
                await site.moves.abort(site.workspace)

    run(work())


def test_back_at_once_settles_the_first_move_and_starts_the_second() -> None:
    async def work() -> None:
        async with a_site() as site:
            first = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", first.generation, "prepared"))
            await site.until("copying")
            await site.say(said("n2", first.generation, "running"))
            await site.until("activated")
            await site.say(said("n2", site.workspace.generation, "running"))
            second = await site.moves.request(site.workspace, "n1", measure=False)
            assert (second.source, second.target) == ("n2", "n1") and second.generation > first.generation
            assert (site.binding.active, site.binding.target) == ("n2", "n1")

    run(work())


def test_a_target_that_goes_aborts_the_move() -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.moves.request(site.workspace, "n2", measure=False)
            await site.gone("n2")
            await site.until("aborted")
            assert site.binding.active == "n1"
            assert "n2 is gone" in site.move.cause

    run(work())


def test_a_target_that_cannot_prepare_aborts_the_move_and_says_why() -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation, "failed", cause="no memory"))
            await site.until("aborted")
            assert site.move.cause == "no memory"

    run(work())


def test_a_silent_host_does_not_keep_a_move_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "SETTLE_S", 0.2)

    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            await site.say(said("n2", move.generation, "running"))
            await site.until("settled")

    run(work())


@pytest.mark.parametrize(
    ("target", "why"),
    [("n1", "on n1 already"), ("n9", "no host n9; hosts are far, n1, n2"), ("far", "between kernels")],
)
def test_a_move_that_cannot_be_is_refused_with_the_reason(target: str, why: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            before = site.world.revision
            with pytest.raises(Refused, match=why):
                await site.moves.request(site.workspace, target, measure=False)
            assert site.world.revision == before

    run(work())


@pytest.mark.parametrize(("by_hand", "overridden"), [(True, "n1"), (False, None)])
def test_a_move_by_hand_outranks_the_file_until_the_file_says_otherwise(by_hand: bool, overridden: str | None) -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(msgspec.structs.replace(site.workspace, pin="n1"))
            move = await site.moves.request(site.workspace, "n2", measure=False, by_hand=by_hand)
            await site.say(said("n2", move.generation, "prepared"))
            await site.until("copying")
            await site.say(said("n2", move.generation, "running"))
            await site.until("activated")
            assert site.workspace.overridden == overridden
            assert may_be_on(site.workspace, a_host("n2")) is by_hand
            assert not may_be_on(msgspec.structs.replace(site.workspace, pin="n3"), a_host("n2"))

    run(work())


def test_a_workspace_that_an_edit_is_about_to_restart_is_not_moved_before() -> None:
    async def work() -> None:
        async with a_site() as site:
            edited = msgspec.structs.replace(site.workspace, generation=2)
            await site.say(edited)
            with pytest.raises(Refused, match="about to be restarted on n1"):
                await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n1", 2, "running"))
            assert (await site.moves.request(site.workspace, "n2", measure=False)).target == "n2"

    run(work())


@pytest.mark.parametrize("state", ["requested", "copying"])
def test_an_edit_of_the_nics_calls_a_move_off_at_once(state: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            if state == "copying":
                await site.say(said("n2", move.generation, "prepared"))
                await site.until("copying")
            other = port_id("atlas", "w", "public")
            await site.say(
                msgspec.structs.replace(site.workspace, ports=(PORT, other), generation=2),
                BindingRecord(port=other, playground="atlas", workspace="w", active="n1", source="n1"),
            )
            await site.until("aborted")
            assert (site.binding.active, site.binding.target) == ("n1", None)
            assert site.move.cause == "its NICs were changed by an edit"

    run(work())


def test_why_a_move_was_aborted_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "events")

    async def work() -> None:
        async with a_site() as site:
            move = await site.moves.request(site.workspace, "n2", measure=False)
            await site.say(said("n2", move.generation, "failed", cause="no memory"))
            await site.until("aborted")
            while site.move.finished_utc_s is None:
                await site.world.moved(site.world.revision)

    run(work())
    assert "move-aborted object='workspace atlas/w' text='aborted at n1: no memory'" in caplog.text


def test_a_second_move_waits_for_the_first() -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.moves.request(site.workspace, "n2", measure=False)
            with pytest.raises(Refused, match="is being moved to n2"):
                await site.moves.request(site.workspace, "n2", measure=False)

    run(work())


def test_a_measured_move_copies_only_once_its_meter_runs_and_reports_what_it_saw() -> None:
    started = asyncio.Event()

    class Seen(Metering):
        async def finish(self) -> Measured:
            return Measured(2.5, 1, 0)

    async def meter(move: MigrationRecord) -> Metering | None:
        await started.wait()
        return Seen()

    async def work() -> None:
        async with a_site(meter) as site:
            move = await site.moves.request(site.workspace, "n2", measure=True)
            await site.say(said("n2", move.generation, "prepared"))
            await asyncio.sleep(0.3)
            assert site.move.state == "prepared"
            started.set()
            await site.until("copying")
            await site.say(said("n2", move.generation, "running"))
            await site.until("activated")
            await site.converge("n1", "n2")
            async with asyncio.timeout(5):
                while site.move.finished_utc_s is None:
                    await site.world.moved(site.world.revision)
            assert (site.move.gap_ms, site.move.lost, site.move.duplicated) == (2.5, 1, 0)

    run(work())


@pytest.mark.parametrize("is_starting", [False, True], ids=["ending", "starting"])
def test_a_move_is_measured_once_nothing_measures_the_one_before(is_starting: bool) -> None:
    """Their datagrams go to the same port of the workspace, and one was told the other's as its own."""
    running: list[int] = []
    starts, ends = asyncio.Event(), asyncio.Event()

    class Seen(Metering):
        def __init__(self, generation: int) -> None:
            self.generation = generation

        async def finish(self) -> Measured:
            await ends.wait()
            running.remove(self.generation)
            return Measured(float(self.generation), 0, 0)

    async def meter(move: MigrationRecord) -> Metering | None:
        assert not running
        running.append(move.generation)
        await starts.wait()
        return Seen(move.generation)

    async def work() -> None:
        async with a_site(meter) as site:
            if not is_starting:
                starts.set()
            first = await site.moves.request(site.workspace, "n2", measure=True)
            await site.say(said("n2", first.generation, "prepared"))
            async with asyncio.timeout(5):
                while not running:
                    await asyncio.sleep(0.01)
            await site.moves.abort(site.workspace)
            second = await site.moves.request(site.workspace, "n2", measure=True)
            await site.say(said("n2", second.generation, "prepared"))
            await asyncio.sleep(0.2)
            assert running == [first.generation]
            starts.set()
            ends.set()
            await site.until("copying")
            assert running == [second.generation]
            await site.say(said("n2", second.generation, "running"))
            await site.until("activated")
            await site.converge("n1", "n2")
            async with asyncio.timeout(5):
                while site.move.finished_utc_s is None:
                    await site.world.moved(site.world.revision)
            assert site.move.gap_ms == second.generation

    run(work())


def of_hypervisors() -> list[Record]:
    """A workspace that n1's hypervisor can copy to n2's, over `records`."""
    found: list[Record] = [
        msgspec.structs.replace(r, driver="libvirt") for r in records() if isinstance(r, WorkspaceRecord)
    ]
    for name in ("n1", "n2"):
        driver = Driver("libvirt", "live", "", f"qemu+tcp://{name}/system")
        found.append(HostRecord(name=name, site="lab", underlay="192.0.2.1", drivers=(driver,)))
    return found


def copied(site: Site, state: str, **fields: object) -> ObservedWorkspace:
    """What the source says of its copying."""
    return said("n1", 1, "running", copied=Copied(site.move.generation, state, **fields))  # type: ignore[arg-type]


async def to_copying(site: Site) -> None:
    await site.say(*of_hypervisors())
    move = await site.moves.request(site.workspace, "n2", measure=False)
    assert move.to == "qemu+tcp://n2/system"
    await site.say(said("n2", move.generation, "prepared"))
    await site.until("copying")
    assert site.binding.copied and site.binding.active == "n1"


def test_what_a_hypervisor_copies_lands_and_the_result_has_its_pause() -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            await site.say(copied(site, "paused"))
            await site.until("landing")
            assert (site.binding.phase, site.binding.active) == ("landing", "n1")
            await site.say(said("n2", site.move.generation, "running"))
            await site.until("activated")
            assert (site.binding.active, site.workspace.host) == ("n2", "n2")
            await site.converge("n1", "n2", "far")
            await site.say(copied(site, "done", pause_ms=41.0))
            await site.until("settled")
            assert site.move.pause_ms == 41.0 and not site.binding.copied

    run(work())


@pytest.mark.parametrize("state", ["copying", "landing"])
def test_hosts_that_are_silent_decide_nothing_while_a_hypervisor_copies(state: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            if state == "landing":
                await site.say(copied(site, "paused"))
                await site.until("landing")
            await site.gone("n1")
            await site.gone("n2")
            await asyncio.sleep(0.3)
            assert site.move.state == state
            await site.say(copied(site, "done"))
            await site.until("activated")

    run(work())


@pytest.mark.parametrize("state", ["copying", "landing"])
def test_a_copy_that_fails_gives_the_ports_back_with_its_cause(state: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            if state == "landing":
                await site.say(copied(site, "paused"))
                await site.until("landing")
            await site.say(copied(site, "failed", cause="the other QEMU died"))
            await site.until("aborted")
            assert (site.binding.active, site.binding.target, site.binding.phase) == ("n1", None, "bound")
            assert site.move.cause == "the other QEMU died" and site.workspace.host == "n1"

    run(work())


@pytest.mark.parametrize(("word", "state"), [("failed", "aborted"), ("done", "activated")])
def test_only_the_hypervisor_says_whether_a_copy_could_still_be_called_off(word: str, state: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            after = await site.moves.abort(site.workspace)
            assert (after.state, after.called_off) == ("copying", True)
            await site.say(copied(site, word, cause="operation aborted"))
            await site.until(state)
            assert site.move.cause == ("aborted on request" if word == "failed" else "")

    run(work())


def test_a_copy_that_takes_too_long_is_called_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "COPY_DEADLINE_S", 0.2)

    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            async with asyncio.timeout(5):
                while not site.move.called_off:
                    await site.world.moved(site.world.revision)
            assert site.move.state == "copying" and "not done within 0 s" in site.move.cause
            await site.say(copied(site, "paused"))
            await site.until("landing")
            await site.say(copied(site, "failed", cause="operation aborted"))
            await site.until("aborted")
            assert "not done within 0 s" in site.move.cause

    run(work())


def test_of_a_copy_that_was_called_off_and_nobody_speaks_of_a_person_may_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moves_module, "CALL_OFF_S", 0.1)

    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            await site.moves.abort(site.workspace)
            await asyncio.sleep(0.3)
            assert site.move.state == "copying"
            assert (await site.moves.abort(site.workspace)).state == "aborted"

    run(work())


def test_an_older_copys_word_is_no_word_of_this_one() -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            old = Copied(site.move.generation - 1, "failed", "of before")
            await site.say(said("n1", 1, "running", copied=old))
            await asyncio.sleep(0.3)
            assert site.move.state == "copying"

    run(work())


GAP = Manner(max_gap_ms=200)


async def refused(site: Site, manner: Manner = PLAIN, measure: bool = False, target: str = "n2") -> str:
    """Why a move is refused; nothing has changed."""
    before = site.world.revision
    with pytest.raises(Refused) as error:
        await site.moves.request(site.workspace, target, measure, manner=manner)
    assert site.world.revision == before
    return str(error.value)


def test_what_a_hypervisor_is_told_goes_by_the_record() -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*of_hypervisors())
            manner = Manner(True, True, 8, True, 30.0)
            move = await site.moves.request(site.workspace, "n2", measure=False, manner=manner)
            assert move.manner == manner
            assert move.deadline_utc_s - move.started_utc_s == pytest.approx(30)
            (source, leaving), (target, coming) = site.asking.asked
            assert (source, target) == ("n1", "n2")
            assert isinstance(leaving, TellDeparture) and leaving.to == "qemu+tcp://n2/system"
            assert isinstance(coming, TellArrival) and coming.copies_storage

    run(work())


@pytest.mark.parametrize(
    ("manner", "cause"),
    [
        (Manner(post_copy=True), "--post-copy: only where a hypervisor copies"),
        (Manner(auto_converge=True, bandwidth_mib_s=8), "--auto-converge, --bandwidth: only"),
        (Manner(copy_storage=True), "--copy-storage: only"),
        (GAP, "--max-gap needs the measurement"),
    ],
)
def test_a_manner_that_no_hypervisor_is_there_for_is_refused(manner: Manner, cause: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            assert cause in await refused(site, manner)

    run(work())


def test_all_that_hinders_a_move_is_said_at_once() -> None:
    async def work() -> None:
        async with a_site() as site:
            workspace = msgspec.structs.replace(site.workspace, memory_mib=512, driver="libvirt")
            small = msgspec.structs.replace(a_host("n2"), memory_mib=256)
            await site.say(workspace, small)
            said = (await refused(site, Manner(post_copy=True, max_gap_ms=5), measure=True)).splitlines()
            assert [line.partition(":")[0] for line in said] == [
                "host n2 does not offer the driver libvirt",
                "--post-copy",
                "--max-gap",
                "host n2 has no room for atlas/w",
            ]

    run(work())


def test_a_gap_that_nobody_may_measure_is_no_promise() -> None:
    async def work() -> None:
        async with a_site() as site:
            site.peer = ""
            assert "no peer may send atlas/w" in await refused(site, GAP, measure=True)
            site.peer = "sender"
            move = await site.moves.request(site.workspace, "n2", measure=True, manner=GAP)
            await site.say(said("n2", move.generation, "prepared"))  # and then it answers nobody: no meter
            await site.until("aborted")
            assert "can't be measured" in site.move.cause

    run(work())


@pytest.mark.parametrize(
    ("arrival", "cause"),
    [
        (Arrival("the processor there lacks what Skylake has"), "host n2: the processor there lacks"),
        (
            Arrival(disks=("its disk /a is not on this host", "the image /b is not on this host")),
            "host n2: its disk /a",
        ),
    ],
)
def test_what_the_target_lacks_refuses_a_move(arrival: Arrival, cause: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*of_hypervisors())
            site.asking.arrival = arrival
            said = await refused(site)
            assert cause in said and len(said.splitlines()) == max(1, len(arrival.disks))

    run(work())


@pytest.mark.parametrize(
    ("departing", "about", "verdict"),
    [
        (Departing(Departure("qemu", "x86_64", "pc", ""), True), "underlay", "fine"),
        (Departing(Departure("qemu", "x86_64", "pc", ""), None), "underlay", "unknown"),
        (Departing(Departure("qemu", "x86_64", "pc", ""), False), "underlay", "refused"),
        (Departing(Departure("qemu", "x86_64", "pc", "", unreachable="no TLS"), True), "hypervisors", "refused"),
    ],
)
def test_a_verdict_says_of_each_thing_what_was_found(departing: Departing, about: str, verdict: str) -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*of_hypervisors())
            site.asking.departing = departing
            looked = await site.preflight.look(site.workspace, "n2", False, PLAIN)
            assert {one.about: one.said for one in looked.findings}[about] == verdict
            assert bool(looked.refusals) == (verdict == "refused")

    run(work())


def test_a_host_that_does_not_answer_refuses_a_move() -> None:
    async def work() -> None:
        async with a_site() as site:
            await site.say(*of_hypervisors())
            site.asking.cause = "host n1 did not answer within 5 s"
            assert await refused(site) == site.asking.cause

    run(work())


@pytest.mark.parametrize(("gap_ms", "promise"), [(200.0, "kept"), (200.1, "broken"), (None, "unknown")])
def test_a_promise_is_judged_by_what_was_measured(gap_ms: float | None, promise: str) -> None:
    move = MigrationRecord(
        playground="atlas",
        workspace="w",
        source="n1",
        target="n2",
        state="settled",
        generation=1,
        started_utc_s=0,
        deadline_utc_s=60,
        manner=GAP,
        gap_ms=gap_ms,
        finished_utc_s=3,
    )
    assert move.promise == promise
    assert msgspec.structs.replace(move, state="aborted").promise == ""
    assert msgspec.structs.replace(move, manner=PLAIN).promise == ""


def test_a_result_has_the_times_of_its_phases() -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            await site.say(copied(site, "failed", cause="no"))
            await site.until("aborted")
            assert [state for state, _ in site.move.phases] == ["requested", "prepared", "copying", "aborted"]
            times = [at for _, at in site.move.phases]
            assert times == sorted(times) and times[0] == site.move.started_utc_s

    run(work())


Word = tuple[str, str]
"""A host, and what it says: of the workspace, or as the source of its copying."""


async def say(site: Site, word: Word) -> None:
    host, what = word
    if host == "n2":
        await site.say(said("n2", site.move.generation, what))
        await site.moves.arrived(said("n2", site.move.generation, what))
    else:
        state = {"stands still": "paused"}.get(what, what)
        await site.say(copied(site, state, cause="it broke off" if what == "failed" else ""))
        await site.moves.arrived(copied(site, state))


ARRIVES: list[Word] = [("n1", "stands still"), ("n2", "announced"), ("n2", "running"), ("n1", "done")]


@pytest.mark.parametrize("order", list(itertools.permutations(ARRIVES)), ids=lambda o: "-".join(w for _, w in o))
def test_in_whatever_order_it_is_heard_what_arrived_has_arrived_once(order: tuple[Word, ...]) -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            active = [site.binding.active]
            for word in order:
                await say(site, word)
                active.append(site.binding.active)
            await site.say(said("n2", site.move.generation, "running"), copied(site, "done"))  # as it is in the end
            await site.until("activated")
            await site.converge("n1", "n2", "far")
            await site.until("settled")
            assert (site.binding.active, site.binding.generation, site.workspace.host) == ("n2", 2, "n2")
            assert active == sorted(active), "never back and forth"

    run(work())


FAILS: list[Word] = [("n1", "stands still"), ("n2", "announced"), ("n1", "failed")]


@pytest.mark.parametrize("order", list(itertools.permutations(FAILS)), ids=lambda o: "-".join(w for _, w in o))
def test_in_whatever_order_it_is_heard_a_false_start_ends_at_the_source(order: tuple[Word, ...]) -> None:
    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            before = site.workspace.generation
            for word in order:
                if site.move.state != "aborted":
                    await say(site, word)
            await site.say(copied(site, "failed", cause="it broke off"))
            await site.until("aborted")
            assert (site.binding.active, site.binding.target, site.binding.phase) == ("n1", None, "bound")
            assert site.workspace.host == "n1" and site.move.cause == "it broke off"
            flips = site.binding.generation - 1
            assert flips in (0, 2) and site.workspace.generation - before == flips, "each flip is a generation"

    run(work())


def test_an_announcement_alone_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "SETTLE_S", 0.1)

    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            await say(site, ("n2", "announced"))
            await site.until("activated")
            await site.converge("n1", "n2", "far")
            await site.gone("n1")
            await asyncio.sleep(0.4)
            assert site.move.state == "activated"
            await say(site, ("n2", "running"))
            await site.until("settled")

    run(work())


def test_what_a_post_copy_still_fetches_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "SETTLE_S", 0.1)

    async def work() -> None:
        async with a_site() as site:
            await to_copying(site)
            await say(site, ("n2", "running"))
            await site.until("activated")
            await site.converge("n1", "n2", "far")
            await asyncio.sleep(0.4)
            assert site.move.state == "activated"
            await say(site, ("n1", "done"))
            await site.until("settled")

    run(work())
