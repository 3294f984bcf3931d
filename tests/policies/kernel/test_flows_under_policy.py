"""Flows under policies that change: what is allowed goes on without a lost packet, what is not is cut at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from filter_lab import Namespace

from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import PlaygroundCompiler, policy_table
from policies.compile.ways import REVERSED, TABLE
from policies.kernel.enforcement import Enforcement
from policies.model import Endpoint, EndpointPeer, Origin, Policy, Rule, Scene
from policies.ports import Ports, Protocol
from policies.resolve import Resolver
from policies.selector import parse_selector

pytestmark = pytest.mark.system

HERE = Origin("f", 1)
ADDRESSES = {1: ("10.0.0.1", "fd00::1"), 2: ("10.0.0.2", "fd00::2")}
SSH, WEB = Ports.of(Protocol.TCP, 22), Ports.of(Protocol.TCP, 80)


def who(text: str) -> EndpointPeer:
    return EndpointPeer(parse_selector(text), frozenset({"p"}))


def to_w2(*ports: Ports, keeps: bool = False) -> Policy:
    """What w2 takes from w1."""
    rules = tuple(Rule((who("workspace=w1"),), one, HERE) for one in ports)
    return Policy("to-w2", (who("workspace=w2"),), rules, None, HERE, playground="p", keeps_established=keeps)


class Site:
    """Two guests on a bridge, with names w1 and w2, and policies between them."""

    def __init__(self, name: str = "p") -> None:
        self.host, self.guests = Namespace(), {1: Namespace(), 2: Namespace()}
        self.host.run("ip link add br1 type bridge mcast_snooping 0")
        self.host.run("ip link set br1 addrgenmode none up")
        for number, guest in self.guests.items():
            self.host.run(f"ip link add p{number} type veth peer name eth0 netns {guest.pid}")
            self.host.run(f"ip link set p{number} addrgenmode none")
            self.host.run(f"ip link set p{number} master br1 up")
            guest.run("ip link set lo up")
            guest.run("ip link set eth0 up")
            for address, length in zip(ADDRESSES[number], (24, 64), strict=True):
                guest.run(f"ip address add {address}/{length} dev eth0{' nodad' if length == 64 else ''}")
        self.enforcement = Enforcement(self.host.path)
        self._compiler, self._resolver = PlaygroundCompiler("p", "0123456789ab"), Resolver()
        self._wait_for_both()

    def _wait_for_both(self) -> None:
        end = time.monotonic() + 5
        with self.udp(2, 7) as listening, self.udp(1, 0) as sending:
            listening.settimeout(0.05)
            while True:
                assert time.monotonic() < end
                sending.sendto(b"x", ("10.0.0.2", 7))
                with suppress(TimeoutError):
                    listening.recv(10)
                    return

    def put(
        self,
        *policies: Policy,
        is_lenient: bool = False,
        local: tuple[int, ...] = (1, 2),
        allowed: tuple[str, ...] = (),
    ) -> None:
        """Puts these policies in force; none: nothing is policed. allowed: what w1 may use beside its own."""
        endpoints = tuple(
            Endpoint("p", f"w{n}", "n", {"workspace": f"w{n}", "network": "n", "playground": "p"}, both)
            for n, both in ADDRESSES.items()
        )
        ends = tuple(
            PolicedEnd(f"w{n}", "n", (*both, *(allowed if n == 1 else ())), n in local) for n, both in ADDRESSES.items()
        )
        ir = self._resolver.resolve(Scene(endpoints, policies))
        one = self._compiler.compile(ir, (PolicedNetwork("n", "br1", 7),), ends, is_lenient=is_lenient)
        table = policy_table([one] if one else [])
        outcome = self.enforcement.converge({TABLE: table} if table else {}, one.bridges if one else frozenset())
        assert not outcome.cause and not outcome.refused and not outcome.unpoliced

    def tcp(self, number: int, version: int = 4) -> socket.socket:
        return self.guests[number].call(_socket, version, socket.SOCK_STREAM)

    def udp(self, number: int, port: int, version: int = 4) -> socket.socket:
        made = self.guests[number].call(_socket, version, socket.SOCK_DGRAM)
        made.bind((ADDRESSES[number][version == 6], port))
        return made

    @contextmanager
    def connected(self, port: int, version: int = 4) -> Iterator[tuple[socket.socket, socket.socket]]:
        """w1's end and w2's end of a TCP connection to w2."""
        with self.tcp(2, version) as listening, self.tcp(1, version) as client:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((ADDRESSES[2][version == 6], port))
            listening.listen()
            client.connect((ADDRESSES[2][version == 6], port))
            server, _ = listening.accept()
            server.settimeout(3)
            with server:
                yield client, server

    def close(self) -> None:
        self.enforcement.close()
        for one in (self.host, *self.guests.values()):
            one.close()


def _socket(version: int, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
    made.settimeout(3)
    return made


@pytest.fixture(scope="module")
def built() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def site(built: Site) -> Site:
    built.put()
    built.host.run("conntrack -F")
    return built


def passes(sender: socket.socket, receiver: socket.socket, patience_s: float = 2) -> bool:
    """Whether a byte that is sent arrives."""
    sender.send(b"x")
    receiver.settimeout(patience_s)
    try:
        return receiver.recv(1) == b"x"
    except TimeoutError:
        return False


@pytest.mark.parametrize("version", [4, 6])
def test_a_change_cuts_what_it_no_longer_allows_and_spares_the_rest(site: Site, version: int) -> None:
    site.put(to_w2(SSH, WEB))
    with site.connected(22, version) as (ssh, sshd), site.connected(80, version) as (web, httpd):
        site.put(to_w2(SSH))
        assert passes(ssh, sshd) and passes(sshd, ssh)
        assert not passes(web, httpd, 0.4) and not passes(httpd, web, 0.4)
        site.put(to_w2(SSH, WEB))
        httpd.settimeout(5)
        assert httpd.recv(1) == b"x"  # sent again by TCP, as nobody was told that it is over


def test_a_stream_from_server_to_client_alone_goes_on_through_changes_without_a_gap(site: Site) -> None:
    site.put(to_w2(SSH))
    with site.connected(22) as (client, server):
        gaps: list[float] = []

        def receive() -> None:
            last = time.monotonic()
            while client.recv(65536):
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        client.settimeout(5)
        reader = threading.Thread(target=receive)
        reader.start()
        for round in range(40):
            site.put(to_w2(SSH, WEB) if round % 2 else to_w2(SSH))
            for _ in range(5):
                server.send(b"y" * 500)
                time.sleep(0.002)
        server.shutdown(socket.SHUT_WR)
        reader.join()
        assert max(gaps) < 0.2, "TCP had to send again"  # its shortest timeout (RFC 6298; Linux: TCP_RTO_MIN)


def test_an_established_connection_is_kept_where_the_policy_says_so_and_a_new_one_refused(site: Site) -> None:
    site.put(to_w2(SSH, keeps=True))
    with site.connected(22) as (client, server):
        site.put(to_w2(keeps=True))
        assert passes(client, server) and passes(server, client)
        with site.tcp(1) as another:
            another.settimeout(0.4)
            with pytest.raises(TimeoutError):
                another.connect(("10.0.0.2", 22))
        site.put(to_w2(keeps=False))
        assert not passes(client, server, 0.4)
        site.put(to_w2(keeps=True))
        assert not passes(server, client, 0.4)  # what was refused once, is not running any more


def test_a_host_judges_its_own_alone(site: Site) -> None:
    site.put(to_w2(WEB), local=(1,))
    with site.connected(22) as (client, server):
        assert passes(client, server)


@pytest.mark.parametrize("speaks_first", ["client", "server"])
def test_a_connection_older_than_all_policies_survives_in_whichever_direction_it_speaks(
    site: Site, speaks_first: str
) -> None:
    with site.connected(22) as (client, server), site.connected(80) as (web, httpd):
        site.put(to_w2(SSH), is_lenient=True)
        ends = (client, server) if speaks_first == "client" else (server, client)
        assert passes(*ends) and passes(*reversed(ends))
        assert not passes(web, httpd, 0.4) and not passes(httpd, web, 0.4)
        listed = site.host.run("conntrack -L -o extended")
        is_turned = any(int(word[5:]) & REVERSED for word in listed.split() if word.startswith("mark="))
        assert is_turned == (speaks_first == "server")


NESTED, BLOCK = "10.0.0.70", "10.0.0.64/26"


@pytest.mark.parametrize("source", ["10.0.0.1", NESTED], ids=["its own address", "one of a block that it is allowed"])
def test_multicast_is_for_all_but_senders_whose_egress_is_closed(site: Site, source: str) -> None:
    site.guests[1].run(f"ip address replace {NESTED}/32 dev eth0")
    closed = replace(to_w2(), subjects=(who("workspace=w1"),), ingress=None, egress=())
    kind = 4, socket.SOCK_DGRAM
    with site.guests[1].call(_socket, *kind) as sender, site.guests[2].call(_socket, *kind) as receiver:
        receiver.bind(("224.0.0.251", 5353))
        group = socket.inet_aton("224.0.0.251") + socket.inet_aton("10.0.0.2")
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        sender.bind((source, 0))
        site.put(to_w2(), allowed=(BLOCK,))
        sender.sendto(b"x", ("224.0.0.251", 5353))
        assert receiver.recv(9) == b"x"
        site.put(closed, allowed=(BLOCK,))
        sender.sendto(b"y", ("224.0.0.251", 5353))
        receiver.settimeout(0.3)
        with pytest.raises(TimeoutError):
            receiver.recv(9)
        assert site.host.run("conntrack -L").count("224.0.0.251") == 0


def test_neighbours_are_found_where_nothing_else_may_pass(site: Site) -> None:
    site.put(replace(to_w2(), egress=()), replace(to_w2(), subjects=(who("workspace=w1"),), name="w1", egress=()))
    site.guests[1].run("ip neigh flush all")
    with site.udp(1, 0, 6) as sender:
        sender.sendto(b"x", ("fd00::2", 9))
    end = time.monotonic() + 3
    while "lladdr" not in site.guests[1].run("ip -6 neigh show fd00::2"):
        assert time.monotonic() < end
        time.sleep(0.01)
