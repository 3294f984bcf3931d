"""Pure. What a NIC may use beside its own: addresses and MACs (`allow`), that no other port has. Knows no guard.

Addresses lie in a subnet of the NIC's network, or outside of all subnets of the playground: machines nested in the
workspace. NICs of one network may share an address and a virtual router's MAC, which one of them has at a time (VRRP,
RFC 9568).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from overlay.mac import is_usable, is_virtual_router
from overlay.pools import Span, address_text
from playground.spec.addresses import parse_block
from playground.spec.models import AllowShape
from playground.spec.network import reserved
from playground.spec.objects import AllowedSpec, NetworkSpec, SubnetSpec, WorkspaceSpec
from playground.spec.problem import Place, Problem
from playground.spec.source import Document, Path

_MOVING = "one that moves from NIC to NIC has to be a virtual router's, 00:00:5e:00:01:… or 00:00:5e:00:02:…"

At = tuple[str, int]
"""(network, address of either family: no integer is both)."""


@dataclass(frozen=True, slots=True)
class _Declared:
    """A block that a NIC allows, with the NIC's labels, its workspace's among them."""

    network: str
    block: AllowedSpec
    labels: Mapping[str, str]


@dataclass(slots=True)
class Allowances:
    """What the NICs of a file allow, read one by one. Problems are added to `problems`."""

    networks: Mapping[str, NetworkSpec]
    document: Document
    problems: list[Problem]
    _declared: list[_Declared] = field(default_factory=list)
    _macs: dict[tuple[str, str], Place] = field(default_factory=dict)
    _led: dict[tuple[str, Span], Place] = field(default_factory=dict)

    def addresses(
        self, shape: AllowShape, network: NetworkSpec, labels: Mapping[str, str], path: Path
    ) -> tuple[AllowedSpec, ...]:
        """The blocks of one NIC. path: of its `allow`. labels: the NIC's, and its workspace's."""
        found: list[AllowedSpec] = []
        for index, text in enumerate(shape.addresses):
            place = self.document.place((*path, "addresses", index))
            try:
                version, span, written = parse_block(text)
            except ValueError as error:
                self.problems.append(Problem.at(place, str(error)))
                continue
            block = AllowedSpec(version, span, written, place)
            if misfit := self._misfit(block, network):
                self.problems.append(Problem.at(place, misfit))
                continue
            twin = next((one for one in found if one.version == version and one.span.overlaps(span)), None)
            if twin is not None:
                self.problems.append(Problem.at(place, f"{text} overlaps {twin.text} of the same NIC; keep one"))
                continue
            found.append(block)
        self._declared += [_Declared(network.name, block, labels) for block in found]
        return tuple(found)

    def macs(self, shape: AllowShape, network: NetworkSpec, path: Path, *, is_scaled: bool) -> tuple[str, ...]:
        """The MACs of one NIC."""
        found: list[str] = []
        for index, mac in enumerate(shape.macs):
            place = self.document.place((*path, "macs", index))
            if not is_usable(mac):
                message = f"{mac} can't be allowed: it is multicast, zero or the gateways' own; leave it out"
            elif is_scaled and not is_virtual_router(mac):
                message = f"{mac} would be allowed at each instance; {_MOVING}"
            else:
                twin = self._macs.setdefault((network.name, mac), place)
                if twin is place or is_virtual_router(mac):
                    found.append(mac)
                    continue
                message = f"{mac} is allowed in line {twin.line} too; {_MOVING}"
            self.problems.append(Problem.at(place, message))
        return tuple(found)

    def leads(
        self, shape: AllowShape, allowed: Iterable[AllowedSpec], network: NetworkSpec, path: Path, *, is_scaled: bool
    ) -> tuple[str, ...]:
        """IPv4 prefixes of one NIC that others are to reach by it: those outside of the network's subnets."""
        if not shape.route:
            return ()
        place = self.document.place((*path, "route"))
        spans = [subnet.span for subnet in network.subnets]
        found = [one for one in allowed if one.version == 4 and not any(one.span.overlaps(span) for span in spans)]
        message = ""
        if not found:
            message = "there is no IPv4 prefix outside of the network's subnets to lead to; leave it out"
        elif is_scaled:
            message = "each instance would lead to the same prefixes; write a workspace for the one that does"
        for block in found:
            twin = self._led.setdefault((network.name, block.span), place)
            if twin is not place:
                message = f"{block.text} is led to by the NIC in line {twin.line} already; a prefix has one way"
        if message:
            self.problems.append(Problem.at(place, message))
        return () if message else tuple(one.text for one in found)

    def dynamic(self, shape: AllowShape, network: NetworkSpec, path: Path) -> int:
        """How many machines behind one NIC get addresses of the network's dynamic ranges."""
        if (
            shape.dynamic
            and not network.dynamic
            and "dynamic" not in self.document.keys(("networks", network.name, "dhcp"))
        ):
            message = f"{network.name} has no addresses for them; give its dhcp a range, as dynamic: FIRST-LAST"
            self.problems.append(Problem.at(self.document.place((*path, "dynamic")), message))
        return shape.dynamic

    def check(self, fixed: Mapping[At, Place], macs: Mapping[tuple[str, str], Place]) -> None:
        """That nobody allows what is another's. fixed: addresses that the file gives to NICs; macs: the same."""
        self.problems.extend(self._clashes(fixed))
        for key in self._macs.keys() & macs.keys():
            place, other = self._macs[key], macs[key]
            message = f"{key[1]} is a NIC's own on {key[0]} in line {other.line}; leave it out, or choose another"
            self.problems.append(Problem.at(place, message))

    def _misfit(self, block: AllowedSpec, network: NetworkSpec) -> str | None:
        for other in self.networks.values():
            for subnet in other.subnets:
                if subnet.version != block.version or not subnet.span.overlaps(block.span):
                    continue
                inside = subnet.span.first <= block.span.first and block.span.last <= subnet.span.last
                if other.name != network.name:
                    return (
                        f"{block.text} reaches into {subnet.text} of {other.name}; allow addresses of {network.name}, "
                        "or some outside of all subnets"
                    )
                if not inside:
                    return f"{block.text} contains all of {subnet.text}; allow a part of it"
                if block.version == 4 and any(span.overlaps(block.span) for span in network.dynamic):
                    return f"{block.text} reaches into dhcp.dynamic of {network.name}; allow others"
                if (clash := _reserved(subnet, block)) is not None:
                    address, what = clash
                    if address == block.text:
                        return f"{address} is {what} of {subnet.text}; choose another"
                    return f"{block.text} contains {address}, {what} of {subnet.text}; leave that out"
        return None

    def _clashes(self, fixed: Mapping[At, Place]) -> Iterator[Problem]:
        ordered = sorted(self._declared, key=_order)
        for one, two in _overlapping(ordered):
            first, second = sorted((one, two), key=lambda each: (each.block.place.line, each.block.place.column))
            where = f"{first.block.place.path} in line {first.block.place.line}"
            if one.block.span != two.block.span:
                message = f"{second.block.text} overlaps {first.block.text}, {where}; write the same at both"
            elif one.labels != two.labels:
                message = (
                    f"{second.block.text} is allowed at {where} too, under other labels; "
                    "give workspaces that share an address the same ones: it has one identity"
                )
            else:
                continue
            yield Problem.at(second.block.place, message)
        for (network, address), place in fixed.items():
            for one in self._declared:
                if one.network == network and address in one.block.span:
                    text = address_text(one.block.version, address)
                    what = f"{one.block.text} contains {text}, " if text != one.block.text else f"{text} is "
                    message = f"{what}a NIC's own address in line {place.line}; leave it out, or choose another"
                    yield Problem.at(one.block.place, message)


