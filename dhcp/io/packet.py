"""Answers at devices: client frames in, answers out by the same device, through one packet socket. Decides nothing.

The socket (`dhcp.io.sockets`) keeps its namespace alive: whoever opened it closes it when the namespace is to go.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from dhcp import frame, message, ra, server6, v6
from dhcp.decide import REPORTED, Act, LeaseKind
from dhcp.history import Client, Exchange, History
from dhcp.io.batches import Batches
from dhcp.io.journal import Journal
from dhcp.io.keeping import Keeping, Waiting
from dhcp.io.unasked import Heard, Unasked
from dhcp.leases import Lease
from dhcp.memo import Memo
from dhcp.message import Message
from dhcp.reason import Reason
from dhcp.render import SERVER_PORT, Reply
from dhcp.scope import PortScope
from dhcp.server import QUARANTINE_S, Bound

REPEAT_S: Final = 10.0
"""A client that takes its address again is told of again only after this long, and of an offer of it as rarely: a
client that shouts is told of once."""

_BROADCAST: Final = b"\xff\xff\xff\xff"

ROUTER_S: Final = 0.5
"""A virtual router that speaks at a port is told of no more often: it does so each second, or as often as it likes."""


class _Told(NamedTuple):
    """An answer that is given again to whoever asks the same: the reply without its payload, which the memo has; to
    what, and what was noted."""

    reply: Reply | server6.Reply
    request: Message | v6.Message
    exchange: Exchange


@dataclass(slots=True)
class _Port:
    scope: PortScope
    server_mac: bytes
    bound: Bound | None
    bound6: server6.Bound | None
    history: History
    unasked: Unasked
    declined_s: float = float("-inf")
    """When the client declined the port's own address, monotonic."""
    bound_utc_s: float = float("-inf")
    """When it was told last that the client has taken it, and it has said nothing else since."""
    declined6_s: dict[bytes, float] = field(default_factory=dict)
    bound6_utc_s: dict[bytes, float] = field(default_factory=dict)
    """Both the same of each of its IPv6 addresses."""
    memo: Memo[_Told] = field(default_factory=Memo)
    """Of answers that depend on the message alone: to the port's own client, while it quarantines nothing."""
    routers_s: dict[bytes, float] = field(default_factory=dict)
    """When each virtual router was told of last, monotonic."""


