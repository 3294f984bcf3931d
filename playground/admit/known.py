"""Pure. What admission may look at, and what it answers: plain data, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlay.pools import Version, parse_address
from playground.plan import Grid, Step
from playground.records import (
    ClaimRecord,
    HostRecord,
    NetworkRecord,
    PlaygroundRecord,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
)
from policies.model import Policy


@dataclass(frozen=True, slots=True)
class Leased:
    """What machines that no one declared may use of a network: IPv4 addresses and MACs that no port may have."""

    addresses: frozenset[int] = frozenset()
    macs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """One playground as it stands, and what it shares with others.

    networks, workspaces and policies by name, ports by (workspace, network), claims by key (only this playground's).
    leased: by network id; the claims of that are not among `claims`. vnis: all that are claimed in the site, this
    playground's included or not. hosts: all of the site, by name.
    called: what people call policies, by the names of their records, as far as that is known.
    """

    root: PlaygroundRecord | None = None
    networks: Mapping[str, NetworkRecord] = field(default_factory=dict)
    workspaces: Mapping[str, WorkspaceRecord] = field(default_factory=dict)
    ports: Mapping[tuple[str, str], PortRecord] = field(default_factory=dict)
    policies: Mapping[str, PolicyRecord] = field(default_factory=dict)
    claims: Mapping[str, ClaimRecord] = field(default_factory=dict)
    leased: Mapping[str, Leased] = field(default_factory=dict)
    vnis: frozenset[int] = frozenset()
    hosts: Mapping[str, HostRecord] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> Known:
        """An empty site without hosts."""
        return cls()

    @property
    def grid(self) -> Grid:
        """This playground's records."""
        return Grid(self.networks, self.workspaces, {port.id: port for port in self.ports.values()}, self.policies)

    @property
    def underlay_mtu(self) -> int:
        """Smallest MTU of the hosts' underlay, in bytes; 1500 where no host is known."""
        return min((host.underlay_mtu for host in self.hosts.values()), default=1500)

    @property
    def underlay_version(self) -> Version:
        """6 as soon as one host's tunnel address is IPv6, because that costs more; 4 where no host is known."""
        versions = {parse_address(host.underlay)[0] for host in self.hosts.values() if host.underlay}
        return 6 if 6 in versions else 4


@dataclass(frozen=True, slots=True)
class Admission:
    """What an accepted change writes, in this order; empty when nothing changes.

    claims: keys to create, each only if it does not exist, under the change id, before the root flips.
    root: the new root pointer, or None when it stays as it is.
    puts: records, after the flip. transfers: claims that exist for another owner of this playground and go over to a
    new one, after the flip (a fixed address taken from a port that gets another one).
    deletes: keys, last: records, then claims that nothing needs any more.
    steps: the same for people. Unlike the rest, empty for a change of comments only.
    written: the policies as the files have them, with their places, by the names of their records; nothing to write.
    """

    claims: tuple[tuple[str, ClaimRecord], ...] = ()
    root: PlaygroundRecord | None = None
    puts: tuple[Record, ...] = ()
    transfers: tuple[tuple[str, ClaimRecord], ...] = ()
    deletes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    written: Mapping[str, Policy] = field(default_factory=dict, compare=False)

    @property
    def is_empty(self) -> bool:
        """Nothing is to be written."""
        return not (self.claims or self.root or self.puts or self.transfers or self.deletes)
