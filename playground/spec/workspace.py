"""Pure. Workspaces of a file: scales expanded, NICs resolved, fixed addresses and MACs that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from overlay.mac import is_usable
from overlay.pools import Span, address_text
from playground.spec import names
from playground.spec.addresses import made_of_mac, parse_ip
from playground.spec.allowance import Allowances
from playground.spec.delivery import Delivery, check_times, delivery
from playground.spec.machine import MEMORY_MIB, machine_of
from playground.spec.models import DRIVERS, NicShape, WorkspaceShape
from playground.spec.network import reserved
from playground.spec.objects import NetworkSpec, NicSpec, WorkspaceSpec
from playground.spec.placement import check_neighbours, neighbours_of, requires_of
from playground.spec.problem import Place, Problem, suggestion
from playground.spec.source import Document
from policies.selector import Selector, is_label_key, is_label_value, is_selector, parse_selector

MAX_WORKSPACES = 20_000
"""Of one playground, scaled ones counted in full."""


def workspaces(
    shapes: Mapping[str, WorkspaceShape],
    networks: Mapping[str, NetworkSpec],
    document: Document,
    problems: list[Problem],
) -> dict[str, WorkspaceSpec]:
    """Every workspace by name, in the file's order, instances in theirs; what is wrong is added to `problems`."""
    reader = _Reader(networks, document, problems, Allowances(networks, document, problems))
    found: dict[str, WorkspaceSpec] = {}
    total = sum(1 if shape.scale is None else shape.scale for shape in shapes.values())
    if total > MAX_WORKSPACES:
        message = f"{total} workspaces, scaled ones counted in full; {MAX_WORKSPACES} are allowed"
        problems.append(Problem.at(document.key_place(("workspaces",)), message))
        return {}
    for name, shape in shapes.items():
        for workspace in reader.instances(name, shape):
            if (twin := found.get(workspace.name)) is not None:
                places = sorted((twin.place, workspace.place), key=lambda place: (place.line, place.column))
                message = f"a workspace named {workspace.name} comes from {places[0].path} too; rename one"
                problems.append(Problem.at(places[1], message))
            found[workspace.name] = workspace
    reader.allowances.check(reader.addresses, reader.macs)
    if not problems:  # else those may lack whom a selector means
        problems.extend(check_neighbours(shapes, document))
    return found


