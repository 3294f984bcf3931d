"""Reads how one host reaches the world, and what on it stands between. Changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
from dataclasses import dataclass, field
from typing import Any

from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.netlink import Netlink, number, parse
from overlay.kernel.observe import read_links

_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_TIMEOUT_S = 30


class NftError(OSError):
    """nft refused, or is not there; the text is its own, or the remedy."""


@dataclass(frozen=True, slots=True)
class Ways:
    """A host's routes beyond its own links. defaults: IP versions that have a default route. devices: those that any
    route by a router goes out of, by IP version."""

    defaults: frozenset[int] = frozenset()
    devices: dict[int, frozenset[str]] = field(default_factory=dict)


def ways(link: Netlink) -> Ways:
    """Of the socket's namespace: its main table."""
    names = {raw.index: raw.name for raw in read_links(link)}
    defaults: set[int] = set()
    devices: dict[int, frozenset[str]] = {}
    for version, family in _FAMILIES.items():
        found: set[str] = set()
        for body in link.dump(m.RTM_GETROUTE, m.list_routes(family)):
            _, length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(body)
            values = parse(body, _RTMSG.size)
            if m.RTA_TABLE in values:
                table = number(values[m.RTA_TABLE])
            hops = _hops(values)
            if table != m.RT_TABLE_MAIN or kind != m.RTN_UNICAST or not hops:
                continue
            if length == 0:
                defaults.add(version)
            if length == 0 or m.RTA_GATEWAY in values or m.RTA_MULTIPATH in values:
                found.update(names[index] for index in hops if index in names)
        devices[version] = frozenset(found - {"lo"})
    return Ways(frozenset(defaults), devices)


def _hops(values: dict[int, memoryview]) -> list[int]:
    """Interface indexes of a route's next hops."""
    if m.RTA_OIF in values:
        return [number(values[m.RTA_OIF])]
    found, hops = [], values.get(m.RTA_MULTIPATH, memoryview(b""))
    at = 0
    while at + _NEXT_HOP.size <= len(hops):
        length, _, _, index = _NEXT_HOP.unpack_from(hops, at)
        found.append(index)
        at += max(_NEXT_HOP.size, length + 3 & ~3)
    return found


def dropping(namespace: int, own_table: str, device: str) -> str:
    """The foreign table that drops what the host forwards unless one of its rules accepts, and has none that names our
    uplinks; "" when there is none. Verdicts of tables add up: no rule of ours can lift such a drop."""
    for entry in listing(namespace, "-t", "list", "chains"):
        chain = entry.get("chain", {})
        if (chain.get("hook"), chain.get("policy")) != ("forward", "drop") or chain["table"] == own_table:
            continue
        if chain["family"] not in ("ip", "ip6", "inet"):
            continue
        rules = run(namespace, "list", "table", chain["family"], chain["table"])
        if not re.search(rf'[io]ifname "(gw\*|gw\+|{re.escape(device)})"', rules):
            return f"{chain['family']} {chain['table']}"
    return ""


def listing(namespace: int, *arguments: str) -> list[dict[str, Any]]:
    """What nft lists in the namespace behind a descriptor (libnftables-json(5)). Raises NftError."""
    found: list[dict[str, Any]] = json.loads(run(namespace, "-j", *arguments))["nftables"]
    return found


def run(namespace: int, *arguments: str, text: str = "") -> str:
    """Runs nft in the namespace behind a descriptor. Raises NftError; of a text then nothing is loaded."""
    program = shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATHS)))
    if program is None:
        raise NftError(0, "nft is not installed; it comes with the package nftables")

    def work() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )

    done = namespaces.inside(namespace, work)
    if done.returncode:
        raise NftError(0, " ".join(done.stderr.split()) or f"nft ended with {done.returncode}")
    return done.stdout
