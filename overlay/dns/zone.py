"""Pure. The records of one view, by whoever put them there: forward, reverse, SOA and NS; answers no messages.

Names are kept in wire form (RFC 1035 §3.1), in lower case, uncompressed. A view holds one forward zone, and the reverse
zones of its subnets (RFC 1035 §3.5, RFC 3596 §2.5), cut where a label ends; a subnet that starts inside the last label
(an IPv4 /25 and longer) has each of its addresses as a cut of its own below the enclosing zone's name.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from overlay.dns.record import Record, Type, ancestors, encode_data, encode_name

REFRESH_S, RETRY_S, EXPIRE_S = 3600, 600, 86400
LONGEST_CHAIN: Final = 8
"""CNAMEs followed for one question."""
_Wire = tuple[bytes, Type, bytes]


class Outcome(Enum):
    """What is known of a name and a type."""

    ANSWER = "answer"
    NODATA = "no data"
    NXDOMAIN = "no such name"
    ELSEWHERE = "a CNAME leads out of the zones"
    LOOP = "CNAMEs lead to each other"


class Lookup(NamedTuple):
    """outcome: of the last name of `through`, else of the name asked. origin: of the zone that says so. data: sorted.

    through: the names that CNAMEs led to, one after the other.
    """

    outcome: Outcome
    origin: bytes
    data: tuple[bytes, ...] = ()
    through: tuple[bytes, ...] = ()


def reverse_cuts(subnet: str) -> dict[bytes, bytes]:
    """Names at which authority for a subnet begins → origin of their zone. At most 128. Raises ValueError."""
    network = ipaddress.ip_network(subnet)
    step, tag = (8, "in-addr.arpa") if network.version == 4 else (4, "ip6.arpa")
    depth = -(-network.prefixlen // step)
    cuts: dict[bytes, bytes] = {}
    for part in network.subnets(new_prefix=depth * step):
        labels = part.network_address.reverse_pointer.removesuffix(tag).rstrip(".").split(".")
        cut = encode_name(".".join([*labels[len(labels) - depth :], tag]))
        # A whole address as the origin of a zone would exist without a port; its zone is the one that encloses it.
        is_address = part.prefixlen == network.max_prefixlen
        cuts[cut] = cut[1 + cut[0] :] if is_address else cut
    return cuts


class Zones:
    """One view's records. `put` and `drop` cost what changed; `version` grows with each change.

    servers: the addresses that answer here: the A and AAAA records of the origin, which is its own name server.
    """

    def __init__(
        self,
        origin: str,
        reverse: tuple[str, ...] = (),
        servers: tuple[str, ...] = (),
        ttl: int = 30,
        now_utc_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """ttl: seconds, 0 to 2**31-1. now_utc_s: for serials; without it they count from 1. Raises ValueError."""
        if not 0 <= ttl < 1 << 31:
            raise ValueError(f"a TTL is 0 to 2147483647 s (RFC 2181 §8), not {ttl}")
        self.origin: Final = encode_name(origin)
        self.ttl: Final = ttl
        self.version = 0
        self._now_utc_s: Final = now_utc_s
        self._serial = (0, -1)
        """The last one told, and the version of which it was."""
        self._cuts: Final[dict[bytes, bytes]] = {self.origin: self.origin}
        for subnet in reverse:
            self._cuts.update(reverse_cuts(subnet))
        self._nodes: Final[dict[bytes, dict[Type, Counter[bytes]]]] = {}
        self._below: Final[Counter[bytes]] = Counter()
        self._held: Final[dict[str, tuple[tuple[Record, ...], tuple[_Wire, ...]]]] = {}
        name = origin.removesuffix(".")
        soa = encode_data(Type.SOA, f"{name} hostmaster.{name} 0 {REFRESH_S} {RETRY_S} {EXPIRE_S} {ttl}")
        self._soa: Final = soa[:-20], soa[-16:]
        """Around the serial. ttl is also the time that a negative answer is kept (RFC 2308 §4)."""
        for zone in sorted(self.origins()):
            self._add(zone, Type.NS, self.origin)
        for server in dict.fromkeys(servers):
            address = ipaddress.ip_address(server.partition("%")[0])
            self._add(self.origin, Type.A if address.version == 4 else Type.AAAA, address.packed)

    def put(self, key: str, records: Iterable[Record]) -> None:
        """Takes the place of what `key` had before; what two keys say is there once.

        A PTR for an address outside the view's subnets is left out. Raises ValueError, leaving all as it was.
        """
        records = tuple(records)
        held = self._held.get(key)
        if held is not None and held[0] == records:
            return
        wire = tuple(self._encoded(records))
        self.drop(key)
        self._held[key] = records, wire
        for one in wire:
            self._add(*one)
        self.version += 1

    def drop(self, key: str) -> None:
        """Takes away what `put` gave; no error when there is nothing."""
        held = self._held.pop(key, None)
        if held is not None:
            for one in held[1]:
                self._take(*one)
            self.version += 1

    def origins(self) -> set[bytes]:
        """The names of the zones that begin here: the forward one, and the reverse ones."""
        return {cut for cut, zone in self._cuts.items() if cut == zone}

    def origin_of(self, name: bytes) -> bytes | None:
        """Origin of the zone that the name is in; None outside. name: wire form, lower case."""
        cuts = self._cuts
        while name not in cuts:
            if name == b"\0":
                return None
            name = name[1 + name[0] :]
        return cuts[name]

    def soa(self) -> bytes:
        """Data of every zone's SOA. Of two states that were told the later one has the larger serial; across a restart,
        by the clock."""
        serial, version = self._serial
        if version != self.version:
            serial = max(serial + 1, int(self._now_utc_s())) & 0xFFFFFFFF
            self._serial = serial, self.version
        return self._soa[0] + serial.to_bytes(4, "big") + self._soa[1]

    def lookup(self, name: bytes, kind: int) -> Lookup | None:
        """What a question is answered with; None when the name is in none of the zones."""
        origin = self.origin_of(name)
        if origin is None:
            return None
        through: tuple[bytes, ...] = ()
        while True:
            kinds = self._nodes.get(name, {})
            if kind == Type.SOA and name in self._cuts and self._cuts[name] == name:
                return Lookup(Outcome.ANSWER, origin, (self.soa(),), through)
            if data := kinds.get(kind):  # type: ignore[call-overload]
                return Lookup(Outcome.ANSWER, origin, tuple(sorted(data)), through)
            aliases = kinds.get(Type.CNAME)
            if not aliases:
                outcome = Outcome.NODATA if name in self._below else Outcome.NXDOMAIN
                return Lookup(outcome, origin, (), through)
            if len(through) == LONGEST_CHAIN:
                return Lookup(Outcome.LOOP, origin, (), through)
            name = min(aliases)
            through = (*through, name)
            inside = self.origin_of(name)
            if inside is None:
                return Lookup(Outcome.ELSEWHERE, origin, (), through)
            origin = inside

    def addresses(self, name: bytes) -> Iterator[tuple[Type, bytes]]:
        """The addresses at a name, without following CNAMEs."""
        for kind in (Type.A, Type.AAAA):
            for data in sorted(self._nodes.get(name, {}).get(kind, ())):
                yield kind, data

    def records(self, zone: bytes | None = None) -> dict[tuple[bytes, Type], tuple[bytes, ...]]:
        """All records but SOAs; zone: those of one zone, by its origin."""
        return {
            (name, kind): tuple(sorted(data))
            for name, kinds in self._nodes.items()
            if zone is None or self.origin_of(name) == zone
            for kind, data in kinds.items()
        }

    def _encoded(self, records: Iterable[Record]) -> Iterator[_Wire]:
        for record in records:
            name = encode_name(record.name)
            inside = self.origin_of(name)
            if record.type is Type.PTR and inside is None:
                continue
            if inside is None or (record.type is not Type.PTR and inside != self.origin):
                raise ValueError(f"{record.name!r} is not below this view's origin")
            yield name, record.type, encode_data(record.type, record.data)

    def _add(self, name: bytes, kind: Type, data: bytes) -> None:
        self._nodes.setdefault(name, {}).setdefault(kind, Counter())[data] += 1
        for ancestor in self._inside(name):
            self._below[ancestor] += 1

    def _take(self, name: bytes, kind: Type, data: bytes) -> None:
        kinds = self._nodes[name]
        kinds[kind][data] -= 1
        if not kinds[kind][data]:
            del kinds[kind][data]
        if not kinds[kind]:
            del kinds[kind]
        if not kinds:
            del self._nodes[name]
        for ancestor in self._inside(name):
            self._below[ancestor] -= 1
            if not self._below[ancestor]:
                del self._below[ancestor]

    def _inside(self, name: bytes) -> Iterator[bytes]:
        """The name and its ancestors down to the cut: the names that exist because it does (RFC 4592 §2.2.2)."""
        for ancestor in ancestors(name):
            yield ancestor
            if ancestor in self._cuts:
                return
