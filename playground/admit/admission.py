"""Pure. Turns a spec and what is known into an Admission: the claims, records and steps from one to the other.

Level-triggered: claims and records are compared with those that the spec needs, whatever their history, so the same
call plans, rolls forward after a crash, and sweeps what nothing needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from overlay.mtu import guest_mtu, shortfall
from overlay.pools import address_hex, address_text, parse_address
from playground import records
from playground.admit.assign import Assigned, Held, Wanted, assign_ports, assign_vni, held_by_network, keeping
from playground.admit.gateways import check_gateways, router_of, routers_of, with_gateways
from playground.admit.known import Admission, Known, Leased
from playground.admit.policies import policy_records
from playground.admit.standing import Standing, rest, standing
from playground.inventory import ANY
from playground.lifecycle import why_not_rebuilt
from playground.plan import Grid, Step, steps
from playground.records import (
    LEARNED,
    ClaimRecord,
    NetworkRecord,
    PlaygroundRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
)
from playground.spec import NetworkSpec, PlaygroundSpec, Problem, SpecErrors, WorkspaceSpec
from playground.spec.addresses import span_text
from playground.spec.delivery import DEFAULT_LEASE_S
from playground.spec.problem import suggestion
from playground.spec.scene import endpoint_labels
from policies.model import Policy


def admit(spec: PlaygroundSpec, known: Known, change: str) -> Admission:
    """What makes `spec` so. change: the id under which new claims are taken.

    Raises SpecErrors with every refusal at its place in the file: exhausted pools, a pin to no known host, an underlay
    too small. Called again on its own result it is empty. Costs about what has to change (`playground.admit.standing`).
    """
    spec = with_gateways(spec)
    found = standing(spec, known)
    if found.names:
        try:
            return _admit(*rest(spec, known, found), change, found)
        except SpecErrors:
            pass  # what is refused is said of the whole file
    return _admit(spec, known, change, Standing())


def admit_whole(spec: PlaygroundSpec, known: Known, change: str) -> Admission:
    """The same, by looking at every workspace."""
    return _admit(with_gateways(spec), known, change, Standing())


def _admit(spec: PlaygroundSpec, known: Known, change: str, stands: Standing) -> Admission:
    """stands: what neither `spec` nor `known` has, and nobody may take."""
    problems: list[Problem] = []
    _check_pins(spec, known, problems)
    check_gateways(spec, problems)
    networks = {name: _network(spec, network, known, problems) for name, network in spec.networks.items()}
    _give_vnis(networks, spec, known, problems)
    assigned: dict[str, Assigned] = {}
    claimed = held_by_network(known.claims)
    members = _members(spec, known)
    for name, network in spec.networks.items():
        id = networks[name].id
        held, leased = claimed.get(id, Held()), known.leased.get(id, Leased())
        held = keeping(
            held, {*stands.macs.get(name, ()), *leased.macs}, stands.addresses.get(name, set()) | leased.addresses
        )
        _check_leased(members[name], leased, problems)
        assigned.update(assign_ports(network, members[name], held, problems))
    policies, as_written = policy_records(spec.name, spec.connectivity.policies, spec.connectivity.places, problems)
    _check_size(spec, problems)
    if problems:
        raise SpecErrors(problems)
    ports = {port.id: port for port in _ports(spec, assigned)}
    written = {port.id: port for port in known.ports.values()}
    workspaces = {
        name: _workspace(spec, workspace, known, ports, written) for name, workspace in spec.workspaces.items()
    }
    _check_rebuilt(spec, known, workspaces, problems)
    if problems:
        raise SpecErrors(problems)
    return _difference(spec, known, Grid(networks, workspaces, ports, policies), change, as_written)


def remove(known: Known) -> Admission:
    """What makes a playground go: the root says "removing", every record and every claim is deleted.

    The root's own key is not among `deletes`: it goes last, when nothing is left on any host.
    """
    root = replace(known.root, state="removing") if known.root is not None else None
    nothing = Grid({}, {}, {})
    removed = steps(known.grid, nothing, known.called)
    if root is not None:
        removed = (*removed, Step("remove", f"playground {root.name}", ""))
    return Admission(
        root=root if root != known.root else None,
        deletes=(*_obsolete_records(known, nothing), *sorted(known.claims)),
        steps=removed,
    )


def _declared(known: Known) -> set[str]:
    """Keys of the claims that files are about."""
    return {key for key, claim in known.claims.items() if claim.change != LEARNED}


def claims_of(grid: Grid) -> dict[str, str]:
    """Every claim that records need, as key → owner: VNIs, gateway addresses, and each port's addresses and MAC."""
    needed: dict[str, str] = {}
    for network in grid.networks.values():
        needed[records.vni_claim(network.vni)] = network.id
        for gateway in network.gateways:
            needed[records.address_claim(network.id, address_hex(*parse_address(gateway)))] = network.id
    for port in grid.ports.values():
        needed[records.mac_claim(port.network_id, port.mac)] = port.id
        for address in port.addresses:
            needed[records.address_claim(port.network_id, address_hex(*parse_address(address)))] = port.id
    return needed


