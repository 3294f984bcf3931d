"""Has a host carry the gateways that were derived for it, and says how each stands. Knows no kernel but by its door."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Protocol

from overlay.gateways import Gateway
from overlay.kernel.converge import Outcome, PortState
from overlay.kernel.gateways import GatewayStatus
from overlay.state import PortId
from playground.derive import Carried
from playground.gateways import DRIVER
from playground.records import Driver, ObservedWorkspace

NAT = Driver(name=DRIVER, move="cold")
"""What a host offers that can carry gateways: every one whose agent runs can."""

log = logging.getLogger("agent")


class Door(Protocol):
    """The kernel's door for gateways (`overlay.kernel.gateways.GatewayPlane`, or its double)."""

    def converge(self, wanted: Mapping[str, Gateway]) -> dict[str, GatewayStatus]: ...


class Gateways:
    """One host's gateways. cause: why they could not be looked after at all, "" when they were."""

    def __init__(self, door: Door) -> None:
        self.cause = ""
        self._door = door
        self._carried: Mapping[str, Carried] = {}
        self._status: dict[str, GatewayStatus] = {}

    async def follow(self, carried: Mapping[str, Carried], is_whole: bool) -> None:
        """Makes the host carry these: where they differ from before, or always in a pass that looks at everything."""
        before, was = self._carried, self._status
        if carried is before and not is_whole and not self.cause:
            return
        wanted = {id: one.gateway for id, one in carried.items() if one.gateway is not None}
        try:
            self._status = await asyncio.to_thread(self._door.converge, wanted)
        except OSError as error:
            if self.cause != str(error):
                log.error("gateways not made error=%s", error)
            self.cause = str(error)
            return
        self._carried, self.cause = carried, ""
        for id, status in self._status.items():
            if was.get(id) != status:
                for said in filter(None, (status.cause, *status.warnings)):
                    log.warning("gateway=%s/%s cause=%s", carried[id].playground, carried[id].name, said)

    def observed(self, host: str, outcome: Outcome | None) -> Iterator[ObservedWorkspace]:
        """How each stands. outcome: of the data plane, which has its legs."""
        for id, one in self._carried.items():
            status = self._status.get(id, GatewayStatus("its records are not all here yet"))
            state, cause = "running", "; ".join(status.warnings)
            unready = [_leg_cause(outcome, port) for port in one.ports]
            if status.cause or self.cause:
                state, cause = "failed", status.cause or self.cause
            elif any(unready) or one.gateway is None:
                state, cause = "preparing", next(filter(None, unready), status.cause)
            yield ObservedWorkspace(
                playground=one.playground,
                workspace=one.name,
                host=host,
                generation=one.generation,
                state=state,
                cause=cause,
            )


def _leg_cause(outcome: Outcome | None, port: str) -> str:
    """Why a leg does not forward, "" when it does."""
    status = outcome.ports.get(PortId(port)) if outcome is not None else None
    if status is not None and status.state is PortState.FORWARDING:
        return ""
    return (status.cause if status is not None else "") or "its legs are not in their networks yet"
