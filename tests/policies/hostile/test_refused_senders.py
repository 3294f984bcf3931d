"""Who is refused is told, if the policy says so: whatever was sent, to this host or another; but only so often."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from guarded_lab import FAR, HOSTS, ME, NEAR, SUBNETS, Host, Station, ll, port_of, v4, v6
from scapy.layers.sctp import SCTP, SCTPChunkInit
from stacks_lab import Stacks

from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import PlaygroundCompiler, policy_table
from policies.compile.tables import Parts, Ruleset
from policies.compile.ways import MOST_TOLD_PER_SECOND, TABLE
from policies.guard import answers, parts
from policies.guard.station import GuardedPort, GuardedTunnel
from policies.model import Endpoint, EndpointPeer, OnDeny, Origin, Policy, Rule, Scene
from policies.ports import Ports, Protocol
from policies.resolve import Resolver
from policies.selector import parse_selector

pytestmark = pytest.mark.system

HERE = Origin("f", 1)
NAMES = {ME: "me", NEAR: "near", FAR: "far"}
OPEN_PORT = 7

CLOSED_TO_ALL_BUT_ONE = Policy(
    "closed",
    (EndpointPeer(parse_selector("workspace in (near,far)"), frozenset({"p"})),),
    (Rule((EndpointPeer(parse_selector("*"), frozenset({"p"})),), Ports.of(Protocol.UDP, OPEN_PORT), HERE),),
    None,
    HERE,
    playground="p",
    on_deny=OnDeny.REJECT,
)
MUTE = replace(
    CLOSED_TO_ALL_BUT_ONE,
    name="mute",
    subjects=(EndpointPeer(parse_selector("workspace=me"), frozenset({"p"})),),
    ingress=None,
    egress=CLOSED_TO_ALL_BUT_ONE.ingress,
)


class Policed:
    """The stacks, with policies in force on both hosts."""

    def __init__(self) -> None:
        self.stacks = Stacks()
        self.in_force: dict[str, tuple[Ruleset, frozenset[str]]] = {}
        for station in self.stacks.guests:
            self.stacks.await_settled(station)

    def put(self, *policies: Policy) -> None:
        endpoints = tuple(
            Endpoint("p", name, "n", {"workspace": name, "network": "n", "playground": "p"}, station.addresses)
            for station, name in NAMES.items()
        )
        ir = Resolver().resolve(Scene(endpoints, policies))
        for name, host in self.stacks.hosts.items():
            ends = tuple(
                PolicedEnd(who, "n", (*station.addresses, ll(station)), station in HOSTS[name])
                for station, who in NAMES.items()
            )
            one = PlaygroundCompiler("p", "0123456789ab").compile(ir, (PolicedNetwork("n", "br0", 7),), ends)
            assert one is not None
            for ruleset in _rulesets(host, policy_table([one])):
                self.in_force[name] = ruleset, frozenset({"br0"})
                outcome = host.enforcement.converge(*self.in_force[name])
                assert (outcome.cause, dict(outcome.refused), outcome.unpoliced) == ("", {}, frozenset())

    def send(self, to: Station, version: int, kind: int, protocol: int = 0, content: bytes = b"?") -> str:
        """Sends a little from ME, and says what it hears: "" or the name of an error."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6

        def work() -> str:
            with socket.socket(family, kind, protocol) as made:
                made.settimeout(3)
                level, option = (socket.IPPROTO_IP, 11) if version == 4 else (socket.IPPROTO_IPV6, 25)
                made.setsockopt(level, option, 1)  # IP_RECVERR, IPV6_RECVERR: a raw socket hears of errors, too
                try:
                    made.connect((v4(to) if version == 4 else v6(to), 9 if kind != socket.SOCK_RAW else 0))
                    made.send(content)
                    made.recv(1)
                except TimeoutError:
                    return ""
                except OSError as error:
                    return errno.errorcode[error.errno or 0]
                return "data"

        return self.stacks.guests[ME].call(work)


def _rulesets(host: Host, table: Parts) -> Iterator[Ruleset]:
    """One after the other, as an agent has them: who answers is there once the bridge is policed."""
    bridge = host.space.call(socket.if_nametoindex, "br0")
    ports = [GuardedPort(port_of(station), station, SUBNETS) for station in host.stations]
    guard = parts.parts(ports, [GuardedTunnel("vx0", host.peers, SUBNETS)])
    yield {parts.TABLE: guard, TABLE: table}
    devices = {
        key: parts.judged(part, bridge) for key, part in guard.items() if key in ("vx0", *map(port_of, host.stations))
    }
    yield {parts.TABLE: {**guard, **devices, "answers": answers.part_of(bridge)}, TABLE: table}


