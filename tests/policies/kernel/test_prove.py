"""What a kernel holds, followed flow by flow: equal to the model for what was put there, and not once it was edited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from filter_lab import Namespace
from hypothesis import HealthCheck, given, settings
from scenes import scenes

from policies.compile.marks import unjudged
from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import compile_playground, policy_table
from policies.compile.ways import TABLE
from policies.ir import FIRST_IDENTITY, SERVICES
from policies.kernel.enforcement import Enforcement
from policies.model import BlockPeer, Endpoint, EndpointPeer, Origin, Policy, Rule, Scene, Subnet
from policies.ports import EVERYTHING, Ports, Protocol
from policies.prove import Claim, ProvedNetwork, prove
from policies.resolve import resolve
from policies.selector import parse_selector

pytestmark = pytest.mark.system

ID = "0123456789ab"
HERE = Origin("f", 1)


@pytest.fixture(scope="module")
def enforcement() -> Iterator[tuple[Enforcement, Namespace]]:
    namespace = Namespace()
    made = Enforcement(namespace.path)
    yield made, namespace
    made.close()
    namespace.close()


def a_scene() -> Scene:
    def who(text: str) -> EndpointPeer:
        return EndpointPeer(parse_selector(text), frozenset({"p"}))

    endpoints = tuple(
        Endpoint("p", f"w{n}", "n", {"workspace": f"w{n}", "network": "n", "playground": "p"}, (f"10.0.0.{n}",))
        for n in (1, 2, 3)
    )
    world = BlockPeer(ip_network("1.0.0.0/8"), (ip_network("1.1.0.0/16"),))
    some = Ports.of(Protocol.TCP, 22) | Ports.of(Protocol.UDP, 5000, 5100) | Ports.of(Protocol.ICMP, 8)
    policies = (
        Policy("in", (who("workspace=w2"),), (Rule((who("workspace=w1"),), some, HERE),), None, HERE, playground="p"),
        Policy("out", (who("workspace=w3"),), None, (Rule((world,), EVERYTHING, HERE),), HERE, playground="p"),
    )
    return Scene(endpoints, policies, subnets=(Subnet("p", "n", ip_network("10.0.0.0/24")),))


def put(enforcement: Enforcement, scene: Scene, playground: str = "p", *, is_lenient: bool = False) -> Claim:
    """Puts a playground in force, all of it local; what `prove` compares with."""
    ir = resolve(scene)
    networks, ends, proved = [], [], []
    for place, name in enumerate(sorted({one.network for one in scene.endpoints if one.playground == playground})):
        network = PolicedNetwork(name, f"br{place}", 100 + place, (f"10.{place}.9.9", "fe80::1"))
        networks.append(network)
        known = {"@services": (SERVICES, network.services, False)}
        here = [one for one in scene.endpoints if (one.playground, one.network) == (playground, name)]
        for number, one in enumerate(here, 1):
            addresses = (f"10.{place}.0.{number}", f"fd00:{place}::{number}")
            end = next(
                end
                for end, identity in enumerate(ir.identities, FIRST_IDENTITY)
                if identity.playground == playground and (one.workspace, name) in identity.members
            )
            ends.append(PolicedEnd(one.workspace, name, addresses, True))
            known[one.workspace] = end, addresses, True
        proved.append(ProvedNetwork(name, network.bridge, network.zone, known))
    compiled = compile_playground(ir, playground, ID, tuple(networks), tuple(ends), is_lenient=is_lenient)
    table = policy_table([compiled] if compiled else [])
    assert not enforcement.converge({TABLE: table} if table else {}).cause
    if compiled is None:
        return Claim(ir, playground, ())
    claim = Claim(ir, playground, tuple(proved), frozenset(f"j{id}" for id in compiled.judgements))
    assert compiled.claim == claim
    return claim


@given(scenes())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_was_put_there_says_what_the_model_says(enforcement: tuple[Enforcement, Namespace], scene: Scene) -> None:
    unique = {(one.playground, one.workspace, one.network): one for one in scene.endpoints}
    scene = Scene(tuple(unique.values()), scene.policies, scene.gateways, subnets=scene.subnets)
    claim = put(enforcement[0], scene)
    assert prove(enforcement[0].listing(TABLE), claim) == []


EDITS = {
    "a rule that goes": "flush chain {table} {i}",
    "a rule that comes": "insert rule {table} p_0123456789ab accept",
    "a rule that stops": "insert rule {table} p_0123456789ab meta l4proto tcp drop",
    "a rule of another kind": "insert rule {table} p_0123456789ab ip dscp 5 accept",
    "a base chain's policy": "chain {table} enter {{ policy drop; }}",
    "a base chain of a stranger": (
        "add chain {table} x {{ type filter hook forward priority -5; policy accept; }}\n"
        "add rule {table} x ip protocol udp drop"
    ),
    "an element of the map of ends": 'delete element {table} ends_ip {{ "br0" . 10.0.0.1 }}',
    "an element that leads to a chain": 'delete element {table} ingress_ip {{ "br0" . 10.0.0.2 }}',
    "a zone": 'delete element {table} zones {{ "br0" }}\nadd element {table} zones {{ "br0" : 9 }}',
    "a zone by its mark": (
        f"delete element {{table}} marked {{{{ {unjudged(100)} }}}}\n"
        f"add element {{table}} marked {{{{ {unjudged(100)} : 9 }}}}"
    ),
    "a bridge that is not policed": 'delete element {table} policed {{ "br0" }}',
    "the table": "delete table {table}",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_behind_our_back_is_seen(enforcement: tuple[Enforcement, Namespace], edit: str) -> None:
    door, namespace = enforcement
    claim = put(door, a_scene())
    assert prove(door.listing(TABLE), claim) == []
    chains = [entry["chain"]["name"] for entry in door.listing(TABLE) if "chain" in entry]
    names = {"table": " ".join(TABLE), "i": next(name for name in chains if name.startswith("i_"))}
    namespace.run("nft -f -", EDITS[edit].format(**names))
    found = prove(door.listing(TABLE), claim)
    assert found, "nothing was noticed"
    put(door, a_scene())
    assert prove(door.listing(TABLE), claim) == []


def test_a_counter_that_is_missing_is_told(enforcement: tuple[Enforcement, Namespace]) -> None:
    claim = put(enforcement[0], a_scene())
    claim = replace(claim, counters=frozenset({"jnone"}))
    assert prove(enforcement[0].listing(TABLE), claim) == ["counter jnone is not there"]


def test_a_difference_says_who_and_what(enforcement: tuple[Enforcement, Namespace]) -> None:
    claim = put(enforcement[0], a_scene())
    enforcement[1].run(
        "nft -f -", f"insert rule {' '.join(TABLE)} p_{ID} ct original ip daddr 10.0.0.2 meta l4proto udp drop"
    )
    found = prove(enforcement[0].listing(TABLE), claim)
    assert "network n: from w1 to w2 the kernel stops udp/5000-5100" in found


def test_the_lenient_form_means_the_same_for_what_begins(enforcement: tuple[Enforcement, Namespace]) -> None:
    claim = put(enforcement[0], a_scene(), is_lenient=True)
    assert enforcement[0].differences({TABLE: policy_table([])}, claims=[(TABLE, claim)]), (
        "its objects are not those of no policy"
    )
    assert prove(enforcement[0].listing(TABLE), claim) == []
