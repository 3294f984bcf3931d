"""A door for gateways that only remembers what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from overlay.gateways import Gateway
from overlay.kernel.gateways import GatewayStatus


class MemoryGateways:
    """wanted: of the last converge. status: what the next ones say, by id; all is well where it says nothing."""

    def __init__(self) -> None:
        self.wanted: dict[str, Gateway] = {}
        self.status: dict[str, GatewayStatus] = {}
        self.converged = 0

    def converge(self, wanted: Mapping[str, Gateway]) -> dict[str, GatewayStatus]:
        self.wanted = dict(wanted)
        self.converged += 1
        return {id: self.status.get(id, GatewayStatus()) for id in wanted}
