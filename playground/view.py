"""Pure. The records that one host has been shown, by scope: what its state is derived from.

A scope is `site` (the hosts, the site's policies), `host/NAME` (workspaces here, and their moves) or `playground/NAME`
(its networks, ports, bindings and policies). Each scope counts its changes, so what was derived from it can be kept
until it changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from playground.blocks import prefixes
from playground.gateways import gateway_name
from playground.records import (
    SITE_POLICIES,
    BindingRecord,
    DynamicRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    PolicyRecord,
    PortRecord,
    WorkspaceRecord,
    key_of,
)
from playground.wire import Changed, Complete, Enter, Leave, Viewed
from policies.codec import unpack
from policies.model import Endpoint, Gateway, Origin, Policy

SITE = "site"


def host_scope(host: str) -> str:
    """Scope of what is on one host."""
    return f"host/{host}"


def playground_scope(playground: str) -> str:
    """Scope of one playground's networks, ports, bindings and policies."""
    return f"playground/{playground}"


def endpoint_of(port: PortRecord) -> Endpoint:
    """A port as policies see it: what `playground.spec.scene` makes of the file, and all its addresses."""
    return Endpoint(port.playground, port.workspace, port.network, port.labels, port.addresses)


def endpoints_of(ports: Iterable[PortRecord]) -> tuple[Endpoint, ...]:
    """Those of workspaces: a gateway's leg is an end of its own kind, and no selector means it."""
    return tuple(endpoint_of(port) for port in ports if gateway_name(port.workspace) is None)


def gateways_of(ports: Iterable[PortRecord]) -> tuple[Gateway, ...]:
    """The gateways whose legs are among these ports. The world begins no connection by them: they translate."""
    networks: dict[tuple[str, str], set[str]] = {}
    for port in ports:
        if (name := gateway_name(port.workspace)) is not None:
            networks.setdefault((port.playground, name), set()).add(port.network)
    return tuple(Gateway(*key, frozenset(found)) for key, found in sorted(networks.items()))


def policy_of(record: PolicyRecord) -> Policy:
    """A policy that says of its place only under which key it is kept. Raises policies.codec.Unreadable."""
    playground = "" if record.playground == SITE_POLICIES else record.playground
    return unpack(record.body, record.name, playground, Origin(key_of(record), 0))


K = TypeVar("K", bound=Hashable)


LOGGED = 4096
"""Keys that a log has at least; of what changed before them it says nothing."""


class Log(Generic[K]):
    """What changed, newest last: each key once, with the version that changed it last."""

    __slots__ = ("_changed", "_from")

    def __init__(self) -> None:
        self._changed: dict[K, int] = {}
        self._from = 0

    def note(self, key: K, version: int) -> None:
        """A key changed."""
        self._changed.pop(key, None)
        self._changed[key] = version
        if len(self._changed) > 2 * LOGGED:
            for oldest in list(itertools.islice(self._changed, LOGGED)):
                self._from = self._changed.pop(oldest)

    def since(self, version: int) -> list[K] | None:
        """The keys that changed after a version, newest first, at the cost of their number; None when the log does not
        reach back so far."""
        if version < self._from:
            return None
        return list(itertools.takewhile(lambda key: self._changed[key] > version, reversed(self._changed)))


