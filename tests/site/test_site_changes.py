"""A file's life: up, up again, edited, refused, down; and what the kernel of every host has to show for it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from site_lab import MakeSite, Site

from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
workspaces:
  head: {labels: {role: head}, networks: [grid], host: n1}
  worker: {scale: 2, networks: [grid], host: n2}
"""

WIDER = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
  back: {subnets: [10.30.0.0/24]}
workspaces:
  head: {labels: {role: chief}, networks: [grid], host: n1}
  worker: {scale: 3, networks: [grid], host: n2}
  store: {networks: [back], host: n3}
"""

HOSTS = ("n1", "n2", "n3")


def traces(site: Site) -> dict[str, dict[str, list[str]]]:
    """What hosts hold of playgrounds: devices of the data plane namespace, service namespaces, guests."""
    found = {}
    for host in HOSTS:
        links = json.loads(site.on(host, "ip", "-json", "link", "show", dataplane=True) or "[]")
        found[host] = {
            "dataplane": sorted(link["ifname"] for link in links if link["ifname"] != "lo"),
            "host": sorted(link["ifname"] for link in json.loads(site.on(host, "ip", "-json", "link", "show"))),
            "namespaces": sorted(site.on(host, "ls", "/run/netns").split()),
        }
    return found


def words(changes: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(change["action"], change["object"]) for change in changes}


@pytest.fixture
def lab(site: Site) -> Site:
    """The playground as LAB has it: as the test before left it, or brought there."""
    site.up(LAB)
    return site


@pytest.fixture
def bare(site: Site) -> Site:
    """No playground."""
    for name in site.client.get("site")["playgrounds"]:
        site.down(name)
    return site


def test_one_command_brings_it_up_and_every_pair_reaches_the_other(bare: Site) -> None:
    before = traces(bare)
    done = bare.cli("up", bare.write(LAB))
    assert done.returncode == 0, done.stderr
    assert "3 workspaces, 3 ports" in done.stdout
    probed = bare.cli("probe", "lab")
    assert (probed.returncode, probed.stdout.strip()) == (0, "lab: 6 pairs tried, all as modelled")
    again = bare.cli("up", bare.write(LAB))
    assert (again.returncode, again.stdout.strip()) == (0, "lab: nothing to change")
    down = bare.cli("down", "lab")
    assert down.returncode == 0, down.stderr
    assert traces(bare) == before
    assert bare.guests() == []


def test_an_edited_file_changes_only_what_differs(lab: Site) -> None:
    pids, addresses = lab.pids("lab"), {k: p["addresses"] for k, p in lab.ports("lab").items()}
    planned = lab.cli("plan", lab.write(WIDER), "--json")
    assert planned.returncode == 0, planned.stderr
    target = lab.address("lab", "worker-1.grid")
    ping = subprocess.Popen(
        lab.enter("lab", "head", "ping", "-i", "0.01", "-W", "1", target), stdout=subprocess.PIPE, text=True
    )
    try:
        made = lab.up(WIDER)
        assert made == json.loads(planned.stdout)["changes"]
        assert words(made) >= {("create", "workspace worker-2"), ("create", "network back")}
        assert not words(made) & {("change", "workspace worker-0"), ("change", "workspace worker-1")}
        shrunk = lab.up(LAB)
        assert words(shrunk) >= {("remove", "workspace worker-2"), ("remove", "network back")}
    finally:
        lab.within("lab", "head", "pkill", "-INT", "ping")
        said = ping.communicate(timeout=20)[0]
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
    assert sent > 50
    assert sent - received <= 1, said  # the last may be on its way when ping is ended
    assert lab.pids("lab") == pids
    assert {k: p["addresses"] for k, p in lab.ports("lab").items()} == addresses


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        (LAB.replace("scale: 2", "scael: 2"), ":6:12:", "did you mean scale"),
        (LAB.replace("10.20.0.0/24", "10.20.0.0/33"), ":3:20:", "10.20.0.0/33"),
        (LAB + "policies: [{subject: haed, egress: []}]\n", ":7:22:", "did you mean head"),
    ],
)
def test_a_bad_file_changes_nothing_and_says_where_it_is_bad(site: Site, text: str, place: str, cause: str) -> None:
    before = (site.client.get("ports"), site.client.get("events"))
    for command in ("plan", "up"):
        path = site.write(text)
        done = site.cli(command, path)
        assert done.returncode == 1
        assert f"{path}{place}" in done.stderr and cause in done.stderr, done.stderr
    assert (site.client.get("ports"), site.client.get("events")) == before


def test_what_one_playground_leaves_another_can_have(bare: Site) -> None:
    """Fixed addresses and names go with the playground: no claim outlives it."""
    fixed = LAB.replace("networks: [grid], host: n1", "networks: [{network: grid, address: 10.20.0.77}], host: n1")
    for _ in range(2):
        bare.up(fixed)
        assert bare.address("lab", "head.grid") == "10.20.0.77"
        bare.down("lab")
    bare.up(LAB)
    assert bare.address("lab", "head.grid") == "10.20.0.2"  # the lowest: nothing is left of what head had


def shouted(frames: list[bytes]) -> list[bytes]:
    """Those to UDP port 47999."""
    return [frame for frame in frames if UDP in (read := Ether(frame)) and read[UDP].dport == 47999]


def test_same_addresses_in_two_playgrounds_never_meet(lab: Site) -> None:
    lab.up(LAB.replace("name: lab", "name: twin"))
    try:
        mine, other = ({k: p["addresses"] for k, p in lab.ports(name).items()} for name in ("lab", "twin"))
        assert {k: v[0] for k, v in mine.items()} == {k: v[0] for k, v in other.items()}
        lab.assert_reachable("lab", 6)
        lab.assert_reachable("twin", 6)
        shout = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); "
            "[s.sendto(b'x', ('10.20.0.255', 47999)) for _ in range(3)]"
        )
        with (
            lab.capture(lambda *argv: lab.enter("twin", "worker-0", *argv)) as theirs,
            lab.capture(lambda *argv: lab.enter("lab", "worker-0", *argv)) as own,
        ):
            lab.within("lab", "head", "/usr/bin/env", "python3", "-c", shout)
            eventually(lambda: len(shouted(own())) == 3, what="all three are heard")
        assert len(shouted(own())) == 3
        assert shouted(theirs()) == []
    finally:
        lab.down("twin")


def test_a_host_without_a_network_holds_nothing_of_it(lab: Site) -> None:
    held = traces(lab)
    assert held["n3"]["dataplane"] == []
    assert held["n3"]["namespaces"] == ["playground"]
    assert len(held["n1"]["dataplane"]) == 4  # bridge, VXLAN device, leg, one port


def test_a_terminal_in_a_workspace_has_a_name_a_size_and_its_interrupt(lab: Site) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    traps = "trap 'stty size' WINCH; trap 'echo stopped; exit 9' INT"
    script = f"tty; stty size; {traps}; echo ready; while :; do sleep 0.1; done"
    shell = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "playground", "exec", "head", "--", "sh", "-c", script],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=lab.environment,
    )
    os.close(slave)
    said = b""

    def until(word: bytes) -> None:
        nonlocal said
        while word not in said:
            assert select.select([master], [], [], 20)[0], said
            said += os.read(master, 4096)

    try:
        until(b"ready")
        assert said.split()[:3] == [b"/dev/pts/0", b"33", b"77"]
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
        until(b"20 50")
        os.write(master, b"\x03")
        until(b"stopped")
        assert shell.wait(20) == 9
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def test_a_network_without_ipv4_has_names(bare: Site) -> None:
    six = LAB.replace("10.20.0.0/24, ", "")
    bare.up(six)
    try:
        wanted = bare.address("lab", "worker-1.grid", 6)

        def found(*words: str) -> set[str]:
            return set(bare.within("lab", "head", *words, check=False).split())

        for name in ("worker-1", "worker-1.grid.lab.internal"):
            eventually(lambda n=name: wanted in found("getent", "ahostsv6", n), 5.0, f"{name} by getent")
        assert found("dig", "+short", "+search", "AAAA", "worker-1") == {wanted}
        assert found("dig", "+short", "-x", wanted) == {"worker-1.grid.lab.internal."}
        bare.assert_reachable("lab", 6)
    finally:
        bare.down("lab")


def test_a_stopped_workspace_keeps_its_addresses(lab: Site) -> None:
    before = lab.ports("lab")["worker-0.grid"]
    for verb, desired in (("stop", "stopped"), ("start", "running")):
        done = lab.cli(verb, "worker-0")
        assert done.returncode == 0, done.stderr
        assert lab.client.get("status", {"playground": "lab"})["playgrounds"][0]["workspaces"][1]["state"] == desired
    after = lab.ports("lab")["worker-0.grid"]
    assert {k: after[k] for k in ("mac", "addresses", "host")} == {k: before[k] for k in ("mac", "addresses", "host")}
    lab.assert_reachable("lab", 6)


def test_of_two_people_who_bring_up_different_files_one_is_told_that_the_other_won(bare: Site) -> None:
    files = {name: bare.write(text, name) for name, text in (("mine", LAB), ("yours", WIDER))}
    words = [sys.executable, "-m", "playground", "up"]
    agent = str(bare.program("agent-n1")["pid"])
    subprocess.run(bare.inside(["kill", "-STOP", agent]), check=True)  # the first is not done when the second comes
    try:
        both = {
            name: subprocess.Popen(
                [*words, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=bare.environment
            )
            for name, path in files.items()
        }
        eventually(lambda: any(process.poll() is not None for process in both.values()), 60.0, "one is told")
    finally:
        subprocess.run(bare.inside(["kill", "-CONT", agent]), check=True)
    said = {name: process.communicate(timeout=90) for name, process in both.items()}
    try:
        codes = {name: process.returncode for name, process in both.items()}
        assert sorted(codes.values()) == [0, 1], said
        winner, loser = sorted(codes, key=lambda name: codes[name])
        assert "lab: up, " in said[winner][0] and "lab: up, " not in said[loser][0]
        assert f"was replaced by another one, {files[winner]} (change " in said[loser][1]
        assert len(bare.ports("lab")) == {"mine": 3, "yours": 5}[winner]
        bare.assert_reachable("lab")
    finally:
        bare.down("lab")


def test_two_sites_at_once_do_not_see_each_other(lab: Site, a_site: MakeSite) -> None:
    other = a_site("west", 2)
    other.up(LAB)
    assert other.address("lab", "head.grid") == lab.address("lab", "head.grid")
    other.client.post("stop", {"workspace": "head"})
    eventually(lambda: other.ports("lab")["head.grid"]["state"] == "stopped", what="stopped there")
    lab.assert_reachable("lab", 6)
    other.assert_reachable("lab", 2)
