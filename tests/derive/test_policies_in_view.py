"""Policies as a host sees them: decoded once, counted and logged by the change, and as the file says."""

from __future__ import annotations

import msgspec
import pytest

from playground.admit import Known, admit
from playground.records import SITE_POLICIES, PolicyRecord, PortRecord, encode
from playground.spec import load_playground
from playground.spec.scene import endpoints
from playground.view import SITE, Scope, View, endpoint_of, freeze, policy_of, thaw
from playground.wire import Changed, Complete, Enter, decode_from_controller
from playground.wire import encode as said
from policies.codec import PackedEndpoints, PackedPolicy, PackedSelector, PackedTerm, Unreadable
from policies.model import Tier
from policies.selector import Operator
from tests.derive.test_derive import GRID, a_binding, a_port

ATLAS = "playground/atlas"


def a_policy(name: str, playground: str = "atlas", role: str = "head", **fields: object) -> PolicyRecord:
    selector = PackedSelector("", (PackedTerm("role", Operator.IN, (role,)),))
    subject = PackedEndpoints(selector, (playground,) if playground != SITE_POLICIES else None)
    return PolicyRecord(playground=playground, name=name, body=PackedPolicy((subject,), (), **fields))  # type: ignore[arg-type]


def a_scope(*records: PolicyRecord) -> Scope:
    scope = Scope()
    scope.replace([GRID, a_port(0, GRID), a_binding(a_port(0, GRID), "n1"), *records])
    return scope


def test_a_scope_holds_its_policies_by_name() -> None:
    scope = a_scope(a_policy("one"), a_policy("two", role="worker"))
    assert sorted(scope.policies) == ["one", "two"]
    assert scope.policies["two"].subjects[0].selector.matches({"role": "worker"})
    assert scope.policies["two"].playground == "atlas"


def test_a_policy_that_stays_stays_the_same_object() -> None:
    scope = a_scope(a_policy("one"), a_policy("two"))
    one, two, version = scope.policies["one"], scope.policies["two"], scope.version
    scope.put(a_policy("one"))
    assert scope.version == version
    scope.put(a_policy("two", role="worker"))
    assert scope.version > version
    assert scope.policies["one"] is one and scope.policies["two"] is not two


def test_a_port_that_changes_leaves_policies_and_a_policy_that_goes_is_a_change() -> None:
    scope = a_scope(a_policy("one"))
    one, version = scope.policies["one"], scope.version
    scope.put(msgspec.structs.replace(a_port(0, GRID), mac="02:00:00:00:00:99"))
    assert scope.policies["one"] is one
    assert scope.ports_log.since(version) == [a_port(0, GRID).id]
    version = scope.version
    scope.remove("policy/atlas/one")
    assert scope.policies == {} and scope.version > version


def test_the_policies_of_the_site_are_nobodys() -> None:
    view = View()
    view.take(Enter(SITE, 1, [a_policy("no-telnet", SITE_POLICIES, tier=Tier.ADMIN, priority=5)]))
    view.take(Complete(1))
    found = view.scopes[SITE].policies["no-telnet"]
    assert (found.playground, found.tier, found.priority) == ("", Tier.ADMIN, 5)
    assert found.subjects[0].playgrounds is None


def test_a_policy_is_said_to_a_host_and_remembered_there() -> None:
    view = View()
    message = Changed(ATLAS, 3, [a_policy("one")], [])
    view.take(decode_from_controller(said(message)))
    again, _ = thaw(freeze(view, 0.0, "internal", []))
    assert again.scopes[ATLAS].policies == view.scopes[ATLAS].policies == {"one": policy_of(a_policy("one"))}


def test_a_policy_that_cannot_be_read_changes_nothing() -> None:
    scope = a_scope(a_policy("one"))
    selector = PackedSelector("role", (PackedTerm("role", Operator.IN, ()),))
    foreign = PolicyRecord(playground="atlas", name="two", body=PackedPolicy((PackedEndpoints(selector, None),)))
    version = scope.version
    with pytest.raises(Unreadable):
        scope.put(foreign)
    assert (scope.version, sorted(scope.policies)) == (version, ["one"])


def test_a_cache_of_before_there_were_policies_is_still_read() -> None:
    port = encode(a_port(0, GRID)).replace(b'"schema":2', b'"schema":1').decode()
    view, _ = thaw(
        b'{"at_utc_s":1.0,"revision":4,"domain":"internal","resolvers":[],'
        b'"scopes":{"playground/atlas":[' + port.encode() + b"]}}"
    )
    assert view.scopes[ATLAS].policies == {}
    assert set(view.scopes[ATLAS].ports) == {a_port(0, GRID).id}


def test_an_endpoint_is_what_the_file_makes_it_beside_its_addresses() -> None:
    spec = load_playground(
        "name: atlas\n"
        "networks: {grid: {subnets: [10.0.0.0/24, 'fd00::/64']}, side: {subnets: [10.1.0.0/24]}}\n"
        "workspaces:\n"
        "  head: {labels: {role: head, team: x}, networks: [{network: grid, address: 10.0.0.9}, side]}\n"
        "  worker: {scale: 2, labels: {role: worker}, networks: [{network: grid, labels: {role: edge, v: '1'}}]}\n",
        "atlas.yaml",
    )
    ports = [record for record in admit(spec, Known.empty(), "c").puts if isinstance(record, PortRecord)]
    found = [endpoint_of(port) for port in ports]
    assert [(e.playground, e.workspace, e.network, e.labels) for e in found] == [
        (e.playground, e.workspace, e.network, e.labels) for e in endpoints(spec)
    ]
    assert [set(f.addresses) >= set(e.addresses) for f, e in zip(found, endpoints(spec), strict=True)] == [True] * 4
    assert all(len(endpoint.addresses) == (2 if endpoint.network == "grid" else 1) for endpoint in found)
