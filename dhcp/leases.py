"""Pure. Leases of addresses that no client was declared for: who has which until when. Knows no socket, file or clock.

One table a pool, shared by the ports that give from it. A client is known at the port where it asks: it can't take what
another port's client has, whatever it says of itself, and a port can hold only so many addresses, declined ones
included. An offer is a promise in memory; a lease is good when whoever called `grant` has it written down.

Times are seconds since the epoch. A clock that goes back stands still here.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from dhcp.decide import Standing
from dhcp.message import Message
from dhcp.options import Code

OFFER_S: Final = 30.0
"""How long an offered address is kept for its client: RFC 2131 leaves it open, clients ask within seconds."""
DECLINED_S: Final = 600.0
"""How long nobody gets an address that a client declined."""
GRACE_S: Final = 30.0
"""How long an address still waits for its client when the lease has ended: clocks differ, and a client may use its
address until its own says so."""

Range = tuple[int, int]
"""First and last address, as integers."""


class State(Enum):
    """What keeps an address from others."""

    OFFERED = "offered"
    LEASED = "leased"
    DECLINED = "declined"
    RELEASED = "released"


class Lease(NamedTuple):
    """An address and who it is kept for. client: `client_key`; mac: its hardware address."""

    address: int
    port: str
    client: bytes
    mac: bytes
    state: State
    since_s: float
    until_s: float

    @property
    def kept_until_s(self) -> float:
        """When others may have it."""
        return self.until_s + GRACE_S if self.state is State.LEASED else self.until_s

    @property
    def age(self) -> tuple[float, float]:
        """Of two words on an address from two hosts, the one with more of this is the later one: nobody else gets it
        before it was given up, and who has it is given it for longer."""
        return self.since_s, self.until_s


def client_key(request: Message) -> bytes:
    """What a client is known by: its identifier, else its hardware address (RFC 2131 §4.2). The first byte keeps the
    two apart."""
    identifier = request.options.get(Code.CLIENT_ID)
    return b"\xff" + identifier if identifier else bytes((request.htype,)) + request.chaddr


class Leases:
    """One pool's table. `ours` and `whole` may be set anew: a lease outside of both runs out and is not prolonged."""

    def __init__(self, ours: Iterable[Range], limit: int, whole: Iterable[Range] = ()) -> None:
        """ours: what may be given here. limit: most addresses that one port may keep. whole: the range of which ours is
        this host's part; `ours` where nothing is said. What is known to be leased in it may be prolonged here."""
        self._by_address: dict[int, Lease] = {}
        self._by_client: dict[tuple[str, bytes], int] = {}
        self._held: dict[int, str] = {}
        """Addresses that nobody else may get now, and at whose port they are."""
        self._counts: Counter[str] = Counter()
        self._ends: list[tuple[float, int]] = []
        self._looked_at: dict[int, float] = {}
        """When each held address is looked at next, which is not after its end: one entry of the heap counts, however
        often its client asks."""
        self._free: OrderedDict[int, None] = OrderedDict()
        """Those that somebody had, in the order in which they ended."""
        self._now = 0.0
        self.set(ours, limit, whole)

    def set(self, ours: Iterable[Range], limit: int, whole: Iterable[Range] = ()) -> None:
        """What may be given from now on. Leases stay."""
        self.ours: tuple[Range, ...] = tuple(sorted(ours))
        self.whole: tuple[Range, ...] = tuple(whole) or self.ours
        self.limit = limit
        for address in self._by_address:  # one that was not ours the last time that it came by was forgotten
            if address not in self._held:
                self._free.setdefault(address)
        self._unused: Iterator[int] = (address for first, last in self.ours for address in range(first, last + 1))

    def __iter__(self) -> Iterator[Lease]:
        """Every lease that is not forgotten, ended ones included until their address is given again."""
        return iter(self._by_address.values())

    def __len__(self) -> int:
        return len(self._by_address)

    def __getitem__(self, address: int) -> Lease:
        return self._by_address[address]

    def load(self, leases: Iterable[Lease]) -> None:
        """What was written down before; the last one of an address counts."""
        for lease in leases:
            self._put(lease)

    def take_over(self, leases: Iterable[Lease]) -> None:
        """What another host gave before its clients came here. The later word of an address counts."""
        for lease in leases:
            known = self._by_address.get(lease.address)
            if known is None or known.age < lease.age:
                self._put(lease)

    def held(self, port: str, now_s: float) -> int:
        """How many addresses are kept for clients of a port."""
        self._pass(now_s)
        return self._counts[port]

    def offer(self, port: str, client: bytes, mac: bytes, wish: int, now_s: float) -> Lease | None:
        """The address for a client that asks for any: what it has or had, else its wish, else the next free one; kept
        for it as long as an offer lasts. None: nothing is left for this port."""
        self._pass(now_s)
        had = self._by_client.get((port, client))
        if had is not None:
            lease, is_ours = self._by_address[had], _within(self.ours, had)
            if had in self._held and lease.state is State.LEASED and (is_ours or _within(self.whole, had)):
                return lease
            if is_ours and (had in self._held or self._counts[port] < self.limit):
                return self._hold(had, port, client, mac)
        if self._counts[port] >= self.limit:
            return None
        if _within(self.ours, wish) and wish not in self._held:
            return self._hold(wish, port, client, mac)
        address = self._next_free()
        return None if address is None else self._hold(address, port, client, mac)

    def standing(self, port: str, client: bytes, address: int, now_s: float) -> Standing:
        """How an address stands that a client names."""
        self._pass(now_s)
        is_ours = _within(self.ours, address)
        if not (is_ours or _within(self.whole, address)):
            return Standing.FOREIGN
        lease = self._by_address.get(address)
        if lease is not None and address in self._held:
            is_own = (lease.port, lease.client) == (port, client) and lease.state is not State.DECLINED
            return Standing.OWN if is_own else Standing.FOREIGN
        if not is_ours:
            return Standing.ELSEWHERE
        if self._counts[port] >= self.limit:
            return Standing.EXHAUSTED
        return Standing.FREE

    def grant(self, port: str, client: bytes, mac: bytes, address: int, lease_s: int, now_s: float) -> Lease:
        """Leases an address that stands as the client's own or free. Not good before it is written down."""
        self._pass(now_s)
        before = self._by_address.get(address)
        is_on = before is not None and (before.client, before.state) == (client, State.LEASED) and address in self._held
        since_s = before.since_s if is_on and before is not None else self._now
        lease = Lease(address, port, client, mac, State.LEASED, since_s, self._now + lease_s)
        self._put(lease)
        return lease

    def release(self, address: int, now_s: float) -> Lease:
        """Its client gave it back. It gets it again while nobody else needs it."""
        self._pass(now_s)
        lease = self._by_address[address]._replace(state=State.RELEASED, until_s=self._now)
        self._put(lease)
        return lease

    def decline(self, address: int, now_s: float) -> Lease:
        """Its client says that another uses it. It still counts as its port's."""
        self._pass(now_s)
        lease = self._by_address[address]._replace(state=State.DECLINED, until_s=self._now + DECLINED_S)
        self._put(lease)
        self._by_client.pop((lease.port, lease.client), None)
        return lease

    def withdraw(self, port: str, client: bytes, now_s: float) -> None:
        """The client took another server's offer: ours is off."""
        self._pass(now_s)
        address = self._by_client.get((port, client))
        if address is not None and self._by_address[address].state is State.OFFERED:
            self._put(self._by_address[address]._replace(state=State.RELEASED, until_s=self._now))

    def _hold(self, address: int, port: str, client: bytes, mac: bytes) -> Lease:
        lease = Lease(address, port, client, mac, State.OFFERED, self._now, self._now + OFFER_S)
        self._put(lease)
        return lease

    def _put(self, lease: Lease) -> None:
        address = lease.address
        before = self._by_address.get(address)
        if before is not None and self._by_client.get((before.port, before.client)) == address:
            del self._by_client[before.port, before.client]
        self._let_go(address)
        self._by_address[address] = lease
        self._by_client[lease.port, lease.client] = address
        if lease.kept_until_s > self._now:
            self._free.pop(address, None)
            self._held[address] = lease.port
            self._counts[lease.port] += 1
            self._look_by(lease.kept_until_s, address)

    def _look_by(self, at_s: float, address: int) -> None:
        if at_s < self._looked_at.get(address, float("inf")):
            self._looked_at[address] = at_s
            heapq.heappush(self._ends, (at_s, address))

    def _let_go(self, address: int) -> None:
        port = self._held.pop(address, None)
        if port is not None:
            self._counts[port] -= 1
            if not self._counts[port]:
                del self._counts[port]
        self._free[address] = None

    def _pass(self, now_s: float) -> None:
        """Time goes on: what has ended is free again."""
        if now_s <= self._now:
            return
        self._now = now_s
        while self._ends and self._ends[0][0] <= now_s:
            at_s, address = heapq.heappop(self._ends)
            if self._looked_at.get(address) != at_s:
                continue
            del self._looked_at[address]
            if self._by_address[address].kept_until_s > now_s:
                self._look_by(self._by_address[address].kept_until_s, address)
            elif address in self._held:
                self._let_go(address)

    def _next_free(self) -> int | None:
        """One that nobody ever had, else the one that is free for the longest."""
        for address in self._unused:
            if address not in self._by_address:
                return address
        while self._free:
            address, _ = self._free.popitem(last=False)
            if _within(self.ours, address):
                return address
        return None


def _within(ranges: Sequence[Range], address: int) -> bool:
    for first, last in ranges:  # noqa: SIM110 - a generator costs a microsecond, some times a message
        if first <= address <= last:
            return True
    return False
