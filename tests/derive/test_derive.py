"""What a host's state is derived to be, from records alone."""

from __future__ import annotations

import ipaddress
import itertools
import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overlay.mac import link_local
from overlay.state import Gate, Network, NetworkId, PortId, port_device, vxlan_device
from overlay.topology import ANNOUNCING, OPEN, lay_out
from playground import view as view_module
from playground.derive import Derivation, Role, Setting, derive_whole
from playground.derive.guests import role_of
from playground.records import (
    SITE_POLICIES,
    BindingRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    PolicyRecord,
    PortRecord,
    WorkspaceRecord,
    network_id,
    port_id,
    workspace_id,
)
from playground.view import View, freeze, host_scope, playground_scope, thaw
from playground.wire import Changed, Complete, Enter, Leave, Viewed
from policies.codec import pack
from policies.guard.rules import PAIRS
from policies.model import EndpointPeer, Mode, Origin, Policy, Rule, SamePeer, Tier, WorldPeer
from policies.ports import Ports, Protocol
from policies.selector import parse_selector

ROUTER = "00:00:5e:00:01:07"
UNDERLAY = {"n1": "192.0.2.11", "n2": "192.0.2.12", "n3": "192.0.2.13"}


def a_network(name: str = "grid", playground: str = "atlas", vni: int = 4096) -> NetworkRecord:
    return NetworkRecord(
        playground=playground,
        name=name,
        id=network_id(playground, name),
        vni=vni,
        mtu=1450,
        subnets=("10.0.0.0/24", "fd00::/64"),
        gateways=("10.0.0.1", "fd00::1"),
    )


def a_port(index: int, network: NetworkRecord) -> PortRecord:
    workspace = f"w-{index}"
    return PortRecord(
        playground=network.playground,
        workspace=workspace,
        network=network.name,
        network_id=network.id,
        id=port_id(network.playground, workspace, network.name),
        mac=f"02:00:00:00:00:{index:02x}",
        addresses=(f"10.0.0.{index + 10}", f"fd00::{index + 10:x}"),
        allowed_addresses=("10.0.0.200", "10.9.0.0/24") if index == 2 else (),
        allowed_macs={2: ("52:54:00:00:00:09", ROUTER), 4: (ROUTER,)}.get(index, ()),
    )


def a_leg(network: NetworkRecord) -> PortRecord:
    """The gateway `wan` on a network."""
    return PortRecord(
        playground=network.playground,
        workspace="@wan",
        network=network.name,
        network_id=network.id,
        id=port_id(network.playground, "@wan", network.name),
        mac="02:00:00:00:00:99",
        addresses=("10.0.0.99", "fd00::99"),
    )


def a_gateway(leg: PortRecord, host: str) -> WorkspaceRecord:
    """The gateway of one leg, as it is placed."""
    id = workspace_id(leg.playground, "@wan")
    return WorkspaceRecord(playground=leg.playground, name="@wan", id=id, driver="nat", ports=(leg.id,), host=host)


def a_binding(port: PortRecord, host: str) -> BindingRecord:
    return BindingRecord(port=port.id, playground=port.playground, workspace=port.workspace, active=host, source=host)


def is_router(binding: BindingRecord) -> BindingRecord:
    """The virtual router's MAC was heard last at its port."""
    return msgspec.structs.replace(binding, routers=(ROUTER,))


def a_workspace(port: PortRecord, host: str | None, **fields: object) -> WorkspaceRecord:
    record = WorkspaceRecord(
        playground=port.playground,
        name=port.workspace,
        id=workspace_id(port.playground, port.workspace),
        driver="netns",
        ports=(port.id,),
        host=host,
    )
    return msgspec.structs.replace(record, **fields)


def a_move(port: PortRecord, source: str, target: str, state: str) -> MigrationRecord:
    return MigrationRecord(
        playground=port.playground,
        workspace=port.workspace,
        source=source,
        target=target,
        state=state,
        generation=1,
        started_utc_s=0.0,
        deadline_utc_s=60.0,
    )


