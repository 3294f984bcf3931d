"""A guest moves from host 1 to host 2 while host 3 does not know yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from overlay_lab import NET, Lab, a_port, a_remote, frame, mac

from overlay.kernel.apply import DataPlane
from overlay.state import Gate, HostState, Network
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("permitted")]

MOVER, PEER = 10, 30
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Move:
    """Guest 10's two ends are two guests (one on host 1, one on host 2) with its MAC; guest 30 talks from host 3."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.planes = {number: lab.host(number) for number in (1, 2, 3)}
        for host, guest in ((1, 11), (2, 12), (3, PEER)):
            lab.guest(host, guest)
        self.port = {1: a_port(11, mac=mac(MOVER)), 2: a_port(12, mac=mac(MOVER)), 3: a_port(PEER)}

    def converge(self, host: int, *, gate: Gate, mover_at: int | None, chase: int | None = None) -> None:
        lab, remotes = self.lab, {}
        if host != 3:
            remotes[mac(PEER)] = a_remote(PEER, lab.vtep(3))
        if mover_at is not None:
            remotes[mac(MOVER)] = a_remote(MOVER, lab.vtep(mover_at))
        network = Network(
            NET,
            vni=9,
            mtu=1450,
            ports={self.port[host].id: replace(self.port[host], gate=gate)},
            remotes=remotes,
            vteps=frozenset(lab.vtep(other) for other in self.planes if other != host),
            chase={mac(MOVER): lab.vtep(chase)} if chase else {},
        )
        outcome = self.planes[host].converge(HostState(lab.vtep(host), {NET: network}))
        assert outcome.is_clean, outcome


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    lab = Lab(tmp_path / "netns")
    try:
        yield Move(lab)
    finally:
        lab.close()


def test_frames_follow_a_guest_that_moved_before_its_peers_know(move: Move) -> None:
    source, target = move.lab.capture("g11", "eth0"), move.lab.capture("g12", "eth0")
    move.converge(3, gate=Gate.OPEN, mover_at=1)
    move.converge(1, gate=Gate.OPEN, mover_at=None)
    move.converge(2, gate=Gate.CLOSED, mover_at=1, chase=1)

    def say(word: bytes) -> None:
        move.lab.send(f"g{PEER}", "eth0", frame(mac(MOVER), mac(PEER), word))

    # The first frame may be lost while the hosts still look for each other on their wire.
    assert eventually(lambda: say(b"before") or source.holding(b"before"))
    # Already sent to the target, which is not open yet: it chases back to the source.
    move.converge(3, gate=Gate.OPEN, mover_at=2)
    assert eventually(lambda: say(b"early") or source.holding(b"early"))
    move.converge(3, gate=Gate.OPEN, mover_at=1)
    move.converge(2, gate=Gate.OPEN, mover_at=None, chase=1)
    move.converge(1, gate=Gate.CLOSED, mover_at=2, chase=2)
    assert eventually(lambda: say(b"after") or target.holding(b"after"))
    assert target.holding(b"before") == target.holding(b"early") == source.holding(b"after") == []
    move.converge(1, gate=Gate.CLOSED, mover_at=2)
    say(b"settled")
    move.converge(3, gate=Gate.OPEN, mover_at=2)
    say(b"fence")
    assert eventually(lambda: target.holding(b"fence"))
    assert target.holding(b"settled") == [], "who is not chased is not forwarded"
    for capture in (source, target):
        capture.close()


def test_one_arp_broadcast_during_a_move_is_one_copy_at_each_port(move: Move) -> None:
    captures = {guest: move.lab.capture(guest, "eth0") for guest in ("g11", "g12")}
    move.converge(3, gate=Gate.OPEN, mover_at=1)
    move.converge(1, gate=Gate.OPEN, mover_at=None, chase=2)
    move.converge(2, gate=Gate.CLOSED, mover_at=1, chase=1)
    hello = frame(BROADCAST, mac(PEER), b"hello")
    assert eventually(lambda: move.lab.send(f"g{PEER}", "eth0", hello) or captures["g11"].holding(b"hello"))
    wire = move.lab.capture("wire", "w1")
    for word in (b"who has", b"fence"):
        move.lab.send(f"g{PEER}", "eth0", frame(BROADCAST, mac(PEER), word, ethertype=0x0806))
    assert eventually(lambda: captures["g11"].holding(b"fence"))
    assert len(captures["g11"].holding(b"who has")) == 1
    assert captures["g12"].holding(b"who has") == [], "its gate is closed"
    assert len(wire.holding(b"who has")) == 1
    move.converge(2, gate=Gate.OPEN, mover_at=None)
    assert eventually(lambda: move.lab.send(f"g{PEER}", "eth0", hello) or captures["g12"].holding(b"hello"))
    move.lab.send(f"g{PEER}", "eth0", frame(BROADCAST, mac(PEER), b"once more"))
    assert eventually(lambda: all(capture.holding(b"once more") for capture in captures.values()))
    assert [len(capture.holding(b"once more")) for capture in captures.values()] == [1, 1]
    for capture in (*captures.values(), wire):
        capture.close()


def test_only_one_chase_a_mac_and_none_when_not_desired(move: Move) -> None:
    plane: DataPlane = move.planes[2]

    def filters() -> int:
        return move.lab.run("dp2", f"tc filter show dev vx{NET} ingress").stdout.count("Egress Redirect")

    for _ in range(2):
        move.converge(2, gate=Gate.CLOSED, mover_at=1, chase=1)
    move.lab.run(
        "dp2", f"tc filter add dev vx{NET} ingress prio 1 u32 match u32 0 0 action mirred egress redirect dev vx{NET}"
    )
    assert filters() == 2
    move.converge(2, gate=Gate.CLOSED, mover_at=1)
    assert filters() == 1, "the one that somebody else put there"
    assert plane.observe().tables[NET].chases == frozenset()
