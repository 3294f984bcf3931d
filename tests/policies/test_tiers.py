"""Truth tables: every combination of what the tiers say of one packet, judged by hand below, not by the evaluator."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from policies.connections import connections
from policies.evaluate import allowed, judge
from policies.ir import FIRST_IDENTITY, IR, SERVICES
from policies.model import (
    Action,
    Direction,
    Endpoint,
    EndpointPeer,
    Mode,
    Origin,
    Policy,
    Rule,
    Scene,
    ServicesPeer,
    Tier,
)
from policies.ports import EVERYTHING, NOTHING, Ports, Protocol
from policies.resolve import resolve
from policies.selector import parse_selector

ANYONE = EndpointPeer(parse_selector("*"), None)
SSH = Ports.of(Protocol.TCP, 22)
A, B = "a", "b"

ORDERED = [None, *Action]
OWNER = [None, "closed", Action.ALLOW]


def an_endpoint(name: str, **labels: str) -> Endpoint:
    return Endpoint("p", name, "n", {"workspace": name, "network": "n", "playground": "p", **labels})


def a_scene(*policies: Policy) -> Scene:
    return Scene((an_endpoint(A), an_endpoint(B)), policies)


def a_policy(
    name: str, who: str = A, direction: Direction = Direction.EGRESS, *rules: Rule, **fields: object
) -> Policy:
    is_egress = direction is Direction.EGRESS
    made = Policy(
        name,
        (EndpointPeer(parse_selector(f"workspace={who}"), None),),
        None if is_egress else rules,
        rules if is_egress else None,
        Origin(f"{name}.yaml", 1),
    )
    return replace(made, **fields)


def a_rule(action: Action = Action.ALLOW, ports: Ports = EVERYTHING, line: int = 2, peer: object = ANYONE) -> Rule:
    return Rule((peer,), ports, Origin("rules.yaml", line), action)


def end_of(ir: IR, name: str) -> int:
    return next(end for end, one in enumerate(ir.identities, FIRST_IDENTITY) if (name, "n") in one.members)


def ordered(tier: Tier, action: Action | None, direction: Direction, priority: int = 1) -> list[Policy]:
    who = A if direction is Direction.EGRESS else B
    if action is None:
        return []
    name = f"{tier.value}-{priority}"
    return [a_policy(name, who, direction, a_rule(action, SSH), tier=tier, priority=priority)]


def owned(says: object, direction: Direction) -> list[Policy]:
    who = A if direction is Direction.EGRESS else B
    rules = [a_rule(ports=SSH)] if says is Action.ALLOW else []
    return [] if says is None else [a_policy("owner", who, direction, *rules)]


def by_hand(first: Action | None, second: Action | None, owner: object, baseline: Action | None) -> bool:
    """Whether SSH passes one end: two admin rules in order, the owner's policies, one baseline rule."""
    admin = first if first is not None else second
    if admin is Action.ALLOW:
        return True
    if admin is Action.DENY:
        return False
    if owner is not None:
        return owner is Action.ALLOW
    return baseline is not Action.DENY


def ssh_passes(scene: Scene) -> bool:
    return any(one.ports >= SSH for one in connections(scene, sources={A}, destinations={B}))


@pytest.mark.parametrize("direction", Direction)
def test_tiers_decide_in_order_at_either_end(direction: Direction) -> None:
    for first, second, owner, baseline in product(ORDERED, ORDERED, OWNER, ORDERED):
        scene = a_scene(
            *ordered(Tier.BASELINE, baseline, direction),
            *owned(owner, direction),
            *ordered(Tier.ADMIN, second, direction, 2),
            *ordered(Tier.ADMIN, first, direction, 1),
        )
        assert ssh_passes(scene) == by_hand(first, second, owner, baseline), (first, second, owner, baseline)