def in_move(port: PortRecord, source: str, target: str, phase: str) -> BindingRecord:
    active = target if phase == "activated" else source
    return BindingRecord(
        port=port.id,
        playground=port.playground,
        workspace=port.workspace,
        active=active,
        source=source,
        target=target,
        phase=phase,  # type: ignore[arg-type]
    )


def a_view(host: str, playground: list[Viewed], here: list[Viewed], name: str = "atlas") -> View:
    view = View()
    hosts: list[Viewed] = [HostRecord(name=n, site="lab", underlay=u) for n, u in UNDERLAY.items()]
    view.take(Enter("site", 1, hosts))
    view.take(Enter(host_scope(host), 1, here))
    if playground:
        view.take(Enter(playground_scope(name), 1, playground))
    view.take(Complete(1))
    return view


def a_setting(host: str, **fields: object) -> Setting:
    return replace(Setting(host, UNDERLAY[host], "internal"), **fields)  # type: ignore[arg-type]


GRID = a_network()
P0, P1, P2 = (a_port(i, GRID) for i in range(3))


def test_a_host_without_a_port_of_a_network_holds_nothing_of_it() -> None:
    view = a_view("n3", [GRID, P0, a_binding(P0, "n1")], [])
    derived = derive_whole(view, a_setting("n3"))
    assert not derived.state.networks
    assert not derived.services


def test_local_ports_open_and_remote_ones_point_to_their_host() -> None:
    view = a_view("n1", [GRID, P0, P1, a_binding(P0, "n1"), a_binding(P1, "n2")], [a_workspace(P0, "n1")])
    network = derive_whole(view, a_setting("n1")).state.networks[GRID.id]  # type: ignore[index]
    assert network.ports[PortId(P0.id)].gate is Gate.OPEN
    assert network.remotes[P1.mac].vtep == UNDERLAY["n2"]
    assert network.vteps == {UNDERLAY["n2"]}
    assert not network.chase


@pytest.mark.parametrize("phase", ["requested", "prepared", "copying"])
def test_until_a_workspace_arrives_its_target_is_gated_and_chases_to_the_source(phase: str) -> None:
    records: list[Viewed] = [GRID, P0, in_move(P0, "n1", "n2", phase)]
    target = derive_whole(a_view("n2", records, []), a_setting("n2")).state.networks[GRID.id]  # type: ignore[index]
    source = derive_whole(a_view("n1", records, []), a_setting("n1")).state.networks[GRID.id]  # type: ignore[index]
    assert target.ports[PortId(P0.id)].gate is Gate.CLOSED
    assert target.chase == {P0.mac: UNDERLAY["n1"]}
    assert source.ports[PortId(P0.id)].gate is Gate.OPEN
    assert not source.chase


def test_the_target_opens_before_the_records_say_so() -> None:
    records: list[Viewed] = [GRID, P0, in_move(P0, "n1", "n2", "copying")]
    setting = a_setting("n2", arrived=frozenset({workspace_id("atlas", P0.workspace)}))
    view = a_view("n2", records, [a_workspace(P0, "n1"), a_move(P0, "n1", "n2", "copying")])
    network = derive_whole(view, setting).state.networks[GRID.id]  # type: ignore[index]
    assert network.ports[PortId(P0.id)].gate is Gate.OPEN
    assert not network.chase
    assert P0.mac not in network.remotes


def copied(phase: str) -> BindingRecord:
    return msgspec.structs.replace(in_move(P0, "n1", "n2", phase), copied=True)


def ends(binding: BindingRecord, running: str) -> dict[str, Network]:
    """What both hosts derive of a move that a hypervisor makes. running: where the guest runs, by their own look."""
    guest, found = workspace_id("atlas", P0.workspace), {}
    for host in ("n1", "n2"):
        here = [a_workspace(P0, "n1", driver="libvirt"), a_move(P0, "n1", "n2", binding.phase)]
        setting = a_setting(host, arrived=frozenset({guest} if host == running else ()))
        found[host] = derive_whole(a_view(host, [GRID, P0, binding], here), setting).state.networks[GRID.id]  # type: ignore[index]
    return found


