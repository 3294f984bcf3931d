"""Policies on a whole site: what the file says is what packets meet, and shows itself, through changes, moves, deaths
and other people's edits; and connections that may go on do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from site_lab import CLIENT_PYTHON, Site, eventually

from playground.client import Unreachable

pytestmark = pytest.mark.system

OPEN = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
workspaces:
  head: {labels: {role: head}, networks: [grid], host: n1}
  worker: {labels: {role: worker}, networks: [grid], host: n2}
  other: {networks: [grid], host: n3}
"""
RESTRICTED = (
    OPEN
    + """\
policies:
  - name: the-head-is-reached-by-workers
    mode: log
    subject: head
    ingress: [{from: role=worker, ports: [tcp/7000, udp/5000-5100, icmp/echo]}]
    egress: []
  - name: workers-reach-the-head
    subject: role=worker
    egress: [{to: head, ports: [tcp/7000, icmp]}]
    ingress: []
"""
)
WITHOUT_THE_PORT = RESTRICTED.replace("tcp/7000", "tcp/7001")

SPEAK = """
import socket, sys, time
with socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    channel, _ = server.accept()
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = 0
    while True:
        channel.sendall(b"%8d" % number)
        number += 1
        time.sleep(0.005)
"""
LISTEN = """
import json, select, socket, sys, time
channel = socket.create_connection((sys.argv[1], 7000), timeout=5)
channel.setblocking(False)
print("ready", flush=True)
began = last = time.monotonic()
longest, heard = 0.0, b""
while sys.stdin not in (ready := select.select([channel, sys.stdin], [], [], 0.1)[0]):
    if channel in ready:
        more = channel.recv(1 << 16)
        if not more:
            break
        now = time.monotonic()
        longest, last, heard = max(longest, now - last), now, heard + more
silent = time.monotonic() - last
numbers = [int(heard[at:at + 8]) for at in range(0, len(heard) - 7, 8)]
print(json.dumps({"whole": numbers == list(range(len(numbers))), "count": len(numbers),
                  "longest_ms": 1000 * longest, "silent_ms": 1000 * silent}))
"""


