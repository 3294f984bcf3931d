"""Names and where they are answered: turns `View` and `Name` values into zones and sockets in service namespaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from overlay.dns.answer import Answers
from overlay.dns.forward import Forwarder
from overlay.dns.listener import Listener, Sockets, open_sockets
from overlay.dns.record import Record, port_records
from overlay.dns.zone import Zones
from playground.responder import netns
from playground.responder.protocol import Name, View, view_key


@dataclass(slots=True)
class _View:
    names: dict[str, Name] = field(default_factory=dict)
    view: View | None = None
    zones: Zones | None = None
    answers: Answers | None = None
    forwarder: Forwarder | None = None
    listener: Listener | None = None
    opened_in: netns.Identity | None = None


def _records(view: View, name: Name) -> Iterator[Record]:
    """A port has the names WORKSPACE.NETWORK.origin, and WORKSPACE.origin for all ports together."""
    origin = view.origin.removesuffix(".")
    return port_records((f"{name.workspace}.{name.network}.{origin}", f"{name.workspace}.{origin}"), name.addresses)


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


class Views:
    """All views of this host, by playground. on_problem(key, cause): cause is empty when solved.

    A name may come before its view and outlive it.
    """

    def __init__(self, on_problem: Callable[[str, str], None]) -> None:
        self._views: dict[str, _View] = {}
        self._on_problem = on_problem

    def set(self, playground: str, view: View) -> None:
        """In effect after the next `check`; sockets that are right stay. Raises ValueError, changing nothing."""
        found = self._views.get(playground) or _View()
        zones = Zones(view.origin, view.reverse, view.listen, view.ttl)
        for port, name in found.names.items():
            zones.put(port, _records(view, name))
        answers = Answers(zones, recursive=bool(view.resolvers))
        forwarder = Forwarder(view.resolvers)
        if found.view is not None and (view.netns, view.listen) != (found.view.netns, found.view.listen):
            self._close(found)
        found.view, found.zones, found.answers, found.forwarder = view, zones, answers, forwarder
        if found.listener is not None:
            found.listener.answers, found.listener.forwarder = answers, forwarder
        self._views[playground] = found

    def drop(self, playground: str) -> None:
        """Its sockets are closed when this returns."""
        found = self._views.get(playground)
        if found is not None:
            self._close(found)
            found.view = found.zones = found.answers = found.forwarder = None
            self._forget(playground, found)

    def set_name(self, playground: str, port: str, name: Name) -> None:
        """In effect at once. Raises ValueError, changing nothing."""
        found = self._views.get(playground) or _View()
        if found.zones is not None and found.view is not None:
            found.zones.put(port, _records(found.view, name))
        else:
            Zones("invalid").put(port, _records(View(netns="", listen=(), origin="invalid"), name))
        found.names[port] = name
        self._views[playground] = found

    def drop_name(self, playground: str, port: str) -> None:
        """In effect at once."""
        found = self._views.get(playground)
        if found is not None:
            found.names.pop(port, None)
            if found.zones is not None:
                found.zones.drop(port)
            self._forget(playground, found)

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
        found.listener = Listener(opened, found.answers, found.forwarder)
        found.opened_in = identity
        self._on_problem(view_key(playground), "")

    def _close(self, found: _View) -> None:
        if found.listener is not None:
            found.listener.close()
        found.listener = found.opened_in = None

    def _forget(self, playground: str, found: _View) -> None:
        if found.view is None and not found.names:
            del self._views[playground]
