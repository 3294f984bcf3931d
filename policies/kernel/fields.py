"""Pure. What rules and sets look at in a packet: how the kernel loads it, how long it is, and how its words are bytes.

Layouts and numbers: linux/netfilter/nf_tables.h; numbers of key types: libnftables' own (datatype.h), which it reads
back from the kernel to know how to show a set.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from policies.kernel.netlink import attribute, nest, u8, u32

_META_KEYS = {
    "protocol": 1,
    "mark": 3,
    "iifname": 6,
    "oifname": 7,
    "nfproto": 15,
    "l4proto": 16,
    "pkttype": 19,
}
_CT_KEYS = {
    "state": 0,
    "direction": 1,
    "mark": 3,
    "proto-src": 11,
    "proto-dst": 12,
    "ip saddr": 19,
    "ip daddr": 20,
    "ip6 saddr": 21,
    "ip6 daddr": 22,
}
_ORIGINAL = 0
_BASES = {"ll": 0, "nh": 1, "th": 2}
_NAME_LENGTH = 16
"""IFNAMSIZ (linux/if.h)."""

_EXPRESSION_META, _EXPRESSION_CT = 9, 12
"""How libnftables names kinds of expressions in what it notes beside a set (expression.h)."""

PROTOCOLS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}


class Unspoken(ValueError):
    """Words that are none of those that are known here; they may well be nft's."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a packet has. length: bytes; read: a word as these bytes, ValueError if it is none of its.

    kind: libnftables' number of its type; typeof: how it notes where a key came from; "" where it would note it in ways
    that are not known here, so no set without a name may be made of it. mask: bits of the bytes loaded that count.
    needs: what a packet has to be, to have it: (field, word), by the table's family.
    """

    load: Callable[[int], bytes]
    length: int
    read: Callable[[str], bytes]
    kind: int = 0
    typeof: bytes = b""
    is_of_host: bool = False
    is_flags: bool = False
    mask: bytes = b""
    needs: tuple[tuple[str, tuple[str, str]], ...] = ()

    @property
    def padded(self) -> int:
        """Bytes in a row of fields: each begins at a multiple of four."""
        return self.length + 3 & ~3


def register(place: int) -> int:
    """The number of the register at so many times four bytes: of 16 bytes each where that is one, as libnftables has it
    (enum nft_registers)."""
    return 8 + place if place % 4 else 1 + place // 4


def expression(name: str, *attributes: bytes) -> bytes:
    """One element of a rule's list."""
    return nest(1, attribute(1, name.encode() + b"\0"), nest(2, *attributes))


def note(kind: int, value: bytes) -> bytes:
    """One entry of userdata: type and length are a byte each."""
    return bytes((kind, len(value))) + value


def host(value: int) -> bytes:
    """Four bytes in the host's order."""
    return struct.pack("=I", value)


def meta_key(name: str) -> int:
    return _META_KEYS[name]


def ct_key(name: str) -> int:
    return _CT_KEYS[name]


def _meta(name: str, length: int, read: Callable[[str], bytes], kind: int, *, is_of_host: bool = False) -> Field:
    key = _META_KEYS[name]
    typeof = note(0, host(_EXPRESSION_META)) + note(1, note(0, host(key)))
    return Field(lambda to: expression("meta", u32(2, key), u32(1, to)), length, read, kind, typeof, is_of_host)


def _ct(name: str, length: int, read: Callable[[str], bytes], kind: int, *, is_original: bool = False) -> Field:
    key = _CT_KEYS[name]
    direction = (u8(3, _ORIGINAL),) if is_original else ()
    noted = note(0, host(key)) + (note(1, host(_ORIGINAL)) if is_original else b"")
    typeof = note(0, host(_EXPRESSION_CT)) + note(1, noted)
    is_of_host = name in ("mark", "state")
    return Field(
        lambda to: expression("ct", u32(2, key), u32(1, to), *direction),
        length,
        read,
        kind,
        typeof,
        is_of_host,
        is_flags=name == "state",
    )


def payload(base: int, offset: int, length: int) -> Callable[[int], bytes]:
    """Loads bytes of the packet."""
    return lambda to: expression("payload", u32(1, to), u32(2, base), u32(3, offset), u32(4, length))


def _number(length: int) -> Callable[[str], bytes]:
    return lambda word: _sized(int(word, 0), length)


def _sized(value: int, length: int) -> bytes:
    try:
        return value.to_bytes(length, "big")
    except OverflowError as error:
        raise ValueError(f"{value:#x} is more than {length} bytes") from error


def _of_host(word: str) -> bytes:
    return host(int.from_bytes(_sized(int(word, 0), 4), "big"))


def _name(word: str) -> bytes:
    found = re.fullmatch(r'"([^"*\\]{1,15})"', word)
    if found is None:
        raise ValueError(f"{word} is no quoted name of a device")
    return found[1].encode().ljust(_NAME_LENGTH, b"\0")


def _one_of(words: Mapping[str, int], length: int) -> Callable[[str], bytes]:
    return lambda word: _sized(words[word] if word in words else int(word, 0), length)


def _state(word: str) -> bytes:
    return host(_STATES[word]) if word in _STATES else _of_host(word)


