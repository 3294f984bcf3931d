"""Pure. What one port's client is told: the whole input of the answers at that port, as plain data.

A scope is complete before the client boots; answering writes nothing. Addresses are strings in canonical form, times
are seconds, MTUs bytes of IP packet.
"""

from __future__ import annotations

from dataclasses import dataclass

from dhcp.leases import Lease


@dataclass(frozen=True, slots=True)
class Boot:
    """Where a client boots from over the network. server: IPv4 address of the TFTP or HTTP server (siaddr, option 66).

    files: (architecture as option 93 says it, -1 for every other one; the file's name or URL). ipxe: what iPXE itself
    is given, a script's name or URL, so that a firmware that loads iPXE does not load it again. server6: IPv6 address
    of the TFTP server, for names that are no URL (RFC 5970 knows URLs alone). parameters: what goes with the URL.
    """

    server: str
    files: tuple[tuple[int, str], ...] = ()
    ipxe: str = ""
    server6: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope4:
    """DHCPv4 for one bound port (RFC 2131, 2132).

    address/prefix_len: what the client gets. server: the server identifier (option 54), also the source address.
    routes: (destination prefix, next hop) for options 121 and 249; a next hop "0.0.0.0" means on-link (RFC 3442).
    router: option 3, only where something routes. options: (code, value as it goes on the wire), each in place of what
    would be said by that code otherwise.
    """

    address: str
    prefix_len: int
    server: str
    lease_s: int = 3600
    mtu: int | None = None
    router: str | None = None
    dns: tuple[str, ...] = ()
    hostname: str | None = None
    domain: str | None = None
    search: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[int, bytes], ...] = ()
    boot: Boot | None = None


@dataclass(frozen=True, slots=True)
class Pool4:
    """Addresses for clients that nobody declared, beside the port's own one. name: pools of one name are one.

    told: what such clients are told; its `address` is any of the subnet's. ours: (first, last) of each range that is
    given here; whole: of the ranges of which others give the rest, or gave before. limit: most addresses that clients
    of one port may keep. known: what others gave in `whole` to clients that are here now. per_s: messages a second that
    are looked at, 0 for any number.
    """

    name: str
    told: Scope4
    ours: tuple[tuple[str, str], ...]
    whole: tuple[tuple[str, str], ...] = ()
    limit: int = 64
    known: tuple[Lease, ...] = ()
    per_s: int = 0


@dataclass(frozen=True, slots=True)
class ScopeRa:
    """Router advertisements for one port (RFC 4861 §4.2, RFC 8106).

    source: the link-local address that they come from. source_mac: who has it; empty for the port's server_mac.
    prefixes: (prefix, autonomous); always on-link. router_lifetime_s is 0 where the source routes nothing. managed,
    other: addresses, and what else there is to know, are to be had by DHCPv6.
    """

    source: str
    source_mac: str = ""
    prefixes: tuple[tuple[str, bool], ...] = ()
    mtu: int | None = None
    router_lifetime_s: int = 0
    rdnss: tuple[str, ...] = ()
    dnssl: tuple[str, ...] = ()
    valid_s: int = 86400
    preferred_s: int = 14400
    managed: bool = False
    other: bool = False


@dataclass(frozen=True, slots=True)
class Scope6:
    """DHCPv6 for one bound port (RFC 8415).

    addresses: what the client gets. source: the link-local address that answers come from. options: (code, value as it
    goes on the wire), each in place of what would be said by that code otherwise.
    """

    addresses: tuple[str, ...]
    source: str
    lease_s: int = 3600
    dns: tuple[str, ...] = ()
    hostname: str | None = None
    domain: str | None = None
    search: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    options: tuple[tuple[int, bytes], ...] = ()
    boot: Boot | None = None


@dataclass(frozen=True, slots=True)
class PortScope:
    """Everything answered at one port. mac: the client's own; server_mac: the source MAC of every answer. pool: for
    clients with other MACs, where the port may have such. formed: addresses that the client formed itself, and that
    count as its own. allowed: IPv6 prefixes that it may use anyhow, so it forms none in them. routers: MACs of virtual
    routers that it may be, as others may: it is told when one speaks here."""

    mac: str
    server_mac: str
    v4: Scope4 | None = None
    ra: ScopeRa | None = None
    pool: Pool4 | None = None
    v6: Scope6 | None = None
    formed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
