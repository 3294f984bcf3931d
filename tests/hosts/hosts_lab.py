"""A machine of the test's own: fresh mount, network and PID namespaces in which a script runs as on a new boot."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

_MACHINE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Whoever is first in these namespaces has what a machine just booted has: no links, no names, no processes."""

_PREAMBLE = """
set -euo pipefail
mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mkdir /run/netns
ip link set lo up
agents=
"""


class Machine:
    """Runs scripts in `work`; `look` in a script writes a snapshot, `shot` reads it."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self._shots = folder / "shots"
        self.work.mkdir()
        self._shots.mkdir()
        (self.work / "examples").symlink_to(ROOT / "examples")

    def look(self, name: str | int) -> str:
        """A line of a script."""
        argv = [sys.executable, "-I", str(HERE / "snapshot.py"), "/run", "/var/lib", str(self.work)]
        return f"{shlex.join(argv)} > {shlex.quote(str(self._shots / str(name)))}"

    def run(self, *script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """All lines in one shell, which stops at the first that fails."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PLAYGROUND_")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        return subprocess.run(
            [*_MACHINE, "bash", "-c", "\n".join([_PREAMBLE, f"cd {shlex.quote(str(self.work))}", *script])],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    def shot(self, name: str | int) -> dict[str, Any]:
        """What the machine held then, but for what the reader's own firewall says."""
        found: dict[str, Any] = json.loads((self._shots / str(name)).read_text())
        for namespace in found["networks"].values():
            namespace["rules"] = "\n".join(namespace["rules"]).partition("table inet own")[0].strip()
        return found

    def logs(self) -> str:
        """The end of every daemon's log, for a failing test."""
        return "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in self.work.glob("*.log"))
