"""Owns the connection tracking of one network namespace: lists, makes, marks and removes entries. Judges nothing.

ctnetlink (linux/netfilter/nfnetlink_conntrack.h), packed here: a library would bring more code than there is in this.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from policies.flows import (
    ASSURED,
    CONFIRMED,
    ICMP,
    ICMPV6,
    SCTP,
    SEEN_REPLY,
    TCP,
    WITH_PORTS,
    WITH_TYPES,
    Among,
    Flow,
    Tuple,
    concerns,
    turned,
)
from policies.kernel.netlink import (
    BODY,
    CREATE,
    EXCL,
    Message,
    Netfilter,
    NetfilterError,
    attribute,
    body,
    nest,
    number,
    parse,
    u8,
    u16,
    u32,
)

_NEW, _GET, _DELETE = 0x100, 0x101, 0x102
"""NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*."""

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK, _ZONE, _FILTER = 1, 2, 3, 4, 7, 8, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_ICMP_ATTRIBUTES = {ICMP: (4, 5, 6), ICMPV6: (7, 8, 9)}
"""CTA_PROTO_ICMP_{ID,TYPE,CODE} and CTA_PROTO_ICMPV6_…"""

_IP_ATTRIBUTES: dict[int, tuple[int, int]] = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}
"""CTA_IP_V4_{SRC,DST} and CTA_IP_V6_…"""

_PROTOINFO_TCP, _PROTOINFO_SCTP = 1, 3
_TCP_STATE, _TCP_FLAGS_ORIGINAL, _TCP_FLAGS_REPLY = 1, 4, 5
_SCTP_STATE, _SCTP_TAG_ORIGINAL, _SCTP_TAG_REPLY = 1, 2, 3

_BE_LIBERAL = b"\x08\x08"
"""`struct nf_ct_tcp_flags` (flags, mask): windows are not looked at. A host that did not see them can't know them."""

_FILTER_ORIG_FLAGS, _BY_SOURCE, _BY_DESTINATION = 1, 1 << 0, 1 << 1
"""CTA_FILTER_F_CTA_IP_{SRC,DST} (nf_internals.h, Linux 5.9)."""

_TRIES = 3
"""How often an entry that stands in the way is put aside: packets may make it anew at once."""


class Conntrack:
    """The entries of one namespace. For one thread at a time; it stays in that namespace whatever takes its place."""

    def __init__(self, namespace: Path | str) -> None:
        """namespace: its path. Raises OSError."""
        self._door = Netfilter(namespace)

    def close(self) -> None:
        self._door.close()

    def flows(self, zone: int | None = None, addresses: Sequence[str] = ()) -> list[Flow]:
        """The entries of a zone, or of all; with addresses, or prefixes, those that have one of them at either end.

        An entry that comes or goes meanwhile may be in it or not. The kernel sorts out what it can, by zone from Linux
        6.8 on. Raises NetfilterError, or OSError for what is no address.
        """
        wanted = Among(addresses)
        found: dict[tuple[int, Tuple], Flow] = {}  # while the table grows, the kernel tells of some twice
        for question in _questions(zone, addresses):
            for content in self._door.dump(_GET, question):
                flow = parse_flow(content)
                if flow is None or zone not in (None, flow.zone) or (addresses and not concerns(flow, wanted)):
                    continue
                found[flow.zone, flow.original] = flow
        return list(found.values())

    def put(self, flows: Iterable[Flow]) -> list[tuple[Flow, NetfilterError]]:
        """Has each flow in the table in its own direction; returns those that could not be.

        One that is there in this direction keeps its state, and takes the mark; what it knows of TCP's windows counts
        no more, as it may be from before the flow was elsewhere. One that is there in the other direction was picked up
        amid its packets, and gives way.
        """
        waiting = list(flows)
        refused: list[tuple[Flow, NetfilterError]] = []
        for attempt in range(_TRIES):
            errors = self._door.send([_inserted(flow) for flow in waiting])
            again, known = [], []
            for position, error in errors.items():
                flow = waiting[position]
                if error.errno != errno.EEXIST or attempt == _TRIES - 1:
                    refused.append((flow, error))
                elif (there := self.find(flow)) is not None and there.original == flow.original:
                    known.append(flow)
                else:
                    again.append(flow)
                    self.delete([there] if there is not None and there.original == turned(flow).original else [])
            self._door.send([(_NEW, 0, _named(flow, u32(_MARK, flow.mark), *_liberal(flow))) for flow in known])
            waiting = again
            if not waiting:
                break
        return refused

    def find(self, flow: Flow) -> Flow | None:
        """The entry that stands for a flow, whichever way it began. Raises NetfilterError."""
        content = self._door.get(_GET, _named(flow))
        return None if content is None else parse_flow(content)

    def mark(self, flows: Iterable[Flow]) -> list[tuple[Flow, NetfilterError]]:
        """Gives each entry that is there the mark in its flow; returns those that are not, or could not be marked."""
        listed = list(flows)
        refused = self._door.send([(_NEW, 0, _named(flow, u32(_MARK, flow.mark))) for flow in listed])
        return [(listed[position], error) for position, error in refused.items()]

    def delete(self, flows: Iterable[Flow]) -> int:
        """Removes entries; returns how many were there. Raises NetfilterError."""
        messages = [(_DELETE, 0, _named(flow)) for flow in flows]
        refused = self._door.send(messages)
        for error in refused.values():
            if error.errno != errno.ENOENT:
                raise error
        return len(messages) - len(refused)


