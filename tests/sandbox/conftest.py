"""A site of the test's own: short paths, a name of its own, and nothing of it left afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_lab import Folders

from playground import sandbox


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Folders]:
    """Below /tmp, because pytest's own are too long for a socket's path."""
    top = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    top.chmod(0o777)
    made = Folders(top / "r", top / "s")
    monkeypatch.setenv("PLAYGROUND_RUN", str(made.run))
    monkeypatch.setenv("PLAYGROUND_STATE", str(made.state))
    yield made
    shutil.rmtree(top)


@pytest.fixture
def site(folders: Folders) -> Iterator[str]:
    """A site name; whatever runs of it is stopped."""
    yield "east"
    sandbox.stop("east")