@dataclass(slots=True)
class Scope:
    """One scope's records by key, indexed as deriving reads them. version counts changes; the logs say of what.

    ports: with what machines behind them use, beside what their records say. declared, dynamics, local: what that is
    made of: the records, what was claimed, and MACs that this host has given addresses to.

    ports_log: ids of ports whose record or binding changed. workspaces_log: (playground, name) of those whose record
    or move did. policies: by the names of their records, each the same object while its record stays: who reads them
    tells by that which have changed. policies_log: those names whose record did. networks_version: of the last change
    of a network.
    """

    version: int = 0
    records: dict[str, Viewed] = field(default_factory=dict)
    networks: dict[str, NetworkRecord] = field(default_factory=dict)
    ports: dict[str, PortRecord] = field(default_factory=dict)
    declared: dict[str, PortRecord] = field(default_factory=dict)
    dynamics: dict[str, DynamicRecord] = field(default_factory=dict)
    local: dict[str, frozenset[str]] = field(default_factory=dict)
    bindings: dict[str, BindingRecord] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    ports_log: Log[str] = field(default_factory=Log)
    workspaces_log: Log[tuple[str, str]] = field(default_factory=Log)
    policies_log: Log[str] = field(default_factory=Log)
    networks_version: int = 0

    def put(self, record: Viewed) -> None:
        """Takes in a record. Raises policies.codec.Unreadable, with nothing changed."""
        key = key_of(record)
        if self.records.get(key) == record:
            return
        if isinstance(record, PolicyRecord):
            self.policies[record.name] = policy_of(record)
        self.records[key] = record
        self._note(record)
        match record:
            case NetworkRecord():
                self.networks[record.id] = record
            case PortRecord():
                self.declared[record.id] = record
                self._admit(record.id)
            case DynamicRecord():
                self.dynamics[record.port] = record
                self._admit(record.port)
            case BindingRecord():
                self.bindings[record.port] = record
            case _:
                pass

    def remove(self, key: str) -> None:
        """Drops what is under a key, if anything is."""
        record = self.records.pop(key, None)
        if record is None:
            return
        self._note(record)
        match record:
            case NetworkRecord():
                self.networks.pop(record.id, None)
            case PortRecord():
                self.declared.pop(record.id, None)
                self.local.pop(record.id, None)
                self._admit(record.id)
            case DynamicRecord():
                self.dynamics.pop(record.port, None)
                self._admit(record.port)
            case PolicyRecord():
                self.policies.pop(record.name, None)
            case BindingRecord():
                self.bindings.pop(record.port, None)
            case _:
                pass

    def admit(self, port: str, macs: frozenset[str]) -> None:
        """Which machines this host has given addresses to behind a port, whether or not others know of them yet."""
        if port in self.declared and self.local.get(port, frozenset()) != macs:
            self.local[port] = macs
            self.version += 1
            self.ports_log.note(port, self.version)
            self._admit(port)

    def _admit(self, id: str) -> None:
        declared, dynamic = self.declared.get(id), self.dynamics.get(id)
        if declared is None:
            self.ports.pop(id, None)
            return
        own, claimed = {declared.mac, *declared.allowed_macs}, dynamic.machines if dynamic is not None else ()
        fresh = self.local.get(id, frozenset()).difference(own, claimed)
        if fresh:  # what another port has is not theirs, whatever they say
            for other in self.ports.values():
                if other.network_id == declared.network_id and other.id != id:
                    fresh = fresh.difference((other.mac,), other.allowed_macs)
        macs = sorted({*claimed, *fresh} - own)
        blocks = prefixes(dynamic.blocks) if dynamic is not None else ()
        if macs or blocks:
            self.ports[id] = msgspec.structs.replace(
                declared,
                allowed_addresses=(*declared.allowed_addresses, *blocks),
                allowed_macs=(*declared.allowed_macs, *macs),
            )
        else:
            self.ports[id] = declared

    def _note(self, record: Viewed) -> None:
        self.version += 1
        match record:
            case DynamicRecord():
                self.ports_log.note(record.port, self.version)
            case NetworkRecord():
                self.networks_version = self.version
            case PortRecord():
                self.ports_log.note(record.id, self.version)
            case BindingRecord():
                self.ports_log.note(record.port, self.version)
            case WorkspaceRecord():
                self.workspaces_log.note((record.playground, record.name), self.version)
            case MigrationRecord():
                self.workspaces_log.note((record.playground, record.workspace), self.version)
            case PolicyRecord():
                self.policies_log.note(record.name, self.version)
            case _:
                pass

    def replace(self, records: Iterable[Viewed]) -> None:
        """Makes the scope hold exactly these records; unchanged ones cost no version."""
        wanted = {key_of(record): record for record in records}
        for key in [key for key in self.records if key not in wanted]:
            self.remove(key)
        for record in wanted.values():
            self.put(record)


