"""The demo, whole and broken off: all its checks hold, and nothing is left of it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from playground import doctor

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def sandboxes_are_possible() -> None:
    if why := doctor.why_no_sandbox():
        pytest.skip(why)


@pytest.fixture
def demo(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "playground", "demo"],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def said(process: subprocess.Popen[str], words: str) -> None:
    """Reads on until a line has the words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"the demo ended without saying {words!r}: {process.communicate()[1]}")


def left_of(run_dir: Path) -> list[str]:
    """Files and processes that belong to a site below this run directory."""
    base = run_dir.parent
    files = [str(path) for folder in (run_dir, base / "state") for path in folder.glob("*")]
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            known_by = [(folder / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:  # it has just ended, or is somebody else's
            continue
        if any(os.fsencode(base) in text for text in known_by):
            processes.append(known_by[0].replace(b"\0", b" ").decode(errors="replace"))
    return files + processes


def nothing_is_left(run_dir: Path) -> bool:
    """Soon: who is killed without warning leaves the clearing up to those who notice."""
    deadline = time.monotonic() + 10
    while left_of(run_dir) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left_of(run_dir)


def test_every_check_of_the_demo_holds_and_it_leaves_nothing(demo: subprocess.Popen[str], run_dir: Path) -> None:
    out, err = demo.communicate(timeout=60)
    assert "FAILED" not in out, out + err
    assert (demo.returncode, err) == (0, "")
    for words in ("30 pairs tried, all as modelled", "14 of 14 addresses", "sent, ", "every byte right", "is gone"):
        assert words in out
    assert left_of(run_dir) == []


@pytest.mark.parametrize(
    "words",
    [pytest.param(None, marks=pytest.mark.long), "and a controller", pytest.param("while", marks=pytest.mark.long)],
)
def test_ctrl_c_at_any_moment_leaves_nothing(words: str | None, demo: subprocess.Popen[str], run_dir: Path) -> None:
    if words is None:
        while not list(run_dir.glob("demo-*")) and demo.poll() is None:
            time.sleep(0.005)
    else:
        said(demo, words)
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=30)
    assert (demo.returncode, "Traceback" in err) == (130, False)
    assert left_of(run_dir) == []


def test_a_killed_demo_leaves_nothing(demo: subprocess.Popen[str], run_dir: Path) -> None:
    said(demo, "atlas is up")
    demo.kill()
    demo.communicate()
    assert nothing_is_left(run_dir)
