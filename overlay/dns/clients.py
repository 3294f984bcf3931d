"""Pure. Who asks: sets of clients by prefix, and a fair choice among queries that wait. Opens no socket."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

REMEMBERED: Final = 4096
_T = TypeVar("_T")


class Clients:
    """The addresses of some prefixes, as `address in clients`."""

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        """prefixes: with length, or plain addresses. Raises ValueError."""
        self._networks: Final = tuple(ipaddress.ip_network(prefix) for prefix in prefixes)
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            parsed = ipaddress.ip_address(address.partition("%")[0])
            known = any(parsed in network for network in self._networks)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = known
        return known


EVERYBODY: Final = Clients(("0.0.0.0/0", "::/0"))


def shared(waiting: Sequence[tuple[_T, str]], share: int) -> list[tuple[_T, str]]:
    """Of what waits, in its order: at most `share` of each client, where there is more than one of them.

    waiting: what, and whose it is.
    """
    held: Counter[str] = Counter()
    kept = []
    for what, client in waiting:
        held[client] += 1
        if held[client] <= share:
            kept.append((what, client))
    return list(waiting) if len(held) == 1 else kept
