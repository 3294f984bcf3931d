"""Pure. Says what an emulated site consists of: hosts, addresses, links, files, command lines. Makes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Family = Literal["ipv4", "ipv6"]

MAX_HOSTS = 200
UNDERLAY_MTU = 1500
"""Bytes. What a real site most likely has: a playground that fits here fits there."""

_PREFIX_LENGTH: dict[Family, int] = {"ipv4": 24, "ipv6": 64}
_ADDRESS: dict[Family, str] = {"ipv4": "192.0.2.{:d}", "ipv6": "2001:db8::{:x}"}
"""The prefixes for documentation: no real host has them (RFC 5737, RFC 3849)."""


WORLD = "world"
"""Name of the place beyond the hosts' uplinks, among programs' hosts: no host's, as those are n1 and on."""

WORLD_ADDRESSES = ("203.0.113.1", "203.0.113.2", "203.0.113.129", "2001:db8:ffff::1", "2001:db8:ffff::2")
"""Who is there to talk to (RFC 5737, RFC 3849)."""

_UPLINK: dict[Family, str] = {"ipv4": "198.51.100.{:d}", "ipv6": "2001:db8:fffe::{:x}"}
"""The link between the hosts and the world; .1 is the world's. It has both families, whatever the underlay has."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One emulated host. address: its underlay address, plain. leg: its eth0's other end, on the underlay bridge.

    uplinks: its addresses on the link to the world, with prefix length; uplink: its eth1's other end, on that link.
    """

    name: str
    address: str
    leg: str
    uplinks: tuple[str, ...] = ()
    uplink: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A process that the sandbox keeps running. host: where; None is the sandbox's own network namespace."""

    name: str
    argv: tuple[str, ...]
    host: str | None = None


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """All that the sandbox's first process needs to know. Paths are absolute.

    discard_state: the state goes too when the leash is let go (a demo, or a start that was broken off).
    """

    site: str
    family: Family
    run_dir: str
    state_dir: str
    in_memory_state: bool
    discard_state: bool
    controller_address: str
    hosts: tuple[HostPlan, ...]
    programs: tuple[Program, ...] = ()

    def encode(self) -> str:
        """JSON on one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> SandboxPlan:
        """What `encode` wrote, by the same version."""
        fields: dict[str, Any] = json.loads(text)
        fields["hosts"] = tuple(HostPlan(**(h | {"uplinks": tuple(h["uplinks"])})) for h in fields["hosts"])
        fields["programs"] = tuple(Program(**(p | {"argv": tuple(p["argv"])})) for p in fields["programs"])
        return SandboxPlan(**fields)


def hosts_of(emulate: int, family: Family) -> tuple[HostPlan, ...]:
    """n1 … nN with 192.0.2.11 … or 2001:db8::11 …; n10 is 192.0.2.20 or 2001:db8::1a. Raises ValueError beyond 200."""
    if not 1 <= emulate <= MAX_HOSTS:
        raise ValueError(f"{emulate} emulated hosts are not possible; choose 1 to {MAX_HOSTS}")
    base = {"ipv4": 10, "ipv6": 0x10}[family]
    return tuple(
        HostPlan(
            f"n{i}",
            _ADDRESS[family].format(base + i),
            f"u{i}",
            tuple(f"{_UPLINK[kind].format(10 + i)}/{length}" for kind, length in _PREFIX_LENGTH.items()),
            f"w{i}",
        )
        for i in range(1, emulate + 1)
    )


def controller_address(family: Family) -> str:
    """The controller's address on the underlay."""
    return _ADDRESS[family].format(1)


