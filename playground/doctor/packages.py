"""Owns the Debian packages that playgrounds and tests need: which are missing, and getting them. Knows no kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playground.doctor.check import Check, FixFailed

LOCK_TIMEOUT_S = 120
"""How long apt waits for another apt (a fresh machine updates itself in its first minutes)."""

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/lib/systemd"))
"""Debian gives ordinary users no sbin; what lies there works for them in a namespace of theirs. systemd has its own."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, its package, and what it is for. applet: of busybox; it has to be built in. file: what there is
    instead of a program, a pattern below /."""

    program: str
    package: str
    purpose: str
    applet: str = ""
    file: str = ""

    def is_there(self) -> bool:
        if self.file:
            return any(Path("/").glob(self.file))
        if self.applet and shutil.which(self.applet, path=_PATH):
            return True  # some distributions package the applet by itself
        path = shutil.which(self.program, path=_PATH)
        if path is None or not self.applet:
            return path is not None
        listed = subprocess.run([path, "--list"], capture_output=True, text=True)
        return self.applet in listed.stdout.split()


NEEDED = (
    Tool("ip", "iproute2", "links and addresses"),
    Tool("nft", "nftables", "what ports may send"),
    Tool("protocols", "netbase", "the names of protocols that nft reads", file="etc/protocols"),
    Tool("busybox", "busybox", "the DHCP client of namespace workspaces", applet="udhcpc"),
    Tool("nsenter", "util-linux", "commands inside a sandbox"),
)

HYPERVISOR = (
    Tool("libvirtd", "libvirt-daemon", "virtual machines"),
    Tool(
        "libvirt's QEMU driver",
        "libvirt-daemon-driver-qemu",
        "virtual machines",
        file="usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so",
    ),
    Tool("libvirt's folders", "libvirt-daemon-system", "virtual machines", file="var/log/libvirt"),
    Tool("qemu-system-x86_64", "qemu-system-x86", "virtual machines"),
    Tool("qemu-img", "qemu-utils", "disks of virtual machines"),
)
"""What the hosts of an emulated site need for the driver libvirt."""

FOR_TESTS = (
    *HYPERVISOR,
    Tool(
        "libvirt's LXC driver",
        "libvirt-daemon-driver-lxc",
        "containers by libvirt",
        file="usr/lib/*/libvirt/connection-driver/libvirt_driver_lxc.so",
    ),
    Tool("xmllint", "libxml2-utils", "domains held to libvirt's schema"),
    Tool("virsh", "libvirt-clients", "libvirt by another hand"),
    Tool("cpio", "cpio", "the RAM disk of virtual machines"),
    Tool("gcc", "gcc", "to build libvirt-python"),
    Tool("pkg-config", "pkg-config", "to build libvirt-python"),
    Tool("Python's headers", "python3-dev", "to build libvirt-python", file="usr/include/python3*/Python.h"),
    Tool("libvirt's headers", "libvirt-dev", "to build libvirt-python", file="usr/include/libvirt/libvirt.h"),
    Tool("dhclient", "isc-dhcp-client", "a DHCP client to test with"),
    Tool("dhcpcd", "dhcpcd-base", "a DHCP client to test with"),
    Tool("systemd-networkd", "systemd", "a DHCP client to test with"),
    Tool("dnsmasq", "dnsmasq-base", "a DHCP server to compare with"),
    Tool("dig", "bind9-dnsutils", "names"),
    Tool("drill", "ldnsutils", "names, by another library"),
    Tool("kdig", "knot-dnsutils", "names, by a third one"),
    Tool("ping", "iputils-ping", "reachability"),
    Tool("sysctl", "procps", "the kernel's settings"),
    Tool("curl", "curl", "the API's examples"),
    Tool("jq", "jq", "the API's examples"),
    Tool("tcpdump", "tcpdump", "what is on a wire"),
    Tool("ethtool", "ethtool", "offloads"),
    Tool("iperf3", "iperf3", "throughput"),
    Tool("conntrack", "conntrack", "connection tracking"),
)


def missing(for_tests: bool) -> list[Tool]:
    """Tools that are not there, the needed ones first."""
    return [tool for tool in NEEDED + (FOR_TESTS if for_tests else ()) if not tool.is_there()]


def install_line(tools: list[Tool]) -> str:
    """What a person types to have them."""
    names = " ".join(dict.fromkeys(tool.package for tool in tools))
    if shutil.which("apt-get", path=_PATH) is None:
        return f"install what this distribution calls {names} on Debian"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"run: {sudo}apt-get install --no-install-recommends {names}"


def missing_hypervisor() -> list[Tool]:
    """Tools of `HYPERVISOR` that are not there."""
    return [tool for tool in HYPERVISOR if not tool.is_there()]


def checks(for_tests: bool) -> list[Check]:
    """One check a package."""
    absent = missing(for_tests)
    line = install_line(absent)
    return [
        Check(
            name=f"package {tool.package}",
            ok=tool not in absent,
            detail=f"{tool.applet or tool.program} ({tool.purpose})" + (" is missing" if tool in absent else ""),
            remedy=line,
            is_fixable=True,
            is_optional=tool in FOR_TESTS,
        )
        for tool in NEEDED + (FOR_TESTS if for_tests else ())
    ]


def fix(for_tests: bool, say: Callable[[str], None]) -> None:
    """Installs what is missing in one transaction of apt, all or nothing. Raises FixFailed with apt's own words."""
    absent = missing(for_tests)
    if not absent:
        return
    if shutil.which("apt-get", path=_PATH) is None:
        raise FixFailed(f"there is no apt-get here; {install_line(absent)}")
    names = list(dict.fromkeys(tool.package for tool in absent))
    say(f"installing {' '.join(names)}")
    _apt("update")
    _apt("install", "-y", "--no-install-recommends", *names)
    if still := [tool for tool in absent if not tool.is_there()]:
        raise FixFailed(f"{', '.join(tool.program for tool in still)} still missing after apt-get install")


def _apt(*words: str) -> None:
    quiet = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}", "-o", "Dpkg::Options::=--force-confold"]
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive", "PATH": _PATH}
    done = subprocess.run([*quiet, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-2:]
        raise FixFailed(f"apt-get {words[0]}: {' '.join(said)}")
