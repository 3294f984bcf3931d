"""Machines that no one declared, behind a workspace's NIC that allows such: addresses by real clients, from any host's
responder, through moves and deaths."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from site_lab import CLIENT_PYTHON, Site

from dhcp import frame, message
from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid: {subnets: [10.30.0.0/24], dhcp: {dynamic: 10.30.0.200-10.30.0.231, lease_time: 10m}}
workspaces:
  nest: {labels: {role: nest}, host: n1, networks: [{network: grid, allow: {dynamic: 12}}]}
  friend-1: {labels: {role: friend}, host: n1, networks: [grid]}
  friend-2: {labels: {role: friend}, host: n2, networks: [grid]}
  stranger: {host: n2, networks: [grid]}
policies:
  - {name: nested, subject: role=nest, ingress: [{from: role=friend, ports: icmp/echo}]}
"""

HOOK = """#!/bin/sh
case "$1$reason" in
  bound|renew) ip address replace "$ip/24" dev "$interface"; echo "$ip" > FOLDER/$1.$interface;;
  BOUND|RENEW|REBOOT) ip address replace "$new_ip_address/24" dev "$interface"
    echo "$new_ip_address" > FOLDER/bound.$interface;;
esac
"""


SAY = """
import socket, sys
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 0))
"""


@dataclass
class Machine:
    """A namespace behind the workspace's NIC, with a MAC that nothing has declared."""

    site: Site
    number: int
    pid: int
    folder: Path

    @property
    def nic(self) -> str:
        return f"m{self.number}"

    @property
    def mac(self) -> str:
        return f"52:54:00:99:00:{self.number:02x}"

    def enter(self, *argv: str) -> list[str]:
        return self.site.enter("lab", "nest", "nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv)

    def run(self, *argv: str) -> str:
        return subprocess.run(self.enter(*argv), capture_output=True, text=True, timeout=60, check=False).stdout

    def told(self, what: str = "bound") -> str:
        file = self.folder / f"{what}.{self.nic}"
        return file.read_text().strip() if file.exists() else ""

    def udhcpc(self) -> str:
        """Its address by udhcpc, which goes on running."""
        pid = self.folder / f"pid.{self.nic}"
        self.run(*f"busybox udhcpc -i {self.nic} -b -t 20 -T 1 -p {pid} -s {self.folder / 'hook'}".split())
        return str(eventually(self.told, seconds=20, what="udhcpc's address"))

    def renews(self) -> str:
        """By unicast to the server; the address afterwards."""
        (self.folder / f"renew.{self.nic}").unlink(missing_ok=True)
        pid = (self.folder / f"pid.{self.nic}").read_text().strip()
        self.run("kill", "-USR1", pid)
        return str(eventually(lambda: self.told("renew"), seconds=20, what="udhcpc's renewal"))

    def says(self, data: bytes) -> None:
        """Sends a frame."""
        subprocess.run(self.enter(*CLIENT_PYTHON, "-c", SAY, self.nic, data.hex()), check=True, timeout=20)

    def signalled(self, signal: str) -> None:
        """Says something to udhcpc: USR1 has it renew, or begin anew after USR2, which has it release."""
        self.run("kill", f"-{signal}", (self.folder / f"pid.{self.nic}").read_text().strip())

    def begins_anew(self) -> str:
        """The address that udhcpc is bound to next, as it renews what it may not have any more."""
        (self.folder / f"bound.{self.nic}").unlink(missing_ok=True)
        self.signalled("USR1")
        return str(eventually(self.told, seconds=20, what="udhcpc's next address"))

    def asks(self) -> str:
        """What a udhcpc that gives up after two questions is told."""
        self.run(*f"busybox udhcpc -i {self.nic} -n -q -t 2 -T 1 -s {self.folder / 'hook'}".split())
        return self.told()

    def pings(self, address: str) -> bool:
        return ", 0% packet loss" in self.run("ping", "-c1", "-W1", address)


@contextmanager
def a_machine(site: Site, number: int, folder: Path) -> Iterator[Machine]:
    holder = site.enter("lab", "nest", "unshare", "--net", "sh", "-c", "echo $$; exec sleep 600")
    with subprocess.Popen(holder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        made = Machine(site, number, int(process.stdout.readline()), folder)
        try:
            link = f"ip link add name {made.nic} link eth0 address {made.mac} netns {made.pid} type macvlan mode bridge"
            site.within("lab", "nest", *link.split())
            made.run("ip", "link", "set", made.nic, "up")
            made.run("ip", "link", "set", "lo", "up")
            yield made
        finally:
            if (folder / f"pid.{made.nic}").exists():
                made.run("sh", "-c", f"kill $(cat {folder / f'pid.{made.nic}'})")
            site.within("lab", "nest", "kill", str(made.pid), check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hook = tmp_path / "hook"
    hook.write_text(HOOK.replace("FOLDER", str(tmp_path)))
    hook.chmod(0o755)
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o755)
    return tmp_path


@pytest.fixture
def lab(site: Site) -> Iterator[Site]:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed")
    site.up(LAB)
    yield site
    site.down("lab")


@pytest.fixture
def machine(lab: Site, folder: Path) -> Iterator[Callable[[int], Machine]]:
    with ExitStack() as stack:
        yield lambda number: stack.enter_context(a_machine(lab, number, folder))


def pings(site: Site, workspace: str, address: str) -> bool:
    return ", 0% packet loss" in site.within("lab", workspace, "ping", "-c1", "-W1", address, check=False)


def leases(site: Site) -> dict[str, dict[str, object]]:
    rows = site.client.get("leases", {"playground": "lab"})
    return {row["mac"]: row for row in rows}


def held(site: Site, mac: str) -> set[tuple[str, str]]:
    """Addresses that a machine has or had, and how they stand."""
    rows = site.client.get("leases", {"playground": "lab"})
    return {(row["address"], row["state"]) for row in rows if row["mac"] == mac}


def declined(mac: str, address: str) -> bytes:
    """A whole frame: a DECLINE as udhcpc would send it."""
    own, server = frame.mac(mac), socket.inet_aton("10.30.0.1")
    options = {53: b"\4", 50: socket.inet_aton(address), 54: server, 61: b"\1" + own}
    said = message.encode(message.Message(message.BOOTREQUEST, b"abcd", own, options))
    return frame.udp4(frame.BROADCAST_MAC, own, message.ZERO, b"\xff" * 4, (68, 67), said)


def test_machines_get_addresses_and_are_reached_under_their_ports_policies(
    lab: Site, machine: Callable[[int], Machine], folder: Path
) -> None:
    one, two = machine(1), machine(2)
    addresses = [one.udhcpc()]
    if shutil.which("dhclient") is not None:
        files = f"-sf {folder / 'hook'} -lf {folder / 'leases'} -pf {folder / 'pid.m2'}"
        two.run(*f"dhclient -4 -1 -cf /dev/null {files} {two.nic}".split())
        addresses.append(str(eventually(two.told, seconds=20, what="dhclient's address")))
    else:
        addresses.append(two.udhcpc())
    assert len({*addresses}) == 2
    assert all(address.startswith("10.30.0.2") for address in addresses)
    for address in addresses:
        for friend in ("friend-1", "friend-2"):
            eventually(lambda a=address, f=friend: pings(lab, f, a), what=f"{address} reached by {friend}")
        assert not pings(lab, "stranger", address)
    row = leases(lab)[one.mac]
    assert (row["address"], row["workspace"], row["host"], row["state"]) == (addresses[0], "nest", "n1", "bound")
    assert all(row[column] for column in ("since", "until", "client_id", "vendor", "seen"))
    assert "machine" in lab.cli("why", addresses[0]).stdout


def test_a_lease_goes_along_when_its_workspace_moves(lab: Site, machine: Callable[[int], Machine]) -> None:
    one = machine(1)
    address = one.udhcpc()
    eventually(lambda: pings(lab, "friend-2", address), what="the machine's answer")
    assert lab.move("nest", "n3")["state"] == "settled"
    eventually(lambda: pings(lab, "friend-2", address), what="the machine's answer after the move")
    assert one.renews() == address
    second = machine(2).udhcpc()
    assert second != address
    assert lab.move("nest", "n1")["state"] == "settled"
    assert one.renews() == address
    eventually(lambda: pings(lab, "friend-2", second), what="the second machine's answer after both moves")
    assert {row["host"] for row in leases(lab).values() if row["workspace"] == "nest"} == {"n1"}


def test_leases_outlive_the_responder_and_the_agent(lab: Site, machine: Callable[[int], Machine]) -> None:
    one = machine(1)
    address = one.udhcpc()
    until = leases(lab)[one.mac]["until"]
    lab.kill_responder("n1")
    lab.kill("agent-n1")
    assert machine(2).udhcpc() != address
    eventually(lambda: pings(lab, "friend-2", address), what="the machine's answer")
    assert leases(lab)[one.mac]["until"] == until
    assert one.renews() == address


def test_a_host_goes_on_giving_without_a_controller(lab: Site, machine: Callable[[int], Machine]) -> None:
    controller = str(lab.program("controller")["pid"])
    subprocess.run(lab.inside(["kill", f"-{signal.SIGSTOP}", controller]), check=True)
    try:
        one = machine(1)
        address = one.udhcpc()
        eventually(lambda: pings(lab, "friend-1", address), what="the machine's answer on its own host")
        assert one.renews() == address
    finally:
        subprocess.run(lab.inside(["kill", f"-{signal.SIGCONT}", controller]), check=True)
    eventually(lambda: pings(lab, "friend-2", address), seconds=20, what="the machine's answer from another host")


@pytest.mark.long
def test_dhcpcd_gets_an_address_as_a_machine(lab: Site, machine: Callable[[int], Machine], folder: Path) -> None:
    users = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if shutil.which("dhcpcd") is None or os.geteuid() != 0 or users == 1:
        pytest.skip("dhcpcd is not installed, or gives up root for a user of its own where only one is mapped")
    one = machine(1)
    client = f"dhcpcd -4 -B -1 -t 20 -f /dev/null -c {folder / 'hook'} {one.nic}"
    hidden = f"mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd && {client}"
    one.run("unshare", "--mount", "sh", "-c", hidden)
    address = eventually(one.told, what="dhcpcd's address")
    eventually(lambda: pings(lab, "friend-2", str(address)), what="the machine's answer")


def test_a_range_that_is_widened_moved_and_taken_away_is_so_for_running_clients(
    lab: Site, machine: Callable[[int], Machine]
) -> None:
    one = machine(1)
    address = one.udhcpc()
    lab.up(LAB.replace("10.30.0.231", "10.30.0.239"))
    assert one.renews() == address
    lab.up(LAB.replace("10.30.0.200-10.30.0.231", "10.30.0.100-10.30.0.131"))
    eventually(lambda: pings(lab, "friend-2", address), what="a lease outside of the range is good until it ends")
    assert machine(2).udhcpc().startswith("10.30.0.1")
    again = one.begins_anew()
    assert again.startswith("10.30.0.1"), "whoever renews one gets another"
    eventually(lambda: pings(lab, "friend-2", again), what="the address of the new range")
    assert (again, "bound") in held(lab, one.mac)
    lab.up(
        LAB.replace("dynamic: 10.30.0.200-10.30.0.231, ", "").replace("{network: grid, allow: {dynamic: 12}}", "grid")
    )
    assert machine(3).asks() == ""
    eventually(lambda: not pings(lab, "friend-2", again), what="nobody is let in whom nothing declares")


@pytest.mark.long
def test_what_a_machine_declines_rests_and_what_it_gives_back_may_be_given_again(
    lab: Site, machine: Callable[[int], Machine]
) -> None:
    one = machine(1)
    address = one.udhcpc()
    one.signalled("USR2")
    eventually(lambda: (address, "bound") not in held(lab, one.mac), what="the RELEASE is told of")
    eventually(lambda: not pings(lab, "friend-2", address), what="its machine is let in no longer")
    one.signalled("USR1")
    assert one.begins_anew() == address, "its last client gets it first"
    one.says(declined(one.mac, address))
    eventually(lambda: (address, "bound") not in held(lab, one.mac), what="the DECLINE is told of")
    assert one.begins_anew() not in ("", address)
