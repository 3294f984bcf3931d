"""What is known of the clients at this host's ports: what they hold, gave back or declined, and where virtual routers
speak. Asks nobody; knows no kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from dhcp.decide import LeaseKind
from dhcp.scope import PortScope
from overlay.mac import slaac_address
from playground.records import BindingRecord
from playground.responder.protocol import Leased, Router

MOST_GONE = 16
"""Addresses of which it is remembered, for each port, that its client gave them back."""

SILENT_S = 6.0
"""How long a client is waited for that was not heard to hold any address: by then it has been asked often. Its port was
removed and given again while it ran on, and nobody who lived has seen it take what it has."""


class Held:
    """Of all ports. Times: now_mono_s for what passes, now_utc_s for what others are told."""

    def __init__(self) -> None:
        self._addresses: dict[str, dict[str, bool]] = {}
        self._declined: dict[str, str] = {}
        """By port, the address that its client has declined and not taken since."""
        self._defaults: dict[str, str] = {}
        """Default routers that ports' clients were told of, "" for none, where that is known."""
        self._virtual: dict[str, dict[str, float]] = {}
        self._silent_since_s: dict[str, float] = {}
        """Ports whose client was not heard to hold any IPv4 address, since when that is known (monotonic)."""

    def leased(self, leased: Leased) -> None:
        """Notes what the responder told a port's client, or saw it form."""
        held = self._addresses.setdefault(leased.port, {})
        if leased.kind is LeaseKind.BOUND:
            if leased.router is not None:
                self._defaults[leased.port] = leased.router
            if ":" not in leased.address:  # a client has one of IPv4, and may have several of IPv6
                for address in [a for a in held if ":" not in a]:
                    del held[address]
        held.pop(leased.address, None)
        held[leased.address] = leased.kind in (LeaseKind.BOUND, LeaseKind.FORMED)
        for gone in [address for address, is_held in held.items() if not is_held][:-MOST_GONE]:
            del held[gone]
        if leased.kind is LeaseKind.DECLINED:
            self._declined[leased.port] = leased.address
        elif leased.kind is LeaseKind.BOUND:
            self._declined.pop(leased.port, None)

    def router(self, router: Router, binding: BindingRecord, now_utc_s: float) -> bool:
        """Notes that a virtual router speaks at a port, if its binding says that it is elsewhere; whether that is
        news."""
        known = self._virtual.setdefault(router.port, {})
        if router.mac in binding.routers:
            return known.pop(router.mac, None) is not None
        known[router.mac] = now_utc_s
        return True

    def addresses(self, port: str) -> Mapping[str, bool]:
        """What a port's client took here or formed, or gave back (False)."""
        return self._addresses.get(port, {})

    def routers(self, port: str) -> Mapping[str, float]:
        """Virtual routers that spoke at a port while they were taken to be elsewhere, and when last (UTC)."""
        return self._virtual.get(port, {})

    def problem(self, port: str) -> str:
        """What its client says is wrong with a port's address; empty for nothing."""
        address = self._declined.get(port)
        return f"its client declined {address}: it says that another answers for it" if address else ""

    def is_stale(self, port: str, scope: PortScope, binding: BindingRecord | None, now_mono_s: float) -> bool:
        """Whether a port's client holds an address that is not the port's any more, or has another default router, and
        would be told the new one; also one that nobody knows of, and that does not answer for its own, may."""
        known = dict.fromkeys(binding.leased if binding is not None else (), True) | self._addresses.get(port, {})
        held = {address for address, is_held in known.items() if is_held}
        if scope.v4 is not None and scope.v4.address in held:
            router = scope.v4.router or ""
            if self._defaults.get(port, router) != router:
                return True
        meant = set() if scope.v4 is None else {scope.v4.address}
        meant |= set() if scope.v6 is None else set(scope.v6.addresses)
        prefixes = () if scope.ra is None else scope.ra.prefixes
        formed = {slaac_address(prefix, scope.mac) for prefix, is_autonomous in prefixes if is_autonomous}
        if meant <= held:
            self._silent_since_s.pop(port, None)
            return False
        return bool(held - meant - formed) or now_mono_s - self._silent_since_s.setdefault(port, now_mono_s) > SILENT_S

    def begin(self, port: str, binding: BindingRecord | None) -> None:
        """Whatever comes up at a port next has asked for nothing yet."""
        self._addresses[port] = dict.fromkeys(binding.learned if binding is not None else (), False)
        for known in (self._defaults, self._declined, self._silent_since_s):
            known.pop(port, None)

    def leave(self, port: str) -> None:
        """A port is not here any more, and no virtual router is heard there."""
        self._virtual.pop(port, None)