def check_labels(labels: Mapping[str, str], document: Document, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Labels that no selector could name, or that are built in."""
    for key, value in labels.items():
        place = document.key_place((*path, key))
        if not is_label_key(key):
            yield Problem.at(place, f"{key!r} is no label; write letters, digits and inner -_./, at most 63")
        elif key in names.BUILT_IN_LABELS:
            yield Problem.at(place, f"the label {key} is built in; choose another name")
        elif not is_label_value(value):
            yield Problem.at(
                document.place((*path, key)), f"{value!r} is no label's value; write letters, digits and inner -_./"
            )


def host_of(text: str | None) -> str | Selector | None:
    """What `host:` says: a name, or a selector over host labels. Raises ValueError."""
    if text is None:
        return None
    return parse_selector(text.strip()) if is_selector(text.strip()) else names.dns_label(text.strip())


@dataclass(slots=True)
class _Reader:
    networks: Mapping[str, NetworkSpec]
    document: Document
    problems: list[Problem]
    allowances: Allowances
    addresses: dict[tuple[str, int], Place] = field(default_factory=dict)
    macs: dict[tuple[str, str], Place] = field(default_factory=dict)

    def instances(self, name: str, shape: WorkspaceShape) -> Iterator[WorkspaceSpec]:
        path = ("workspaces", name)
        place = self.document.key_place(path)
        if shape.scale:
            self._check_scaled_name(name, shape.scale, place)
        self.problems.extend(check_labels(shape.labels, self.document, (*path, "labels")))
        whole = delivery(shape.dhcp, shape.boot, self.document, path, self.problems)
        nics = tuple(self._nics(name, shape, whole))
        host, host_place = self._host(name, shape), self.document.place((*path, "host"))
        self._check_driver(name, shape.driver)
        machine = machine_of(shape, self.document, path, self.problems)
        requires = requires_of(shape, self.document, path, self.problems)
        neighbours = neighbours_of(shape, self.document, path, self.problems)
        for index in range(1 if shape.scale is None else shape.scale):
            yield WorkspaceSpec(
                name=name if shape.scale is None else f"{name}-{index}",
                labels=shape.labels,
                nics=nics,
                host=host,
                driver=shape.driver,
                cpus=shape.cpus or (1.0 if machine is not None else 0.0),
                memory_mib=shape.memory or (MEMORY_MIB if machine is not None else 0),
                machine=machine,
                requires=requires,
                neighbours=neighbours,
                grace_s=shape.grace,
                place=place,
                host_place=host_place,
                declared=name,
                index=None if shape.scale is None else index,
            )

    def _check_scaled_name(self, name: str, scale: int, place: Place) -> None:
        """The longest instance's name is a DNS label too (where the name itself is one: `load` checks that)."""
        longest = f"{name}-{scale - 1}"
        if len(name) <= names.MAX_LABEL < len(longest):
            message = f"{longest!r} has {len(longest)} characters; a name may have {names.MAX_LABEL}, as a DNS label"
            self.problems.append(Problem.at(place, message))

    def _check_driver(self, name: str, driver: str) -> None:
        if driver in DRIVERS:
            return
        place = self.document.place(("workspaces", name, "driver"))
        message = f"unknown driver {driver!r}{suggestion(driver, DRIVERS)}"
        self.problems.append(Problem.at(place, message))

    def _host(self, name: str, shape: WorkspaceShape) -> str | Selector | None:
        try:
            return host_of(shape.host)
        except ValueError as error:
            self.problems.append(Problem.at(self.document.place(("workspaces", name, "host")), str(error)))
            return None

    def _nics(self, name: str, shape: WorkspaceShape, whole: Delivery) -> Iterator[NicSpec]:
        seen: dict[str, Place] = {}
        declared = self.document.keys(("networks",))
        for index, nic in enumerate(shape.networks):
            path = ("workspaces", name, "networks", index)
            place = self.document.place(path)
            at_name = self.document.place((*path, "network"))
            self.problems.extend(check_labels(nic.labels, self.document, (*path, "labels")))
            if nic.network not in declared:
                hint = suggestion(nic.network, declared) or "; the file has no networks"
                self.problems.append(Problem.at(at_name, f"unknown network {nic.network!r}{hint}"))
                continue
            if nic.network in seen:
                message = f"{nic.network} is named a second time, first in line {seen[nic.network].line}; keep one"
                self.problems.append(Problem.at(at_name, message))
                continue
            seen[nic.network] = at_name
            network = self.networks.get(nic.network)
            if network is not None:
                yield self._nic(nic, network, shape, whole, path, place)

    def _nic(
        self,
        nic: NicShape,
        network: NetworkSpec,
        shape: WorkspaceShape,
        whole: Delivery,
        path: tuple[str | int, ...],
        place: Place,
    ) -> NicSpec:
        """One NIC. shape: its workspace; whole: what that says of delivery."""
        is_scaled = shape.scale is not None
        labels, allowing = shape.labels | nic.labels, (*path, "allow")
        address, addresses6 = self._addresses(nic, network, path, is_scaled)
        mac = self._mac(nic, network, self.document.place((*path, "mac")), is_scaled)
        own = delivery(nic.dhcp, None, self.document, path, self.problems).within(whole)
        check_times(own.within(network.delivery), self.document, path[:2], self.problems)
        check_times(own.within(network.delivery), self.document, path, self.problems)
        allowed = self.allowances.addresses(nic.allow, network, labels, allowing)
        return NicSpec(
            network.name,
            nic.labels,
            address,
            mac,
            place,
            nic.default_route,
            delivery=own,
            allowed=allowed,
            allowed_macs=self.allowances.macs(nic.allow, network, allowing, is_scaled=is_scaled),
            addresses6=addresses6,
            leads=self.allowances.leads(nic.allow, allowed, network, allowing, is_scaled=is_scaled),
            dynamic=self.allowances.dynamic(nic.allow, network, allowing),
        )

    def _addresses(
        self, nic: NicShape, network: NetworkSpec, path: tuple[str | int, ...], is_scaled: bool
    ) -> tuple[int | None, tuple[int, ...]]:
        """What is fixed: one of IPv4, and one of each IPv6 subnet."""
        if nic.address is not None and nic.addresses:
            place = self.document.key_place((*path, "address"))
            self.problems.append(Problem.at(place, "address is short for addresses; write one of them"))
            return None, ()
        key = "address" if nic.address is not None else "addresses"
        texts = list(nic.addresses) if nic.address is None else [nic.address]
        fixed: int | None = None
        fixed6: dict[str, int] = {}
        for index, text in enumerate(texts):
            place = self.document.place((*path, key, index))
            if is_scaled:
                message = f"{text} is fixed, but the workspace has a scale; write it as a workspace of its own"
                self.problems.append(Problem.at(place, message))
                continue
            try:
                version, address = parse_ip(text)
            except ValueError as error:
                self.problems.append(Problem.at(place, str(error)))
                continue
            if misfit := self._address_problem(text, version, address, network):
                self.problems.append(Problem.at(place, misfit))
                continue
            subnet = next(one.text for one in network.subnets if one.version == version and address in one.span)
            if fixed is not None if version == 4 else subnet in fixed6:
                where = network.name if version == 4 else subnet
                message = (
                    f"{text} is a second IPv{version} address on {where}; more than one is not built yet: keep one"
                )
                self.problems.append(Problem.at(place, message))
                continue
            twin = self.addresses.setdefault((network.name, address), place)
            if twin is not place:
                message = f"{text} is in use twice, first at {twin.path} in line {twin.line}; choose another"
                self.problems.append(Problem.at(place, message))
            if version == 4:
                fixed = address
            else:
                fixed6[subnet] = address
        return fixed, tuple(fixed6.values())

    def _address_problem(self, text: str, version: int, address: int, network: NetworkSpec) -> str | None:
        subnet = next((one for one in network.subnets if one.version == version and address in one.span), None)
        if subnet is None:
            subnets = ", ".join(one.text for one in network.subnets) or "it has none"
            return f"{text} lies in no subnet of {network.name}: {subnets}"
        if any(address in span for span in network.dynamic):
            return f"{text} lies in dhcp.dynamic of {network.name}, for machines that no one declared; choose another"
        if (what := reserved(subnet, address)) is not None:
            free = subnet.span.first + 1 + (subnet.gateway == subnet.span.first + 1)
            return f"{text} is {what} of {subnet.text}; choose another, as {address_text(subnet.version, free)}"
        if version == 6 and network.ipv6 == "slaac":
            return (
                f"{text}: {network.name} has ipv6: slaac, by which each workspace makes its address of its MAC; "
                "write ipv6: dhcp or both there, or fix the MAC here"
            )
        if version == 6 and made_of_mac(Span(address, address)) is not None:
            return f"{text} is made of a MAC (ff:fe in the middle); fix that MAC, or choose another address"
        return None

    def _mac(self, nic: NicShape, network: NetworkSpec, place: Place, is_scaled: bool) -> str | None:
        if nic.mac is None:
            return None
        if is_scaled:
            message = f"{nic.mac} is fixed, but the workspace has a scale; write it as a workspace of its own"
        elif not is_usable(nic.mac):
            message = (
                f"{nic.mac} can't be a port's: it is multicast, zero or the gateways' own; choose one as 52:54:00:…"
            )
        else:
            twin = self.macs.setdefault((network.name, nic.mac), place)
            if twin is place:
                return nic.mac
            message = f"{nic.mac} is in use twice on {network.name}, first in line {twin.line}; choose another"
        self.problems.append(Problem.at(place, message))
        return None
