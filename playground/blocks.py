"""Pure. Blocks of addresses that hosts give to machines behind ports: how one port's go on. Knows no store.

A block is given from by one host at a time. It begins open; then it is closing: its host is told to give none of it any
more, and only when that host has said that it does so, and what it gave before, the block goes to the host where the
port is now, or is free. So no address is at two, however late anybody hears of what. A host that stays silent can't say
it: it stops by itself after `FENCE_S` without a controller, and what it gave has ended `longest_s` later.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from dhcp.leases import GRACE_S, Lease, State
from overlay.pools import Span, address_hex, address_text, merge, parse_address, subtract
from playground.records import Block, DynamicRecord, ObservedLeases, PortRecord, address_claim, mac_claim

FENCE_S: Final = 86400.0
"""A host gives from its blocks, and prolongs what it gave, for so long after it has last heard of its controller."""
DOUBT_S: Final = 600.0
"""By so much may the clocks of hosts and controller differ, and a host believe for longer that it is connected."""
SIZE: Final = 8
"""Addresses of a block; a port that has many machines gets two of them at a time."""
SPARE: Final = 4
"""Addresses that a port's host has for the next machines, unless the port may have no more: more are asked for before
the last one is given."""
MACHINES: Final = 8
"""MACs that come or go by one step. With the addresses that do it fits one commit of every engine."""
FREED: Final = 64
"""Addresses that are freed by one step, at most."""


def spans_of(ranges: Iterable[str]) -> tuple[Span, ...]:
    """A network's ranges FIRST-LAST, or single addresses."""
    return merge(_span(*text.partition("-")[::2]) for text in ranges)


def span_of(block: Block) -> Span:
    """The addresses of a block."""
    return _span(block.first, block.last)


def _span(first: str, last: str) -> Span:
    return Span(parse_address(first)[1], parse_address(last or first)[1])


def within(blocks: Iterable[Block], ranges: Sequence[Span]) -> tuple[tuple[str, str], ...]:
    """The parts of blocks that lie in ranges, as (first, last)."""
    spans = [span_of(block) for block in blocks]
    kept = subtract(spans, subtract(spans, ranges))
    return tuple((address_text(4, one.first), address_text(4, one.last)) for one in kept)


def prefixes(blocks: Iterable[Block]) -> tuple[str, ...]:
    """All addresses of blocks, as few prefixes as can be; a single address plain."""
    found: list[str] = []
    for span in merge(map(span_of, blocks)):
        ends = ipaddress.IPv4Address(span.first), ipaddress.IPv4Address(span.last)
        found += (str(one).removesuffix("/32") for one in ipaddress.summarize_address_range(*ends))
    return tuple(found)


def addresses(blocks: Iterable[Block]) -> frozenset[int]:
    """All addresses of blocks."""
    spans = map(span_of, blocks)
    return frozenset(address for span in spans for address in range(span.first, span.last + 1))


def claims_of(record: DynamicRecord) -> set[str]:
    """The keys of all that is claimed for machines behind a port."""
    found = {mac_claim(record.network_id, mac) for mac in record.machines}
    return found | {address_claim(record.network_id, address_hex(4, one)) for one in addresses(record.blocks)}


@dataclass(frozen=True, slots=True)
class Around:
    """What the next step of one port's blocks reads beside their record.

    port: None where it is gone. ranges: of its network, now. lease_s: how long leases there are. active: the host where
    the port is, or None; stay: the generation of its binding there. seen: what hosts say that they gave. is_final:
    whether a host answers by the record as it stands, and has said what it gave before. is_alive: whether a host is
    heard. is_free: whether nobody has claimed an address. may_have: whether a MAC is nobody's, and fit for a machine.
    """

    port: PortRecord | None
    ranges: Sequence[Span]
    lease_s: int
    active: str | None
    stay: int
    seen: Mapping[str, ObservedLeases]
    is_final: Callable[[str], bool]
    is_alive: Callable[[str], bool]
    is_free: Callable[[int], bool]
    may_have: Callable[[str], bool]
    now_utc_s: float

    @property
    def limit(self) -> int:
        """Most machines that the port may have."""
        return self.port.dynamic if self.port is not None and self.ranges else 0

    def is_open(self, block: Block) -> bool:
        """Whether the host where the port is gives from a block."""
        return not block.closing and (block.host, block.stay) == (self.active, self.stay)

    def does_want(self, block: Block) -> bool:
        """Whether the port may still have all addresses of a block."""
        span = span_of(block)
        return self.limit > 0 and any(one.first <= span.first and span.last <= one.last for one in self.ranges)


def step(record: DynamicRecord, around: Around) -> DynamicRecord:
    """The record as it should be next; the same where nothing is to be done. What it has more than before is to be
    claimed with it, what it has less is free with it: both fit one commit."""
    leases = _live(record, around)
    blocks = _moved_on(record.blocks, around, leases.keys())
    blocks = _fitting(blocks, around, leases.keys()) if around.active is not None else blocks
    return replace(
        record,
        blocks=blocks,
        machines=_machines(record, around, leases.values()) if around.limit else record.machines[MACHINES:],
        leases=_carried(record, around, addresses(blocks)),
    )


