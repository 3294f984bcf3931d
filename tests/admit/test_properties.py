"""Admission over edits and crashes: the end depends on the file alone, nothing is given twice, nothing leaks."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from overlay.mac import slaac_address
from overlay.pools import Span, address_text
from playground.admit import Admission, Known, admit
from playground.admit.admission import admit_whole, claims_of
from playground.admit.gateways import with_gateways
from playground.records import NetworkRecord, PlaygroundRecord, PortRecord, WorkspaceRecord
from playground.spec import NetworkSpec, NicSpec, PlaygroundSpec, SpecErrors, load_playground
from policies.codec import pack
from tests.admit.grids import Site, a_host, writes


@st.composite
def files(draw: st.DrawFn) -> str:
    """Small playgrounds whose pools are sometimes too small, with fixed addresses and MACs that come and go."""
    lines = ["name: lab", "networks:"]
    networks = draw(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True))
    ways: dict[str, bool] = {}
    for network in networks:
        octet = {"a": 0, "b": 1}[network]
        lines.append(f"  {network}:")
        sixes = draw(st.sampled_from(["", "slaac", "dhcp", "both"]))
        leased = sixes in ("dhcp", "both")
        lines.append(f"    subnets: [10.0.{octet}.0/28{f', fd00:{octet}::/64, fd01:{octet}::/64' if sixes else ''}]")
        if sixes:
            lines.append(f"    ipv6: {sixes}")
        pools = [f"10.0.{octet}.8-10.0.{octet}.12", f"10.0.{octet}.4-10.0.{octet}.6"] * draw(st.booleans())
        pools += [f"fd00:{octet}::2-fd00:{octet}::6", f"fd00:{octet}::a-fd00:{octet}::b"] * (
            leased and draw(st.booleans())
        )
        if pools:
            lines.append(f"    pools: [{', '.join(pools)}]")
        if draw(st.booleans()):
            more = f", fd00:{octet}::{draw(st.integers(2, 8))}" if sixes else ""
            lines.append(f"    exclude: [10.0.{octet}.{draw(st.integers(1, 8))}{more}]")
        ways[network] = leased
    lines.append("workspaces:")
    lines.append(f"  w: {{scale: {draw(st.integers(0, 5))}, networks: [{', '.join(draw(st.permutations(networks)))}]}}")
    for index, name in enumerate(draw(st.lists(st.sampled_from("stuv"), max_size=3, unique=True))):
        octet = {"a": 0, "b": 1}[networks[0]]
        nic = [f"network: {networks[0]}"]
        fixed = [f"10.0.{octet}.{2 + draw(st.integers(0, 3)) * 3 + index}"] * draw(st.booleans())
        for prefix in ("fd00", "fd01") if ways[networks[0]] else ():
            fixed += [f"{prefix}:{octet}::{2 + draw(st.integers(0, 3)) * 3 + index:x}"] * draw(st.booleans())
        if fixed:
            nic.append(f"addresses: {fixed}")
        if draw(st.booleans()):
            nic.append(f"mac: '52:54:00:00:0{draw(st.integers(0, 2))}:0{index}'")
        lines.append(f"  {name}: {{networks: [{{{', '.join(nic)}}}], labels: {{v: '{draw(st.integers(0, 1))}'}}}}")
    if draw(st.booleans()):
        routed = draw(st.lists(st.sampled_from(networks), min_size=1, unique=True))
        lines.append(f"gateways: {{wan: {{kind: nat, networks: [{', '.join(routed)}]}}}}")
    lines.append(f"groups: {{g: v={draw(st.integers(0, 1))}}}")
    lines.append("policies:")
    for name in draw(st.permutations(["one", "two", None, None]))[: draw(st.integers(0, 4))]:
        rules = draw(st.sampled_from(["ingress: []", "egress: [{to: g}]", "egress: [{to: '@world', ports: tcp/1}]"]))
        named = f"name: {name}, " if name else ""
        lines.append(f"  - {{{named}subject: {draw(st.sampled_from(['g', 'w', 'v=1']))}, {rules}}}")
    return "\n".join(lines) + "\n"


def kinds(site: Site) -> tuple[dict[str, NetworkRecord], dict[str, WorkspaceRecord], dict[str, PortRecord]]:
    known = site.known()
    return dict(known.networks), dict(known.workspaces), {port.id: port for port in known.ports.values()}


def objects(site: Site) -> set[object]:
    """What exists and what of it follows from the file alone."""
    networks, workspaces, ports = kinds(site)
    return {
        *((n.name, n.subnets, n.gateways, n.mtu) for n in networks.values()),
        *((w.name, w.ports, w.driver, tuple(w.labels.items())) for w in workspaces.values()),
        *((p.workspace, p.network, p.index, tuple(p.labels.items())) for p in ports.values()),
        *((p.name, msgspec.json.encode(p.body)) for p in site.known().policies.values()),
    }


def check(site: Site, spec: PlaygroundSpec) -> None:
    """What holds after every accepted change."""
    networks, workspaces, ports = kinds(site)
    spec = with_gateways(spec)
    assert set(workspaces) == set(spec.workspaces)
    assert set(networks) == set(spec.networks)
    bodies = sorted(msgspec.json.encode(pack(policy)) for policy in spec.connectivity.policies)
    assert sorted(msgspec.json.encode(record.body) for record in site.known().policies.values()) == bodies
    needed = claims_of(site.known().grid)
    assert {key: claim.owner for key, claim in site.claims.items()} == needed
    # as many claims as there are unique things: nothing is given twice
    assert len(needed) == sum(1 + len(n.gateways) for n in networks.values()) + sum(
        1 + len(p.addresses) for p in ports.values()
    )
    for workspace in spec.workspaces.values():
        for nic in workspace.nics:
            port = site.known().ports[workspace.name, nic.network]
            network = spec.networks[nic.network]
            v4 = int(ip_address(port.addresses[0]))
            if nic.address is not None:
                assert v4 == nic.address
            else:
                assert any(v4 in pool.span for subnet in network.subnets for pool in subnet.pools)
                assert not any(v4 in hole for hole in network.exclude)
            assert nic.mac in (None, port.mac)
            check_sixes(nic, network, port)


def check_sixes(nic: NicSpec, network: NetworkSpec, port: PortRecord) -> None:
    """Each subnet gives what is fixed or in its pools, and what is made of the MAC where that may be had, or is all."""
    left = [int(ip_address(text)) for text in port.addresses[1:]]
    for subnet in network.subnets[1:]:
        formed = int(ip_address(slaac_address(subnet.text, port.mac)))
        mine = [address for address in left if address in subnet.span]
        fixed = [address for address in nic.addresses6 if address in subnet.span]
        if fixed:
            assert mine[0] == fixed[0]
        elif subnet.pools:
            assert any(mine[0] in pool.span for pool in subnet.pools)
            assert not any(mine[0] in hole for hole in network.exclude)
        leased = bool(fixed or subnet.pools)
        assert mine[leased:] == ([formed] if not leased or network.ipv6 == "both" else [])


@settings(max_examples=30, deadline=None)
@given(st.lists(files(), min_size=1, max_size=5))
def test_any_sequence_of_edits_ends_in_what_the_last_file_says(texts: list[str]) -> None:
    site = Site()
    for text in texts:
        try:
            spec = load_playground(text, "lab.yaml")
        except SpecErrors:
            continue
        before = (dict(site.records), dict(site.claims))
        fresh = Site()
        try:
            fresh.up(text)
        except SpecErrors:
            # what an empty site refuses, every site does, and nothing changes
            try:
                site.up(text)
            except SpecErrors:
                assert (site.records, site.claims) == before
                continue
            raise AssertionError("accepted only because of history") from None
        site.up(text)
        check(site, spec)
        assert objects(site) == objects(fresh)
        assert site.up(text) == Admission()


@settings(max_examples=30, deadline=None)
@given(files(), files(), st.data())
def test_a_crash_after_the_flip_is_rolled_forward_to_the_same_end(old: str, new: str, data: st.DataObject) -> None:
    site = Site()
    try:
        site.up(old)
        spec = load_playground(new, "lab.yaml")
        admission = admit(spec, site.known(), "c9")
    except SpecErrors:
        return
    whole, broken = site_copy(site), site_copy(site)
    whole.write(writes(admission))
    first = len(admission.claims) + (admission.root is not None)
    done = writes(admission)
    cut = data.draw(st.integers(min(first, len(done)), len(done)))
    broken.write(done[:cut])
    root = broken.records["playground/lab"]
    assert isinstance(root, PlaygroundRecord)
    rest = admit(load_playground(root.accepted()[0], root.file), broken.known(), root.change)
    assert rest.claims == ()
    assert rest.root is None
    broken.write(writes(rest))
    assert broken.claims == whole.claims
    assert without_generations(broken) == without_generations(whole)
    for key, record in whole.records.items():
        if isinstance(record, WorkspaceRecord):
            twin = broken.records[key]
            assert isinstance(twin, WorkspaceRecord)
            assert twin.generation in (record.generation, record.generation + 1)


@settings(max_examples=60, deadline=None)
@given(files(), files(), st.data())
def test_what_stands_need_not_be_looked_at(old: str, new: str, data: st.DataObject) -> None:
    """Whatever of a change is written, and whatever is gone: looking at what does not stand says what looking at all
    says."""
    site = Site(hosts=data.draw(st.sampled_from([[], [a_host()]])))
    try:
        site.up(old)
        spec, before = load_playground(new, "lab.yaml"), load_playground(old, "lab.yaml")
    except SpecErrors:
        return
    looked_at(before, site.known())
    admission = looked_at(spec, site.known())
    if admission is not None:
        done = writes(admission)
        site.write(done[: data.draw(st.integers(0, len(done)))])
    for key in data.draw(st.lists(st.sampled_from(sorted({*site.records, *site.claims})), max_size=2)):
        site.write([(key, None)])
    looked_at(spec, site.known())
    looked_at(before, site.known())


def looked_at(spec: PlaygroundSpec, known: Known) -> Admission | None:
    """What both ways of looking say; None where both refuse."""
    said: list[Admission | str] = []
    for way in (admit, admit_whole):
        try:
            said.append(way(spec, known, "c9"))
        except SpecErrors as error:
            said.append(str(error))
    assert said[0] == said[1]
    return said[0] if isinstance(said[0], Admission) else None


def site_copy(site: Site) -> Site:
    return Site(dict(site.records), dict(site.claims), list(site.hosts), site.changes)


def without_generations(site: Site) -> dict[str, object]:
    return {
        key: replace(record, generation=0) if isinstance(record, WorkspaceRecord) else record
        for key, record in site.records.items()
    }


@settings(max_examples=20, deadline=None)
@given(files(), files(), st.data())
def test_a_crash_before_the_flip_leaves_only_claims_that_the_next_change_takes_over(
    old: str, new: str, data: st.DataObject
) -> None:
    site = Site()
    try:
        site.up(old)
        admission = admit(load_playground(new, "lab.yaml"), site.known(), "c9")
    except SpecErrors:
        return
    for key, claim in admission.claims[: data.draw(st.integers(0, len(admission.claims)))]:
        site.claims[key] = claim
    spec = load_playground(new, "lab.yaml")
    site.up(new)
    check(site, spec)


@settings(max_examples=30, deadline=None)
@given(files())
def test_a_fresh_site_gives_what_a_dumb_allocator_gives(text: str) -> None:
    site = Site(hosts=[a_host()])
    try:
        spec = load_playground(text, "lab.yaml")
    except SpecErrors:
        return
    expected = dumb(with_gateways(spec))
    try:
        site.up(text)
    except SpecErrors as error:
        assert expected is None
        assert "exhausted" in str(error)
        return
    assert expected is not None
    found = {key: chosen(spec.networks[key[1]], port) for key, port in site.known().ports.items()}
    assert found == expected


def chosen(network: NetworkSpec, port: PortRecord) -> list[str]:
    """A port's addresses but those that are made of its MAC."""
    formed = {slaac_address(subnet.text, port.mac) for subnet in network.subnets if subnet.version == 6}
    return [text for text in port.addresses if text not in formed]


