"""What a host derives of gateways: what it carries, who is told of them, and what no name stands for."""

from __future__ import annotations

import msgspec

from dhcp.scope import PortScope
from overlay.mac import link_local
from overlay.state import NetworkId
from playground.derive import Derived, derive_whole
from playground.derive.gateways import owned_prefixes
from playground.records import NetworkRecord, PortRecord
from playground.view import View, endpoints_of, gateways_of, playground_scope
from policies.model import Gateway
from tests.derive.test_derive import GRID, P0, P1, UNDERLAY, a_binding, a_gateway, a_leg, a_setting, a_view, a_workspace

LEG = a_leg(GRID)
WAN = a_gateway(LEG, "n1")


def viewed(host: str, network: NetworkRecord = GRID, port: PortRecord = P0, leg: PortRecord = LEG) -> View:
    routed = msgspec.structs.replace(port, router="wan")
    there = [network, routed, P1, leg, a_binding(port, "n2"), a_binding(P1, "n2"), a_binding(leg, "n1")]
    return a_view(host, there, [WAN] if host == "n1" else [a_workspace(port, "n2"), a_workspace(P1, "n2")])


def derived(host: str) -> Derived:
    return derive_whole(viewed(host), a_setting(host))


def told(found: Derived, port: PortRecord) -> PortScope:
    scope = found.services[f"port/{port.id}"]
    assert isinstance(scope, PortScope)
    return scope


def test_the_host_of_a_gateway_carries_it_and_no_other_does() -> None:
    [carried] = derived("n1").gateways.values()
    assert carried.gateway is not None
    assert (carried.name, carried.ports, carried.generation) == ("@wan", (LEG.id,), 1)
    [leg] = carried.gateway.legs
    assert set(leg.addresses) == {"10.0.0.99/24", "fd00::99/64", f"{link_local(LEG.mac)}/64"}
    assert carried.gateway.owned == ("10.0.0.0/24", "fd00::/64")
    assert set(carried.gateway.closed) == set(UNDERLAY.values())
    assert not derived("n2").gateways
    assert not derived("n1").wants


def test_a_gateway_waits_until_all_its_records_are_here() -> None:
    view = a_view("n1", [GRID, LEG], [WAN])
    [carried] = derive_whole(view, a_setting("n1")).gateways.values()
    assert carried.gateway is None


def test_a_leg_is_a_router_wherever_it_is_looked_at() -> None:
    here, there = (derived(host).state.networks[NetworkId(GRID.id)] for host in ("n1", "n2"))
    assert [port.router for port in here.ports.values()] == [True]
    assert there.remotes[LEG.mac].router and there.remotes[LEG.mac].vtep == UNDERLAY["n1"]
    assert not any(port.router for port in there.ports.values())


def test_a_client_is_told_of_the_router_by_both_families() -> None:
    scope = told(derived("n2"), P0)
    assert scope.v4 is not None and scope.ra is not None
    assert (scope.v4.router, scope.v4.routes) == ("10.0.0.99", ())
    assert (scope.ra.source, scope.ra.source_mac) == (link_local(LEG.mac), LEG.mac)
    assert scope.ra.router_lifetime_s == 1800


def test_who_has_its_default_route_elsewhere_is_told_of_none() -> None:
    scope = told(derived("n2"), P1)
    assert scope.v4 is not None and scope.ra is not None
    assert (scope.v4.router, scope.ra.router_lifetime_s, scope.ra.source_mac) == (None, 0, "")


def test_a_router_in_another_subnet_of_the_network_is_made_known_first() -> None:
    wide = msgspec.structs.replace(
        GRID, subnets=("10.0.0.0/24", "10.1.0.0/24", "fd00::/64"), gateways=("10.0.0.1", "10.1.0.1", "fd00::1")
    )
    leg = msgspec.structs.replace(LEG, addresses=("10.1.0.9", "fd00::99"))
    scope = told(derive_whole(viewed("n2", wide, leg=leg), a_setting("n2")), P0)
    assert scope.v4 is not None
    assert (scope.v4.router, scope.v4.routes) == ("10.1.0.9", (("10.1.0.9/32", "0.0.0.0"),))
    [carried] = derive_whole(viewed("n1", wide, leg=leg), a_setting("n1")).gateways.values()
    assert carried.gateway is not None
    assert carried.gateway.legs[0].others == ("10.0.0.0/24",)


def test_a_gateway_has_no_name_and_is_told_nothing() -> None:
    for host in ("n1", "n2"):
        assert not [key for key in derived(host).services if LEG.id in key]


def test_what_a_playground_owns_are_all_its_subnets() -> None:
    assert owned_prefixes(viewed("n1").scopes[playground_scope("atlas")]) == ("10.0.0.0/24", "fd00::/64")


def test_to_policies_a_leg_is_a_way_to_the_world_and_no_endpoint() -> None:
    second = msgspec.structs.replace(LEG, network="second", id="0" * 12)
    ports = (P0, LEG, second, P1)
    assert [endpoint.workspace for endpoint in endpoints_of(ports)] == [P0.workspace, P1.workspace]
    assert gateways_of(ports) == (Gateway("atlas", "wan", frozenset({"grid", "second"})),)
