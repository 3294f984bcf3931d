"""Pure. The texts of addresses, ranges and prefixes in files, as integers. Each raises ValueError with the remedy."""

from __future__ import annotations

import re

import netaddr

from overlay.pools import Span, Version, address_text

_UNUSABLE_4 = {
    "0.0.0.0/8": "means this host",
    "127.0.0.0/8": "is loopback",
    "169.254.0.0/16": "is link-local, and metadata lives there",
    "224.0.0.0/4": "is multicast",
    "240.0.0.0/4": "is reserved",
}
_UNUSABLE_6 = {
    "::/8": "is reserved (loopback, mapped IPv4)",
    "fe80::/10": "is link-local",
    "ff00::/8": "is multicast",
}
_UNUSABLE = [(netaddr.IPNetwork(text), why) for table in (_UNUSABLE_4, _UNUSABLE_6) for text, why in table.items()]

_LINK_LOCAL = netaddr.IPNetwork("fe80::/10")
_LINK_LOCAL_64 = 0xFE80 << 48
_LEG = int(netaddr.IPAddress("fe80::1"))

WIDEST_BLOCK = {4: 16, 6: 48}
"""Shortest prefix that a NIC may allow, by version."""

SMALLEST_PREFIX_4 = 8
LARGEST_PREFIX_4 = 30
"""Longer ones have no room for a gateway, a port, the network's own and the broadcast address."""


def parse_ip(text: str) -> tuple[Version, int]:
    """One address, without prefix length or zone."""
    try:
        address = netaddr.IPAddress(text.strip(), flags=netaddr.INET_PTON)
    except (netaddr.AddrFormatError, ValueError):
        raise ValueError(f"{text!r} is no IP address; write one as 10.20.0.5 or fd00:20::5") from None
    return (4 if address.version == 4 else 6), int(address)


def parse_prefix(text: str) -> tuple[Version, Span, int]:
    """A prefix of a network, as (version, first to last address, prefix length). Host bits are refused."""
    if not re.fullmatch(r"\s*[0-9A-Fa-f.:]+/\d{1,3}\s*", text):
        raise ValueError(f"{text!r} is no prefix; write an address, a slash and a length, as 10.20.0.0/24")
    try:
        network = netaddr.IPNetwork(text.strip())
    except (netaddr.AddrFormatError, ValueError):
        raise ValueError(f"{text!r} is no prefix; write it as 10.20.0.0/24 or fd00:20::/64") from None
    if network.ip != network.network:
        raise ValueError(f"{text} has host bits set; write {network.cidr}")
    for unusable, why in _UNUSABLE:
        if network.version == unusable.version and (network in unusable or unusable in network):
            raise ValueError(f"{text} can't be used: {unusable} {why}; choose another prefix, as 10.20.0.0/24")
    version: Version = 4 if network.version == 4 else 6
    if version == 6 and network.prefixlen != 64:
        raise ValueError(f"{text} is no /64; other IPv6 prefixes are not built yet: write a /64")
    if version == 4 and not SMALLEST_PREFIX_4 <= network.prefixlen <= LARGEST_PREFIX_4:
        raise ValueError(f"{text} has the wrong size; write a /{SMALLEST_PREFIX_4} to /{LARGEST_PREFIX_4}")
    return version, Span(int(network.first), int(network.last)), int(network.prefixlen)


def parse_block(text: str) -> tuple[Version, Span, str]:
    """An address that a port may have, or a prefix of such: (version, span, canonical text)."""
    address, slash, length = text.strip().partition("/")
    try:
        network = (
            netaddr.IPNetwork(text.strip())
            if slash
            else netaddr.IPNetwork(netaddr.IPAddress(address, flags=netaddr.INET_PTON))
        )
        if slash and not length.isdecimal():
            raise ValueError
    except (netaddr.AddrFormatError, ValueError):
        raise ValueError(f"{text!r} is no address or prefix; write it as 10.20.0.250 or 10.99.0.0/16") from None
    version: Version = 4 if network.version == 4 else 6
    if network.ip != network.network:
        raise ValueError(f"{text} has host bits set; write {network.cidr}")
    if network.prefixlen < WIDEST_BLOCK[version]:
        raise ValueError(f"{text} is too wide; write a /{WIDEST_BLOCK[version]} or longer")
    span = Span(int(network.first), int(network.last))
    if version == 6 and network in _LINK_LOCAL:
        _check_link_local(text, span)
    else:
        for unusable, why in _UNUSABLE:
            if network.version == unusable.version and network in unusable:
                raise ValueError(f"{text} can't be used: {unusable} {why}; choose another")
    return version, span, str(network.ip if network.size == 1 else network)


def _check_link_local(text: str, span: Span) -> None:
    """VRRP of IPv6 needs one (RFC 9568 §5.2.9). Raises ValueError."""
    if span.first != span.last:
        raise ValueError(f"{text} is more than one link-local address; write each that is needed")
    if span.first >> 64 != _LINK_LOCAL_64:
        raise ValueError(f"{text} is not in fe80::/64, where link-local addresses are; choose another")
    if span.first == _LEG:
        raise ValueError(f"{text} is the gateways' own; choose another")
    if made_of_mac(span) is not None:
        raise ValueError(f"{text} could be made of some NIC's MAC; choose one without ff:fe in its midst")


def parse_range(text: str) -> tuple[Version, Span]:
    """`FIRST-LAST`, one address, or a prefix."""
    if "/" in text:
        try:
            network = netaddr.IPNetwork(text.strip())
        except (netaddr.AddrFormatError, ValueError):
            raise ValueError(f"{text!r} is no range; write it as 10.20.0.100-10.20.0.199") from None
        if network.ip != network.network:
            raise ValueError(f"{text} has host bits set; write {network.cidr}")
        return (4 if network.version == 4 else 6), Span(int(network.first), int(network.last))
    first_text, dash, last_text = text.partition("-")
    version, first = parse_ip(first_text)
    if not dash:
        return version, Span(first, first)
    last_version, last = parse_ip(last_text)
    if version != last_version:
        raise ValueError(f"{text!r} goes from IPv{version} to IPv{last_version}; write both ends in one family")
    if first > last:
        raise ValueError(f"{text!r} is reversed; write {last_text.strip()}-{first_text.strip()}")
    return version, Span(first, last)


def made_of_mac(span: Span) -> int | None:
    """The first address of a span of IPv6 that a client could form of a MAC in its /64 (modified EUI-64, RFC 4291
    appendix A: ff:fe in the middle), or None."""
    for high in range(span.first >> 40, min(span.last >> 40, (span.first >> 40) + 1) + 1):
        first = high << 40 | 0xFFFE << 24
        if first <= span.last and first | 0xFFFFFF >= span.first:
            return max(first, span.first)
    return None


def span_text(version: Version, span: Span) -> str:
    """`FIRST-LAST`, or the address alone."""
    first = address_text(version, span.first)
    return first if span.first == span.last else f"{first}-{address_text(version, span.last)}"
