"""One suite for the kernel and its double in memory: the same steps, the same picture, the same refusals."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from overlay_lab import NET, OTHER_NET, Lab, a_port, a_remote, mac, missing_right, port_id
from overlay_states import ADOPTED, NUMBERS, host_states

from overlay import ops as do
from overlay.kernel.apply import DataPlane
from overlay.kernel.converge import Convergence, PortState
from overlay.kernel.memory import MemoryDataPlane
from overlay.ops import Op
from overlay.parts import Focus, Part
from overlay.state import Gate, HostState, Leg, LocalPort, Network, port_device
from overlay.topology import ObservedState
from playground.workspaces.drivers import taps


class World(Protocol):
    """A data plane, and what others do around it."""

    plane: Convergence

    def plug(self, name: str, *, in_host: bool = False) -> None: ...
    def unplug(self, name: str) -> None: ...
    def tap(self, name: str) -> None: ...
    def open(self, name: str) -> None: ...
    def let_go(self, name: str) -> None: ...
    def foreign_namespace(self, name: str) -> None: ...
    def wait_event(self) -> bool: ...
    def clean(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.memory = MemoryDataPlane()
        self.plane: Convergence = self.memory

    def plug(self, name: str, *, in_host: bool = False) -> None:
        self.memory.plug(name, in_host=in_host)

    def unplug(self, name: str) -> None:
        self.memory.unplug(name)

    def tap(self, name: str) -> None:
        self.memory.plug(name, "tun", in_host=True, idle=True)

    def open(self, name: str) -> None:
        self.memory.hold(name, True)

    def let_go(self, name: str) -> None:
        self.memory.hold(name, False)

    def foreign_namespace(self, name: str) -> None:
        self.memory.foreign.add(name)

    def wait_event(self) -> bool:
        return self.memory.wait_event()

    def clean(self) -> None:
        self.memory.remove()
        self.memory.host.clear()


class LinuxWorld:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.linux: DataPlane = lab.host(1)
        self.plane: Convergence = self.linux

    def plug(self, name: str, *, in_host: bool = False) -> None:
        where = "h1" if in_host else "dp1"
        self.lab.run(where, f"ip link add {name} type veth peer name x{name[4:]}")
        self.lab.run(where, f"ip link set {name} up")

    def unplug(self, name: str) -> None:
        for where in ("dp1", "h1"):
            self.lab.run(where, f"ip link del {name}", check=False)

    def tap(self, name: str) -> None:
        self.lab.inside("h1", lambda: taps.make(name, 1450))

    def open(self, name: str) -> None:
        self._opened = self.lab.inside("h1", lambda: taps.opened(name))
        self.lab.inside("h1", lambda: taps.release([name], is_free=True))

    def let_go(self, name: str) -> None:
        os.close(self._opened)

    def foreign_namespace(self, name: str) -> None:
        self.lab.namespace(name)

    def wait_event(self) -> bool:
        return self.linux.wait_event(2)

    def clean(self) -> None:
        self.linux.remove()
        self.linux.ensure()
        for number in (number for numbers in NUMBERS.values() for number in numbers):
            subprocess.run(
                ["nsenter", f"--net={self.lab.folder}/h1", "ip", "link", "del", port_device(port_id(number))],
                capture_output=True,
                check=False,
            )


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinuxWorld]:
    if reason := missing_right(tmp_path_factory.mktemp("probe")):
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("netns"))
    try:
        yield LinuxWorld(lab)
    finally:
        lab.close()


@pytest.fixture(params=["memory", pytest.param("linux", marks=pytest.mark.system)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    found: World = MemoryWorld() if request.param == "memory" else request.getfixturevalue("linux")
    yield found
    found.clean()


def a_state(*ports: LocalPort, **changes: object) -> HostState:
    network = Network(NET, vni=7, mtu=1450, ports={port.id: port for port in ports})
    return HostState("192.0.2.1", {NET: replace(network, **changes)})  # type: ignore[arg-type]


def full() -> HostState:
    return a_state(
        a_port(1),
        a_port(2, gate=Gate.CLOSED),
        a_port(ADOPTED, adopt=True),
        remotes={mac(20): a_remote(20, "192.0.2.2"), mac(2): a_remote(2, "192.0.2.3")},
        vteps=frozenset({"192.0.2.2", "192.0.2.3"}),
        leg=Leg("service", ("10.0.0.1/24", "fd00::1/64")),
        chase={mac(2): "192.0.2.3"},
    )


def test_nothing_is_left_to_do_after_a_converge(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plug(port_device(port_id(2)))
    world.plug(port_device(port_id(ADOPTED)), in_host=True)
    outcome = world.plane.converge(full())
    assert outcome.is_clean and outcome.applied
    assert {id: status.state for id, status in outcome.ports.items()} == {
        port_id(1): PortState.FORWARDING,
        port_id(2): PortState.GATED,
        port_id(ADOPTED): PortState.FORWARDING,
    }
    assert world.plane.converge(full()).applied == 0


def test_a_device_may_come_and_vanish_and_come_back(world: World) -> None:
    device, state = port_device(port_id(1)), a_state(a_port(1))
    for _ in range(2):
        assert world.plane.converge(state).ports[port_id(1)].state is PortState.WAITING
        world.plug(device)
        assert world.wait_event()
        assert world.plane.converge(state).ports[port_id(1)].state is PortState.FORWARDING
        world.unplug(device)
        assert world.wait_event()


def test_a_tap_is_moved_in_while_a_hypervisor_has_it_open_and_found_by_the_next_one_where_it_was(world: World) -> None:
    device, state = port_device(port_id(ADOPTED)), a_state(a_port(ADOPTED, adopt=True), a_port(1))
    world.plug(port_device(port_id(1)))
    world.tap(device)
    for focus in ({NET: Part(ports=frozenset({port_id(ADOPTED)}))}, {NET: None}):
        world.plane.converge(state)
        outcome = world.plane.converge_changes(state, focus)
        assert outcome.ports[port_id(ADOPTED)].state is PortState.WAITING and outcome.is_clean
        assert device not in world.plane.observe().links
        world.open(device)
        assert world.wait_event()
        assert world.plane.converge_changes(state, focus).ports[port_id(ADOPTED)].state is PortState.FORWARDING
        assert world.plane.observe().links[device].master == f"br{NET}"
        world.let_go(device)
        assert world.wait_event()
        outcome = world.plane.converge_changes(state, focus)
        assert outcome.ports[port_id(ADOPTED)].state is PortState.WAITING and not outcome.repaired
        assert device not in world.plane.observe().links


def test_a_device_that_vanishes_between_look_and_step_is_an_error_of_that_step_only(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plane.converge(a_state(a_port(1)))
    world.unplug(port_device(port_id(1)))
    steps: list[Op] = [
        do.PutForwarding(port_device(port_id(1)), mac(1)),
        do.PutNeighbour(f"br{NET}", "10.0.0.50", mac(50)),
    ]
    assert [(error.op, error.errno) for error in world.plane.apply(steps)] == [(steps[0], 19)]
    assert world.plane.observe().tables[NET].neighbours["10.0.0.50"].mac == mac(50)


def test_dropping_what_is_gone_is_a_success(world: World) -> None:
    world.plane.converge(a_state())
    gone: list[Op] = [
        do.DropForwarding(f"vx{NET}", mac(1)),
        do.DropTunnelEntry(f"vx{NET}", mac(1)),
        do.DropFlood(f"vx{NET}", "192.0.2.9"),
        do.DropNeighbour(f"br{NET}", "10.0.0.9"),
        do.DropChase(f"vx{NET}", mac(1)),
        do.DeleteLink("pg0000000000ff"),
        do.Detach("pg0000000000ff"),
        do.DropForwarding("pg0000000000ff", mac(1)),
        do.RemoveNamespace("service"),
        do.DropAddress("service", f"sv{NET}", "10.0.0.1/24"),
    ]
    assert world.plane.apply(gone) == []


def test_putting_what_is_there_is_a_success(world: World) -> None:
    state = full()
    world.plug(port_device(port_id(1)))
    world.plane.converge(state)
    again: list[Op] = [
        do.CreateBridge(f"br{NET}", 65000),
        do.CreateNamespace("service"),
        do.PutForwarding(port_device(port_id(1)), mac(1)),
        do.PutTunnelEntry(f"vx{NET}", mac(20), "192.0.2.2"),
        do.PutFlood(f"vx{NET}", "192.0.2.2"),
        do.PutNeighbour(f"br{NET}", "10.0.0.20", mac(20)),
        do.PutChase(f"vx{NET}", mac(2)),
        do.PutAddress("service", f"sv{NET}", "10.0.0.1/24"),
    ]
    before = world.plane.observe()
    assert world.plane.apply(again) == []
    assert world.plane.observe() == before


def test_a_foreign_namespace_is_refused_and_the_rest_is_done(world: World) -> None:
    world.foreign_namespace("theirs")
    world.plug(port_device(port_id(1)))
    outcome = world.plane.converge(a_state(a_port(1), leg=Leg("theirs", ("10.0.0.1/24",))))
    assert do.CreateNamespace("theirs") in {error.op for error in outcome.errors}
    assert outcome.ports[port_id(1)].state is PortState.FORWARDING
    assert "theirs" not in world.plane.observe().services


def test_drift_is_counted_and_a_change_of_desire_is_not(world: World) -> None:
    world.plug(port_device(port_id(1)))
    assert world.plane.converge(a_state(a_port(1))).repaired == {}
    assert world.plane.converge(full()).repaired == {}
    world.plane.apply([do.DropForwarding(port_device(port_id(1)), mac(1)), do.DropNeighbour(f"br{NET}", "10.0.0.20")])
    changed = replace(full().networks[NET], vteps=frozenset({"192.0.2.4"}))
    outcome = world.plane.converge(HostState("192.0.2.1", {NET: changed}))
    assert outcome.repaired == {"fdb": 1, "neighbour": 1}


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_device_that_goes_while_its_entries_are_looked_at_is_no_drift(
    world: World, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """Devices and entries are read one after the other: the device may be seen yet, and its entries not any more."""
    state = a_state(a_port(1))
    world.plug(port_device(port_id(1)))
    assert world.plane.converge(state).is_clean
    look = world.plane.observe

    def torn(focus: Focus | None = None, devices: Iterable[str] = ()) -> ObservedState:
        before = look(focus, devices)
        world.unplug(port_device(port_id(1)))
        monkeypatch.setattr(world.plane, "observe", look)
        return replace(before, tables=look(focus, devices).tables)

    monkeypatch.setattr(world.plane, "observe", torn)
    changes: Focus = {NET: Part(ports=frozenset({port_id(1)}))}
    outcome = world.plane.converge(state) if is_whole else world.plane.converge_changes(state, changes)
    assert outcome.repaired == {}
    assert outcome.ports[port_id(1)].state is PortState.WAITING


def test_networks_can_be_converged_one_at_a_time(world: World) -> None:
    other = Network(OTHER_NET, vni=8, mtu=1450, leg=Leg("service", ("10.1.0.1/24",)))
    both = HostState("192.0.2.1", {**full().networks, OTHER_NET: other})
    world.plane.converge_changes(both, {OTHER_NET: None})
    assert set(world.plane.observe().links) == {f"{kind}{OTHER_NET}" for kind in ("br", "vx", "lg")}
    world.plane.converge_changes(both, {NET: None})
    world.plane.converge_changes(full(), {OTHER_NET: None})
    assert set(world.plane.observe().services["service"]) == {f"sv{NET}"}
    world.plane.converge_changes(HostState("192.0.2.1"), {NET: None})
    assert world.plane.observe() == ObservedState()


@pytest.mark.system
def test_both_show_the_same_after_the_same(linux: LinuxWorld) -> None:
    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(host_states(), host_states())
    def walk(first: HostState, second: HostState) -> None:
        memory = MemoryWorld()
        worlds: tuple[World, World] = (memory, linux)
        for one in worlds:
            one.plug(port_device(port_id(1)))
            one.plug(port_device(port_id(ADOPTED)), in_host=True)
            for state in (first, second):
                outcome = one.plane.converge(state)
                assert outcome.is_clean, outcome.errors
        try:
            assert one_picture(memory.plane.observe()) == one_picture(linux.plane.observe())
        finally:
            linux.clean()

    walk()


def one_picture(state: ObservedState) -> ObservedState:
    """Without the other ends of the test's own veth pairs."""
    return replace(state, links={name: link for name, link in state.links.items() if not name.startswith("x")})
