"""Pure. Gives networks their VNI, ports their MAC and addresses: what is fixed, what they had, or the lowest free.

Knows claims only as what is taken; creates none. The order of preference makes the answer a function of the file and of
what stands, however often and from wherever in a change it is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from overlay.mac import derived_mac, slaac_address
from overlay.pools import Pool, Span, Version, address_text, parse_address
from playground.records import ClaimRecord, PortRecord
from playground.spec import NetworkSpec, NicSpec, Problem, SubnetSpec, WorkspaceSpec

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
    """What a port gets. addresses: plain, IPv4 first, then of each IPv6 subnet in the file's order the one that is
    fixed or from its pools, and the one that follows from the MAC: both where both may be had, else the first that is
    there."""

    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Who claims what in one network: owners by MAC and by address (of either family: no integer is both). Of ports
    that keep what they have, and are not asked about: kept_macs, and kept_addresses as spans."""

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
            case ["claim", "addr", network, digits]:
                held[network].addresses[int(digits, 16)] = claim.owner
            case _:
                pass
    return held


def keeping(held: Held, macs: Collection[str], addresses: Collection[int]) -> Held:
    """The same beside ports that keep these MACs and addresses."""
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
    given = [(lane, _addresses(network, lane, ports, held, problems)) for lane in lanes(network)]
    assigned: dict[str, Assigned] = {}
    for port in ports:
        mac = macs.get(port.id)
        if mac is not None:
            texts: list[str] = []
            for lane, addresses in given:
                texts += lane.texts(addresses.get(port.id), mac, network.ipv6)
            assigned[port.id] = Assigned(mac, tuple(texts))
    return assigned


@dataclass(frozen=True, slots=True)
class Lane:
    """Subnets of which a port gets one address: those of IPv4 together, and each of IPv6 by itself."""

    subnets: tuple[SubnetSpec, ...]

    @property
    def version(self) -> Version:
        """Of all of them."""
        return self.subnets[0].version

    def fixed(self, nic: NicSpec) -> int | None:
        """The address that the file fixes for a NIC."""
        if self.version == 4:
            return nic.address
        return next((address for address in nic.addresses6 if address in self.subnets[0].span), None)

    def texts(self, address: int | None, mac: str, ipv6: str) -> tuple[str, ...]:
        """All addresses of a port that got this one."""
        own = () if address is None else (address_text(self.version, address),)
        if self.version == 4 or (own and ipv6 == "dhcp"):
            return own
        return (*own, slaac_address(self.subnets[0].text, mac))


def lanes(network: NetworkSpec) -> tuple[Lane, ...]:
    """In the order of a port's addresses."""
    old = tuple(subnet for subnet in network.subnets if subnet.version == 4)
    return (*((Lane(old),) if old else ()), *(Lane((one,)) for one in network.subnets if one.version == 6))


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


def _addresses(
    network: NetworkSpec, lane: Lane, ports: Sequence[Wanted], held: Held, problems: list[Problem]
) -> dict[str, int]:
    """Addresses of a lane by port id; an IPv6 subnet without pools gives none but those that are fixed."""
    fixed = {port.id: address for port in ports if (address := lane.fixed(port.nic)) is not None}
    holes = [*network.exclude, *network.withheld6, *held.kept_addresses]
    pools = [Pool([pool.span], holes) for subnet in lane.subnets for pool in subnet.pools]
    if not pools and lane.version == 6:
        return fixed
    gateways = {subnet.gateway for subnet in lane.subnets}
    for address in (*fixed.values(), *gateways):
        _take(pools, address)
    addresses = dict(fixed)
    for port in ports:
        if port.id not in addresses:
            had = next((address for address in _had(port.before) if _take(pools, address)), None)
            if had is not None:
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
            problems.append(_exhausted(network, lane, ports, unserved, pools))
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


def _had(record: PortRecord | None) -> Iterator[int]:
    return (parse_address(text)[1] for text in (record.addresses if record else ()))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _exhausted(
    network: NetworkSpec, lane: Lane, ports: Sequence[Wanted], unserved: Sequence[Wanted], pools: Sequence[Pool]
) -> Problem:
    size = sum(pool.size for pool in pools)
    names = ", ".join(port.workspace.name for port in unserved[:3])
    more = f" and {len(unserved) - 3} more" if len(unserved) > 3 else ""
    lines = sorted({pool.place.line for subnet in lane.subnets for pool in subnet.pools})
    where = f" (line {', '.join(map(str, lines))})" if lines else ""
    get = "gets" if len(unserved) == 1 else "get"
    return Problem.at(
        unserved[0].nic.place,
        f"the pools of networks.{network.name}{where} are exhausted: {_counted(size, 'address', 'addresses')} without "
        f"exclusions, {_counted(len(ports), 'port', 'ports')}; {names}{more} {get} none; add or widen a pool",
    )
