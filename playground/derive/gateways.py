"""Pure. The gateways that a host carries, and the routers that clients are told of; knows nothing of netlink."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from overlay.gateways import NAME_PART, Gateway, GatewayLeg
from overlay.mac import link_local
from overlay.state import PortId
from playground.gateways import DRIVER, gateway_name, workspace_name
from playground.records import PortRecord, port_id
from playground.view import Scope, View, playground_scope


@dataclass(frozen=True, slots=True)
class Carried:
    """A gateway that a host is to carry. generation: of its placing, so that what is said of an earlier one is dropped.

    gateway: None while its records are not all here. ports: the ids of its legs.
    """

    id: str
    playground: str
    name: str
    generation: int
    ports: tuple[str, ...]
    gateway: Gateway | None


@dataclass(frozen=True, slots=True)
class Router:
    """Who leads to the world on a network: the gateway's leg there."""

    mac: str
    addresses: tuple[str, ...]


def carried(view: View, host: str, dataplane: str) -> dict[str, Carried]:
    """Every gateway that `host` is to carry, by id."""
    found = (carried_of(view, host, dataplane, one.playground, one.name) for one in view.workspaces(host))
    return {one.id: one for one in found if one is not None}


def carried_of(view: View, host: str, dataplane: str, playground: str, name: str) -> Carried | None:
    """One of them, by the name of its records; None where it is none of this host's gateways."""
    record = view.workspace(host, playground, name)
    gateway = gateway_name(name)
    if record is None or gateway is None or record.driver != DRIVER or record.host != host:
        return None
    scope = view.scopes.get(playground_scope(playground))
    made: Gateway | None = None
    if scope is not None and all(_is_here(scope, port, host) for port in record.ports):
        made = Gateway(
            id=record.id,
            namespace=f"{dataplane}-{playground}{NAME_PART}{gateway}",
            legs=tuple(_leg(scope, scope.ports[port]) for port in record.ports),
            owned=owned_prefixes(scope),
            closed=tuple(sorted(one.underlay for one in view.hosts().values())),
        )
    return Carried(record.id, playground, name, record.generation, record.ports, made)


def owned_prefixes(scope: Scope) -> tuple[str, ...]:
    """All that a playground's networks own: no part of the world as that playground sees it."""
    return tuple(sorted({subnet for network in scope.networks.values() for subnet in network.subnets}))


def router_of(scope: Scope, port: PortRecord) -> Router | None:
    """The router that a port's client is told of."""
    if not port.router:
        return None
    leg = scope.ports.get(port_id(port.playground, workspace_name(port.router), port.network))
    return Router(leg.mac, leg.addresses) if leg is not None else None


def _is_here(scope: Scope, port: str, host: str) -> bool:
    """Whether a leg's records are all here, and it is bound to this host."""
    record, binding = scope.ports.get(port), scope.bindings.get(port)
    return record is not None and binding is not None and binding.active == host and record.network_id in scope.networks


def _leg(scope: Scope, port: PortRecord) -> GatewayLeg:
    network = scope.networks[port.network_id]
    prefixes = [ip_network(subnet) for subnet in network.subnets]
    addresses, others = [f"{link_local(port.mac)}/64"], set(prefixes)
    for text in port.addresses:
        prefix = next((one for one in prefixes if ip_address(text) in one), None)
        others.discard(prefix)
        addresses.append(f"{text}/{prefix.prefixlen if prefix is not None else ip_address(text).max_prefixlen}")
    return GatewayLeg(PortId(port.id), port.mac, network.mtu, tuple(addresses), tuple(sorted(map(str, others))))
