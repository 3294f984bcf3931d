"""The fast evaluator beside the dumb one: equal on every pair, port and address of random scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from random import Random

import naive
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import ADDRESSES, POINTS, PORTS, policies, scenes

from policies.connections import WORLD, connections, names
from policies.difference import difference
from policies.ends import WorkspaceEnd, WorldEnd
from policies.evaluate import judge, split, towards
from policies.explain import explain
from policies.ir import FIRST_IDENTITY, HOST, SERVICES
from policies.ir_json import decode, encode
from policies.model import Direction, Policy, Scene
from policies.ports import NOTHING, Ports
from policies.resolve import Resolver, resolve

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=4000)


def holding(listed: dict[tuple[str, str], Ports], name: str, address: str, is_outward: bool, is_owned: bool) -> Ports:
    """What is listed between a workspace and the part of the world in which an address lies; what is owned is none."""
    found = NOTHING
    for (source, destination), ports in listed.items():
        mine, other = (source, destination) if is_outward else (destination, source)
        if mine != name or (other != WORLD and "-" not in other):
            continue
        if other == WORLD:
            found |= NOTHING if is_owned else ports
            continue
        first, last = map(ip_address, other.split("-"))
        if first.version == ip_address(address).version and first <= ip_address(address) <= last:
            found |= ports
    return found


def compare(scene: Scene, is_staged: bool) -> None:
    called = names(scene)
    listed: dict[tuple[str, str], Ports] = {}
    for one in connections(scene, is_staged=is_staged):
        assert (one.source, one.destination) not in listed
        assert one.ports
        listed[one.source, one.destination] = one.ports
    for key, name in called.items():
        assert (name, name) not in listed
        for other, other_name in called.items():
            ports = listed.get((name, other_name), NOTHING)
            for point in POINTS if key != other else ():
                assert ports.holds(*point) == naive.workspaces_talk(scene, key, other, point, is_staged), (name, other)
        for address in ADDRESSES:
            for is_outward in (True, False):
                is_owned = naive.is_owned(scene, key[0], ip_address(address))
                ports = holding(listed, name, address, is_outward, is_owned)
                for point in POINTS:
                    expected = naive.workspace_and_world(scene, key, ip_address(address), is_outward, point, is_staged)
                    assert ports.holds(*point) == expected, (name, address, is_outward, point)


def compare_special_ends(scene: Scene) -> None:
    """Ends that are never listed are judged all the same; and the walk names what the sets say."""
    ir = resolve(scene)
    ends = [(SERVICES, naive.Special("services")), (HOST, naive.Special("host"))]
    ends += [
        (ir.first_gateway + number, naive.Special(f"gateway {name}", playground))
        for number, (playground, name) in enumerate(ir.gateways)
    ]
    for end, identity in enumerate(ir.identities, FIRST_IDENTITY):
        workspace, network = identity.members[0]
        subjects = [
            one
            for one in scene.endpoints
            if (one.playground, one.workspace, one.network) == (identity.playground, workspace, network)
        ]
        if len(subjects) != 1:
            continue
        for direction in Direction:
            chain = ir.chain(direction, end)
            for other, special in ends:
                for point in POINTS:
                    expected = naive.consents(scene, direction, subjects[0], special, point)
                    assert towards(chain, other).holds(*point) == expected
            for other in range(ir.first_cell + len(ir.cells)):
                whole = Ports.union(Ports.of(*point) for point in POINTS)
                decisions = judge(chain, other, whole)
                assert Ports.union(one.ports for one in decisions) == whole
                granted = Ports.union(one.ports for one in decisions if one.is_allowed)
                assert granted == towards(chain, other) & whole


@FEW
@given(scenes(), st.booleans())
def test_every_pair_is_judged_as_the_definitions_say(scene: Scene, is_staged: bool) -> None:
    compare(scene, is_staged)


@FEW
@given(scenes())
def test_services_hosts_and_gateways_are_judged_as_the_definitions_say(scene: Scene) -> None:
    compare_special_ends(scene)


@pytest.mark.long
@MANY
@given(scenes(), st.booleans())
def test_thousands_of_scenes_are_judged_as_the_definitions_say(scene: Scene, is_staged: bool) -> None:
    compare(scene, is_staged)
    compare_special_ends(scene)


@FEW
@given(scenes(), st.lists(st.tuples(st.integers(0, 5), policies(7)), max_size=4))
def test_a_kept_resolver_says_what_a_fresh_one_says(scene: Scene, edits: list[tuple[int, Policy]]) -> None:
    kept = Resolver()
    for chain in kept.resolve(scene).chains:
        split(chain)
    for number, (place, edited) in enumerate(edits):
        policy = replace(edited, name=f"edit-{number}")  # no two of a site have one name
        before, after = scene.policies[:place], scene.policies[place + 1 :]
        scene = Scene(scene.endpoints, (*before, policy, *after), scene.gateways, scene.hidden, scene.subnets)
        ours, fresh = kept.resolve(scene), resolve(scene)
        assert ours == fresh
        everyone = (1 << ours.first_cell + len(ours.cells)) - 1
        for one, other in zip(ours.chains, fresh.chains, strict=True):
            known, made = ({ports: ends & everyone for ports, ends in split(it).items()} for it in (one, other))
            assert {it: ends for it, ends in known.items() if ends} == {it: ends for it, ends in made.items() if ends}


@FEW
@given(scenes(), st.randoms())
def test_the_order_in_which_things_are_given_does_not_matter(scene: Scene, random: Random) -> None:
    endpoints, policies_, gateways = list(scene.endpoints), list(scene.policies), list(scene.gateways)
    for one in (endpoints, policies_, gateways):
        random.shuffle(one)
    shuffled = Scene(tuple(endpoints), tuple(policies_), tuple(gateways), scene.hidden, scene.subnets)
    assert resolve(shuffled) == resolve(scene)


@FEW
@given(scenes())
def test_the_intermediate_form_survives_json(scene: Scene) -> None:
    ir = resolve(scene)
    assert decode(json.loads(json.dumps(encode(ir)))) == ir


@FEW
@given(scenes(), scenes())
def test_a_difference_is_what_two_listings_differ_in(before: Scene, after: Scene) -> None:
    after = Scene(after.endpoints, after.policies, after.gateways, subnets=before.subnets)
    called = names(Scene((*before.endpoints, *after.endpoints), ()))
    changes = {(one.source, one.destination): one for one in difference(before, after)}
    for key, name in called.items():
        for other, other_name in called.items():
            if key == other:
                continue
            change = changes.get((name, other_name))
            for point in POINTS:
                was = naive.workspaces_talk(before, key, other, point)
                now = naive.workspaces_talk(after, key, other, point)
                assert (change is not None and change.opened.holds(*point)) == (now and not was)
                assert (change is not None and change.cut.holds(*point)) == (was and not now)
        opened = {pair: one.opened for pair, one in changes.items()}
        cut = {pair: one.cut for pair, one in changes.items()}
        for text in ADDRESSES:
            address = ip_address(text)
            owned = [naive.is_owned(scene, key[0], address) for scene in (before, after)]
            for is_outward in (True, False):
                for point in POINTS:
                    was = naive.workspace_and_world(before, key, address, is_outward, point)
                    now = naive.workspace_and_world(after, key, address, is_outward, point)
                    if not any(owned):
                        assert holding(opened, name, text, is_outward, False).holds(*point) == (now and not was)
                        assert holding(cut, name, text, is_outward, False).holds(*point) == (was and not now)


@FEW
@given(scenes(), st.sampled_from(PORTS))
def test_an_explanation_ends_in_the_verdict(scene: Scene, ports: Ports) -> None:
    listed = {(one.source, one.destination): one.ports for one in connections(scene)}
    ir = resolve(scene)
    for key, name in names(scene).items():
        for other, other_name in names(scene).items():
            if key != other:
                found = explain(scene, WorkspaceEnd(key), WorkspaceEnd(other), ports, ir)
                assert found.allowed == listed.get((name, other_name), NOTHING) & ports
                assert found.is_allowed == (ports <= found.allowed)
        for text in ADDRESSES:
            address = ip_address(text)
            if not naive.is_owned(scene, key[0], address):
                for is_outward in (True, False):
                    pair = (WorkspaceEnd(key), WorldEnd.at(address))
                    found = explain(scene, *(pair if is_outward else pair[::-1]), ports, ir)
                    assert found.allowed == holding(listed, name, text, is_outward, False) & ports
