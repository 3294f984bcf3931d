"""Names and where they are answered: turns views, names and records into zones and sockets in service namespaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from overlay.dns.answer import Answers, Room
from overlay.dns.clients import Clients
from overlay.dns.forward import Forwarder
from overlay.dns.listener import Listener, Sockets, open_sockets
from overlay.dns.record import Record, Type, port_records
from overlay.dns.zone import Zones
from playground.responder import netns
from playground.responder.protocol import Name, Records, Unanswered, View, name_key, view_key


@dataclass(slots=True)
class _View:
    names: dict[str, Name | Records] = field(default_factory=dict)
    view: View | None = None
    zones: Zones | None = None
    answers: Answers | None = None
    forwarder: Forwarder | None = None
    copiers: Clients = field(default_factory=Clients)
    listener: Listener | None = None
    opened_in: netns.Identity | None = None


def _records(origin: str, names: Name | Records) -> Iterator[Record]:
    """A port has the names WORKSPACE.NETWORK.origin, and WORKSPACE.origin for all ports together."""
    origin = origin.removesuffix(".")
    match names:
        case Name():
            own = (f"{names.workspace}.{names.network}", names.workspace, *names.aliases)
            yield from port_records((f"{name}.{origin}" for name in own), names.addresses)
        case Records():
            for name, kind, data in names.records:
                if kind not in Type.__members__:
                    raise ValueError(f"unknown record type {kind!r}")
                yield Record(f"{name}.{origin}", Type[kind], data)
        case _:
            assert_never(names)


def _open_all(view: View) -> list[Sockets]:
    """All of its addresses or, raising OSError, none."""
    opened: list[Sockets] = []
    try:
        for address in dict.fromkeys(view.listen):
            opened.append(open_sockets(address))
    except OSError:
        for sockets in opened:
            sockets.close()
        raise
    return opened


def _zone(view: View) -> tuple[object, ...]:
    """What zones are made of, beside names."""
    return view.origin, view.reverse, view.listen, view.ttl


def _rights(view: View) -> tuple[object, ...]:
    """What a forwarder is made of; with another one, what was heard is forgotten."""
    return view.resolvers, view.forward


class Views:
    """All views of this host, by playground. on_problem(key, cause): cause is empty when solved.

    A name may come before its view and outlive it.
    """

    def __init__(self, on_problem: Callable[[str, str], None], now_utc_s: Callable[[], float]) -> None:
        self._views: dict[str, _View] = {}
        self._on_problem = on_problem
        self._now_utc_s = now_utc_s
        self._room = Room()

    def set(self, playground: str, view: View) -> None:
        """In effect after the next `check`; sockets that are right stay. Raises ValueError, changing nothing."""
        found = self._views.get(playground) or _View()
        zones, forwarder, before = found.zones, found.forwarder, found.view
        if zones is None or before is None or _zone(before) != _zone(view):
            zones = Zones(view.origin, view.reverse, view.listen, view.ttl, self._now_utc_s)
            for key, names in found.names.items():
                zones.put(key, _records(view.origin, names))
        if forwarder is None or before is None or _rights(before) != _rights(view):
            if forwarder is not None:
                forwarder.retire()
            forwarder = Forwarder(view.resolvers, Clients(view.forward))
        copiers = Clients(view.transfer)
        if before is not None and (view.netns, view.listen) != (before.netns, before.listen):
            self._close(found)
        found.view, found.zones, found.forwarder, found.copiers = view, zones, forwarder, copiers
        if found.answers is not None:
            found.answers.forget()
        answers = found.answers = Answers(zones, bool(view.resolvers), self._room)
        if found.listener is not None:
            found.listener.answers, found.listener.forwarder, found.listener.copiers = answers, forwarder, copiers
        self._views[playground] = found

    def drop(self, playground: str) -> None:
        """Its sockets are closed when this returns."""
        found = self._views.get(playground)
        if found is not None:
            self._close(found)
            if found.answers is not None:
                found.answers.forget()
            found.view = found.zones = found.answers = found.forwarder = None
            self._forget(playground, found)

    def set_names(self, playground: str, key: str, names: Name | Records) -> None:
        """In effect at once. Raises ValueError, changing nothing."""
        found = self._views.get(playground) or _View()
        if found.zones is not None and found.view is not None:
            found.zones.put(key, _records(found.view.origin, names))
        else:
            Zones("invalid").put(key, _records("invalid", names))
        found.names[key] = names
        self._views[playground] = found

    def drop_names(self, playground: str, key: str) -> None:
        """In effect at once."""
        found = self._views.get(playground)
        if found is not None:
            found.names.pop(key, None)
            if found.zones is not None:
                found.zones.drop(key)
            self._forget(playground, found)

    def asked(self, port: str) -> tuple[str, tuple[Unanswered, ...], dict[str, int]]:
        """Of one port: its playground's origin, what it asked last without an answer, and how often by reason."""
        for playground, found in self._views.items():
            names = found.names.get(name_key(playground, port))
            if isinstance(names, Name) and found.view is not None and found.listener is not None:
                history, addresses = found.listener.history, names.addresses
                last = tuple(
                    Unanswered(at_utc_s=round(at_utc_s, 3), name=name, kind=kind, outcome=outcome.name)
                    for at_utc_s, name, kind, outcome in history.last(addresses)
                )
                counts = {outcome.name: number for outcome, number in history.counts(addresses).items()}
                return found.view.origin, last, counts
        return "", (), {}

    def check(self) -> None:
        """Opens what is not open where its namespace is there, closes what has lost its namespace."""
        for playground, found in self._views.items():
            if found.view is not None:
                self._check(playground, found, found.view)

    def close(self) -> None:
        """Closes every socket."""
        for found in self._views.values():
            self._close(found)

    def _check(self, playground: str, found: _View, view: View) -> None:
        if found.listener is not None:
            if netns.identity(view.netns) == found.opened_in:
                return
            self._close(found)
        assert found.answers is not None and found.forwarder is not None
        try:
            identity, opened = netns.inside(view.netns, lambda: _open_all(view))
        except OSError as error:
            where = f"port 53 in network namespace {view.netns}"
            self._on_problem(view_key(playground), f"can't listen on {where}: {error.strerror}")
            return
        found.listener = Listener(opened, found.answers, found.forwarder, found.copiers)
        found.opened_in = identity
        self._on_problem(view_key(playground), "")

    def _close(self, found: _View) -> None:
        if found.listener is not None:
            found.listener.close()
        found.listener = found.opened_in = None

    def _forget(self, playground: str, found: _View) -> None:
        if found.view is None and not found.names:
            del self._views[playground]