@pytest.fixture(scope="module")
def built() -> Iterator[Policed]:
    found = Policed()
    try:
        yield found
    finally:
        found.stacks.close()


@pytest.fixture(params=[CLOSED_TO_ALL_BUT_ONE, MUTE], ids=["by who takes", "by who sends"])
def policed(built: Policed, request: pytest.FixtureRequest) -> Policed:
    built.put(request.param)
    for host in built.stacks.hosts.values():
        host.space.run("conntrack -F")
    return built


INIT = bytes(SCTP(sport=1000, dport=9) / SCTPChunkInit(init_tag=1, n_out_streams=1, n_in_streams=1, a_rwnd=1500))
SENT = {
    "TCP": ((socket.SOCK_STREAM, 0, b"?"), {4: "ECONNREFUSED", 6: "ECONNREFUSED"}),
    "UDP": ((socket.SOCK_DGRAM, 0, b"?"), {4: "ECONNREFUSED", 6: "ECONNREFUSED"}),
    "GRE": ((socket.SOCK_RAW, 47, bytes(12)), {4: "EHOSTUNREACH", 6: "EACCES"}),
    "SCTP": ((socket.SOCK_RAW, 132, INIT), {4: "ENOPROTOOPT", 6: "EACCES"}),  # by raw sockets: few kernels have its own
}
"""What each hears: its port is closed, its protocol is not spoken, or a person forbids it (net/ipv4/icmp.c,
icmp_err_convert; net/ipv6/icmp.c, icmpv6_err_convert)."""


@pytest.mark.parametrize("to", [NEAR, FAR], ids=["here", "on another host"])
@pytest.mark.parametrize("version", [4, 6])
def test_who_is_refused_is_told_at_once(policed: Policed, to: Station, version: int) -> None:
    for name, (how, expected) in SENT.items():
        began = time.monotonic()
        assert policed.send(to, version, *how) == expected[version], name
        assert time.monotonic() - began < 1
    assert "prohibited" in policed.stacks.ping(ME, v6(to)).stdout
    assert "filtered" in policed.stacks.ping(ME, v4(to)).stdout


def test_the_refused_packet_itself_reaches_nobody_and_what_is_allowed_passes(policed: Policed) -> None:
    for station in (NEAR, FAR):
        for version, address in ((4, v4(station)), (6, v6(station))):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            with (
                policed.stacks.guests[station].call(socket.socket, family, socket.SOCK_DGRAM) as heard,
                policed.stacks.guests[ME].call(socket.socket, family, socket.SOCK_DGRAM) as said,
            ):
                heard.bind((address, OPEN_PORT))
                heard.settimeout(3)
                said.sendto(b"refused", (address, 9))
                said.sendto(b"allowed", (address, OPEN_PORT))
                assert heard.recv(99) == b"allowed"


def test_who_asks_to_be_refused_without_end_is_told_no_more_than_so_often(policed: Policed) -> None:
    guest = policed.stacks.guests[ME]
    icmp = guest.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with icmp, guest.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as said:
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        began = time.monotonic()
        for _ in range(3000):
            said.sendto(b"?", (v4(NEAR), 9))
        took_s = time.monotonic() - began
        icmp.settimeout(0.3)
        heard = 0
        with suppress(TimeoutError):
            while icmp.recv(2000):  # a busy kernel may judge what was sent long after
                heard, took_s = heard + 1, time.monotonic() - began
    assert 0 < heard <= MOST_TOLD_PER_SECOND * (2 + took_s) + 10


def test_what_is_refused_reaches_nobody_where_the_guard_was_taken_away(policed: Policed) -> None:
    host = policed.stacks.hosts["a"]
    host.space.run("nft delete table netdev playground_guard")
    host.space.run("conntrack -F")
    with (
        policed.stacks.guests[NEAR].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as heard,
        policed.stacks.guests[ME].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as said,
    ):
        heard.bind((v4(NEAR), 9))
        heard.settimeout(0.3)
        said.sendto(b"refused", (v4(NEAR), 9))
        with pytest.raises(TimeoutError):
            heard.recv(99)


def test_the_devices_that_answer_are_put_back_and_answer_again(policed: Policed) -> None:
    host = policed.stacks.hosts["a"]
    pair = answers.pair_of(host.space.call(socket.if_nametoindex, "br0"))
    host.space.run(f"ip link del {pair.far}")
    assert host.enforcement.touched()
    assert any(pair.near in said for said in host.enforcement.differences(*policed.in_force["a"]))
    assert host.enforcement.converge(*policed.in_force["a"]).repaired["device"] == 1
    host.enforcement.converge(*policed.in_force["a"])
    assert host.enforcement.differences(*policed.in_force["a"]) == []
    assert policed.send(NEAR, 4, socket.SOCK_DGRAM) == "ECONNREFUSED"
