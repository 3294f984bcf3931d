"""What a gateway in a file becomes: a member of its networks, and the router of one NIC of each workspace there."""

from __future__ import annotations

import pytest

from playground.admit import Admission, admit
from playground.records import PortRecord, WorkspaceRecord, port_id
from playground.spec import SpecErrors, load_playground
from tests.admit.grids import Site, a_file, a_host

WAN = "gateways: {wan: {kind: nat, networks: [grid], host: n1}}\n"
TWO = "name: lab\nnetworks: {a: {subnets: 10.0.0.0/24}, b: {subnets: 10.1.0.0/24}}\n"


def routers(text: str) -> dict[tuple[str, str], str]:
    """The router of each port that has one, by (workspace, network)."""
    site = Site()
    site.up(text)
    ports = [record for record in site.records.values() if isinstance(record, PortRecord)]
    return {(port.workspace, port.network): port.router for port in ports if port.router}


def refused(text: str) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        Site(hosts=[a_host()]).up(text)
    return [str(problem).removeprefix("lab.yaml:") for problem in caught.value.problems]


def test_a_gateway_is_placed_and_addressed_as_a_member_of_its_networks() -> None:
    site = Site(hosts=[a_host()])
    site.up(a_file(2, more=WAN))
    gateway, leg = site.records["workspace/lab/@wan"], site.records["port/lab/@wan/grid"]
    assert isinstance(gateway, WorkspaceRecord) and isinstance(leg, PortRecord)
    assert (gateway.driver, gateway.pin, gateway.ports) == ("nat", "n1", (port_id("lab", "@wan", "grid"),))
    assert leg.addresses[0] == "10.0.0.4"  # after the workspaces: they keep what they have when a gateway comes
    assert {key for key, claim in site.claims.items() if claim.owner == leg.id} >= {
        f"claim/mac/{leg.network_id}/{leg.mac.replace(':', '')}"
    }
    assert leg.router == ""


def test_the_same_file_again_changes_nothing() -> None:
    site = Site(hosts=[a_host()])
    site.up(a_file(2, more=WAN))
    assert site.up(a_file(2, more=WAN)) == Admission()


def test_a_plan_names_the_gateway_and_who_gets_a_way_out() -> None:
    site = Site(hosts=[a_host()])
    site.up(a_file(1))
    came = {step.object: step for step in site.up(a_file(1, more=WAN)).steps}
    assert came["gateway wan"].action == "create"
    assert came["workspace worker-0"].detail == "router none → wan"
    gone = {step.object: step for step in site.up(a_file(1)).steps}
    assert gone["gateway wan"].action == "remove"
    assert gone["workspace worker-0"].detail == "router wan → none"
    assert not any("@wan" in key for key in site.records)


def test_a_workspace_on_two_networks_has_its_default_route_on_the_first_with_a_gateway() -> None:
    text = TWO + "workspaces: {w: {networks: [a, b]}, v: {networks: [b, a]}}\n"
    both = text + "gateways: {wan: {kind: nat, networks: [a, b]}}\n"
    assert routers(both) == {("w", "a"): "wan", ("v", "b"): "wan"}
    only_b = text + "gateways: {wan: {kind: nat, networks: [b]}}\n"
    assert routers(only_b) == {("w", "b"): "wan", ("v", "b"): "wan"}


@pytest.mark.parametrize(
    ("nics", "network"),
    [
        ("[a, {network: b, default_route: true}]", "b"),
        ("[{network: a, default_route: false}, b]", "b"),
        ("[{network: a, default_route: true}, b]", "a"),
    ],
)
def test_a_nic_may_say_whether_it_is_the_default_route(nics: str, network: str) -> None:
    found = routers(
        TWO + f"workspaces: {{w: {{networks: {nics}}}}}\ngateways: {{wan: {{kind: nat, networks: [a, b]}}}}\n"
    )
    assert found == {("w", network): "wan"}


def test_what_no_gateway_can_be_is_refused_at_its_place() -> None:
    twice = "gateways:\n  wan: {kind: nat, networks: [grid]}\n  wan2: {kind: nat, networks: [grid]}\n"
    assert refused(a_file(1, more=twice)) == [
        "8:3: gateways.wan2: grid has the gateway wan already (line 7); keep one of them"
    ]
    assert "is no host of this site" in refused(a_file(1, more=WAN.replace("n1", "n9")))[0]
    lost = TWO + "workspaces:\n  w:\n    networks: [a, {network: b, default_route: true}]\n"
    lost += "gateways: {wan: {kind: nat, networks: [a]}}\n"
    [problem] = refused(lost)
    assert problem.startswith("5:") and "no gateway is on b" in problem
    double = "[{network: a, default_route: true}, {network: b, default_route: true}]"
    both = TWO + f"workspaces: {{w: {{networks: {double}}}}}\ngateways: {{wan: {{kind: nat, networks: [a, b]}}}}\n"
    assert "a is the default route of w already" in refused(both)[0]


def test_a_host_of_a_gateway_is_a_name_or_a_selector() -> None:
    with pytest.raises(SpecErrors) as caught:
        load_playground(a_file(1, more=WAN.replace("n1", "'role = '")), "lab.yaml")
    assert "gateways.wan.host" in str(caught.value)
    selected = load_playground(a_file(1, more=WAN.replace("n1", "edge=yes")), "lab.yaml")
    admission = admit(selected, Site().known(), "c1")
    [gateway] = [r for r in admission.puts if isinstance(r, WorkspaceRecord) and r.name == "@wan"]
    assert gateway.pin == "edge=yes"
