"""The agent over doubles of kernel, driver, responder and link: what it is told becomes so, in the right order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from dhcp.decide import LeaseKind
from overlay.kernel.converge import Outcome
from overlay.kernel.memory import MemoryDataPlane
from overlay.state import HostState, port_device
from playground import wire
from playground.agent import agent as agent_module
from playground.agent import held as held_module
from playground.agent.agent import Agent
from playground.agent.cache import Cache
from playground.agent.gateways import Gateways
from playground.questions import Clients, TellClients
from playground.records import HostRecord, ObservedPort, ObservedWorkspace, workspace_id
from playground.responder.protocol import Leased, PortTold, Problem, Value, port_key
from playground.view import freeze, host_scope, playground_scope
from playground.workspaces.drivers.api import Guest
from playground.workspaces.drivers.memory import Machine, MemoryDriver
from policies.kernel.memory import MemoryEnforcement
from tests.agent.gateway_double import MemoryGateways
from tests.derive.test_derive import GRID, P0, P1, UNDERLAY, a_binding, a_move, a_workspace, in_move

W0 = workspace_id("atlas", P0.workspace)
SITE = [HostRecord(name=n, site="lab", underlay=u) for n, u in UNDERLAY.items()]


class Plane(MemoryDataPlane):
    """Waits a little for events, as the real one does, so that the agent's watcher does not spin."""

    def wait_event(self, timeout_s: float | None = None) -> bool:
        time.sleep(0.005)
        return super().wait_event(timeout_s)


class PluggingDriver(MemoryDriver):
    """Also makes the devices appear in its host's data plane, as the real ones do."""

    def __init__(self, host: str, machine: Machine, plane: MemoryDataPlane) -> None:
        super().__init__(host, machine)
        self.name = "netns"
        self._plane = plane

    async def prepare(self, guest: Guest) -> None:
        await super().prepare(guest)
        self._plug(guest)

    async def prepare_arrival(self, guest: Guest) -> None:
        await super().prepare_arrival(guest)
        self._plug(guest)

    def _plug(self, guest: Guest) -> None:
        for nic in guest.nics:
            if nic.device not in self._plane.links:
                self._plane.plug(nic.device)


class FakeResponder:
    """Answers everything at once, unless told to be deaf."""

    def __init__(self) -> None:
        self.document: Mapping[str, Value] = {}
        self.deaf = False
        self.has_told = True
        self.forgotten: list[str] = []

    def replace(self, document: Mapping[str, Value]) -> None:
        self.document = dict(document)

    def forget(self, keys: Iterable[str]) -> None:
        self.forgotten += keys

    def fence(self, utc_s: float) -> None:
        self.fence_utc_s = utc_s

    @property
    def has_caught_up(self) -> bool:
        return not self.deaf

    def answers(self, key: str) -> bool:
        return not self.deaf and key in self.document

    async def ask(self, ports: Iterable[str]) -> tuple[PortTold, ...]:
        if self.deaf:
            raise ConnectionError("the responder is not connected")
        return tuple(PortTold(port=port, since_utc_s=1.0) for port in ports)

    async def run(self) -> None:
        await asyncio.Event().wait()


class FakeLink:
    """Keeps what the agent says."""

    def __init__(self) -> None:
        self.ports: dict[str, ObservedPort] = {}
        self.workspaces: dict[str, ObservedWorkspace] = {}
        self.problems: tuple[str, ...] = ()
        self.repaired: Mapping[str, int] = {}
        self.answers: list[wire.Answer] = []
        self.said = asyncio.Condition()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def say(self, message: wire.FromAgent) -> bool:
        if isinstance(message, wire.Answer):
            self.answers.append(message)
        if isinstance(message, wire.Report):
            if message.whole:
                self.ports.clear()
                self.workspaces.clear()
            for observed in message.observed:
                if isinstance(observed, ObservedPort):
                    self.ports[observed.port] = observed
                elif isinstance(observed, ObservedWorkspace):
                    self.workspaces[observed.workspace] = observed
                else:
                    self.problems, self.repaired = observed.problems, observed.repaired
            for key in message.gone:
                self.workspaces.pop(key.split("/")[3] if key.startswith("observed/workspace") else "", None)
                self.ports.pop(key.split("/")[2] if key.startswith("observed/port") else "", None)
        async with self.said:
            self.said.notify_all()
        return True

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.said:
            await self.said.wait_for(claim)


