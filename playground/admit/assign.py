"""Pure. Gives networks their VNI, ports their MAC and addresses: what is fixed, what they had, or the lowest free.

Knows claims only as what is taken; creates none. The order of preference makes the answer a function of the file and of
what stands, however often and from wherever in a change it is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from overlay.mac import derived_mac, slaac_address
from overlay.pools import Pool, Span, address_text, parse_address
from playground.records import ClaimRecord, PortRecord
from playground.spec import NetworkSpec, NicSpec, Problem, WorkspaceSpec

FIRST_VNI = 4096
"""Lower ones are left to people: many fabrics map VLAN ids to VNIs."""

LAST_VNI = (1 << 24) - 1
"""A VNI has 24 bits (RFC 7348 §5)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port that the file wants. before: its record, if it has one."""

    id: str
    workspace: WorkspaceSpec
    nic: NicSpec
    before: PortRecord | None


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a port gets. addresses: plain, IPv4 first, then one of each IPv6 subnet in the file's order."""

    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Who claims what in one network: owners by MAC and by IPv4 address. Of ports that keep what they have, and are not
    asked about: kept_macs, and kept_addresses as spans."""

    macs: dict[str, str] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)
    kept_macs: frozenset[str] = frozenset()
    kept_addresses: tuple[Span, ...] = ()


def held_by_network(claims: Mapping[str, ClaimRecord]) -> dict[str, Held]:
    """From a playground's claims by key, by network id."""
    held: dict[str, Held] = defaultdict(Held)
    for key, claim in claims.items():
        match key.split("/"):
            case ["claim", "mac", network, digits]:
                held[network].macs[":".join(digits[at : at + 2] for at in range(0, 12, 2))] = claim.owner
            case ["claim", "addr", network, digits] if len(digits) == 8:
                held[network].addresses[int(digits, 16)] = claim.owner
            case _:
                pass
    return held


def keeping(held: Held, macs: Collection[str], addresses: Collection[int]) -> Held:
    """The same beside ports that keep these MACs and IPv4 addresses."""
    spans: list[Span] = []
    first = last = -2
    for address in sorted(addresses):
        if address != last + 1:
            if last >= 0:
                spans.append(Span(first, last))
            first = address
        last = address
    if last >= 0:
        spans.append(Span(first, last))
    return replace(held, kept_macs=frozenset(macs), kept_addresses=tuple(spans))


def assign_vni(network_id: str, known: int | None, claims: Mapping[str, ClaimRecord], taken: set[int]) -> int | None:
    """A network's VNI: what it has, what it has claimed, or the lowest not `taken`; None when none is left."""
    if known is not None:
        return known
    for key, claim in claims.items():
        if key.startswith("claim/vni/") and claim.owner == network_id:
            return int(key.rpartition("/")[2])
    return next((vni for vni in range(FIRST_VNI, LAST_VNI + 1) if vni not in taken), None)


def assign_ports(
    network: NetworkSpec, ports: Sequence[Wanted], held: Held, problems: list[Problem]
) -> dict[str, Assigned]:
    """MAC and addresses of every port of a network, by port id. What can't be given is added to `problems`.

    ports: all that the file wants on this network, in its order.
    """
    macs = _macs(network, ports, held, problems)
    addresses = _addresses(network, ports, held, problems)
    assigned: dict[str, Assigned] = {}
    for port in ports:
        mac, v4 = macs.get(port.id), addresses.get(port.id)
        if mac is not None:
            texts = () if v4 is None else (address_text(4, v4),)
            assigned[port.id] = Assigned(mac, (*texts, *_stateless(network, mac)))
    return assigned


def allowed_among(withheld: Iterable[Span], addresses: Iterable[str]) -> str | None:
    """The first of some IPv6 addresses that lies in one of these spans."""
    return next((text for text in addresses if any(parse_address(text)[1] in span for span in withheld)), None)


def _stateless(network: NetworkSpec, mac: str) -> Iterator[str]:
    for subnet in network.subnets:
        if subnet.version == 6:
            yield slaac_address(subnet.text, mac)


def _withheld(network: NetworkSpec, mac: str) -> str | None:
    """An address that a port with this MAC would form, and that a NIC allows."""
    return allowed_among(network.withheld6, _stateless(network, mac)) if network.withheld6 else None


