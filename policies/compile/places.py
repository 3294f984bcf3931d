"""Pure. Who has which address on a host, as elements of the tables' maps, and rules for whole blocks of addresses.

Knows what judges an end by its name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from policies.compile.judges import Judges, span_text
from policies.compile.marks import unjudged
from policies.compile.numbers import NO_END, SERVICES_NUMBER, EndNumbers
from policies.model import BlockPeer, Direction
from policies.world import Span, spans_of

DIRECTIONS = {Direction.EGRESS: ("e", "egress"), Direction.INGRESS: ("i", "ingress")}
FAMILIES = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class PolicedNetwork:
    """A network of the playground that this host has. services: addresses of its service leg, link-local too; subnets:
    as CIDRs. zone: of connection tracking, its own on this host."""

    name: str
    bridge: str
    zone: int
    services: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicedEnd:
    """A port, on whichever host it is. addresses: all that it may use, link-local too; or blocks of them, as CIDRs."""

    workspace: str
    network: str
    addresses: tuple[str, ...]
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class PolicedGateway:
    """A gateway's port on a network, with its own addresses there."""

    name: str
    network: str
    addresses: tuple[str, ...]


def host_elements(
    id: str,
    numbers: EndNumbers,
    bridges: Mapping[str, PolicedNetwork],
    ends: tuple[PolicedEnd, ...],
    gateways: tuple[PolicedGateway, ...],
) -> dict[str, dict[str, str]]:
    """Who is who, on which bridge. id: of the playground."""
    found: dict[str, dict[str, str]] = {}
    for network in bridges.values():
        device = f'"{network.bridge}"'
        found.setdefault("zones", {})[device] = str(network.zone)
        found.setdefault("marked", {})[str(unjudged(network.zone))] = str(network.zone)
        found.setdefault("policed", {})[device] = f"goto p_{id}"
        for address in network.services:
            _put(found, "ends", network, address, str(SERVICES_NUMBER))
        for subnet in map(ip_network, network.subnets):
            if isinstance(subnet, IPv4Network) and subnet.prefixlen < 31:
                found.setdefault("broadcasts", {})[f"{device} . {subnet.broadcast_address}"] = ""
    for gateway in gateways:
        if gateway.network in bridges and (end := numbers.gateways.get(gateway.name)) is not None:
            for address in gateway.addresses:
                _put(found, "ends", bridges[gateway.network], address, str(numbers.numbers[end]))
    for one in ends:
        if one.network in bridges:
            number = str(numbers.numbers[numbers.members[one.workspace, one.network]])
            for address in one.addresses:
                _put(found, "ends", bridges[one.network], address, number, shared=str(NO_END))
    return found


def jumps(
    bridges: Mapping[str, PolicedNetwork],
    ends: tuple[PolicedEnd, ...],
    numbers: EndNumbers,
    entries: Mapping[tuple[Direction, int], Judges],
) -> dict[str, dict[str, str]]:
    """Who is judged by what, of those that are local."""
    elements: dict[str, dict[str, str]] = {}
    for one in ends:
        if not one.is_local or one.network not in bridges:
            continue
        end = numbers.members[one.workspace, one.network]
        for direction, (_, side) in DIRECTIONS.items():
            judges = entries.get((direction, end))
            if judges is None or not judges.entry:
                continue
            for address in one.addresses:
                _put(elements, side, bridges[one.network], address, f"jump {judges.entry}", shared="drop")
                if judges.backwards:
                    verdict = f"jump {judges.backwards}"
                    _put(elements, f"back_{side}", bridges[one.network], address, verdict, shared="drop")
                if direction is Direction.EGRESS and judges.is_closed:
                    _put(elements, "silent", bridges[one.network], address, "")
    return elements


