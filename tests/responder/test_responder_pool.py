"""Clients that nobody declared, at a port that may have them: leases that outlive the process, killed or not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from responder_lab import SERVER, Agent, Guest, Host, Responder

from dhcp import frame, message
from dhcp.leases import State
from dhcp.message import BOOTREPLY, BOOTREQUEST, Message
from dhcp.scope import Pool4, PortScope
from playground.responder.protocol import PoolClient, port_key

pytestmark = pytest.mark.system
ANY, ALL = bytes(4), b"\xff" * 4


def with_pool(guest: Guest, size: int = 2) -> PortScope:
    scope = guest.scope()
    assert scope.v4 is not None
    told = replace(scope.v4, hostname=None, lease_s=600)
    return replace(scope, pool=Pool4("grid", told, (("10.20.0.200", f"10.20.0.{199 + size}"),)))


def said(mac: bytes, kind: int, **options: bytes) -> bytes:
    found = {53: bytes((kind,))} | {int(code[1:]): value for code, value in options.items()}
    request = Message(BOOTREQUEST, mac[-4:], mac, found, flags=0x8000)
    return frame.udp4(frame.BROADCAST_MAC, mac, ANY, ALL, (68, 67), message.encode(request))


def reply_to(opened: socket.socket, mac: bytes) -> Message:
    """The next one for this client."""
    while True:
        datagram = frame.parse_udp4(opened.recv(4096))
        read = message.parse(datagram.payload) if datagram is not None else None
        if isinstance(read, Message) and read.op == BOOTREPLY and read.chaddr == mac:
            return read


def boot(opened: socket.socket, mac: bytes) -> bytes:
    """The address after DISCOVER, OFFER, REQUEST, ACK."""
    opened.send(said(mac, 1))
    offer = reply_to(opened, mac)
    assert offer.options[53] == b"\2"
    opened.send(said(mac, 3, _50=offer.yiaddr, _54=socket.inet_aton(SERVER)))
    ack = reply_to(opened, mac)
    assert (ack.options[53], ack.yiaddr) == (b"\5", offer.yiaddr)
    return ack.yiaddr


ONE, TWO, THREE = (bytes((2, 0, 0, 9, 9, number)) for number in range(3))


def test_a_lease_is_known_after_the_process_was_killed_and_given_to_nobody_else(
    responder: Responder, agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    agent.tell({port_key(guest.port): with_pool(guest)}, whole=True)
    guest.up()
    with guest.socket() as opened:
        first = boot(opened, ONE)
        agent.hear(lambda: agent.given)
        assert agent.given[-1].until_s - agent.given[-1].since_s == pytest.approx(600, abs=2)
        agent.close()
        responder.kill()
        responder.start()
        agent = Agent(responder)
        agent.tell({port_key(guest.port): with_pool(guest)}, whole=True)
        second = boot(opened, TWO)
        assert second != first
        opened.send(said(ONE, 3, _50=first))  # as after its own reboot
        assert reply_to(opened, ONE).options[53] == b"\5"
        opened.send(said(THREE, 3, _50=first))
        assert reply_to(opened, THREE).options[53] == b"\6"
        agent.close()


def test_the_ports_own_client_keeps_its_own_address_beside_them(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    agent.tell({port_key(guest.port): with_pool(guest)}, whole=True)
    guest.up()
    with guest.socket() as opened:
        assert boot(opened, ONE) == socket.inet_aton("10.20.0.200")
        own = frame.mac(guest.mac)
        assert boot(opened, own) == socket.inet_aton(guest.address)


def test_nothing_is_acknowledged_that_can_not_be_written_down(
    responder: Responder, agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    agent.tell({port_key(guest.port): with_pool(guest)}, whole=True)
    guest.up()
    journal = responder.folder / "r.leases"
    journal.mkdir()
    with guest.socket() as opened:
        opened.send(said(ONE, 1))
        offer = reply_to(opened, ONE)
        opened.send(said(ONE, 3, _50=offer.yiaddr, _54=socket.inet_aton(SERVER)))
        opened.send(said(frame.mac(guest.mac), 1))
        reply_to(opened, frame.mac(guest.mac))  # it is still there, and had nothing to say to the other
        journal.rmdir()
        opened.send(said(ONE, 3, _50=offer.yiaddr, _54=socket.inet_aton(SERVER)))
        assert reply_to(opened, ONE).options[53] == b"\5"


def test_a_declined_address_rests(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    guest = a_guest()
    agent.tell({port_key(guest.port): guest.scope()}, whole=True)
    guest.up()
    own = frame.mac(guest.mac)
    with guest.socket() as opened:
        boot(opened, own)
        opened.send(said(own, 4, _50=socket.inet_aton(guest.address)))
        agent.hear(lambda: agent.kinds(guest.port)[-1:] == ["declined"])
        opened.send(said(own, 1))
        opened.send(said(own, 8))  # an INFORM is answered: what comes first is not the answer to the DISCOVER
        assert reply_to(opened, own).yiaddr == ANY


def test_whoever_asks_is_told_what_happened_at_a_port(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    guest = a_guest()
    agent.tell({port_key(guest.port): with_pool(guest)}, whole=True)
    guest.up()
    own = frame.mac(guest.mac)
    with guest.socket() as opened:
        boot(opened, own)
        boot(opened, ONE)
        agent.hear(lambda: agent.given)
    (told,) = agent.ask(guest.port, "0" * 12)
    assert told["counts"] == {"OFFER": 2, "ACK": 2}
    assert [(one["what"], one["mac"], one["outcome"]) for one in told["exchanges"]] == [
        ("DISCOVER", guest.mac, "OFFER"),
        ("REQUEST", guest.mac, "ACK"),
        ("DISCOVER", ONE.hex(":"), "OFFER"),
        ("REQUEST", ONE.hex(":"), "ACK"),
    ]
    assert (told["lease"]["address"], told["lease"]["kind"]) == (guest.address, "bound")
    assert told["lease"]["since_utc_s"] == told["lease"]["at_utc_s"]
    (client,) = msgspec.convert(told["pool"], list[PoolClient])
    assert (client.lease.address, client.lease.mac, client.lease.state) == (0x0A1400C8, ONE, State.LEASED)
