"""Pure. What a host's responder answers for one playground: a scope per port here, a view, a name per port anywhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dhcp.scope import Pool4, PortScope, Scope4, Scope6, ScopeRa
from overlay.mac import is_virtual_router, link_local, slaac_address
from overlay.state import LEG_LINK_LOCAL, LEG_MAC, Network, NetworkId, PortId
from playground.blocks import spans_of, within
from playground.derive.gateways import Router
from playground.records import DynamicRecord, NetworkRecord, PortRecord
from playground.responder.protocol import Name, Records, Value, View, name_key, port_key

Service = Value


@dataclass(frozen=True, slots=True)
class Giving:
    """By what machines behind a port get addresses here. record: None where nothing is claimed for them yet. stay:
    tells this stay of the port on this host from others; what was given in another is known by the record."""

    record: DynamicRecord | None
    stay: int
    host: str


@dataclass(frozen=True, slots=True)
class Beside:
    """What a port's client is told, or counts for it, that its own record does not say. router: who leads it to the
    world. learned: addresses that it formed itself. ways: (prefix, address of who leads there) on its network.
    giving: where machines behind it may have addresses, too."""

    router: Router | None = None
    learned: tuple[str, ...] = ()
    ways: tuple[tuple[str, str], ...] = ()
    giving: Giving | None = None


NOTHING_BESIDE = Beside()

NAME_TTL_S = 5
"""A name's time to live: short, since a workspace may be replaced by another at the same name."""

ROUTER_LIFETIME_S = 1800
"""Three times the longest time between two advertisements (RFC 4861 §6.2.1)."""


MESSAGES_PER_S = 64
"""Of the machines behind one port: half a percent of what a responder answers, and a whole port's boot in 8 s."""


def origin_of(playground: str, domain: str) -> str:
    """The domain in which a playground's names lie."""
    return f"{playground}.{domain}"


def view_of(
    records: Mapping[str, NetworkRecord],
    networks: Mapping[NetworkId, Network],
    playground: str,
    domain: str,
    resolvers: tuple[str, ...],
) -> View:
    """Where a playground's names are answered on one host. records: its networks by id; networks: those here."""
    legs = [network.leg for network in networks.values() if network.leg is not None]
    return View(
        netns=legs[-1].namespace if legs else "",
        listen=tuple(gateway for id in networks for gateway in records[id].gateways),
        origin=origin_of(playground, domain),
        reverse=tuple(subnet for record in records.values() for subnet in record.subnets),
        resolvers=resolvers,
        forward=tuple(subnet for record in records.values() if record.forward for subnet in record.subnets),
        transfer=tuple(prefix for record in records.values() for prefix in record.transfer),
        ttl=NAME_TTL_S,
    )


def records_of(network: NetworkRecord, playground: str, domain: str) -> Records:
    """What a network declares. A target without a last dot is a name of the playground."""
    origin = origin_of(playground, domain)
    found = []
    for one in network.names:
        before, space, target = one.data.rpartition(" ")
        is_inside = one.type != "TXT" and not one.data.endswith(".")
        found.append((one.name, one.type, f"{before}{space}{target}.{origin}." if is_inside else one.data))
    return Records(records=tuple(found))


def services_of(
    port: PortRecord,
    network: NetworkRecord | None,
    playground: str,
    domain: str,
    beside: Beside = NOTHING_BESIDE,
) -> dict[str, Service]:
    """The responder's keys for one port. network: the port's, where the port is on this host; else None."""
    found: dict[str, Service] = {
        name_key(playground, PortId(port.id)): Name(
            workspace=port.workspace, network=port.network, addresses=port.addresses, aliases=port.aliases
        )
    }
    if network is not None:
        found[port_key(PortId(port.id))] = port_scope(port, network, origin_of(playground, domain), beside)
    return found