@contextmanager
def spoken_to(site: Site, server: str = "head", client: str = "worker") -> Iterator[dict[str, Any]]:
    """A TCP connection that the client has opened and on which only the server speaks, while the body runs."""
    result: dict[str, Any] = {}
    speaking = subprocess.Popen(
        site.enter("lab", server, *CLIENT_PYTHON, "-c", SPEAK),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    listening = None
    try:
        assert speaking.stdout is not None and "ready" in speaking.stdout.readline()
        command = site.enter("lab", client, *CLIENT_PYTHON, "-c", LISTEN, site.address("lab", f"{server}.grid"))
        listening = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert listening.stdout is not None and "ready" in listening.stdout.readline()
        yield result
        said, _ = listening.communicate("enough\n", timeout=20)
        result.update(json.loads(said))
    finally:
        for workspace in (server, client):  # killing nsenter would leave what it started
            site.within("lab", workspace, "pkill", "-KILL", "-f", "socket.create", check=False)
        for process in (speaking, listening):
            if process is not None:
                process.kill()
                process.communicate()


def answers(site: Site) -> bool:
    try:
        return bool(site.hosts())
    except Unreachable:
        return False


def assert_verified(site: Site) -> None:
    """What the kernels of all hosts hold is what was compiled."""
    done = site.cli("policy", "verify", "lab")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def lab(site: Site) -> Iterator[Site]:
    site.await_hosts()
    site.up(RESTRICTED)
    for workspace, host in (("head", "n1"), ("worker", "n2")):
        if site.host_of("lab", workspace) != host:
            assert site.move(f"lab/{workspace}", host)["state"] == "settled"
    yield site


def told(site: Site, *words: str) -> list[dict[str, Any]]:
    ran = site.cli("policy", *words, "--json")
    assert ran.returncode == 0, ran.stderr
    return list(json.loads(ran.stdout))


def test_all_pairs_are_as_modelled_at_every_port_where_a_verdict_turns_and_it_is_counted_and_logged(lab: Site) -> None:
    answer = lab.probe("lab")
    assert (answer["pairs"], answer["mismatches"]) == (6, [])
    assert answer["knocks"] >= 38 and "unobserved" not in answer
    counted = {(row["policies"][0], row["direction"], row["rule"]): row["packets"] for row in told(lab, "counters")}
    for judged in (
        ("the-head-is-reached-by-workers", "ingress", 1),
        ("the-head-is-reached-by-workers", "ingress", 0),
        ("workers-reach-the-head", "egress", 0),
    ):
        assert counted[judged] > 0, judged
    words = ("log", "lab", "--denied", "--from", "other", "--to", "head")
    rows = eventually(lambda: told(lab, *words), what="verdicts")
    row = next(row for row in rows if row["port"].startswith("tcp/"))
    assert (row["from"], row["to"], row["verdict"], row["tier"]) == ("other", "head", "deny", "owner")
    assert (row["policies"], row["host"]) == (["the-head-is-reached-by-workers"], lab.host_of("lab", "head"))


def test_a_connection_goes_on_when_policies_that_allow_it_begin(site: Site) -> None:
    site.up(OPEN)
    with spoken_to(site) as result:
        site.up(RESTRICTED)
        eventually(lambda: site.on("n1", "nft", "list", "map", "inet", "playground_policy", "policed", dataplane=True))
        for _ in range(7):  # beyond the lenience of the first seconds
            site.within("lab", "worker", "sleep", "1")
        site.assert_reachable("lab")
    assert result["whole"] and result["silent_ms"] < 400, result
    assert result["longest_ms"] < 400, result


def test_a_change_cuts_what_it_no_longer_allows_and_what_it_allows_again_goes_on(lab: Site) -> None:
    with spoken_to(lab) as result:
        lab.up(WITHOUT_THE_PORT)
        lab.assert_reachable("lab")
        lab.within("lab", "worker", "sleep", "1")
    assert result["whole"] and result["silent_ms"] > 900, result


MOVES = (
    ("head", "n3"),
    ("head", "n1"),
    ("head", "n3"),
    ("worker", "n1"),
    ("worker", "n3"),
    ("head", "n2"),
    ("head", "n1"),
)
"""Away and back to where it was, by turns; either end; to the other's host, and away from it."""


def test_a_connection_under_restrictive_policies_goes_along_with_either_end_and_comes_back(lab: Site) -> None:
    with spoken_to(lab) as result:
        for workspace, host in MOVES:
            assert lab.move(f"lab/{workspace}", host)["state"] == "settled"
        lab.assert_reachable("lab")
    assert result["whole"] and result["silent_ms"] < 400, result
    assert_verified(lab)
    assert [event for event in lab.client.get("events", {"after": 0}) if event["kind"] == "flows-left"] == []


@pytest.mark.parametrize("program", ["agent-n1", "agent-n2", "controller"])
def test_a_death_changes_no_verdict_and_stops_no_packet(lab: Site, program: str) -> None:
    with spoken_to(lab) as result:
        lab.kill(program)
        eventually(lambda: answers(lab), what="a controller")
        lab.await_hosts()
        lab.assert_reachable("lab")
    assert result["whole"] and max(result["longest_ms"], result["silent_ms"]) < 400, result
    assert_verified(lab)


def test_whatever_somebody_takes_away_is_put_back(lab: Site) -> None:
    bridge = json.loads(lab.on("n1", "ip", "-json", "link", "show", "type", "bridge", dataplane=True))[0]["ifname"]
    edits = {
        "the table": ("nft", "delete", "table", "inet", "playground_policy"),
        "the guard": ("nft", "delete", "table", "netdev", "playground_guard"),
        "a rule": ("nft", "flush", "chain", "inet", "playground_policy", "pass"),
        "an element": ("nft", "flush", "map", "inet", "playground_policy", "ends_ip"),
        "the switch of a bridge": ("ip", "link", "set", bridge, "type", "bridge", "nf_call_iptables", "0"),
    }
    for what, edit in edits.items():
        before = sum(lab.hosts()["n1"]["repaired"].values())
        lab.on("n1", *edit, dataplane=True)
        eventually(lambda b=before: sum(lab.hosts()["n1"]["repaired"].values()) > b, 8.0, f"{what} put back")
        lab.assert_reachable("lab")
    assert_verified(lab)


FLOOD = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    sender.sendto(b"forbidden", (sys.argv[1], 47911))
    time.sleep(0.0005)
"""


@pytest.mark.parametrize(
    "edit",
    [
        "nft delete table inet playground_policy",
        "nft flush chain inet playground_policy pass",
        "ip link set BRIDGE type bridge nf_call_iptables 0",
    ],
)
def test_while_rules_are_taken_away_nothing_passes_that_they_forbid(lab: Site, edit: str) -> None:
    """Between two of one host, and from another one."""
    bridge = json.loads(lab.on("n1", "ip", "-json", "link", "show", "type", "bridge", dataplane=True))[0]["ifname"]
    if lab.host_of("lab", "other") != "n1":
        assert lab.move("lab/other", "n1")["state"] == "settled"
    head = lab.address("lab", "head.grid")
    with lab.capture(lambda *argv: lab.enter("lab", "head", *argv)) as heard:
        senders = [
            subprocess.Popen(lab.enter("lab", name, *CLIENT_PYTHON, "-c", FLOOD, head, "2.5"))
            for name in ("other", "worker")
        ]
        for _ in range(5):
            lab.on("n1", *edit.replace("BRIDGE", bridge).split(), dataplane=True)
            lab.within("lab", "head", "sleep", "0.3")
        for sender in senders:
            assert sender.wait(timeout=20) == 0
        passed = [frame for frame in heard() if b"forbidden" in frame]
    assert not passed, f"{len(passed)} passed"
    lab.assert_reachable("lab")


def test_a_guest_that_takes_anothers_address_reaches_nobody(lab: Site) -> None:
    stolen = lab.address("lab", "worker.grid")
    lab.within("lab", "other", "ip", "addr", "add", f"{stolen}/24", "dev", "eth0")
    try:
        lab.within("lab", "other", "ping", "-c1", "-W1", "-I", stolen, lab.address("lab", "head.grid"), check=False)
        answer = lab.within("lab", "other", "ping", "-c2", "-W1", "-I", stolen, "10.20.0.1", check=False)
        assert " 0 received" in answer, answer
    finally:
        lab.within("lab", "other", "ip", "addr", "del", f"{stolen}/24", "dev", "eth0")
    lab.assert_reachable("lab")
