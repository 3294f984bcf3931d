"""MACs against RFC 4291's worked example and netaddr."""

from __future__ import annotations

import netaddr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.mac import derived_mac, interface_id, is_multicast, is_usable, link_local, parse_mac, slaac_address
from overlay.state import LEG_MAC

macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))


@pytest.mark.parametrize("text", ["52:54:00:AB:cd:EF", "52-54-00-ab-cd-ef", "5254.00ab.cdef", "525400ABCDEF"])
def test_every_usual_form_of_a_mac_has_one_canonical_text(text: str) -> None:
    assert parse_mac(text) == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    "text", ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "5:4:0:a:c:e", "52:54-00:ab:cd:ef", "z" * 12]
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no MAC"):
        parse_mac(text)


def test_the_interface_id_is_that_of_rfc_4291_appendix_a() -> None:
    assert f"{interface_id('34:56:78:9a:bc:de'):016x}" == "365678fffe9abcde"


@settings(deadline=None, max_examples=50)
@given(macs)
def test_ipv6_addresses_of_a_mac_agree_with_netaddr(mac: str) -> None:
    peer = netaddr.EUI(mac)
    assert link_local(mac) == str(peer.ipv6_link_local())
    assert slaac_address("fd00:20::/64", mac) == str(peer.ipv6(int(netaddr.IPAddress("fd00:20::"))))


def test_only_a_slash_64_has_stateless_addresses() -> None:
    with pytest.raises(ValueError, match="no /64"):
        slaac_address("fd00::/56", "52:54:00:00:00:01")


@settings(deadline=None, max_examples=50)
@given(st.text("0123456789abcdef", min_size=12, max_size=12), st.integers(0, 5))
def test_a_derived_mac_is_stable_local_and_usable(port: str, attempt: int) -> None:
    mac = derived_mac(port, attempt)
    assert mac == derived_mac(port, attempt) == parse_mac(mac)
    assert mac.startswith("02:") and is_usable(mac)
    assert mac != derived_mac(port, attempt + 1)


def test_group_zero_and_leg_macs_are_not_usable() -> None:
    assert is_multicast("01:00:5e:00:00:01") and is_multicast("ff:ff:ff:ff:ff:ff")
    assert not is_usable("33:33:00:00:00:01")
    assert not is_usable("00:00:00:00:00:00")
    assert not is_usable(LEG_MAC)
    assert is_usable("52:54:00:00:00:01")