def test_what_stands_still_waits_for_its_frames_at_the_target() -> None:
    found = ends(copied("landing"), running="")
    assert found["n2"].ports[PortId(P0.id)].gate is Gate.OPEN and not found["n2"].chase
    assert found["n1"].ports[PortId(P0.id)].gate is Gate.CLOSED
    assert found["n1"].chase == {P0.mac: UNDERLAY["n2"]} and found["n1"].remotes[P0.mac].vtep == UNDERLAY["n2"]


def test_what_goes_on_at_the_source_is_open_there_whatever_records_say() -> None:
    assert ends(copied("landing"), running="n1")["n1"].ports[PortId(P0.id)].gate is Gate.OPEN


def test_while_it_is_copied_no_frame_can_go_in_circles() -> None:
    for phases in itertools.product(("copying", "landing"), repeat=2):
        source = ends(copied(phases[0]), running="n1" if phases[0] == "copying" else "")["n1"]
        target = ends(copied(phases[1]), running="")["n2"]
        assert not (source.chase and target.chase), phases


def test_once_arrived_the_source_closes_and_chases_to_the_target() -> None:
    records: list[Viewed] = [GRID, P0, in_move(P0, "n1", "n2", "activated")]
    source = derive_whole(a_view("n1", records, []), a_setting("n1")).state.networks[GRID.id]  # type: ignore[index]
    other = derive_whole(a_view("n3", [*records, P1, a_binding(P1, "n3")], []), a_setting("n3")).state.networks[GRID.id]  # type: ignore[index]
    assert source.ports[PortId(P0.id)].gate is Gate.CLOSED
    assert source.chase == {P0.mac: UNDERLAY["n2"]}
    assert other.remotes[P0.mac].vtep == UNDERLAY["n2"]


def test_never_do_both_ends_of_a_move_chase_without_one_being_open() -> None:
    for phase in ("requested", "prepared", "copying", "activated"):
        records: list[Viewed] = [GRID, P0, in_move(P0, "n1", "n2", phase)]
        ends = [derive_whole(a_view(h, records, []), a_setting(h)).state.networks[GRID.id] for h in ("n1", "n2")]  # type: ignore[index]
        assert sum(bool(network.chase) for network in ends) == 1


@pytest.mark.parametrize(
    ("state", "host", "role"),
    [
        ("requested", "n1", Role.RUN),
        ("requested", "n2", Role.ARRIVE),
        ("prepared", "n2", Role.ARRIVE),
        ("copying", "n2", Role.TAKE),
        ("copying", "n1", Role.RUN),
        ("activated", "n2", Role.RUN),
        ("activated", "n1", Role.HOLD),
        ("settled", "n1", Role.RUN),
        ("settled", "n2", Role.AWAY),
        ("aborted", "n2", Role.AWAY),
        ("requested", "n3", Role.AWAY),
    ],
)
def test_role_in_a_move(state: str, host: str, role: Role | None) -> None:
    assert role_of(a_workspace(P0, "n1"), a_move(P0, "n1", "n2", state), host) is role


def test_what_a_port_is_allowed_leads_to_it_from_here_and_there_and_nobody_answers_for_it() -> None:
    port = a_port(2, GRID)
    for host in ("n1", "n2"):
        view = a_view(host, [GRID, P0, a_binding(P0, "n2"), port, a_binding(port, "n1")], [])
        network = derive_whole(view, a_setting(host)).state.networks[NetworkId(GRID.id)]
        tables = lay_out(network, UNDERLAY[host], {port_device(PortId(port.id))}).tables
        way = port_device(PortId(port.id)) if host == "n1" else vxlan_device(NetworkId(GRID.id))
        assert {tables.forwarding[mac] for mac in (port.mac, *port.allowed_macs) if mac != ROUTER} == {way}
        assert set(port.addresses) < tables.neighbours.keys()
        assert tables.neighbours.keys().isdisjoint(port.allowed_addresses)


