"""IPv6 addresses by DHCPv6 in namespace workspaces: taken, changed, kept through moves, never found to be another's."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest
from site_lab import CLIENT_PYTHON, Site, eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid: {subnets: ["fd00:20::/64"], ipv6: dhcp, pools: ["fd00:20::100-fd00:20::1ff"]}
  wide: {subnets: [10.30.0.0/24, "fd00:30::/64"], ipv6: both, pools: ["fd00:30::100-fd00:30::1ff"]}
  free: {subnets: ["fd00:40::/64"]}
workspaces:
  rover: {networks: [grid, wide, free], host: n1}
  fixed: {networks: [{network: grid, addresses: ["fd00:20::5"]}, wide], host: n2}
"""

DETECT = """
import select, subprocess, sys
address = sys.argv[1]
def ip(*words): return subprocess.run(("ip", "-6", "address", *words), stdout=-1, text=True, check=True).stdout
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    ip("delete", address + "/64", "dev", sys.argv[2])
    ip("add", address + "/64", "dev", sys.argv[2])
    while ip("show", "dev", sys.argv[2], "to", address, "tentative"):
        if ip("show", "dev", sys.argv[2], "to", address, "dadfailed"): break
    print("duplicate" if ip("show", "dev", sys.argv[2], "to", address, "dadfailed") else "unique", flush=True)
"""
"""Gives an address anew without end, and says what duplicate address detection (RFC 4862 §5.4) finds."""


@pytest.fixture(scope="module")
def lab(site: Site) -> Site:
    site.up(LAB)
    return site


def addresses(site: Site, workspace: str, nic: str) -> dict[str, int]:
    """Global IPv6 addresses that are no longer tentative, and their valid lifetimes."""
    said = site.within(
        "lab", workspace, "ip", "-json", "-6", "address", "show", "dev", nic, "scope", "global", "-tentative"
    )
    found = [one for link in json.loads(said) for one in link.get("addr_info", ()) if one]
    return {one["local"]: int(one["valid_life_time"]) for one in found}


def test_a_workspace_takes_what_dhcpv6_gives_it_and_forms_the_rest(lab: Site) -> None:
    ports = lab.ports("lab")
    for port, nic in (("rover.grid", "eth0"), ("rover.wide", "eth1"), ("rover.free", "eth2"), ("fixed.grid", "eth0")):
        wanted = {one for one in ports[port]["addresses"] if ":" in one}
        eventually(lambda nic=nic, port=port, wanted=wanted: set(addresses(lab, port.split(".")[0], nic)) == wanted)
    assert ports["fixed.grid"]["addresses"] == ["fd00:20::5"]
    assert ports["rover.grid"]["addresses"] == ["fd00:20::100"]
    assert ports["rover.wide"]["addresses"][1] == "fd00:30::100"
    lab.assert_reachable("lab")
    assert "nameserver fd00:20::1" in lab.within("lab", "rover", "cat", "/etc/resolv.conf")


def test_leases_show_every_address_and_the_clients_identifier(lab: Site) -> None:
    rows = {row["address"]: row for row in lab.client.get("leases", {"playground": "lab"})}
    wanted = {address for port in lab.ports("lab").values() for address in port["addresses"]}
    assert set(rows) == wanted
    assert {row["state"] for row in rows.values()} == {"bound"}
    mac = lab.ports("lab")["rover.grid"]["mac"].replace(":", "")
    assert rows["fd00:20::100"]["client_id"] == f"00030001{mac}"
    assert 3000 < rows["fd00:20::100"]["until"] - time.time() <= 3600


def test_a_running_workspace_hears_of_another_address_at_once_and_lets_go_of_the_old_one(lab: Site) -> None:
    pid = lab.pid("lab", "fixed")
    began = time.monotonic()
    lab.up(LAB.replace("fd00:20::5", "fd00:20::77"))
    assert set(addresses(lab, "fixed", "eth0")) <= {"fd00:20::77"}
    eventually(lambda: set(addresses(lab, "fixed", "eth0")) == {"fd00:20::77"}, 2.0)
    assert time.monotonic() - began < 6.0
    assert lab.pid("lab", "fixed") == pid
    lab.up(LAB)
    eventually(lambda: set(addresses(lab, "fixed", "eth0")) == {"fd00:20::5"}, 2.0)


def test_a_moved_client_renews_at_its_new_host_and_finds_no_duplicate_while_it_moves(lab: Site) -> None:
    lab.up(LAB)
    port = lab.ports("lab")["rover.free"]
    command = lab.enter("lab", "rover", *CLIENT_PYTHON, "-c", DETECT, port["addresses"][0], "eth2")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as detecting:
        assert detecting.stdout is not None and detecting.stdout.readline() == "ready\n"
        for host in ("n2", "n3", "n2"):
            moved = lab.move("rover", host)
            assert moved["state"] == "settled", moved
        said, _ = detecting.communicate(timeout=20)
    found = said.split()
    assert len(found) >= 4 and set(found) == {"unique"}
    before = set(addresses(lab, "rover", "eth0"))
    lab.on("n2", "kill", f"-{int(signal.SIGUSR2)}", str(lab.pid("lab", "rover")))

    def renewed() -> bool:
        (row,) = (row for row in lab.client.get("why", {"of": "fd00:20::100"}))
        return [one["outcome"] for one in row["exchanges"] if one["what"] == "RENEW"] == ["reply"]

    eventually(renewed, 5.0)
    assert set(addresses(lab, "rover", "eth0")) == before == {"fd00:20::100"}
    lab.move("rover", "n1")
