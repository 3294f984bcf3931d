"""What a move of a namespace workspace costs its traffic, and that no frame of ours reaches a tenant."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespace_lab import SCRIPTS, Host, a_guest, capture, run

from overlay.kernel import namespaces
from playground.workspaces.drivers import nic
from playground.workspaces.drivers.netns import NetnsDriver
from tests.waiting import eventually

pytestmark = pytest.mark.system
GUEST = a_guest()
DEVICE = GUEST.nics[0].device
STREAM = (sys.executable, "-I", "-S", str(SCRIPTS / "stream.py"))


class Grid:
    """Two hosts, a third with a peer at 10.0.0.1, and a guest at 10.0.0.2 that runs on the first."""

    def __init__(self, a: Host, b: Host, peer: Host, folder: Path) -> None:
        self.hosts, self.peer = {"a": a, "b": b}, peer
        self.drivers = {host.name: NetnsDriver(host.name, host.dataplane, folder=folder) for host in (a, b)}
        for host in (a, b):
            peer.join(host)
        for address in ("10.0.0.1/24", "fd00::1/64"):
            peer.run("ip", "address", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))
        run(self.drivers["a"].prepare(GUEST))
        a.plug(DEVICE)
        run(self.drivers["a"].start(GUEST))
        self.inside("ip", "address", "add", "10.0.0.2/24", "dev", "eth0")
        self.inside("ip", "address", "add", "fd00::2/64", "dev", "eth0", "nodad")

    def inside(self, *argv: str) -> str:
        code, text = capture(self.drivers["a"], GUEST.id, argv)
        assert code == 0, text
        return text

    def arrive(self, name: str) -> None:
        run(self.drivers[name].prepare_arrival(GUEST))
        self.hosts[name].plug(DEVICE)

    def flip(self, name: str) -> None:
        pause_ms = run(self.drivers[name].activate(GUEST))
        assert pause_ms < 100


def take_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has drivers of this process redirect by programs or by mirred. Skips where the kernel runs no such program."""
    if way == "programs" and not nic.hands_over():
        pytest.skip("this kernel, or this user, has no redirects by BPF")
    monkeypatch.setattr(nic, "hands_over", lambda: way == "programs")


