"""What enforcement, the guard and the data plane rely on the kernel for: each fact by itself, in bare namespaces, told
by nft, ip and bridge. None of our rules and none of our doors takes part.

Every test has its own control: without the setting the opposite is seen, so a kernel that ignores it fails the test.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from filter_lab import Bridged, Namespace, framed, mac
from first_packets import fragment, packet

from policies.ports import Protocol

pytestmark = pytest.mark.system

SOURCE, DESTINATION = {4: "10.0.0.1", 6: "fd00::1"}, {4: "10.0.0.2", 6: "fd00::2"}
GUESTS = {1: "br0", 2: "br0", 3: "br1", 4: "br1", 5: "br0"}
SYSCTLS = ("iptables", "ip6tables", "arptables")


@pytest.fixture(scope="module")
def lab() -> Iterator[Bridged]:
    made = Bridged(GUESTS)
    for number in GUESTS:  # so that none is flooded, and goes by the hooks twice
        made.inner.run(f"bridge fdb replace {mac(number)} dev p{number} master static")
    yield made
    made.close()


@pytest.fixture
def kernel(lab: Bridged) -> Bridged:
    """Without rules and connections; no bridge sends its packets anywhere."""
    lab.inner.run("nft flush ruleset")
    lab.inner.run("conntrack -F")
    for name in SYSCTLS:
        lab.inner.run(f"sysctl -qw net.bridge.bridge-nf-call-{name}=0")
    for bridge in ("br0", "br1"):
        switched(lab, bridge, False)
    return lab


def switched(lab: Bridged, bridge: str, is_on: bool = True) -> None:
    lab.inner.run(f"ip link set {bridge} type bridge nf_call_iptables {is_on:d} nf_call_ip6tables {is_on:d}")


def ruled(lab: Bridged, *chains: str) -> None:
    """chains: each `TABLE KIND | RULE | …`: a base chain of a table of its own; nothing else is in force then."""
    lines = ["flush ruleset"]
    for number, chain in enumerate(chains):
        family, hook, *rules = (part.strip() for part in chain.split("|"))
        lines += [
            f"table {family} t{number} {{",
            f"chain c {{ type filter hook {hook}; policy accept;",
            *rules,
            "}",
            "}",
        ]
    lab.inner.run("nft -f -", "\n".join(lines) + "\n")


def udp(source: int, destination: int, version: int = 4, serial: int = 1) -> bytes:
    content = packet(version, SOURCE[version], DESTINATION[version], (Protocol.UDP, 9), serial)
    return framed(source, destination, version, content)


def arrives(lab: Bridged, source: int, destination: int, version: int = 4) -> bool:
    frame = udp(source, destination, version)
    return frame in lab.exchange([(source, frame)])[destination]


# -- the way of a bridged packet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_a_bridges_own_switch_sends_its_packets_through_the_inet_hooks_and_no_others(
    kernel: Bridged, version: int
) -> None:
    ruled(kernel, 'inet | forward priority 0 | iifname "br*" drop')  # what inet hooks see is the bridge, not the port
    assert arrives(kernel, 1, 2, version) and arrives(kernel, 3, 4, version)
    switched(kernel, "br0")
    assert not arrives(kernel, 1, 2, version) and arrives(kernel, 3, 4, version)


def test_the_namespaces_switch_sends_all_bridges_packets_through(kernel: Bridged) -> None:
    ruled(kernel, "inet | forward priority 0 | drop")
    assert arrives(kernel, 1, 2)
    kernel.inner.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1")
    assert not arrives(kernel, 1, 2) and not arrives(kernel, 3, 4)


def test_what_is_for_one_machine_is_for_the_host_in_inet_hooks_and_group_addresses_are_not(kernel: Bridged) -> None:
    switched(kernel, "br0")
    ruled(kernel, "inet | prerouting priority -450 | meta pkttype host drop")
    group = b"\xff" * 6 + udp(1, 2)[6:]
    heard = kernel.exchange([(1, udp(1, 2)), (1, group)])
    assert heard[2] == [group] and heard[5] == [group]


@pytest.mark.parametrize("is_switched", [False, True], ids=["unpoliced", "policed"])
def test_a_mark_of_the_ingress_hook_is_there_at_the_egress_hook_of_the_other_port(
    kernel: Bridged, is_switched: bool
) -> None:
    stops = 'netdev | egress device "p2" priority -300 | meta mark 7 drop'
    switched(kernel, "br0", is_switched)
    ruled(kernel, stops)
    assert arrives(kernel, 1, 2)
    ruled(kernel, stops, 'netdev | ingress device "p1" priority -300 | meta mark set 7')
    assert not arrives(kernel, 1, 2)


@pytest.mark.parametrize("hook", ["prerouting", "forward"])
def test_a_mark_of_the_ingress_hook_is_there_in_inet_hooks_and_may_be_taken_off(kernel: Bridged, hook: str) -> None:
    marks = 'netdev | ingress device "p1" priority -300 | meta mark set 7'
    stops = 'netdev | egress device "p2" priority -300 | meta mark 7 drop'
    switched(kernel, "br0")
    ruled(kernel, marks, stops)
    assert not arrives(kernel, 1, 2)
    ruled(kernel, marks, stops, f"inet | {hook} priority 0 | meta mark 7 meta mark set 0")
    assert arrives(kernel, 1, 2)


def test_the_egress_hook_of_a_port_sees_bridged_frames_of_every_type(kernel: Bridged) -> None:
    arp = framed(1, 2, 4, b"")[:12] + b"\x08\x06" + bytes(46)
    assert kernel.exchange([(1, arp), (1, udp(1, 2))])[2] == [arp, udp(1, 2)]
    ruled(kernel, 'netdev | egress device "p2" priority -300 | drop')
    assert kernel.exchange([(1, arp), (1, udp(1, 2))])[2] == []


def test_packet_sockets_hear_a_frame_before_its_ingress_hook(kernel: Bridged) -> None:
    ruled(kernel, 'netdev | ingress device "p1" priority -300 | drop')
    sockets = {device: kernel.inner.call(packet_socket, device) for device in ("p1", "p2")}
    try:
        assert not arrives(kernel, 1, 2)
        assert udp(1, 2) in drained(sockets["p1"]) and udp(1, 2) not in drained(sockets["p2"])
    finally:
        for one in sockets.values():
            one.close()


def test_what_a_packet_socket_sends_passes_the_egress_hook(kernel: Bridged) -> None:
    one = kernel.inner.call(packet_socket, "p1")
    try:
        one.send(udp(2, 1))
        assert udp(2, 1) in kernel.exchange([])[1]
        ruled(kernel, 'netdev | egress device "p1" priority -300 | drop')
        with suppress(OSError):  # ENOBUFS: it was dropped
            one.send(udp(2, 1))
        assert kernel.exchange([])[1] == []
    finally:
        one.close()


# -- connection tracking -----------------------------------------------------------------------------------------------

ZONES = 'ct zone set iifname map { "br0" : 1, "br1" : 2 }'


def test_fragments_of_two_bridges_stay_apart_if_the_zone_is_set_before_defragmentation(kernel: Bridged) -> None:
    whole = packet(4, SOURCE[4], DESTINATION[4], (Protocol.UDP, 9), 99)
    body = struct.pack("!HHHH", 5000, 9, 40, 0) + bytes(32)  # without a checksum (RFC 768)
    head, tail = fragment(whole, body[:24], 0, True), fragment(whole, body[24:], 24, False)
    sent = [(3, framed(3, 4, 4, head)), (1, framed(1, 2, 4, tail))]
    for bridge in ("br0", "br1"):
        switched(kernel, bridge)
    ruled(kernel, f"inet | prerouting priority -450 | {ZONES}")
    assert not any(kernel.exchange(sent).values())
    ruled(kernel, f"inet | prerouting priority -300 | {ZONES}")
    assert any(kernel.exchange(sent).values()), "joined with what came by the other bridge"


def test_flows_of_two_bridges_with_equal_ends_are_two_connections_if_their_zones_differ(kernel: Bridged) -> None:
    counts_new = "inet | forward priority 0 | ct state new accept | drop"
    for bridge in ("br0", "br1"):
        switched(kernel, bridge)
    ruled(kernel, counts_new, f"inet | prerouting priority -450 | {ZONES}")
    assert arrives(kernel, 1, 2) and arrives(kernel, 3, 4)
    kernel.inner.run("conntrack -F")
    ruled(kernel, "inet | forward priority 0 | ct mark 0 ct mark set 1 accept | drop")
    assert arrives(kernel, 1, 2) and not arrives(kernel, 3, 4), "in one zone the second is the first one's"


def test_a_connections_mark_survives_from_packet_to_packet_and_may_be_changed_by_any(kernel: Bridged) -> None:
    answer = framed(2, 1, 4, packet_back(udp(1, 2)[14:]))
    marks = "inet | forward priority 0 | ct mark 9 drop | ct mark 8 ct mark set 9 accept | ct mark set 8 accept"
    sent = [(1, udp(1, 2)), (2, answer), (1, udp(1, 2))]
    switched(kernel, "br0")
    ruled(kernel, marks)
    heard = kernel.exchange(sent)
    assert heard[2] == [udp(1, 2)] and heard[1] == [answer], "one sets it, an answer changes it, the next one meets it"
    ruled(kernel, marks, "inet | prerouting priority -450 | notrack")
    heard = kernel.exchange(sent)
    assert heard[2] == [udp(1, 2)] * 2 and heard[1] == [answer], "without connection there is no mark"


def test_the_original_direction_is_told_of_an_answer_too(kernel: Bridged) -> None:
    answer = framed(2, 1, 4, packet_back(udp(1, 2)[14:]))
    switched(kernel, "br0")
    ruled(kernel, "inet | forward priority 0 | ct original ip saddr 10.0.0.1 accept | drop")
    heard = kernel.exchange([(1, udp(1, 2)), (2, answer)])
    assert heard[2] == [udp(1, 2)] and heard[1] == [answer]
    kernel.inner.run("conntrack -F")
    assert kernel.exchange([(2, answer)])[1] == [], "as the first packet it is the original direction itself"


@pytest.mark.parametrize("is_liberal", [False, True], ids=["strict", "liberal"])
def test_tcp_outside_of_the_window_is_invalid_but_for_the_liberal(kernel: Bridged, is_liberal: bool) -> None:
    kernel.inner.run(f"sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal={is_liberal:d}")
    switched(kernel, "br0")
    ruled(kernel, "inet | forward priority 0 | ct state invalid drop")
    began = [
        (1, segment(1, 2, SYN, 100, 0)),
        (2, segment(2, 1, SYN | ACK, 500, 101)),
        (1, segment(1, 2, ACK, 101, 501)),
    ]
    far = segment(1, 2, ACK, 101 + (1 << 30), 501)
    heard = kernel.exchange([*began, (1, far)])
    assert len(heard[1]) == 1 and (far in heard[2]) is is_liberal


@pytest.mark.parametrize("is_loose", [False, True], ids=["strict", "loose"])
def test_tcp_that_runs_already_is_invalid_but_for_the_loose(kernel: Bridged, is_loose: bool) -> None:
    kernel.inner.run(f"sysctl -qw net.netfilter.nf_conntrack_tcp_loose={is_loose:d}")
    switched(kernel, "br0")
    ruled(kernel, "inet | forward priority 0 | ct state invalid drop")
    running = segment(1, 2, ACK, 700, 900)
    assert (running in kernel.exchange([(1, running)])[2]) is is_loose


def test_the_rules_generation_grows_by_one_with_each_transaction_and_not_by_a_look(kernel: Bridged) -> None:
    ruled(kernel, "inet | forward priority 0")

    def generation() -> int:
        said = kernel.inner.call(asked_generation)
        kernel.inner.run("nft list ruleset")
        return said

    before = generation()
    assert generation() == before
    kernel.inner.run("nft -f -", "add chain inet t0 one\nadd chain inet t0 two\n")
    assert generation() == before + 1


# -- bridges and tunnels -----------------------------------------------------------------------------------------------


def test_isolated_ports_reach_others_and_not_each_other(kernel: Bridged) -> None:
    assert arrives(kernel, 1, 2) and arrives(kernel, 1, 5)
    for state in ("on", "off"):
        for port in ("p1", "p2"):
            kernel.inner.run(f"bridge link set dev {port} isolated {state}")
        heard = kernel.exchange([(1, b"\xff" * 6 + udp(1, 2)[6:])])
        assert heard[5] and bool(heard[2]) is (state == "off")


def test_an_unknown_station_is_sent_nothing_by_a_port_that_does_not_flood(kernel: Bridged) -> None:
    stranger = bytes.fromhex("02aaaaaaaaaa") + udp(1, 2)[6:]
    assert kernel.exchange([(1, stranger)])[2] == [stranger]
    kernel.inner.run("bridge link set dev p2 flood off")
    try:
        heard = kernel.exchange([(1, stranger)])
        assert heard[2] == [] and heard[5] == [stranger]
    finally:
        kernel.inner.run("bridge link set dev p2 flood on")


def test_a_port_that_does_not_learn_is_not_found_behind_what_it_says(kernel: Bridged) -> None:
    for state, number in (("off", 0xBB), ("on", 0xCC)):
        kernel.inner.run(f"bridge link set dev p1 learning {state}")
        kernel.exchange([(1, udp(1, 2)[:6] + bytes.fromhex(f"02aaaaaaaa{number:02x}") + udp(1, 2)[12:])])
        found = f"02:aa:aa:aa:aa:{number:02x}" in kernel.inner.run("bridge fdb show dev p1")
        assert found is (state == "on")


def test_a_bridge_answers_for_whom_it_knows_behind_a_port_that_suppresses(kernel: Bridged) -> None:
    asks = framed(1, 1, 4, b"")[6:12]
    question = b"\xff" * 6 + asks + bytes.fromhex("08060001080006040001") + asks + bytes([10, 0, 0, 1])
    question += bytes(6) + bytes([10, 0, 0, 9])
    kernel.inner.run(f"bridge fdb replace {mac(9)} dev p2 master static")
    kernel.inner.run(f"ip neigh replace 10.0.0.9 lladdr {mac(9)} dev br0 nud permanent")
    known = bytes.fromhex(mac(9).replace(":", ""))
    for state in ("on", "off"):
        kernel.inner.run(f"bridge link set dev p2 neigh_suppress {state}")
        heard = kernel.exchange([(1, question)])
        answers = [frame for frame in heard[1] if frame[20:22] == b"\0\2" and frame[22:28] == known]
        assert bool(answers) is (state == "on") and bool(heard[2]) is (state == "off")


@pytest.mark.parametrize("learning", ["nolearning", "learning"])
def test_a_vxlan_device_knows_only_whom_it_was_told_of_if_it_does_not_learn(learning: str) -> None:
    hosts = Namespace(), Namespace()
    try:
        hosts[0].run(f"ip link add u type veth peer name u netns {hosts[1].pid}")
        for number, host in enumerate(hosts, 1):
            host.run(f"ip address add 192.0.2.{number}/24 dev u")
            host.run("ip link set u up")
            ends = f"id 7 local 192.0.2.{number} remote 192.0.2.{3 - number} dstport 4789"
            host.run(f"ip link add vx type vxlan {ends} {learning}")
            host.run("ip link set vx addrgenmode none")
            host.run("ip link set vx up")
        heard, says = (host.call(packet_socket, "vx") for host in hosts)
        frame = b"\xff" * 6 + udp(3, 4)[6:]
        with heard, says:
            end = time.monotonic() + 5
            found: list[bytes] = []
            while frame not in found:
                assert time.monotonic() < end, "nothing comes through"
                says.send(frame)
                time.sleep(0.01)
                found = drained(heard)
        assert (mac(3) in hosts[0].run("bridge fdb show dev vx")) is (learning == "learning")
    finally:
        for host in hosts:
            host.close()


# -- taps --------------------------------------------------------------------------------------------------------------

_TUNSETIFF, _TUNGETIFF = 0x400454CA, 0x800454D2
_TAP, _NO_PI, _VNET_HDR = 0x0002, 0x1000, 0x4000
_VIRTIO = bytes(10)
"""A virtio_net_hdr that says nothing (linux/virtio_net.h)."""


def test_an_open_tap_goes_to_another_namespace_with_its_flags_and_works_there() -> None:
    home, away = Namespace(), Namespace()
    try:
        tap = home.call(opened_tap)
        home.run(f"ip link set tap0 netns {away.pid}")
        away.run("ip link set tap0 addrgenmode none up")
        flags = struct.unpack_from("16sH", fcntl.ioctl(tap, _TUNGETIFF, bytes(40)))[1]
        assert flags & _VNET_HDR
        with away.call(packet_socket, "tap0") as inside:
            os.write(tap, _VIRTIO + udp(1, 2))
            assert udp(1, 2) in drained(inside, 1)
            inside.send(udp(2, 1))
            assert until(lambda: read(tap) == _VIRTIO + udp(2, 1))
        os.close(tap)
        assert until(lambda: "tap0" not in away.run("ip link")), "nothing but the open file kept it"
    finally:
        home.close()
        away.close()


def opened_tap() -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _TAP | _NO_PI | _VNET_HDR))
    return tap


def read(tap: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(tap, 2048)
    return b""


# -- what all of them use ----------------------------------------------------------------------------------------------


def until(holds: Callable[[], object]) -> object:
    """The first answer that is true, within 5 s; else the last."""
    end = time.monotonic() + 5
    while not (answer := holds()) and time.monotonic() < end:
        time.sleep(0.005)
    return answer


def packet_socket(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING (linux/if_packet.h)
    made.bind((device, 3))
    made.setblocking(False)
    return made


def drained(one: socket.socket, least: int = 0) -> list[bytes]:
    """All that a socket has heard; waits until that is `least` frames."""
    found: list[bytes] = []
    end = time.monotonic() + 5
    while True:
        with suppress(BlockingIOError):
            while True:
                found.append(one.recv(65536))
        if len(found) >= least or time.monotonic() > end:
            return found
        time.sleep(0.005)


def packet_back(content: bytes) -> bytes:
    """The answer to a UDP packet over IPv4, without a checksum (RFC 768)."""
    ports = content[22:24] + content[20:22]
    return content[:12] + content[16:20] + content[12:16] + ports + content[24:26] + b"\0\0" + content[28:]


SYN, ACK = 0x02, 0x10


def segment(source: int, destination: int, flags: int, sequence: int, acknowledged: int) -> bytes:
    """A TCP segment between two guests of one bridge, of a connection that guest 1 begins."""
    addresses = SOURCE[4], DESTINATION[4]
    ports = 5000, 9
    if source == 2:
        addresses, ports = addresses[::-1], ports[::-1]
    whole = packet(4, *addresses, (Protocol.TCP, 9), 1)
    tcp = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledged, 0x50, flags, 65535, 0, 0)
    pseudo = whole[12:20] + struct.pack("!II", len(tcp), 6)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(tcp)) // 2}H", pseudo + tcp))
    total = (total & 0xFFFF) + (total >> 16)
    tcp = tcp[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + tcp[18:]
    return framed(source, destination, 4, fragment(whole, tcp, 0, False))


def asked_generation() -> int:
    """NFT_MSG_GETGEN (linux/netfilter/nf_tables.h), in the namespace of the calling thread."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as asking:
        asking.send(struct.pack("=IHHIIBBH", 20, 10 << 8 | 16, 1, 1, 0, 0, 0, 0))
        answer = asking.recv(4096)
    return int(struct.unpack_from(">I", answer, 24)[0])  # NFTA_GEN_ID comes first
