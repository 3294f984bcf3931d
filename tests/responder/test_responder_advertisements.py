"""Linux hosts by router advertisements at the port: what a renumbering, and the end of all, leave of the old."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from responder_lab import Agent, Guest, Host, eui64, until

from dhcp.scope import PortScope
from playground.responder.protocol import port_key

pytestmark = pytest.mark.system


def a_scope(guest: Guest, prefix: str = "fd00:20::/64") -> PortScope:
    """IPv6 alone, with a default router."""
    whole = guest.scope(with_v4=False, with_ra=True)
    assert whole.ra is not None
    return replace(whole, ra=replace(whole.ra, prefixes=((prefix, True),), router_lifetime_s=1800))


def formed(guest: Guest) -> dict[str, dict[str, Any]]:
    said = guest.run("ip", "-json", "-6", "address", "show", "dev", "eth0", "scope", "global")
    return {one["local"]: one for link in json.loads(said) for one in link.get("addr_info", ()) if one}


def routes(guest: Guest) -> set[str]:
    return {one["dst"] for one in json.loads(guest.run("ip", "-json", "-6", "route", "show", "dev", "eth0"))}


def test_an_address_of_a_prefix_that_has_gone_is_deprecated_at_once_and_all_ends_with_the_port(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    old = eui64(guest.mac)
    new = old.replace("fd00:20:", "fd00:21:")
    agent.tell({port_key(guest.port): a_scope(guest)}, whole=True)
    guest.up()
    until(lambda: set(formed(guest)) == {old})
    assert routes(guest) >= {"default", "fd00:20::/64"}
    agent.tell({port_key(guest.port): a_scope(guest, "fd00:21::/64")})
    until(lambda: set(formed(guest)) == {old, new})
    assert (formed(guest)[old]["deprecated"], formed(guest)[old]["valid_life_time"] <= 7200) == (True, True)
    assert "deprecated" not in formed(guest)[new]
    until(lambda: "fd00:20::/64" not in routes(guest))
    assert routes(guest) >= {"default", "fd00:21::/64"}
    agent.tell(delete=(port_key(guest.port),))
    until(lambda: not routes(guest) & {"default", "fd00:21::/64"})
    assert formed(guest)[new]["deprecated"]
