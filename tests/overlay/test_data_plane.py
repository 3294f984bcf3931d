"""Two hosts on one wire, guests on both: what passes, what does not, and what the wire carries."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from overlay_lab import NET, Capture, Lab, a_port, a_remote, frame, mac, port_id

from overlay.kernel.apply import DataPlane
from overlay.kernel.converge import Outcome, PortState
from overlay.state import LEG_MAC, HostState, Leg, Network
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("permitted")]

BROADCAST = "ff:ff:ff:ff:ff:ff"
UNKNOWN = "52:54:00:99:99:99"


@dataclass
class Grid:
    """Guests 10, 11 on host 1 and 20 on host 2; a service leg on each host."""

    lab: Lab
    planes: dict[int, DataPlane]
    states: dict[int, HostState]
    mtu: int

    def converge(self) -> dict[int, Outcome]:
        return {number: plane.converge(self.states[number]) for number, plane in self.planes.items()}


@pytest.fixture(scope="module", params=["192.0.2.", "2001:db8::"], ids=["underlay4", "underlay6"])
def grid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, permitted: None) -> Iterator[Grid]:
    lab = Lab(tmp_path_factory.mktemp("netns"), request.param)
    try:
        planes = {number: lab.host(number) for number in (1, 2)}
        # As Docker, ufw and firewalld do on real hosts; the rules are the host's own.
        for number in planes:
            lab.run(f"h{number}", "nft add table inet foreign")
            lab.run(
                f"h{number}", "nft add chain inet foreign forward { type filter hook forward priority 0; policy drop; }"
            )
        placed = {1: (10, 11), 2: (20,)}
        mtu = 1430 if ":" in request.param else 1450
        states = {}
        for number, ours in placed.items():
            other = 3 - number
            network = Network(
                NET,
                vni=4711,
                mtu=mtu,
                ports={port_id(n): a_port(n) for n in ours},
                remotes={mac(n): a_remote(n, lab.vtep(other)) for n in placed[other]},
                vteps=frozenset({lab.vtep(other)}),
                leg=Leg(f"service{number}", ("10.0.0.1/24", "fd00::1/64")),
            )
            states[number] = HostState(lab.vtep(number), {NET: network})
            for n in ours:
                lab.guest(number, n)
        found = Grid(lab, planes, states, mtu)
        assert all(outcome.is_clean for outcome in found.converge().values())
        assert eventually(lambda: lab.pings("g10", "10.0.0.20"))
        yield found
    finally:
        lab.close()


@pytest.fixture
def wire(grid: Grid) -> Iterator[Capture]:
    """What passes between the hosts."""
    capture = grid.lab.capture("wire", "w1")
    yield capture
    capture.close()


@pytest.mark.parametrize("target", ["10.0.0.20", "fd00::14", "10.0.0.11", "fd00::b"])
def test_guests_reach_each_other(grid: Grid, target: str) -> None:
    assert grid.lab.pings("g10", target)


@pytest.mark.parametrize(("target", "type_"), [("10.0.0.20", 0x0806), ("fd00::14", 0x86DD), ("10.0.0.1", 0x0806)])
def test_resolving_a_known_address_stays_off_the_wire(grid: Grid, wire: Capture, target: str, type_: int) -> None:
    grid.lab.run("g10", "ip neigh flush dev eth0")
    assert grid.lab.pings("g10", target)
    asked = bytes.fromhex(mac(10).replace(":", "")) + type_.to_bytes(2, "big")
    questions = [
        found for found in wire.holding(asked) if type_ == 0x0806 or (b"\x3a\xff" in found and b"\x87\0" in found)
    ]
    assert questions == []


def test_resolving_an_unknown_address_asks_everybody(grid: Grid, wire: Capture) -> None:
    grid.lab.run("g10", "ping -c1 -W0.2 10.0.0.99", check=False)
    assert eventually(lambda: wire.holding(socket.inet_aton("10.0.0.99")))


def test_a_frame_to_an_unknown_mac_goes_nowhere(grid: Grid, wire: Capture) -> None:
    neighbour = grid.lab.capture("g11", "eth0")
    grid.lab.send("g10", "eth0", frame(UNKNOWN, mac(10), b"unknown"))
    grid.lab.send("g10", "eth0", frame(BROADCAST, mac(10), b"fence"))
    assert eventually(lambda: neighbour.holding(b"fence") and wire.holding(b"fence"))
    assert neighbour.holding(b"unknown") == wire.holding(b"unknown") == []
    neighbour.close()


def test_a_broadcast_reaches_each_port_once(grid: Grid) -> None:
    near, far = grid.lab.capture("g11", "eth0"), grid.lab.capture("g20", "eth0")
    grid.lab.send("g10", "eth0", frame(BROADCAST, mac(10), b"hello all"))
    grid.lab.send("g10", "eth0", frame(BROADCAST, mac(10), b"fence"))
    assert eventually(lambda: near.holding(b"fence") and far.holding(b"fence"))
    assert (len(near.holding(b"hello all")), len(far.holding(b"hello all"))) == (1, 1)
    near.close()
    far.close()


@pytest.mark.parametrize(("target", "header"), [("10.0.0.20", 28), ("fd00::14", 48)])
def test_the_largest_packet_fits_and_a_larger_one_is_answered(grid: Grid, target: str, header: int) -> None:
    largest = grid.mtu - header
    assert grid.lab.pings("g10", target, f"-M do -s {largest}")
    refused = grid.lab.run("g10", f"ping -c1 -W1 -M do -s {largest + 1} {target}", check=False)
    assert f"mtu = {grid.mtu}" in refused.stdout or f"mtu={grid.mtu}" in refused.stdout
    assert f"mtu {grid.mtu}" in grid.lab.run("g10", f"ip route get {target}").stdout


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1", "fe80::1%eth0"])
def test_the_service_leg_answers_on_every_host_with_one_mac(grid: Grid, address: str) -> None:
    for guest in ("g10", "g20"):
        assert grid.lab.pings(guest, address)
        seen = grid.lab.run(guest, f"ip neigh show {address.partition('%')[0]} dev eth0").stdout
        assert LEG_MAC in seen


def test_a_service_leg_never_reaches_another_host(grid: Grid, wire: Capture) -> None:
    guest = grid.lab.capture("g20", "eth0")
    leg = "sv" + NET
    grid.lab.send("service1", leg, frame(BROADCAST, LEG_MAC, b"from the leg"))
    grid.lab.send("service1", leg, frame(mac(20), LEG_MAC, b"from the leg"))
    local = grid.lab.capture("service2", leg)
    grid.lab.send("g10", "eth0", frame(BROADCAST, mac(10), b"fence"))
    assert eventually(lambda: guest.holding(b"fence"))
    assert wire.holding(b"from the leg") == guest.holding(b"from the leg") == []
    assert local.holding(b"fence") == []
    guest.close()
    local.close()


def test_the_data_plane_sends_nothing_of_its_own(grid: Grid) -> None:
    captured = [grid.lab.capture(guest, "eth0") for guest in ("g11", "g20")]
    for plane, number in ((grid.planes[1], 1), (grid.planes[2], 2)):
        plane.converge(HostState(grid.lab.vtep(number), grid.states[number].networks))
    grid.lab.send("g10", "eth0", frame(BROADCAST, mac(10), b"fence"))
    assert all(eventually(lambda c=c: c.holding(b"fence")) for c in captured)
    guests = {bytes.fromhex(mac(n).replace(":", "")) for n in (10, 11, 20)} | {bytes.fromhex(LEG_MAC.replace(":", ""))}
    assert [found for c in captured for found in c.read() if found[6:12] not in guests] == []
    for c in captured:
        c.close()


def test_a_second_converge_changes_nothing(grid: Grid) -> None:
    assert [outcome.applied for outcome in grid.converge().values()] == [0, 0]


@pytest.mark.parametrize(
    ("damage", "subject"),
    [
        (f"bridge fdb del {mac(20)} dev vx{NET} master", "fdb"),
        (f"bridge fdb del {mac(20)} dev vx{NET} self", "fdb"),
        (f"ip neigh del 10.0.0.20 dev br{NET}", "neighbour"),
        (f"ip link set pg{port_id(10)} nomaster", "port"),
        (f"bridge link set dev pg{port_id(10)} flood on", "port"),
        (f"ip link del vx{NET}", "vxlan"),
        (f"ip link del br{NET}", "bridge"),
        (f"ip link set vx{NET} down", "link"),
        (f"ip link del lg{NET}", "leg"),
        ("sysctl -w net.bridge.bridge-nf-call-iptables=1", "namespace"),
        ("tc qdisc add dev br0000000000aa clsact", ""),
    ],
)
def test_drift_is_noticed_repaired_and_counted(grid: Grid, damage: str, subject: str) -> None:
    plane = grid.planes[1]
    plane.forget_events()
    grid.lab.run("dp1", damage)
    assert damage.startswith("sysctl") or plane.wait_event(2)
    outcome = plane.converge(grid.states[1])
    assert outcome.is_clean
    assert (subject in outcome.repaired) if subject else outcome.repaired == {}
    assert eventually(lambda: grid.lab.pings("g10", "10.0.0.20", "-W0.2"))
    assert eventually(lambda: grid.lab.pings("g10", "fd00::1", "-W0.2"))


def test_a_name_that_was_taken_away_is_given_back_with_all_that_is_in_it(grid: Grid) -> None:
    grid.lab.run("wire", f"umount {grid.planes[1].path}")
    grid.planes[1].path.unlink()
    outcome = grid.planes[1].converge(grid.states[1])
    assert outcome.repaired == {"namespace": 1}
    assert outcome.ports[port_id(10)].state is PortState.FORWARDING
    assert grid.lab.pings("g10", "10.0.0.20")
