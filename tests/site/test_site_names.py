"""Names as workspaces see them: by the C library and by dig, on every host, soon after a change, whoever is away."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from site_lab import CLIENT_PYTHON, Site, eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid:
    subnets: [10.20.0.0/24, "fd00:20::/64"]
    dns:
      transfer: [10.20.0.9]
      records:
        m: {cname: www}
        _sip._tcp: {srv: 0 5 5060 head}
        "@": {txt: "hello there"}
  back: {subnets: [10.30.0.0/24], dns: {forward: false}}
workspaces:
  head: {aliases: [www], networks: [{network: grid, address: 10.20.0.9}, back], host: n1}
  worker: {scale: 2, labels: {role: worker}, networks: [grid], host: n2}
  store: {networks: [{network: back, aliases: [disk]}], host: n3}
groups: {all-workers: role=worker}
"""

OTHER = """\
name: other
networks: {lan: {subnets: [10.20.0.0/24]}}
workspaces: {head: {networks: [lan], host: n1}, secret: {networks: [lan], host: n1}}
"""

WATCH = """
import json, select, socket, struct, sys, time
server, name, every = sys.argv[1], sys.argv[2], float(sys.argv[3])
question = b"".join(bytes((len(l),)) + l.encode() for l in name.split(".")) + b"\\0\\0\\1\\0\\1"
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.connect((server, 53))
asking.settimeout(0.02)
print("ready", flush=True)
ident, last = 0, None
while not select.select([sys.stdin], [], [], every)[0]:
    ident = (ident + 1) % 65536
    try:
        asking.send(struct.pack("!6H", ident, 0x100, 1, 0, 0, 0) + question)
        while True:
            got = asking.recv(4096)
            if got[:2] == struct.pack("!H", ident): break
        seen = [got[3] & 15, got[7]]
    except OSError:
        seen = None
    if seen != last:
        print(json.dumps([time.clock_gettime(time.CLOCK_MONOTONIC), seen]), flush=True)
        last = seen
"""
"""Says when (CLOCK_MONOTONIC) a name begins to be answered with another code or number of addresses (null: not), until
its input ends."""


@pytest.fixture(scope="module")
def lab(site: Site) -> Site:
    site.up(LAB)
    return site


def dig(site: Site, workspace: str, *words: str, playground: str = "lab") -> list[str]:
    asked = ("dig", "+short", "+tries=1", "+time=2", *words)
    return sorted(site.within(playground, workspace, *asked, check=False).split("\n")[:-1])


@pytest.mark.long
def test_the_c_library_finds_every_kind_of_name(lab: Site) -> None:
    def found(workspace: str, name: str) -> set[str]:
        return {
            line.split()[0]
            for line in lab.within("lab", workspace, "getent", "ahostsv4", name, check=False).splitlines()
        }

    head, back = lab.address("lab", "head.grid"), lab.address("lab", "head.back")
    workers = {lab.address("lab", f"worker-{number}.grid") for number in (0, 1)}
    eventually(lambda: found("worker-0", "www") == {head}, 5.0, "an alias, by the first search domain")
    assert found("store", "www") == {back}
    assert found("store", "www.lab.internal") == {head, back}
    assert found("worker-0", "m") == {head}
    assert found("head", "all-workers") == workers
    assert found("head", "disk.back") == {lab.address("lab", "store.back")}
    assert found("worker-0", "disk") == set()


def test_what_a_network_declares_is_answered(lab: Site) -> None:
    assert dig(lab, "worker-0", "_sip._tcp.grid.lab.internal", "SRV") == ["0 5 5060 head.grid.lab.internal."]
    assert dig(lab, "store", "grid.lab.internal", "TXT") == ['"hello there"']
    assert dig(lab, "worker-1", "-x", "10.20.0.9") == ["head.grid.lab.internal."]