@pytest.fixture(params=["programs", "mirred"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    take_way(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def grid(way: str, hosts: tuple[Host, Host], folder: Path) -> Iterator[Grid]:
    peer = Host("peer")
    made = Grid(*hosts, peer, folder)
    yield made
    for driver in made.drivers.values():
        run(driver.stop(GUEST.id, 0))
    peer.close()


def listen(host: Host, *arguments: str) -> subprocess.Popen[str]:
    receiver = host.spawn(*STREAM, *arguments)
    assert receiver.stderr is not None and receiver.stderr.readline().startswith("listening")
    return receiver


def test_a_stream_to_and_from_a_moving_guest_loses_next_to_nothing(grid: Grid) -> None:
    from_guest = listen(grid.peer, "receive", "--port", "5001")
    results: dict[str, dict[str, float]] = {}
    lines: list[str] = []

    def receive_inside() -> None:
        lines.append(grid.inside(*STREAM, "receive", "--port", "5002"))

    def send_inside() -> None:
        grid.inside(*STREAM, "send", "--to", "10.0.0.1", "--port", "5001", "--seconds", "1.1")

    threads = [threading.Thread(target=work) for work in (receive_inside, send_inside)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: ":5002" in grid.inside("ss", "-Hlnu"))
    to_guest = grid.peer.spawn(*STREAM, "send", "--to", "fd00::2", "--port", "5002", "--seconds", "0.9")
    for name in ("b", "a", "b"):  # there, back at once, and there again, under traffic
        time.sleep(0.15)  # not to wait for anything: the traffic is to go on between the flips
        grid.arrive(name)
        grid.flip(name)
    for thread in threads:
        thread.join()
    results["to"] = json.loads(lines[0].splitlines()[-1])
    results["from"] = json.loads(from_guest.communicate()[0])
    assert json.loads(to_guest.communicate()[0])["refused"] == 0
    for direction, result in results.items():
        assert result["lost"] <= 3, (direction, result)  # one a flip at most
        assert result["duplicated"] == 0, (direction, result)
        assert result["received"] > 700, (direction, result)


def test_a_tcp_transfer_goes_through_a_flip_intact(grid: Grid) -> None:
    receiver = listen(grid.peer, "tcp-receive", "--port", "5003")
    sender = threading.Thread(
        target=lambda: grid.inside(*STREAM, "tcp-send", "--to", "10.0.0.1", "--port", "5003", "--seconds", "0.6")
    )
    sender.start()
    grid.arrive("b")
    grid.flip("b")
    sender.join()
    result = json.loads(receiver.communicate()[0])
    assert result["intact"] and result["bytes"] > 1 << 20
    assert result["stall_ms"] < 250, result


COUNT_BROADCASTS = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 5004)); s.settimeout(5)
print("ready", flush=True)
seen = []
while (word := s.recv(100)) != b"end": seen.append(word.decode())
print(" ".join(seen))
"""


def test_a_broadcast_arrives_once_before_between_and_after_flips(grid: Grid) -> None:
    texts: list[str] = []
    counter = threading.Thread(target=lambda: texts.append(grid.inside(sys.executable, "-c", COUNT_BROADCASTS)))
    counter.start()
    assert eventually(lambda: ":5004" in grid.inside("ss", "-Hlnu"))

    def shout(word: str) -> None:
        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                channel.sendto(word.encode(), ("10.0.0.255", 5004))

        grid.peer.within(send)

    shout("first")
    grid.arrive("b")
    shout("two-legs")
    grid.flip("b")
    shout("flipped")
    grid.flip("a")
    shout("back")
    run(grid.drivers["b"].depart(GUEST.id))
    shout("aborted")
    shout("end")
    counter.join()
    assert texts[0].split()[1:] == ["first", "two-legs", "flipped", "back", "aborted"]


def test_nothing_of_ours_is_said_in_the_tenants_network(hosts: tuple[Host, Host], folder: Path) -> None:
    a, b = hosts
    drivers = [NetnsDriver(host.name, host.dataplane, folder=folder) for host in hosts]
    listen_code = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.settimeout(0.3)
print("ready", flush=True)
macs = set()
try:
    while True: macs.add(s.recv(2000)[6:12].hex(":"))
except TimeoutError: print(*macs)
"""
    run(drivers[0].prepare(GUEST))
    sniffer = a.spawn(sys.executable, "-I", "-S", "-c", listen_code)
    assert sniffer.stdout is not None and sniffer.stdout.readline() == "ready\n"
    run(drivers[1].prepare_arrival(GUEST))
    run(drivers[0].start(GUEST))
    heard = set(sniffer.communicate()[0].split())
    assert heard == {GUEST.nics[0].mac}
    assert "inet6" not in b.run("ip", "address", "show", "dev", DEVICE)
    run(drivers[0].stop(GUEST.id, 1))


def test_a_leg_never_limits_a_packet(grid: Grid) -> None:
    grid.inside("ip", "link", "set", "eth0", "mtu", "9000")
    grid.hosts["a"].run("ip", "link", "set", "br0", "mtu", "9000")
    for host, device in ((grid.hosts["a"], "to-peer"), (grid.peer, "to-a"), (grid.peer, "br0")):
        host.run("ip", "link", "set", device, "mtu", "9000")
    code, text = capture(
        grid.drivers["a"], GUEST.id, ["ping", "-M", "do", "-s", "8972", "-c", "1", "-W", "2", "10.0.0.1"]
    )
    assert code == 0, text


LIST_TYPES = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5)); s.settimeout(5)
print("ready", flush=True)
while True:
    frame, (*_, kind, _, _) = s.recvfrom(100)
    if frame[14:17] == b"end": break
    print(frame[14:17].decode(), kind)