def _macs(network: NetworkSpec, ports: Sequence[Wanted], held: Held, problems: list[Problem]) -> dict[str, str]:
    gateways = {subnet.gateway_text for subnet in network.subnets}
    macs = {port.id: port.nic.mac for port in ports if port.nic.mac is not None}
    for port in ports:
        if port.nic.mac is not None and (clash := gateways.intersection(_stateless(network, port.nic.mac))):
            message = (
                f"{port.nic.mac} makes the address {min(clash)}, which is the gateway's; choose another MAC or gateway"
            )
            problems.append(Problem.at(port.nic.place, message))
        elif port.nic.mac is not None and (clash6 := _withheld(network, port.nic.mac)) is not None:
            message = f"{port.nic.mac} makes the address {clash6}, which a NIC of {network.name} allows; choose another"
            problems.append(Problem.at(port.nic.place, message))
    taken = {*held.kept_macs, *network.withheld_macs, *macs.values()}
    for port in ports:
        had = port.before.mac if port.before else None
        if (
            port.id not in macs
            and had is not None
            and had not in taken
            and not gateways & set(_stateless(network, had))
            and _withheld(network, had) is None
        ):
            macs[port.id] = had
            taken.add(had)
    for port in ports:
        attempt = 0
        while port.id not in macs:
            mac = derived_mac(port.id, attempt)
            is_ours = held.macs.get(mac, port.id) == port.id and _withheld(network, mac) is None
            if is_ours and mac not in taken and not gateways.intersection(_stateless(network, mac)):
                macs[port.id] = mac
                taken.add(mac)
            attempt += 1
    return macs


def _addresses(network: NetworkSpec, ports: Sequence[Wanted], held: Held, problems: list[Problem]) -> dict[str, int]:
    """IPv4 addresses by port id; a network without an IPv4 subnet gives none."""
    fixed = {port.id: port.nic.address for port in ports if port.nic.address is not None}
    pools = [
        Pool([pool.span], [*network.exclude, *held.kept_addresses])
        for subnet in network.subnets
        if subnet.version == 4
        for pool in subnet.pools
    ]
    if not any(subnet.version == 4 for subnet in network.subnets):
        return {}
    gateways = {subnet.gateway for subnet in network.subnets if subnet.version == 4}
    for address in (*fixed.values(), *gateways):
        _take(pools, address)
    addresses = dict(fixed)
    for port in ports:
        if port.id not in addresses and (had := _v4(port.before)) is not None and _take(pools, had):
            addresses[port.id] = had
    claimed: dict[str, list[int]] = defaultdict(list)
    for address, owner in sorted(held.addresses.items()):
        claimed[owner].append(address)
    for port in ports:
        if port.id not in addresses:
            had = next((address for address in claimed[port.id] if _take(pools, address)), None)
            if had is not None:
                addresses[port.id] = had
    waiting = [port for port in ports if port.id not in addresses]
    if waiting:
        # what another port has claimed and no longer needs may still be in use on its host: take it last
        reserve = [address for address in held.addresses if _take(pools, address)]
        unserved = _serve(pools, waiting, addresses)
        for address in reserve:
            _release(pools, address)
        if unserved := _serve(pools, unserved, addresses):
            problems.append(_exhausted(network, ports, unserved, pools))
    return addresses


def _serve(pools: Sequence[Pool], waiting: Sequence[Wanted], addresses: dict[str, int]) -> list[Wanted]:
    """Gives each port the lowest free address of the first pool that has one; returns those that got none."""
    unserved: list[Wanted] = []
    for port in waiting:
        address = next((found for pool in pools if (found := pool.allocate()) is not None), None)
        if address is None:
            unserved.append(port)
        else:
            addresses[port.id] = address
    return unserved


def _take(pools: Sequence[Pool], address: int) -> bool:
    return any(pool.take(address) for pool in pools)


def _release(pools: Sequence[Pool], address: int) -> bool:
    return any(pool.release(address) for pool in pools)


def _v4(record: PortRecord | None) -> int | None:
    for text in record.addresses if record else ():
        version, address = parse_address(text)
        if version == 4:
            return address
    return None


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _exhausted(
    network: NetworkSpec, ports: Sequence[Wanted], unserved: Sequence[Wanted], pools: Sequence[Pool]
) -> Problem:
    size = sum(pool.size for pool in pools)
    names = ", ".join(port.workspace.name for port in unserved[:3])
    more = f" and {len(unserved) - 3} more" if len(unserved) > 3 else ""
    lines = sorted({pool.place.line for subnet in network.subnets for pool in subnet.pools})
    where = f" (line {', '.join(map(str, lines))})" if lines else ""
    get = "gets" if len(unserved) == 1 else "get"
    return Problem.at(
        unserved[0].nic.place,
        f"the pools of networks.{network.name}{where} are exhausted: {_counted(size, 'address', 'addresses')} without "
        f"exclusions, {_counted(len(ports), 'port', 'ports')}; {names}{more} {get} none; add or widen a pool",
    )