def _difference(
    spec: PlaygroundSpec, known: Known, wanted: Grid, change: str, written: Mapping[str, Policy]
) -> Admission:
    needed = claims_of(wanted)
    found = steps(known.grid, wanted, {**known.called, **{name: policy.name for name, policy in written.items()}})
    if known.root is None or known.root.state == "removing":
        found = (Step("create", f"playground {spec.name}", ""), *found)
    return Admission(
        claims=tuple(
            (key, ClaimRecord(owner=owner, playground=spec.name, change=change))
            for key, owner in needed.items()
            if key not in known.claims
        ),
        root=_root(spec, known, change, bool(found)),
        puts=tuple(_changed(known.grid, wanted)),
        transfers=tuple(
            (key, replace(known.claims[key], owner=owner))
            for key, owner in needed.items()
            if key in known.claims and known.claims[key].owner != owner
        ),
        deletes=(*_obsolete_records(known, wanted), *sorted(_declared(known) - needed.keys())),
        steps=found,
        written=written,
    )


def _root(spec: PlaygroundSpec, known: Known, change: str, is_material: bool) -> PlaygroundRecord | None:
    """The root pointer, or None when it already says this. Comments move the text: the change that counts, and the
    generation, stay."""
    old, new = known.root, _accepted(spec, change)
    if old is None:
        return new
    if (old.files, old.file, old.state) == (new.files, new.file, "present"):
        return None
    if not is_material:
        return replace(new, change=old.change, generation=old.generation)
    return replace(new, generation=old.generation + 1)


def _accepted(spec: PlaygroundSpec, change: str) -> PlaygroundRecord:
    files = records.pack_files(spec.text, spec.connectivity.included)
    return PlaygroundRecord(name=spec.name, file=spec.file, files=files, change=change)


def _check_leased(ports: Iterable[Wanted], leased: Leased, problems: list[Problem]) -> None:
    """That nothing is fixed to a port that machines of another may still use."""
    for port in ports:
        address, mac = port.nic.address, port.nic.mac
        for what, is_leased in (
            (address_text(4, address or 0), address in leased.addresses),
            (mac, mac in leased.macs),
        ):
            if is_leased:
                message = f"{what} may still be used by a machine that no one declared (`playground leases`)"
                problems.append(Problem.at(port.nic.place, f"{message}; choose another, or wait until its lease ends"))


def _check_rebuilt(
    spec: PlaygroundSpec, known: Known, workspaces: Mapping[str, WorkspaceRecord], problems: list[Problem]
) -> None:
    """That nothing is made anew of which memory is kept. A file that was accepted before stays so."""
    for name, workspace in workspaces.items():
        old = known.workspaces.get(name)
        if old is not None and old.generation != workspace.generation and (why := why_not_rebuilt(old)):
            problems.append(Problem.at(spec.workspaces[name].place, why))
    if problems and known.root is not None and known.root.files == _accepted(spec, "").files:
        problems.clear()


