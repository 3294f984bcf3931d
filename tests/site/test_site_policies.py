"""Policies on a whole site: what is enforced is as modelled, shows itself, and lets established connections move."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from site_lab import CLIENT_PYTHON, Site

from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """
name: lab
networks:
  grid: {subnets: [10.30.0.0/24, "fd00:30::/64"]}
workspaces:
  head: {labels: {role: head}, networks: [grid]}
  worker: {scale: 2, labels: {role: worker}, networks: [grid]}
policies:
  - name: head-only-answers
    mode: log
    subject: role=head
    ingress: [{from: role=worker, ports: [tcp/22, udp/5000-5100, icmp/echo]}]
    egress: []
  - {name: workers-only-ask, subject: role=worker, egress: [{to: role=head}], ingress: []}
"""

SERVER = """
import socket, time
listener = socket.create_server(("", 22))
print("listening", flush=True)
peer, _ = listener.accept()
for number in range(1 << 30):
    peer.sendall(b"%d\\n" % number)
    time.sleep(0.01)
"""
"""It alone speaks: a host that met the connection here first would take it for one that this end began."""

CLIENT = """
import socket, sys
for number, line in enumerate(socket.create_connection((sys.argv[1], 22)).makefile()):
    print(line, end="", flush=True)
"""


@pytest.fixture(scope="module")
def lab(site: Site) -> Site:
    ran = site.cli("up", site.write(LAB))
    assert ran.returncode == 0, ran.stderr
    assert "rules verified on" in ran.stdout
    return site


@contextmanager
def dripping(lab: Site) -> Iterator[subprocess.Popen[str]]:
    """A connection from a worker by which the head speaks for ever; yields the worker's end, which prints."""
    server = subprocess.Popen(lab.enter("lab", "head", *CLIENT_PYTHON, "-c", SERVER), stdout=subprocess.PIPE, text=True)
    client = None
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        client = subprocess.Popen(
            lab.enter("lab", "worker-0", *CLIENT_PYTHON, "-c", CLIENT, lab.address("lab", "head.grid")),
            stdout=subprocess.PIPE,
            text=True,
            bufsize=0,
        )
        yield client
    finally:
        for workspace in ("head", "worker-0"):  # killing nsenter would leave what it started
            lab.within("lab", workspace, "pkill", "-KILL", "-f", "import socket", check=False)
        for process in (server, client):
            if process is not None:
                process.kill()
                process.communicate()


def await_news(client: subprocess.Popen[str], after: int, seconds: float = 15.0) -> int:
    """The first number beyond `after` that comes out."""
    assert client.stdout is not None
    deadline = time.monotonic() + seconds
    while select.select([client.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if (line := client.stdout.readline()) and int(line) > after:
            return int(line)
    raise AssertionError(f"nothing came after {after} within {seconds:g} s")


def now(client: subprocess.Popen[str]) -> int:
    """What has come out so far, all of it."""
    last = await_news(client, -1)
    assert client.stdout is not None
    while select.select([client.stdout], [], [], 0)[0]:
        last = int(client.stdout.readline())
    return last


def elsewhere(lab: Site, workspace: str) -> str:
    return next(host for host in sorted(lab.hosts()) if host != lab.host_of("lab", workspace))


def test_all_pairs_are_as_modelled_at_every_port_where_a_verdict_turns(lab: Site) -> None:
    answer = lab.probe("lab")
    assert (answer["pairs"], answer["mismatches"]) == (6, [])
    assert answer["knocks"] > 50 and "unobserved" not in answer


def test_what_was_tried_is_counted_and_logged_by_name(lab: Site) -> None:
    lab.probe("lab")
    counted = {(row["policies"][0], row["direction"], row["rule"]): row["packets"] for row in told(lab, "counters")}
    assert counted["head-only-answers", "ingress", 1] > 0
    assert counted["head-only-answers", "ingress", 0] > 0
    assert counted["workers-only-ask", "egress", 0] > 0
    logged = eventually(lambda: told(lab, "log", "lab", "--denied", "--to", "head"), what="verdicts")
    row = next(row for row in logged if row["port"] == "tcp/23")
    assert (row["to"], row["verdict"], row["tier"], row["policies"]) == ("head", "deny", "owner", ["head-only-answers"])
    assert row["from"] in ("worker-0", "worker-1") and row["host"] == lab.host_of("lab", "head")


def told(lab: Site, *words: str) -> list[dict[str, object]]:
    ran = lab.cli("policy", *words, "--json")
    assert ran.returncode == 0, ran.stderr
    return list(json.loads(ran.stdout))


def test_a_connection_goes_on_wherever_its_ends_move_to(lab: Site) -> None:
    with dripping(lab) as client:
        await_news(client, 0)
        for workspace in ("head", "worker-0", "head"):
            assert lab.move(workspace, elsewhere(lab, workspace))["state"] == "settled"
            await_news(client, now(client) + 50)
    left = [event for event in lab.client.get("events", {"after": 0}) if event["kind"] == "flows-left"]
    assert left == []


def test_a_connection_goes_on_where_it_comes_back_to(lab: Site) -> None:
    with dripping(lab) as client:
        home, away = lab.host_of("lab", "head"), elsewhere(lab, "head")
        for host in (away, home, away, home):
            assert lab.move("head", host)["state"] == "settled"
            await_news(client, now(client) + 20)
