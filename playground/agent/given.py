"""What this host's responder gave to machines that no one declared: said to the controller, and let in at once.

Decides nothing: which addresses may be given is in the view's records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dhcp.leases import Lease, State
from playground.blocks import FENCE_S, addresses
from playground.records import DynamicRecord, ObservedLeases, key_of
from playground.view import View

FENCE_EVERY_S: Final = 60.0
"""How often the responder is told of a later fence, while a controller is heard."""


class Given:
    """One host's. fence: tells the responder when it is to give nothing any more."""

    def __init__(self, host: str, fence: Callable[[float], None]) -> None:
        self._host = host
        self._fence = fence
        self._fenced_utc_s = 0.0
        self._leases: dict[str, dict[int, Lease]] = {}
        """By port and address, the last word of each."""
        self._seen: dict[str, tuple[DynamicRecord, ObservedLeases | None]] = {}
        """By port, what was read last, and what is to be said by it; nothing of one of which something is new."""
        self._said: set[str] = set()

    def take(self, lease: Lease) -> None:
        """The responder gave an address, or it came back, or was found in use."""
        port = lease.port.removeprefix("pg")
        self._leases.setdefault(port, {})[lease.address] = lease
        self._seen.pop(port, None)

    def vouched(self, utc_s: float) -> None:
        """The controller was heard last at this time."""
        if abs(utc_s - self._fenced_utc_s) >= FENCE_EVERY_S:
            self._fenced_utc_s = utc_s
            self._fence(utc_s + FENCE_S)

    def admit(self, view: View, now_utc_s: float) -> None:
        """Lets machines of this host's ports send and hear, before everybody else knows of them."""
        for scope in view.playgrounds().values():
            for port in scope.local.keys() | (self._leases.keys() & scope.declared.keys()):
                binding = scope.bindings.get(port)
                leases = self._leases.get(port, {}).values() if binding and binding.active == self._host else ()
                macs = (one.mac for one in leases if one.state is State.LEASED and one.kept_until_s > now_utc_s)
                scope.admit(port, frozenset(mac.hex(":") for mac in macs if len(mac) == 6))

    def observed(self, view: View, now_utc_s: float, is_whole: bool) -> list[ObservedLeases]:
        """What is to be said: of each port that has a block of this host, all that has not ended. is_whole: time may
        have ended some."""
        found: list[ObservedLeases] = []
        for scope in view.playgrounds().values():
            for port, record in scope.dynamics.items():
                known = self._seen.get(port)
                if known is None or known[0] is not record or is_whole:
                    known = self._seen[port] = (record, self._observed(port, record, now_utc_s))
                if known[1] is not None:
                    found.append(known[1])
        return found

    def _observed(self, port: str, record: DynamicRecord, now_utc_s: float) -> ObservedLeases | None:
        if all(block.host != self._host for block in record.blocks):
            return None
        mine, known = addresses(record.blocks), self._leases.get(port, {})
        kept = (lease for address, lease in sorted(known.items()) if address in mine)
        return ObservedLeases(
            port=port, host=self._host, leases=tuple(lease for lease in kept if lease.kept_until_s > now_utc_s)
        )

    def over(self, found: list[ObservedLeases]) -> set[str]:
        """Keys of what was said and is not to be any more; what was given there is forgotten."""
        keys = {key_of(one) for one in found}
        gone, self._said = self._said - keys, keys
        for key in gone:
            self._leases.pop(key.split("/")[2], None)
            self._seen.pop(key.split("/")[2], None)
        return gone