def _check_size(spec: PlaygroundSpec, problems: list[Problem]) -> None:
    size = len(records.encode(_accepted(spec, "")))
    if size > records.LARGEST:
        message = f"the file and those that it includes take {size} bytes together, compressed; {records.LARGEST} are "
        problems.append(Problem.at(spec.place, f"{message}allowed: make it several playgrounds"))


def _changed(old: Grid, new: Grid) -> Iterator[Record]:
    """New and changed records: policies, networks, then each workspace followed by its ports.

    The workspace comes first: its generation may then grow once more when a crash falls between the two, but is never
    left behind.
    """
    yield from (policy for name, policy in new.policies.items() if old.policies.get(name) != policy)
    yield from (network for name, network in new.networks.items() if old.networks.get(name) != network)
    for name, workspace in new.workspaces.items():
        if old.workspaces.get(name) != workspace:
            yield workspace
        yield from (new.ports[port] for port in workspace.ports if old.ports.get(port) != new.ports[port])


def _obsolete_records(known: Known, wanted: Grid) -> Iterator[str]:
    """Keys of records that nothing wants: ports first, so that none is ever seen without its network."""
    yield from (records.key_of(port) for port in known.ports.values() if port.id not in wanted.ports)
    yield from (records.key_of(old) for name, old in known.workspaces.items() if name not in wanted.workspaces)
    yield from (records.key_of(old) for name, old in known.networks.items() if name not in wanted.networks)
    yield from (records.key_of(old) for name, old in known.policies.items() if name not in wanted.policies)


def _check_pins(spec: PlaygroundSpec, known: Known, problems: list[Problem]) -> None:
    for workspace in spec.workspaces.values() if known.hosts else ():
        if isinstance(workspace.host, str) and workspace.host not in known.hosts:
            hosts = ", ".join(sorted(known.hosts))
            hint = suggestion(workspace.host, known.hosts)
            hint = hint if "did you mean" in hint else f"; hosts are {hosts}"
            problems.append(Problem.at(workspace.host_place, f"{workspace.host!r} is no host of this site{hint}"))


def _network(spec: PlaygroundSpec, network: NetworkSpec, known: Known, problems: list[Problem]) -> NetworkRecord:
    """The network's record, with VNI 0 until it is given one."""
    mtu = guest_mtu(known.underlay_mtu, known.underlay_version)
    v6 = [subnet for subnet in network.subnets if subnet.version == 6]
    if missing := shortfall(mtu, has_ipv6=bool(v6)):
        problems.append(
            Problem.at(
                (v6[0] if v6 else network).place,
                f"the smallest underlay MTU of the hosts, {known.underlay_mtu}, leaves {mtu} bytes for a guest; "
                f"IPv{6 if v6 else 4} needs {mtu + missing}: raise the underlay's MTU by {missing}"
                + (" or take the IPv6 subnet out" if v6 else ""),
            )
        )
    return NetworkRecord(
        playground=spec.name,
        name=network.name,
        id=records.network_id(spec.name, network.name),
        vni=0,
        mtu=mtu,
        subnets=tuple(subnet.text for subnet in network.subnets),
        gateways=tuple(subnet.gateway_text for subnet in network.subnets),
        forward=network.dns.forward,
        transfer=network.dns.transfer,
        names=tuple(records.Named(one.name, one.type, one.data) for one in network.dns.records),
        lease_s=DEFAULT_LEASE_S if network.delivery.lease_s is None else network.delivery.lease_s,
        options=network.delivery.options,
        options6=network.delivery.options6,
        boot=network.delivery.boot,
        ipv6=network.ipv6,
        dynamic=tuple(span_text(4, span) for span in network.dynamic),
    )


