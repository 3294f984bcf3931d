"""Pure. DHCPv4 option codes, and values and option fields from bytes and to bytes; knows no message and no decision.

Sources: RFC 2132 (options), 3396 (long options), 3397 (domain search), 3442 (classless routes).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum

from dhcp.reason import Reason


class Code(IntEnum):
    """Options that are read or written here; RFC 2132 where nothing else is said."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    DOMAIN = 15
    MTU = 26
    BROADCAST = 28
    NTP = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_LIST = 55
    MESSAGE = 56
    MAX_MESSAGE_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    VENDOR_CLASS = 60
    CLIENT_ID = 61
    TFTP_SERVER = 66
    BOOT_FILE = 67
    USER_CLASS = 77  # RFC 3004
    RAPID_COMMIT = 80  # RFC 4039
    CLIENT_FQDN = 81  # RFC 4702
    RELAY_AGENT = 82  # RFC 3046
    ARCHITECTURE = 93  # RFC 4578
    DOMAIN_SEARCH = 119  # RFC 3397
    ROUTES = 121  # RFC 3442
    IPXE = 175  # what iPXE says of itself, in a field of its own
    ROUTES_MS = 249  # the same as 121, under the number that Windows asked for before there was one
    END = 255


class MessageType(IntEnum):
    """Option 53, RFC 2132 §9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


_PAD, _END = int(Code.PAD), int(Code.END)


def decode(field: bytes) -> dict[int, bytes] | Reason:
    """Options of one field in order of first appearance; pieces of one code are joined (RFC 3396 §7).

    A field without END ends where it ends: clients that fill it to the last byte are about.
    """
    found: dict[int, bytes] = {}
    at, size = 0, len(field)
    while at < size:
        code = field[at]
        if code == _PAD:
            at += 1
            continue
        if code == _END:
            break
        if at + 2 > size:
            return Reason.MALFORMED_OPTIONS
        end = at + 2 + field[at + 1]
        if end > size:
            return Reason.MALFORMED_OPTIONS
        value = field[at + 2 : end]
        found[code] = found[code] + value if code in found else value
        at = end
    return found


def encode_one(code: int, value: bytes) -> bytes:
    """Code, length, value; a value longer than 255 bytes as consecutive pieces (RFC 3396 §5)."""
    if len(value) <= 255:
        return bytes((code, len(value))) + value
    pieces = (value[at : at + 255] for at in range(0, len(value), 255))
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)


def address(text: str) -> bytes:
    """4 bytes. Raises ValueError for what is no IPv4 address."""
    return ipaddress.IPv4Address(text).packed


def addresses(texts: Iterable[str]) -> bytes:
    """A list of IPv4 addresses, 4 bytes each."""
    return b"".join(map(address, texts))


def seconds(value: int) -> bytes:
    """32 bits; 0xffffffff is for ever (RFC 2131 §3.3). Raises OverflowError outside of that."""
    return value.to_bytes(4, "big")


def _labels(domain: str) -> list[bytes]:
    """A domain name's labels. Raises ValueError when one is empty, longer than 63 bytes, or all are longer than 255."""
    labels = [label.encode("ascii") for label in domain.rstrip(".").split(".")]
    if any(not 1 <= len(label) <= 63 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ValueError(f"{domain!r} is no domain name: labels have 1 to 63 bytes, a name at most 255")
    return labels


def encode_name(domain: str) -> bytes:
    """A name by itself, after RFC 1035 §3.1."""
    return b"".join(bytes((len(label),)) + label for label in _labels(domain)) + b"\0"


def encode_search(domains: Sequence[str]) -> bytes:
    """Option 119: names after RFC 1035 §4.1.4, a common ending only once; offsets from the option's first byte."""
    out = bytearray()
    seen: dict[tuple[bytes, ...], int] = {}
    for domain in domains:
        labels = tuple(_labels(domain))
        for index, label in enumerate(labels):
            known = seen.get(labels[index:])
            if known is not None:
                out += (0xC000 | known).to_bytes(2, "big")
                break
            if len(out) < 0x4000:
                seen[labels[index:]] = len(out)
            out += bytes((len(label),)) + label
        else:
            out.append(0)
    return bytes(out)


def decode_search(value: bytes) -> tuple[str, ...] | Reason:
    """Names of option 119. Pointers may only lead backwards, so that reading ends."""
    names: list[str] = []
    at = 0
    while at < len(value):
        labels: list[str] = []
        here, after, floor = at, -1, len(value)
        while True:
            if here >= len(value):
                return Reason.MALFORMED_OPTIONS
            size = value[here]
            if size >= 0xC0:
                if here + 1 >= len(value):
                    return Reason.MALFORMED_OPTIONS
                target = int.from_bytes(value[here : here + 2], "big") & 0x3FFF
                if after < 0:
                    after, floor = here + 2, here
                if target >= floor:
                    return Reason.MALFORMED_OPTIONS
                here = floor = target
            elif size > 63 or here + 1 + size > len(value):
                return Reason.MALFORMED_OPTIONS
            elif size == 0:
                at = after if after >= 0 else here + 1
                break
            else:
                labels.append(value[here + 1 : here + 1 + size].decode("latin-1"))
                here += 1 + size
        if not labels:
            return Reason.MALFORMED_OPTIONS
        names.append(".".join(labels))
    return tuple(names)


def encode_routes(routes: Iterable[tuple[str, str]]) -> bytes:
    """Option 121: prefix length, the significant bytes of the prefix, next hop (RFC 3442). Raises ValueError."""
    out = bytearray()
    for destination, next_hop in routes:
        network = ipaddress.IPv4Network(destination)
        out.append(network.prefixlen)
        out += network.network_address.packed[: (network.prefixlen + 7) // 8]
        out += address(next_hop)
    return bytes(out)


def decode_routes(value: bytes) -> tuple[tuple[str, str], ...] | Reason:
    """Routes of option 121, host bits cleared (RFC 3442 wants clients to clear them)."""
    routes: list[tuple[str, str]] = []
    at = 0
    while at < len(value):
        length = value[at]
        size = (length + 7) // 8
        if length > 32 or at + 1 + size + 4 > len(value):
            return Reason.MALFORMED_OPTIONS
        packed = value[at + 1 : at + 1 + size].ljust(4, b"\0")
        network = ipaddress.IPv4Network((int.from_bytes(packed, "big"), length), strict=False)
        next_hop = ipaddress.IPv4Address(value[at + 1 + size : at + 5 + size])
        routes.append((str(network), str(next_hop)))
        at += 5 + size
    return tuple(routes)


def pieces(options: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Each option as it goes on the wire, long ones as all their pieces together."""
    for code, value in options:
        yield encode_one(code, value)
