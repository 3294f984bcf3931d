"""The same claims without root: in a user namespace, as an ordinary user has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSIDE = "PLAYGROUND_TESTS_IN_USER_NAMESPACE"


def a_python_for_anyone() -> str:
    """An interpreter of this version that the user nobody may run."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        tried = ["su", "-s", "/bin/sh", "nobody", "-c", f"{python} -c 1"]
        if os.geteuid() != 0 or subprocess.run(tried, capture_output=True).returncode == 0:
            return python
    pytest.skip("the user nobody may run no Python of this version")


def test_guests_run_and_move_in_an_unprivileged_user_namespace(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.environ.get(INSIDE):
        pytest.skip("this is the run inside the user namespace")
    python = a_python_for_anyone()
    packages = ":".join(path for path in sys.path if path.endswith("-packages"))
    unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]
    base = Path("/tmp") / f"playground-tests-{os.getpid()}"
    what = [str(HERE / name) for name in ("test_driver_conformance.py", "test_netns_guest.py", "test_netns_moves.py")]
    chosen = "netns and (goes_by or aborted or init_died or broadcast or moving_guest or comes_by_dhcp or eui64 or tty)"
    chosen += " and not programs"  # which nobody but root may load
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(base), "-k", chosen, *what]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
        INSIDE: "1",
    }
    command = ["env", *(f"{key}={value}" for key, value in environment.items()), *unshare, *argv]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    probe = [*command[: -len(argv)], "true"]
    if (tried := subprocess.run(probe, capture_output=True, text=True)).returncode != 0:
        pytest.skip(f"unprivileged user namespaces are not permitted here: {tried.stderr.strip()}")
    reads = [*command[: -len(argv)], "test", "-r", str(ROOT / "pyproject.toml")]
    if subprocess.run(reads).returncode != 0:
        pytest.skip(f"the user nobody may not read {ROOT}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    shutil.rmtree(base, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]
