"""Pure. MAC addresses: their one canonical text, what a port's MAC is, and the IPv6 addresses that follow from it.

Knows nothing of networks or of who uses a MAC.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

from overlay.state import LEG_MAC

_FORMS = re.compile(
    r"(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}|[0-9a-f]{12})"
)


def parse_mac(text: str) -> str:
    """Lower-case colon form of `52:54:00:12:34:56`, `52-54-00-12-34-56`, `5254.0012.3456` or `525400123456`.

    Raises ValueError for anything else.
    """
    low = text.strip().lower()
    if not _FORMS.fullmatch(low):
        raise ValueError(f"{text!r} is no MAC; write six hex bytes, as 52:54:00:12:34:56")
    digits = re.sub(r"[:.\-]", "", low)
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def is_multicast(mac: str) -> bool:
    """Whether the group bit is set (IEEE 802: lowest bit of the first byte; broadcast included)."""
    return bool(int(mac[:2], 16) & 1)


def is_usable(mac: str) -> bool:
    """Whether a port may have it: no group address, not all zero, not the MAC of service legs."""
    return not is_multicast(mac) and mac not in ("00:00:00:00:00:00", LEG_MAC)


def is_virtual_router(mac: str) -> bool:
    """Whether it is one that VRRP's routers take from each other (RFC 9568 §7.3: 00:00:5e:00:01:… and …:02:…)."""
    return mac.startswith(("00:00:5e:00:01:", "00:00:5e:00:02:"))


def derived_mac(port_id: str, attempt: int = 0) -> str:
    """The MAC of a port without a fixed one: `02:` (locally administered) and 40 bits of a hash of its id.

    attempt: 0 first; the next number when that MAC is in use on the network. Always `is_usable`.
    """
    salt = 0
    while True:
        digest = hashlib.sha256(f"mac\0{port_id}\0{attempt}\0{salt}".encode()).digest()
        mac = "02:" + digest[:5].hex(":")
        if is_usable(mac):
            return mac
        salt += 1


def interface_id(mac: str) -> int:
    """Modified EUI-64 interface identifier of a canonical MAC, 64 bits (RFC 4291 Appendix A)."""
    raw = int(mac.replace(":", ""), 16)
    return (raw >> 24 << 40 | 0xFFFE << 24 | raw & 0xFFFFFF) ^ 1 << 57


def link_local(mac: str) -> str:
    """`fe80::/64` with the interface identifier of a canonical MAC (RFC 4291 §2.5.6)."""
    return slaac_address("fe80::/64", mac)


def is_link_local(address: str) -> bool:
    """Whether an address, in canonical form, is in `fe80::/10` (RFC 4291 §2.4)."""
    return address[:3] in ("fe8", "fe9", "fea", "feb") and ":" in address[:5]


def slaac_address(prefix: str, mac: str) -> str:
    """The address that a client with this MAC forms in a /64 that is advertised to it (RFC 4862 §5.5.3).

    Raises ValueError when `prefix` is no IPv6 /64: interface identifiers have 64 bits (RFC 4291 §2.5.1).
    """
    network = ipaddress.IPv6Network(prefix)
    if network.prefixlen != 64:
        raise ValueError(f"{prefix} is no /64; stateless addresses need one")
    return str(network[interface_id(mac)])
