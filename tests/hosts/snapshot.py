"""Prints as JSON what a machine holds: namespaces with links, addresses, routes and rules; processes; mounts; files.

Run with `python -I`, inside the machine: `snapshot.py FOLDER…`. What comes and goes by itself (link-local addresses,
the multicast routes beside them) is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NETNS = Path("/run/netns")


def network_namespaces() -> dict[str, str]:
    """Name → a path to enter it by: those with a name, this one, and any that only a process holds."""
    named = {entry.name: str(entry) for entry in sorted(NETNS.iterdir())}
    known = {Path(path).stat().st_ino for path in named.values()}
    found = dict(named)
    for pid in pids():
        try:
            held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)  # open until the end: the process may be gone before
        except (FileNotFoundError, ProcessLookupError):
            continue
        if (inode := os.fstat(held).st_ino) not in known:
            known.add(inode)
            found[f"of process {pid}"] = f"/proc/{os.getpid()}/fd/{held}"
    return found


def pids() -> list[int]:
    """All processes but this one."""
    return sorted(int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit() and int(e.name) != os.getpid())


def inside(path: str, *argv: str) -> str:
    return subprocess.run(["nsenter", f"--net={path}", *argv], capture_output=True, text=True, check=True).stdout


def network(path: str) -> dict[str, list[str]]:
    links: list[dict[str, Any]] = json.loads(inside(path, "ip", "-json", "-details", "address", "show"))
    return {
        "links": [f"{k['ifname']} {k.get('linkinfo', {}).get('info_kind', '')} mtu {k['mtu']}" for k in links],
        "addresses": [
            f"{k['ifname']} {a['local']}/{a['prefixlen']}"
            for k in links
            for a in k["addr_info"]
            if a["scope"] != "link"
        ],
        "routes": [
            line.strip()
            for family in ("-4", "-6")
            for line in inside(path, "ip", family, "route", "show", "table", "all").splitlines()
            if "fe80:" not in line and "ff00:" not in line
        ],
        "rules": [*inside(path, "ip", "rule").splitlines(), *inside(path, "nft", "list", "ruleset").splitlines()],
    }


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    files = [str(path) for folder in sys.argv[1:] for path in sorted(Path(folder).rglob("*"))]
    shown = {
        "networks": {name: network(path) for name, path in network_namespaces().items()},
        "processes": sorted(filter(None, map(command, pids()))),
        "mounts": sorted(set(mounts) - {str(NETNS)}),
        "files": files,
    }
    json.dump(shown, sys.stdout, indent=1)


main()
