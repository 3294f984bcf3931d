"""Moves on a whole site: what a stream sees of them, and that each one ends whole whatever dies in the middle."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from site_lab import CLIENT_PYTHON, Site

from playground import sandbox
from playground.client import Refused
from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid:
    subnets: [10.20.0.0/24, "fd00:20::/64"]
    dhcp: {options: {renewal-time: 2s, rebinding-time: 1800s}}
workspaces:
  rover: {networks: [grid], host: n1}
  anchor: {networks: [grid], host: n1}
  peer: {networks: [grid], host: n2}
  third: {networks: [grid], host: n3}
"""
HOSTS = ("n1", "n2", "n3")
PAIRS = 12


@pytest.fixture
def lab(site: Site) -> Site:
    """The playground, whole, with the rover where it began, whatever the test before did."""
    site.await_hosts()
    site.up(LAB)
    if site.host_of("lab", "rover") != "n1":
        assert site.move("rover", "n1")["state"] == "settled"
    return site


def carriers(site: Site) -> dict[str, str]:
    """host → what its tables say of the rover's MAC: a bridge port here, or the VTEP that it is sent to."""
    mac = site.ports("lab")["rover.grid"]["mac"]
    found = {}
    for host in HOSTS:
        entries = json.loads(site.on(host, "bridge", "-json", "fdb", "show", dataplane=True) or "[]")
        mine = [e for e in entries if e["mac"] == mac]
        port = [e["ifname"] for e in mine if "master" in e and e["ifname"].startswith("pg")]
        vtep = [e["dst"] for e in mine if "dst" in e]
        assert len(port) + len(vtep) == 1, f"{host}: {mine}"
        found[host] = (port or vtep)[0]
    return found


def assert_carried_by(site: Site, host: str) -> None:
    """Records, the driver's entry and the forwarding tables of all hosts name one carrier, and everybody reaches it."""
    device, underlay = site.device("lab", "rover", "grid"), site.hosts()[host]["underlay"]
    wanted = {other: device if other == host else underlay for other in HOSTS}
    assert site.host_of("lab", "rover") == host
    assert site.guest("lab", "rover")["host"] == host
    eventually(lambda: carriers(site) == wanted, 5.0, f"tables of all hosts lead to {host}: {wanted}")
    site.assert_reachable("lab", PAIRS)
    ends = {other: device in site.on(other, "ip", "-br", "link", dataplane=True) for other in HOSTS}
    eventually(
        lambda: [h for h in HOSTS if device in site.on(h, "ip", "-br", "link", dataplane=True)] == [host],
        5.0,
        f"one end of the rover, on {host}: {ends}",
    )


def begin_soon(site: Site, workspace: str, host: str) -> dict:
    """Asks for a move until the one before it is far enough."""

    def ask():
        try:
            return site.begin(workspace, host)
        except Refused:
            return None

    return eventually(ask, 10.0, f"{workspace} may move to {host}")


def test_a_move_loses_nothing_that_can_be_kept_and_doubles_nothing(lab: Site) -> None:
    pid, before = lab.pid("lab", "rover"), lab.ports("lab")["rover.grid"]
    moved = lab.move("rover", "n2", measure=True)
    assert moved["state"] == "settled"
    assert moved["lost"] <= 1 and moved["duplicated"] == 0
    assert moved["gap_ms"] is not None
    assert_carried_by(lab, "n2")
    after = lab.ports("lab")["rover.grid"]
    assert (lab.pid("lab", "rover"), after["addresses"], after["mac"]) == (pid, before["addresses"], before["mac"])


def test_a_stream_between_moving_ends_loses_at_most_one_a_move(lab: Site) -> None:
    with lab.stream("lab", "third", "rover", "grid") as result:
        for host in ("n2", "n3", "n1") * 2:  # also onto the sender's own host
            assert lab.move("rover", host)["state"] == "settled"
    assert result["sent"] > 200
    assert result["lost"] <= 6 and result["duplicated"] == 0, result
    assert_carried_by(lab, "n1")


