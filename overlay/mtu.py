"""Pure. How large a guest's IP packets may be over an underlay. Knows nothing of devices; reads no host."""

from __future__ import annotations

from typing import Literal

OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN adds to a guest IP packet, by the underlay's IP version: inner Ethernet 14, VXLAN 8, UDP 8, IP 20 or
40 (RFC 7348 §5)."""

MIN_IPV4 = 576
"""Every IPv4 host accepts datagrams of this size (RFC 791 §3.1), and DHCP clients rely on it (RFC 2131 §2)."""

MIN_IPV6 = 1280
"""No IPv6 link may carry less (RFC 8200 §5)."""

LARGEST_IP_PACKET = 65535
"""Length fields of IPv4 and UDP have 16 bits; some devices (loopback) claim more."""


def guest_mtu(underlay_mtu: int, underlay: Literal[4, 6]) -> int:
    """Largest guest IP packet, in bytes, that fits into one underlay packet of IP version `underlay`.

    May be below `MIN_IPV4` or `MIN_IPV6`: see `shortfall`.
    """
    return min(underlay_mtu, LARGEST_IP_PACKET) - OVERHEAD[underlay]


def shortfall(mtu: int, *, has_ipv6: bool) -> int:
    """How many bytes a guest MTU is too small for the protocols of a network; 0 when it is enough."""
    return max(0, (MIN_IPV6 if has_ipv6 else MIN_IPV4) - mtu)