def _give_vnis(networks: dict[str, NetworkRecord], spec: PlaygroundSpec, known: Known, problems: list[Problem]) -> None:
    taken = set(known.vnis) | {network.vni for network in known.networks.values()}
    taken |= {int(key.rpartition("/")[2]) for key in known.claims if key.startswith("claim/vni/")}
    for name, network in networks.items():
        before = known.networks.get(name)
        vni = assign_vni(network.id, before.vni if before else None, known.claims, taken)
        if vni is None:
            problems.append(Problem.at(spec.networks[name].place, "no VNI is left in this site; remove a network"))
            continue
        taken.add(vni)
        networks[name] = replace(network, vni=vni)


def _members(spec: PlaygroundSpec, known: Known) -> dict[str, list[Wanted]]:
    """The ports that the file wants, by network, in the file's order."""
    members: dict[str, list[Wanted]] = {name: [] for name in spec.networks}
    for workspace in spec.workspaces.values():
        for nic in workspace.nics:
            before = known.ports.get((workspace.name, nic.network))
            members[nic.network].append(Wanted(_port_id(spec, workspace, nic.network), workspace, nic, before))
    return members


def _port_id(spec: PlaygroundSpec, workspace: WorkspaceSpec, network: str) -> str:
    return records.port_id(spec.name, workspace.name, network)


def _ports(spec: PlaygroundSpec, assigned: Mapping[str, Assigned]) -> Iterable[PortRecord]:
    routers = routers_of(spec)
    for workspace in spec.workspaces.values():
        for index, nic in enumerate(workspace.nics):
            port = _port_id(spec, workspace, nic.network)
            yield PortRecord(
                playground=spec.name,
                workspace=workspace.name,
                network=nic.network,
                network_id=records.network_id(spec.name, nic.network),
                id=port,
                mac=assigned[port].mac,
                addresses=assigned[port].addresses,
                index=index,
                labels=endpoint_labels(spec.name, workspace, nic),
                router=router_of(index, workspace.nics, routers, workspace.name),
                aliases=nic.aliases,
                lease_s=nic.delivery.lease_s,
                options=nic.delivery.options,
                options6=nic.delivery.options6,
                boot=nic.delivery.boot,
                allowed_addresses=nic.allowed_addresses,
                allowed_macs=nic.allowed_macs,
                leads=nic.leads,
                dynamic=nic.dynamic,
            )


def _workspace(
    spec: PlaygroundSpec,
    workspace: WorkspaceSpec,
    known: Known,
    ports: Mapping[str, PortRecord],
    written: Mapping[str, PortRecord],
) -> WorkspaceRecord:
    """The workspace's record; where it is and whether it should run stays as it was. written: known ports by id."""
    old = known.workspaces.get(workspace.name)
    host = workspace.host
    declared = WorkspaceRecord(
        playground=spec.name,
        name=workspace.name,
        id=records.workspace_id(spec.name, workspace.name),
        driver=workspace.driver,
        ports=tuple(_port_id(spec, workspace, nic.network) for nic in workspace.nics),
        labels=dict(workspace.labels),
        pin=host if host is None or isinstance(host, str) else host.text,
        cpus=workspace.cpus,
        memory_mib=workspace.memory_mib,
        machine=workspace.machine,
        requires=workspace.requires,
        neighbours=None if workspace.neighbours == ANY else workspace.neighbours,
        grace_s=workspace.grace_s,
    )
    if old is None:
        return declared
    # compared with ports that exist: one not written yet (a crash after the flip) is no reason to restart the guest
    is_rebuilt = (
        (old.driver, old.ports) != (declared.driver, declared.ports)
        or old.made_of != declared.made_of
        or any(port in written and written[port].mac != ports[port].mac for port in declared.ports)
    )
    return replace(
        declared,
        desired=old.desired,
        host=old.host,
        generation=old.generation + is_rebuilt,
        placed=old.placed,
        reason=old.reason,
        overridden=old.overridden if old.overridden == declared.pin else None,
        hurry_s=old.hurry_s,
        reboots=old.reboots,
        resumes=old.resumes,
    )
