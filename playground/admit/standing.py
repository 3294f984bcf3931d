"""Pure. Finds the workspaces of a file whose records and claims are what it says already, so that admission looks at
the others only. Decides nothing: what it leaves out would come out of admission as it went in, which tests hold it to.

A workspace that stands costs some 3 µs, one that is admitted 20: an edit of one in a thousand costs little more than
what it changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from overlay.mac import slaac_address
from overlay.pools import Span, address_hex, parse_address, subtract
from playground import records
from playground.admit.assign import Lane, allowed_among, lanes
from playground.admit.gateways import router_of, routers_of
from playground.admit.known import Known
from playground.inventory import ANY
from playground.records import PortRecord, WorkspaceRecord
from playground.spec import NetworkSpec, NicSpec, PlaygroundSpec, SubnetSpec, WorkspaceSpec
from playground.spec.scene import endpoint_labels

REMEMBERED = 65536


@dataclass(slots=True)
class Standing:
    """What need not be looked at. names: of workspaces. keys: claims that their ports have. macs and addresses (but
    those made of MACs): what these ports have, by network name."""

    names: set[str] = field(default_factory=set)
    ports: set[tuple[str, str]] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    macs: dict[str, set[str]] = field(default_factory=dict)
    addresses: dict[str, set[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a network lets a port keep. spans: of its pools, without what is reserved: exclusions, gateways, and
    addresses that the file fixes; None where it has no IPv4. macs: those that the file fixes or a NIC allows.
    withheld6: IPv6 addresses that a NIC allows. lanes6: the same spans of each IPv6 subnet, none without pools."""

    id: str
    spans: tuple[Span, ...] | None
    prefixes: tuple[str, ...]
    gateways: frozenset[str]
    macs: frozenset[str]
    withheld6: tuple[Span, ...]
    lanes6: tuple[tuple[Lane, tuple[Span, ...]], ...]
    ipv6: str

    def gives(self, address: int) -> bool:
        """Whether a port to which the file fixes no address may keep this one."""
        return any(span.first <= address <= span.last for span in self.spans or ())

    @property
    def gives6(self) -> bool:
        """Whether ports get IPv6 addresses that are not made of their MACs."""
        return any(spans for _, spans in self.lanes6)


def standing(spec: PlaygroundSpec, known: Known) -> Standing:
    """The workspaces of `spec` for which nothing is to be claimed, written or deleted."""
    rules, routers = _rules(spec), routers_of(spec)
    found = Standing(macs={name: set() for name in rules}, addresses={name: set() for name in rules})
    for name, workspace in spec.workspaces.items():
        old = known.workspaces.get(name)
        if old is None or not _is_as_declared(old, workspace, known):
            continue
        ports = _kept_ports(old, workspace, spec.name, rules, routers, known)
        if len(ports) == len(workspace.nics):
            found.names.add(name)
            for port, keys, addresses in ports:
                network = port.network
                found.ports.add((name, network))
                found.keys.update(keys)
                found.macs[network].add(port.mac)
                found.addresses[network].update(addresses)
    return Standing() if _is_contested(found, known) else found


def _is_contested(found: Standing, known: Known) -> bool:
    """Whether a port that does not stand has by its record what one that stands has by its claim: a change was broken
    off between the two, and who keeps it follows from the file's order."""
    return any(
        port.mac in found.macs.get(port.network, ())
        or any(parse_address(text)[1] in found.addresses.get(port.network, ()) for text in port.addresses)
        for identity, port in known.ports.items()
        if identity not in found.ports
    )


def rest(spec: PlaygroundSpec, known: Known, found: Standing) -> tuple[PlaygroundSpec, Known]:
    """What admission has to look at: all but what stands."""
    return (
        replace(spec, workspaces={n: w for n, w in spec.workspaces.items() if n not in found.names}),
        replace(
            known,
            workspaces={name: old for name, old in known.workspaces.items() if name not in found.names},
            ports={identity: port for identity, port in known.ports.items() if identity not in found.ports},
            claims={key: claim for key, claim in known.claims.items() if key not in found.keys},
        ),
    )


def _is_as_declared(old: WorkspaceRecord, workspace: WorkspaceSpec, known: Known) -> bool:
    host = workspace.host
    if isinstance(host, str):
        if known.hosts and host not in known.hosts:
            return False  # to be refused
        pin: str | None = host
    else:
        pin = None if host is None else host.text
    return (
        old.driver == workspace.driver
        and old.pin == pin
        and (old.overridden is None or old.overridden == pin)
        and old.labels == workspace.labels
        and old.cpus == workspace.cpus
        and old.memory_mib == workspace.memory_mib
        and old.machine == workspace.machine
        and old.requires == workspace.requires
        and (old.neighbours or ANY) == workspace.neighbours
        and old.grace_s == workspace.grace_s
        and len(old.ports) == len(workspace.nics)
    )


Kept = tuple[PortRecord, tuple[str, ...], tuple[int, ...]]
"""A port that may stay as it is, the keys of its claims, and its addresses that are not made of its MAC."""