def test_both_ends_have_to_allow() -> None:
    says = list(product(ORDERED, OWNER, ORDERED))
    for ours, theirs in product(says, says):
        scene = a_scene(
            *(one for direction, (admin, owner, baseline) in ((Direction.EGRESS, ours), (Direction.INGRESS, theirs))
              for one in (*ordered(Tier.ADMIN, admin, direction), *owned(owner, direction),
                          *ordered(Tier.BASELINE, baseline, direction)))
        )  # fmt: skip
        expected = by_hand(ours[0], None, *ours[1:]) and by_hand(theirs[0], None, *theirs[1:])
        assert ssh_passes(scene) == expected, (ours, theirs)


def test_order_inside_an_admin_policy_counts() -> None:
    for first, second in product(Action, Action):
        rules = a_rule(first, SSH), a_rule(second, SSH)
        scene = a_scene(
            a_policy("admin", A, Direction.EGRESS, *rules, tier=Tier.ADMIN), *owned("closed", Direction.EGRESS)
        )
        assert ssh_passes(scene) == (first is Action.ALLOW)


def test_a_rule_decides_only_the_ports_that_it_names() -> None:
    rules = a_rule(Action.DENY, SSH), a_rule(Action.ALLOW, Ports.of(Protocol.TCP, 20, 30))
    ir = resolve(
        a_scene(a_policy("admin", A, Direction.EGRESS, *rules, tier=Tier.ADMIN), *owned("closed", Direction.EGRESS))
    )
    assert allowed(ir, end_of(ir, A), end_of(ir, B)) == Ports.of(Protocol.TCP, 20, 30) - SSH


def test_pass_skips_the_rest_of_its_tier() -> None:
    rules = a_rule(Action.PASS), a_rule(Action.DENY)
    assert ssh_passes(a_scene(a_policy("admin", A, Direction.EGRESS, *rules, tier=Tier.ADMIN)))
    assert ssh_passes(a_scene(a_policy("baseline", A, Direction.EGRESS, *rules, tier=Tier.BASELINE)))


def test_only_the_admin_tier_closes_services() -> None:
    closed = [*owned("closed", Direction.EGRESS)]
    deny = a_policy("base", A, Direction.EGRESS, a_rule(Action.DENY, peer=ServicesPeer()), tier=Tier.BASELINE)
    for policies, expected in (
        (closed, EVERYTHING),
        ([deny], EVERYTHING),
        ([replace(deny, tier=Tier.ADMIN)], NOTHING),
        ([replace(deny, tier=Tier.ADMIN, egress=(a_rule(Action.DENY, SSH, peer=ServicesPeer()),))], EVERYTHING - SSH),
    ):
        ir = resolve(a_scene(*policies))
        assert allowed(ir, end_of(ir, A), SERVICES) == expected


@pytest.mark.parametrize("mode", Mode)
def test_only_a_staged_policy_is_not_enforced(mode: Mode) -> None:
    scene = a_scene(a_policy("closes", mode=mode))
    assert ssh_passes(scene) == (mode is Mode.STAGE)
    assert not any(connections(scene, sources={A}, is_staged=True))


def test_a_staged_policy_stands_for_the_one_that_it_replaces() -> None:
    scene = a_scene(a_policy("old"), a_policy("new", A, Direction.EGRESS, a_rule(), mode=Mode.STAGE, replaces="old"))
    assert not ssh_passes(scene)
    assert [one.ports for one in connections(scene, sources={A}, is_staged=True)] == [EVERYTHING]


def test_owners_policies_add_up_and_the_first_that_allows_is_named() -> None:
    scene = a_scene(
        a_policy("one", A, Direction.EGRESS, a_rule(ports=SSH)),
        a_policy("two", A, Direction.EGRESS, a_rule(ports=Ports.of(Protocol.UDP, 53) | SSH)),
    )
    ir = resolve(scene)
    decisions = judge(ir.chain(Direction.EGRESS, end_of(ir, A)), end_of(ir, B), EVERYTHING)
    assert [(one.rule.policy.name if one.rule else None, one.ports) for one in decisions] == [
        ("one", SSH),
        ("two", Ports.of(Protocol.UDP, 53)),
        (None, EVERYTHING - SSH - Ports.of(Protocol.UDP, 53)),
    ]
