"""A gateway's names, addresses and texts: functions of what is wanted, never the same twice on one host."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from overlay_lab import NET, a_port, a_remote, mac

from overlay.gateways import Gateway, host_rules, inner_rules, transfers, uplink_device
from overlay.mac import link_local
from overlay.state import Network
from overlay.topology import lay_out

IDS = st.lists(st.from_regex(r"[0-9a-f]{12}", fullmatch=True), min_size=1, max_size=20, unique=True)
TRANSFER = transfers(["0123456789ab"])["0123456789ab"]
LINK_LOCAL = ip_network("169.254.0.0/16")


@settings(max_examples=50)
@given(IDS)
def test_no_two_uplinks_of_a_host_share_an_address(ids: list[str]) -> None:
    found = transfers(ids)
    for family in (0, 1):
        networks = {ip_interface(one.host[family]).network for one in found.values()}
        assert len(networks) == len(ids)
        assert networks == {ip_interface(one.gateway[family]).network for one in found.values()}
    for one in found.values():
        assert len({ip_interface(end).ip for end in (*one.host, *one.gateway)}) == 6
        assert ip_interface(one.host[0]).ip in LINK_LOCAL
        assert ip_interface(one.host[0]).ip < ip_interface("169.254.169.0").ip  # where clouds serve metadata
        assert ip_interface(one.host[1]).ip in ip_network("fd00::/8")


def test_an_uplink_keeps_its_addresses_when_others_come() -> None:
    alone, beside = transfers(["0123456789ab"]), transfers(["0123456789ab", "ba9876543210", "000000000001"])
    assert alone["0123456789ab"] == beside["0123456789ab"]


def a_gateway(**changes: object) -> Gateway:
    fields: dict[str, object] = {
        "id": "0123456789ab",
        "namespace": "dp-lab-gw.wan",
        "legs": (),
        "owned": ("10.0.0.0/24", "fd00::/64"),
        "closed": ("192.0.2.11", "2001:db8::11"),
    }
    return Gateway(**{**fields, **changes})  # type: ignore[arg-type]


def test_what_is_closed_is_in_the_text_and_in_the_comments_that_tell_of_it() -> None:
    text, comments = inner_rules(a_gateway(), TRANSFER)
    assert all(each in text for each in ("10.0.0.0/24", "192.0.2.11", "2001:db8::11", "169.254.0.0/16"))
    assert len(set(comments)) == len(comments) == text.count("comment")
    _, others = inner_rules(a_gateway(closed=("192.0.2.12",)), TRANSFER)
    assert others != comments
    assert inner_rules(a_gateway(), TRANSFER) == (text, comments)


def test_overlapping_prefixes_are_one_element() -> None:
    text, _ = inner_rules(a_gateway(owned=("169.254.3.0/24", "10.0.0.0/25", "10.0.0.128/25")), TRANSFER)
    assert "10.0.0.0/24" in text and "169.254.3.0" not in text


def test_the_hosts_text_names_devices_that_were_opened() -> None:
    uplinks = {uplink_device(id): one for id, one in transfers(["0123456789ab"]).items()}
    text, _ = host_rules("dp_gateways", uplinks, {4: {"eth9"}})
    assert 'elements = { "eth9" }' in text and '"gw0123456789ab"' in text


def test_neighbour_entries_of_a_router_say_that_it_is_one() -> None:
    network = Network(
        NET,
        vni=1,
        mtu=1450,
        ports={a_port(1).id: a_port(1, router=True), a_port(2).id: a_port(2)},
        remotes={mac(3): a_remote(3, "192.0.2.3")},
    )
    found = lay_out(network, "192.0.2.1", ()).tables.neighbours
    routers = {address for address, entry in found.items() if entry.router}
    assert routers == {"fd00::1", link_local(mac(1))}