def withheld(networks: Mapping[str, NetworkSpec], workspaces: Iterable[WorkspaceSpec]) -> dict[str, NetworkSpec]:
    """The networks, knowing what their ports don't get since a NIC allows it."""
    blocks: dict[str, dict[AllowedSpec, None]] = {}
    macs: dict[str, set[str]] = {}
    for workspace in workspaces:
        for nic in workspace.nics:
            if nic.allowed:
                blocks.setdefault(nic.network, {}).update(dict.fromkeys(nic.allowed))
            if nic.allowed_macs:
                macs.setdefault(nic.network, set()).update(nic.allowed_macs)
    return {
        name: replace(
            network,
            exclude=(*network.exclude, *dict.fromkeys(one.span for one in blocks.get(name, ()) if one.version == 4)),
            withheld6=tuple(dict.fromkeys(one.span for one in blocks.get(name, ()) if one.version == 6)),
            withheld_macs=frozenset(macs.get(name, ())),
        )
        if name in blocks or name in macs
        else network
        for name, network in networks.items()
    }


def _order(one: _Declared) -> tuple[str, int, int, int]:
    return one.network, one.block.version, one.block.span.first, one.block.span.last


def _overlapping(ordered: Iterable[_Declared]) -> Iterator[tuple[_Declared, _Declared]]:
    """Each that overlaps one before it, with the widest such."""
    widest: _Declared | None = None
    for one in ordered:
        if widest is not None and _order(widest)[:2] == _order(one)[:2] and widest.block.span.overlaps(one.block.span):
            yield widest, one
            if one.block.span.last <= widest.block.span.last:
                continue
        widest = one


def _reserved(subnet: SubnetSpec, block: AllowedSpec) -> tuple[str, str] | None:
    for address in (subnet.gateway, subnet.span.first, subnet.span.last):
        if address in block.span and (what := reserved(subnet, address)) is not None:
            return address_text(subnet.version, address), what
    return None