"""


def test_a_guest_sees_of_each_frame_whom_it_is_for(grid: Grid) -> None:
    """Types of linux/if_packet.h: a guest that took what is for another's MAC as its own would answer or forward it."""
    texts: list[str] = []
    listener = threading.Thread(target=lambda: texts.append(grid.inside(sys.executable, "-c", LIST_TYPES)))
    listener.start()
    assert eventually(lambda: "88b5" in grid.inside("cat", "/proc/net/packet"))
    own = bytes.fromhex(GUEST.nics[0].mac.replace(":", ""))
    group = {b"all": b"\xff" * 6, b"few": bytes.fromhex("01005e000009")}

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            channel.bind((DEVICE, 0))
            for word, to in (group | {b"you": own, b"her": own[:5] + b"\xee", b"end": own}).items():
                channel.send(to + bytes.fromhex("020000000099") + b"\x88\xb5" + word.ljust(46))

    grid.hosts["a"].within(send)
    listener.join()
    assert texts[0].split("\n")[1:-1] == ["all 1", "few 2", "you 0", "her 3"]


def test_what_is_for_one_machine_waits_in_no_queue_on_its_way_to_the_host(
    hosts: tuple[Host, Host], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in by the host's end at once, so the other end, the leg, has sent nothing."""
    take_way("programs", monkeypatch)
    driver = NetnsDriver("a", hosts[0].dataplane, folder=folder)
    run(driver.prepare(GUEST))
    run(driver.start(GUEST))
    pid = json.loads((folder / GUEST.id / "guest.json").read_text())["pid"]

    def say(count: int) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            channel.bind(("eth0", 0))
            for _ in range(count):
                channel.send(bytes.fromhex("020000000099") + bytes.fromhex(GUEST.nics[0].mac.replace(":", "")) + FRAME)

    try:
        with (
            namespaces.opened(f"/proc/{pid}/fd/100") as inner,
            namespaces.opened(f"/proc/{pid}/ns/net") as guest,
            hosts[0].within(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as port,
        ):
            port.bind((DEVICE, 0x88B5))
            port.settimeout(5)
            left = namespaces.inside(inner, lambda: sent(nic.leg_name(0, "a")))
            namespaces.inside(guest, lambda: say(100))
            assert {port.recv(100)[12:] for _ in range(100)} == {FRAME}
            assert namespaces.inside(inner, lambda: sent(nic.leg_name(0, "a"))) - left < 100  # groups go by the leg
    finally:
        run(driver.stop(GUEST.id, 0))


FRAME = b"\x88\xb5" + bytes(46)


def sent(device: str) -> int:
    """Frames that a device of this namespace has sent."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[10]) for line in lines if line.split()[0] == f"{device}:")


def test_whoever_redirects_by_the_other_way_takes_over(
    hosts: tuple[Host, Host], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an agent does that was started anew with other rights: only one way is left on each device."""
    drivers = {host.name: NetnsDriver(host.name, host.dataplane, folder=folder) for host in hosts}
    kept = {"programs": "bpf", "mirred": "u32"}
    with monkeypatch.context() as patch:
        take_way("programs", patch)
    run(drivers["a"].prepare(GUEST))
    pid = json.loads((folder / GUEST.id / "guest.json").read_text())["pid"]
    try:
        for name, way in (("a", "mirred"), ("b", "programs"), ("a", "mirred"), ("a", "programs")):
            with monkeypatch.context() as patch:
                take_way(way, patch)
                run(drivers[name].prepare_arrival(GUEST))
                run(drivers[name].activate(GUEST))
            legs = ("nicp0", nic.leg_name(0, name))
            with namespaces.opened(f"/proc/{pid}/fd/100") as inner:
                shown = [namespaces.inside(inner, lambda leg=leg: filters(leg)) for leg in legs]
            assert shown == [[kept[way]], [kept[way]]]
    finally:
        for driver in drivers.values():
            run(driver.stop(GUEST.id, 0))


def filters(device: str) -> list[str]:
    """Kinds of what decides on a device's ingress."""
    argv = ("tc", "-j", "filter", "show", "dev", device, "ingress")
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return sorted({one["kind"] for one in json.loads(said)})