def bridge_batch(plan: SandboxPlan) -> str:
    """`ip -batch` lines for the sandbox's own network namespace: the underlay and the controller's address on it."""
    length = _PREFIX_LENGTH[plan.family]
    return "\n".join(
        (
            "link set lo up",
            f"link add underlay0 mtu {UNDERLAY_MTU} type bridge mcast_snooping 0",
            f"address add {plan.controller_address}/{length} dev underlay0{_flags(plan.family)}",
            "link set underlay0 up",
            f"link add uplinks0 mtu {UNDERLAY_MTU} type bridge mcast_snooping 0",
            "link set uplinks0 up",
        )
    )


def leg_batch(host: HostPlan, pid: int) -> str:
    """`ip -batch` lines beside `bridge_batch`'s: eth0 and eth1 in process `pid`'s namespace, their other ends on the
    underlay and on the link to the world."""
    return "\n".join(
        (
            f"link add {host.leg} mtu {UNDERLAY_MTU} type veth peer name eth0 mtu {UNDERLAY_MTU} netns {pid}",
            f"link set {host.leg} master underlay0 up",
            f"link add {host.uplink} mtu {UNDERLAY_MTU} type veth peer name eth1 mtu {UNDERLAY_MTU} netns {pid}",
            f"link set {host.uplink} master uplinks0 up",
        )
    )


def world_leg_batch(pid: int) -> str:
    """`ip -batch` lines beside `bridge_batch`'s: the world's end of the link to it, in process `pid`'s namespace."""
    return "\n".join(
        (
            f"link add world mtu {UNDERLAY_MTU} type veth peer name eth0 mtu {UNDERLAY_MTU} netns {pid}",
            "link set world master uplinks0 up",
        )
    )


def world_batch() -> str:
    """`ip -batch` lines for the world's own network namespace."""
    ends = [f"{_UPLINK[family].format(1)}/{length}" for family, length in _PREFIX_LENGTH.items()]
    return "\n".join(
        (
            "link set lo up",
            "link set eth0 up",
            *(f"address add {end} dev eth0{_flags('ipv6') if ':' in end else ''}" for end in ends),
            # on lo: nobody has to be asked who has them
            *(f"address add {end} dev lo{_flags('ipv6') if ':' in end else ''}" for end in WORLD_ADDRESSES),
        )
    )


def host_batch(plan: SandboxPlan, host: HostPlan) -> str:
    """`ip -batch` lines for a host's own network namespace."""
    length = _PREFIX_LENGTH[plan.family]
    return "\n".join(
        (
            "link set lo up",
            f"address add {host.address}/{length} dev eth0{_flags(plan.family)}",
            "link set eth0 up",
            *(f"address add {end} dev eth1{_flags('ipv6') if ':' in end else ''}" for end in host.uplinks),
            "link set eth1 up",
            *(f"route add default via {_UPLINK[family].format(1)} dev eth1" for family in _PREFIX_LENGTH),
        )
    )


def _flags(family: Family) -> str:
    """Without duplicate address detection: an address that may be used at once."""
    return " nodad" if family == "ipv6" else ""


def site_file(plan: SandboxPlan) -> str:
    """The site's own file (JSON, which is YAML), for `playground controller --site-file`."""
    hosts = {host.name: {"underlay": host.address, "labels": {}} for host in plan.hosts}
    return json.dumps({"name": plan.site, "hosts": hosts}, indent=1) + "\n"


def tokens_file(tokens: Mapping[str, str]) -> str:
    """JSON of each host's token as the controller keeps it: only its SHA-256."""
    return json.dumps({host: hashlib.sha256(token.encode()).hexdigest() for host, token in tokens.items()}) + "\n"


def token_path(plan: SandboxPlan, host: str) -> Path:
    """Where a host's agent finds its token."""
    return Path(plan.state_dir) / "hosts" / host / "token"


def site_path(plan: SandboxPlan) -> Path:
    """Where the controller finds `site_file`."""
    return Path(plan.run_dir) / "site.yaml"


def tokens_path(plan: SandboxPlan) -> Path:
    """Where the controller finds `tokens_file`."""
    return Path(plan.run_dir) / "tokens.json"
