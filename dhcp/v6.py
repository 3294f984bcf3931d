"""Pure. A DHCPv6 message from bytes and to bytes (RFC 8415 §8, §21); decides nothing.

Identifiers stay the bytes that they are on the wire: 3 for a transaction, 4 for an association, 16 for an address, and
a DUID whatever its kind (RFC 8415 §11: a server compares them and reads nothing in them).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from dhcp.options import encode_name
from dhcp.reason import Reason

SERVER_PORT: Final = 547
CLIENT_PORT: Final = 546
SERVERS: Final = ipaddress.IPv6Address("ff02::1:2").packed
"""All relay agents and servers of the link (RFC 8415 §7.1)."""
FOREVER: Final = 0xFFFFFFFF


class Kind(IntEnum):
    """Message types, RFC 8415 §7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11
    RELAY_FORW = 12
    RELAY_REPL = 13


class Code(IntEnum):
    """Options that are read or written here; RFC 8415 §21 where nothing else is said."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_TA = 4
    ADDRESS = 5
    OPTION_REQUEST = 6
    PREFERENCE = 7
    STATUS = 13
    RAPID_COMMIT = 14
    USER_CLASS = 15
    VENDOR_CLASS = 16
    DNS = 23  # RFC 3646
    DOMAIN_SEARCH = 24  # RFC 3646
    IA_PD = 25
    CLIENT_FQDN = 39  # RFC 4704
    NTP = 56  # RFC 5908
    BOOT_URL = 59  # RFC 5970
    BOOT_PARAMETERS = 60  # RFC 5970
    ARCHITECTURE = 61  # RFC 5970


class Status(IntEnum):
    """Option 13, RFC 8415 §21.13."""

    SUCCESS = 0
    NO_ADDRESSES = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5
    NO_PREFIX = 6


Option = tuple[int, bytes]
_HEAD: Final = struct.Struct("!HH")
_ASSOCIATIONS: Final = {int(Code.IA_NA): 12, int(Code.IA_TA): 4, int(Code.IA_PD): 12}
"""Bytes before the options of an association, by its option."""
_DUID: Final = range(3, 131)
"""Bytes of a DUID: a kind of two, and 1 to 128 (RFC 8415 §11.1)."""
_ADDRESS: Final = 24


class Message(NamedTuple):
    """One message between client and server, no relay's. options: in order, as often as they stand there."""

    kind: int
    xid: bytes
    options: tuple[Option, ...] = ()

    def first(self, code: int) -> bytes | None:
        """The value of an option that may stand once."""
        for number, value in self.options:
            if number == code:
                return value
        return None


class Association(NamedTuple):
    """An association of addresses or prefixes (RFC 8415 §12). code: which kind. addresses: that it names; none are
    read of prefixes."""

    code: int
    iaid: bytes
    addresses: tuple[bytes, ...] = ()


def parse(payload: bytes) -> Message | Reason:
    """The message in a UDP payload, or why it is none. Never raises."""
    if len(payload) < 4:
        return Reason.TRUNCATED
    if payload[0] in (Kind.RELAY_FORW, Kind.RELAY_REPL):
        return Reason.UNEXPECTED_TYPE
    found = decode(payload[4:])
    return found if isinstance(found, Reason) else Message(payload[0], payload[1:4], found)


def decode(field: bytes) -> tuple[Option, ...] | Reason:
    """Options in order of appearance."""
    found: list[Option] = []
    at, size = 0, len(field)
    while at < size:
        if at + 4 > size:
            return Reason.MALFORMED_OPTIONS
        code, length = _HEAD.unpack_from(field, at)
        end = at + 4 + length
        if end > size:
            return Reason.MALFORMED_OPTIONS
        found.append((code, field[at + 4 : end]))
        at = end
    return tuple(found)


def encode_options(options: Iterable[Option]) -> bytes:
    """Raises struct.error for a value of more than 65535 bytes."""
    return b"".join([_HEAD.pack(code, len(value)) + value for code, value in options])


def encode(message: Message) -> bytes:
    """The message as UDP payload."""
    return bytes((message.kind,)) + message.xid + encode_options(message.options)


def is_duid(value: bytes) -> bool:
    """Whether it has a DUID's length; which kind it is makes no difference."""
    return len(value) in _DUID


def duid_ll(mac: bytes) -> bytes:
    """The DUID of an Ethernet address (RFC 8415 §11.4): the same wherever, and needs no memory."""
    return b"\x00\x03\x00\x01" + mac


def associations(message: Message) -> tuple[Association, ...] | Reason:
    """All that the client wants addresses or prefixes for, in order."""
    found: list[Association] = []
    for code, value in message.options:
        head = _ASSOCIATIONS.get(code)
        if head is None:
            continue
        if len(value) < head:
            return Reason.MALFORMED_OPTIONS
        inner = decode(value[head:])
        if isinstance(inner, Reason):
            return inner
        named = [] if code == Code.IA_PD else [text for number, text in inner if number == Code.ADDRESS]
        if any(len(one) < _ADDRESS for one in named):
            return Reason.MALFORMED_OPTIONS
        found.append(Association(code, value[:4], tuple(one[:16] for one in named)))
    return tuple(found)


def association(asked: Association, t1_s: int, t2_s: int, options: Iterable[Option]) -> Option:
    """The same association with what it gets. T1 and T2: when to renew and to rebind; a temporary one has none."""
    times = b"" if asked.code == Code.IA_TA else struct.pack("!II", t1_s, t2_s)
    return asked.code, asked.iaid + times + encode_options(options)


def leased(address: bytes, preferred_s: int, valid_s: int) -> Option:
    """An address with its lifetimes (RFC 8415 §21.6)."""
    return int(Code.ADDRESS), address + struct.pack("!II", preferred_s, valid_s)


def status(code: Status, text: str) -> Option:
    """How it went, and that for people."""
    return int(Code.STATUS), int(code).to_bytes(2, "big") + text.encode()


def wished(message: Message) -> tuple[int, ...]:
    """What option 6 asks for, in its order; a byte too many counts for nothing."""
    value = message.first(Code.OPTION_REQUEST) or b""
    return struct.unpack(f"!{len(value) // 2}H", value[: len(value) // 2 * 2])


def addresses(texts: Iterable[str]) -> bytes:
    """16 bytes each. Raises ValueError for what is no IPv6 address."""
    return b"".join(ipaddress.IPv6Address(text).packed for text in texts)


def names(domains: Sequence[str]) -> bytes:
    """Names one after the other, none shortened (RFC 8415 §10). Raises ValueError."""
    return b"".join(map(encode_name, domains))


def ntp(texts: Iterable[str]) -> bytes:
    """Option 56's value: a suboption for the address of each server (RFC 5908 §4.1). Raises ValueError."""
    return encode_options((1, addresses((text,))) for text in texts)
