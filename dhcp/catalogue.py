"""Pure. DHCPv4 options by name, number and type, and their values from what people write; knows no message.

Sources: the IANA registry of BOOTP and DHCP options, RFC 2132 where nothing else is said. `encode` takes what YAML
gives: texts, numbers, truth values and lists of them.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from dhcp import options
from dhcp.reason import Reason

Value = object


class Option(NamedTuple):
    """An option that a file may name. kind: a key of `KINDS`."""

    name: str
    code: int
    kind: str


OPTIONS: Final[tuple[Option, ...]] = (
    Option("time-offset", 2, "i32"),
    Option("routers", 3, "addresses"),
    Option("time-servers", 4, "addresses"),
    Option("name-servers", 5, "addresses"),
    Option("domain-name-servers", 6, "addresses"),
    Option("log-servers", 7, "addresses"),
    Option("cookie-servers", 8, "addresses"),
    Option("lpr-servers", 9, "addresses"),
    Option("impress-servers", 10, "addresses"),
    Option("resource-location-servers", 11, "addresses"),
    Option("host-name", 12, "text"),
    Option("boot-size", 13, "u16"),
    Option("merit-dump", 14, "text"),
    Option("domain-name", 15, "text"),
    Option("swap-server", 16, "address"),
    Option("root-path", 17, "text"),
    Option("extensions-path", 18, "text"),
    Option("ip-forwarding", 19, "flag"),
    Option("non-local-source-routing", 20, "flag"),
    Option("policy-filter", 21, "pairs"),
    Option("max-dgram-reassembly", 22, "u16"),
    Option("default-ip-ttl", 23, "u8"),
    Option("path-mtu-aging-timeout", 24, "seconds"),
    Option("path-mtu-plateau-table", 25, "u16s"),
    Option("all-subnets-local", 27, "flag"),
    Option("perform-mask-discovery", 29, "flag"),
    Option("mask-supplier", 30, "flag"),
    Option("router-discovery", 31, "flag"),
    Option("router-solicitation-address", 32, "address"),
    Option("static-routes", 33, "pairs"),
    Option("trailer-encapsulation", 34, "flag"),
    Option("arp-cache-timeout", 35, "seconds"),
    Option("ieee802-3-encapsulation", 36, "flag"),
    Option("default-tcp-ttl", 37, "u8"),
    Option("tcp-keepalive-interval", 38, "seconds"),
    Option("tcp-keepalive-garbage", 39, "flag"),
    Option("nis-domain", 40, "text"),
    Option("nis-servers", 41, "addresses"),
    Option("ntp-servers", 42, "addresses"),
    Option("vendor-specific", 43, "hex"),
    Option("netbios-name-servers", 44, "addresses"),
    Option("netbios-dd-servers", 45, "addresses"),
    Option("netbios-node-type", 46, "u8"),
    Option("netbios-scope", 47, "text"),
    Option("font-servers", 48, "addresses"),
    Option("x-display-managers", 49, "addresses"),
    Option("renewal-time", 58, "seconds"),
    Option("rebinding-time", 59, "seconds"),
    Option("nisplus-domain", 64, "text"),
    Option("nisplus-servers", 65, "addresses"),
    Option("tftp-server-name", 66, "text"),
    Option("bootfile-name", 67, "text"),
    Option("mobile-ip-home-agents", 68, "addresses"),
    Option("smtp-servers", 69, "addresses"),
    Option("pop3-servers", 70, "addresses"),
    Option("nntp-servers", 71, "addresses"),
    Option("www-servers", 72, "addresses"),
    Option("finger-servers", 73, "addresses"),
    Option("irc-servers", 74, "addresses"),
    Option("streettalk-servers", 75, "addresses"),
    Option("streettalk-directory-assistance-servers", 76, "addresses"),
    Option("nds-servers", 85, "addresses"),  # RFC 2241
    Option("nds-tree-name", 86, "text"),
    Option("nds-context", 87, "text"),
    Option("bcms-controller-names", 88, "domains"),  # RFC 4280
    Option("bcms-controller-addresses", 89, "addresses"),
    Option("posix-timezone", 100, "text"),  # RFC 4833
    Option("tz-timezone", 101, "text"),
    Option("ipv6-only-preferred", 108, "seconds"),  # RFC 8925
    Option("captive-portal", 114, "text"),  # RFC 8910
    Option("auto-configure", 116, "flag"),  # RFC 2563
    Option("name-service-search", 117, "u16s"),  # RFC 2937
    Option("domain-search", 119, "domains"),  # RFC 3397
    Option("sip-servers", 120, "hex"),  # RFC 3361
    Option("classless-static-routes", 121, "routes"),  # RFC 3442
    Option("cablelabs-configuration", 122, "hex"),  # RFC 3495
    Option("vendor-identifying", 125, "hex"),  # RFC 3925
    Option("pana-agents", 136, "addresses"),  # RFC 5192
    Option("lost-server", 137, "domain"),  # RFC 5223
    Option("capwap-controllers", 138, "addresses"),  # RFC 5417
    Option("sip-ua-domains", 141, "domains"),  # RFC 6011
    Option("sztp-redirect", 143, "hex"),  # RFC 8572
    Option("tftp-server-addresses", 150, "addresses"),  # RFC 5859
    Option("port-parameters", 159, "hex"),  # RFC 7618
    Option("encrypted-dns", 162, "hex"),  # RFC 9463
    Option("ipxe-encapsulated", 175, "hex"),
    Option("pxelinux-config-file", 209, "text"),  # RFC 5071
    Option("pxelinux-path-prefix", 210, "text"),
    Option("pxelinux-reboot-time", 211, "seconds"),
    Option("6rd", 212, "hex"),  # RFC 5969
    Option("access-network-domain", 213, "domain"),  # RFC 5986
    Option("ms-classless-static-routes", 249, "routes"),
    Option("wpad-url", 252, "text"),
)
"""What files may say by name. What is not here goes by number and type."""

RESERVED: Final[Mapping[int, str]] = {
    0: "it is padding",
    1: "the subnet mask follows from the subnet",
    26: "the MTU follows from the tunnels",
    28: "the broadcast address follows from the subnet",
    50: "it is the client's to say",
    51: "write dhcp.lease_time",
    52: "it says how a message is laid out",
    53: "it says what a message is",
    54: "it says who answers",
    55: "it is the client's to say",
    56: "it says why a client is refused",
    57: "it is the client's to say",
    60: "it is the client's to say",
    61: "it is the client's to say",
    77: "it is the client's to say",
    80: "it says how a client is answered",
    81: "the name follows from the workspace's",
    82: "it is the relay's to say",
    90: "it would need a key",
    93: "it is the client's to say",
    94: "it is the client's to say",
    97: "it is the client's to say",
    118: "it is the client's to say",
    255: "it ends the options",
}
"""Options that no file may set, and why not."""

NAMES_RESERVED: Final[Mapping[str, int]] = {
    "subnet-mask": 1,
    "interface-mtu": 26,
    "mtu": 26,
    "broadcast-address": 28,
    "lease-time": 51,
    "server-identifier": 54,
    "client-identifier": 61,
    "client-fqdn": 81,
}
"""Names under which people may look for those."""

BY_NAME: Final[Mapping[str, Option]] = {option.name: option for option in OPTIONS}
BY_CODE: Final[Mapping[int, Option]] = {option.code: option for option in OPTIONS}

_DURATION = re.compile(r"(\d{1,10})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _whole(value: Value, bits: int, least: int = 0) -> int:
    most = (1 << bits) - 1 if least == 0 else -least - 1
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"read {_said(value)}; write a whole number")
    if not least <= value <= most:
        raise ValueError(f"{value} is out of range; it has {least} to {most}")
    return value


def _said(value: Value) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "…")
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _text(value: Value) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"read {_said(value)}; write a text")
    packed = value.encode()
    if not packed or b"\0" in packed:
        raise ValueError(f"read {_said(value)}; write a text of at least one character, none of them NUL")
    return packed


def _address(value: Value) -> bytes:
    if isinstance(value, str):
        try:
            return ipaddress.IPv4Address(value.strip()).packed
        except ValueError:
            pass
    raise ValueError(f"{_said(value)} is no IPv4 address; write one as 10.20.0.5")


def _items(value: Value, one: Callable[[Value], bytes]) -> bytes:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("the list is empty; name at least one, or leave the option out")
    return b"".join(map(one, items))


def _pair(value: Value) -> bytes:
    words = value.split() if isinstance(value, str) else []
    if len(words) != 2:
        raise ValueError(f"read {_said(value)}; write two IPv4 addresses, as '10.9.0.0 10.20.0.1'")
    return _address(words[0]) + _address(words[1])


def _route(value: Value) -> bytes:
    words = value.split() if isinstance(value, str) else []
    if len(words) != 3 or words[1] != "via":
        raise ValueError(f"read {_said(value)}; write PREFIX via ADDRESS, as '10.9.0.0/16 via 10.20.0.1'")
    _address(words[2])
    try:
        return options.encode_routes([(words[0], words[2])])
    except ValueError as error:
        raise ValueError(f"{words[0]!r} is no prefix ({error}); write one as 10.9.0.0/16") from None


def _flag(value: Value) -> bytes:
    if not isinstance(value, bool):
        raise ValueError(f"read {_said(value)}; write true or false")
    return b"\1" if value else b"\0"


def _seconds(value: Value) -> bytes:
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        value = int(found[1]) * _UNITS[found[2]]
    if isinstance(value, str):
        raise ValueError(f"read {_said(value)}; write seconds, or a number with s, m, h or d, as 1h")
    return _whole(value, 32).to_bytes(4, "big")


def _hex(value: Value) -> bytes:
    if isinstance(value, str):
        try:
            return bytes.fromhex(value.replace(":", " "))
        except ValueError:
            pass
    raise ValueError(f'read {_said(value)}; write bytes as hex digits in quotes, as "01:02:ff"')


def _domains(value: Value) -> bytes:
    items = value if isinstance(value, list) else [value]
    texts = [item for item in items if isinstance(item, str)]
    if not texts or len(texts) < len(items):
        raise ValueError(f"read {_said(value)}; write domain names")
    try:
        return options.encode_search(texts)
    except UnicodeEncodeError:
        raise ValueError(f"read {_said(value)}; write domain names in ASCII (xn--… for others)") from None


def _integers(bits: int) -> Callable[[Value], bytes]:
    return lambda value: _whole(value, bits).to_bytes(bits // 8, "big")


KINDS: Final[Mapping[str, tuple[str, Callable[[Value], bytes]]]] = {
    "text": ("a text", _text),
    "address": ("an IPv4 address", _address),
    "addresses": ("IPv4 addresses", lambda value: _items(value, _address)),
    "pairs": ("pairs of IPv4 addresses, as '10.9.0.0 10.20.0.1'", lambda value: _items(value, _pair)),
    "routes": ("routes, as '10.9.0.0/16 via 10.20.0.1'", lambda value: _items(value, _route)),
    "domain": ("a domain name", lambda value: _domains([value])),
    "domains": ("domain names, compressed", _domains),
    "flag": ("true or false", _flag),
    "u8": ("0 to 255", _integers(8)),
    "u16": ("0 to 65535", _integers(16)),
    "u32": ("0 to 4294967295", _integers(32)),
    "i32": ("-2147483648 to 2147483647", lambda value: _whole(value, 32, -(1 << 31)).to_bytes(4, "big", signed=True)),
    "u8s": ("numbers of 0 to 255", lambda value: _items(value, _integers(8))),
    "u16s": ("numbers of 0 to 65535", lambda value: _items(value, _integers(16))),
    "seconds": ("seconds, or 90s, 30m, 1h, 1d", _seconds),
    "hex": ('bytes as hex digits, "01:02:ff"', _hex),
}
"""Types of values: what people are told to write, and the bytes that it means. Each raises ValueError with the
remedy."""

MOST = 1024
"""Bytes of one option's value: more would never fit beside the others."""


