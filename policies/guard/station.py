"""Pure. Whose frames the guard passes: stations, and the devices that they are behind. Knows no nft."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Station:
    """One end of a network (IEEE 802's word): a MAC, and the addresses that belong to it.

    mac: lower-case, with colons. addresses: plain. link_local: the one that it was seen to form, "" for that of its MAC
    (RFC 4291 appendix A). allowed_addresses: prefixes that it may speak for besides, and allowed_macs MACs that it may
    speak from (VRRP, machines nested in it). owned: only of a gateway, the prefixes of its playground; all unicast
    addresses outside of them are behind it.
    """

    mac: str
    addresses: tuple[str, ...]
    link_local: str = ""
    allowed_addresses: tuple[str, ...] = ()
    allowed_macs: tuple[str, ...] = ()
    owned: tuple[str, ...] | None = None

    @property
    def macs(self) -> tuple[str, ...]:
        """All that it may speak from, its own first."""
        return tuple(dict.fromkeys((self.mac, *self.allowed_macs)))

    def own(self) -> list[Address]:
        """Its own addresses, the link-local one last. Raises ValueError for what is no address."""
        texts = (*self.addresses, self.link_local or link_local(self.mac))
        return [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]

    def ranges(self) -> list[tuple[Address, Address]]:
        """First and last address of what it may speak for besides its own; disjoint, IPv4 first. Raises ValueError."""
        prefixes = [ipaddress.ip_network(text) for text in self.allowed_addresses]
        if self.owned is not None:
            prefixes += outside([ipaddress.ip_network(text) for text in self.owned])
        return _united(prefixes)


def any_of(mac: str, stations: Sequence[Station]) -> Station:
    """Whichever of some stations a MAC is, that all of them may have: with the addresses of each."""
    own = dict.fromkeys(str(address) for station in stations for address in station.own())
    allowed = dict.fromkeys(text for station in stations for text in station.allowed_addresses)
    return Station(mac, tuple(own), next(iter(own)), tuple(allowed))


@dataclass(frozen=True, slots=True)
class GuardedPort:
    """A port's device on its host. subnets: the network's, for their broadcast addresses (RFC 919 §7)."""

    device: str
    station: Station
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardedTunnel:
    """A network's VXLAN device. stations: all that other hosts carry, or may in a moment: a station that moves counts
    on both its hosts, from before it leaves the one until it is settled on the other."""

    device: str
    stations: tuple[Station, ...] = ()
    subnets: tuple[str, ...] = ()


_PASSED_ON = ("0.0.0.0/0", "64:ff9b::/96", "2000::/3", "fc00::/7")
"""What routers pass on: IPv4, and what of IPv6 is translated (RFC 6052), global or unique local, ..."""
_KEPT = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""... less this network, loopback, link-local, multicast, reserved and broadcast (RFC 6890)."""


def outside(owned: Sequence[Prefix]) -> list[Prefix]:
    """All unicast addresses that routers pass on, outside of some prefixes."""
    found = [ipaddress.ip_network(text) for text in _PASSED_ON]
    for hole in (*map(ipaddress.ip_network, _KEPT), *owned):
        found = [piece for prefix in found for piece in _without(prefix, hole)]
    return found


def link_local(mac: str) -> str:
    """`fe80::/64` with the modified EUI-64 of a MAC (RFC 4291 appendix A)."""
    raw = int(mac.replace(":", ""), 16)
    identifier = (raw >> 24 << 40 | 0xFFFE << 24 | raw & 0xFFFFFF) ^ 1 << 57
    return str(ipaddress.IPv6Address(0xFE80 << 112 | identifier))


def broadcasts(subnets: tuple[str, ...]) -> list[str]:
    """The directed broadcast addresses of those subnets that have one (RFC 919 §7; not /31, RFC 3021, nor /32)."""
    networks = [ipaddress.ip_network(text) for text in subnets]
    return [str(found[-1]) for found in networks if found.version == 4 and found.prefixlen < 31]


def _without(prefix: Prefix, hole: Prefix) -> list[Prefix]:
    if isinstance(prefix, ipaddress.IPv4Network) and isinstance(hole, ipaddress.IPv4Network):
        if not prefix.overlaps(hole):
            return [prefix]
        return [] if prefix.subnet_of(hole) else list(prefix.address_exclude(hole))
    if isinstance(prefix, ipaddress.IPv6Network) and isinstance(hole, ipaddress.IPv6Network):
        if not prefix.overlaps(hole):
            return [prefix]
        return [] if prefix.subnet_of(hole) else list(prefix.address_exclude(hole))
    return [prefix]


def _united(prefixes: Sequence[Prefix]) -> list[tuple[Address, Address]]:
    """As few ranges as can be: a set of the kernel refuses some that overlap."""
    found: list[tuple[Address, Address]] = []
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.version, int(prefix[0]))):
        first, last = prefix[0], prefix[-1]
        if found and found[-1][1].version == first.version and int(first) <= int(found[-1][1]) + 1:
            first, until = found.pop()
            last = max(last, until, key=int)
        found.append((first, last))
    return found
