"""Pure. Names and addresses of ports as the records of one view: forward, reverse, SOA and NS; answers no messages.

Names are kept in wire form (RFC 1035 §3.1), in lower case, uncompressed. A view holds one forward zone, and the reverse
zones of its subnets (RFC 1035 §3.5, RFC 3596 §2.5), cut where a label ends; a subnet that starts inside the last label
(an IPv4 /25 and longer) has each of its addresses as a cut of its own below the enclosing zone's name.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple


class Type(IntEnum):
    """Record types that have data here."""

    A = 1
    NS = 2
    SOA = 6
    PTR = 12
    AAAA = 28


REFRESH_S, RETRY_S, EXPIRE_S = 3600, 600, 86400
SERIAL: Final = 1
"""Constant: there are no transfers, and hosts of a site could not agree on one that counts changes."""


@dataclass(frozen=True, slots=True)
class Host:
    """One port's part. names: absolute, the first one is what its addresses mean in reverse. addresses: plain."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]


class Outcome(Enum):
    """What is known of a name and a type inside the zones."""

    ANSWER = "answer"
    NODATA = "no data"
    NXDOMAIN = "no such name"


class Lookup(NamedTuple):
    """outcome, the origin of the zone that says so, and the record data, sorted."""

    outcome: Outcome
    origin: bytes
    data: tuple[bytes, ...] = ()


def encode_name(text: str) -> bytes:
    """Wire form in lower case; the last dot may be left out. Raises ValueError."""
    labels = (
        [label.encode("ascii").lower() for label in text.removesuffix(".").split(".")] if text not in ("", ".") else []
    )
    if any(not 1 <= len(label) <= 63 for label in labels):
        raise ValueError(f"{text!r} is no domain name: a label has 1 to 63 bytes")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > 255:
        raise ValueError(f"{text!r} is no domain name: longer than 255 bytes")
    return wire


def ancestors(name: bytes) -> Iterator[bytes]:
    """The name itself, its parent, and so on to the root; `name` is valid wire form."""
    at = 0
    while name[at]:
        yield name[at:]
        at += 1 + name[at]
    yield b"\0"


def reverse_name(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """The name under which an address is asked for."""
    return encode_name(address.reverse_pointer)


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
        self, origin: str, reverse: tuple[str, ...] = (), servers: tuple[str, ...] = (), ttl: int = 30
    ) -> None:
        """ttl: seconds, 0 to 2**31-1. Raises ValueError."""
        if not 0 <= ttl < 1 << 31:
            raise ValueError(f"a TTL is 0 to 2147483647 s (RFC 2181 §8), not {ttl}")
        self.origin: Final = encode_name(origin)
        self.ttl: Final = ttl
        self.version = 0
        self._cuts: Final[dict[bytes, bytes]] = {self.origin: self.origin}
        for subnet in reverse:
            self._cuts.update(reverse_cuts(subnet))
        self._nodes: Final[dict[bytes, dict[int, Counter[bytes]]]] = {}
        self._below: Final[Counter[bytes]] = Counter()
        self._hosts: Final[dict[str, Host]] = {}
        mailbox = encode_name(f"hostmaster.{origin.removesuffix('.')}")
        numbers = struct.pack("!IIIII", SERIAL, REFRESH_S, RETRY_S, EXPIRE_S, ttl)
        self.soa: Final = self.origin + mailbox + numbers
        """Data of every zone's SOA; ttl is also the time that a negative answer is kept (RFC 2308 §4)."""
        for cut, zone in self._cuts.items():
            if cut == zone:
                self._add(cut, Type.SOA, self.soa)
                self._add(cut, Type.NS, self.origin)
        for server in dict.fromkeys(servers):
            kind, data = _address_record(server)
            self._add(self.origin, kind, data)

    def put(self, key: str, host: Host) -> None:
        """Takes the place of what `key` had before. Raises ValueError, leaving all as it was."""
        if self._hosts.get(key) == host:
            return
        fresh = list(self._contributions(host))
        self.drop(key)
        self._hosts[key] = host
        for record in fresh:
            self._add(*record)
        self.version += 1

    def drop(self, key: str) -> None:
        """Takes away what `put` gave; no error when there is nothing."""
        host = self._hosts.pop(key, None)
        if host is not None:
            for record in self._contributions(host):
                self._take(*record)
            self.version += 1

    def origin_of(self, name: bytes) -> bytes | None:
        """Origin of the zone that the name is in; None outside. name: wire form, lower case."""
        for ancestor in ancestors(name):
            if ancestor in self._cuts:
                return self._cuts[ancestor]
        return None

    def lookup(self, name: bytes, kind: int) -> Lookup | None:
        """What a question is answered with; None when the name is in none of the zones."""
        origin = self.origin_of(name)
        if origin is None:
            return None
        data = self._nodes.get(name, {}).get(kind)
        if data:
            return Lookup(Outcome.ANSWER, origin, tuple(sorted(data)))
        return Lookup(Outcome.NODATA if name in self._below else Outcome.NXDOMAIN, origin)

    def records(self) -> dict[tuple[bytes, int], tuple[bytes, ...]]:
        """All records, for tests and for looking at."""
        return {
            (name, kind): tuple(sorted(data)) for name, kinds in self._nodes.items() for kind, data in kinds.items()
        }

    def _contributions(self, host: Host) -> Iterator[tuple[bytes, int, bytes]]:
        names = [encode_name(name) for name in host.names]
        for text, name in zip(host.names, names, strict=True):
            if not name.endswith(self.origin) or self.origin_of(name) != self.origin:
                raise ValueError(f"{text!r} is not below this view's origin")
        for address in host.addresses:
            kind, data = _address_record(address)
            for name in names:
                yield name, kind, data
            pointer = reverse_name(ipaddress.ip_address(address))
            if names and self.origin_of(pointer) is not None:
                yield pointer, Type.PTR, names[0]

    def _add(self, name: bytes, kind: int, data: bytes) -> None:
        self._nodes.setdefault(name, {}).setdefault(kind, Counter())[data] += 1
        for ancestor in self._inside(name):
            self._below[ancestor] += 1

    def _take(self, name: bytes, kind: int, data: bytes) -> None:
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


def _address_record(address: str) -> tuple[int, bytes]:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (Type.A if parsed.version == 4 else Type.AAAA), parsed.packed
