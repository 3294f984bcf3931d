"""Small factories with defaults for scopes and client messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dhcp.message import BOOTREQUEST, Message
from dhcp.options import Code, MessageType
from dhcp.scope import Pool4, PortScope, Scope4, Scope6, ScopeRa

MAC = "02:00:00:00:00:05"
MAC_BYTES = bytes.fromhex("020000000005")
SERVER_MAC = "02:70:67:00:00:01"
ADDRESS, SERVER, OTHER = b"\x0a\x14\x00\x05", b"\x0a\x14\x00\x01", b"\x0a\x14\x00\x63"


def a_scope4(**changes: Any) -> Scope4:
    scope = Scope4(
        address="10.20.0.5",
        prefix_len=24,
        server="10.20.0.1",
        mtu=1400,
        dns=("10.20.0.1",),
        hostname="w0",
        domain="grid.atlas.internal",
        search=("grid.atlas.internal", "atlas.internal"),
        ntp=("10.20.0.9",),
        routes=(("169.254.169.254/32", "10.20.0.1"),),
    )
    return replace(scope, **changes)


def a_scope6(**changes: Any) -> Scope6:
    scope = Scope6(
        addresses=("fd00:20::5",),
        source="fe80::1",
        dns=("fd00:20::1",),
        hostname="w0",
        domain="grid.atlas.internal",
        search=("grid.atlas.internal", "atlas.internal"),
        ntp=("fd00:20::9",),
    )
    return replace(scope, **changes)


def a_scope_ra(**changes: Any) -> ScopeRa:
    scope = ScopeRa(
        source="fe80::1",
        prefixes=(("fd00:20::/64", True),),
        mtu=1400,
        rdnss=("fd00:20::1",),
        dnssl=("grid.atlas.internal", "atlas.internal"),
    )
    return replace(scope, **changes)


def a_port(v4: Scope4 | None = None, ra: ScopeRa | None = None) -> PortScope:
    return PortScope(mac=MAC, server_mac=SERVER_MAC, v4=v4, ra=ra)


def a_request(kind: MessageType | None, options: dict[int, bytes] | None = None, **fields: Any) -> Message:
    found: dict[int, bytes] = {} if kind is None else {Code.MESSAGE_TYPE: bytes((kind,))}
    return Message(BOOTREQUEST, b"\x12\x34\x56\x78", MAC_BYTES, found | (options or {}))._replace(**fields)


def a_pool(**changes: Any) -> Pool4:
    """10.20.0.100 to 10.20.0.107, of which the first four are given here."""
    pool = Pool4(
        name="grid",
        told=a_scope4(address="10.20.0.1", hostname=None, lease_s=600),
        ours=(("10.20.0.100", "10.20.0.103"),),
        whole=(("10.20.0.100", "10.20.0.107"),),
        limit=3,
    )
    return replace(pool, **changes)