class PacketServer:
    """Answers at devices. `counters` says what was not answered and why.

    Scopes may be set before there is a socket, and outlive one: `attach` takes a socket of `open_socket`, `detach`
    closes it. on_heard is called after the answer has been sent.
    """

    def __init__(
        self,
        on_heard: Callable[[Heard], None],
        journal: Journal | None = None,
        now_utc_s: Callable[[], float] = time.time,
        on_router: Callable[[str, str], None] = lambda device, mac: None,
    ) -> None:
        """journal: where leases from pools are kept; without one, no scope may have a pool. on_router: hears at which
        device a virtual router's MAC speaks that the port there may have."""
        self.counters: Counter[Reason] = Counter()
        self.answered = 0
        self._on_heard = on_heard
        self._on_router = on_router
        self._now_utc_s = now_utc_s
        self._keeping: Final = Keeping(journal, self._kept, now_utc_s)
        self.fence_utc_s: float | None = None
        """When no pool is given from any more: others may have its addresses then. None: never."""
        self._ports: dict[str, _Port] = {}
        self._socket: socket.socket | None = None
        self._batches: Batches | None = None

    def set(self, device: str, scope: PortScope) -> None:
        """Answers at `device` by `scope` from now on, and advertises. Raises ValueError or OSError, leaving all as it
        was. What happened at the port before stays known."""
        former = self._ports.get(device)
        if former is not None and replace(former.scope, formed=scope.formed) == scope:
            former.scope = scope
            former.unasked.know(scope)
            return
        bound = Bound(scope) if scope.v4 is not None else None
        bound6 = server6.Bound(scope) if scope.v6 is not None else None
        unasked = Unasked(device, scope, former.unasked if former is not None else None, self._tell, self._on_heard)
        if scope.pool is not None:
            self._keeping.use(scope.pool)
        self.drop(device)
        history = former.history if former is not None else History(self._now_utc_s())
        self._ports[device] = _Port(scope, frame.mac(scope.server_mac), bound, bound6, history, unasked)
        unasked.start()

    def history(self, device: str) -> History | None:
        """What happened at a device since it is answered."""
        port = self._ports.get(device)
        return None if port is None else port.history

    def scope(self, device: str) -> PortScope | None:
        """What is answered at a device."""
        port = self._ports.get(device)
        return None if port is None else port.scope

    def leases(self, device: str) -> Iterable[tuple[Lease, Client | None]]:
        """What clients of a device have or had from its pool, with what they said of themselves."""
        port = self._ports.get(device)
        if port is None or port.scope.pool is None:
            return ()
        found = self._keeping.leases(port.scope.pool.name)
        return ((lease, client) for lease, client in found if lease.port == device)

    def given(self) -> list[Lease]:
        """All that clients whom nobody declared have, at whichever device they got it."""
        return self._keeping.given()

    def drop(self, device: str) -> None:
        """Is silent at `device`; no error when it was."""
        port = self._ports.pop(device, None)
        if port is not None and port.scope.pool is not None:
            self._keeping.leave(port.scope.pool.name)
        if port is not None:
            port.unasked.stop()

    def retire(self, device: str) -> None:
        """The same, once the client was told that what was advertised to it holds no longer."""
        port = self._ports.get(device)
        if port is not None and (last := ra.farewell(port.scope, None)) is not None:
            self._send(device, last)
        self.drop(device)

    def attach(self, opened: socket.socket) -> None:
        """Hears and answers through `opened`, and owns it; every port gets its advertisements anew."""
        self.detach()
        self._socket, self._batches = opened, Batches(opened)
        asyncio.get_running_loop().add_reader(opened, self._drain)
        for port in self._ports.values():
            port.unasked.begin_anew()

    def detach(self) -> None:
        """Closes the socket, and with it the hold on its namespace."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = self._batches = None

    def close(self) -> None:
        """Forgets all ports and closes the socket."""
        for device in list(self._ports):
            self.drop(device)
        self.detach()

    def _drain(self) -> None:
        if (batches := self._batches) is None:
            return
        devices: dict[int, str] = {}  # not for longer: the next batch may have another one by that index
        for index, data in batches.receive():
            if (device := devices.get(index)) is None:
                device = devices[index] = batches.device(index)
            reason = self._receive(device, data)
            if reason is not None:
                self.counters[reason] += 1

    def _receive(self, device: str, data: bytes) -> Reason | None:
        port = self._ports.get(device)
        if port is None:
            return Reason.UNKNOWN_PORT
        known = port.memo.find(data)
        if known is None or not self._send(device, known[1]):
            return self._judged(device, port, data)
        self._again(device, port, known[0])
        return None

    def _again(self, device: str, port: _Port, told: _Told) -> None:
        """What a client asked before was answered again."""
        reply, request, exchange = told
        now_utc_s = self._now_utc_s()
        if isinstance(reply, Reply):
            self._took(device, port, reply.act, now_utc_s)
        else:
            self._took6(device, port, reply, now_utc_s)
        port.history.note_again(now_utc_s, exchange, request)

    def _judged(self, device: str, port: _Port, data: bytes) -> Reason | None:
        router = frame.announcing_router(data)
        if router is not None:
            return self._router(device, port, router)
        datagram = frame.parse_udp4(data)
        if datagram is not None:
            return self._dhcp(device, port, data, datagram)
        datagram = frame.parse_udp6(data)
        if datagram is not None:
            return self._dhcp6(device, port, data, datagram)
        solicitation = frame.parse_icmp6(data)
        if solicitation is not None:
            return self._solicitation(port, solicitation)
        answer = frame.parse_arp_reply(data)
        if answer is not None:
            return self._answer(device, port, *answer)
        return Reason.NOT_FOR_US

    def _router(self, device: str, port: _Port, mac: bytes) -> Reason | None:
        """A virtual router says that it is here."""
        if (text := mac.hex(":")) not in port.scope.routers:
            return Reason.FOREIGN_MAC
        now_mono_s = asyncio.get_running_loop().time()
        if now_mono_s - port.routers_s.get(mac, float("-inf")) >= ROUTER_S:
            port.routers_s[mac] = now_mono_s
            self._on_router(device, text)
        return None

    def _answer(self, device: str, port: _Port, mac: bytes, address: bytes) -> Reason | None:
        """What a client answers by ARP."""
        if port.bound is None or port.scope.v4 is None:
            return Reason.NO_SCOPE
        if mac != port.bound.mac:
            return Reason.FOREIGN_MAC
        if socket.inet_ntoa(address) != port.scope.v4.address:
            return Reason.FOREIGN_ADDRESS
        if not port.unasked.took(port.scope.v4.address):
            return Reason.NOT_FOR_US  # a neighbour has asked: that the client has it is known
        self._on_heard(Heard(device, port.scope.v4.address, port.scope.mac, LeaseKind.BOUND))
        return None

    def _dhcp(self, device: str, port: _Port, data: bytes, datagram: frame.Datagram) -> Reason | None:
        """Answers, and notes for whoever asks why."""
        if datagram.destination_port != SERVER_PORT:
            return Reason.NOT_FOR_US
        request = message.parse(datagram.payload)
        if isinstance(request, Reason):
            port.history.note(self._now_utc_s(), request, datagram.source_mac, None)
            return request
        outcome, answer = self._answered(device, port, datagram, request)
        if outcome is None:
            return None  # it is noted when its lease is written down
        exchange = self._note(port, request, outcome)
        if isinstance(outcome, Reason):
            return outcome
        if answer:
            port.memo.keep(data, answer, _Told(outcome._replace(payload=b""), request, exchange))
        return None

    def _note(self, port: _Port, request: Message, outcome: Reply | Reason) -> Exchange:
        act, address = (outcome.act, outcome.address) if isinstance(outcome, Reply) else (outcome, message.ZERO)
        is_own = port.bound is None or request.chaddr == port.bound.mac
        return port.history.note(self._now_utc_s(), act, request.chaddr, request, address, is_own=is_own)

    def _answered(
        self, device: str, port: _Port, datagram: frame.Datagram, request: Message
    ) -> tuple[Reply | Reason | None, bytes]:
        """What was sent, or why nothing was; None where something waits for the disk. With it the frame, where whoever
        asks the same is to get the same."""
        bound, scope = port.bound, port.scope
        from_mac, is_unicast = datagram.source_mac, datagram.destination != _BROADCAST
        if bound is not None and from_mac == bound.mac:
            is_quarantined = asyncio.get_running_loop().time() - port.declined_s < QUARANTINE_S
            reply = bound.answer(request, is_unicast=is_unicast, is_quarantined=is_quarantined)
            if reply is not Reason.FOREIGN_MAC or scope.pool is None:
                reply, answer = self._sent(device, port, reply)
                if reply is not Reason.NOT_SENT:
                    self._took(device, port, reply.act if isinstance(reply, Reply) else reply, self._now_utc_s())
                return reply, b"" if is_quarantined else answer
        if scope.pool is None:
            return Reason.NO_SCOPE if bound is None else Reason.FOREIGN_MAC, b""
        now_utc_s = self._now_utc_s()
        if self.fence_utc_s is not None and now_utc_s >= self.fence_utc_s:
            return Reason.CUT_OFF, b""
        answered = self._keeping[scope.pool.name].answer(device, request, from_mac, now_utc_s, is_unicast)
        if answered.keep is not None:
            self._keeping.keep(Waiting(device, scope.pool.name, answered.keep, answered.reply, request))
            return None, b""
        return self._sent(device, port, answered.reply)[0], b""

    def _sent(self, device: str, port: _Port, reply: Reply | Reason) -> tuple[Reply | Reason, bytes]:
        """What became of a reply, and its frame; that of a reason is empty."""
        if isinstance(reply, Reason):
            return reply, b""
        data = self._framed(port, reply)
        return (reply if self._send(device, data) else Reason.NOT_SENT), data

    def _took(self, device: str, port: _Port, act: Act | Reason, now_utc_s: float) -> None:
        """Tells what an act means for the port's own address."""
        kind, v4 = REPORTED.get(act), port.scope.v4
        if kind is None or v4 is None:
            return
        told = until_s = None
        if kind is LeaseKind.BOUND or kind is LeaseKind.OFFERED:
            if 0 <= now_utc_s - port.bound_utc_s < REPEAT_S:
                return
            if kind is LeaseKind.BOUND:
                port.unasked.took(v4.address)
                told, until_s, port.bound_utc_s = v4.router or "", now_utc_s + v4.lease_s, now_utc_s
        else:
            port.bound_utc_s = float("-inf")
        if kind is LeaseKind.DECLINED:
            port.declined_s = asyncio.get_running_loop().time()
            port.memo.forget()
        self._on_heard(Heard(device, v4.address, port.scope.mac, kind, until_s, told))

    def _framed(self, port: _Port, reply: Reply) -> bytes:
        server = port.bound.server if port.bound is not None else self._keeping[port.scope.pool.name].answers.server  # type: ignore[union-attr]
        ports = (SERVER_PORT, reply.port)
        return frame.udp4(reply.to_mac, port.server_mac, server, reply.destination, ports, reply.payload)

    def _kept(self, waiting: Waiting, is_kept: bool) -> None:
        """Sends what waited, unless the port went meanwhile, and tells."""
        port, reply, lease = self._ports.get(waiting.device), waiting.reply, waiting.lease
        if port is None or port.scope.pool is None or port.scope.pool.name != waiting.pool:
            return
        outcome: Act | Reason = reply.act if isinstance(reply, Reply) else reply
        if not is_kept:
            outcome = Reason.NOT_KEPT
        elif self._sent(waiting.device, port, reply)[0] is Reason.NOT_SENT:
            outcome = Reason.NOT_SENT
        if isinstance(outcome, Reason):
            self.counters[outcome] += 1
        given, is_own = lease.address.to_bytes(4, "big"), port.bound is None
        port.history.note(self._now_utc_s(), outcome, lease.mac, waiting.request, given, is_own=is_own)
        kind = REPORTED.get(outcome)
        if kind is not None:
            address = socket.inet_ntoa(lease.address.to_bytes(4, "big"))
            self._on_heard(Heard(waiting.device, address, lease.mac.hex(":"), kind, lease.until_s, lease=lease))

    def _dhcp6(self, device: str, port: _Port, data: bytes, datagram: frame.Datagram) -> Reason | None:
        """The same by DHCPv6."""
        if datagram.destination_port != v6.SERVER_PORT:
            return Reason.NOT_FOR_US
        request = v6.parse(datagram.payload)
        outcome, answer = self._answered6(device, port, datagram, request)
        act, leases = (outcome.act, outcome.leases) if isinstance(outcome, server6.Reply) else (outcome, ())
        known, address = None if isinstance(request, Reason) else request, leases[0][0] if leases else b""
        exchange = port.history.note6(self._now_utc_s(), act, datagram.source_mac, known, address)
        if isinstance(outcome, Reason):
            return outcome
        if answer and known is not None:
            port.memo.keep(data, answer, _Told(outcome._replace(payload=b""), known, exchange))
        return None

    def _answered6(
        self, device: str, port: _Port, datagram: frame.Datagram, request: v6.Message | Reason
    ) -> tuple[server6.Reply | Reason, bytes]:
        bound = port.bound6
        if bound is None:
            return Reason.NO_SCOPE, b""
        if datagram.source_mac != bound.mac:
            return Reason.FOREIGN_MAC, b""
        if isinstance(request, Reason):
            return request, b""
        now_mono_s = asyncio.get_running_loop().time()
        quarantined = [one for one, at_s in port.declined6_s.items() if now_mono_s - at_s < QUARANTINE_S]
        reply = bound.answer(request, is_unicast=datagram.destination != v6.SERVERS, quarantined=quarantined)
        if isinstance(reply, Reason):
            return reply, b""
        ports = (v6.SERVER_PORT, v6.CLIENT_PORT)
        data = frame.udp6(bound.mac, bound.server_mac, bound.source, datagram.source, ports, reply.payload)
        if not self._send(device, data):
            return Reason.NOT_SENT, b""
        self._took6(device, port, reply, self._now_utc_s())
        return reply, b"" if quarantined else data

    def _took6(self, device: str, port: _Port, reply: server6.Reply, now_utc_s: float) -> None:
        """Tells what a reply means for the port's IPv6 addresses."""
        for packed, kind in reply.leases:
            if kind is LeaseKind.BOUND or kind is LeaseKind.OFFERED:
                if 0 <= now_utc_s - port.bound6_utc_s.get(packed, float("-inf")) < REPEAT_S:
                    continue
            else:
                port.bound6_utc_s.pop(packed, None)
            address = socket.inet_ntop(socket.AF_INET6, packed)
            if kind is LeaseKind.BOUND:
                port.bound6_utc_s[packed] = now_utc_s
                port.unasked.took(address)
            if kind is LeaseKind.DECLINED:
                port.declined6_s[packed] = asyncio.get_running_loop().time()
                port.memo.forget()
            given_s = port.scope.v6.lease_s if kind is LeaseKind.BOUND and port.scope.v6 is not None else None
            until_s = None if given_s is None else now_utc_s + given_s
            self._on_heard(Heard(device, address, port.scope.mac, kind, until_s))

    def _solicitation(self, port: _Port, solicitation: frame.Icmp6) -> Reason | None:
        if solicitation.source_mac != frame.mac(port.scope.mac):
            return Reason.FOREIGN_MAC
        if solicitation.body[0] in (ra.NEIGHBOUR_SOLICITATION, ra.NEIGHBOUR_ADVERTISEMENT):
            return port.unasked.detected(solicitation)
        if port.scope.ra is None:
            return Reason.NO_SCOPE
        reason = ra.check_solicitation(solicitation)
        outcome = ra.Act.ADVERTISE_ROUTER if reason is None else reason
        port.history.note_solicitation(self._now_utc_s(), outcome, solicitation.source_mac)
        if reason is None:
            port.unasked.solicited()
        return reason

    def _tell(self, device: str, data: bytes) -> None:
        """Sends what nobody asked for."""
        if self._socket is not None and not self._send(device, data):
            self.counters[Reason.NOT_SENT] += 1

    def _send(self, device: str, data: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(data, (device, 0))
        except OSError:  # no such device, down, or its queue is full; the client asks again
            return False
        self.answered += 1
        return True