def _questions(zone: int | None, addresses: Sequence[str]) -> list[bytes]:
    """Lists to ask for: all, also where whole prefixes are meant, or by each address at each end."""
    where = b"" if zone is None else u16(_ZONE, zone)
    if not addresses or any("/" in address for address in addresses):
        return [body(socket.AF_UNSPEC, where)]
    found = []
    for address in addresses:
        family, packed = _packed(address)
        for kind, flag in zip(_IP_ATTRIBUTES[family], (_BY_SOURCE, _BY_DESTINATION), strict=True):
            only = nest(_FILTER, attribute(_FILTER_ORIG_FLAGS, flag.to_bytes(4, sys.byteorder)))
            found.append(body(family, where, nest(_TUPLE_ORIG, nest(_TUPLE_IP, attribute(kind, packed))), only))
    return found


def _named(flow: Flow, *more: bytes) -> bytes:
    """The body that names an entry by its original direction."""
    family, _ = _packed(flow.original.source)
    return body(family, _tuple(_TUPLE_ORIG, flow.original), u16(_ZONE, flow.zone), *more)


def _inserted(flow: Flow) -> Message:
    family, _ = _packed(flow.original.source)
    status = flow.status & (SEEN_REPLY | ASSURED) | CONFIRMED
    attributes = [
        _tuple(_TUPLE_ORIG, flow.original),
        _tuple(_TUPLE_REPLY, flow.reply),
        u16(_ZONE, flow.zone),
        u32(_STATUS, status),
        u32(_TIMEOUT, max(1, flow.timeout_s)),
        u32(_MARK, flow.mark),
    ]
    attributes += _liberal(flow, u8(_TCP_STATE, flow.state))
    if flow.original.protocol == SCTP:
        tags = u32(_SCTP_TAG_ORIGINAL, flow.tags[0]) + u32(_SCTP_TAG_REPLY, flow.tags[1])
        attributes.append(nest(_PROTOINFO, nest(_PROTOINFO_SCTP, u8(_SCTP_STATE, flow.state), tags)))
    return _NEW, CREATE | EXCL, body(family, *attributes)


def _liberal(flow: Flow, *more: bytes) -> list[bytes]:
    """What has the kernel look at no windows of a TCP flow."""
    if flow.original.protocol != TCP:
        return []
    flags = attribute(_TCP_FLAGS_ORIGINAL, _BE_LIBERAL) + attribute(_TCP_FLAGS_REPLY, _BE_LIBERAL)
    return [nest(_PROTOINFO, nest(_PROTOINFO_TCP, *more, flags))]


def _tuple(kind: int, one: Tuple) -> bytes:
    family, source = _packed(one.source)
    _, destination = _packed(one.destination)
    by_source, by_destination = _IP_ATTRIBUTES[family]
    protocol = [u8(_PROTO_NUM, one.protocol)]
    if one.protocol in WITH_PORTS:
        protocol += [u16(_PROTO_SRC_PORT, one.numbers[0]), u16(_PROTO_DST_PORT, one.numbers[1])]
    elif one.protocol in WITH_TYPES:
        identifier, type_, code = _ICMP_ATTRIBUTES[one.protocol]
        protocol += [u16(identifier, one.numbers[0]), u8(type_, one.numbers[1]), u8(code, one.numbers[2])]
    addresses = nest(_TUPLE_IP, attribute(by_source, source), attribute(by_destination, destination))
    return nest(kind, addresses, nest(_TUPLE_PROTO, *protocol))


def _packed(address: str) -> tuple[int, bytes]:
    """Family and bytes. Raises OSError for what is no address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def parse_flow(content: bytes) -> Flow | None:
    """An entry as the kernel tells it; None for what has no two directions of one family."""
    found = parse(content, BODY)
    original, reply = _parse_tuple(found.get(_TUPLE_ORIG, b"")), _parse_tuple(found.get(_TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    state, tags = 0, (0, 0)
    about = parse(found.get(_PROTOINFO, b""))
    if _PROTOINFO_TCP in about:
        state = number(parse(about[_PROTOINFO_TCP]).get(_TCP_STATE, b"")[:1])
    elif _PROTOINFO_SCTP in about:
        association = parse(about[_PROTOINFO_SCTP])
        state = number(association.get(_SCTP_STATE, b"")[:1])
        tags = (
            number(association.get(_SCTP_TAG_ORIGINAL, b"")[:4]),
            number(association.get(_SCTP_TAG_REPLY, b"")[:4]),
        )
    return Flow(
        original,
        reply,
        zone=number(found.get(_ZONE, b"")[:2]),
        status=number(found.get(_STATUS, b"")[:4]),
        timeout_s=number(found.get(_TIMEOUT, b"")[:4]),
        mark=number(found.get(_MARK, b"")[:4]),
        state=state,
        tags=tags,
    )


def _parse_tuple(content: bytes) -> Tuple | None:
    found = parse(content)
    addresses, protocol = parse(found.get(_TUPLE_IP, b"")), parse(found.get(_TUPLE_PROTO, b""))
    family = next((one for one, ends in _IP_ATTRIBUTES.items() if all(end in addresses for end in ends)), None)
    if family is None:
        return None
    kind = number(protocol.get(_PROTO_NUM, b"")[:1])
    if kind in WITH_PORTS:
        numbers = tuple(number(protocol.get(one, b"")[:2]) for one in (_PROTO_SRC_PORT, _PROTO_DST_PORT))
    elif kind in WITH_TYPES:
        numbers = tuple(number(protocol.get(one, b"")[:2]) for one in _ICMP_ATTRIBUTES[kind])
    else:
        numbers = ()
    try:
        source, destination = (socket.inet_ntop(family, addresses[end]) for end in _IP_ATTRIBUTES[family])
    except ValueError:
        return None
    return Tuple(source, destination, kind, numbers)