def _four(word: str) -> bytes:
    return ipaddress.IPv4Address(word).packed


def _six(word: str) -> bytes:
    return ipaddress.IPv6Address(word).packed


_IP = ("inet", ("meta nfproto", "ipv4")), ("netdev", ("meta protocol", "ip"))
_IP6 = ("inet", ("meta nfproto", "ipv6")), ("netdev", ("meta protocol", "ip6"))
_IN_TCP = ("inet", ("meta l4proto", "tcp")), ("netdev", ("meta l4proto", "tcp"))

_FIELDS = {
    "iifname": _meta("iifname", _NAME_LENGTH, _name, 41, is_of_host=True),
    "oifname": _meta("oifname", _NAME_LENGTH, _name, 41, is_of_host=True),
    "meta mark": _meta("mark", 4, _of_host, 19, is_of_host=True),
    "meta protocol": _meta("protocol", 2, _one_of({"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806}, 2), 5),
    "meta nfproto": _meta("nfproto", 1, _one_of({"ipv4": 2, "ipv6": 10}, 1), 20),
    "meta l4proto": _meta("l4proto", 1, _one_of(PROTOCOLS, 1), 12, is_of_host=True),
    "meta pkttype": _meta("pkttype", 1, _one_of({"host": 0, "broadcast": 1, "multicast": 2, "other": 3}, 1), 28),
    "ct mark": _ct("mark", 4, _of_host, 19),
    "ct state": _ct("state", 4, _state, 26),
    "ct direction": _ct("direction", 1, _one_of({"original": 0, "reply": 1}, 1), 27),
    "ct original proto-src": _ct("proto-src", 2, _number(2), 13, is_original=True),
    "ct original proto-dst": _ct("proto-dst", 2, _number(2), 13, is_original=True),
    "ct original ip saddr": _ct("ip saddr", 4, _four, 7, is_original=True),
    "ct original ip daddr": _ct("ip daddr", 4, _four, 7, is_original=True),
    "ct original ip6 saddr": _ct("ip6 saddr", 16, _six, 8, is_original=True),
    "ct original ip6 daddr": _ct("ip6 daddr", 16, _six, 8, is_original=True),
    "ip saddr": Field(payload(1, 12, 4), 4, _four, needs=_IP),
    "ip daddr": Field(payload(1, 16, 4), 4, _four, needs=_IP),
    "ip6 saddr": Field(payload(1, 8, 16), 16, _six, needs=_IP6),
    "ip6 daddr": Field(payload(1, 24, 16), 16, _six, needs=_IP6),
    "tcp flags": Field(
        payload(2, 13, 1), 1, _one_of({"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}, 1), needs=_IN_TCP
    ),
}

_WORDS = {tuple(name.split()): field for name, field in _FIELDS.items()}
_LONGEST = max(map(len, _WORDS))


def field_at(words: Sequence[str], place: int) -> tuple[Field, int]:
    """The field that some words begin with at a place, and the place after it. Raises Unspoken."""
    if place < len(words) and words[place].startswith("@"):
        return _raw(words[place]), place + 1
    for end in range(min(place + _LONGEST, len(words)), place, -1):
        if found := _WORDS.get(tuple(words[place:end])):
            return found, end
    raise Unspoken(" ".join(words[place : place + _LONGEST]))


def field_named(name: str) -> Field:
    """Raises Unspoken."""
    words = name.split()
    found, end = field_at(words, 0)
    if end != len(words):
        raise Unspoken(name)
    return found


def span(field: Field, word: str) -> tuple[bytes, bytes]:
    """First and last value of a word: one, FIRST-LAST, or a prefix. Raises ValueError."""
    first, slash, length = word.partition("/")
    if slash:
        value = field.read(first)
        beyond = (1 << len(value) * 8 - int(length)) - 1
        number = int.from_bytes(value, "big")
        if number & beyond:
            raise Unspoken(word)
        return value, (number | beyond).to_bytes(len(value), "big")
    try:
        return (field.read(word),) * 2
    except ValueError:
        first, dash, last = word.partition("-")
        if not dash or field.is_of_host:
            raise
        found = field.read(first), field.read(last)
        if found[0] > found[1]:
            raise Unspoken(word) from None
        return found


@lru_cache(maxsize=256)
def _raw(word: str) -> Field:
    """@BASE,OFFSET,LENGTH, both in bits: whole bytes, or bits of a single one."""
    found = re.fullmatch(r"@(ll|nh|th),(\d+),(\d+)", word)
    if found is None:
        raise Unspoken(word)
    base, offset, length = _BASES[found[1]], int(found[2]), int(found[3])
    if not offset % 8 and length and not length % 8:
        return Field(payload(base, offset // 8, length // 8), length // 8, _number(length // 8))
    beyond = 8 - offset % 8 - length
    if beyond < 0 or not length:
        raise Unspoken(word)

    def read(text: str) -> bytes:
        value = int(text, 0)
        if value >> length:
            raise ValueError(f"{text} is more than {length} bits")
        return bytes([value << beyond])

    return Field(payload(base, offset // 8, 1), 1, read, mask=bytes([((1 << length) - 1) << beyond]))
