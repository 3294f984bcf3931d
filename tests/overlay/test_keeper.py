"""A port joins its bridge only when whoever keeps watch over it lets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlay_lab import NET, a_port, mac, port_id
from test_kernel_conformance import ADOPTED, World, a_state, linux, world

from overlay.kernel.converge import PortState
from overlay.kernel.memory import MemoryDataPlane
from overlay.parts import Part
from overlay.state import Gate, PortId, bridge_device, port_device, vxlan_device

__all__ = ["linux", "world"]


@dataclass
class AKeeper:
    """Lets a port in once it has seen its device and the tunnel's, unless it is told to hold it."""

    held: set[PortId] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    bridges: list[Mapping[str, int | None]] = field(default_factory=list)
    """Those of each look, in order."""

    def watch(self, devices: Mapping[str, int | None], bridges: Mapping[str, int | None]) -> None:
        self.bridges.append(bridges)
        for name, index in devices.items():
            if index is None:
                self.seen.pop(name, None)
            else:
                self.seen[name] = index

    def forget(self) -> None:
        self.seen.clear()

    def holds(self, port: PortId) -> str:
        is_known = {port_device(port), vxlan_device(NET)} <= self.seen.keys()
        return "" if is_known and port not in self.held else "not yet"


def bridge_of(world: World, number: int) -> str:
    return world.plane.observe().links[port_device(port_id(number))].master


def test_devices_are_told_of_before_their_ports_are_attached(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plug(port_device(port_id(ADOPTED)), in_host=True)
    world.plane.keeper = keeper = AKeeper()
    outcome = world.plane.converge(a_state(a_port(1), a_port(ADOPTED, adopt=True)))
    assert {status.state for status in outcome.ports.values()} == {PortState.FORWARDING}
    assert keeper.seen == {name: world.plane.indexes()[name] for name in keeper.seen}
    assert keeper.seen.keys() == {port_device(port_id(1)), port_device(port_id(ADOPTED)), vxlan_device(NET)}


def test_a_bridge_that_goes_and_comes_again_is_told_of_before_ports_are_attached(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plane.converge(a_state(a_port(1)))
    world.plane.keeper = keeper = AKeeper()
    world.unplug(bridge_device(NET))
    assert world.plane.converge(a_state(a_port(1))).ports[port_id(1)].state is PortState.FORWARDING
    gone, *_, there = keeper.bridges
    assert gone == {bridge_device(NET): None}
    assert there == {bridge_device(NET): world.plane.indexes()[bridge_device(NET)]}


def test_a_held_port_is_in_no_bridge_and_says_why(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plug(port_device(port_id(2)))
    world.plane.keeper = AKeeper(held={port_id(1)})
    desired = a_state(a_port(1), a_port(2))
    outcome = world.plane.converge(desired)
    assert (outcome.ports[port_id(1)].state, outcome.ports[port_id(1)].cause) == (PortState.WAITING, "not yet")
    assert bridge_of(world, 1) == "" and bridge_of(world, 2) == bridge_device(NET)
    assert mac(1) not in world.plane.observe().tables[NET].forwarding
    assert world.plane.converge(desired).applied == 0


def test_a_port_that_is_held_again_leaves_its_bridge_at_once(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plane.keeper = keeper = AKeeper()
    desired = a_state(a_port(1))
    world.plane.converge(desired)
    keeper.held.add(port_id(1))
    part = Part(ports=frozenset({port_id(1)}))
    assert world.plane.converge_changes(desired, {NET: part}).ports[port_id(1)].state is PortState.WAITING
    assert bridge_of(world, 1) == ""
    keeper.held.clear()
    assert world.plane.converge_changes(desired, {NET: part}).ports[port_id(1)].state is PortState.FORWARDING
    assert bridge_of(world, 1) == bridge_device(NET)


def test_a_closed_port_that_was_held_comes_in_closed(world: World) -> None:
    world.plug(port_device(port_id(1)))
    world.plane.keeper = keeper = AKeeper(held={port_id(1)})
    desired = a_state(a_port(1, gate=Gate.CLOSED))
    world.plane.converge(desired)
    keeper.held.clear()
    assert world.plane.converge(desired).ports[port_id(1)].state is PortState.GATED


def test_a_device_that_came_again_has_another_index() -> None:
    kernel = MemoryDataPlane()
    kernel.plug(port_device(port_id(1)))
    before = dict(kernel.indexes())
    kernel.unplug(port_device(port_id(1)))
    kernel.plug(port_device(port_id(1)))
    assert kernel.indexes()[port_device(port_id(1))] not in before.values()
