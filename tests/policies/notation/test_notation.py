"""What the notation means: policies that are written out read back the same, and every word means whom it says."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.spec import PlaygroundSpec, SpecErrors, load_playground, load_site, scene
from playground.spec.peers import DECLARED
from playground.spec.ports import ICMP_KINDS, parse_ports, port_words
from policies.connections import connections, selected
from policies.model import (
    ALL_PORTS,
    Action,
    BlockPeer,
    EndpointPeer,
    GatewayPeer,
    HostPeer,
    Mode,
    OnDeny,
    Peer,
    Policy,
    SamePeer,
    ServicesPeer,
    Tier,
    WorldPeer,
)
from policies.ports import EVERYTHING, LIMITS, NOTHING, Ports, Protocol
from policies.selector import Operator, Selector, Term, parse_selector

FILE: dict[str, Any] = {
    "name": "lab",
    "networks": {"grid": {"subnets": ["10.0.0.0/24"]}, "dmz": {"subnets": ["10.1.0.0/24"]}},
    "gateways": {"wan": {"kind": "bridge", "networks": ["dmz"]}},
    "workspaces": {
        "head": {"networks": ["grid", {"network": "dmz", "labels": {"side": "out"}}], "labels": {"role": "head"}},
        "worker": {"networks": ["grid"], "scale": 3},
    },
    "groups": {"heads": "role=head"},
}
OWN = frozenset({"lab"})


def load(**more: Any) -> PlaygroundSpec:
    return load_playground(json.dumps(FILE | more), "lab.yaml")


def word(text: str, key: str = DECLARED) -> EndpointPeer:
    return EndpointPeer(Selector(text, (Term(key, Operator.IN, frozenset({text})),)), OWN)


PEERS: list[tuple[Any, Peer]] = [
    ("role=head, network!=dmz", EndpointPeer(parse_selector("role=head,network!=dmz"), OWN)),
    ("*", EndpointPeer(parse_selector("*"), OWN)),
    ("heads", EndpointPeer(parse_selector("role=head"), OWN)),
    ("head", word("head")),
    ("worker", word("worker")),
    ("worker-2", word("worker-2", "workspace")),
    ("@world", WorldPeer()),
    ("@host", HostPeer()),
    ("@gateway/wan", GatewayPeer("wan")),
    ("192.0.2.0/24", BlockPeer(ip_network("192.0.2.0/24"))),
    ("192.0.2.7", BlockPeer(ip_network("192.0.2.7/32"))),
    ("2001:db8::/32", BlockPeer(ip_network("2001:db8::/32"))),
    ("10.0.0.0/8", BlockPeer(ip_network("10.0.0.0/8"))),
    (
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.0.2.0/24"]},
        BlockPeer(ip_network("0.0.0.0/0"), (ip_network("10.0.0.0/8"), ip_network("192.0.2.0/24"))),
    ),
    ({"same": "team"}, SamePeer("team")),
    ({"playground": "blue", "select": "a in (b,c)"}, EndpointPeer(parse_selector("a in (b,c)"), frozenset({"blue"}))),
]


@pytest.mark.parametrize(("written", "meant"), PEERS, ids=lambda value: str(value)[:40])
def test_a_peer_means_whom_it_says(written: Any, meant: Peer) -> None:
    [policy] = load(policies=[{"subject": "head", "ingress": [{"from": written}]}]).connectivity.policies
    assert policy.ingress is not None
    assert policy.ingress[0].peers == (meant,)


def test_sites_may_speak_of_services_and_of_all_playgrounds() -> None:
    rule = {"action": "deny", "to": ["@services", "role=x", {"playground": "blue", "select": "*"}]}
    text = {"name": "s", "policies": [{"priority": 1, "subject": "*", "egress": [rule]}]}
    [policy] = load_site(json.dumps(text), "s").policies
    assert policy.subjects == (EndpointPeer(parse_selector("*"), None),)
    assert policy.egress is not None
    assert policy.egress[0].peers == (
        ServicesPeer(),
        EndpointPeer(parse_selector("role=x"), None),
        EndpointPeer(parse_selector("*"), frozenset({"blue"})),
    )


def test_a_rule_without_peers_and_ports_is_for_everybody_and_everything() -> None:
    [policy] = load(policies=[{"subject": "head", "ingress": {}, "egress": []}]).connectivity.policies
    assert (policy.name, policy.egress) == ("lab.yaml:1", ())
    assert policy.ingress is not None
    assert policy.ingress[0].peers == (
        EndpointPeer(parse_selector("*"), None),
        WorldPeer(),
        HostPeer(),
        GatewayPeer("wan"),
    )
    assert policy.ingress[0].ports is ALL_PORTS


def test_policies_of_one_line_have_names_of_their_own() -> None:
    entry = {"subject": "head", "egress": []}
    names = [policy.name for policy in load(policies=[entry, entry, entry]).connectivity.policies]
    assert names[0] == "lab.yaml:1"
    assert len(set(names)) == 3


def test_words_select_by_name_whatever_the_scale() -> None:
    spec = load()
    found = scene(spec)
    words = {
        text: selected(found, [spec.connectivity.words.endpoints(text)]) for text in ("worker", "worker-1", "heads")
    }
    assert words["worker"] == {"worker-0", "worker-1", "worker-2"}
    assert words["worker-1"] == {"worker-1"}
    assert words["heads"] == {"head"}


def test_every_nic_has_the_labels_of_both_and_the_built_in_ones() -> None:
    labels = {(one.workspace, one.network): dict(one.labels) for one in scene(load()).endpoints}
    assert labels["head", "dmz"] == {
        "role": "head",
        "side": "out",
        "workspace": "head",
        "network": "dmz",
        "playground": "lab",
        DECLARED: "head",
    }
    assert labels["worker-1", "grid"] == {
        "workspace": "worker-1",
        "network": "grid",
        "playground": "lab",
        "index": "1",
        DECLARED: "worker",
    }


def test_a_bare_word_costs_one_identity_however_many_it_means() -> None:
    from policies.resolve import resolve

    workspaces = {**FILE["workspaces"], "many": {"networks": ["grid"], "scale": 2000}}
    policies = [{"subject": "many", "ingress": [{"from": "worker"}]}]
    ir = resolve(scene(load(workspaces=workspaces, policies=policies)))
    assert len(ir.identities) == 3


PORTS = {
    "tcp/22": Ports.of(Protocol.TCP, 22),
    "udp/5000-5100": Ports.of(Protocol.UDP, 5000, 5100),
    "sctp": Ports.of(Protocol.SCTP),
    "tcp": Ports.of(Protocol.TCP, 1, 65535),
    "icmp": Ports.of(Protocol.ICMP),
    "icmp/echo": Ports.of(Protocol.ICMP, 8),
    "icmp/3-5": Ports.of(Protocol.ICMP, 3, 5),
    "icmp/0": Ports.of(Protocol.ICMP, 0),
}


@pytest.mark.parametrize("text", PORTS)
def test_ports_are_read(text: str) -> None:
    assert parse_ports(text) == PORTS[text]


@pytest.mark.parametrize("kind", ICMP_KINDS)
def test_a_kind_of_icmp_has_its_name_both_ways(kind: str) -> None:
    assert list(port_words(parse_ports(f"icmp/{kind}"))) == [f"icmp/{kind}"]


def test_other_protocols_can_not_be_written_by_themselves() -> None:
    assert list(port_words(EVERYTHING)) == []
    with pytest.raises(ValueError, match="can't be written by themselves"):
        list(port_words(EVERYTHING - Ports.of(Protocol.TCP, 22)))


@st.composite
def port_sets(draw: st.DrawFn) -> Ports:
    found = NOTHING
    for _ in range(draw(st.integers(1, 4))):
        protocol = draw(st.sampled_from([Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.ICMP]))
        lowest, highest = LIMITS[protocol]
        first = draw(st.integers(lowest, highest))
        found |= Ports.of(protocol, first, draw(st.integers(first, highest)))
    return draw(st.sampled_from([found, found, EVERYTHING]))


@st.composite
def written(draw: st.DrawFn, tier: Tier) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """A policy as written, and what it means, without places."""
    key, way = draw(st.sampled_from([("from", "ingress"), ("to", "egress")]))
    known = PEERS if tier is Tier.OWNER else [(text, peer) for text, peer in SITE_PEERS]
    rules, meant = [], []
    for _ in range(draw(st.integers(0, 3))):
        chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
        ports = draw(port_sets())
        actions = [Action.ALLOW] if tier is Tier.OWNER else list(Action)[: 3 if tier is Tier.ADMIN else 2]
        action = draw(st.sampled_from(actions))
        rule: dict[str, Any] = {
            key: [text for text, _ in chosen] if draw(st.booleans()) or len(chosen) > 1 else chosen[0][0]
        }
        if words := list(port_words(ports)):
            rule["ports"] = words if len(words) > 1 or draw(st.booleans()) else words[0]
        if tier is not Tier.OWNER:
            rule["action"] = action.value
        rules.append(rule)
        meant.append((tuple(peer for _, peer in chosen), ports, action))
    subject, subject_peer = draw(st.sampled_from(known[:2]))
    mode, on_deny = draw(st.sampled_from(list(Mode))), draw(st.sampled_from(list(OnDeny)))
    keeps = draw(st.booleans())
    entry = {"subject": subject, way: rules, "mode": mode.value, "on_deny": on_deny.value}
    entry |= {"established": "keep"} if keeps else {}
    sides = (tuple(meant), None) if way == "ingress" else (None, tuple(meant))
    return entry, ((subject_peer,), *sides, mode, on_deny, keeps, tier)


SITE_PEERS: list[tuple[Any, Peer]] = [
    (text, EndpointPeer(peer.selector, None) if isinstance(peer, EndpointPeer) and peer.playgrounds == OWN else peer)
    for text, peer in PEERS
    if text not in ("heads", "head", "worker", "worker-2")
]


def meaning(policy: Policy) -> tuple[Any, ...]:
    sides = [
        None if rules is None else tuple((rule.peers, rule.ports, rule.action) for rule in rules)
        for rules in (policy.ingress, policy.egress)
    ]
    return policy.subjects, *sides, policy.mode, policy.on_deny, policy.keeps_established, policy.tier


@settings(max_examples=40, deadline=None)
@given(st.lists(written(Tier.OWNER), min_size=1, max_size=3))
def test_policies_that_are_written_out_read_back(entries: list[tuple[dict[str, Any], tuple[Any, ...]]]) -> None:
    spec = load(policies=[entry for entry, _ in entries])
    assert [meaning(policy) for policy in spec.connectivity.policies] == [meant for _, meant in entries]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(written(Tier.ADMIN), written(Tier.BASELINE)), min_size=1, max_size=3))
def test_tiers_that_are_written_out_read_back(entries: list[tuple[dict[str, Any], tuple[Any, ...]]]) -> None:
    policies = [
        entry | {"tier": meant[-1].value, "priority": number} for number, (entry, meant) in enumerate(entries, 1)
    ]
    site = load_site(json.dumps({"name": "s", "policies": policies}), "s.yaml")
    assert [meaning(policy) for policy in site.policies] == [meant for _, meant in entries]
    assert [policy.priority for policy in site.policies] == list(range(1, len(entries) + 1))


KEYS = [
    "name",
    "subject",
    "ingress",
    "egress",
    "from",
    "to",
    "ports",
    "port",
    "expect",
    "mode",
    "replaces",
    "established",
    "on_deny",
    "action",
    "tier",
    "priority",
    "cidr",
    "except",
    "same",
    "select",
    "playground",
    "kind",
    "networks",
    "host",
    "x-y",
    "heads",
]
SECTIONS = ("groups", "policies", "tests", "gateways", "include")
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-1, 70000),
        st.text(max_size=6),
        st.sampled_from([text for text, _ in PEERS] + list(PORTS) + ["@services", "enforce", "stage", "allow", "nat"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@settings(max_examples=120, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("groups", "policies", "tests", "gateways", "include"), ANYTHING))
)
def test_anything_is_read_or_refused_with_its_place(more: dict[str, Any]) -> None:
    text = json.dumps(FILE | more, indent=1)
    for load_any in (load_playground, load_site):
        try:
            spec = load_any(text, "fuzz.yaml")
        except SpecErrors as refused:
            for problem in refused.problems:
                assert problem.file == "fuzz.yaml"
                assert 1 <= problem.line <= text.count("\n") + 1
                assert problem.message
        else:
            if isinstance(spec, PlaygroundSpec):
                list(connections(scene(spec)))
