"""A view with a few ports, and queries made by dnslib."""

from __future__ import annotations

from dnslib import DNSRecord

from overlay.dns.answer import Answers
from overlay.dns.record import Record, port_records
from overlay.dns.zone import Zones

ORIGIN = "atlas.internal"


def a_host(workspace: str, *addresses: str, network: str = "grid") -> tuple[Record, ...]:
    return tuple(port_records((f"{workspace}.{network}.{ORIGIN}", f"{workspace}.{ORIGIN}"), addresses))


def some_zones() -> Zones:
    zones = Zones(ORIGIN, ("10.20.0.0/24", "fd00:20::/64"), ("10.20.0.1", "fd00:20::1"), ttl=30)
    zones.put("p0", a_host("head", "10.20.0.2", "fd00:20::2"))
    zones.put("p1", a_host("worker-0", "10.20.0.3"))
    zones.put("p2", a_host("head", "10.30.0.2", network="edge"))
    return zones


def some_answers(recursive: bool = False) -> Answers:
    return Answers(some_zones(), recursive)


def a_query(name: str, kind: str = "A", ident: int = 0x1234) -> DNSRecord:
    query = DNSRecord.question(name, kind)
    query.header.id = ident
    return query


def wire_of(query: DNSRecord) -> bytes:
    """dnslib packs into a bytearray; sockets give bytes."""
    return bytes(query.pack())
