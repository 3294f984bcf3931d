"""docs/hosts.md is true: its blocks are run as they stand, on a machine of the test's own, and leave it as it was."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import page
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = page.read((ROOT / "docs/hosts.md").read_text())

MACHINE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Whoever is first in these namespaces has what a machine just booted has: no links, no names, no processes."""

PREAMBLE = """
set -euo pipefail
mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mkdir /run/netns
ip link set lo up
"""


LOOKS = HOSTS_MADE, IN_USE, HOSTS_FREE, ALL_GONE = 1, 4, len(PAGE.steps) - 1, len(PAGE.steps)
"""After which steps a snapshot is taken."""


def run_page(work: Path, shots: Path) -> subprocess.CompletedProcess[str]:
    """All steps in one shell, with snapshots; the first, 0, before any."""
    (work / "examples").symlink_to(ROOT / "examples")
    for name, text in PAGE.files.items():
        (work / name).write_text(text)
    look = f"{shlex.join([sys.executable, '-I', str(HERE / 'snapshot.py'), '/run', '/var/lib', str(work)])} > {shots}"
    script = [PREAMBLE, f"cd {work}", "agents=", f"{look}/0"]
    for number, step in enumerate(PAGE.steps, 1):
        script += [f"echo '--- step {number}'", step]
        if number in LOOKS:
            script += [f"{look}/{number}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PLAYGROUND_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        [*MACHINE, "bash", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def shot(shots: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shots / str(number)).read_text())
    for namespace in found["networks"].values():  # what the reader's own firewall says is the reader's
        rules = "\n".join(namespace["rules"])
        namespace["rules"] = rules.partition("table inet own")[0].strip()
    return found


@pytest.mark.system
def test_the_pages_blocks_run_and_leave_the_machine_as_it_was(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("real hosts need root: their agents are not in a sandbox")
    work, shots = tmp_path / "work", tmp_path / "shots"
    work.mkdir()
    shots.mkdir()
    done = run_page(work, shots)
    logs = "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in work.glob("*.log"))
    said = f"{done.stdout}\n{done.stderr}{logs}"
    assert done.returncode == 0, said
    assert done.stdout.count("all as modelled") == 2, said
    assert "settled" in done.stdout, said
    assert {"playground-n1", "playground-n1-atlas", "playground-n2"} <= shot(shots, IN_USE)["networks"].keys()
    assert shot(shots, HOSTS_FREE) == shot(shots, HOSTS_MADE)
    assert shot(shots, ALL_GONE) == shot(shots, 0)
