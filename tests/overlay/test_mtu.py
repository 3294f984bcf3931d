"""The computed guest MTU."""

from __future__ import annotations

from overlay.mtu import guest_mtu, shortfall


def test_vxlan_costs_50_bytes_over_ipv4_and_70_over_ipv6() -> None:
    assert guest_mtu(1500, 4) == 1450
    assert guest_mtu(1500, 6) == 1430
    assert guest_mtu(9000, 4) == 8950


def test_no_guest_packet_makes_an_ip_packet_over_64_kib() -> None:
    assert guest_mtu(65536, 4) == 65535 - 50


def test_ipv6_needs_1280_bytes() -> None:
    assert shortfall(1280, has_ipv6=True) == 0
    assert shortfall(1250, has_ipv6=True) == 30
    assert shortfall(1250, has_ipv6=False) == 0
    assert shortfall(500, has_ipv6=False) == 76
