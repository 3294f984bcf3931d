"""Pure. The addresses that a port's client forms itself beside those that it is expected to have: which count.

Temporary and stable, semantically opaque addresses (RFC 8981, RFC 7217), and a link-local one in place of that of its
MAC. A client says of each once, by its duplicate address detection; an enemy says so of as many as it likes. So few
count, new ones count only so often, and one that is not answered for any more is forgotten. Knows no socket and no
clock.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

MOST: Final = 8
"""Addresses beside one that is link-local. A client that makes a temporary one each day and keeps them a week has as
many (RFC 8981 §3.8)."""

BURST: Final = 10
EACH_S: Final = 30.0
"""So many new ones at once, and one more each so many seconds."""

CHECK_S: Final = 300.0
SILENT: Final = 3
"""How often the client is asked for each, and after how many questions without an answer it is gone."""

LINK_LOCAL: Final = "fe80::/64"


class Forming:
    """Of one client. expected: addresses that it should have, which always count and are not kept here; its MAC's
    link-local one among them."""

    def __init__(self, expected: Iterable[str]) -> None:
        self._expected = frozenset(expected)
        self._unanswered: dict[str, int] = {}
        """By address, the least recently heard first."""
        self._credit, self._at_s = float(BURST), 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that count, the least recently heard first."""
        return tuple(self._unanswered)

    def know(self, addresses: Iterable[str]) -> None:
        """These count already."""
        for address in addresses:
            if address not in self._expected:
                self._unanswered.setdefault(address, 0)

    def heard(self, address: str, now_mono_s: float) -> list[tuple[str, bool]]:
        """(address, whether the client has it) of all that changes, or is confirmed, as a client says that it has
        one."""
        if address in self._expected:
            gone = [one for one in self._unanswered if _is_link_local(one)] if _is_link_local(address) else []
            return [*self._forget(gone), (address, True)]
        if self._unanswered.pop(address, None) is None and not self._spend(now_mono_s):
            return []
        self._unanswered[address] = 0
        alike = [one for one in self._unanswered if _is_link_local(one) == _is_link_local(address)]
        most = 1 if _is_link_local(address) else MOST
        return [*self._forget(alike[: max(len(alike) - most, 0)]), (address, True)]

    def check(self) -> tuple[list[str], list[tuple[str, bool]]]:
        """(those to ask for now, those that are gone, as `heard` says it). Each question counts as one without an
        answer until the address is heard."""
        gone = self._forget([one for one, times in self._unanswered.items() if times >= SILENT])
        for one in self._unanswered:
            self._unanswered[one] += 1
        return list(self._unanswered), gone

    def _forget(self, addresses: Iterable[str]) -> list[tuple[str, bool]]:
        found = list(addresses)
        for one in found:
            del self._unanswered[one]
        return [(one, False) for one in found]

    def _spend(self, now_mono_s: float) -> bool:
        self._credit = min(self._credit + (now_mono_s - self._at_s) / EACH_S, float(BURST))
        self._at_s = now_mono_s
        if self._credit < 1:
            return False
        self._credit -= 1
        return True


def _is_link_local(address: str) -> bool:
    return ipaddress.IPv6Address(address).is_link_local
