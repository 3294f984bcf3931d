"""The pools of a host and their journal: an answer that changes a lease waits here until that is on disk. Answers
nobody and decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dhcp.history import Client, described
from dhcp.io.journal import Journal, of_pool
from dhcp.leases import Lease, State
from dhcp.message import Message
from dhcp.pool import Pool
from dhcp.reason import Reason
from dhcp.render import Reply
from dhcp.scope import Pool4

GATHER_S: Final = 0.002
"""How long leases are gathered for one write and sync: as long as a sync takes on a good disk."""
MANY: Final = 4
GATHER_MANY_S: Final = 0.01
"""Where so many were gathered last, they come by the thousand: then a write, a sync and the way to their thread and
back cost more than all else, and less so the rarer they are. No client notices."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer that goes once its lease is written down."""

    device: str
    pool: str
    lease: Lease
    reply: Reply | Reason
    request: Message


class Keeping:
    """Pools by name. kept(waiting, is_kept): called for each answer that waited, in order."""

    def __init__(
        self, journal: Journal | None, kept: Callable[[Waiting, bool], None], now_utc_s: Callable[[], float]
    ) -> None:
        """journal: where leases are kept; without one there can be no pool."""
        self._journal = journal
        self._kept = kept
        self._now_utc_s = now_utc_s
        self._pools: dict[str, Pool] = {}
        self._clients: dict[str, dict[int, Client]] = {}
        self._users: Counter[str] = Counter()
        self._written: dict[tuple[str, int], Lease] | None = None
        self._waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def use(self, scope: Pool4) -> None:
        """A port gives from this pool from now on. Raises ValueError or OSError, leaving all as it was."""
        known = self._pools.get(scope.name)
        if known is not None:
            known.set(scope)
        else:
            if self._journal is None:
                raise ValueError("the scope has a pool, and there is no journal to keep its leases in")
            made = Pool(scope)
            if self._written is None:
                self._written = self._journal.read()
            made.leases.load(of_pool(self._written, scope.name))
            made.leases.take_over(scope.known)
            self._pools[scope.name] = made
        self._users[scope.name] += 1

    def leave(self, name: str) -> None:
        """One port fewer gives from a pool. What its clients have stays known until it ends."""
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]

    def __getitem__(self, name: str) -> Pool:
        return self._pools[name]

    def leases(self, name: str) -> Iterator[tuple[Lease, Client | None]]:
        """What clients of a pool have, or had, with what they said of themselves since we listen."""
        pool, clients = self._pools.get(name), self._clients.get(name, {})
        return iter(()) if pool is None else ((lease, clients.get(lease.address)) for lease in pool.leases)

    def given(self) -> list[Lease]:
        """All that any pool gave and has not ended, of a former run too; the later word of an address comes later."""
        if self._written is None and self._journal is not None:
            self._written = self._journal.read()
        now_s = self._now_utc_s()
        found = [lease for pool in self._pools.values() for lease in pool.leases if lease.state is not State.OFFERED]
        found += [lease for (name, _), lease in (self._written or {}).items() if name not in self._pools]
        return sorted((lease for lease in found if lease.kept_until_s > now_s), key=lambda lease: lease.age)

    def keep(self, waiting: Waiting) -> None:
        """Has a lease written down together with all that come meanwhile."""
        self._waiting.append(waiting)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_all())

    async def _keep_all(self) -> None:
        journal = self._journal
        assert journal is not None
        batch: list[Waiting] = []
        while self._waiting:
            await asyncio.sleep(GATHER_S if len(batch) < MANY else GATHER_MANY_S)
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(journal.append, [(waiting.pool, waiting.lease) for waiting in batch])
                is_kept = True
            except OSError:  # the client is not told, and asks again; nobody else gets the address meanwhile
                is_kept = False
            for waiting in batch:
                if is_kept:
                    seen = described(self._now_utc_s(), waiting.request)
                    self._clients.setdefault(waiting.pool, {})[waiting.lease.address] = seen
                self._kept(waiting, is_kept)
            if is_kept and journal.is_long(sum(len(pool.leases) for pool in self._pools.values())):
                alive = self._forget_ended()
                with contextlib.suppress(OSError):  # the long file is as good
                    await asyncio.to_thread(journal.rewrite, alive)
        self._task = None

    def _forget_ended(self) -> list[tuple[str, Lease]]:
        """Everything that is still to be known, once what nobody uses and has ended is not."""
        now_s = self._now_utc_s()
        self._written = {
            (name, address): lease
            for (name, address), lease in (self._written or {}).items()
            if name not in self._pools and lease.kept_until_s > now_s
        }
        for name in self._pools.keys() - self._users.keys():
            if all(lease.kept_until_s <= now_s for lease in self._pools[name].leases):
                del self._pools[name]
                self._clients.pop(name, None)
        found = [(name, lease) for name, pool in self._pools.items() for lease in pool.leases]
        found = [(name, lease) for name, lease in found if lease.state is not State.OFFERED]
        return [*found, *((name, lease) for (name, _), lease in self._written.items())]
