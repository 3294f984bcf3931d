"""Sites whose programs can be made to die, or be cut off, at a moment of the test's choosing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from playground import sandbox
from tests.site.site_lab import Site


@contextmanager
def _settled(top: Path) -> Iterator[None]:
    """This site's folders, for as long as the sandbox's verbs read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAYGROUND_RUN", str(top / "r"))
        patch.setenv("PLAYGROUND_STATE", str(top / "s"))
        yield


@contextmanager
def a_site(name: str, emulate: int, commands: Any) -> Iterator[Site]:
    """A site of its own, up; nothing is left of it. commands: as of `sandbox.ensure`."""
    with ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="pgf-", dir="/tmp"))  # pytest's folders are too long for a socket's path
        stack.callback(shutil.rmtree, top, ignore_errors=True)

        def stop() -> None:
            with _settled(top):
                sandbox.stop(name)

        stack.callback(stop)
        with _settled(top):
            info = sandbox.ensure(name, emulate, commands=lambda plan: commands(plan, top))
        site = Site(name, info, top / "r", top / "s", top)
        stack.callback(_keep_logs, site)
        site.await_hosts()
        yield site


def _keep_logs(site: Site) -> None:
    """For the report of a failing test, when PLAYGROUND_KEEP_LOGS names a folder."""
    if folder := os.environ.get("PLAYGROUND_KEEP_LOGS"):
        for path in site.state.glob("*/**/*.log"):
            target = Path(folder) / site.files.name / path.relative_to(site.state)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
