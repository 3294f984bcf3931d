"""What a probe tries: every pair, and of ports those at which a policy can turn; never more than it says."""

from __future__ import annotations

import msgspec
import pytest

from playground.controller import trying
from playground.controller.trying import ECHO, MOST_PORTS, OUTSIDE, Plan, Try, boundaries, open_pair, plan
from playground.controller.world import Grid
from playground.records import NetworkRecord, PolicyRecord, PortRecord, WorkspaceRecord, port_id
from playground.spec import load_playground
from playground.spec.scene import endpoints
from policies.codec import pack
from policies.ports import Ports, Protocol

FILE = """
name: lab
networks:
  grid: {subnets: [10.0.0.0/24, "fd00::/64"]}
  side: {subnets: [10.1.0.0/24]}
workspaces:
  head: {labels: {role: head}, networks: [grid]}
  worker: {scale: 3, labels: {role: worker}, networks: [grid]}
  other: {networks: [side]}
"""

POLICIES = """
policies:
  - {name: in, subject: role=head, ingress: [{from: role=worker, ports: [tcp/22, udp/5000-5100]}]}
  - {name: out, subject: role=worker, egress: [{to: role=head}]}
"""


def a_grid(text: str) -> Grid:
    """The records of a file, as far as a probe reads them."""
    spec = load_playground(text, "lab.yaml")
    grid = Grid()
    for number, network in enumerate(spec.networks.values()):
        subnets = tuple(subnet.text for subnet in network.subnets)
        record = NetworkRecord(
            playground="lab", name=network.name, id=network.name, vni=number, mtu=1450, subnets=subnets, gateways=()
        )
        grid.networks[record.id] = record
    for number, endpoint in enumerate(endpoints(spec), 2):
        id = port_id("lab", endpoint.workspace, endpoint.network)
        addresses = (f"10.0.0.{number}", f"fd00::{number:x}")
        grid.ports[id] = PortRecord(
            playground="lab", workspace=endpoint.workspace, network=endpoint.network, network_id=endpoint.network,
            id=id, mac="02:00:00:00:00:01", labels=dict(endpoint.labels), addresses=addresses,
        )  # fmt: skip
        grid.workspaces[endpoint.workspace] = WorkspaceRecord(
            playground="lab", name=endpoint.workspace, id=endpoint.workspace, driver="netns", ports=(id,), host="n1"
        )
    for policy in spec.connectivity.policies:
        grid.policies[policy.name] = PolicyRecord(playground="lab", name=policy.name, body=pack(policy))
    return grid


def planned(text: str) -> Plan:
    grid = a_grid(text)
    return plan(grid, (), list(grid.workspaces.values()))


def test_without_policies_all_of_a_network_answer_and_nobody_knocks() -> None:
    found = planned(FILE)
    assert found.knocks == ()
    assert len({(one.source, one.destination) for one in found.echoes}) == 20
    assert all(one.is_allowed == ("other" not in (one.source, one.destination)) for one in found.echoes)
    to_head = [one.address for one in found.echoes if (one.source, one.destination) == ("worker-0", "head")]
    assert to_head == ["10.0.0.2", "fd00::2"]


def test_policies_decide_what_should_answer() -> None:
    found = planned(FILE + POLICIES)
    to_others = {(one.source, one.destination) for one in found.echoes if one.is_allowed}
    assert to_others == {("head", f"worker-{number}") for number in range(3)}


def test_knocks_are_at_the_ends_of_ranges_beside_them_and_elsewhere_and_as_the_evaluator_says() -> None:
    knocks = planned(FILE + POLICIES).knocks
    towards = {one.port: one.is_allowed for one in knocks if (one.source, one.destination) == ("worker-0", "head")}
    assert towards == {
        **{"tcp/21": False, "tcp/22": True, "tcp/23": False, f"tcp/{OUTSIDE}": False},
        **{"udp/4999": False, "udp/5000": True, "udp/5100": True, "udp/5101": False, f"udp/{OUTSIDE}": False},
    }
    among = {one.port: one.is_allowed for one in knocks if (one.source, one.destination) == ("worker-0", "worker-1")}
    assert among == {f"tcp/{OUTSIDE}": False, f"udp/{OUTSIDE}": False}
    assert not [one for one in knocks if "other" in (one.source, one.destination)]


