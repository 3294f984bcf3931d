"""Pure. Turns one playground's ports and bindings into the networks of one host; knows nothing of netlink or guests.

Each port with its binding says a few things of its network (`Entry`); a network is all that its entries say. What one
port says depends on no other, so a network can be patched where a port has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from overlay.mac import is_virtual_router
from overlay.state import Gate, Leg, LocalPort, Network, NetworkId, PortId, RemotePort
from playground.gateways import gateway_name
from playground.records import BindingRecord, NetworkRecord, PortRecord, workspace_id


@dataclass(frozen=True, slots=True)
class Place:
    """Where entries are made for. vteps: host → underlay address. arrived: ids of workspaces that already go by this
    host. adopted: ids of ports whose devices are somebody else's. namespace: of the playground's services here."""

    host: str
    vteps: Mapping[str, str]
    arrived: Set[str]
    adopted: Set[str]
    namespace: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What one bound port says of its network, on one host. hosts: those that carry it, will, or have just done.
    also: MACs that lead to it beside its own. is_router: it may have a virtual router's, as others of its network may.
    """

    network: NetworkId
    mac: str
    hosts: frozenset[str]
    port: LocalPort | None = None
    remote: RemotePort | None = None
    chase: str | None = None
    also: tuple[str, ...] = ()
    is_router: bool = False

    @property
    def chased(self) -> dict[str, str]:
        """MAC → VTEP."""
        return dict.fromkeys((self.mac, *self.also), self.chase) if self.chase is not None else {}


def entry_of(port: PortRecord, binding: BindingRecord, place: Place) -> Entry:
    """What a port says of its network on one host."""
    host = place.host
    moving = binding.target is not None
    is_here = moving and workspace_id(port.playground, port.workspace) in place.arrived
    lands, is_copied = binding.phase == "landing", binding.copied and binding.phase == "copying"
    if lands and host == binding.source:
        carries, active = is_here, binding.target or ""
    else:
        carries = binding.active == host or (binding.target == host and (is_here or lands))
        active = binding.active
    prepares = moving and host in (binding.source, binding.target)
    is_router = gateway_name(port.workspace) is not None
    local, remote = None, None
    addresses = (*port.addresses, *binding.learned)
    also = tuple(mac for mac in port.allowed_macs if not is_virtual_router(mac) or mac in binding.routers)
    if carries or prepares:
        gate = Gate.OPEN if carries else Gate.CLOSED
        is_adopted = port.id in place.adopted
        announces = bool(port.allowed_addresses or port.allowed_macs)
        local = LocalPort(PortId(port.id), port.mac, addresses, gate, is_adopted, is_router, also, announces)
    vtep = place.vteps.get(active) if not carries else None
    if vtep is not None:
        remote = RemotePort(port.mac, addresses, vtep, is_router, also)
    return Entry(
        network=NetworkId(port.network_id),
        mac=port.mac,
        hosts=frozenset(h for h in (binding.active, binding.source, binding.target) if h is not None),
        port=local,
        remote=remote,
        # while a hypervisor copies it, the target sends nothing back: what its source sends on would run in circles
        chase=vtep if prepares and not (is_copied and host == binding.target) else None,
        also=also,
        is_router=any(map(is_virtual_router, port.allowed_macs)),
    )


@dataclass(slots=True)
class Members:
    """A network as its entries make it, and what it takes to patch it: how many entries name each host."""

    network: Network
    hosts: Counter[str] = field(default_factory=Counter)

    def patched(self, gone: Iterable[Entry], come: Mapping[str, Entry], place: Place) -> Members | None:
        """The network with some entries in place of others (one port's are in both). None when two of its entries have
        one MAC: then only the whole tells which counts."""
        ports, remotes = dict(self.network.ports), dict(self.network.remotes)
        chase, hosts = dict(self.network.chase), self.hosts.copy()
        for entry in gone:
            hosts.subtract(entry.hosts)
            if entry.port is not None:
                del ports[entry.port.id]
            if entry.remote is not None:
                del remotes[entry.mac]
            for mac in entry.chased:
                del chase[mac]
        for entry in come.values():
            if entry.mac in remotes and entry.remote is not None:
                return None
            _say(entry, ports, remotes, chase, hosts)
        hosts += Counter()  # without those that nothing names any more
        vteps = self.network.vteps
        if hosts.keys() != self.hosts.keys():
            vteps = _vteps(hosts, place)
        return Members(replace(self.network, ports=ports, remotes=remotes, chase=chase, vteps=vteps), hosts)


def members_of(record: NetworkRecord, entries: Iterable[Entry], place: Place) -> Members:
    """A network from nothing but its record and its entries."""
    ports: dict[PortId, LocalPort] = {}
    remotes: dict[str, RemotePort] = {}
    chase: dict[str, str] = {}
    hosts: Counter[str] = Counter()
    for entry in entries:
        _say(entry, ports, remotes, chase, hosts)
    legs = tuple(
        f"{gateway}/{subnet.rpartition('/')[2]}"
        for gateway, subnet in zip(record.gateways, record.subnets, strict=True)
    )
    network = Network(
        id=NetworkId(record.id),
        vni=record.vni,
        mtu=record.mtu,
        ports=ports,
        remotes=remotes,
        vteps=_vteps(hosts, place),
        leg=Leg(place.namespace, legs),
        chase=chase,
    )
    return Members(network, hosts)


def _say(
    entry: Entry,
    ports: dict[PortId, LocalPort],
    remotes: dict[str, RemotePort],
    chase: dict[str, str],
    hosts: Counter[str],
) -> None:
    hosts.update(entry.hosts)
    if entry.port is not None:
        ports[entry.port.id] = entry.port
    if entry.remote is not None:
        remotes[entry.mac] = entry.remote
    chase.update(entry.chased)


def _vteps(hosts: Iterable[str], place: Place) -> frozenset[str]:
    return frozenset(place.vteps[host] for host in hosts if host != place.host and host in place.vteps)
