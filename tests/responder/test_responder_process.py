"""The process and its agent: what is heard where, what survives, what is let go."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from responder_lab import VIEW, Agent, Guest, Host, Namespace, Responder, a_name, answers_for, eui64, needs, until

from dhcp import frame, message
from dhcp.message import BOOTREPLY, BOOTREQUEST, Message
from overlay.state import LEG_MAC
from playground.responder.protocol import DATA_PLANE_KEY, name_key, port_key

pytestmark = pytest.mark.system
ANY, ALL = bytes(4), b"\xff" * 4


def a_discover(
    guest: Guest, chaddr: bytes | None = None, kind: bytes = b"\x01", xid: bytes = b"\1\2\3\4", **options: bytes
) -> bytes:
    mac = frame.mac(guest.mac)
    found = {53: kind} | {int(code[1:]): value for code, value in options.items()}
    request = Message(BOOTREQUEST, xid, chaddr or mac, found, flags=0x8000)
    return frame.udp4(frame.BROADCAST_MAC, mac, ANY, ALL, (68, 67), message.encode(request))


def replies(opened: socket.socket) -> list[Message]:
    """Every answer that has arrived (the bridge floods what other guests broadcast too: there is no guard here)."""
    got = []
    opened.setblocking(False)
    try:
        while True:
            datagram = frame.parse_udp4(opened.recv(4096))
            read = message.parse(datagram.payload) if datagram is not None else None
            if isinstance(read, Message) and read.op == BOOTREPLY:
                got.append(read)
    except BlockingIOError:
        return got


def test_an_answer_leaves_by_the_port_that_asked_and_by_no_other(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    one, two = a_guest(), a_guest()
    agent.tell(answers_for(one, host) | answers_for(two, host), whole=True)
    one.up()
    two.up()
    with one.socket() as first, two.socket() as second:
        first.send(a_discover(one))
        agent.hear(lambda: agent.kinds(one.port))
        second.send(a_discover(two))
        agent.hear(lambda: agent.kinds(two.port))
        (mine,), heard = replies(first), replies(second)
    assert mine.yiaddr == socket.inet_aton(one.address)
    assert [read.yiaddr for read in heard] == [socket.inet_aton(two.address)]


def test_a_foreign_hardware_address_is_not_answered(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    with guest.socket() as opened:
        opened.send(a_discover(guest, chaddr=b"\x02\0\0\0\0\x99"))
        opened.send(frame.BROADCAST_MAC + b"\x02\0\0\0\0\x99" + a_discover(guest)[12:])
        opened.send(a_discover(guest))
        agent.hear(lambda: agent.kinds(guest.port))
        assert len(replies(opened)) == 1


def test_a_decline_is_reported(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    with guest.socket() as opened:
        opened.send(a_discover(guest, kind=b"\x04", _50=socket.inet_aton(guest.address)))
        agent.hear(lambda: agent.kinds(guest.port) == ["declined"])
    assert (agent.leased[-1]["address"], agent.leased[-1]["mac"]) == (guest.address, guest.mac)


def test_a_port_that_was_deleted_is_silent_at_once(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    one, two = a_guest(), a_guest()
    agent.tell(answers_for(one, host) | answers_for(two, host), whole=True)
    one.up()
    two.up()
    agent.tell(delete=(port_key(one.port),))
    with one.socket() as first, two.socket() as second:
        first.send(a_discover(one))
        second.send(a_discover(two))
        agent.hear(lambda: agent.kinds(two.port))
        assert replies(first) == []


def remembered(responder: Responder) -> str:
    file = responder.folder / "r.json"
    return file.read_text() if file.exists() else ""


def test_a_responder_that_was_killed_answers_again_without_an_agent(
    responder: Responder, agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    needs("dig")
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    with guest.socket() as opened:
        opened.send(a_discover(guest))
        agent.hear(lambda: agent.kinds(guest.port))
        agent.close()
        until(lambda: "offered" in remembered(responder))
        responder.kill()
        replies(opened)
        responder.start()
        opened.send(a_discover(guest))
        until(lambda: replies(opened), what="no answer without an agent")
    guest.ip(f"address add {guest.address}/24 dev eth0")
    assert guest.run("dig", "+short", "+time=2", "@10.20.0.1", f"worker-{guest.port[-1]}.atlas.internal").strip()
    # A new agent is told what happened before it came; on a busy machine the client was asked for its address by then.
    fresh = Agent(responder)
    fresh.hear(lambda: fresh.kinds(guest.port)[:1] in (["offered"], ["bound"]))
    fresh.close()


def test_addresses_that_were_taken_while_nobody_listened_are_asked_for(
    responder: Responder, agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()  # it asks for nothing and detects no duplicates, and so says nothing of itself
    guest.ip(f"address add {guest.address}/24 dev eth0")
    agent.tell(answers_for(guest, host, with_ra=True), whole=True)
    guest.up()
    expected = [(guest.port, guest.address, "bound"), (guest.port, eui64(guest.mac), "formed")]
    agent.hear(lambda: len(agent.leased) == 2)
    assert sorted((told["port"], told["address"], told["kind"]) for told in agent.leased) == expected
    agent.close()
    responder.kill()
    (responder.folder / "r.json").write_text("{}")
    (responder.folder / "r.json.journal").unlink(missing_ok=True)
    responder.start()
    fresh = Agent(responder)
    fresh.tell(answers_for(guest, host, with_ra=True), whole=True)
    fresh.hear(lambda: len(fresh.leased) == 2)
    assert sorted((told["port"], told["address"], told["kind"]) for told in fresh.leased) == expected
    fresh.close()


def packet_sockets(namespace: Namespace) -> int:
    return len(namespace.run("cat", "/proc/net/packet").splitlines()) - 1


def dns_sockets(namespace: Namespace) -> int:
    files = ("/proc/net/udp", "/proc/net/udp6", "/proc/net/tcp", "/proc/net/tcp6")
    return sum(":0035 " in line for line in namespace.run("cat", *files).splitlines())


def test_nothing_holds_a_namespace_once_its_keys_are_gone(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    assert (packet_sockets(host.plane), dns_sockets(host.service)) == (1, 4)
    agent.tell({}, whole=True)
    assert (packet_sockets(host.plane), dns_sockets(host.service)) == (0, 0)


def test_sockets_follow_a_namespace_that_goes_and_is_made_anew(permitted: None, short: Path) -> None:
    link = short / "plane"
    old, new = Host(), Host()
    responder = Responder(short, str(link))
    agent = Agent(responder)
    try:
        link.symlink_to(old.plane.path)
        guest = Guest(old, 9)
        service = short / "service"
        service.symlink_to(old.service.path)
        view = old.view().__class__(netns=str(service), listen=old.view().listen, origin="atlas.internal")
        agent.tell({port_key(guest.port): guest.scope(), VIEW: view}, whole=True)
        assert (packet_sockets(old.plane), dns_sockets(old.service)) == (1, 4)

        link.unlink()
        service.unlink()
        agent.hear(lambda: agent.problems.get(DATA_PLANE_KEY) and agent.problems.get(VIEW))
        assert (packet_sockets(old.plane), dns_sockets(old.service)) == (0, 0)

        guest.__exit__()
        guest = Guest(new, 9)
        guest.up()
        link.symlink_to(new.plane.path)
        service.symlink_to(new.service.path)
        agent.hear(lambda: agent.problems[DATA_PLANE_KEY] == agent.problems[VIEW] == "")
        with guest.socket() as opened:
            opened.send(a_discover(guest))
            agent.hear(lambda: agent.kinds(guest.port) == ["offered"])
        guest.__exit__()
    finally:
        agent.close()
        responder.close()
        old.close()
        new.close()


def test_a_value_that_can_not_be_answered_is_a_problem_and_the_one_before_stays(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    key = port_key(guest.port)
    agent.tell(
        {key: {"mac": guest.mac, "server_mac": LEG_MAC, "v4": {"address": "x", "prefix_len": 24, "server": "y"}}}
    )
    assert "'x'" in agent.problems[key]
    with guest.socket() as opened:
        opened.send(a_discover(guest))
        agent.hear(lambda: agent.kinds(guest.port))
    agent.tell({key: guest.scope(with_ra=True)})
    assert agent.problems[key] == ""


def test_names_may_come_before_their_view(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    needs("dig")
    guest = a_guest()
    guest.up()
    guest.ip(f"address add {guest.address}/24 dev eth0")
    agent.tell({name_key("atlas", guest.port): a_name(guest)}, whole=True)
    agent.tell({VIEW: host.view()})
    name = f"worker-{guest.port[-1]}.grid.atlas.internal"
    assert guest.run("dig", "+short", "+time=2", "@10.20.0.1", name).strip() == guest.address


def test_sigterm_ends_it_cleanly_and_leaves_only_its_file(responder: Responder, agent: Agent) -> None:
    agent.tell({}, whole=True)
    responder.process.send_signal(signal.SIGTERM)
    assert responder.process.wait(5) == 0
    assert {path.name for path in responder.folder.iterdir()} == {"r.json", "r.log"}


def test_who_takes_its_place_loses_nothing_that_clients_said(
    responder: Responder, agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    scopes = {port_key(f"{number:012x}"): guest.scope() for number in range(0x1000, 0x1000 + 200)}
    agent.tell(answers_for(guest, host) | scopes, whole=True)
    guest.up()
    agent.close()
    before = responder.process
    with guest.socket() as opened:
        opened.send(a_discover(guest))
        until(lambda: replies(opened))
        successor = subprocess.Popen([*responder.argv, "--succeed"])
        responder.process = successor
        asked: set[bytes] = set()
        answered: set[bytes] = set()
        while before.poll() is None or len(asked) < 50:
            xid = len(asked).to_bytes(4, "big")
            opened.send(a_discover(guest, xid=xid))
            asked.add(xid)
            assert len(asked) < 10_000, "the first one does not end"
            answered.update(read.xid for read in replies(opened))
            time.sleep(0.002)

        def all_are() -> bool:
            answered.update(read.xid for read in replies(opened))
            return answered >= asked

        until(all_are, what="what was said between the two is lost")
    assert before.returncode == 0 and successor.poll() is None