def test_of_too_many_pairs_those_are_left_out_that_others_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "MOST_TRIES", 60)
    found = planned(FILE + POLICIES)
    pairs = {(one.source, one.destination) for one in found.knocks}
    kinds = {(source.partition("-")[0], destination.partition("-")[0]) for source, destination in pairs}
    assert kinds == {("worker", "head"), ("head", "worker"), ("worker", "worker")}
    assert found.alike == 12 - len(pairs) > 0
    assert len(found.knocks) <= 60


def test_boundaries_are_few_however_many_ranges_there_are() -> None:
    many = [Ports.of(Protocol.TCP, 10 * number) for number in range(1, 100)]
    found = boundaries(Protocol.TCP, many)
    assert len(found) == MOST_PORTS
    assert OUTSIDE in found and found[0] == 9


def test_the_first_and_the_last_port_have_nothing_beside_them() -> None:
    ends = [Ports.of(Protocol.TCP, 1), Ports.of(Protocol.TCP, 65535), Ports.of(Protocol.TCP)]
    assert boundaries(Protocol.TCP, ends) == [1, 2, OUTSIDE, 65534, 65535]
    assert boundaries(Protocol.UDP, ends) == [OUTSIDE]


def test_an_echo_request_is_judged_as_its_own_kind_of_icmp() -> None:
    only_echo = FILE + "policies: [{name: p, subject: role=head, ingress: [{from: role=worker, ports: [icmp/echo]}]}]"
    found = {one for one in planned(only_echo).echoes if one.destination == "head" and one.source == "worker-0"}
    assert ECHO == 8
    assert found == {Try("worker-0", "head", address, "icmp", is_allowed=True) for address in ("10.0.0.2", "fd00::2")}


def test_where_there_is_a_gateway_the_world_is_tried_by_the_port_that_leads_there() -> None:
    grid = a_grid(FILE)
    world = ("203.0.113.1", "2001:db8:ffff::1")
    running = list(grid.workspaces.values())
    assert not [one for one in plan(grid, (), running, world).echoes if one.destination == "@world"]
    routed = next(port for port in grid.ports.values() if port.workspace == "head")
    grid.ports[routed.id] = msgspec.structs.replace(routed, router="wan", addresses=routed.addresses[:1])
    leg = msgspec.structs.replace(routed, workspace="@wan", id="0" * 12, labels={}, addresses=("10.0.0.99",))
    grid.ports[leg.id] = leg
    found = [one for one in plan(grid, (), running, world).echoes if one.destination == "@world"]
    assert len(found) == 2 * len(running)
    assert [(one.source, one.address) for one in found if one.is_allowed] == [("head", world[0])]


def test_what_may_not_go_out_is_expected_not_to() -> None:
    grid = a_grid(FILE + 'policies: [{name: inside, subject: "*", egress: [{to: "*"}]}]\n')
    for id, port in list(grid.ports.items()):
        grid.ports[id] = msgspec.structs.replace(port, router="wan")
    port = next(iter(grid.ports.values()))
    leg = msgspec.structs.replace(port, workspace="@wan", id="0" * 12, labels={}, addresses=("10.0.0.99",), router="")
    grid.ports[leg.id] = leg
    found = plan(grid, (), list(grid.workspaces.values()), ("203.0.113.1",)).echoes
    assert {one.is_allowed for one in found if one.destination == "@world"} == {False}


def test_a_stream_takes_the_port_that_it_prefers_or_the_last_that_is_open() -> None:
    def found(text: str, source: str, destination: str) -> int | None:
        grid = a_grid(text)
        pair = grid.ports[port_id("lab", source, "grid")], grid.ports[port_id("lab", destination, "grid")]
        chosen = open_pair(grid, (), [pair], preferred=47471)
        assert chosen is None or chosen[:2] == pair
        return None if chosen is None else chosen[2]

    assert found(FILE, "worker-0", "head") == 47471
    assert found(FILE + POLICIES, "worker-0", "head") == 5100
    assert found(FILE + POLICIES, "worker-0", "worker-1") is None


def test_of_several_who_could_send_the_first_that_may_is_taken() -> None:
    grid = a_grid(FILE + POLICIES)
    worker, other, head = (grid.ports[port_id("lab", name, "grid")] for name in ("worker-0", "worker-1", "head"))
    assert open_pair(grid, (), [(other, worker), (head, worker)], preferred=47471) == (head, worker, 47471)