def find(key: str | int) -> tuple[int, Option | None]:
    """The code that a file's key means, and what is known of it. Raises ValueError with a near miss or the reason."""
    text = str(key)
    if text.isascii() and text.isdigit() and len(text) <= 3:
        code = int(text)
        if code > 255:
            raise ValueError(f"there is no option {code}; they are numbered 1 to 254")
    elif text in BY_NAME:
        return BY_NAME[text].code, BY_NAME[text]
    elif text in NAMES_RESERVED:
        code = NAMES_RESERVED[text]
    else:
        near = difflib.get_close_matches(text.lower().replace("_", "-"), BY_NAME, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; write one by its number and a type, as 224: {text: hello}"
        raise ValueError(f"unknown option {text[:60]!r}{hint}")
    if code in RESERVED:
        raise ValueError(f"option {text} can't be set: {RESERVED[code]}")
    return code, BY_CODE.get(code)


def encode(option: Option | None, value: Value) -> bytes:
    """The bytes of a value. A mapping of one type to a value says the type itself: `{text: hello}`. Raises
    ValueError."""
    kind = None if option is None else option.kind
    if isinstance(value, dict):
        if len(value) != 1 or (kind := next(iter(value))) not in KINDS:
            raise ValueError(
                f"read {_said(value)} with {', '.join(map(str, value)) or 'nothing'}; write one type and a "
                f"value, as {{text: hello}}; types: {', '.join(KINDS)}"
            )
        (value,) = value.values()
    if kind is None:
        raise ValueError(
            f"its type is not known here; write it with the value, as {{text: hello}}; types: {', '.join(KINDS)}"
        )
    packed = KINDS[kind][1](value)
    if len(packed) > MOST:
        raise ValueError(f"the value has {len(packed)} bytes; an option may have {MOST}")
    return packed


def described(code: int, value: bytes) -> tuple[str, str]:
    """An option's name and its value, for people. What can't be read as its type is shown as bytes."""
    option = BY_CODE.get(code)
    read = _READ.get(option.kind) if option is not None else None
    try:
        text = value.hex(":") if read is None else read(value)
    except (ValueError, UnicodeDecodeError):
        text = value.hex(":")
    return (option.name if option is not None else f"option {code}"), text


def _addresses_text(value: bytes) -> str:
    if len(value) % 4:
        raise ValueError("addresses have four bytes each")
    return " ".join(str(ipaddress.IPv4Address(value[at : at + 4])) for at in range(0, len(value), 4))


def _domains_text(value: bytes) -> str:
    read = options.decode_search(value)
    if isinstance(read, Reason):
        raise ValueError(read.value)
    return " ".join(read)


def _routes_text(value: bytes) -> str:
    read = options.decode_routes(value)
    if isinstance(read, Reason):
        raise ValueError(read.value)
    return ", ".join(f"{destination} via {next_hop}" for destination, next_hop in read)


_READ: Final[Mapping[str, Callable[[bytes], str]]] = {
    "text": lambda value: value.decode(),
    "address": _addresses_text,
    "addresses": _addresses_text,
    "pairs": _addresses_text,
    "routes": _routes_text,
    "domain": _domains_text,
    "domains": _domains_text,
    "flag": lambda value: "true" if value == b"\1" else "false",
    "seconds": lambda value: f"{int.from_bytes(value, 'big')} s",
    **dict.fromkeys(("u8", "u16", "u32"), lambda value: str(int.from_bytes(value, "big"))),
    "i32": lambda value: str(int.from_bytes(value, "big", signed=True)),
}

ARCHITECTURES: Final[Mapping[str, tuple[int, ...]]] = {
    "bios": (0,),
    "efi-ia32": (6,),
    "efi-x64": (7, 9),
    "efi-arm32": (10,),
    "efi-arm64": (11,),
    "efi-x64-http": (16,),
    "efi-arm64-http": (19,),
    "efi-riscv64": (27,),
    "efi-riscv64-http": (28,),
}
"""Clients by what they say in option 93 (RFC 4578 §2.1 and the IANA registry of processor architecture types; 7 and 9
are both about for x64)."""
