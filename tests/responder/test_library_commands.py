"""The commands of docs/addresses-and-names.md that try both libraries: they are run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from responder_lab import needs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "addresses-and-names.md"
pytestmark = pytest.mark.system


def commands() -> str:
    """Of the page."""
    found = re.search(r"^<!-- libraries -->\n```sh\n(.*?)^```\n", PAGE.read_text(), re.M | re.S)
    assert found is not None
    return found[1]


def test_the_commands_that_try_the_libraries_give_an_address_and_names(permitted: None) -> None:
    for tool in ("busybox", "dig", "unshare"):
        needs(tool)
    with tempfile.TemporaryDirectory(prefix="lib") as folder:
        written = commands().replace(". .venv/bin/activate\n", f"PATH={folder}:$PATH\n")
        written = written.replace("/tmp/lab", f"{folder}/lab")
        (Path(folder) / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (Path(folder) / "python").chmod(0o755)
        # Names and devices of its own, which go with it.
        own = "mount -t sysfs none /sys && mount -t tmpfs none /run && ip link set lo up && exec sh -eu"
        done = subprocess.run(
            ["unshare", "--net", "--mount", "sh", "-c", own],
            input=written,
            cwd=ROOT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "lease of 10.9.0.100 obtained" in done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == ["10.9.0.100", "head.lab.internal."], done.stdout
