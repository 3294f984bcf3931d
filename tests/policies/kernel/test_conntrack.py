"""Entries of connection tracking: what is put is there, each in its own direction, and a moved flow goes on."""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest
from flows_lab import CLIENT, SERVER, ZONE, Lab, built, opened, path, run
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.flows import ASSURED, CONFIRMED, ICMP, ICMPV6, SCTP, SEEN_REPLY, TCP, UDP, Flow, Tuple, is_sound, turned
from policies.kernel import conntrack
from policies.kernel.conntrack import Conntrack, parse_flow

ESTABLISHED = 3


def a_flow(source: str = "10.0.0.1", destination: str = "10.0.0.2", protocol: int = TCP, **other: object) -> Flow:
    there: tuple[int, ...] = (40000, 22)
    back: tuple[int, ...] = (22, 40000)
    if protocol in (ICMP, ICMPV6):
        there, back = ((9, 8, 0), (9, 0, 0)) if protocol == ICMP else ((9, 128, 0), (9, 129, 0))
    elif protocol not in (TCP, UDP, SCTP):
        there = back = ()
    flow = Flow(
        Tuple(source, destination, protocol, there),
        Tuple(destination, source, protocol, back),
        zone=ZONE,
        status=SEEN_REPLY | ASSURED,
        timeout_s=300,
        mark=0x80000005,
        state=ESTABLISHED if protocol in (TCP, SCTP) else 0,
        tags=(11, 12) if protocol == SCTP else (0, 0),
    )
    return replace(flow, **other)  # type: ignore[arg-type]


ALL_KINDS = [
    *(a_flow(protocol=protocol) for protocol in (TCP, UDP, SCTP, ICMP, 99)),
    *(a_flow("fd00::1", "fd00::2", protocol) for protocol in (TCP, UDP, SCTP, ICMPV6, 99)),
]


def lasting(flow: Flow) -> Flow:
    """What of an entry does not change by itself."""
    return replace(flow, timeout_s=0, status=flow.status & ~CONFIRMED)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", "flows"], check=True)
    try:
        run(
            "flows",
            "nft",
            "-f",
            "-",
            text="table inet t { chain c { type filter hook input priority 0; ct state new; }; }",
        )
        yield "flows"
    finally:
        subprocess.run(["ip", "netns", "delete", "flows"], check=True)


@pytest.fixture
def tracking(namespace: str) -> Iterator[Conntrack]:
    door = Conntrack(path(namespace))
    try:
        yield door
        door.delete(door.flows())
    finally:
        door.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with built() as lab:
        yield lab


@pytest.mark.system
def test_what_is_put_is_listed_as_it_was(tracking: Conntrack) -> None:
    assert tracking.put(ALL_KINDS) == []
    assert {lasting(flow) for flow in tracking.flows()} == {lasting(flow) for flow in ALL_KINDS}
    assert all(300 >= flow.timeout_s > 200 for flow in tracking.flows())


@pytest.mark.system
def test_a_list_is_of_one_zone_and_of_the_addresses_asked_for(tracking: Conntrack) -> None:
    mine, peers = a_flow("10.0.0.1", "10.0.0.2"), a_flow("10.0.0.3", "10.0.0.1")
    others = [a_flow("10.0.0.3", "10.0.0.4"), a_flow("10.0.0.1", "10.0.0.2", zone=ZONE + 1)]
    six = a_flow("fd00::1", "fd00::2")
    tracking.put([mine, peers, six, *others])
    found = tracking.flows(ZONE, ["10.0.0.1", "fd00::2"])
    assert {flow.original for flow in found} == {mine.original, peers.original, six.original}
    assert {flow.zone for flow in found} == {ZONE}
    of_prefixes = tracking.flows(ZONE, ["10.0.0.4/31", "fd00::/126"])
    assert {flow.original for flow in of_prefixes} == {others[0].original, six.original}


@pytest.mark.system
def test_equal_flows_of_two_zones_are_two(tracking: Conntrack) -> None:
    tracking.put([a_flow(), a_flow(zone=ZONE + 1, mark=1)])
    assert tracking.delete([a_flow()]) == 1
    assert [flow.mark for flow in tracking.flows()] == [1]


