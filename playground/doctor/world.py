"""Owns what stands between this machine, as a host, and the world that gateways lead to. Reads only."""

from __future__ import annotations

import os

from overlay.kernel import forwarding, namespaces, uplinks
from overlay.kernel.netlink import Netlink
from playground.doctor.check import Check

REMEDY = (
    "have its forward chain accept what comes in by devices gw* and what goes out by them, as: "
    'nft insert rule {table} FORWARD iifname "gw*" accept, and the same with oifname'
)


def checks() -> list[Check]:
    """One line on gateways; nothing where it can't be seen (no nft, or no right to list rules)."""
    own = namespaces.own()
    try:
        link = Netlink(own)
        try:
            ways = uplinks.ways(link)
        finally:
            link.close()
        foreign = uplinks.dropping(own, "", "gw")
    except OSError:
        return []
    finally:
        os.close(own)
    if foreign:
        detail = f"the table {foreign} drops what it does not accept, so nothing passes a gateway on this machine"
        return [Check("gateways", False, detail, REMEDY.format(table=foreign), is_optional=True)]
    said = [_way(version, ways) for version in (4, 6)]
    return [Check("gateways", True, "the way to the world: " + ", ".join(said), is_optional=True)]


def _way(version: int, ways: uplinks.Ways) -> str:
    if version not in ways.defaults:
        return f"no default route for IPv{version}"
    devices = ", ".join(sorted(ways.devices[version]))
    if version == 6 and not forwarding.is_open(6) and not forwarding.has_switch(6):
        return f"IPv6 by {devices}, once net.ipv6.conf.all.forwarding is 1 (Linux 6.17 forwards for single devices)"
    return f"IPv{version} by {devices}"
