"""Sites of the tests' own: short paths, names of their own, and nothing of them left afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from site_lab import Site

from playground import doctor, sandbox

MakeSite = Callable[..., Site]


def _make(stack: ExitStack, name: str, emulate: int, **words: Any) -> Site:
    top = Path(tempfile.mkdtemp(prefix="pgs-", dir="/tmp"))  # pytest's own folders are too long for a socket's path
    stack.callback(shutil.rmtree, top, ignore_errors=True)
    saved = {key: os.environ.get(key) for key in ("PLAYGROUND_RUN", "PLAYGROUND_STATE")}

    def settle() -> None:
        os.environ["PLAYGROUND_RUN"], os.environ["PLAYGROUND_STATE"] = str(top / "r"), str(top / "s")

    def restore() -> None:
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

    def stop() -> None:
        settle()
        try:
            sandbox.stop(name)
        finally:
            restore()

    stack.callback(stop)
    settle()
    try:
        info = sandbox.ensure(name, emulate, **words)
    finally:
        restore()
    site = Site(name, info, top / "r", top / "s", top)
    stack.callback(_show_logs, site)
    site.await_hosts()
    return site


def _show_logs(site: Site) -> None:
    """Kept for the report of a failing test when PLAYGROUND_KEEP_LOGS names a folder."""
    if folder := os.environ.get("PLAYGROUND_KEEP_LOGS"):
        for path in site.state.glob("*/**/*.log"):
            target = Path(folder) / site.files.name / path.relative_to(site.state)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


@pytest.fixture(scope="session", autouse=True)
def _allowed() -> None:
    if reason := doctor.why_no_sandbox():
        pytest.skip(f"a site needs namespaces: {reason}")


@pytest.fixture
def a_site() -> Iterator[MakeSite]:
    """Makes emulated sites: `a_site(emulate=3, name="east", **words of sandbox.ensure)`."""
    with ExitStack() as stack:
        yield lambda emulate=3, name="east", **words: _make(stack, name, emulate, **words)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Three hosts that the tests of one module share; each brings a playground of its own up, and down again."""
    with ExitStack() as stack:
        yield _make(stack, "east", 3)