class Host:
    """One agent and its doubles."""

    def __init__(self, name: str, machine: Machine, folder: Path) -> None:
        self.name = name
        self.plane = Plane()
        self.link = FakeLink()
        self.responder = FakeResponder()
        self.rules = MemoryEnforcement()
        self.gateways = MemoryGateways()
        self.agent = Agent(
            host=name,
            underlay=UNDERLAY[name],
            dataplane=self.plane,
            dataplane_name="playground",
            door=self.rules,
            gateways=Gateways(self.gateways),
            drivers={"netns": PluggingDriver(name, machine, self.plane)},
            responder=self.responder,  # type: ignore[arg-type]
            link=self.link,  # type: ignore[arg-type]
            cache=folder / f"{name}.json",
        )

    async def shown(self, playground: list[wire.Viewed], here: list[wire.Viewed], revision: int = 1) -> None:
        """The controller shows a whole view."""
        agent = self.agent
        await agent.connection_changed(True, "")
        await agent.said(wire.Welcome("lab", "s", "internal", [], 3600.0))
        await agent.said(wire.Enter("site", revision, list(SITE)))
        await agent.said(wire.Enter(host_scope(self.name), revision, here))
        if playground:
            await agent.said(wire.Enter(playground_scope("atlas"), revision, playground))
        await agent.said(wire.Complete(revision))

    def is_said(self, state: str) -> bool:
        """Whether the agent says so of the one workspace."""
        return "w-0" in self.link.workspaces and self.link.workspaces["w-0"].state == state

    def forwards(self, port: str) -> bool:
        return port in self.link.ports and self.link.ports[port].programmed == "forwarding"


@asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(host.agent.run()) for host in hosts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(whole())


def test_a_guest_starts_only_once_its_port_is_programmed_and_answered_for(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        host.responder.deaf = True
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.forwards(P0.id))
            assert ("n1", "start", W0) not in machine.calls
            host.responder.deaf = False
            host.agent.answering()
            await host.link.until(lambda: host.link.workspaces["w-0"].state == "running")
            assert [verb for _, verb, _ in machine.calls] == ["prepare", "start"]

    run(work())


