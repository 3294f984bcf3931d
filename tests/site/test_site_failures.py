"""What dies, and what somebody breaks: traffic goes on, and a site comes back to what it should be by itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from site_lab import Site

from playground import sandbox
from playground.client import Refused, Unreachable
from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
workspaces:
  one: {networks: [grid], host: n1}
  two: {networks: [grid], host: n2}
  three: {networks: [grid], host: n3}
"""
PAIRS = 6


@pytest.fixture(scope="module")
def lab(site: Site) -> Site:
    """One playground for all tests: each leaves it as it was, which is what most of them claim."""
    site.up(LAB)
    return site


def names(site: Site, workspace: str = "one", name: str = "two.grid.lab.internal") -> list[str]:
    """A and AAAA of a workspace, asked of the server that the guest was told of; nothing while it is silent."""
    server = site.client.get("ports", {"playground": "lab"})[0]["addresses"][0].rpartition(".")[0] + ".1"
    asked = ("dig", "+short", "+tries=1", "+time=1", f"@{server}", name, "A", name, "AAAA")
    found = site.within("lab", workspace, *asked, check=False).splitlines()
    return [line for line in found if not line.startswith(";")]


def quiet(site: Site) -> bool:
    """Whether the controller answers and every host is up."""
    with contextlib.suppress(Unreachable, Refused):
        return all(row["state"] == "up" for row in site.hosts().values())
    return False


def records(site: Site) -> object:
    """What should be, without what is only observed."""
    keys = ("playground", "workspace", "network", "mac", "addresses", "host")
    return [{key: row[key] for key in keys} for row in site.client.get("ports")]


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param(("agent",), marks=pytest.mark.long),
        pytest.param(("controller",), marks=pytest.mark.long),
        pytest.param(("responder",), marks=pytest.mark.long),
        ("agent", "controller", "responder"),
    ],
)
def test_what_is_killed_costs_no_packet_no_guest_and_no_record(lab: Site, victims: tuple[str, ...]) -> None:
    pids, before = lab.pids("lab"), records(lab)
    with lab.stream("lab", "one", "two", "grid") as result:
        for victim in victims:
            if victim == "controller":
                lab.kill("controller")
                continue
            for host in ("n1", "n2"):
                lab.kill(f"agent-{host}") if victim == "agent" else lab.kill_responder(host)
        eventually(lambda: quiet(lab) and lab.progress("lab")["converged"], what="converged again")
        eventually(lambda: set(names(lab)) == set(lab.ports("lab")["two.grid"]["addresses"]), what="names answered")
    assert result["lost"] == 0 and result["duplicated"] == 0, result
    assert result["sent"] > 100, "the stream ran before, while and after"
    assert (lab.pids("lab"), records(lab)) == (pids, before)
    lab.assert_reachable("lab", PAIRS)


def test_addresses_and_names_are_answered_while_the_agent_is_away(lab: Site) -> None:
    pid = str(lab.program("agent-n1")["pid"])
    subprocess.run(lab.inside(["kill", "-STOP", pid]), check=True)
    try:
        assert set(names(lab)) == set(lab.ports("lab")["two.grid"]["addresses"])
        lab.within("lab", "one", "pkill", "-USR1", "-f", "udhcpc")  # renew now
        lab.within("lab", "one", "busybox", "udhcpc", "-n", "-q", "-f", "-i", "eth0", "-s", "/bin/true")
        ours = lab.address("lab", "one.grid")
        assert ours in lab.within("lab", "one", "ip", "-br", "-4", "addr", "show", "eth0")
    finally:
        subprocess.run(lab.inside(["kill", "-CONT", pid]), check=True)
    eventually(lambda: quiet(lab) and lab.progress("lab")["converged"], what="converged")


def broken(site: Site, *argv: str) -> None:
    site.on("n1", *argv, dataplane=True)


def test_what_somebody_takes_away_is_put_back_and_counted(lab: Site) -> None:
    links = json.loads(lab.on("n1", "ip", "-json", "link", "show", dataplane=True))
    bridge, tunnel = (next(link["ifname"] for link in links if link["ifname"].startswith(p)) for p in ("br", "vx"))
    port = lab.device("lab", "one", "grid")
    mac = lab.ports("lab")["two.grid"]["mac"]
    address = lab.address("lab", "two.grid")
    leg = next(link["ifname"] for link in links if link["ifname"].startswith("lg"))

    def total() -> int:
        return sum(lab.hosts()["n1"]["repaired"].values())

    cuts = {
        "tunnel entry": ("bridge", "fdb", "del", mac, "dev", tunnel, "self"),
        "forwarding entry": ("bridge", "fdb", "del", mac, "dev", tunnel, "master"),
        "flood entry": (
            "bridge",
            "fdb",
            "del",
            "00:00:00:00:00:00",
            "dev",
            tunnel,
            "dst",
            lab.hosts()["n2"]["underlay"],
        ),
        "flags of a port": ("bridge", "link", "set", "dev", port, "learning", "on", "flood", "on"),
        "a port out of its bridge": ("ip", "link", "set", port, "nomaster"),
        "neighbour": ("ip", "neigh", "del", address, "dev", bridge),
        "leg": ("ip", "link", "del", leg),
        "VXLAN device": ("ip", "link", "del", tunnel),
        "bridge": ("ip", "link", "del", bridge),
    }

    def rules() -> list[str]:
        return sorted(lab.on("n1", "nft", "--stateless", "list", "ruleset", dataplane=True).splitlines())

    guard = rules()
    assert guard
    for _ in range(3):
        count = total()
        broken(lab, "nft", "flush", "ruleset")
        eventually(lambda: rules() == guard, 2.0, "guard again")
        eventually(lambda n=count: total() > n, 2.0, "the guard's repair counted")
    for what, cut in cuts.items():
        count = total()
        broken(lab, *cut)
        eventually(lambda n=count: total() > n, 8.0, f"repair of {what} counted")
        eventually(lambda: lab.progress("lab")["converged"], 8.0, f"{what} back")
        answer = lab.probe("lab")
        assert answer["mismatches"] == [], what
    held = json.loads(lab.on("n1", "bridge", "-json", "-d", "link", "show", "dev", port, dataplane=True))
    assert held[0]["learning"] is False and held[0]["flood"] is False


