"""Pure. What cloud-init in a guest is told, by its NoCloud data source: meta-data, user-data, network-config.

https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html. All but user-data is JSON, which is YAML, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, ip_network

from dhcp.scope import PortScope, Scope4
from overlay.mac import slaac_address
from playground.machine import Seed
from playground.workspaces.drivers.api import Guest, Nic
from playground.workspaces.drivers.libvirt.xml import domain_uuid

LABEL = "cidata"
"""Of the volume: what cloud-init looks for."""

_ROUTER, _NAME_SERVERS = 3, 6
"""DHCPv4 options, RFC 2132 §3.5 and §3.8."""

_EVERYWHERE = "0.0.0.0/0"


def seed_files(guest: Guest, seed: Seed, user_data: bytes, told: Mapping[str, PortScope]) -> dict[str, bytes]:
    """By name. user_data: what `seed` says, or the file that it names. told: by port, what DHCP and advertisements tell
    there."""
    # the identity is the workspace's: a machine made anew after an edit, with its disk, is the same to cloud-init
    meta = {"instance-id": domain_uuid(guest.id), "local-hostname": guest.hostname}
    network = network_config(guest.nics, told, is_static=seed.network == "static")
    return {
        "meta-data": _text(meta),
        "user-data": user_data or b"#cloud-config\n{}\n",
        "network-config": _text(network),
    }


def _text(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def network_config(nics: Sequence[Nic], told: Mapping[str, PortScope], *, is_static: bool) -> dict[str, object]:
    """Version 2. A NIC of which nothing is known asks by DHCP. is_static: addresses are written out, not asked for."""
    found = {}
    for nic in nics:
        scope = told.get(nic.port)
        own: dict[str, object] = {"match": {"macaddress": nic.mac}, "set-name": f"eth{nic.index}", "mtu": nic.mtu}
        if scope is None or not is_static:
            own |= {"dhcp4": True, "dhcp6": scope is not None and scope.v6 is not None}
        else:
            own |= _static(scope)
        found[f"eth{nic.index}"] = own | {"accept-ra": scope is not None and scope.ra is not None}
    return {"version": 2, "ethernets": found}


def _static(scope: PortScope) -> dict[str, object]:
    v4, v6, ra = scope.v4, scope.v6, scope.ra
    addresses = [f"{v4.address}/{v4.prefix_len}"] if v4 is not None else []
    addresses += [f"{address}/64" for address in (v6.addresses if v6 is not None else ())]
    prefixes = ra.prefixes if ra is not None else ()
    formed = [slaac_address(prefix, scope.mac) for prefix, is_autonomous in prefixes if is_autonomous]
    addresses += [f"{address}/64" for address in formed if f"{address}/64" not in addresses]
    servers = [*(_said(v4, _NAME_SERVERS, v4.dns) if v4 is not None else ())]
    servers += [server for server in (ra.rdnss if ra is not None else ()) if server not in servers]
    search = (v4.search if v4 is not None else ()) or (ra.dnssl if ra is not None else ())
    found: dict[str, object] = {"dhcp4": False, "dhcp6": False, "addresses": addresses}
    if servers:
        found["nameservers"] = {"addresses": servers, "search": list(search)}
    if routes := _routes(v4):
        found["routes"] = routes
    return found


def _routes(v4: Scope4 | None) -> list[dict[str, str]]:
    """The way to the world first. A next hop of 0.0.0.0 is the link itself (RFC 3442); IPv6's ways are advertised."""
    if v4 is None:
        return []
    found = [{"to": _EVERYWHERE, "via": router} for router in _said(v4, _ROUTER, (v4.router or "",))[:1] if router]
    for prefix, hop in v4.routes:
        if ip_network(prefix).prefixlen == 0:
            continue  # option 121 says the router again, as a client that knows it heeds no other (RFC 3442)
        found.append({"to": prefix, "scope": "link"} if hop == "0.0.0.0" else {"to": prefix, "via": hop})
    return found


def _said(v4: Scope4, code: int, otherwise: Sequence[str]) -> Sequence[str]:
    """The addresses of an option, where the file says it instead of us."""
    value = dict(v4.options).get(code)
    if value is None:
        return otherwise
    return [str(IPv4Address(value[at : at + 4])) for at in range(0, len(value) - 3, 4)]
