from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from playground.sandbox import supervise
from playground.sandbox.plan import Program
from playground.sandbox.supervise import Supervisor
from tests.waiting import eventually


def a_supervisor(folder: Path, *argv: str) -> Supervisor:
    return Supervisor([Program("it", argv)], folder, os.environ, lambda host: None)


def die(supervisor: Supervisor, now_s: float) -> int:
    """Starts what is due, and reaps once it has died; how often that happened."""

    def restarts() -> int:
        supervisor.reap(now_s)
        return int(str(supervisor.status(now_s)[0]["restarts"]))

    before = restarts()
    supervisor.start_due(now_s)
    eventually(lambda: restarts() > before)
    return restarts()


def test_a_program_that_dies_is_started_later_and_later(tmp_path: Path) -> None:
    supervisor = a_supervisor(tmp_path, "false")
    now_s, waits = 1000.0, []
    for death in range(1, 9):
        assert die(supervisor, now_s) == death
        wait = supervisor.start_due(now_s)
        assert wait is not None
        waits.append(round(wait, 3))
        now_s += wait + 0.001
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_program_that_ran_long_is_started_at_once(tmp_path: Path) -> None:
    supervisor = a_supervisor(tmp_path, "sleep", "1000")
    supervisor.start_due(0.0)
    pid = int(str(supervisor.status(0.0)[0]["pid"]))
    os.kill(pid, signal.SIGKILL)

    def is_reaped() -> bool:
        supervisor.reap(supervise.STEADY_S + 1)
        return supervisor.status(0.0)[0]["pid"] is None

    eventually(is_reaped)
    supervisor.start_due(supervise.STEADY_S + 1)
    again = int(str(supervisor.status(0.0)[0]["pid"]))
    assert again != pid
    os.kill(again, signal.SIGKILL)
    os.waitpid(again, 0)


def test_a_program_that_is_not_there_says_so_in_its_log(tmp_path: Path) -> None:
    supervisor = a_supervisor(tmp_path, "/nowhere/at-all")
    die(supervisor, time.monotonic())
    assert "can't start /nowhere/at-all" in supervisor.log_tail("it", 1)[0]


def test_a_log_that_grew_too_long_keeps_its_last_part_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "LOG_LIMIT", 1000)
    monkeypatch.setattr(supervise, "LOG_KEPT", 100)
    supervisor = a_supervisor(tmp_path, "true")
    (tmp_path / "it.log").write_text("x" * 2000 + "the end")
    supervisor.bound_logs()
    assert (tmp_path / "it.log").read_text() == ""
    kept = (tmp_path / "it.log.1").read_text()
    assert len(kept) == 100 and kept.endswith("the end")