def _kept_ports(
    old: WorkspaceRecord,
    workspace: WorkspaceSpec,
    playground: str,
    rules: Mapping[str, _Rules],
    routers: Mapping[str, str],
    known: Known,
) -> list[Kept]:
    """The ports of a workspace up to the first of which something is to be another."""
    name, claims = old.name, known.claims
    found: list[Kept] = []
    for index, nic in enumerate(workspace.nics):
        network = nic.network
        port = known.ports.get((name, network))
        if port is None or port.index != index or port.labels != endpoint_labels(playground, workspace, nic):
            break
        if port.router != router_of(index, workspace.nics, routers, name) or port.aliases != nic.aliases:
            break
        said = nic.delivery
        if (port.lease_s, port.options, port.options6, port.boot) != (
            said.lease_s,
            said.options,
            said.options6,
            said.boot,
        ):
            break
        allows = (nic.allowed_addresses, nic.allowed_macs, nic.leads)
        if (port.allowed_addresses, port.allowed_macs, port.leads) != allows:
            break
        if port.dynamic != nic.dynamic:
            break
        id, rule, mac, texts = port.id, rules[network], port.mac, port.addresses
        if id != old.ports[index] or id != records.port_id(playground, name, network) or port.network_id != rule.id:
            break
        if mac in rule.macs if nic.mac is None else mac != nic.mac:
            break
        keys, address, formed = _facts(rule.id, mac, texts)
        if (address is None) != (rule.spans is None):
            break
        if address is not None and (address != nic.address if nic.address is not None else not rule.gives(address)):
            break
        made = _formed(rule.prefixes, mac)
        given: tuple[int, ...] = () if address is None else (address,)
        if made and not rule.gateways.isdisjoint(made):
            break
        if rule.withheld6 and allowed_among(rule.withheld6, made) is not None:
            break
        if rule.gives6 or nic.addresses6:
            sixes = _given6(rule, nic, mac, formed)
            if sixes is None:
                break
            given += sixes
        elif formed != made:
            break
        for key in keys:
            claim = claims.get(key)
            if claim is None or claim.owner != id:
                return found
        found.append((port, keys, given))
    return found


def _given6(rule: _Rules, nic: NicSpec, mac: str, texts: tuple[str, ...]) -> tuple[int, ...] | None:
    """Of a port's IPv6 addresses those that are not made of its MAC, or None where they are to be others."""
    given: list[int] = []
    wanted: list[str] = []
    named = [parse_address(text)[1] for text in texts]
    for lane, spans in rule.lanes6:
        address = lane.fixed(nic)
        if address is None and spans:
            address = next((one for one in named if any(one in span for span in spans)), None)
            if address is None:
                return None
        if address is not None:
            given.append(address)
        wanted += lane.texts(address, mac, rule.ipv6)
    return tuple(given) if tuple(wanted) == texts else None


def _rules(spec: PlaygroundSpec) -> dict[str, _Rules]:
    fixed: dict[str, set[int]] = {name: set() for name in spec.networks}
    macs: dict[str, set[str]] = {name: set() for name in spec.networks}
    for workspace in spec.workspaces.values():
        if workspace.index is None:  # an instance of a scaled one has nothing fixed
            for nic in workspace.nics:
                if nic.address is not None:
                    fixed[nic.network].add(nic.address)
                fixed[nic.network].update(nic.addresses6)
                if nic.mac is not None:
                    macs[nic.network].add(nic.mac)
    return {
        name: _Rules(
            records.network_id(spec.name, name),
            _spans4(network, fixed[name]),
            tuple(subnet.text for subnet in network.subnets if subnet.version == 6),
            frozenset(subnet.gateway_text for subnet in network.subnets),
            frozenset(macs[name]) | network.withheld_macs,
            network.withheld6,
            tuple((lane, _spans(network, lane.subnets, fixed[name])) for lane in lanes(network) if lane.version == 6),
            network.ipv6,
        )
        for name, network in spec.networks.items()
    }


def _spans4(network: NetworkSpec, fixed: Iterable[int]) -> tuple[Span, ...] | None:
    subnets = [subnet for subnet in network.subnets if subnet.version == 4]
    return _spans(network, subnets, fixed) if subnets else None


def _spans(network: NetworkSpec, subnets: Sequence[SubnetSpec], fixed: Iterable[int]) -> tuple[Span, ...]:
    """What the pools of these subnets give."""
    reserved = [*fixed, *(subnet.gateway for subnet in subnets)]
    holes = [*network.exclude, *network.withheld6, *(Span(address, address) for address in reserved)]
    return subtract([pool.span for subnet in subnets for pool in subnet.pools], holes)


@functools.lru_cache(maxsize=REMEMBERED)
def _formed(prefixes: tuple[str, ...], mac: str) -> tuple[str, ...]:
    """The addresses that a client with this MAC forms."""
    return tuple(slaac_address(prefix, mac) for prefix in prefixes)


@functools.lru_cache(maxsize=REMEMBERED)
def _facts(network: str, mac: str, addresses: tuple[str, ...]) -> tuple[tuple[str, ...], int | None, tuple[str, ...]]:
    """Of a port: keys of the claims that it needs, its IPv4 address, and what follows that."""
    parsed = [parse_address(text) for text in addresses]
    keys = (records.address_claim(network, address_hex(*one)) for one in parsed)
    has_v4 = bool(parsed) and parsed[0][0] == 4
    return (records.mac_claim(network, mac), *keys), parsed[0][1] if has_v4 else None, addresses[has_v4:]