def test_a_probe_right_after_an_agent_died_waits_for_it(lab: Site) -> None:
    pid = str(lab.program("agent-n2")["pid"])
    subprocess.run(lab.inside(["kill", "-9", pid]), check=True)
    probed = lab.cli("probe", "lab")
    assert (probed.returncode, probed.stdout.strip()) == (0, "lab: 6 pairs tried, all as modelled")


@pytest.mark.long
def test_a_probe_beside_an_agent_that_stays_away_says_what_was_not_observed(lab: Site) -> None:
    pid = str(lab.program("agent-n2")["pid"])
    subprocess.run(lab.inside(["kill", "-STOP", pid]), check=True)
    try:
        probed = lab.cli("probe", "lab")
    finally:
        subprocess.run(lab.inside(["kill", "-CONT", pid]), check=True)
    assert probed.returncode == 1
    assert probed.stdout.startswith("lab: 4 pairs tried, all as modelled; 2 pairs not observed"), probed.stdout
    lab.await_hosts()


def test_a_service_namespace_comes_back(lab: Site) -> None:
    lab.on("n1", "ip", "netns", "del", "playground-lab")
    eventually(lambda: "playground-lab" in lab.on("n1", "ls", "/run/netns"), 8.0, "service namespace")
    eventually(lambda: set(names(lab)) == set(lab.ports("lab")["two.grid"]["addresses"]), 8.0, "names again")


def test_what_is_not_ours_is_never_touched(lab: Site) -> None:
    mine = ("ip", "link", "add", "mine0", "type", "veth", "peer", "name", "mine1")
    lab.on("n1", *mine)
    lab.on("n1", "ip", "addr", "add", "198.51.100.7/24", "dev", "mine0")
    lab.on("n1", "nft", "add table inet mine; add chain inet mine any { type filter hook forward priority 0; }")
    lab.on("n1", "ip", "netns", "add", "somebody")
    try:
        lab.kill("agent-n1")
        lab.up(
            LAB.replace("three: {networks: [grid], host: n3}", "three: {networks: [grid], host: n3, labels: {a: b}}")
        )
        lab.up(LAB)
        eventually(lambda: quiet(lab), what="up")
        assert "198.51.100.7/24" in lab.on("n1", "ip", "addr", "show", "mine0")
        assert "table inet mine" in lab.on("n1", "nft", "list", "ruleset")
        assert "somebody" in lab.on("n1", "ls", "/run/netns")
    finally:
        lab.on("n1", "ip", "link", "del", "mine0")
        lab.on("n1", "nft", "delete", "table", "inet", "mine")
        lab.on("n1", "ip", "netns", "del", "somebody")


def test_a_host_whose_own_firewall_drops_all_carries_it_all_the_same(lab: Site) -> None:
    lab.on(
        "n1",
        "nft",
        "add table inet mine; add chain inet mine any { type filter hook forward priority 0; policy drop; };"
        "add table bridge mine; add chain bridge mine any { type filter hook forward priority 0; policy drop; }",
    )
    try:
        lab.assert_reachable("lab", PAIRS)
    finally:
        lab.on("n1", "nft", "delete table inet mine; delete table bridge mine")


def test_a_host_that_vanishes_is_said_to_be_gone_and_comes_back_with_the_same_addresses(lab: Site) -> None:
    before = records(lab)
    sandbox.ask(lab.info, "kill-host", host="n3")
    started = time.monotonic()
    eventually(lambda: lab.hosts()["n3"]["state"] == "gone", 10.0, "n3 gone")
    assert time.monotonic() - started < 8.0
    said = {w["name"]: w for w in lab.client.get("status", {"playground": "lab"})["playgrounds"][0]["workspaces"]}
    states = {name: row["state"] for name, row in said.items()}
    assert states == {"one": "running", "two": "running", "three": "unknown"}, lab.hosts()
    assert "n3 is gone" in said["three"]["cause"]
    assert lab.ports("lab")["three.grid"]["state"] == "unknown"
    one_to_two = lab.within("lab", "one", "ping", "-c1", "-W2", lab.address("lab", "two.grid"))
    assert " 0% packet loss" in one_to_two
    sandbox.ask(lab.info, "start-host", host="n3")
    lab.await_hosts("n3")
    lab.converged("lab")
    assert records(lab) == before
    lab.assert_reachable("lab", PAIRS)


def test_after_the_whole_site_was_killed_the_same_playground_comes_back(lab: Site) -> None:
    before = records(lab)
    os.kill(lab.info.pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{lab.info.pid}").exists(), what="the sandbox's first process is reaped")
    done = lab.cli("up", lab.write(LAB), "--emulate", "3")
    assert done.returncode == 0, done.stderr
    with patch.dict(os.environ, lab.own_environment):
        found = sandbox.find(lab.name)
    assert found is not None
    lab.info = found
    assert records(lab) == before
    assert "lab: nothing to change" in done.stdout
    lab.assert_reachable("lab", PAIRS)
