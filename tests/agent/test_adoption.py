"""While many devices are moved in, an agent goes on with everything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from overlay.kernel.converge import ADOPTED_AT_ONCE
from overlay.state import PortId, port_device
from playground import wire
from playground.agent import agent as agent_module
from playground.view import host_scope, playground_scope
from playground.workspaces.drivers.memory import Machine, MemoryDriver
from tests.agent.test_agent import FakeLink, Host, run, running
from tests.derive.test_derive import GRID, a_binding, a_port, a_workspace

MANY = 2 * ADOPTED_AT_ONCE + 10


class Foreign(MemoryDriver):
    """Its guests' devices are somebody else's."""

    def __init__(self, host: str, machine: Machine) -> None:
        super().__init__(host, machine)
        self.name = "external"


class Interrupting(FakeLink):
    """Does something when the first ports are said to forward, and remembers each report after that."""

    def __init__(self, then: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._then: Callable[[], Awaitable[None]] | None = then
        self.after: list[dict[str, str]] = []

    async def say(self, message: wire.FromAgent) -> bool:
        await super().say(message)
        now = {id: port.programmed for id, port in self.ports.items()}
        if self._then is None:
            self.after.append(now)
        elif "forwarding" in now.values():
            then, self._then = self._then, None
            await then()
        return True


def test_what_is_told_while_devices_are_moved_in_is_done_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "PERIOD_S", 3600.0)  # no look at everything helps

    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        *ports, late = (a_port(index, GRID) for index in range(MANY + 1))
        for port in ports:
            host.plane.plug(port_device(PortId(port.id)), in_host=True)

        async def tell() -> None:
            host.plane.plug(port_device(PortId(late.id)))
            await host.agent.said(wire.Changed(playground_scope("atlas"), 2, [late, a_binding(late, "n1")], []))
            await host.agent.said(wire.Changed(host_scope("n1"), 2, [a_workspace(late, "n1", driver="external")], []))
            await host.agent.said(wire.Complete(2))

        host.agent._guests.drivers = {"external": Foreign("n1", machine)}
        host.link = link = Interrupting(tell)
        host.agent._link = link  # type: ignore[assignment]
        async with running(host):
            bindings = [a_binding(port, "n1") for port in ports]
            await host.shown([GRID, *ports, *bindings], [a_workspace(port, "n1", driver="external") for port in ports])
            await link.until(lambda: all(map(host.forwards, [late.id, *(port.id for port in ports)])))
        served = next(states for states in link.after if states.get(late.id) == "forwarding")
        assert "waiting" in served.values(), "it had to wait until all others were moved in"

    run(work())


def test_a_restarted_agent_reports_what_was_moved_in_by_its_first_pass(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        ports = [a_port(index, GRID) for index in range(MANY)]
        bindings = [a_binding(port, "n1") for port in ports]
        here = [msgspec.structs.replace(a_workspace(port, "n1"), driver="external") for port in ports]
        first = Host("n1", machine, tmp_path)
        for port in ports:
            first.plane.plug(port_device(PortId(port.id)), in_host=True)
        first.agent._guests.drivers = {"external": Foreign("n1", machine)}
        async with running(first):
            await first.shown([GRID, *ports, *bindings], list(here))
            await first.link.until(lambda: all(first.forwards(port.id) for port in ports))
        second = Host("n1", machine, tmp_path)
        second.agent._guests.drivers = {"external": Foreign("n1", machine)}
        second.plane = second.agent._dataplane = first.plane  # type: ignore[assignment]
        applied = len(first.plane.applied)
        async with running(second):
            await second.agent._pass_done()
            assert second.agent._outcome is not None and second.agent._outcome.is_clean
            assert len(first.plane.applied) == applied

    run(work())