def _live(record: DynamicRecord, around: Around) -> dict[int, Lease]:
    """What machines behind the port have, by address."""
    mine = addresses(record.blocks)
    hosts = {around.active or "", *(block.host for block in record.blocks)}
    found = _latest((*record.leases, *_said(around, hosts)), around)
    return {address: lease for address, lease in found.items() if address in mine}


def _said(around: Around, hosts: Iterable[str]) -> Iterator[Lease]:
    return (lease for host in hosts if host in around.seen for lease in around.seen[host].leases)


def _latest(leases: Iterable[Lease], around: Around) -> dict[int, Lease]:
    """By address, of what has not ended for sure, the last word."""
    found: dict[int, Lease] = {}
    for lease in leases:
        known = found.get(lease.address)
        if lease.kept_until_s + DOUBT_S > around.now_utc_s and (known is None or known.age < lease.age):
            found[lease.address] = lease
    return found


def _moved_on(blocks: Sequence[Block], around: Around, leased: Iterable[int]) -> tuple[Block, ...]:
    """Each block by one step; of those that are free, as many go as a commit takes."""
    taken, kept, freed = frozenset(leased), list[Block](), 0
    for block in blocks:
        after, size = _next(block, around, is_used=not taken.isdisjoint(addresses([block]))), span_of(block).size
        if after is not None or freed + size > FREED:
            kept.append(after or block)
        else:
            freed += size
    return tuple(kept)


def _next(block: Block, around: Around, *, is_used: bool) -> Block | None:
    """None: it is free."""
    is_wanted = around.does_want(block)
    if not block.closing:
        if not is_wanted or not around.is_open(block):
            return replace(block, closing=True)
        return replace(block, longest_s=max(block.longest_s, around.lease_s))
    silent_utc_s = 0.0 if around.is_alive(block.host) else block.silent_utc_s or around.now_utc_s
    if silent_utc_s != block.silent_utc_s:
        block = replace(block, silent_utc_s=silent_utc_s)
    has_ended = FENCE_S + DOUBT_S + block.longest_s + GRACE_S
    if not around.is_final(block.host) and not (silent_utc_s and around.now_utc_s - silent_utc_s > has_ended):
        return block
    if not is_used or not around.limit:
        return None
    if not is_wanted or around.active is None:
        return block
    return Block(block.first, block.last, around.active, around.stay, around.lease_s)


def _fitting(blocks: tuple[Block, ...], around: Around, leased: Iterable[int]) -> tuple[Block, ...]:
    """With one block more where the port's host runs short, or one that closes where it has far too many."""
    taken = frozenset(leased)
    own = [block for block in blocks if around.is_open(block)]
    mine = addresses(own)
    free, most = len(mine - taken), around.limit - len(taken)
    if free < min(SPARE, most):
        return (*blocks, *_taken(around, 2 * SIZE if len(taken) >= 2 * SIZE else min(SIZE, around.limit)))
    for block in reversed(own):
        size = span_of(block).size
        if free - size >= 2 * SPARE and taken.isdisjoint(addresses([block])):
            return tuple(replace(one, closing=True) if one is block else one for one in blocks)
    return blocks


def _taken(around: Around, count: int) -> Iterator[Block]:
    """Blocks of addresses that are free, `count` of them: whole ones where there are any, else what is left."""
    assert around.active is not None
    starts = (
        first for span in around.ranges for first in range(-(-span.first // SIZE) * SIZE, span.last - SIZE + 2, SIZE)
    )
    whole = (range(first, first + SIZE) for first in starts if all(map(around.is_free, range(first, first + SIZE))))
    found = [address for some in itertools.islice(whole, -(-count // SIZE)) for address in some[: min(SIZE, count)]]
    if not found:
        every = (address for span in around.ranges for address in range(span.first, span.last + 1))
        found = list(itertools.islice(filter(around.is_free, every), count))
    for span in merge(Span(address, address) for address in found):
        yield Block(address_text(4, span.first), address_text(4, span.last), around.active, around.stay, around.lease_s)


def _machines(record: DynamicRecord, around: Around, leases: Iterable[Lease]) -> tuple[str, ...]:
    """The MACs that may be used: of who has a lease, as far as nobody else has them. A few come or go by one step."""
    assert around.port is not None
    own = {around.port.mac, *around.port.allowed_macs}
    macs = {lease.mac.hex(":") for lease in leases if lease.state is State.LEASED and len(lease.mac) == 6} - own
    gone = [mac for mac in record.machines if mac not in macs][:MACHINES]
    come = itertools.islice(filter(around.may_have, sorted(macs.difference(record.machines))), MACHINES)
    return tuple(sorted({*record.machines, *come}.difference(gone)))


def _carried(record: DynamicRecord, around: Around, mine: frozenset[int]) -> tuple[Lease, ...]:
    """What the host where the port is has to know, as another one gave it, or it did in another stay, and it has not
    given it anew."""
    if not around.limit:
        return ()
    own = {lease.address: lease for lease in _said(around, (around.active or "",))}
    others = {block.host for block in record.blocks if not around.is_open(block)}
    found = _latest((*record.leases, *_said(around, others)), around)
    return tuple(
        lease
        for address, lease in sorted(found.items())
        if address in mine and (address not in own or lease.age >= own[address].age)
    )
