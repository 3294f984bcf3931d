"""A segment that nobody declared: a bridge with several machines behind a device that somebody else brings, which get
addresses of the network's range by real clients, one of them through a relay, and keep them when it moves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from site_lab import Site

from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.long]

LAB = """\
name: lab
networks:
  grid: {subnets: [10.30.0.0/24], dhcp: {dynamic: 10.30.0.200-10.30.0.231, lease_time: 10m}}
workspaces:
  rack: {host: n1, driver: external, networks: [{network: grid, allow: {dynamic: 12}}]}
  friend: {host: n2, networks: [grid]}
"""
HOOK = """#!/bin/sh
case "$1" in
  bound|renew) ip address replace "$ip/24" dev "$interface"; echo "$ip" > FOLDER/$1.$interface;;
esac
"""


@dataclass
class Space:
    """A namespace of the segment's, on no host."""

    site: Site
    pid: str
    folder: Path

    def run(self, *argv: str, check: bool = True) -> str:
        words = self.site.inside(["nsenter", f"--target={self.pid}", "--net", "--", *argv])
        return subprocess.run(words, check=check, capture_output=True, text=True, timeout=60).stdout

    def told(self, nic: str, what: str = "bound") -> str:
        file = self.folder / f"{what}.{nic}"
        return file.read_text().strip() if file.exists() else ""

    def udhcpc(self, nic: str) -> str:
        """Its address, by a client that goes on running."""
        words = f"busybox udhcpc -i {nic} -b -t 20 -T 1 -p {self.folder}/pid.{nic} -s {self.folder}/hook"
        self.run(*words.split())
        return str(eventually(lambda: self.told(nic), seconds=20, what=f"{nic}'s address"))

    def renews(self, nic: str) -> str:
        """The address afterwards."""
        (self.folder / f"renew.{nic}").unlink(missing_ok=True)
        self.run("kill", "-USR1", (self.folder / f"pid.{nic}").read_text().strip())
        return str(eventually(lambda: self.told(nic, "renew"), seconds=20, what=f"{nic}'s renewal"))


@contextmanager
def a_space(site: Site, folder: Path) -> Iterator[Space]:
    holder = site.inside(["unshare", "--net", "sh", "-c", "echo $$; exec sleep 600"])
    with subprocess.Popen(holder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        made = Space(site, process.stdout.readline().strip(), folder)
        try:
            made.run("ip", "link", "set", "lo", "up")
            yield made
        finally:
            for pid in folder.glob("pid.*"):
                made.run("kill", pid.read_text().strip(), check=False)
            made.run("kill", made.pid)


@pytest.fixture
def spaces(site: Site, tmp_path: Path) -> Iterator[list[Space]]:
    """The switch, and five machines: three on it, a relay, and one behind that."""
    for program in ("busybox", "dnsmasq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    hook = tmp_path / "hook"
    hook.write_text(HOOK.replace("FOLDER", str(tmp_path)))
    hook.chmod(0o755)
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o755)
    site.client.put("playgrounds", {"file": "lab.yaml", "text": LAB})
    device = eventually(lambda: site.ports("lab") and site.device("lab", "rack", "grid"), what="the port")
    with ExitStack() as stack:
        made = [stack.enter_context(a_space(site, tmp_path)) for _ in range(6)]
        switch = made[0]
        switch.run("ip", "link", "add", "seg", "type", "bridge")
        switch.run("ip", "link", "set", "seg", "up")
        for host in ("n1", "n3"):
            site.on(host, "ip", "link", "add", device, "type", "veth", "peer", f"to-{host}", "netns", switch.pid)
            switch.run("ip", "link", "set", f"to-{host}", "up")
        switch.run("ip", "link", "set", "to-n1", "master", "seg")
        for number, machine in enumerate(made[1:5], 1):
            wire(switch, f"s{number}", machine, f"m{number}", number)
            switch.run("ip", "link", "set", f"s{number}", "master", "seg")
        wire(made[4], "r4", made[5], "m5", 5)
        eventually(lambda: site.ports("lab")["rack.grid"]["state"] == "forwarding", what="the segment's port forwards")
        yield made
    site.down("lab")


def wire(one: Space, name: str, other: Space, its: str, number: int) -> None:
    mac = f"52:54:00:99:01:{number:02x}"
    one.run(*f"ip link add {name} type veth peer name {its} address {mac} netns {other.pid}".split())
    one.run("ip", "link", "set", name, "up")
    other.run("ip", "link", "set", its, "up")


def reached(site: Site, address: str) -> bool:
    return ", 0% packet loss" in site.within("lab", "friend", "ping", "-c1", "-W1", address, check=False)


def test_a_segment_of_unknown_machines_is_served_relayed_and_moves(site: Site, spaces: list[Space]) -> None:
    switch, machines, relay, far = spaces[0], spaces[1:4], spaces[4], spaces[5]
    given = [machine.udhcpc(f"m{number}") for number, machine in enumerate(machines, 1)]
    own = relay.udhcpc("m4")
    assert len({*given, own}) == 4 and all(address.startswith("10.30.0.2") for address in (*given, own))
    for address in (*given, own):
        eventually(lambda a=address: reached(site, a), what=f"{address} reached from another host")

    relay.run("ip", "address", "add", f"{own}/32", "dev", "r4")
    words = relay.site.inside(["nsenter", f"--target={relay.pid}", "--net", "--"])
    dnsmasq = ["dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--user=root", "--pid-file=", "--log-facility=-"]
    with subprocess.Popen([*words, *dnsmasq, f"--dhcp-relay={own},10.30.0.1"]) as relaying:
        try:
            relayed = far.udhcpc("m5")
        finally:
            relay.run("pkill", "-f", f"dhcp-relay={own},10.30.0.1", check=False)
            relaying.wait(timeout=10)
    rows = {row["address"]: row for row in site.client.get("leases", {"playground": "lab"})}
    assert relayed not in (*given, own) and rows[relayed]["mac"] == "52:54:00:99:01:05"
    assert {rows[address]["workspace"] for address in (*given, own, relayed)} == {"rack"}

    port = site.device("lab", "rack", "grid").removeprefix("pg")
    binding = site.client.post(f"ports/{port}/bindings?wait_s=25", {"host": "n3"})
    assert binding["state"] == "prepared", binding
    switch.run("ip", "link", "set", "to-n1", "nomaster")
    switch.run("ip", "link", "set", "to-n3", "master", "seg")
    site.client.post(f"ports/{port}/bindings/n3/activate?wait_s=25", {"generation": binding["generation"]})
    for number, (machine, address) in enumerate(zip(machines, given, strict=True), 1):
        eventually(lambda a=address: reached(site, a), what=f"{address} reached at its new host")
        assert machine.renews(f"m{number}") == address
    rows = {row["address"]: row for row in site.client.get("leases", {"playground": "lab"})}
    assert {rows[address]["host"] for address in given} == {"n3"}