def test_why_says_that_a_name_is_of_another_network(lab: Site) -> None:
    assert dig(lab, "store", "worker-0.back.lab.internal") == []
    (row,) = lab.client.get("why", {"of": "lab/store"})
    assert "it asked for worker-0.back.lab.internal (A): worker-0 is not on back, but on grid" in row["findings"]


def test_whoever_may_copies_all_names_and_nobody_else(lab: Site) -> None:
    server = lab.address("lab", "head.grid").rpartition(".")[0] + ".1"
    told = lab.within("lab", "head", "dig", "+onesoa", f"@{server}", "lab.internal", "AXFR")
    owners = {line.split()[0] for line in told.splitlines() if line and line[0] not in ";"}
    assert {
        "www.lab.internal.",
        "all-workers.lab.internal.",
        "m.grid.lab.internal.",
        "store.back.lab.internal.",
    } <= owners
    refused = lab.within("lab", "worker-0", "dig", f"@{server}", "lab.internal", "AXFR", check=False)
    assert "Transfer failed" in refused


def test_a_playground_sees_no_name_of_another(lab: Site) -> None:
    lab.up(OTHER)
    assert dig(lab, "head", "secret.lan.other.internal", playground="other") != []
    for name in ("secret.lan.other.internal", "secret.other.internal"):
        assert dig(lab, "head", name) == []
    said = "it asked for secret.other.internal (A): other playgrounds' names are not seen, and it lies outside this one"
    assert any(said in row["findings"] for row in lab.client.get("why", {"of": "lab/head"}))
    lab.down("other")


@contextmanager
def watching(argv: list[str]) -> Iterator[list[Any]]:
    """What a watch has said so far, while the body runs."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said: list[Any] = []
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield said
    finally:
        told, _ = process.communicate(timeout=20)
        said += map(json.loads, told.splitlines())


def changed_ms(lab: Site, number: int) -> dict[str, float]:
    """How long after a change was committed each host answers by it."""
    hosts = {"n1": "10.20.0.1", "n2": "10.20.0.1", "n3": "10.30.0.1"}
    fresh = f"fresh-{number}"
    watches = {}
    for host, server in hosts.items():
        command = ["ip", "netns", "exec", "playground-lab", *CLIENT_PYTHON, "-c", WATCH]
        watches[host] = watching(lab.inside([*command, server, f"{fresh}.lab.internal", "0.002"], host))
    said = {host: watch.__enter__() for host, watch in watches.items()}
    try:
        lab.client.put("playgrounds", {"file": "lab.yaml", "text": LAB.replace("[www]", f"[www, {fresh}]")})
        committed = time.clock_gettime(time.CLOCK_MONOTONIC)
        lab.converged("lab")
    finally:
        for watch in watches.values():
            watch.__exit__(None, None, None)
    return {host: (next(at for at, seen in told if seen == [0, 2]) - committed) * 1000 for host, told in said.items()}


def test_a_changed_name_is_answered_within_100_ms_on_every_host(lab: Site) -> None:
    tries = []
    for number in range(4):  # other work on the machine may be in the way of one
        tries.append(changed_ms(lab, number))
        if max(tries[-1].values()) <= 100:
            break
    print(f"a changed name, ms after its commit: {tries}")
    assert max(tries[-1].values()) <= 100, tries


def test_names_are_answered_while_controller_and_agent_start_anew(lab: Site) -> None:
    command = lab.enter("lab", "worker-0", *CLIENT_PYTHON, "-c", WATCH, "10.20.0.1", "head.grid.lab.internal", "0.005")
    with watching(command) as said:
        lab.kill("agent-n2")
        lab.await_hosts("n2")
        lab.kill("controller")
    lost = [at for at, seen in said if seen is None]
    back = [at for at, seen in said if seen is not None]
    assert said[0][1] == [0, 1]
    gaps = [min((b for b in back if b > at), default=float("inf")) - at for at in lost]
    assert all(gap <= 0.1 for gap in gaps), gaps
