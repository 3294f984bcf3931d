"""The map made so: scopes at ports, views in service namespaces. Knows nothing of the agent's connection or of files.

A key that can't be in effect yet (its namespace is not there) is a problem, tried again by `check`, and told when it is
solved. Sockets hold their namespace alive, so none is kept longer than it is used: the packet socket is open only while
there are ports, a view's only while there is the view, and all are closed when their namespace loses its name.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Final, assert_never

import msgspec

from dhcp import history
from dhcp.decide import LeaseKind
from dhcp.io.journal import Journal
from dhcp.io.packet import REPEAT_S, PacketServer
from dhcp.io.sockets import open_socket
from dhcp.io.unasked import Heard
from dhcp.leases import Lease
from dhcp.scope import PortScope
from overlay.state import PortId, port_device
from playground.responder import netns
from playground.responder.protocol import (
    DATA_PLANE_KEY,
    Ask,
    Exchange,
    Leased,
    Name,
    PoolClient,
    PortTold,
    Problem,
    Records,
    Report,
    Router,
    Told,
    Update,
    View,
    decode_value,
)
from playground.responder.views import Views

Hearing = tuple[netns.Identity, socket.socket]

_log = logging.getLogger(__name__)


MOST_6: Final = 16
"""So many IPv6 addresses are remembered a port, the last ones: a client forms as many as it likes."""


def lease_key(leased: Leased) -> str:
    """A port has one IPv4 address, and may have several of IPv6."""
    return f"{leased.port}/{leased.address if ':' in leased.address else 'v4'}"


def _text(address: bytes) -> str:
    """An address of either family; empty for none, and for what is none."""
    if len(address) not in (4, 16) or not any(address):
        return ""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _exchange(found: history.Exchange) -> Exchange:
    return Exchange(
        at_utc_s=round(found.at_utc_s, 3),
        what=found.what,
        mac=found.mac.hex(":"),
        address=_text(found.address),
        outcome=found.outcome.name,
    )


def _pool_client(lease: Lease, client: history.Client | None) -> PoolClient:
    if client is None:
        return PoolClient(lease=lease)
    said = (client.vendor, client.hostname)
    return PoolClient(lease=lease, seen_utc_s=round(client.seen_utc_s, 3), vendor=said[0], hostname=said[1])


class Service:
    """Answers by the map that `apply` was given. report: called for leases and problems, never for acks. journal: where
    leases from pools are kept."""

    def __init__(
        self,
        data_plane: str,
        report: Callable[[Report], None],
        now_utc_s: Callable[[], float],
        journal: Journal,
    ) -> None:
        self.document: dict[str, bytes] = {}
        self.leases: dict[str, Leased] = {}
        self._keys: dict[str, dict[str, None]] = {}
        """Of each port's leases, in the order in which they were heard of first."""
        self.problems: dict[str, str] = {}
        self.packets: Final = PacketServer(self._heard, journal, now_utc_s, self._router)
        self.views: Final = Views(self._problem, now_utc_s)
        self._data_plane: Final = data_plane
        self._opened_in: netns.Identity | None = None
        self._is_begun = False
        self._heard_before: Hearing | None = None
        self._report = report
        self._now_utc_s = now_utc_s
        self._ports: set[str] = set()

    def begin(self, heard: Hearing | None) -> None:
        """Opens sockets from now on. heard: a packet socket that hears already, and where."""
        self._is_begun, self._heard_before = True, heard

    def remember(self, leases: Iterable[Leased]) -> None:
        """What clients had before."""
        for leased in leases:
            self._put(lease_key(leased), leased)

    def apply(self, update: Update) -> None:
        """In effect when it returns, but for what `problems` names. The same update again changes nothing."""
        unsaid = [key for key in self.document if key not in update.set] if update.whole else []
        for key in dict.fromkeys((*update.delete, *unsaid)):
            self._delete(key)
        for key, raw in update.set.items():
            self._set(key, bytes(raw))
        self.check()

    def _set(self, key: str, raw: bytes) -> None:
        if self.document.get(key) == raw:
            return
        try:
            value = decode_value(key, raw)
            match value:
                case PortScope():
                    port = key.partition("/")[2]
                    self.packets.set(port_device(PortId(port)), value)
                    self._ports.add(port)
                case View():
                    self.views.set(key.partition("/")[2], value)
                case Name() | Records():
                    self.views.set_names(key.split("/")[1], key, value)
                case _:
                    assert_never(value)
        except (ValueError, OverflowError, OSError, msgspec.MsgspecError) as error:
            # What stood there before still answers.
            self._problem(key, str(error))
            return
        self.document[key] = raw
        self._problem(key, "")

    def _delete(self, key: str) -> None:
        self._problem(key, "")
        if self.document.pop(key, None) is None:
            return
        match key.split("/"):
            case ["port", port]:
                self.packets.retire(port_device(PortId(port)))
                self._ports.discard(port)
                for key in self._keys.pop(port, ()):
                    del self.leases[key]
            case ["view", playground]:
                self.views.drop(playground)
            case ["name" | "records", playground, _]:
                self.views.drop_names(playground, key)

    def check(self) -> None:
        """Looks whether namespaces came, went or were made anew, and opens and closes sockets by that."""
        if not self._is_begun:
            return
        self.views.check()
        found = netns.identity(self._data_plane) if self._ports else None
        if self._opened_in is not None and found != self._opened_in:
            self.packets.detach()
            self._opened_in = None
            _log.info("packet socket closed netns=%s", self._data_plane)
        if not self._ports or self._opened_in is not None:
            self._problem(DATA_PLANE_KEY, "")
            return
        before, self._heard_before = self._heard_before, None
        try:
            identity, opened = before or netns.inside(self._data_plane, open_socket)
        except OSError as error:
            self._problem(DATA_PLANE_KEY, f"no packet socket in network namespace {self._data_plane}: {error.strerror}")
            return
        self.packets.attach(opened)
        self._opened_in = identity
        self._problem(DATA_PLANE_KEY, "")
        _log.info("packet socket opened netns=%s", self._data_plane)

    def told(self, ask: Ask) -> Told:
        """What happened at ports, for whoever asks why."""
        return Told(id=ask.id, ports=tuple(filter(None, map(self._told, ask.ports))))

    def _told(self, port: str) -> PortTold | None:
        device = port_device(PortId(port))
        history, scope = self.packets.history(device), self.packets.scope(device)
        if history is None or scope is None:
            return None
        client = history.client
        origin, unanswered, unnamed = self.views.asked(port)
        return PortTold(
            port=port,
            since_utc_s=history.begun_utc_s,
            counts={outcome.name: count for outcome, count in history.counts.items()},
            counts6={outcome.name: count for outcome, count in history.counts6.items()},
            exchanges=tuple(map(_exchange, history.exchanges)),
            lease=self.leases.get(f"{port}/v4"),
            seen_utc_s=None if client is None else client.seen_utc_s,
            client_id="" if client is None else client.client_id.hex(),
            vendor="" if client is None else client.vendor,
            hostname="" if client is None else client.hostname,
            pool=tuple(_pool_client(*one) for one in self.packets.leases(device)),
            leases6=tuple(self.leases[key] for key in self._keys.get(port, ()) if not key.endswith("/v4")),
            given6=() if scope.v6 is None else scope.v6.addresses,
            duid=history.duid.hex(),
            origin=origin,
            unanswered=unanswered,
            unnamed=unnamed,
        )

    def close(self) -> None:
        """Closes every socket; the map stays."""
        self.packets.close()
        self.views.close()

    def _problem(self, key: str, cause: str) -> None:
        if self.problems.get(key, "") == cause:
            return
        if cause:
            self.problems[key] = cause
            _log.warning("problem key=%s cause=%s", key, cause)
        else:
            del self.problems[key]
            _log.info("problem solved key=%s", key)
        self._report(Report(problem=Problem(key=key, cause=cause)))

    def _heard(self, heard: Heard) -> None:
        if heard.lease is not None:  # the journal remembers it
            self._report(Report(given=heard.lease))
            return
        port, at_utc_s = heard.device.removeprefix("pg"), self._now_utc_s()
        key = f"{port}/{heard.address}" if ":" in heard.address else f"{port}/v4"
        last = self.leases.get(key)
        if last is not None and self._is_known(heard, last, at_utc_s):
            return
        leased = Leased(
            port=port,
            address=heard.address,
            mac=heard.mac,
            at_utc_s=round(at_utc_s, 3),
            kind=heard.kind,
            until_utc_s=None if heard.until_utc_s is None else round(heard.until_utc_s, 3),
            router=heard.router,
        )
        is_given = last is not None and last.kind is LeaseKind.BOUND and (last.until_utc_s or 0.0) > leased.at_utc_s
        if is_given and leased.kind is LeaseKind.FORMED:
            return  # it checks what it was given for duplicates
        if last is None and ":" in leased.address and leased.kind is LeaseKind.RELEASED:
            return  # it never had it, as far as is known
        if last is not None and (last.kind, last.address) == (leased.kind, leased.address):
            if leased.router is None:
                leased = msgspec.structs.replace(leased, router=last.router)  # it still has what it was told
            if leased.until_utc_s is None:
                leased = msgspec.structs.replace(leased, until_utc_s=last.until_utc_s)
        holds = (LeaseKind.BOUND, LeaseKind.FORMED)
        is_on = last is not None and last.kind in holds and (last.address, last.mac) == (leased.address, leased.mac)
        since_s = last.since_utc_s if last is not None and is_on else leased.at_utc_s
        leased = msgspec.structs.replace(leased, since_utc_s=since_s if leased.kind in holds else 0.0)
        self._put(key, leased)
        self._report(Report(leased=leased))

    @staticmethod
    def _is_known(heard: Heard, last: Leased, at_utc_s: float) -> bool:
        """Whether `last` says it, and not long ago. So it does of an offer of what the client has: whoever begins anew
        takes it in a moment."""
        if not 0 <= at_utc_s - last.at_utc_s < REPEAT_S or (heard.address, heard.mac) != (last.address, last.mac):
            return False
        if heard.kind is LeaseKind.OFFERED and last.kind is LeaseKind.BOUND:
            return True
        return heard.kind is last.kind and (heard.router is None or heard.router == last.router)

    def _router(self, device: str, mac: str) -> None:
        self._report(Report(router=Router(port=device.removeprefix("pg"), mac=mac)))

    def _put(self, key: str, leased: Leased) -> None:
        self.leases[key] = leased
        keys = self._keys.setdefault(leased.port, {})
        if key in keys:
            return
        keys[key] = None
        sixes = [one for one in keys if not one.endswith("/v4")]
        for one in sixes[: max(len(sixes) - MOST_6, 0)]:
            del keys[one], self.leases[one]
