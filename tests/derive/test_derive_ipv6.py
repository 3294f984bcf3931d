"""How a port's client is told to get its IPv6 addresses, by the network's word."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dhcp.ra import advertisement
from dhcp.server6 import Bound
from overlay.mac import slaac_address
from playground.derive.services import port_scope
from tests.derive.test_derive import a_network, a_port


@pytest.mark.parametrize(
    ("word", "is_autonomous", "is_leased"), [("slaac", True, False), ("dhcp", False, True), ("both", True, True)]
)
def test_flags_and_answers_follow_from_the_networks_word(word: str, is_autonomous: bool, is_leased: bool) -> None:
    network = replace(a_network(), ipv6=word)
    scope = port_scope(a_port(1, network), network, "atlas.internal")
    assert scope.ra is not None
    assert scope.ra.prefixes == (("fd00::/64", is_autonomous),)
    assert (scope.ra.managed, scope.ra.other, scope.v6 is not None) == (is_leased, is_leased, is_leased)
    # Hop limit, then the flags: M and O are the highest two (RFC 4861 §4.2)
    assert advertisement(scope)[54 + 5] == (0xC0 if is_leased else 0)


def test_a_client_gets_its_recorded_addresses_and_its_names() -> None:
    network = replace(a_network(), ipv6="dhcp", lease_s=600)
    scope = port_scope(a_port(1, network), network, "atlas.internal")
    assert scope.v6 is not None
    assert (scope.v6.addresses, scope.v6.lease_s, scope.v6.dns) == (("fd00::b",), 600, ("fd00::1",))
    assert scope.v6.search == ("grid.atlas.internal", "atlas.internal")
    Bound(scope)


def test_dhcpv6_gives_what_the_mac_does_not() -> None:
    network = replace(a_network(), ipv6="both")
    formed = slaac_address("fd00::/64", a_port(1, network).mac)
    for addresses, leased in ((("fd00::b", formed), ("fd00::b",)), ((formed,), (formed,))):
        port = replace(a_port(1, network), addresses=("10.0.0.11", *addresses))
        scope = port_scope(port, network, "atlas.internal")
        assert scope.v6 is not None and scope.v6.addresses == leased


def test_a_network_without_a_prefix_has_no_dhcpv6() -> None:
    network = replace(a_network(), ipv6="both", subnets=("10.0.0.0/24",), gateways=("10.0.0.1",))
    assert port_scope(a_port(1, network), network, "atlas.internal").v6 is None
