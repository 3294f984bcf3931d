"""Pure. Names and record data from text to wire form (RFC 1035 §3, 2782, 3596), by dnslib; knows no zones.

What is encoded here is encoded when records change, once, and in full: data without pointers means the same wherever an
answer puts it.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import dnslib
from dnslib.buffer import BufferError
from dnslib.label import DNSBuffer, DNSLabel, DNSLabelError

REMEMBERED: Final = 1024
"""Encodings kept: what is said of one port names the same few things again and again."""
TEXT_LIMIT: Final = 255
"""Bytes of one string of a TXT record, RFC 1035 §3.3; longer texts are several strings."""
_LENGTHS: Final = [bytes((length,)) for length in range(64)]


class Type(IntEnum):
    """Record types that have data here."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33


class Record(NamedTuple):
    """name: absolute. data: as zone files write it, with absolute names; of TXT the text itself, without quotes."""

    name: str
    type: Type
    data: str


@functools.lru_cache(maxsize=REMEMBERED)
def encode_name(text: str) -> bytes:
    """Wire form in lower case; the last dot may be left out. Raises ValueError."""
    try:
        raw = text.removesuffix(".").encode("ascii").lower()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is no domain name: it has letters beyond ASCII") from None
    labels = raw.split(b".") if raw else []
    lengths = [len(label) for label in labels]
    if labels and not (min(lengths) > 0 and max(lengths) <= 63):
        raise ValueError(f"{text!r} is no domain name: a label has 1 to 63 bytes")
    wire = b"".join([_LENGTHS[len(label)] + label for label in labels]) + b"\0"
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


@functools.lru_cache(maxsize=REMEMBERED)
def encode_data(kind: Type, text: str) -> bytes:
    """Record data in wire form, names in it in lower case and whole. Raises ValueError."""
    if kind in (Type.A, Type.AAAA):
        address = ipaddress.ip_address(text)
        if (kind is Type.A) != (address.version == 4):
            raise ValueError(f"{text} is no address of type {kind.name}")
        return address.packed
    buffer = DNSBuffer()
    buffer.encode_name = buffer.encode_name_nocompress
    _data(kind, text).pack(buffer)
    return bytes(buffer.data)


def _data(kind: Type, text: str) -> dnslib.RD:
    match kind:
        case Type.TXT:
            raw = text.encode()
            strings = [raw[at : at + TEXT_LIMIT] for at in range(0, len(raw), TEXT_LIMIT)] or [b""]
            return dnslib.TXT(strings)
        case Type.SRV:
            words = text.split()
            if len(words) != 4 or not all(_is_u16(word) for word in words[:3]):
                raise ValueError(
                    f"{text!r} is no SRV data; write PRIORITY WEIGHT PORT TARGET, as 0 5 5060 sip.example."
                )
            priority, weight, port = map(int, words[:3])
            return dnslib.SRV(priority, weight, port, _label(words[3]))
        case Type.SOA:
            words = text.split()
            if len(words) != 7 or not all(word.isdecimal() for word in words[2:]):
                raise ValueError(f"{text!r} is no SOA data; it is MNAME RNAME and five numbers")
            return dnslib.SOA(_label(words[0]), _label(words[1]), tuple(map(int, words[2:])))
        case Type.NS:
            return dnslib.NS(_label(text))
        case Type.PTR:
            return dnslib.PTR(_label(text))
        case _:
            return dnslib.CNAME(_label(text))


def _is_u16(word: str) -> bool:
    return word.isascii() and word.isdecimal() and int(word) < 1 << 16


def _label(text: str) -> DNSLabel:
    wire, labels, at = encode_name(text), [], 0
    while wire[at]:
        labels.append(wire[at + 1 : at + 1 + wire[at]])
        at += 1 + wire[at]
    return DNSLabel(labels)


def port_records(names: Iterable[str], addresses: Iterable[str]) -> Iterator[Record]:
    """A port's records: each name has each address, and each address means the first name in reverse."""
    names = tuple(names)
    for text in addresses:
        address = ipaddress.ip_address(text)
        kind = Type.A if address.version == 4 else Type.AAAA
        for name in names:
            yield Record(name, kind, text)
        if names:
            yield Record(address.reverse_pointer, Type.PTR, names[0])


def lay_behind(question: bytes, records: bytes, count: int, message: bytes) -> tuple[tuple[int, int], bytes]:
    """Puts `count` records before the answers of a whole message that was about another question.

    Returns the counts of answers and authorities, and all that follows the question, without EDNS. Its pointers are
    made anew, which only whoever understands all its data can do. Raises ValueError for what is no message.
    """
    try:
        first = dnslib.DNSRecord.parse(struct.pack("!6H", 0, 0, 1, count, 0, 0) + question + records)
        found = dnslib.DNSRecord.parse(message)
        joined = dnslib.DNSRecord(dnslib.DNSHeader(), q=first.q, rr=[*first.rr, *found.rr], auth=found.auth)
        wire = bytes(joined.pack())
    except (dnslib.DNSError, BufferError, DNSLabelError, RecursionError, UnicodeError, struct.error) as error:
        raise ValueError(f"the message can't be read: {error}") from None
    return (len(joined.rr), len(joined.auth)), wire[12 + len(question) :]
