"""Pure. DHCPv6 options by name, number and type, and their values from what people write; knows no message.

Sources: the IANA registry of DHCPv6 options, RFC 8415 where nothing else is said. `encode` takes what YAML gives, as
`catalogue` does for DHCPv4, and shares the types that are the same.
"""

from __future__ import annotations

import difflib
import ipaddress
import struct
from collections.abc import Callable, Mapping
from typing import Final

from dhcp import catalogue, v6
from dhcp.catalogue import MOST, Option, Value
from dhcp.options import encode_name

OPTIONS: Final[tuple[Option, ...]] = (
    Option("vendor-options", 17, "hex"),
    Option("sip-domains", 21, "domains"),  # RFC 3319
    Option("sip-servers", 22, "addresses"),
    Option("dns-servers", 23, "addresses"),  # RFC 3646
    Option("domain-search", 24, "domains"),
    Option("nis-servers", 27, "addresses"),  # RFC 3898
    Option("nisp-servers", 28, "addresses"),
    Option("nis-domain", 29, "domain"),
    Option("nisp-domain", 30, "domain"),
    Option("sntp-servers", 31, "addresses"),  # RFC 4075
    Option("information-refresh-time", 32, "seconds"),
    Option("bcms-domains", 33, "domains"),  # RFC 4280
    Option("bcms-servers", 34, "addresses"),
    Option("pana-agents", 40, "addresses"),  # RFC 5192
    Option("posix-timezone", 41, "text"),  # RFC 4833
    Option("tz-timezone", 42, "text"),
    Option("lost-server", 51, "domain"),  # RFC 5223
    Option("capwap-controllers", 52, "addresses"),  # RFC 5417
    Option("ntp-servers", 56, "times"),  # RFC 5908
    Option("access-network-domain", 57, "domain"),  # RFC 5986
    Option("sip-ua-domains", 58, "domains"),  # RFC 6011
    Option("bootfile-url", 59, "text"),  # RFC 5970
    Option("bootfile-parameters", 60, "texts"),
    Option("aftr-name", 64, "domain"),  # RFC 6334
    Option("sol-max-rt", 82, "seconds"),
    Option("inf-max-rt", 83, "seconds"),
    Option("captive-portal", 103, "text"),  # RFC 8910
    Option("sztp-redirect", 136, "hex"),  # RFC 8572
    Option("encrypted-dns", 144, "hex"),  # RFC 9463
)
"""What files may say by name. What is not here goes by number and type."""

RESERVED: Final[Mapping[int, str]] = {
    **dict.fromkeys((1, 6, 8, 15, 16, 61, 62, 79), "it is the client's or a relay's to say"),
    **dict.fromkeys((2, 7, 12, 13, 14, 19, 20), "it says who answers, and how"),
    **dict.fromkeys((3, 4, 5, 25, 26), "addresses follow from the port's"),
    **dict.fromkeys((9, 18, 37, 38), "it is a relay's to say"),
    11: "it would need a key",
    39: "the name follows from the workspace's",
}
"""Options that no file may set, and why not."""

BY_NAME: Final[Mapping[str, Option]] = {option.name: option for option in OPTIONS}
BY_CODE: Final[Mapping[int, Option]] = {option.code: option for option in OPTIONS}


def _items(value: Value, one: Callable[[Value], bytes]) -> bytes:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("the list is empty; name at least one, or leave the option out")
    return b"".join(map(one, items))


def _address(value: Value) -> bytes:
    try:
        return ipaddress.IPv6Address(str(value).strip()).packed
    except ValueError:
        raise ValueError(f"{str(value)[:60]!r} is no IPv6 address; write one as fd00:20::5") from None


def _domain(value: Value) -> bytes:
    try:
        return encode_name(str(value))
    except UnicodeEncodeError:
        raise ValueError(f"read {str(value)[:60]!r}; write a domain name in ASCII (xn--… for others)") from None


def _counted(value: Value) -> bytes:
    packed = catalogue.KINDS["text"][1](value)
    return struct.pack("!H", len(packed)) + packed


def _time(value: Value) -> bytes:
    """A suboption: an address, a multicast address, or a name (RFC 5908 §4)."""
    if ":" not in str(value):
        return v6.encode_options([(3, _domain(value))])
    packed = _address(value)
    return v6.encode_options([(2 if packed[0] == 0xFF else 1, packed)])


KINDS: Final[Mapping[str, tuple[str, Callable[[Value], bytes]]]] = {
    **{kind: catalogue.KINDS[kind] for kind in ("text", "flag", "u8", "u16", "u32", "u8s", "u16s", "seconds", "hex")},
    "texts": ("texts", lambda value: _items(value, _counted)),
    "address": ("an IPv6 address", _address),
    "addresses": ("IPv6 addresses", lambda value: _items(value, _address)),
    "domain": ("a domain name", _domain),
    "domains": ("domain names", lambda value: _items(value, _domain)),
    "times": ("IPv6 addresses, or domain names", lambda value: _items(value, _time)),
}
"""Types of values: what people are told to write, and the bytes that it means. Each raises ValueError with the
remedy."""


def find(key: str | int) -> tuple[int, Option | None]:
    """The code that a file's key means, and what is known of it. Raises ValueError with a near miss or the reason."""
    text = str(key)
    if text.isascii() and text.isdigit() and len(text) <= 5:
        code = int(text)
        if not 0 < code < 65536:
            raise ValueError(f"there is no option {code}; they are numbered 1 to 65535")
    elif text in BY_NAME:
        code = BY_NAME[text].code
    else:
        near = difflib.get_close_matches(text.lower().replace("_", "-"), BY_NAME, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; write one by its number and a type, as 224: {text: hello}"
        raise ValueError(f"unknown DHCPv6 option {text[:60]!r}{hint}")
    if code in RESERVED:
        raise ValueError(f"DHCPv6 option {text} can't be set: {RESERVED[code]}")
    return code, BY_CODE.get(code)


def encode(option: Option | None, value: Value) -> bytes:
    """The bytes of a value. A mapping of one type to a value says the type itself: `{text: hello}`. Raises
    ValueError."""
    kind = None if option is None else option.kind
    types = f"write one type and a value, as {{text: hello}}; types: {', '.join(KINDS)}"
    if isinstance(value, dict):
        if len(value) != 1 or (kind := next(iter(value))) not in KINDS:
            raise ValueError(f"read a mapping of {', '.join(map(str, value))[:60] or 'nothing'}; {types}")
        (value,) = value.values()
    if kind is None:
        raise ValueError(f"its type is not known here; {types}")
    packed = KINDS[kind][1](value)
    if len(packed) > MOST:
        raise ValueError(f"the value has {len(packed)} bytes; an option may have {MOST}")
    return packed


def described(code: int, value: bytes) -> tuple[str, str]:
    """An option's name and its value, for people: texts and addresses as such, anything else as bytes."""
    option = BY_CODE.get(code)
    kind = "" if option is None else option.kind
    text = value.hex(":")
    if kind == "text" and value.isascii():
        text = value.decode("ascii")
    elif kind in ("address", "addresses") and len(value) % 16 == 0:
        text = " ".join(str(ipaddress.IPv6Address(value[at : at + 16])) for at in range(0, len(value), 16))
    elif kind == "seconds":
        text = f"{int.from_bytes(value, 'big')} s"
    return (f"DHCPv6 {option.name}" if option is not None else f"DHCPv6 option {code}"), text