@pytest.mark.system
@pytest.mark.parametrize("flow", ALL_KINDS[:3] + ALL_KINDS[5:8], ids=lambda flow: f"{flow.original}")
def test_an_entry_picked_up_in_the_wrong_direction_gives_way(tracking: Conntrack, flow: Flow) -> None:
    tracking.put([turned(flow)])
    assert tracking.put([flow]) == []
    assert [lasting(one) for one in tracking.flows()] == [lasting(flow)]


@pytest.mark.system
def test_an_entry_that_is_there_in_its_direction_keeps_its_state_and_takes_the_mark(tracking: Conntrack) -> None:
    tracking.put([a_flow(mark=1, state=4)])
    assert tracking.put([a_flow(mark=2)]) == []
    assert [(flow.mark, flow.state) for flow in tracking.flows()] == [(2, 4)]


@pytest.mark.system
def test_a_mark_is_changed_alone(tracking: Conntrack) -> None:
    tracking.put([a_flow()])
    assert tracking.mark([a_flow(mark=6)]) == []
    assert [lasting(flow) for flow in tracking.flows()] == [lasting(a_flow(mark=6))]


@pytest.mark.system
def test_what_is_not_there_can_not_be_marked_and_need_not_be_deleted(tracking: Conntrack) -> None:
    assert [error.errno for _, error in tracking.mark([a_flow()])] == [errno.ENOENT]
    assert tracking.delete([a_flow()]) == 0
    assert tracking.find(a_flow()) is None


@pytest.mark.system
def test_more_than_fits_into_one_message_is_put_and_listed_once(tracking: Conntrack) -> None:
    many = [a_flow(destination=f"10.1.{number // 250}.{number % 250}") for number in range(2000)]
    assert tracking.put(many) == []
    assert len(tracking.flows(ZONE, ["10.0.0.1"])) == len(many)


@pytest.mark.system
@pytest.mark.parametrize("version", [4, 6])
def test_a_tcp_connection_goes_on_where_its_entry_was_moved_to(lab: Lab, version: int) -> None:
    with connected(lab, version) as (client, server):
        server.sendall(b"before")
        assert client.recv(100) == b"before"
        moved(lab, version, "tcp")
        server.sendall(b"after")  # the server speaks first: picked up by it, the direction would be turned
        assert client.recv(100) == b"after"
        client.sendall(b"answer")
        assert server.recv(100) == b"answer"


@pytest.mark.system
def test_a_tcp_connection_that_comes_back_is_not_held_against_its_old_windows(lab: Lab) -> None:
    """What went elsewhere meanwhile is more than any window that was known here."""
    with connected(lab, 4) as (client, server):
        moved(lab, 4, "tcp")
        client.settimeout(10)
        for _ in range(256):
            server.sendall(bytes(1 << 16))
            left = 1 << 16
            while left:
                left -= len(client.recv(left))
        moved(lab, 4, "tcp", back=True)
        server.sendall(b"back")
        assert client.recv(100) == b"back"


@pytest.mark.system
@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_from_the_server_alone_go_on_after_a_move(lab: Lab, version: int) -> None:
    lab.switch(0)
    server, client = (opened(name, version, socket.SOCK_DGRAM) for name in (lab.server, lab.client))
    try:
        server.bind((SERVER[version], 5000))
        client.bind((CLIENT[version], 0))
        client.sendto(b"hello", (SERVER[version], 5000))
        _, who = server.recvfrom(100)
        server.sendto(b"one", who)
        assert client.recv(100) == b"one"
        moved(lab, version, "udp")
        server.sendto(b"two", who)
        assert client.recv(100) == b"two"
    finally:
        server.close()
        client.close()


@pytest.mark.system
@pytest.mark.parametrize("version", [4, 6])
def test_the_answer_to_an_echo_request_finds_its_entry_after_a_move(lab: Lab, version: int) -> None:
    lab.switch(0)
    run(lab.client, "ping", f"-{version}", "-c", "1", "-W", "5", "-e", "77", "-I", CLIENT[version], SERVER[version])
    flows = moved(lab, version, "icmp" if version == 4 else "ipv6-icmp")
    assert [flow.original.numbers for flow in flows] == [(77, 8 if version == 4 else 128, 0)]
    door = Conntrack(path(lab.routers[1]))
    try:
        assert {lasting(flow) for flow in flows} <= {lasting(flow) for flow in door.flows(ZONE, [CLIENT[version]])}
    finally:
        door.close()