def test_where_a_workspace_goes_its_lease_is_renewed_as_it_was(lab: Site, tmp_path: Path) -> None:
    """By two clients at one NIC: udhcpc, which is asked to, and dhclient, whose time has come."""
    if shutil.which("dhclient") is None:
        pytest.skip("dhclient is not installed")
    address, said = lab.address("lab", "rover.grid"), tmp_path / "said"
    config, leases, pid = (str(tmp_path / name) for name in ("conf", "leases", "pid"))
    Path(config).write_text("request subnet-mask, dhcp-lease-time, dhcp-renewal-time, dhcp-rebinding-time;\n")
    argv = ["dhclient", "-4", "-d", "-sf", "/bin/true", "-cf", config, "-lf", leases, "-pf", pid, "eth0"]
    with said.open("wb") as out, subprocess.Popen(lab.enter("lab", "rover", *argv), stdout=out, stderr=out) as client:
        try:
            eventually(lambda: "bound to" in said.read_text(), 10.0, "dhclient is not bound")
            moved = lab.move("rover", "n2")
            assert moved["state"] == "settled"
            acks = said.read_text().count("DHCPACK")
            lab.within("lab", "rover", "pkill", "-USR1", "-f", "udhcpc")
            eventually(lambda: said.read_text().count("DHCPACK") > acks, 10.0, "dhclient did not renew")
        finally:
            client.terminate()
    words = said.read_text()
    assert words.count("DHCPDISCOVER") == 1 and words.count(f"DHCPACK of {address} from 10.20.0.1") > 1, words

    def told_there() -> list[tuple[str, str, str]]:
        (row,) = lab.client.get("why", {"of": "lab/rover"})
        assert row["host"] == "n2"
        return [(one["what"], one["address"], one["outcome"]) for one in row["exchanges"] if one["what"] == "REQUEST"]

    eventually(lambda: len(told_there()) >= 2, 5.0, "both clients renewed at n2")
    assert set(told_there()) == {("REQUEST", address, "ack")}
    (row,) = [row for row in lab.client.get("leases") if (row["workspace"], row["address"]) == ("rover", address)]
    assert (row["host"], row["state"]) == ("n2", "bound")


def test_back_at_once_and_twenty_moves_without_a_pause_end_whole(lab: Site) -> None:
    for number in range(20):
        begun = begin_soon(lab, "rover", HOSTS[(number + 1) % 3])
        eventually(lambda to=begun["to"]: lab.host_of("lab", "rover") == to, 10.0, f"rover at {begun['to']}")
    assert lab.finish(begun)["state"] == "settled"
    assert_carried_by(lab, HOSTS[20 % 3])


@pytest.mark.long
def test_three_quick_measured_moves_leave_no_silence(lab: Site) -> None:
    for host in ("n2", "n3", "n1"):
        assert lab.move("rover", host, measure=True)["state"] == "settled"
    lab.assert_reachable("lab", PAIRS)


def test_a_move_that_is_called_off_ends_where_it_began(lab: Site) -> None:
    subprocess.run(lab.inside(["kill", "-STOP", str(lab.program("agent-n2")["pid"])]), check=True)
    try:
        begun = lab.begin("rover", "n2")
        assert lab.client.post("abort", {"workspace": "rover"})["state"] == "aborted"
    finally:
        subprocess.run(lab.inside(["kill", "-CONT", str(lab.program("agent-n2")["pid"])]), check=True)
    assert lab.finish(begun)["state"] == "aborted"
    assert_carried_by(lab, "n1")
    assert lab.move("rover", "n2")["state"] == "settled"
    assert_carried_by(lab, "n2")


def test_a_move_aborted_while_it_is_measured_ends_whole(lab: Site) -> None:
    begun = lab.begin("rover", "n3", measure=True)
    eventually(lambda: lab.migration("rover")["state"] in ("prepared", "copying", "activated"), what="prepared")
    try:
        lab.client.post("abort", {"workspace": "rover"})
    except Refused as refused:
        assert "already at n3" in str(refused)
    ended = lab.finish(begun)
    assert_carried_by(lab, "n3" if ended["state"] == "settled" else "n1")


def test_an_abort_that_meets_the_flip_silences_nobody(lab: Site) -> None:
    with lab.stream("lab", "third", "rover", "grid") as result:
        for _ in range(6):
            begun = begin_soon(lab, "rover", "n2")  # who was called off late prepares n1 once more
            eventually(lambda: lab.migration("rover")["state"] not in ("requested", "prepared"), what="copying")
            try:
                lab.client.post("abort", {"workspace": "rover"})
            except Refused as refused:
                assert "already at n2" in str(refused)
            if lab.finish(begun)["state"] == "settled":
                assert lab.move("rover", "n1")["state"] == "settled"
    assert result["gap_ms"] < 1000 and result["duplicated"] == 0, result
    assert_carried_by(lab, "n1")


