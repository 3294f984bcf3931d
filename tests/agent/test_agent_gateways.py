"""A host's gateways in its agent's passes: made before their legs are looked for, told of, ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from dhcp.decide import LeaseKind
from overlay.kernel.gateways import GatewayStatus
from overlay.state import port_device
from playground.records import ObservedWorkspace
from playground.responder.protocol import Leased
from playground.workspaces.drivers.memory import Machine
from tests.agent.gateway_double import MemoryGateways
from tests.agent.test_agent import W0, Host, run, running
from tests.derive.test_derive import GRID, P0, a_binding, a_gateway, a_leg, a_workspace

LEG = a_leg(GRID)
WAN = a_gateway(LEG, "n1")


class Legs(MemoryGateways):
    """Plugs the devices of legs, as the kernel's door does."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def converge(self, wanted):  # type: ignore[no-untyped-def]
        status = super().converge(wanted)
        for gateway in wanted.values():
            for leg in gateway.legs:
                if not status[gateway.id].cause and port_device(leg.port) not in self._host.plane.links:
                    self._host.plane.plug(port_device(leg.port))
        return status


def a_host(folder: Path) -> tuple[Host, Legs]:
    host = Host("n1", Machine(), folder)
    legs = Legs(host)
    host.agent._gateways._door = legs
    return host, legs


def said(host: Host) -> ObservedWorkspace | None:
    return host.link.workspaces.get("@wan")


def test_a_gateway_runs_once_its_legs_forward(tmp_path: Path) -> None:
    async def work() -> None:
        host, legs = a_host(tmp_path)
        async with running(host):
            await host.shown([GRID, LEG, a_binding(LEG, "n1")], [WAN])
            await host.link.until(lambda: (seen := said(host)) is not None and seen.state == "running")
            assert list(legs.wanted) == [WAN.id]
            assert host.link.ports[LEG.id].programmed == "forwarding"

    run(work())


def test_what_the_host_lacks_is_said_and_the_gateway_runs(tmp_path: Path) -> None:
    async def work() -> None:
        host, legs = a_host(tmp_path)
        legs.status[WAN.id] = GatewayStatus(warnings=("this host has no default route for IPv6",))
        async with running(host):
            await host.shown([GRID, LEG, a_binding(LEG, "n1")], [WAN])
            await host.link.until(lambda: (seen := said(host)) is not None and seen.state == "running")
            seen = said(host)
            assert seen is not None and seen.cause == "this host has no default route for IPv6"

    run(work())


def test_a_gateway_that_can_not_be_made_has_failed_with_its_cause(tmp_path: Path) -> None:
    async def work() -> None:
        host, legs = a_host(tmp_path)
        legs.status[WAN.id] = GatewayStatus("a device is on this host that is not ours")
        async with running(host):
            await host.shown([GRID, LEG, a_binding(LEG, "n1")], [WAN])
            await host.link.until(lambda: (seen := said(host)) is not None and seen.state == "failed")
            legs.status.clear()
            host.agent._look = True
            host.agent._again()
            await host.link.until(lambda: (seen := said(host)) is not None and seen.state == "running")

    run(work())


@pytest.mark.parametrize("removed", [True, False])
def test_a_gateway_that_goes_elsewhere_or_ends_is_ended_here_and_not_told_of(tmp_path: Path, removed: bool) -> None:
    async def work() -> None:
        host, legs = a_host(tmp_path)
        async with running(host):
            await host.shown([GRID, LEG, a_binding(LEG, "n1")], [WAN])
            await host.link.until(lambda: said(host) is not None)
            elsewhere = msgspec.structs.replace(WAN, host="n2", generation=2)
            if removed:
                await host.shown([GRID], [], 2)
            else:
                await host.shown([GRID, LEG, a_binding(LEG, "n2")], [elsewhere], 2)
            await host.link.until(lambda: said(host) is None)
            assert legs.wanted == {}

    run(work())


def test_a_pass_that_changes_nothing_of_gateways_does_not_look_at_them(tmp_path: Path) -> None:
    async def work() -> None:
        host, legs = a_host(tmp_path)
        async with running(host):
            await host.shown([GRID, LEG, P0, a_binding(LEG, "n1")], [WAN])
            await host.link.until(lambda: (seen := said(host)) is not None and seen.state == "running")
            await host.agent._pass_done()
            before = legs.converged
            await host.shown([GRID, LEG, P0, a_binding(LEG, "n1"), a_binding(P0, "n2")], [WAN], 2)
            await host.agent._pass_done()
            assert legs.converged - before <= 1  # one look at everything may fall in between

    run(work())


def test_a_client_that_was_told_of_another_router_is_asked_to_ask_again(tmp_path: Path) -> None:
    async def work() -> None:
        machine = Machine()
        host = Host("n1", machine, tmp_path)
        routed = msgspec.structs.replace(P0, router="wan")
        told = Leased(
            port=P0.id, address=P0.addresses[0], mac=P0.mac, at_utc_s=1.0, kind=LeaseKind.BOUND, router="10.0.0.99"
        )
        there = [GRID, LEG, a_binding(P0, "n1"), a_binding(LEG, "n2")]
        async with running(host):
            await host.shown([*there, routed], [a_workspace(P0, "n1")])
            await host.link.until(lambda: host.is_said("running"))
            host.agent.leased(told)
            await host.agent._pass_done()
            assert ("n1", "renew", W0) not in machine.calls
            await host.shown([*there, P0], [a_workspace(P0, "n1")], 2)
            async with asyncio.timeout(5):
                while ("n1", "renew", W0) not in machine.calls:
                    await asyncio.sleep(0.02)
            host.agent.leased(msgspec.structs.replace(told, at_utc_s=2.0, router=""))
            await host.agent._pass_done()
            machine.calls.clear()
            await host.agent._pass_done()
            assert ("n1", "renew", W0) not in machine.calls

    run(work())
