"""Pure. From a host's derived networks, and the policies that it was shown, to the rules that it should have in force.

What a port, a tunnel's remote or a playground needs is made once and kept while all that it reads is the same object; a
new `RuleBook` is the oracle of one that has kept something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay.state import (
    Gate,
    LocalPort,
    Network,
    NetworkId,
    PortId,
    RemotePort,
    bridge_device,
    port_device,
    vxlan_device,
)
from playground.derive.playground import Section
from playground.gateways import gateway_name
from playground.records import NetworkRecord
from policies.compile.tables import Part, Parts, Table
from policies.guard import GUARD, GuardedPort, GuardedTunnel, Station, common_part, port_part, shut_part, tunnel_part

POLICY: Table = ("inet", "playground_policy")

COMMON = ""
"""Stands for what all ports need where the subject of a part is named."""


class Needs(NamedTuple):
    """What a port needs in force beside the rules of its own device: those of its network's tunnel device, and, where
    somebody polices it, those of its playground, met by the packets of its bridge."""

    tunnel: str
    bridge: str
    playground: str


@dataclass(frozen=True, slots=True)
class Policing:
    """The rules of a playground that somebody polices, and its bridges here."""

    part: Part
    bridges: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """All that should be in force on one host. common: by table, what needs no device. guards: by device; policing: by
    playground."""

    common: Mapping[Table, Parts] = field(default_factory=lambda: {GUARD: {}, POLICY: {}})
    guards: Mapping[str, Part] = field(default_factory=dict)
    policing: Mapping[str, Policing] = field(default_factory=dict)
    ports: Mapping[PortId, Needs] = field(default_factory=dict)


NO_RULES = Rules()