class View:
    """Everything this host has been shown. `complete` is false until a whole view has arrived once (or came from a
    cache)."""

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.revision = 0
        self.complete = False
        self._entered: set[str] = set()

    def begin(self) -> None:
        """A new connection starts: scopes that it does not enter before `Complete` are void, and so is any revision
        that was told before, of a store that may have been set back since."""
        self._entered = set()
        self.revision = 0

    def entered(self, scope: str) -> None:
        """A scope stays when the view is said to be complete."""
        self._entered.add(scope)

    def take(self, message: Enter | Changed | Leave | Complete) -> None:
        """Applies one message."""
        match message:
            case Enter():
                self.entered(message.scope)
                self.scopes.setdefault(message.scope, Scope()).replace(message.records)
                self.revision = max(self.revision, message.revision)
            case Changed():
                scope = self.scopes.setdefault(message.scope, Scope())
                for record in message.puts:
                    scope.put(record)
                for key in message.deletes:
                    scope.remove(key)
                self.revision = max(self.revision, message.revision)
            case Leave():
                self._entered.discard(message.scope)
                self.scopes.pop(message.scope, None)
            case Complete():
                for scope_name in [name for name in self.scopes if name not in self._entered]:
                    del self.scopes[scope_name]
                self.revision = max(self.revision, message.revision)
                self.complete = True

    def hosts(self) -> dict[str, HostRecord]:
        """Hosts of the site by name."""
        scope = self.scopes.get(SITE)
        return {r.name: r for r in scope.records.values() if isinstance(r, HostRecord)} if scope else {}

    def workspaces(self, host: str) -> list[WorkspaceRecord]:
        """Workspaces that concern this host: placed here, or moving to or from here."""
        scope = self.scopes.get(host_scope(host))
        return [r for r in scope.records.values() if isinstance(r, WorkspaceRecord)] if scope else []

    def workspace(self, host: str, playground: str, name: str) -> WorkspaceRecord | None:
        """One of them."""
        scope = self.scopes.get(host_scope(host))
        found = scope.records.get(f"workspace/{playground}/{name}") if scope else None
        return found if isinstance(found, WorkspaceRecord) else None

    def migration(self, host: str, playground: str, name: str) -> MigrationRecord | None:
        """The last move of a workspace, if that was to or from this host."""
        scope = self.scopes.get(host_scope(host))
        found = scope.records.get(f"migration/{playground}/{name}") if scope else None
        return found if isinstance(found, MigrationRecord) else None

    def playgrounds(self) -> dict[str, Scope]:
        """Scopes of playgrounds that this host takes part in, by playground name."""
        return {
            name.removeprefix("playground/"): s for name, s in self.scopes.items() if name.startswith("playground/")
        }


class Cached(msgspec.Struct):
    """A view as kept on disk. at_utc_s: when the controller last vouched for it."""

    at_utc_s: float
    revision: int
    domain: str
    resolvers: list[str]
    scopes: dict[str, list[Viewed]]


def freeze(view: View, at_utc_s: float, domain: str, resolvers: list[str]) -> bytes:
    """The view as bytes for the cache file."""
    scopes = {name: list(scope.records.values()) for name, scope in view.scopes.items()}
    return msgspec.json.encode(Cached(at_utc_s, view.revision, domain, resolvers, scopes))


def thaw(data: bytes) -> tuple[View, Cached]:
    """The view in a cache file. Raises msgspec.ValidationError or DecodeError for a torn or foreign file."""
    cached = msgspec.json.decode(data, type=Cached)
    view = View()
    for name, records in cached.scopes.items():
        scope = Scope()
        scope.replace(records)
        view.scopes[name] = scope
        view.entered(name)
    view.revision = cached.revision
    view.complete = True
    return view, cached
