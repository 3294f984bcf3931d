"""What this machine is: processors, memory, the MTU towards the underlay. Reads /proc and /sys only."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

DEFAULT_MTU = 1500


def cpus() -> float:
    """Processors that this process may use."""
    return float(len(os.sched_getaffinity(0)))


def memory_mib() -> int:
    """Memory of the machine, in MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def underlay_mtu(address: str) -> int:
    """MTU of the device that carries `address`, in bytes; 1500 when no device has it (yet)."""
    found = subprocess.run(["ip", "-j", "addr", "show"], capture_output=True, check=False)
    if found.returncode != 0:
        return DEFAULT_MTU
    for link in json.loads(found.stdout or b"[]"):
        if any(info.get("local") == address for info in link.get("addr_info", ())):
            return int(link["mtu"])
    return DEFAULT_MTU
