"""An isolated run directory, a controller's double in it, and a way to run command lines against it."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_lab import FakeController, Handler, Play, Ran, Server

from playground.cli.main import main


@pytest.fixture
def run_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty run directory of its own (short: a socket's path holds 107 bytes); state lies beside it."""
    base = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    for name in ("PLAYGROUND_SITE", "PLAYGROUND_SERVER", "PLAYGROUND_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLAYGROUND_RUN", str(base / "run"))
    monkeypatch.setenv("PLAYGROUND_STATE", str(base / "state"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield base / "run"
    shutil.rmtree(base)


@pytest.fixture
def controller(run_dir: Path) -> Iterator[FakeController]:
    """Answers at the default site's socket."""
    path = run_dir / "local" / "controller.sock"
    path.parent.mkdir(parents=True)
    fake = FakeController(
        {
            "GET site": {"site": "local", "playgrounds": ["atlas"], "hosts": 3},
            "POST policy/verify": {"hosts": 3, "differences": [], "mended": [], "unobserved": []},
        }
    )
    with Server(str(path), Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def play(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Play:
    """Runs a command line in this process."""

    def run(*words: str) -> Ran:
        code = main(list(words))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run
