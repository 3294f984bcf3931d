"""What explain says, as text. `pytest --update-golden tests/policies/test_explain.py` writes the files anew."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from policies.connections import connections
from policies.ends import UnknownEnd, parse_end
from policies.expect import failures
from policies.explain import explain, ports_text
from policies.lint import Code, Finding, Severity, lint
from policies.model import (
    Action,
    BlockPeer,
    Endpoint,
    EndpointPeer,
    Expectation,
    Gateway,
    Mode,
    Origin,
    Policy,
    Rule,
    SamePeer,
    Scene,
    Subnet,
    Tier,
    WorldPeer,
)
from policies.ports import EVERYTHING, Ports, Protocol
from policies.selector import parse_selector

GOLDEN = Path(__file__).parent / "golden"
SSH, WEB, DNS = Ports.of(Protocol.TCP, 22), Ports.of(Protocol.TCP, 80, 443), Ports.of(Protocol.UDP, 53)


def who(text: str) -> EndpointPeer:
    return EndpointPeer(parse_selector(text), frozenset({"atlas"}))


def rule(
    line: int, *peers: object, ports: Ports = EVERYTHING, action: Action = Action.ALLOW, file: str = "atlas.yaml"
) -> Rule:
    return Rule(peers, ports, Origin(file, line), action)


def policy(name: str, line: int, subject: str, **fields: object) -> Policy:
    made = {"ingress": None, "egress": None, "origin": Origin("atlas.yaml", line), "playground": "atlas", **fields}
    return Policy(name, (who(subject),), **made)


def endpoint(name: str, role: str, address: str, network: str = "grid") -> Endpoint:
    labels = {"workspace": name, "network": network, "playground": "atlas", "role": role}
    return Endpoint("atlas", name, network, labels, (address,))


SITE = Policy(
    "site-ssh",
    (EndpointPeer(parse_selector("*"), None),),
    (
        rule(4, who("role=head"), ports=DNS, action=Action.PASS, file="site.yaml"),
        rule(5, EndpointPeer(parse_selector("role=rogue"), None), action=Action.DENY, file="site.yaml"),
    ),
    None,
    Origin("site.yaml", 2),
    Tier.ADMIN,
    priority=10,
)

ATLAS = Scene(
    (
        endpoint("head", "head", "10.20.0.5"),
        endpoint("worker-0", "worker", "10.20.0.10"),
        endpoint("worker-1", "worker", "10.20.0.11"),
        endpoint("mirror", "mirror", "10.20.0.20"),
        endpoint("rogue", "rogue", "10.20.0.66"),
        endpoint("head", "head", "10.30.0.5", "store"),
        endpoint("disk", "disk", "10.40.0.2", "backup"),
    ),
    (
        policy("workers", 12, "role=worker", egress=(rule(14, who("role=head"), ports=SSH | DNS),)),
        policy("mirror", 20, "role=mirror", ingress=(), egress=(rule(22, WorldPeer(), ports=WEB),)),
        policy("no-lab", 26, "role=head", egress=(rule(28, BlockPeer(ip_network("192.0.2.0/24"))),), mode=Mode.LOG),
        SITE,
    ),
    (Gateway("atlas", "wan", frozenset({"grid"})),),
    subnets=(Subnet("atlas", "grid", ip_network("10.20.0.0/24")),),
)

ASKED = [
    ("worker-0", "head", SSH),
    ("worker-0", "head", SSH | WEB),
    ("worker-0", "worker-1", SSH),
    ("rogue", "worker-0", SSH),
    ("head", "mirror", DNS),
    ("disk", "head", SSH),
    ("mirror", "@world", WEB),
    ("mirror", "198.51.100.7", EVERYTHING),
    ("head", "@world", SSH),
    ("head", "192.0.2.9", SSH),
    ("head", "10.20.0.99", SSH),
    ("disk", "@world", SSH),
    ("@world", "worker-0", SSH),
    ("mirror", "@services", DNS),
    ("worker-0", "@gateway/wan", SSH),
    ("10.20.0.10", "10.20.0.5", DNS),
    ("head", "head", SSH),
]


def test_explanations_read_as_written_down(golden: Callable[[str, Path], None]) -> None:
    told = []
    for source, destination, ports in ASKED:
        found = explain(ATLAS, parse_end(ATLAS, source), parse_end(ATLAS, destination), ports)
        by = {key: value for key, value in found.decided_by.to_json().items() if value is not None}
        told += [f"$ {source} {destination} {ports_text(ports)}", *(f"  {step}" for step in found.steps)]
        told += [f"  = {found.verdict}, decided by {by}", ""]
    golden("\n".join(told), GOLDEN / "explain.txt")


@pytest.mark.parametrize(
    ("text", "says"),
    [("heat", "did you mean head?"), ("@wrld", "did you mean @world?"), ("10.0.0", "no workspace, no address")],
)
def test_an_unknown_end_is_refused_with_what_there_is(text: str, says: str) -> None:
    with pytest.raises(UnknownEnd, match=says.replace("?", r"\?")):
        parse_end(ATLAS, text)


def expectation(line: int, source: object, destination: object, ports: Ports, is_allowed: bool) -> Expectation:
    return Expectation((source,), (destination,), ports, is_allowed, Origin("atlas.yaml", line))


def test_a_failing_expectation_names_the_pair_and_the_line() -> None:
    lines = [
        expectation(40, who("role=worker"), who("role=head"), SSH, True),
        expectation(41, who("role=worker"), who("role=worker"), SSH, False),
        expectation(42, who("role=worker"), who("role=head"), WEB, True),
        expectation(43, who("workspace=mirror"), WorldPeer(), EVERYTHING, False),
        expectation(44, who("workspace=head"), BlockPeer(ip_network("192.0.0.0/16")), SSH, True),
    ]
    assert [f"{one.origin}: {one.message}" for one in failures(ATLAS, lines)] == [
        "atlas.yaml:42: expected allow, but tcp/80-443 from worker-0 to head is denied by workers (atlas.yaml:12), "
        "and so for 1 more pair",
        "atlas.yaml:43: expected deny, but everything from mirror to @world is allowed in part (tcp/80-443) "
        "by mirror (atlas.yaml:20)",
        "atlas.yaml:44: expected allow, but tcp/22 from head to 192.0.0.0/16 is denied by no-lab (atlas.yaml:26)",
    ]


def test_the_world_is_listed_in_parts_only_where_a_policy_tells_them_apart() -> None:
    listed = {(one.source, one.destination): ports_text(one.ports) for one in connections(ATLAS)}
    assert {end: ports for (source, end), ports in listed.items() if source == "head" and end[0] in "@0123456789"} == {
        "192.0.2.0-192.0.2.255": "everything"
    }
    assert listed["mirror", "@world"] == "tcp/80-443"
    assert not any(source.startswith(("@", "0")) for source, _ in listed)


def codes(scene: Scene, *lines: Expectation) -> list[tuple[int, Code]]:
    return [(one.origin.line, one.code) for one in lint(scene, lines)]


def scene_with(*policies: Policy) -> Scene:
    return Scene(ATLAS.endpoints, policies, ATLAS.gateways, subnets=ATLAS.subnets)


def test_a_sound_scene_has_no_findings() -> None:
    assert lint(ATLAS, [expectation(40, who("role=worker"), who("role=head"), SSH, True)]) == []


def test_lint_finds_selectors_that_match_nobody() -> None:
    found = scene_with(
        policy("a", 1, "role=ghost", egress=()),
        policy("b", 2, "*", egress=(rule(3, who("role=ghost")), rule(4, SamePeer("rack")))),
    )
    assert codes(found) == [(1, Code.SELECTS_NOTHING), (3, Code.SELECTS_NOTHING), (4, Code.SELECTS_NOTHING)]


def test_lint_finds_rules_that_add_nothing() -> None:
    twice = policy("a", 1, "*", egress=(rule(2, who("role=head"), ports=SSH), rule(3, who("*"), ports=SSH | DNS)))
    assert codes(scene_with(twice)) == [(2, Code.SHADOWED)]
    same = policy("a", 1, "*", egress=(rule(2, who("*"), ports=SSH), rule(3, who("*"), ports=SSH)))
    assert codes(scene_with(same)) == [(3, Code.SHADOWED)]


def test_lint_finds_what_is_never_reached() -> None:
    deny = rule(2, who("*"), action=Action.DENY)
    admin = policy("a", 1, "*", tier=Tier.ADMIN, ingress=(deny, rule(3, who("role=head"), ports=SSH)))
    owner = policy("b", 5, "role=head", ingress=(rule(6, who("role=worker")),))
    base = policy("c", 8, "role=head", tier=Tier.BASELINE, ingress=(rule(9, WorldPeer(), action=Action.DENY),))
    assert codes(scene_with(admin, owner)) == [(3, Code.UNREACHABLE), (6, Code.UNREACHABLE)]
    found = lint(scene_with(admin, owner, base))
    assert (8, Code.NO_EFFECT) in [(one.origin.line, one.code) for one in found]
    assert all(one.severity is Severity.WARNING for one in found)


def test_lint_finds_world_rules_without_a_way_to_the_world() -> None:
    disk = policy("a", 1, "role=disk", egress=(rule(2, WorldPeer()),))
    head = policy("b", 4, "role=head", ingress=(rule(5, WorldPeer()),))
    assert codes(scene_with(disk, head)) == [(2, Code.NO_GATEWAY), (5, Code.NO_GATEWAY)]


def test_lint_refuses_equal_priorities_on_one_subject_only() -> None:
    one, other = (
        policy(name, line, subject, tier=Tier.ADMIN, priority=7, ingress=(rule(line, who("*"), action=Action.DENY),))
        for name, line, subject in (("a", 1, "role=head"), ("b", 2, "role in (head,disk)"))
    )
    found = [finding for finding in lint(scene_with(one, other)) if finding.severity is Severity.ERROR]
    assert [(finding.origin.line, finding.code) for finding in found] == [(2, Code.EQUAL_PRIORITY)]
    apart = policy("c", 3, "role=disk", tier=Tier.ADMIN, priority=7, ingress=one.ingress)
    assert not any(finding.severity is Severity.ERROR for finding in lint(scene_with(one, apart)))


def test_lint_finds_tests_that_test_nothing() -> None:
    lines = [
        expectation(40, who("role=ghost"), who("*"), SSH, True),
        expectation(41, who("workspace=head"), who("workspace=head"), SSH, True),
        expectation(42, who("workspace=head"), who("workspace=mirror"), Ports(), True),
    ]
    assert codes(ATLAS, *lines) == [(40, Code.TESTS_NOTHING), (41, Code.TESTS_NOTHING), (42, Code.TESTS_NOTHING)]


def test_lint_finds_a_replacement_of_nothing() -> None:
    staged = policy("new", 1, "role=head", egress=(), mode=Mode.STAGE, replaces="old")
    assert codes(scene_with(staged)) == [(1, Code.REPLACES_NOTHING)]
    assert isinstance(lint(scene_with(staged))[0], Finding)
