"""What the same machine, and the same migration, is without us: a domain that `virsh` makes on a static tap, behind a
learning bridge and a VXLAN device on each host of an emulated site, and leases from busybox. Measures nothing."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lab import Lab

from playground import sandbox

UNDERLAY = {"n1": "192.0.2.11", "n2": "192.0.2.12", "n3": "192.0.2.13"}
BRIDGE, TUNNEL, TAP = "hand0", "handvx", "handtap"
ADDRESS, SERVER, MAC = "10.99.0.2", "10.99.0.1", "02:00:00:00:99:02"
NAME = "by-hand"

_DOMAIN = """<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <clock offset='utc'/><on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>
  <devices>
    <interface type='ethernet'><mac address='{mac}'/><target dev='{tap}' managed='no'/><model type='virtio'/>
      <mtu size='1400'/><rom enabled='no'/></interface>
    <serial type='pty'><log file='{log}' append='on'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def on(site: Lab, host: str, *argv: str, check: bool = True) -> str:
    """Output of a command on a host. Raises CalledProcessError."""
    command = sandbox.command_in(site.info, argv, host)
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=120).stdout


@contextlib.contextmanager
def network(site: Lab) -> Iterator[None]:
    """Bridges, tunnels and taps on all hosts, and leases from n3."""
    for host, address in UNDERLAY.items():
        lines = [
            f"ip link add {BRIDGE} type bridge",
            f"ip link add {TUNNEL} type vxlan id 4242 local {address} dstport 14789",
            f"ip link set {TUNNEL} mtu 1400 master {BRIDGE} up",
            f"ip link set {BRIDGE} up",
            *(
                f"bridge fdb append 00:00:00:00:00:00 dev {TUNNEL} dst {to}"
                for to in UNDERLAY.values()
                if to != address
            ),
        ]
        if host == "n3":
            lines.append(f"ip address add {SERVER}/24 dev {BRIDGE}")
        else:
            lines += [
                f"ip tuntap add {TAP} mode tap vnet_hdr",
                f"ip link set {TAP} mtu 1400 master {BRIDGE} up",
            ]
        on(site, host, "sh", "-ec", "\n".join(lines))
    folder = Path(site.info.run_dir)
    leases = folder / "hand.leases"
    leases.touch()
    settings = folder / "hand.conf"
    settings.write_text(
        f"start {ADDRESS}\nend {ADDRESS}\ninterface {BRIDGE}\nlease_file {leases}\npidfile {folder / 'hand.pid'}\n"
        f"option subnet 255.255.255.0\nmin_lease 60\noption lease 3600\n"
    )
    serving = subprocess.Popen(
        sandbox.command_in(site.info, ["busybox", "udhcpd", "-f", str(settings)], "n3"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        on(site, "n3", "sh", "-c", f"kill $(cat {folder / 'hand.pid'})", check=False)
        serving.kill()
        serving.wait()


def define(site: Lab, kernel: Path, initrd: Path, cmdline: str, log: Path) -> Path:
    """A file with the domain. log: what it says on its serial line."""
    file = Path(site.info.run_dir) / "hand.xml"
    file.write_text(_DOMAIN.format(name=NAME, kernel=kernel, initrd=initrd, cmdline=cmdline, mac=MAC, tap=TAP, log=log))
    return file


def create(site: Lab, host: str, file: Path) -> None:
    """The domain runs."""
    on(site, host, "virsh", "-q", "create", str(file))


def destroy(site: Lab) -> None:
    """It runs nowhere."""
    for host in ("n1", "n2"):
        on(site, host, "virsh", "-q", "destroy", NAME, check=False)


def migrate(site: Lab, source: str, target: str) -> tuple[float, float]:
    """Seconds that `virsh migrate` takes, and ms that the machine stood still."""
    began = time.perf_counter()
    on(site, source, "virsh", "migrate", "--live", "--p2p", NAME, f"qemu+tcp://{UNDERLAY[target]}/system")
    took = time.perf_counter() - began
    told = on(site, target, "virsh", "domjobinfo", "--completed", NAME)
    words = next(line.split() for line in told.splitlines() if line.startswith("Total downtime:"))
    return took, float(words[2])