def test_a_virtual_routers_mac_leads_to_the_one_port_where_it_was_heard_last_and_leaves_all_that_may_have_it() -> None:
    here, there, device = a_port(2, GRID), a_port(4, GRID), vxlan_device(NetworkId(GRID.id))
    bindings = {here.id: a_binding(here, "n1"), there.id: a_binding(there, "n2")}
    behind = {str(int(ROUTER.replace(":", ""), 16)), there.addresses[0]}
    for holder, way in ((None, None), (here, port_device(PortId(here.id))), (there, device)):
        said = {**bindings, **({holder.id: is_router(bindings[holder.id])} if holder is not None else {})}
        derived = derive_whole(a_view("n1", [GRID, here, there, *said.values()], []), a_setting("n1"))
        network = derived.state.networks[NetworkId(GRID.id)]
        tables = lay_out(network, UNDERLAY["n1"], {port_device(PortId(here.id))}).tables
        assert tables.forwarding.get(ROUTER) == way
        pairs = derived.rules.guards[device][device, ROUTER].elements[PAIRS[4]]
        assert all(any(one in key for key in pairs) for one in behind)


def test_only_a_port_that_is_allowed_more_announces_it_to_all_hosts() -> None:
    one, other = a_port(2, GRID), a_port(3, GRID)
    view = a_view("n1", [GRID, one, a_binding(one, "n1"), other, a_binding(other, "n1")], [])
    network = derive_whole(view, a_setting("n1")).state.networks[NetworkId(GRID.id)]
    links = lay_out(network, UNDERLAY["n1"], {port_device(PortId(port.id)) for port in (one, other)}).ports
    assert [links[port_device(PortId(port.id))].flags for port in (one, other)] == [ANNOUNCING, OPEN]


def test_a_stopped_workspace_keeps_its_port_and_has_the_role_stop() -> None:
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1", desired="stopped")])
    derived = derive_whole(view, a_setting("n1"))
    assert derived.wants[workspace_id("atlas", P0.workspace)].role is Role.STOP
    assert PortId(P0.id) in derived.state.networks[GRID.id].ports  # type: ignore[index]


def test_two_playgrounds_with_the_same_subnet_keep_apart() -> None:
    other = a_network(playground="other", vni=4097)
    port = a_port(0, other)
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1")], [])
    view.take(Enter(playground_scope("other"), 2, [other, port, a_binding(port, "n1")]))
    derived = derive_whole(view, a_setting("n1"))
    assert {n.vni for n in derived.state.networks.values()} == {4096, 4097}
    assert {n.leg.namespace for n in derived.state.networks.values() if n.leg} == {
        "playground-atlas",
        "playground-other",
    }


def test_a_client_is_told_its_address_mtu_and_names_and_no_router() -> None:
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
    scope = derive_whole(view, a_setting("n1")).services[f"port/{P0.id}"]
    assert scope.v4.address == P0.addresses[0]  # type: ignore[union-attr]
    assert scope.v4.mtu == 1450  # type: ignore[union-attr]
    assert scope.v4.router is None  # type: ignore[union-attr]
    assert scope.v4.search == ("grid.atlas.internal", "atlas.internal")  # type: ignore[union-attr]


def test_others_are_told_the_way_to_what_a_nic_leads_to_and_it_itself_is_not() -> None:
    leading = msgspec.structs.replace(a_port(4, GRID), allowed_addresses=("10.9.0.0/24",), leads=("10.9.0.0/24",))
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1"), leading, a_binding(leading, "n1")], [])
    services = derive_whole(view, a_setting("n1")).services
    assert services[f"port/{P0.id}"].v4.routes == (("10.9.0.0/24", leading.addresses[0]),)  # type: ignore[union-attr]
    assert services[f"port/{leading.id}"].v4.routes == ()  # type: ignore[union-attr]