def dumb(spec: PlaygroundSpec) -> dict[tuple[str, str], list[str]] | None:
    """Walks every pool from its first address for every port: once for IPv4, and once for each IPv6 subnet, of which
    one without pools has none to give. None when a port gets nothing where there are pools."""
    given: dict[tuple[str, str], list[str]] = {}
    for network in spec.networks.values():
        ports = [(w.name, nic) for w in spec.workspaces.values() for nic in w.nics if nic.network == network.name]
        taken: set[int | None] = {subnet.gateway for subnet in network.subnets}
        for _, nic in ports:
            taken |= {nic.address, *nic.addresses6}
        sixes = [[subnet] for subnet in network.subnets if subnet.version == 6]
        for subnets in [[subnet for subnet in network.subnets if subnet.version == 4], *sixes]:
            version = subnets[0].version
            ranges: list[Span] = [pool.span for subnet in subnets for pool in subnet.pools]
            for name, nic in ports:
                fixed = [nic.address] if version == 4 else [a for a in nic.addresses6 if a in subnets[0].span]
                address = fixed[0] if fixed else None
                for span in ranges:
                    for candidate in range(span.first, span.last + 1):
                        is_free = candidate not in taken and not any(candidate in e for e in network.exclude)
                        if address is None and is_free:
                            address = candidate
                if address is not None:
                    taken.add(address)
                    given.setdefault((name, network.name), []).append(address_text(version, address))
                elif ranges:
                    return None
    return given
