"""Hosts of a whole site are emptied while streams run to what they carry, and stay empty whoever dies."""

from __future__ import annotations

import time

import pytest
from site_lab import Json, MakeSite, Site

from playground import sandbox
from playground.client import Unreachable
from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
gateways: {wan: {kind: nat, networks: [grid]}}
workspaces:
  rover: {networks: [grid], host: "!has(gone)"}
  worker: {networks: [grid], scale: 5, labels: {app: work}}
  peer: {networks: [grid], host: n3}
"""


@pytest.fixture
def lab(site: Site) -> Site:
    """The playground on its three hosts, rover on n1, none of them drained."""
    site.await_hosts()
    for host in ("n1", "n2", "n3"):
        site.client.delete(f"hosts/{host}/drain")
    site.up(LAB)
    if site.host_of("lab", "rover") != "n1":
        assert site.move("rover", "n1")["state"] == "settled"
    return site


def emptied(site: Site, host: str) -> Json:
    """The end of a drain; a controller that is away is waited for."""

    def ask() -> Json | None:
        try:
            answer = dict(site.client.get(f"hosts/{host}/drain"))
        except Unreachable:
            return None
        return answer if answer["drain"] == "drained" else None

    return eventually(ask, 20, f"{host} is empty")


def carried(site: Site, host: str) -> list[str]:
    """Ends of workspaces and legs of gateways in a host's data plane."""
    links = site.on(host, "ip", "-br", "link", dataplane=True).split()
    return [word for word in links if word.startswith("pg")]


def gateway(site: Site) -> Json:
    [found] = site.client.get("status", {"playground": "lab"})["playgrounds"][0]["gateways"]
    return dict(found)


def test_a_stream_to_a_drained_host_loses_at_most_one_packet_and_its_gateway_goes_along(lab: Site) -> None:
    pids = lab.pids("lab")
    on_n1 = [name for name in pids if lab.host_of("lab", name) == "n1"]
    assert len(on_n1) > 1 and carried(lab, "n1")
    with lab.stream("lab", "peer", "rover", "grid") as result:
        began = time.monotonic()
        lab.client.put("hosts/n1/drain", {"parallel": 1})
        emptied(lab, "n1")
        took_s = time.monotonic() - began
    assert result["sent"] > 200 * min(took_s, 1.0)
    assert result["lost"] <= 1 and result["duplicated"] == 0, result
    assert lab.pids("lab") == pids
    assert "n1" not in {port["host"] for port in lab.ports("lab").values()}
    eventually(lambda: gateway(lab)["host"] != "n1" and gateway(lab)["state"] == "running", what="the gateway")
    eventually(lambda: not carried(lab, "n1"), what="no end is left on n1")
    lab.converged("lab")
    lab.assert_reachable("lab")
    assert lab.hosts()["n1"]["drain"] == "drained"


def test_a_drain_outlives_its_controller_and_what_comes_up_meanwhile_goes_elsewhere(lab: Site) -> None:
    lab.client.put("hosts/n1/drain", {})
    lab.kill("controller")
    emptied(lab, "n1")
    eventually(lambda: lab.hosts()["n1"]["state"] == "up", what="hosts are back")
    lab.up(LAB.replace("scale: 5", "scale: 8"))
    assert {port["host"] for port in lab.ports("lab").values()} == {"n2", "n3"}
    done = lab.cli("host", "resume", "n1")
    assert (done.returncode, done.stdout) == (0, "n1: takes workspaces again\n"), done.stderr


def test_the_last_hosts_guests_stay_and_each_says_why(lab: Site) -> None:
    for host in ("n1", "n2"):
        lab.client.put(f"hosts/{host}/drain", {})
    for host in ("n1", "n2"):
        emptied(lab, host)
    done = lab.cli("host", "drain", "n3")
    assert done.returncode == 1, done
    assert done.stdout == "n3: draining, 8 stuck\n"
    assert "  workspace lab/worker-0: stuck, no host fits; n1, n2, n3: draining\n" in done.stderr
    assert "  workspace lab/peer: stuck, it is pinned to n3, and n3: draining\n" in done.stderr
    assert "  gateway lab/wan: stuck, host n3 is drained; no host fits; n1, n2: draining\n" in done.stderr
    lab.converged("lab")
    lab.assert_reachable("lab")


@pytest.mark.long
def test_what_a_dead_host_ran_stays_unknown_until_somebody_has_it_placed_anew(a_site: MakeSite) -> None:
    site = a_site("mortal", 3)
    site.up(LAB)
    dead = site.host_of("lab", "rover")
    before = site.ports("lab")["rover.grid"]
    sandbox.ask(site.info, "kill-host", host=dead)
    eventually(lambda: site.hosts()[dead]["state"] == "gone", what=f"{dead} is gone")
    workspaces = site.client.get("status", {"playground": "lab"})["playgrounds"][0]["workspaces"]
    [rover] = [one for one in workspaces if one["name"] == "rover"]
    assert (rover["state"], rover["host"], rover["cause"]) == ("unknown", dead, f"host {dead} is gone")
    assert site.cli("host", "drain", dead).returncode == 1
    site.client.delete(f"hosts/{dead}/drain")
    assert site.host_of("lab", "rover") == dead
    site.down("lab")
    site.up(LAB.replace(", host: n3", ""))
    after = site.ports("lab")["rover.grid"]
    assert after["host"] != dead and (after["addresses"], after["mac"]) == (before["addresses"], before["mac"])
    sandbox.ask(site.info, "start-host", host=dead)
    site.await_hosts()
    eventually(lambda: not carried(site, dead), what=f"nothing of before is on {dead}")
    site.converged("lab")
    site.assert_reachable("lab")
