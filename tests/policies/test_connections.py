"""What connections lists, and how: the contract of its JSON, names, filters, several networks, what is hidden."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network

import pytest

from policies.connections import Block, blocks, connections, ports_json, selected
from policies.difference import difference
from policies.ir_json import Unreadable, decode, encode
from policies.model import BlockPeer, Endpoint, EndpointPeer, Gateway, Origin, Policy, Rule, Scene, Subnet, WorldPeer
from policies.ports import EVERYTHING, Ports, Protocol
from policies.resolve import resolve
from policies.selector import parse_selector
from policies.world import part_world, span_text, spans_of

SSH = Ports.of(Protocol.TCP, 22)


def an_endpoint(workspace: str, network: str = "grid", playground: str = "atlas", **labels: str) -> Endpoint:
    built_in = {"workspace": workspace, "network": network, "playground": playground}
    return Endpoint(playground, workspace, network, {**built_in, **labels})


def who(text: str) -> EndpointPeer:
    return EndpointPeer(parse_selector(text), None)


def allows(subject: str, *peers: object, ports: Ports = EVERYTHING) -> Policy:
    return Policy("only", (who(subject),), None, (Rule(peers, ports, Origin("f", 2)),), Origin("f", 1))


def listed(scene: Scene, **filters: object) -> dict[tuple[str, str], object]:
    return {(one.source, one.destination): one.to_json()["connections"] for one in connections(scene, **filters)}


PAIR = (an_endpoint("a"), an_endpoint("b"))
WAN = Gateway("atlas", "wan", frozenset({"grid"}))


def test_everything_is_all_and_the_rest_is_ranges_by_protocol() -> None:
    ports = SSH | Ports.of(Protocol.UDP, 5000, 5100) | Ports.of(Protocol.ICMP)
    assert ports_json(EVERYTHING) == "all"
    assert ports_json(ports) == [
        {"protocol": "TCP", "ports": [[22, 22]]},
        {"protocol": "UDP", "ports": [[5000, 5100]]},
        {"protocol": "ICMP", "ports": [[0, 255]]},
    ]
    found = [one.to_json() for one in connections(Scene(PAIR, (allows("workspace=a", who("*"), ports=SSH),)))]
    assert sorted(found, key=lambda one: str(one["from"])) == [
        {"from": "a", "to": "b", "connections": [{"protocol": "TCP", "ports": [[22, 22]]}]},
        {"from": "b", "to": "a", "connections": "all"},
    ]


def test_workspaces_without_a_common_network_are_no_pair() -> None:
    assert listed(Scene((an_endpoint("a", "x"), an_endpoint("b", "y")), ())) == {}
    assert listed(Scene((an_endpoint("a"), an_endpoint("b", playground="other")), ())) == {}


def test_what_any_common_network_allows_is_allowed() -> None:
    ends = tuple(an_endpoint(name, network) for name in "ab" for network in ("x", "y"))
    scene = Scene(
        ends,
        (
            allows("workspace=a, network=x", who("*"), ports=SSH),
            allows("workspace=a, network=y", who("*"), ports=Ports.of(Protocol.UDP, 53)),
        ),
    )
    assert {one.ports for one in connections(scene, sources={"a"})} == {SSH | Ports.of(Protocol.UDP, 53)}


def test_names_carry_the_playground_only_where_there_are_several() -> None:
    assert set(listed(Scene(PAIR, ()))) == {("a", "b"), ("b", "a")}
    both = Scene((*PAIR, an_endpoint("a", playground="other"), an_endpoint("c", playground="other")), ())
    assert ("atlas/a", "atlas/b") in listed(both)
    assert ("other/a", "other/c") in listed(both)


def test_hidden_workspaces_are_not_listed() -> None:
    assert listed(Scene((*PAIR, an_endpoint("c")), (), hidden=frozenset({("atlas", "c")}))).keys() == {
        ("a", "b"),
        ("b", "a"),
    }


def test_the_world_is_reached_by_a_gateway_and_begins_only_where_it_may() -> None:
    assert ("a", "@world") in listed(Scene(PAIR, (), (WAN,)))
    assert ("@world", "a") not in listed(Scene(PAIR, (), (WAN,)))
    assert ("@world", "a") in listed(Scene(PAIR, (), (replace(WAN, is_open_inward=True),)))
    assert ("a", "@world") not in listed(Scene(PAIR, (), (replace(WAN, networks=frozenset({"other"})),)))


def test_parts_of_the_world_are_as_large_as_they_can_be_and_leave_out_what_is_owned() -> None:
    halves = BlockPeer(ip_network("10.0.0.0/9")), BlockPeer(ip_network("10.128.0.0/9"))
    scene = Scene(
        PAIR,
        (allows("workspace=a", *halves),),
        (WAN,),
        subnets=(Subnet("atlas", "grid", ip_network("10.20.0.0/16")), Subnet("q", "grid", ip_network("10.99.0.0/16"))),
    )
    assert listed(scene, sources={"a"}, destinations={"@world"}) == {
        ("a", "10.0.0.0-10.19.255.255"): "all",
        ("a", "10.21.0.0-10.255.255.255"): "all",
    }
    assert listed(scene, sources={"b"}, destinations={"@world"}) == {("b", "@world"): "all"}


def test_ipv4_and_ipv6_are_told_apart() -> None:
    scene = Scene(PAIR, (allows("workspace=a", BlockPeer(ip_network("0.0.0.0/0"))),), (WAN,))
    assert listed(scene, sources={"a"}) == {("a", "0.0.0.0-255.255.255.255"): "all"}


def test_filters_keep_named_ends_and_the_ports_asked_for() -> None:
    scene = Scene((*PAIR, an_endpoint("c", role="head")), (allows("workspace=a", who("*"), ports=SSH),), (WAN,))
    assert set(listed(scene, sources=selected(scene, (who("role=head"), WorldPeer())))) == {
        ("c", "a"),
        ("c", "b"),
        ("c", "@world"),
    }
    assert set(listed(scene, destinations={"@world"})) == {("b", "@world"), ("c", "@world")}
    assert set(listed(scene, sources={"a"}, ports=Ports.of(Protocol.UDP))) == set()
    assert listed(scene, sources={"c"}, destinations={"a"}, ports=SSH) == {
        ("c", "a"): [{"protocol": "TCP", "ports": [[22, 22]]}]
    }


def test_alike_workspaces_are_one_block_and_count_without_themselves() -> None:
    found = list(blocks(Scene(tuple(an_endpoint(f"w{number}") for number in range(100)), ())))
    assert [(len(one.sources), len(one.destinations), one.pairs) for one in found] == [(100, 100, 9900)]
    assert isinstance(found[0], Block)


def test_the_form_grows_with_identities_not_with_endpoints() -> None:
    def rules_and_chains(size: int) -> tuple[int, int, int]:
        ends = tuple(an_endpoint(f"w{number}", role=f"r{number % 3}") for number in range(size))
        form = encode(resolve(Scene(ends, (allows("role=r0", who("role=r1")), allows("role=r2", who("role=r0"))))))
        return len(form["identities"]), len(form["rules"]), len(form["chains"])

    assert rules_and_chains(30) == rules_and_chains(3000) == (3, 2, 4)


def test_a_new_workspace_opens_and_a_closed_one_cuts() -> None:
    before, after = Scene(PAIR, ()), Scene((*PAIR, an_endpoint("c")), (allows("workspace=a", who("workspace=c")),))
    assert {(one.source, one.destination): (bool(one.opened), bool(one.cut)) for one in difference(before, after)} == {
        ("a", "b"): (False, True),
        **dict.fromkeys([("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")], (True, False)),
    }
    assert list(difference(after, after)) == []


def test_a_change_towards_the_world_names_the_part_that_changes() -> None:
    lab = BlockPeer(ip_network("192.0.2.0/24"))
    before = Scene(PAIR[:1], (allows("*", WorldPeer()),), (WAN,))
    after = Scene(PAIR[:1], (allows("*", lab, ports=SSH),), (WAN,))
    found = {one.destination: one.to_json() for one in difference(before, after)}
    assert found.keys() == {
        "0.0.0.0-192.0.1.255",
        "192.0.2.0-192.0.2.255",
        "192.0.3.0-255.255.255.255",
        "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    }
    assert found["0.0.0.0-192.0.1.255"]["cut"] == "all"
    assert {one.destination: one.opened for one in difference(Scene(PAIR[:1], ()), before)} == {"@world": EVERYTHING}


def test_cells_are_the_coarsest_that_tell_blocks_and_owners_apart() -> None:
    block = BlockPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"), ip_network("10.1.2.0/24")))
    assert [span_text(span) for span in spans_of(block)] == ["10.0.0.0-10.0.255.255", "10.2.0.0-10.255.255.255"]
    assert len(part_world((), {}).cells) == 1
    assert len(part_world((block,), {}).cells) == 2
    world = part_world((block,), {"p": [(4, 10 << 24, (10 << 24) + 255)], "q": [(4, 10 << 24, (10 << 24) + 511)]})
    assert [[span_text(span) for span in cell] for cell in world.cells] == [
        [
            "0.0.0.0-9.255.255.255",
            "10.1.0.0-10.1.255.255",
            "11.0.0.0-255.255.255.255",
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ],
        ["10.0.1.0-10.0.1.255"],
        ["10.0.2.0-10.0.255.255", "10.2.0.0-10.255.255.255"],
    ]
    assert (world.owned, world.blocks[block]) == ({"p": 0, "q": 0b010}, 0b110)


@pytest.mark.parametrize("spoilt", [{}, {"version": 2}, {"rules": 7}, {"egress": None}, {"policies": [{}]}])
def test_a_form_that_is_none_is_refused(spoilt: dict[str, object]) -> None:
    form = json.loads(json.dumps(encode(resolve(Scene(PAIR, (allows("workspace=a", who("*")),))))))
    with pytest.raises(Unreadable):
        decode({**form, **spoilt} if spoilt else {})
