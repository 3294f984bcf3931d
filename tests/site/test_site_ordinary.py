"""An ordinary user has the whole of it: up, probe, a move, down, in a user namespace, with no rights."""

from __future__ import annotations

import json
import os
import shutil
import site as packages
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_site_changes import LAB

import playground

pytestmark = [pytest.mark.system, pytest.mark.long]

ROOT = Path(playground.__file__).parents[1]
NOBODY = 65534
Run = Callable[..., subprocess.CompletedProcess[str]]


def _pythons() -> list[tuple[str, str]]:
    """(interpreter, path of the packages) that a user without any rights may have; the environment's own first."""
    found = packages.getsitepackages()[0]
    return [(python, found) for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}")]


@pytest.fixture
def as_ordinary() -> Iterator[Run]:
    """Runs the command line as a user who owns nothing but two folders."""
    top = Path(tempfile.mkdtemp(prefix="pgo-", dir="/tmp"))
    become: list[str] = []
    if os.geteuid() == 0:
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        become += ["sh", "-c", 'exec "$@"', "-"]  # setpriv itself still has root's rights when it runs a command
        os.chown(top, NOBODY, NOBODY)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(top),
        "PLAYGROUND_SITE": "own",
        "PLAYGROUND_RUN": str(top / "r"),
        "PLAYGROUND_STATE": str(top / "s"),
    }
    for python, found in _pythons():
        environment["PYTHONPATH"] = f"{ROOT}:{found}"
        argv = [*become, python, "-B", "-m", "playground"]
        try:
            tried = subprocess.run([*argv, "--version"], env=environment, cwd="/", capture_output=True)
        except PermissionError:
            continue
        if tried.returncode == 0:
            break
    else:
        shutil.rmtree(top)
        pytest.skip("no interpreter here, or no checkout, that an ordinary user may read")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*argv, *words], env=environment, cwd="/", capture_output=True, text=True, timeout=120)

    (top / "lab.yaml").write_text(LAB)
    try:
        yield lambda *words: run(*(str(top / w) if w == "lab.yaml" else w for w in words))
    finally:
        run("down", "--all")
        shutil.rmtree(top)


def test_an_ordinary_user_brings_it_up_moves_a_workspace_and_takes_it_down(as_ordinary: Run) -> None:
    for words in (("up", "lab.yaml", "--emulate", "3"), ("probe", "lab")):
        done = as_ordinary(*words)
        assert done.returncode == 0, done.stderr
    moved = as_ordinary("migrate", "worker-0", "n3", "--json")
    assert moved.returncode == 0, moved.stderr
    said = json.loads(moved.stdout)
    assert said["state"] == "settled" and said["lost"] <= 1 and said["duplicated"] == 0
    probed = as_ordinary("probe", "lab", "--json")
    assert json.loads(probed.stdout) == {"pairs": 6, "mismatches": []}
    down = as_ordinary("down", "--all")
    assert down.returncode == 0, down.stderr
