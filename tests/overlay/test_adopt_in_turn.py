"""Devices are moved in a few at a time, all in turn, whatever becomes of the first ones."""

from __future__ import annotations

import errno

from overlay_lab import NET, a_port, port_id

from overlay.diff import diff
from overlay.kernel.converge import ADOPTED_AT_ONCE, PortState
from overlay.kernel.memory import MemoryDataPlane
from overlay.ops import Adopt
from overlay.parts import Part
from overlay.state import HostState, Network, PortId, port_device

MANY = 2 * ADOPTED_AT_ONCE + 10


def all_of(count: int) -> HostState:
    ports = {port_id(number): a_port(number, adopt=True) for number in range(count)}
    return HostState("192.0.2.1", {NET: Network(NET, vni=7, mtu=1450, ports=ports)})


def a_host(count: int) -> MemoryDataPlane:
    kernel = MemoryDataPlane()
    for number in range(count):
        kernel.plug(port_device(port_id(number)), in_host=True)
    return kernel


def adopted(kernel: MemoryDataPlane) -> int:
    return sum(isinstance(op, Adopt) for op in kernel.applied)


def test_a_converge_moves_in_some_and_says_who_waits() -> None:
    kernel, desired = a_host(MANY), all_of(MANY)
    outcome = kernel.converge(desired)
    states = [status.state for status in outcome.ports.values()]
    assert adopted(kernel) == states.count(PortState.FORWARDING) == ADOPTED_AT_ONCE
    waiting = {id for id, status in outcome.ports.items() if status.state is PortState.WAITING}
    assert set(outcome.postponed) == waiting and not outcome.is_clean
    assert "after others" in outcome.ports[outcome.postponed[0]].cause


def test_all_are_moved_in_by_converges_of_who_waits_and_nothing_is_left() -> None:
    kernel, desired = a_host(MANY), all_of(MANY)
    waiting = list(kernel.converge(desired).postponed)
    while waiting:
        some, waiting = waiting[:ADOPTED_AT_ONCE], waiting[ADOPTED_AT_ONCE:]
        outcome = kernel.converge_changes(desired, {NET: Part(ports=frozenset(some))})
        assert outcome.is_clean and outcome.repaired == {}
    assert adopted(kernel) == MANY
    assert diff(desired, kernel.observe()) == []


def test_what_is_moved_in_already_is_never_left_out() -> None:
    kernel, few, desired = a_host(MANY), all_of(ADOPTED_AT_ONCE), all_of(MANY)
    assert kernel.converge(few).is_clean
    kernel.restart()
    outcome = kernel.converge(desired)
    assert {outcome.ports[id].state for id in few.networks[NET].ports} == {PortState.FORWARDING}


def test_devices_that_the_kernel_will_not_move_hold_up_nobody() -> None:
    class Stubborn(MemoryDataPlane):
        """Some devices stay where they are."""

        def _adopt(self, name: str) -> None:
            if PortId(name[2:]) in stuck:
                raise OSError(errno.EINVAL, "Invalid argument")
            super()._adopt(name)

    kernel, desired = Stubborn(), all_of(MANY)
    stuck = sorted(desired.networks[NET].ports)[:ADOPTED_AT_ONCE]
    for id in desired.networks[NET].ports:
        kernel.plug(port_device(id), in_host=True)
    for _ in range(3):
        outcome = kernel.converge(desired)
    states = {id: status.state for id, status in outcome.ports.items()}
    assert {id for id, state in states.items() if state is not PortState.FORWARDING} == set(stuck)