def _put(
    elements: dict[str, dict[str, str]], name: str, network: PolicedNetwork, address: str, value: str, shared: str = ""
) -> None:
    """Blocks are left out; see Blocks. shared: the value of an address that several ends have, where theirs differ."""
    family, one = _canonical(address)
    if one:
        found = elements.setdefault(f"{name}_{family}", {})
        key = f'"{network.bridge}" . {one}'
        found[key] = value if found.get(key, value) == value else shared


@lru_cache(1 << 16)
def _canonical(address: str) -> tuple[str, str]:
    """(family, text as nft lists it), the text "" of a block."""
    one = ip_network(address)
    return FAMILIES[one.version], str(one.network_address) if one.prefixlen == one.max_prefixlen else ""


class Blocks:
    """Ends that have whole blocks of addresses, without those in them that an end has alone: a rule each. A block that
    different ends share is judged by what judges each of them, and its addresses are nobody's.

    marks: to "saddr" or "daddr" the rules that say who is there; jumps: to a direction the rules that have it judged;
    silent: rules for multicast and broadcast from those of which an end here is closed.
    """

    def __init__(
        self,
        bridges: Mapping[str, PolicedNetwork],
        ends: tuple[PolicedEnd, ...],
        numbers: EndNumbers,
        entries: Mapping[tuple[Direction, int], Judges],
    ) -> None:
        self.marks: dict[str, list[str]] = {"saddr": [], "daddr": []}
        self.jumps: dict[str, list[str]] = {"egress": [], "ingress": []}
        self.silent: list[str] = []
        wide: dict[tuple[str, IPv4Network | IPv6Network], list[PolicedEnd]] = {}
        for one in ends:
            for address in one.addresses:
                if "/" in address and (block := ip_network(address)).num_addresses > 1 and one.network in bridges:
                    wide.setdefault((one.network, block), []).append(one)
        networks = {network for network, _ in wide}
        alone: dict[str, set[IPv4Network | IPv6Network]] = {network: set() for network in networks}
        for one in ends:
            if one.network in networks:
                alone[one.network].update(map(ip_network, one.addresses))
        for (network, block), sharers in wide.items():
            inside = [one for one in alone[network] if one != block and _is_within(one, block)]
            left = spans_of(BlockPeer(block, tuple(sorted(inside, key=_first))))
            if not left:
                continue
            spans = ", ".join(map(span_text, left))
            family, bridge = FAMILIES[block.version], bridges[network].bridge
            members = {numbers.members[one.workspace, one.network]: None for one in sharers}
            for side, rules in self.marks.items():
                if len(members) == 1:
                    match = f'meta mark 0 iifname "{bridge}" ct original {family} {side} {{ {spans} }}'
                    rules.append(f"{match} meta mark set {numbers.numbers[next(iter(members))]}")
            here = {numbers.members[one.workspace, one.network]: None for one in sharers if one.is_local}
            if any((found := entries.get((Direction.EGRESS, end))) and found.is_closed for end in here):
                self.silent += [f'iifname "{bridge}" {family} saddr {_ends_text(one)} drop' for one in left]
            for direction, (_, name) in DIRECTIONS.items():
                side = "saddr" if direction is Direction.EGRESS else "daddr"
                judges = [found.entry for end in here if (found := entries.get((direction, end))) and found.entry]
                match = f'iifname "{bridge}" ct original {family} {side} {{ {spans} }}'
                self.jumps[name] += [f"{match} jump {entry}" for entry in dict.fromkeys(judges)]


def _ends_text(span: Span) -> str:
    """One address, or the first and the last."""
    version, *ends = span
    return "-".join(dict.fromkeys(str((IPv4Address if version == 4 else IPv6Address)(end)) for end in ends))


def _is_within(one: IPv4Network | IPv6Network, block: IPv4Network | IPv6Network) -> bool:
    """Whether all of `one` is in `block`."""
    return one.version == block.version and block.prefixlen <= one.prefixlen and one.network_address in block


def _first(block: IPv4Network | IPv6Network) -> int:
    return int(block.network_address)