def test_what_a_client_formed_is_its_ports_for_guard_and_neighbours() -> None:
    formed = msgspec.structs.replace(a_binding(P0, "n1"), learned=("fe80::5", "fd00::5"))
    derived = derive_whole(a_view("n1", [GRID, P0, formed], []), a_setting("n1"))
    assert {"fe80::5", "fd00::5"} <= {*derived.state.networks[GRID.id].ports[PortId(P0.id)].addresses}  # type: ignore[index]
    device = port_device(PortId(P0.id))
    pairs = " ".join(derived.rules.guards[device][device].elements["pairs6"])
    own = int(ipaddress.IPv6Address(link_local(P0.mac)))
    assert f"{0xFD000000000000000000000000000005:#x}" in pairs and f"{0xFE800000000000000000000000000005:#x}" in pairs
    assert f"{own:#x}" not in pairs


HOSTS = ("n1", "n2", "n3")
MOVES = st.tuples(st.integers(0, 7), st.sampled_from(HOSTS), st.sampled_from(["put", "remove", "move"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(MOVES, max_size=25), st.randoms(use_true_random=False))
def test_what_is_kept_equals_what_is_derived_from_nothing(
    edits: list[tuple[int, str, str]], rng: random.Random
) -> None:
    """The fast derivation against the dumb one, over any history; a view that heard all in another order agrees."""
    derivation = Derivation()
    view = a_view("n1", [GRID], [])
    final: dict[int, list[Viewed]] = {}
    for index, host, edit in edits:
        port = a_port(index, GRID)
        if edit == "remove":
            final.pop(index, None)
            keys = [f"port/atlas/{port.workspace}/grid", f"claim/active/{port.id}"]
            view.take(Changed(playground_scope("atlas"), 2, [], keys))
        else:
            binding = a_binding(port, host) if edit == "put" else in_move(port, host, HOSTS[(index + 1) % 3], "copying")
            final[index] = [port, binding]
            view.take(Changed(playground_scope("atlas"), 2, [port, binding], []))
        assert derivation.derive(view, a_setting("n1")) == derive_whole(view, a_setting("n1"))
    records: list[Viewed] = [record for pair in final.values() for record in pair]
    rng.shuffle(records)
    again = a_view("n1", [*records, GRID], [])
    assert derive_whole(again, a_setting("n1")).state == derive_whole(view, a_setting("n1")).state


OTHER = a_network("grid", "other", 4097)
SECOND = a_network("second", "atlas", 4098)
EDITS = st.tuples(
    st.sampled_from((GRID, SECOND, OTHER)),
    st.integers(0, 4),
    st.sampled_from(HOSTS),
    st.sampled_from(
        (
            *("port", "bind", "unbind", "move", "address", "workspace", "adopt", "leave", "network", "mtu", "host"),
            *("forget", "gateway", "leg", "no leg", "routed", "learned", "leads"),
            *("router", "policy", "same", "stage", "no policy", "site policy", "no site policy", "label"),
        )
    ),
)


def a_policy(index: int, owner: str, host: str, *, mode: Mode = Mode.ENFORCE, is_same: bool = False) -> PolicyRecord:
    """One of three of a playground, or of the site. host: picks what it says."""
    number, playground = index % 3, "" if owner == SITE_POLICIES else owner
    places = frozenset({playground}) if playground else None
    roles = f"role={'ab'[index % 2]}" if host != "n3" else f"workspace=w-{index}"
    peers = (SamePeer("role") if is_same else EndpointPeer(parse_selector(roles), places), WorldPeer())
    rule = Rule(peers, Ports.of(Protocol.TCP, 20 + index), Origin("f", 1))
    subject = EndpointPeer(parse_selector("role=b" if host == "n1" else "*"), places)
    tier = Tier.OWNER if playground else Tier.ADMIN
    priority = number + 1 if tier is Tier.ADMIN else 0
    replaces = "p-0" if mode is Mode.STAGE and index == 4 else ""
    policy = Policy(
        *(f"p-{number}", (subject,), None if index == 3 else (rule,), (rule,), Origin("f", number), tier, priority),
        mode=mode,
        playground=playground,
        replaces=replaces,
    )
    return PolicyRecord(playground=owner, name=policy.name, body=pack(policy))


PLACES = st.tuples(st.sampled_from(["atlas", "other"]), st.integers(0, 4))


def edit(view: View, network: NetworkRecord, index: int, host: str, kind: str) -> None:
    """One change of a view, as the controller would say it."""
    port, own, scope = a_port(index, network), host_scope("n1"), playground_scope(network.playground)
    third = HOSTS[(HOSTS.index(host) + 1) % 3]
    binding = f"claim/active/{port.id}"
    workspace = f"workspace/{port.playground}/{port.workspace}"
    entered = [network] if scope not in view.scopes else []
    match kind:
        case "port":
            view.take(Changed(scope, 2, [*entered, port], []))
        case "bind":
            view.take(Changed(scope, 2, [*entered, port, a_binding(port, host)], []))
        case "unbind":
            view.take(Changed(scope, 2, [], [binding, f"port/{port.playground}/{port.workspace}/{port.network}"]))
        case "move":
            moving = in_move(port, host, third, "copying" if index % 2 else "activated")
            view.take(Changed(scope, 2, [*entered, port, moving], []))
            view.take(Changed(own, 2, [a_workspace(port, host), a_move(port, host, third, "copying")], []))
        case "address":
            view.take(Changed(scope, 2, [msgspec.structs.replace(port, addresses=("10.0.0.99",))], []))
        case "workspace":
            view.take(Changed(own, 2, [a_workspace(port, host)], []))
        case "adopt":
            view.take(Changed(own, 2, [a_workspace(port, "n1", driver="external")], []))
        case "leave":
            view.take(Changed(own, 2, [], [workspace, f"migration/{port.playground}/{port.workspace}"]))
        case "network":
            view.take(Changed(scope, 2, [network], []))
        case "mtu":
            view.take(Changed(scope, 2, [msgspec.structs.replace(network, mtu=1300 + index)], []))
        case "host":
            view.take(Changed("site", 2, [HostRecord(name=host, site="lab", underlay=f"192.0.2.{50 + index}")], []))
        case "forget":
            view.take(Leave(scope))
        case "gateway":
            leg = a_leg(network)
            view.take(Changed(scope, 2, [*entered, leg, a_binding(leg, host)], []))
            view.take(Changed(own, 2, [a_gateway(leg, host)], []))
        case "leg":
            leg = msgspec.structs.replace(a_leg(network), mac=f"02:00:00:00:01:{index:02x}")
            view.take(Changed(scope, 2, [*entered, leg], []))
        case "no leg":
            view.take(Changed(scope, 2, [], [f"port/{port.playground}/@wan/{port.network}"]))
        case "learned":
            formed = msgspec.structs.replace(a_binding(port, host), learned=(f"fe80::{index}", f"fd00::77:{index}"))
            view.take(Changed(scope, 2, [*entered, port, formed], []))
        case "leads":
            leading = msgspec.structs.replace(port, allowed_addresses=("10.9.0.0/24",), leads=("10.9.0.0/24",))
            view.take(Changed(scope, 2, [*entered, leading], []))
        case "routed":
            view.take(Changed(scope, 2, [*entered, msgspec.structs.replace(port, router="wan")], []))
        case "router":
            view.take(Changed(scope, 2, [*entered, port, is_router(a_binding(port, host))], []))
        case "policy" | "same" | "stage":
            mode = Mode.STAGE if kind == "stage" else Mode.ENFORCE
            policy = a_policy(index, network.playground, host, mode=mode, is_same=kind == "same")
            view.take(Changed(scope, 2, [*entered, policy], []))
        case "no policy":
            view.take(Changed(scope, 2, [], [f"policy/{network.playground}/p-{index % 3}"]))
        case "site policy":
            view.take(Changed("site", 2, [a_policy(index, SITE_POLICIES, host)], []))
        case "no site policy":
            view.take(Changed("site", 2, [], [f"policy/{SITE_POLICIES}/p-{index % 3}"]))
        case "label":
            labels = {"role": "ab"[index % 2], "workspace": port.workspace}
            view.take(Changed(scope, 2, [*entered, msgspec.structs.replace(port, labels=labels)], []))


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(EDITS, st.sets(st.tuples(st.sampled_from(["atlas", "other"]), st.integers(0, 4)))), max_size=15)
)
@example([((SECOND, 3, "n3", "move"), {("atlas", 3)}), ((GRID, 3, "n1", "move"), set())])
@example([((SECOND, 3, "n3", "move"), set()), ((GRID, 3, "n1", "move"), {("atlas", 3)})])
@example([((GRID, i, "n1", kind), set()) for kind in ("bind", "label", "policy", "no policy") for i in (0, 1, 2)])
@example([((GRID, i, "n2", kind), set()) for kind in ("bind", "policy", "stage", "site policy") for i in (4, 0, 3)])
def test_whatever_changes_what_is_kept_equals_what_is_derived_from_nothing(history: list) -> None:
    derivation = Derivation()
    view = a_view("n1", [GRID, SECOND], [])
    for change, here in history:
        edit(view, *change)
        arrived = frozenset(workspace_id(playground, f"w-{index}") for playground, index in here)
        setting = a_setting("n1", arrived=arrived)
        derived = derivation.derive(view, setting)
        assert derived == derive_whole(view, setting)
        assert derivation.derive(view, setting) is derived


