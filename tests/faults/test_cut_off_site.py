"""A real host whose agent reaches no controller: packets, addresses and names go on, it says since when it is alone,
and rebooted alone it comes up from what it was shown last."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from playground import sandbox
from playground.cli import policy_live
from playground.sandbox.commands import CONTROLLER_PORT, programs
from playground.sandbox.plan import Program, SandboxPlan
from tests.faults.mortal_lab import a_site
from tests.site.site_lab import Site
from tests.waiting import eventually

pytestmark = pytest.mark.system

WORLD = "203.0.113.1"
PROXY_PORT = CONTROLLER_PORT + 1
LAB = """\
name: lab
networks:
  grid: {subnets: [10.9.0.0/24]}
gateways:
  wan: {kind: nat, networks: [grid], host: n1}
policies:
  - {name: nobody-reaches-one, subject: one, ingress: []}
workspaces:
  one: {networks: [grid], host: n1}
  two: {networks: [grid], host: n2}
"""


def behind_a_proxy(plan: SandboxPlan, top: Path) -> tuple[Program, ...]:
    """The programs of any sandbox, and a proxy that its agents dial."""
    straight = f"http://{plan.controller_address}:{CONTROLLER_PORT}"
    crooked = f"http://{plan.controller_address}:{PROXY_PORT}"
    changed = [replace(p, argv=tuple(crooked if word == straight else word for word in p.argv)) for p in programs(plan)]
    ends = (f"{plan.controller_address}:{PROXY_PORT}", f"{plan.controller_address}:{CONTROLLER_PORT}")
    return (*changed, Program("proxy", (sys.executable, "-m", "tests.faults.proxy", *ends, str(top / "proxy.sock"))))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with a_site("cut", 2, behind_a_proxy) as made:
        made.up(LAB)
        yield made


def befall(site: Site, verb: str, host: str = "n1") -> None:
    """One verb of the proxy."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(site.files / "proxy.sock"))
        connection.sendall(f"{verb} {site.hosts()[host]['underlay']}\n".encode())
        assert connection.recv(64) == b"done\n"


@contextlib.contextmanager
def cut_off(site: Site, verb: str) -> Iterator[None]:
    befall(site, verb)
    try:
        yield
    finally:
        befall(site, "heal")
        eventually(lambda: "n1: connected since" in standing(site), 15.0, "n1 has dialled in")
        site.await_hosts()
        site.converged("lab")


def standing(site: Site) -> str:
    """What n1 says of itself to somebody who sits there."""
    run = str(site.info.run_dir / "hosts" / "n1")
    words = ("-m", "playground", "agent", "--name", "n1", "--run-dir", run, "--status")
    return site.on("n1", sys.executable, *words, check=False).strip()


def assert_served(site: Site) -> None:
    """Names and addresses, from the host that nobody reaches."""
    asked = ("dig", "+short", "+tries=1", "+time=2", "@10.9.0.1", "two.grid.lab.internal", "A")
    assert site.within("lab", "one", *asked).split() == [site.address("lab", "two.grid")]
    site.within("lab", "one", "busybox", "udhcpc", "-n", "-q", "-f", "-i", "eth0", "-s", "/bin/true")


def pings(site: Site, source: str, address: str) -> bool:
    return " 0% packet loss" in site.within("lab", source, "ping", "-c1", "-W1", address, check=False)


def anew(site: Site, before: int) -> bool:
    """Whether the workspace runs by another process."""
    with contextlib.suppress(FileNotFoundError):  # it is made just now
        return site.pid("lab", "one") not in (0, before)
    return False


def assert_policed(site: Site) -> None:
    """The one speaks, and is not spoken to."""
    eventually(lambda: pings(site, "one", site.address("lab", "two.grid")), 20.0, "one reaches two")
    assert not pings(site, "two", site.address("lab", "one.grid"))


def open_on(site: Site, host: str) -> set[str]:
    links = json.loads(site.on(host, "bridge", "-json", "-d", "link", "show", dataplane=True, check=False) or "[]")
    return {link["ifname"] for link in links if link["ifname"].startswith("pg") and link["bcast_flood"]}


def reboot(site: Site) -> None:
    sandbox.ask(site.info, "kill-host", host="n1")
    sandbox.ask(site.info, "start-host", host="n1")
    eventually(lambda: "alone since" in standing(site), 20.0, "its agent runs")


def test_a_host_that_is_cut_off_goes_on_says_so_and_comes_up_alone(site: Site) -> None:
    assert "n1: connected since" in standing(site)
    pid = site.pid("lab", "one")
    with cut_off(site, "refuse"):
        with site.stream("lab", "one", "two", "grid") as result:
            eventually(lambda: "n1: alone since" in standing(site), 10.0, "it knows")
            assert_served(site)
        assert result["lost"] == 0 and result["sent"] > 100, result
        assert "what runs goes on, workspaces are started by what it was shown last until" in standing(site)
        assert site.pid("lab", "one") == pid
        reboot(site)
        eventually(lambda: anew(site, pid), 20.0, "its workspace is there again")
        assert_policed(site)
        eventually(lambda: pings(site, "one", WORLD), 20.0, "its gateway is there again")
        assert open_on(site, "n1") == {site.device("lab", name, "grid") for name in ("one", "@wan")}
    site.assert_reachable("lab")
    assert_policed(site)
    assert policy_live.verified(site.client, "lab") == {
        "hosts": 2,
        "differences": [],
        "mended": [],
        "unobserved": [],
    }


@pytest.mark.long
def test_in_the_dark_both_ends_find_out_and_nobody_loses_a_packet(site: Site) -> None:
    with site.stream("lab", "one", "two", "grid") as result, cut_off(site, "darken"):
        eventually(lambda: site.hosts()["n1"]["state"] == "gone", 10.0, "n1 gone")
        assert site.hosts()["n1"]["since"]
        eventually(lambda: "n1: alone since" in standing(site), 10.0, "it knows")
        assert_served(site)
    assert result["lost"] == 0, result


@pytest.mark.long
def test_a_port_that_moved_away_is_closed_at_a_host_that_reboots_alone(site: Site) -> None:
    assert site.move("one", "n2")["state"] == "settled"
    both = {site.device("lab", name, "grid") for name in ("one", "two")}
    leg = {site.device("lab", "@wan", "grid")}
    try:
        with cut_off(site, "refuse"):
            reboot(site)
            eventually(lambda: "alone" in standing(site) and site.on("n1", "ip", "netns"), 10.0, "it has converged")
            assert (open_on(site, "n1"), open_on(site, "n2")) == (leg, both)
            assert_policed(site)
        assert (open_on(site, "n1"), open_on(site, "n2")) == (leg, both)
    finally:
        assert site.move("one", "n1")["state"] == "settled"