@pytest.mark.parametrize("name", ["agent-n2", "agent-n1", "controller"])
@pytest.mark.parametrize(
    "delay_s", [pytest.param(0.0, marks=pytest.mark.long), 0.08, pytest.param(0.2, marks=pytest.mark.long)]
)
def test_a_move_survives_the_death_of_who_drives_it(lab: Site, name: str, delay_s: float) -> None:
    pid = lab.pid("lab", "rover")
    begun = lab.begin("rover", "n2")
    time.sleep(delay_s)  # the moment of death is the parameter here, not a wait for something
    lab.kill(name)
    eventually(lambda: _answers(lab), 15.0, "controller again")
    lab.await_hosts()
    ended = lab.finish(begun)
    assert ended["state"] in ("settled", "aborted")
    assert_carried_by(lab, "n2" if ended["state"] == "settled" else "n1")
    assert lab.pid("lab", "rover") == pid


def _answers(site: Site) -> bool:
    try:
        return bool(site.client.get("site"))
    except Exception as error:
        return "answers" not in str(error)


def test_a_source_that_dies_in_the_middle_leaves_one_carrier_in_the_end(lab: Site) -> None:
    begun = lab.begin("rover", "n2")
    sandbox.ask(lab.info, "kill-host", host="n1")
    sandbox.ask(lab.info, "start-host", host="n1")
    ended = lab.finish(begun, 40.0)
    assert ended["state"] in ("settled", "aborted")
    lab.await_hosts()
    lab.converged("lab")
    assert_carried_by(lab, "n2" if ended["state"] == "settled" else "n1")


def test_one_broadcast_during_a_move_is_one_copy_everywhere(lab: Site) -> None:
    """Numbered broadcasts while the rover moves: all others hear each of them once, the rover at most once."""
    hear = (
        "import socket, sys, collections\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, 33, 1 << 22); s.bind(('', 47998)); s.settimeout(20)\n"
        "seen = collections.Counter(); print('ready', flush=True)\n"
        "while (said := s.recv(64)) != b'end': seen[said] += 1\n"
        "print(len(seen), max(seen.values(), default=0), flush=True)\n"
    )
    shout = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
        "n = 0; until = time.monotonic() + 1.5\n"
        "while time.monotonic() < until: s.sendto(b'%d' % n, ('10.20.0.255', 47998)); n += 1; time.sleep(0.002)\n"
        "[(s.sendto(b'end', ('10.20.0.255', 47998)), time.sleep(0.05)) for _ in range(3)]\n"
        "print(n)\n"
    )
    listeners = {}
    for name in ("rover", "anchor", "peer"):
        command = lab.enter("lab", name, *CLIENT_PYTHON, "-c", hear)
        listeners[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert listeners[name].stdout.readline() == "ready\n"
    caller = subprocess.Popen(lab.enter("lab", "third", *CLIENT_PYTHON, "-c", shout), stdout=subprocess.PIPE, text=True)
    for host in ("n2", "n3"):
        assert (moved := lab.move("rover", host))["state"] == "settled", moved["cause"]
    sent = int(caller.communicate(timeout=20)[0])
    heard = {name: tuple(map(int, p.communicate(timeout=20)[0].split())) for name, p in listeners.items()}
    assert {name: heard[name] for name in ("anchor", "peer")} == {"anchor": (sent, 1), "peer": (sent, 1)}
    assert heard["rover"][1] == 1
    assert heard["rover"][0] >= sent - 20


@pytest.mark.long
def test_moves_for_minutes_never_leave_anybody_unreachable(lab: Site) -> None:
    for number in range(60):
        host = HOSTS[(number + 1) % 3]
        moved = lab.move("rover", host, measure=True)
        assert moved["state"] == "settled" and moved["lost"] <= 1 and moved["duplicated"] == 0, moved
        if number % 3 == 2:
            lab.assert_reachable("lab", PAIRS)
