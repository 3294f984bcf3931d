"""Pure. What a host's responder answers for one playground: a scope per port here, a view, a name per port anywhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from dhcp.scope import PortScope, Scope4, ScopeRa
from overlay.state import LEG_LINK_LOCAL, LEG_MAC, Network, NetworkId, PortId
from playground.records import NetworkRecord, PortRecord
from playground.responder.protocol import Name, Value, View, name_key, port_key, view_key
from playground.view import Scope

Service = Value

NAME_TTL_S = 5
"""A name's time to live: short, since a workspace may be replaced by another at the same name."""


def derive_services(
    scope: Scope,
    playground: str,
    networks: Mapping[NetworkId, Network],
    domain: str,
    resolvers: tuple[str, ...],
) -> dict[str, Service]:
    """The responder's keys for one playground on one host; nothing where the host has none of its networks."""
    if not networks:
        return {}
    origin = f"{playground}.{domain}"
    services: dict[str, Service] = {}
    listen: list[str] = []
    namespace = ""
    for network_id, network in networks.items():
        record = scope.networks[network_id]
        listen.extend(record.gateways)
        if network.leg is not None:
            namespace = network.leg.namespace
        for port_id in network.ports:
            services[port_key(port_id)] = port_scope(scope.ports[port_id], record, origin)
    services[view_key(playground)] = View(
        netns=namespace,
        listen=tuple(listen),
        origin=origin,
        reverse=tuple(subnet for record in scope.networks.values() for subnet in record.subnets),
        resolvers=resolvers,
        ttl=NAME_TTL_S,
    )
    for port in scope.ports.values():
        services[name_key(playground, PortId(port.id))] = Name(
            workspace=port.workspace, network=port.network, addresses=port.addresses
        )
    return services


def port_scope(port: PortRecord, network: NetworkRecord, origin: str) -> PortScope:
    """What is answered at one port. The router is not offered: nothing routes yet."""
    domain = f"{network.name}.{origin}"
    v4: Scope4 | None = None
    prefixes: list[tuple[str, bool]] = []
    rdnss: list[str] = []
    for subnet, gateway in zip(network.subnets, network.gateways, strict=True):
        prefix = ipaddress.ip_network(subnet)
        if prefix.version == 6:
            prefixes.append((subnet, True))
            rdnss.append(gateway)
            continue
        address = next((a for a in port.addresses if "." in a and ipaddress.ip_address(a) in prefix), None)
        if address is not None and v4 is None:
            v4 = Scope4(
                address=address,
                prefix_len=prefix.prefixlen,
                server=gateway,
                lease_s=network.lease_s,
                mtu=network.mtu,
                dns=(gateway,),
                hostname=port.workspace,
                domain=domain,
                search=(domain, origin),
                ntp=network.ntp,
            )
    ra = (
        ScopeRa(
            source=LEG_LINK_LOCAL,
            prefixes=tuple(prefixes),
            mtu=network.mtu,
            rdnss=tuple(rdnss),
            dnssl=(domain, origin),
        )
        if prefixes
        else None
    )
    return PortScope(mac=port.mac, server_mac=LEG_MAC, v4=v4, ra=ra)
