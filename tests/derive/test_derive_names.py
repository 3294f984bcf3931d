"""Names as a host's responder is told them: absolute, of all of the playground, and only where they changed."""

from __future__ import annotations

from msgspec.structs import replace

from playground.derive.services import records_of, services_of, view_of
from playground.records import Named
from playground.responder.protocol import Name, name_key
from tests.derive.test_derive import a_network, a_port


def test_a_target_without_a_last_dot_is_a_name_of_the_playground() -> None:
    names = (
        Named("m.grid", "CNAME", "head.grid"),
        Named("n.grid", "CNAME", "example.org."),
        Named("_sip._tcp.grid", "SRV", "0 5 5060 head.grid"),
        Named("_no._tcp.grid", "SRV", "0 0 0 ."),
        Named("grid", "TXT", "ends in head.grid"),
    )
    assert records_of(replace(a_network(), names=names), "atlas", "internal").records == (
        ("m.grid", "CNAME", "head.grid.atlas.internal."),
        ("n.grid", "CNAME", "example.org."),
        ("_sip._tcp.grid", "SRV", "0 5 5060 head.grid.atlas.internal."),
        ("_no._tcp.grid", "SRV", "0 0 0 ."),
        ("grid", "TXT", "ends in head.grid"),
    )


def test_who_may_ask_further_and_who_may_copy_follows_from_each_network() -> None:
    open_one = a_network()
    closed = replace(a_network("quiet"), subnets=("10.1.0.0/24",), forward=False, transfer=("10.1.0.9/32",))
    view = view_of({open_one.id: open_one, closed.id: closed}, {}, "atlas", "internal", ("192.0.2.53",))
    assert view.forward == ("10.0.0.0/24", "fd00::/64")
    assert view.transfer == ("10.1.0.9/32",)


def test_a_port_s_aliases_are_its_name_s() -> None:
    port = replace(a_port(1, a_network()), aliases=("www", "www.grid"))
    found = services_of(port, None, "atlas", "internal")[name_key("atlas", port.id)]
    assert found == Name(workspace="w-1", network="grid", addresses=port.addresses, aliases=("www", "www.grid"))
