"""Small playgrounds, and a store of plain dicts that takes admissions as a controller would."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from playground.admit import Admission, Known, admit
from playground.records import (
    ClaimRecord,
    HostRecord,
    NetworkRecord,
    PlaygroundRecord,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
    key_of,
)
from playground.spec import load_playground


def a_host(name: str = "n1", underlay: str = "192.0.2.11", mtu: int = 1500) -> HostRecord:
    """A host as its agent reported it."""
    return HostRecord(name=name, site="lab", underlay=underlay, underlay_mtu=mtu)


@dataclass
class Site:
    """Everything that is stored: records by key, claims by key."""

    records: dict[str, Record] = field(default_factory=dict)
    claims: dict[str, ClaimRecord] = field(default_factory=dict)
    hosts: list[HostRecord] = field(default_factory=list)
    changes: int = 0

    def known(self, playground: str = "lab") -> Known:
        """What admission may look at for one playground."""
        mine = [record for record in self.records.values() if getattr(record, "playground", "") == playground]
        root = self.records.get(f"playground/{playground}")
        return Known(
            root=root if isinstance(root, PlaygroundRecord) else None,
            networks={record.name: record for record in mine if isinstance(record, NetworkRecord)},
            workspaces={record.name: record for record in mine if isinstance(record, WorkspaceRecord)},
            ports={(record.workspace, record.network): record for record in mine if isinstance(record, PortRecord)},
            policies={record.name: record for record in mine if isinstance(record, PolicyRecord)},
            claims={key: claim for key, claim in self.claims.items() if claim.playground == playground},
            vnis=frozenset(int(key.rpartition("/")[2]) for key in self.claims if key.startswith("claim/vni/")),
            hosts={host.name: host for host in self.hosts},
        )

    def up(self, text: str) -> Admission:
        """Admits a file and writes all of it."""
        self.changes += 1
        spec = load_playground(text, "lab.yaml")
        admission = admit(spec, self.known(spec.name), f"c{self.changes}")
        self.write(writes(admission))
        return admission

    def write(self, some: Iterable[tuple[str, Record | None]]) -> None:
        """Writes and deletes keys in order. A claim to create must not exist: then somebody else has it."""
        for key, record in some:
            if key.startswith("+"):
                key = key[1:]
                assert key not in self.claims, f"{key} is taken"
            if isinstance(record, ClaimRecord):
                self.claims[key] = record
            elif record is not None:
                self.records[key] = record
            else:
                self.records.pop(key, None)
                self.claims.pop(key, None)

    def addresses(self, network: str) -> dict[str, str]:
        """Workspace → first address on a network."""
        return {
            record.workspace: record.addresses[0]
            for record in self.records.values()
            if isinstance(record, PortRecord) and record.network == network
        }


def writes(admission: Admission) -> list[tuple[str, Record | None]]:
    """An admission as single writes, in the order that it promises; `+` marks keys that must be new."""
    root = [] if admission.root is None else [admission.root]
    return [
        *((f"+{key}", claim) for key, claim in admission.claims),
        *((key_of(record), record) for record in (*root, *admission.puts)),
        *admission.transfers,
        *((key, None) for key in admission.deletes),
    ]


def a_file(
    workers: int = 2,
    *,
    name: str = "lab",
    subnets: str = "[10.0.0.0/24, 'fd00::/64']",
    pools: str = "[]",
    exclude: str = "[]",
    more: str = "",
    nic: str = "grid",
) -> str:
    """A playground with one network and `workers` scaled workspaces; `more` is added below `workspaces`."""
    return (
        f"name: {name}\n"
        f"networks:\n  grid: {{subnets: {subnets}, pools: {pools}, exclude: {exclude}}}\n"
        f"workspaces:\n  worker: {{scale: {workers}, networks: [{nic}]}}\n{more}"
    )


def shuffled(some: list[tuple[str, Record | None]], seed: int) -> list[tuple[str, Record | None]]:
    """The same writes in another order."""
    random.Random(seed).shuffle(some)
    return some
