"""The controller's reading of the store: every record, indexed, kept current by one watch. Never written to but by
events.

Whoever decides reads here and commits with compares on `modified`; `reached(revision)` waits until an own commit is
visible, so a decision after a commit sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from overlay.pools import address_hex, parse_address
from playground import records
from playground.controller.ties import Ties
from playground.records import (
    SITE_POLICIES,
    AliveRecord,
    BindingRecord,
    ChangeRecord,
    ClaimRecord,
    DrainRecord,
    DynamicRecord,
    EventRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    ObservedHost,
    ObservedLeases,
    ObservedPort,
    ObservedWorkspace,
    PlaygroundRecord,
    PolicyRecord,
    PortRecord,
    ProbeRecord,
    Record,
    SiteRecord,
    WorkspaceRecord,
    address_claim,
)
from playground.store.api import Compacted, Compare, Item, Revision, Store
from playground.workspaces.migration import ENDED, State
from policies.model import Mode


class Unreadable(ValueError):
    """The store holds what this version can't read, and so must not act on: it would take the rest for the whole."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """What hosts are shown of a playground's policies and ports, by key, while others are being written. revision: the
    last of which hosts can say that they have all."""

    records: Mapping[str, PolicyRecord | PortRecord]
    revision: int


@dataclass(slots=True)
class Grid:
    """One playground's records. ports and networks by id, dynamics by their port's, workspaces and policies by name,
    claims by key."""

    root: PlaygroundRecord | None = None
    networks: dict[str, NetworkRecord] = field(default_factory=dict)
    workspaces: dict[str, WorkspaceRecord] = field(default_factory=dict)
    ports: dict[str, PortRecord] = field(default_factory=dict)
    policies: dict[str, PolicyRecord] = field(default_factory=dict)
    bindings: dict[str, BindingRecord] = field(default_factory=dict)
    migrations: dict[str, MigrationRecord] = field(default_factory=dict)
    dynamics: dict[str, DynamicRecord] = field(default_factory=dict)
    claims: dict[str, ClaimRecord] = field(default_factory=dict)
    claimed: dict[str, set[str]] = field(default_factory=dict)
    """Keys of the claims of each owner."""

    def is_empty(self) -> bool:
        """Nothing of the playground is left in the store."""
        records = (self.networks, self.workspaces, self.ports, self.policies, self.bindings, self.dynamics, self.claims)
        return not (self.root or any(records))


Listener = Callable[[list[tuple[str, Record | None, Record | None]], int], None]
"""Called with (key, before, after) of each change of one batch, and the revision reached."""


class World:
    """All records. Single-threaded: belongs to the controller's event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revision = Revision(0)
        self.items: dict[str, tuple[Record, int]] = {}
        self.grids: dict[str, Grid] = defaultdict(Grid)
        self.hosts: dict[str, HostRecord] = {}
        self.site_policies: dict[str, PolicyRecord] = {}
        self.site_file: SiteRecord | None = None
        self.alive: dict[str, AliveRecord] = {}
        self.drains: dict[str, DrainRecord] = {}
        self.changes: dict[str, ChangeRecord] = {}
        self.vnis: dict[int, ClaimRecord] = {}
        self.observed_ports: dict[str, dict[str, ObservedPort]] = defaultdict(dict)
        self.observed_leases: dict[str, dict[str, ObservedLeases]] = defaultdict(dict)
        self.observed_workspaces: dict[tuple[str, str], dict[str, ObservedWorkspace]] = defaultdict(dict)
        self.observed_hosts: dict[str, ObservedHost] = {}
        self.probes: dict[str, ProbeRecord] = {}
        self.events: dict[int, EventRecord] = {}
        self.withheld: dict[str, Withheld] = {}
        """By playground."""
        self.ties = Ties()
        self.homes: dict[str, str] = {}
        """The playground of each port."""
        self.moving: dict[tuple[str, str], MigrationRecord] = {}
        """Moves that are under way, or that nobody has finished yet."""
        self._listeners: list[Listener] = []
        self._moved = asyncio.Condition()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` after each batch; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def playgrounds(self) -> list[str]:
        """Names of playgrounds that have more than claims waiting for their release, sorted."""
        return sorted(name for name, grid in self.grids.items() if grid.root or grid.workspaces or grid.ports)

    def modified(self, key: str) -> int:
        """The revision that wrote `key` last, 0 when it does not exist."""
        found = self.items.get(key)
        return found[1] if found else 0

    def compare(self, record: Record) -> Compare:
        """Holds while the record's key stands as it was read here."""
        key = records.key_of(record)
        return Compare(key, self.modified(key))

    def claim(self, key: str) -> ClaimRecord | None:
        """A claim by its key."""
        found = self.items.get(key)
        return found[0] if found and isinstance(found[0], ClaimRecord) else None

    def is_held(self, owner: str, key: str) -> bool:
        """Whether a host still has what `key` claims for the port `owner`: the port itself, once its record is gone,
        else a client that still leases the address."""
        seen = self.observed_ports.get(owner)
        if not seen:
            return False
        if owner not in self.homes:
            return True
        claimed = key.rpartition("/")[2]
        return any(claimed == address_hex(*parse_address(text)) for report in seen.values() for text in report.leased)

    def holder(self, port: PortRecord) -> str | None:
        """The host where an address of `port` is still held by the port that had it before; None when all are free."""
        for text in port.addresses:
            key = address_claim(port.network_id, address_hex(*parse_address(text)))
            claim = self.claim(key)
            if claim is not None and claim.previous and self.is_held(claim.previous, key):
                return next(iter(self.observed_ports[claim.previous]))
        return None

    @contextlib.contextmanager
    def withhold(self, playground: str) -> Iterator[None]:
        """Until it ends, hosts are shown a playground's policies and ports, or a site's policies, as they are now; then
        all that has become of them at once. Between two sets of policies, none is in force that nobody wrote."""
        before = self._policies_and_ports(playground)
        self.withheld[playground] = Withheld(before, self.revision)
        try:
            yield
        finally:
            del self.withheld[playground]
            after = self._policies_and_ports(playground)
            keys = sorted(key for key in before.keys() | after.keys() if before.get(key) is not after.get(key))
            changes: list[tuple[str, Record | None, Record | None]]
            changes = [(key, before.get(key), after.get(key)) for key in keys]
            for listener in list(self._listeners):
                listener(changes, self.revision)

    def _policies_and_ports(self, playground: str) -> dict[str, PolicyRecord | PortRecord]:
        if playground == SITE_POLICIES:
            return {records.key_of(record): record for record in self.site_policies.values()}
        grid = self.grids.get(playground)
        found: list[PolicyRecord | PortRecord] = [*grid.policies.values(), *grid.ports.values()] if grid else []
        return {records.key_of(record): record for record in found}

    def is_policed(self, playground: str) -> bool:
        """Whether a host that carries anything of a playground has to enforce policies: its own or the site's."""
        grid = self.grids.get(playground)
        stored = itertools.chain(self.site_policies.values(), grid.policies.values() if grid else ())
        return any(policy.body.mode is not Mode.STAGE for policy in stored)

    def workspace(self, playground: str, name: str) -> WorkspaceRecord | None:
        """A workspace by name."""
        grid = self.grids.get(playground)
        return grid.workspaces.get(name) if grid else None

    async def load(self) -> None:
        """Reads the whole store once. A list that the watch has overtaken meanwhile is read again: what it lacks would
        never be told of any more."""
        items, revision = await self._store.list("")
        while revision < self.revision:
            items, revision = await self._store.list("")
        known = {item.key for item in items}
        batch: list[tuple[str, Item | None]] = [(key, None) for key in self.items if key not in known]
        batch += [(item.key, item) for item in items]
        self._take(batch, revision)
        await self._wake()

    async def follow(self) -> None:
        """Keeps the world current for ever; a compacted watch starts anew from a list."""
        while True:
            try:
                async for events in self._store.watch("", self.revision):
                    if events[-1].revision > self.revision:  # else a list was quicker
                        fresh = [(event.key, event.item) for event in events if event.revision > self.revision]
                        self._take(fresh, events[-1].revision)
                        await self._wake()
                return
            except Compacted:
                self.revision = Revision(0)  # whatever the list says is news, also of a store that was put back
                await self.load()

    async def reached(self, revision: int) -> None:
        """Returns once everything up to `revision` is visible here."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)

    async def moved(self, after: int) -> None:
        """Returns once something newer than `after` is visible here."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.revision > after)

    async def _wake(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    def _take(self, batch: Iterable[tuple[str, Item | None]], revision: Revision) -> None:
        changes: list[tuple[str, Record | None, Record | None]] = []
        for key, item in batch:
            if key.startswith("elect/"):
                continue
            before = self.items.get(key)
            if item is None:
                if before is not None:
                    del self.items[key]
                    self._index(key, before[0], None)
                    changes.append((key, before[0], None))
                continue
            after = _read(key, item.value)
            self.items[key] = (after, item.modified)
            if before is None or before[0] != after:
                self._index(key, before[0] if before else None, after)
                changes.append((key, before[0] if before else None, after))
        self.revision = revision
        for listener in list(self._listeners):
            listener(changes, revision)

    def _index(self, key: str, before: Record | None, after: Record | None) -> None:
        record = after if after is not None else before
        match record:
            case HostRecord():
                _set(self.hosts, record.name, after)
            case AliveRecord():
                _set(self.alive, record.host, after)
            case DrainRecord():
                _set(self.drains, record.host, after)
            case ChangeRecord():
                _set(self.changes, record.id, after)
            case ObservedHost():
                _set(self.observed_hosts, record.host, after)
            case EventRecord():
                _set(self.events, record.id, after)
            case ProbeRecord():
                _set(self.probes, record.playground, after)
            case ObservedPort():
                _set(self.observed_ports[record.port], record.host, after)
                if not self.observed_ports[record.port]:
                    del self.observed_ports[record.port]
            case ObservedLeases():
                _set(self.observed_leases[record.port], record.host, after)
                if not self.observed_leases[record.port]:
                    del self.observed_leases[record.port]
            case ObservedWorkspace():
                name = (record.playground, record.workspace)
                _set(self.observed_workspaces[name], record.host, after)
                if not self.observed_workspaces[name]:
                    del self.observed_workspaces[name]
                if before is None or after is None:
                    self._tie(*name)
            case SiteRecord():
                self.site_file = after if isinstance(after, SiteRecord) else None
            case PlaygroundRecord():
                self.grids[record.name].root = after if isinstance(after, PlaygroundRecord) else None
                self._forget(record.name)
            case NetworkRecord():
                _set(self.grids[record.playground].networks, record.id, after)
                self._forget(record.playground)
            case WorkspaceRecord():
                _set(self.grids[record.playground].workspaces, record.name, after)
                self._tie(record.playground, record.name)
                self._forget(record.playground)
            case PortRecord():
                _set(self.grids[record.playground].ports, record.id, after)
                _set(self.homes, record.id, after and record.playground)
                self._forget(record.playground)
            case PolicyRecord() if record.playground == SITE_POLICIES:
                _set(self.site_policies, record.name, after)
            case PolicyRecord():
                _set(self.grids[record.playground].policies, record.name, after)
                self._forget(record.playground)
            case BindingRecord():
                _set(self.grids[record.playground].bindings, record.port, after)
                self.ties.bind(_binding(before), _binding(after))
                self._forget(record.playground)
            case DynamicRecord():
                _set(self.grids[record.playground].dynamics, record.port, after)
                self.ties.hold(record.playground, givers(before), givers(after))
                self._forget(record.playground)
            case MigrationRecord():
                _set(self.grids[record.playground].migrations, record.workspace, after)
                is_done = after is None or (State(record.state) in ENDED and record.finished_utc_s is not None)
                _set(self.moving, (record.playground, record.workspace), None if is_done else record)
                self._tie(record.playground, record.workspace)
                self._forget(record.playground)
            case ClaimRecord():
                self._own(key, _claim(before), _claim(after))
                _set(self.grids[record.playground].claims, key, after)
                if key.startswith("claim/vni/"):
                    _set(self.vnis, int(key.rpartition("/")[2]), after)
                self._forget(record.playground)
            case None:
                pass

    def _tie(self, playground: str, name: str) -> None:
        """Which hosts a workspace concerns: where it is placed, both ends of its move, and where something is left."""
        grid = self.grids.get(playground)
        workspace = grid.workspaces.get(name) if grid else None
        hosts: set[str] = set()
        if grid is not None and workspace is not None:
            hosts.update(self.observed_workspaces.get((playground, name), ()))
            if workspace.host is not None:
                hosts.add(workspace.host)
            move = grid.migrations.get(name)
            if move is not None and State(move.state) not in ENDED:
                hosts.update((move.source, move.target))
        self.ties.concern(playground, name, frozenset(hosts))

    def _own(self, key: str, before: ClaimRecord | None, after: ClaimRecord | None) -> None:
        if before is not None and (keys := self.grids[before.playground].claimed.get(before.owner)):
            keys.discard(key)
            if not keys:
                del self.grids[before.playground].claimed[before.owner]
        if after is not None:
            self.grids[after.playground].claimed.setdefault(after.owner, set()).add(key)

    def _forget(self, playground: str) -> None:
        if self.grids[playground].is_empty() and not self.grids[playground].migrations:
            del self.grids[playground]


def _read(key: str, value: bytes) -> Record:
    """The record under a key. Raises Unreadable."""
    try:
        record = records.decode(value)
    except (records.RecordTooNew, msgspec.DecodeError) as error:
        raise Unreadable(f"the store's record {key}: {error}") from error
    if isinstance(record, ClaimRecord):
        fits = key.startswith("claim/") and (not key.startswith("claim/vni/") or key[10:].isdecimal())
    else:
        fits = records.key_of(record) == key
    if not fits:
        raise Unreadable(f"the store's record {key}: what is there belongs under another key")
    return record


def _binding(record: Record | None) -> BindingRecord | None:
    return record if isinstance(record, BindingRecord) else None


def givers(record: Record | None) -> set[str]:
    """The hosts that give addresses to machines behind a port, or have not yet said what they gave."""
    return {block.host for block in record.blocks} if isinstance(record, DynamicRecord) else set()


def _claim(record: Record | None) -> ClaimRecord | None:
    return record if isinstance(record, ClaimRecord) else None


def _set(index: dict[Any, Any], key: object, value: Record | str | None) -> None:
    if value is None:
        index.pop(key, None)
    else:
        index[key] = value
