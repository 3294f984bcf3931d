"""Says whether emulated hosts of this machine can have hypervisors, and what would help. Changes nothing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from playground.doctor.packages import install_line, missing_hypervisor

SETGROUPS = Path("/proc/self/setgroups")
"""`deny` in a user namespace that an ordinary user has made (user_namespaces(7))."""

TUN = Path("/dev/net/tun")


def why_no_hypervisors() -> str:
    """A sentence with the remedy; empty where they can."""
    if absent := missing_hypervisor():
        names = ", ".join(tool.program for tool in absent)
        return f"virtual machines need what this machine lacks: {names}; {install_line(absent)}"
    if importlib.util.find_spec("libvirt") is None:
        return "virtual machines need libvirt-python; run: pip install 'playground[libvirt]'"
    if os.geteuid() != 0 or SETGROUPS.read_text().strip() == "deny":
        return (
            "virtual machines on emulated hosts need root: libvirtd sets groups before it starts QEMU, and an ordinary "
            "user's namespaces have none; run the command with sudo, or leave driver: libvirt out"
        )
    if not TUN.exists():
        return f"virtual machines need {TUN}, which this machine lacks; run: modprobe tun"
    return ""