@pytest.mark.system
def test_what_was_not_moved_is_refused_there(lab: Lab) -> None:
    """What the tests above would miss if routers let all pass."""
    lab.switch(1)
    before = lab.refused(1)
    server = opened(lab.server, 4, socket.SOCK_DGRAM)
    try:
        server.bind((SERVER[4], 5000))
        server.sendto(b"never asked for", (CLIENT[4], 6000))
        deadline = time.monotonic() + 5
        while lab.refused(1) == before:
            assert time.monotonic() < deadline
    finally:
        server.close()


@contextmanager
def connected(lab: Lab, version: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's and the server's end of a TCP connection by the first router."""
    lab.switch(0)
    with opened(lab.server, version, socket.SOCK_STREAM) as listener:
        listener.bind((SERVER[version], 0))
        listener.listen()
        with opened(lab.client, version, socket.SOCK_STREAM) as client:
            client.bind((CLIENT[version], 0))
            client.connect(listener.getsockname()[:2])
            server, _ = listener.accept()
            with server:
                server.settimeout(10)
                yield client, server


def moved(lab: Lab, version: int, protocol: str, back: bool = False) -> list[Flow]:
    """Moves the entries of the client from the first router to the second, and the packets with them; which ones."""
    routers = reversed(lab.routers) if back else lab.routers
    first, second = (Conntrack(path(router)) for router in routers)
    try:
        number = socket.getprotobyname(protocol)
        flows = [flow for flow in first.flows(ZONE, [CLIENT[version]]) if flow.original.protocol == number]
        assert flows
        said = msgspec.json.encode(flows)
        assert second.put(msgspec.json.decode(said, type=list[Flow])) == []
        lab.switch(0 if back else 1)
        return flows
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("flow", ALL_KINDS, ids=lambda flow: f"{flow.original}")
def test_what_is_said_of_a_flow_is_heard_as_it_was(flow: Flow) -> None:
    _, _, content = conntrack._inserted(flow)
    heard = parse_flow(content)
    assert heard is not None and lasting(heard) == lasting(flow)
    assert msgspec.json.decode(msgspec.json.encode(flow), type=Flow) == flow


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL_KINDS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255))), st.integers(0, 400))
def test_no_bytes_are_more_than_a_flow_or_none(flow: Flow, changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(conntrack._inserted(flow)[2])
    for at, value in changes:
        content[at % len(content)] = value
    heard = parse_flow(bytes(content[:length]))
    assert heard is None or msgspec.json.decode(msgspec.json.encode(heard), type=Flow) == heard


def test_a_flow_turned_twice_is_itself() -> None:
    flow = a_flow(protocol=SCTP)
    assert turned(flow) != flow
    assert turned(turned(flow)) == flow


@pytest.mark.parametrize("flow", ALL_KINDS, ids=lambda flow: f"{flow.original}")
def test_a_flow_of_the_kernels_is_sound(flow: Flow) -> None:
    assert is_sound(flow)
    assert is_sound(turned(flow))


@pytest.mark.parametrize(
    "flow",
    [
        a_flow("10.0.0.1", "fd00::2"),
        a_flow("10.0.0.1", "ten"),
        a_flow("fe80::1%eth0", "fe80::2"),
        a_flow(zone=1 << 16),
        a_flow(mark=-1),
        a_flow(timeout_s=1 << 32),
        a_flow(state=256),
        a_flow(original=Tuple("10.0.0.1", "10.0.0.2", TCP, (1, 1 << 16))),
        a_flow(original=Tuple("10.0.0.1", "10.0.0.2", TCP)),
        a_flow(reply=Tuple("10.0.0.2", "10.0.0.1", 256)),
        a_flow(reply=Tuple("10.0.0.2", "10.0.0.1", ICMP, (1, 256, 0))),
    ],
    ids=str,
)
def test_what_no_kernel_would_tell_is_no_sound_flow(flow: Flow) -> None:
    assert not is_sound(flow)