def test_nothing_is_reported_before_the_responder_has_said_what_clients_hold(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        host.responder.has_told = False
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            async with asyncio.timeout(5):
                while port_key(P0.id) not in host.responder.document:
                    await asyncio.sleep(0.01)
            assert not host.link.ports
            told = Leased(port=P0.id, address=P0.addresses[0], mac=P0.mac, at_utc_s=1.0, kind=LeaseKind.BOUND)
            host.agent.leased(told)
            host.responder.has_told = True
            host.agent.answering()
            await host.link.until(lambda: P0.id in host.link.ports)
            assert host.link.ports[P0.id].leased == P0.addresses[:1]

    run(work())


def test_a_lease_of_one_family_leaves_the_other_to_its_client(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        told = Leased(port=P0.id, address=P0.addresses[0], mac=P0.mac, at_utc_s=1.0, kind=LeaseKind.BOUND)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            for address in P0.addresses:
                host.agent.leased(msgspec.structs.replace(told, address=address))
            await host.link.until(lambda: P0.id in host.link.ports and host.link.ports[P0.id].leased == P0.addresses)

    run(work())


def test_an_address_that_its_client_declined_is_said_until_it_is_taken(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        told = Leased(port=P0.id, address=P0.addresses[0], mac=P0.mac, at_utc_s=1.0, kind=LeaseKind.DECLINED)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            host.agent.leased(told)
            await host.link.until(lambda: P0.id in host.link.ports and "declined" in host.link.ports[P0.id].cause)
            host.agent.leased(msgspec.structs.replace(told, kind=LeaseKind.BOUND))
            await host.link.until(lambda: not host.link.ports[P0.id].cause)

    run(work())


def test_whoever_asks_is_told_of_clients_and_of_what_hinders(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        async with running(host):
            host.agent.problem(Problem(key=port_key(P0.id), cause="bad"))
            host.agent.problem(Problem(key="port/ffffffffffff", cause="another's"))
            host.agent.problem(Problem(key="view/atlas", cause="no socket"))
            await host.agent.said(wire.Ask("q1", TellClients([P0.id])))
            await host.link.until(lambda: len(host.link.answers) == 1)
            told = msgspec.json.decode(host.link.answers[0].body, type=Clients)
            assert told == Clients(
                [PortTold(port=P0.id, since_utc_s=1.0)], {port_key(P0.id): "bad", "view/atlas": "no socket"}
            )
            host.responder.deaf = True
            await host.agent.said(wire.Ask("q2", TellClients([P0.id])))
            await host.link.until(lambda: len(host.link.answers) == 2)
            assert host.link.answers[1].problem == "its responder does not answer: the responder is not connected"

    run(work())


def test_a_running_guest_with_other_nics_is_made_anew(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            changed = msgspec.structs.replace(P0, mac="52:54:00:00:00:09")
            await host.shown([GRID, changed, a_binding(P0, "n1")], [a_workspace(P0, "n1")], 2)
            await host.link.until(lambda: not host.is_said("running"))  # never said of the one that has the old MAC
            await host.link.until(lambda: host.is_said("running"))
            assert machine.guests[W0].guest.nics[0].mac == "52:54:00:00:00:09"
            assert [verb for _, verb, _ in machine.calls] == ["prepare", "start", "stop", "prepare", "start"]
            assert host.responder.forgotten == [port_key(P0.id)] * 2

    run(work())


def test_a_restarted_agent_adopts_what_runs_and_touches_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        first = Host("n1", machine, tmp_path)
        async with running(first):
            await first.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await first.link.until(lambda: first.is_said("running"))
        calls = list(machine.calls)
        second = Host("n1", machine, tmp_path)
        second.plane = first.plane
        second.agent._dataplane = first.plane
        applied = len(first.plane.applied)
        async with running(second):
            await second.agent._pass_done()  # from the cache alone: no controller has spoken
            assert len(first.plane.applied) == applied
            assert machine.calls == calls

    run(work())


def test_without_a_view_nothing_is_ended(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        await PluggingDriver("n1", machine, host.plane).prepare(Guest(W0, "atlas", "w-0", "w-0", ()))
        machine.calls.clear()
        async with running(host):
            await host.agent._pass_done()
            assert machine.calls == []

    run(work())


def test_a_workspace_that_no_record_names_is_ended(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            await host.shown([], [], 2)
            await host.link.until(lambda: "w-0" not in host.link.workspaces and P0.id not in host.link.ports)
            assert not [n for n in host.plane.links if n.startswith(("br", "vx"))]
            assert W0 not in machine.guests

    run(work())


def test_a_move_opens_the_target_before_the_traffic_comes(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        source, target = Host("n1", machine, tmp_path), Host("n2", machine, tmp_path)
        opened: list[bool] = []
        driver = target.agent._drivers["netns"]
        activate = driver.activate

        async def watched(guest: Guest, move: int = 0) -> float:
            links = target.plane.observe().links[port_device(P0.id)]  # type: ignore[arg-type]
            opened.append(links.flags is not None and links.flags.broadcast_flood)
            return await activate(guest, move)

        driver.activate = watched  # type: ignore[method-assign]
        rest = [P1, a_binding(P1, "n1")]
        async with running(source, target):
            await source.shown([GRID, P0, a_binding(P0, "n1"), *rest], [a_workspace(P0, "n1"), a_workspace(P1, "n1")])
            await source.link.until(
                lambda: (
                    source.link.workspaces.get("w-0") is not None and source.link.workspaces["w-0"].state == "running"
                )
            )
            for state, wanted in (("requested", "prepared"), ("copying", "running")):
                records = [GRID, P0, in_move(P0, "n1", "n2", state), *rest]
                here = [a_workspace(P0, "n1"), a_move(P0, "n1", "n2", state)]
                await source.shown(records, [*here, a_workspace(P1, "n1")], 2)
                await target.shown(records, here, 2)
                await target.link.until(
                    lambda w=wanted: (
                        target.link.workspaces.get("w-0") is not None and target.link.workspaces["w-0"].state == w
                    )
                )
            assert opened == [True]
            records = [GRID, P0, a_binding(P0, "n2"), *rest]
            await source.shown(records, [a_workspace(P0, "n2", generation=2), a_workspace(P1, "n1")], 3)
            await target.shown(records, [a_workspace(P0, "n2", generation=2)], 3)
            await source.link.until(lambda: P0.id not in source.link.ports and "w-0" not in source.link.workspaces)
            await target.link.until(lambda: target.link.workspaces["w-0"].generation == 2)
            assert machine.guests[W0].host == "n2"
            assert machine.guests[W0].ends == {"n2"}

    run(work())


def test_a_workspace_that_arrived_after_its_move_was_aborted_is_taken_back(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        source, target = Host("n1", machine, tmp_path), Host("n2", machine, tmp_path)
        async with running(source, target):
            await source.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await source.link.until(lambda: source.is_said("running"))
            here = [a_workspace(P0, "n1"), a_move(P0, "n1", "n2", "copying")]
            await target.shown([GRID, P0, in_move(P0, "n1", "n2", "copying")], here, 2)
            await target.link.until(lambda: target.is_said("running"))
            over = a_move(P0, "n1", "n2", "aborted")
            await target.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1"), over], 3)
            await source.shown(
                [GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1"), a_move(P0, "n1", "n2", "aborted")], 3
            )
            async with asyncio.timeout(5):
                while (
                    machine.guests.get(W0) is None or machine.guests[W0].host != "n1" or "n2" in machine.guests[W0].ends
                ):
                    await asyncio.sleep(0.02)
            assert machine.guests[W0].running

    run(work())


def test_a_guest_that_cannot_be_made_is_reported_with_its_cause(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        machine.refusals["prepare"] = "no busybox"
        host = Host("n1", machine, tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("failed"))
            assert host.link.workspaces["w-0"].cause == "no busybox"

    run(work())


def test_rules_that_somebody_changes_are_put_back_at_once_and_counted_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "PERIOD_S", 60.0)

    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            assert not host.link.repaired
            for count in (1, 2, 3):
                host.rules.tamper(chain=1)
                await host.link.until(lambda n=count: host.link.repaired.get("chain") == n)

    run(work())


@pytest.mark.parametrize("damage", ["unplug the tunnel", "unplug the bridge"])
def test_drift_is_repaired_and_counted(tmp_path: Path, damage: str) -> None:
    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        async with running(host):
            await host.shown([GRID, P0, P1, a_binding(P0, "n1"), a_binding(P1, "n2")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.forwards(P0.id))
            await host.agent._pass_done()
            device = ("vx" if "tunnel" in damage else "br") + GRID.id
            host.plane.unplug(device)
            await host.link.until(lambda: sum(host.link.repaired.values()) > 0)
            await host.link.until(lambda: host.forwards(P0.id))
            assert device in host.plane.links

    run(work())


@pytest.mark.parametrize(("age_s", "is_made_again"), [(10.0, True), (100_000.0, False)])
def test_without_a_controller_a_workspace_is_made_anew_only_from_a_fresh_cache(
    tmp_path: Path, age_s: float, is_made_again: bool
) -> None:
    async def work() -> None:
        machine = Machine()
        first = Host("n1", machine, tmp_path)
        async with running(first):
            await first.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await first.link.until(lambda: first.is_said("running"))
        machine.die(W0)
        machine.calls.clear()
        cache = tmp_path / "n1.json"
        remembered = Cache(cache).read()
        assert remembered is not None
        cache.write_bytes(freeze(remembered.view, time.time() - age_s, "internal", []))
        second = Host("n1", machine, tmp_path)
        async with running(second):
            await second.agent._pass_done()
            await second.agent._pass_done()
            assert (("n1", "prepare", W0) in machine.calls) is is_made_again
            assert second.plane.links, "what was there stays, however old the cache"

    run(work())


def test_a_torn_cache_is_as_good_as_none(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        (tmp_path / "n1.json").write_bytes(b'{"at_utc_s": 17')
        host = Host("n1", machine, tmp_path)
        async with running(host):
            await host.agent._pass_done()
            assert machine.calls == []
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))

    run(work())


def test_a_running_guest_with_another_address_is_asked_to_ask_for_it(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            host.agent.leased(
                Leased(port=P0.id, address=P0.addresses[0], mac=P0.mac, at_utc_s=1.0, kind=LeaseKind.BOUND)
            )
            changed = msgspec.structs.replace(P0, addresses=("10.0.0.77", P0.addresses[1]))
            await host.shown([GRID, changed, a_binding(P0, "n1")], [a_workspace(P0, "n1")], 2)
            async with asyncio.timeout(5):
                while ("n1", "renew", W0) not in machine.calls:
                    await asyncio.sleep(0.02)
            await host.agent._pass_done()
            assert machine.calls.count(("n1", "renew", W0)) == 1

    run(work())


def test_a_running_guest_whose_address_nobody_knows_is_asked_to_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "SILENT_S", 0.2)

    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            async with asyncio.timeout(5):
                while ("n1", "renew", W0) not in machine.calls:
                    await asyncio.sleep(0.02)
            machine.calls.clear()
            host.agent.leased(
                Leased(port=P0.id, address=P0.addresses[0], mac=P0.mac, at_utc_s=1.0, kind=LeaseKind.BOUND)
            )
            await asyncio.sleep(0.4)
            await host.agent._pass_done()
            assert machine.calls == []

    run(work())


def test_a_bug_costs_a_pass_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            broken = host.plane.converge

            def fail(desired: HostState) -> Outcome:
                raise RuntimeError("a bug")

            host.plane.converge = fail  # type: ignore[method-assign]
            host.agent._again()
            await host.link.until(lambda: any("a bug" in problem for problem in host.link.problems))
            host.plane.converge = broken  # type: ignore[method-assign]
            await host.link.until(lambda: not host.link.problems)
            assert host.is_said("running")

    run(work())


def test_a_host_says_it_applied_what_the_present_controller_counts(tmp_path: Path) -> None:
    """A store that was set back counts from less: whoever waits for its revisions must not be told of the old ones."""

    async def work() -> None:
        host = Host("n1", Machine(), tmp_path)
        async with running(host):
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")], 10)
            await host.link.until(lambda: host.is_said("running"))
            await host.shown([GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")], 9)
            await host.agent._pass_done()
            await host.agent._pass_done()
            assert host.agent._applied == 9

    run(work())