def port_scope(
    port: PortRecord,
    network: NetworkRecord,
    origin: str,
    beside: Beside = NOTHING_BESIDE,
) -> PortScope:
    """What is answered at one port. Without a router its client has no default route."""
    router = beside.router
    domain = f"{network.name}.{origin}"
    v4: Scope4 | None = None
    prefixes: list[tuple[str, bool]] = []
    rdnss: list[str] = []
    for subnet, gateway in zip(network.subnets, network.gateways, strict=True):
        prefix = ipaddress.ip_network(subnet)
        if prefix.version == 6:
            prefixes.append((subnet, network.ipv6 != "dhcp"))
            rdnss.append(gateway)
            continue
        address = next((a for a in port.addresses if "." in a and ipaddress.ip_address(a) in prefix), None)
        if address is not None and v4 is None:
            v4 = replace(
                _told(network, prefix, gateway, origin, beside),
                address=address,
                lease_s=network.lease_s if port.lease_s is None else port.lease_s,
                hostname=port.workspace,
                options=tuple(sorted((dict(network.options) | dict(port.options)).items())),
                boot=port.boot or network.boot,
            )
    is_leased = bool(prefixes) and network.ipv6 != "slaac"
    v6 = Scope6(
        addresses=_leased6(port, [prefix for prefix, _ in prefixes]),
        source=LEG_LINK_LOCAL,
        lease_s=network.lease_s if port.lease_s is None else port.lease_s,
        dns=tuple(rdnss),
        hostname=port.workspace,
        domain=domain,
        search=(domain, origin),
        options=tuple(sorted((dict(network.options6) | dict(port.options6)).items())),
        boot=port.boot or network.boot,
    )
    ra = (
        ScopeRa(
            source=link_local(router.mac) if router is not None else LEG_LINK_LOCAL,
            source_mac=router.mac if router is not None else "",
            prefixes=tuple(prefixes),
            mtu=network.mtu,
            router_lifetime_s=ROUTER_LIFETIME_S if router is not None else 0,
            rdnss=tuple(rdnss),
            dnssl=(domain, origin),
            managed=is_leased,
            other=is_leased,
        )
        if prefixes
        else None
    )
    allowed = tuple(text for text in port.allowed_addresses if ":" in text)
    told6, giving = v6 if is_leased else None, beside.giving
    pool = None if giving is None or not port.dynamic else _pool(port, network, origin, beside, giving)
    routers = tuple(filter(is_virtual_router, port.allowed_macs))
    return PortScope(port.mac, LEG_MAC, v4, ra, pool, told6, formed=beside.learned, allowed=allowed, routers=routers)


def _routes(
    prefix: ipaddress.IPv4Network | ipaddress.IPv6Network, router: str | None, ways: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """prefix: the client's own subnet; a hop in one of the network's others can be reached, but no client would know by
    itself."""
    hops = dict.fromkeys(([router] if router else []) + [hop for _, hop in ways])
    strange = [hop for hop in hops if ipaddress.ip_address(hop) not in prefix]
    return (*((f"{hop}/32", "0.0.0.0") for hop in strange), *ways)


def _told(network: NetworkRecord, prefix: ipaddress.IPv4Network, gateway: str, origin: str, beside: Beside) -> Scope4:
    """What every client of an IPv4 subnet is told."""
    router = beside.router
    hop = next((a for a in router.addresses if "." in a), None) if router is not None else None
    domain = f"{network.name}.{origin}"
    return Scope4(
        address=gateway,
        prefix_len=prefix.prefixlen,
        server=gateway,
        lease_s=network.lease_s,
        mtu=network.mtu,
        router=hop,
        routes=_routes(prefix, hop, beside.ways),
        dns=(gateway,),
        domain=domain,
        search=(domain, origin),
        ntp=network.ntp,
        options=network.options,
        boot=network.boot,
    )


def _pool(port: PortRecord, network: NetworkRecord, origin: str, beside: Beside, giving: Giving) -> Pool4 | None:
    """What machines behind a port get: each stay on a host has a pool of its own, as another host gave meanwhile."""
    ranges = spans_of(network.dynamic)
    for subnet, gateway in zip(network.subnets, network.gateways, strict=True):
        prefix = ipaddress.ip_network(subnet)
        if prefix.version == 4 and ranges and ipaddress.IPv4Address(ranges[0].first) in prefix:
            blocks = giving.record.blocks if giving.record is not None else ()
            here = (giving.host, giving.stay, False)
            ours = (block for block in blocks if (block.host, block.stay, block.closing) == here)
            return Pool4(
                name=f"{port.id}.{giving.stay}",
                told=_told(network, prefix, gateway, origin, beside),
                ours=within(ours, ranges),
                whole=within(blocks, ranges),
                limit=port.dynamic,
                known=giving.record.leases if giving.record is not None else (),
                per_s=MESSAGES_PER_S,
            )
    return None


def _leased6(port: PortRecord, prefixes: Iterable[str]) -> tuple[str, ...]:
    """What DHCPv6 gives: of each subnet the address that is fixed or from its pools, else the one made of the MAC,
    which the client may form itself."""
    found: list[str] = []
    for prefix in prefixes:
        formed, subnet = slaac_address(prefix, port.mac), ipaddress.IPv6Network(prefix)
        named = [text for text in port.addresses if ":" in text and ipaddress.IPv6Address(text) in subnet]
        found += [text for text in named if text != formed] or [formed]
    return tuple(found)
