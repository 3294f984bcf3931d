"""Pure. Turns one playground's ports and bindings into the networks of one host; knows nothing of netlink or guests."""

from __future__ import annotations

from collections.abc import Mapping

from overlay.state import Gate, Leg, LocalPort, Network, NetworkId, PortId, RemotePort
from playground.records import BindingRecord, NetworkRecord, PortRecord, workspace_id
from playground.view import Scope


def derive_networks(
    scope: Scope,
    host: str,
    vteps: Mapping[str, str],
    arrived: frozenset[str],
    adopted: frozenset[str],
    namespace: str,
) -> dict[NetworkId, Network]:
    """The networks of one playground that `host` has a port of.

    vteps: host → underlay address. arrived: ids of workspaces that already go by this host. adopted: ids of ports whose
    devices are somebody else's. namespace: of the playground's services on this host.
    """
    carried: dict[str, list[tuple[PortRecord, BindingRecord]]] = {}
    here: set[str] = set()
    for binding in scope.bindings.values():
        port = scope.ports.get(binding.port)
        if port is None or port.network_id not in scope.networks:
            continue
        carried.setdefault(port.network_id, []).append((port, binding))
        if host in (binding.active, binding.source, binding.target):
            here.add(port.network_id)
    return {
        NetworkId(network): _network(
            scope.networks[network], carried[network], host, vteps, arrived, adopted, namespace
        )
        for network in sorted(here)
    }


def _network(
    record: NetworkRecord,
    carried: list[tuple[PortRecord, BindingRecord]],
    host: str,
    vteps: Mapping[str, str],
    arrived: frozenset[str],
    adopted: frozenset[str],
    namespace: str,
) -> Network:
    ports: dict[PortId, LocalPort] = {}
    remotes: dict[str, RemotePort] = {}
    chase: dict[str, str] = {}
    members: set[str] = set()
    for port, binding in carried:
        members.update(h for h in (binding.active, binding.source, binding.target) if h is not None)
        moving = binding.target is not None
        is_arrived = moving and binding.target == host and workspace_id(port.playground, port.workspace) in arrived
        carries = binding.active == host or is_arrived
        prepares = moving and host in (binding.source, binding.target)
        if carries or prepares:
            gate = Gate.OPEN if carries else Gate.CLOSED
            port_id = PortId(port.id)
            ports[port_id] = LocalPort(port_id, port.mac, port.addresses, gate, adopt=port.id in adopted)
        if not carries and (vtep := vteps.get(binding.active)) is not None:
            remotes[port.mac] = RemotePort(port.mac, port.addresses, vtep)
            if prepares:
                chase[port.mac] = vtep
    legs = tuple(
        f"{gateway}/{subnet.rpartition('/')[2]}"
        for gateway, subnet in zip(record.gateways, record.subnets, strict=True)
    )
    return Network(
        id=NetworkId(record.id),
        vni=record.vni,
        mtu=record.mtu,
        ports=ports,
        remotes=remotes,
        vteps=frozenset(vteps[m] for m in members if m != host and m in vteps),
        leg=Leg(namespace, legs),
        chase=chase,
    )