def test_a_log_that_does_not_reach_back_so_far_costs_a_whole_derivation_and_no_truth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_module, "LOGGED", 4)
    ports = [a_port(i, GRID) for i in range(30)]
    view = a_view("n1", [GRID, *ports, *(a_binding(p, "n2") for p in ports)], [])
    derivation = Derivation()
    derivation.derive(view, a_setting("n1"))
    for first in (0, 29, 3, 20, 11):
        for port in ports[first : first + 9]:
            view.take(Changed(playground_scope("atlas"), 2, [a_binding(port, HOSTS[first % 3])], []))
            view.take(Changed(host_scope("n1"), 2, [a_workspace(port, HOSTS[first % 3])], []))
        assert derivation.derive(view, a_setting("n1")) == derive_whole(view, a_setting("n1"))


def test_what_did_not_change_is_the_same_object() -> None:
    ports = [a_port(i, GRID) for i in range(8)]
    records: list[Viewed] = [GRID, *ports, *(a_binding(p, HOSTS[i % 2]) for i, p in enumerate(ports[:7]))]
    view = a_view("n1", records, [a_workspace(ports[0], "n1")])
    derivation = Derivation()
    before = derivation.derive(view, a_setting("n1"))
    view.take(Changed(playground_scope("atlas"), 2, [a_binding(ports[7], "n2")], []))
    after = derivation.derive(view, a_setting("n1"))
    old, new = before.state.networks[GRID.id], after.state.networks[GRID.id]  # type: ignore[index]
    assert new.remotes.keys() - old.remotes.keys() == {ports[7].mac}
    assert all(new.remotes[mac] is remote for mac, remote in old.remotes.items())
    assert all(new.ports[id] is port for id, port in old.ports.items())
    assert all(after.services[key] is value for key, value in before.services.items() if ports[7].id not in key)
    assert after.wants is before.wants


def test_a_scope_that_a_new_connection_does_not_enter_is_void_once_the_view_is_complete() -> None:
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1")], [])
    view.begin()
    view.take(Enter("site", 5, []))
    assert playground_scope("atlas") in view.scopes
    view.take(Complete(5))
    assert playground_scope("atlas") not in view.scopes


def test_a_view_survives_its_cache() -> None:
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1")], [a_workspace(P0, "n1")])
    thawed, cached = thaw(freeze(view, 12.5, "internal", []))
    assert cached.at_utc_s == 12.5
    assert derive_whole(thawed, a_setting("n1")) == derive_whole(view, a_setting("n1"))


def test_leaving_a_scope_forgets_it() -> None:
    view = a_view("n1", [GRID, P0, a_binding(P0, "n1")], [])
    view.take(Leave(playground_scope("atlas")))
    assert not derive_whole(view, a_setting("n1")).state.networks
