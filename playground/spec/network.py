"""Pure. Networks of a file: subnets, gateways, pools and exclusions that fit together, as integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from overlay.pools import Span, Version, address_text, subtract
from playground.spec.addresses import made_of_mac, parse_ip, parse_prefix, parse_range, span_text
from playground.spec.delivery import Delivery, check_times, delivery
from playground.spec.models import NetworkShape
from playground.spec.objects import NetworkSpec, PoolSpec, SubnetSpec
from playground.spec.problem import Place, Problem
from playground.spec.source import Document


def networks(shapes: Mapping[str, NetworkShape], document: Document, problems: list[Problem]) -> dict[str, NetworkSpec]:
    """Every network that is right; what is wrong is added to `problems`."""
    found = {name: _Reader(name, shape, document, problems).network() for name, shape in shapes.items()}
    _check_overlaps(found, problems)
    return found


def reserved(subnet: SubnetSpec, address: int) -> str | None:
    """Why an address of a subnet can't be a port's, or None."""
    if address == subnet.gateway:
        return "the gateway"
    if address == subnet.span.first:
        return "the network address"
    if address == subnet.span.last and subnet.version == 4:
        return "the broadcast address"
    return None


def _check_overlaps(found: Mapping[str, NetworkSpec], problems: list[Problem]) -> None:
    """No address of a playground belongs to two subnets. Sorted by first address: neighbours only."""
    ordered = sorted(
        (subnet for network in found.values() for subnet in network.subnets),
        key=lambda subnet: (subnet.version, subnet.span.first, subnet.span.last),
    )
    widest: SubnetSpec | None = None
    for subnet in ordered:
        if widest is not None and widest.version == subnet.version and widest.span.overlaps(subnet.span):
            early, late = sorted((widest, subnet), key=lambda one: (one.place.line, one.place.column))
            message = f"{late.text} overlaps {early.place.path} {early.text}; choose a disjoint prefix"
            problems.append(Problem.at(late.place, message))
        if widest is None or widest.version != subnet.version or subnet.span.last > widest.span.last:
            widest = subnet


@dataclass(slots=True)
class _Reader:
    name: str
    shape: NetworkShape
    document: Document
    problems: list[Problem]

    def network(self) -> NetworkSpec:
        subnets = self._with_gateways(list(self._subnets()))
        ranges = list(self._ranges(("exclude",), self.shape.exclude, subnets))
        with_pools = tuple(self._with_pools(subnets))
        dynamic = tuple(self._dynamic(with_pools))
        return NetworkSpec(
            name=self.name,
            subnets=with_pools,
            exclude=(*(span for _, span, _ in ranges), *dynamic),
            dynamic=dynamic,
            delivery=self._delivery(),
            ipv6=self._ipv6(subnets),
            place=self.document.key_place(("networks", self.name)),
        )

    def _dynamic(self, subnets: Sequence[SubnetSpec]) -> Iterator[Span]:
        """The ranges for machines that no one declared. Ports get no address of them: default pools do without."""
        found: list[tuple[Span, Place]] = []
        first: int | None = None
        for at, span, place in self._ranges(("dhcp", "dynamic"), self.shape.dhcp.dynamic, subnets):
            if subnets[at].version == 6:
                self._refuse(
                    place, f"{span_text(6, span)}: machines that no one declared get IPv4 addresses; leave it out"
                )
                continue
            if first is not None and at != first:
                message = (
                    f"{span_text(4, span)} lies in {subnets[at].text}, and the first range in {subnets[first].text}"
                )
                self._refuse(place, f"{message}; dynamic ranges in several subnets are not built yet: keep to one")
                continue
            first = at
            if (clash := _reserved_in(subnets[at], span)) is not None:
                address, what = clash
                text = f"{span_text(4, span)} contains {_text(subnets[at], address)}, {what} of {subnets[at].text}"
                self._refuse(place, f"{text}; leave it out, as {_without(4, span, address)}")
                continue
            others = [(pool.span, pool.place) for pool in subnets[at].pools if pool.place != subnets[at].place]
            twin = next((one for one in (*others, *found) if one[0].overlaps(span)), None)
            if twin is not None:
                message = f"{span_text(4, span)} overlaps {twin[1].path} {span_text(4, twin[0])}; keep them apart"
                self._refuse(place, message)
                continue
            found.append((span, place))
            yield span

    def _ipv6(self, subnets: Sequence[SubnetSpec]) -> str:
        if "ipv6" in self.document.keys(("networks", self.name)) and all(one.version == 4 for one in subnets):
            self._refuse(self._place("ipv6"), f"{self.name} has no IPv6 subnet; add a /64, or leave ipv6 out")
        word: str = self.shape.ipv6
        return word

    def _delivery(self) -> Delivery:
        path = ("networks", self.name)
        found = delivery(self.shape.dhcp, self.shape.boot, self.document, path, self.problems)
        check_times(found, self.document, path, self.problems)
        return found

    def _place(self, *path: str | int) -> Place:
        return self.document.place(("networks", self.name, *path))

    def _refuse(self, place: Place, message: str) -> None:
        self.problems.append(Problem.at(place, message))

    def _subnets(self) -> Iterator[SubnetSpec]:
        for index, text in enumerate(self.shape.subnets):
            place = self._place("subnets", index)
            try:
                version, span, prefix_len = parse_prefix(text)
            except ValueError as error:
                self._refuse(place, str(error))
                continue
            yield SubnetSpec(version, span, prefix_len, span.first + 1, (), place)

    def _with_gateways(self, subnets: list[SubnetSpec]) -> list[SubnetSpec]:
        given: dict[int, str] = {}
        for index, text in enumerate(self.shape.gateway):
            place = self._place("gateway", index)
            try:
                version, address = parse_ip(text)
            except ValueError as error:
                self._refuse(place, str(error))
                continue
            at = _subnet_of(subnets, version, address)
            if at is None:
                if len(subnets) == len(self.shape.subnets):
                    self._refuse(place, f"{text} lies in no subnet of {self.name}: {_list(subnets)}")
                continue
            if at in given:
                self._refuse(place, f"{text} is a second gateway of {subnets[at].text}, after {given[at]}; keep one")
                continue
            given[at] = text
            bare = replace(subnets[at], gateway=-1)
            if (what := reserved(bare, address)) is not None:
                self._refuse(
                    place, f"{text} is {what} of {bare.text}; choose another, as {_text(bare, bare.span.first + 1)}"
                )
                continue
            subnets[at] = replace(subnets[at], gateway=address)
        return subnets

    def _with_pools(self, subnets: list[SubnetSpec]) -> Iterator[SubnetSpec]:
        named: dict[int, list[PoolSpec]] = {}
        for at, span, place in self._ranges(("pools",), self.shape.pools, subnets):
            subnet = subnets[at]
            written = span_text(subnet.version, span)
            if subnet.version == 6 and (misfit := self._misfit6(subnet, span, written)) is not None:
                self._refuse(place, misfit)
                continue
            if (clash := _reserved_in(subnet, span)) is not None:
                address, what = clash
                self._refuse(
                    place,
                    f"{written} contains {_text(subnet, address)}, {what} of {subnet.text}; "
                    f"leave it out, as {_without(subnet.version, span, address)}",
                )
                continue
            twin = next((pool for pool in named.get(at, []) if pool.span.overlaps(span)), None)
            if twin is not None:
                other = f"{twin.place.path} {span_text(subnet.version, twin.span)}"
                self._refuse(place, f"{written} overlaps {other}; join them")
                continue
            named.setdefault(at, []).append(PoolSpec(span, place))
        for at, subnet in enumerate(subnets):
            pools = named.get(at, [])
            # a pool that was refused still names its subnet: no second error follows from the first
            if subnet.version == 4 and not pools:
                pools = [PoolSpec(span, subnet.place) for span in _default_pools(subnet)]
            yield replace(subnet, pools=tuple(pools))

    def _misfit6(self, subnet: SubnetSpec, span: Span, written: str) -> str | None:
        """Why an IPv6 pool can't be one."""
        if self.shape.ipv6 == "slaac":
            return (
                f"{written}: {self.name} has ipv6: slaac, by which each workspace makes its address of its MAC; "
                "write ipv6: dhcp or both, or leave the pool out"
            )
        if (formed := made_of_mac(span)) is not None:
            first = subnet.span.first + 0x1000
            return (
                f"{written} contains {address_text(6, formed)} and others that a client would make of its MAC; "
                f"end it before, as {span_text(6, Span(first, first + 0xFFF))}"
            )
        return None

    def _ranges(
        self, key: tuple[str, ...], texts: Sequence[str], subnets: Sequence[SubnetSpec]
    ) -> Iterator[tuple[int, Span, Place]]:
        """(index of its subnet, span, place) of every range that lies in one subnet."""
        for index, text in enumerate(texts):
            place = self._place(*key, index)
            try:
                version, span = parse_range(text)
            except ValueError as error:
                self._refuse(place, str(error))
                continue
            at, end = _subnet_of(subnets, version, span.first), _subnet_of(subnets, version, span.last)
            if at is not None and at == end:
                yield at, span, place
            elif len(subnets) < len(self.shape.subnets):
                continue  # a subnet was refused, it may be that one
            elif at is None and end is None:
                self._refuse(place, f"{text} lies in no subnet of {self.name}: {_list(subnets)}")
            elif at is None or end is None:
                inside = subnets[at if at is not None else end or 0]
                self._refuse(place, f"{text} reaches out of {inside.text}; end it inside")
            else:
                self._refuse(
                    place, f"{text} crosses from {subnets[at].text} into {subnets[end].text}; write one range each"
                )


def _subnet_of(subnets: Sequence[SubnetSpec], version: Version, address: int) -> int | None:
    return next((at for at, one in enumerate(subnets) if one.version == version and address in one.span), None)


def _default_pools(subnet: SubnetSpec) -> tuple[Span, ...]:
    inner = Span(subnet.span.first + 1, subnet.span.last - 1)
    return subtract([inner], [Span(subnet.gateway, subnet.gateway)])


def _reserved_in(subnet: SubnetSpec, span: Span) -> tuple[int, str] | None:
    for address in (subnet.gateway, subnet.span.first, subnet.span.last):
        if address in span and (what := reserved(subnet, address)) is not None:
            return address, what
    return None


def _without(version: Version, span: Span, address: int) -> str:
    left = subtract([span], [Span(address, address)])
    return " and ".join(span_text(version, part) for part in left) or "another range"


def _text(subnet: SubnetSpec, address: int) -> str:
    return address_text(subnet.version, address)


def _list(subnets: Sequence[SubnetSpec]) -> str:
    return ", ".join(subnet.text for subnet in subnets) or "it has none"
