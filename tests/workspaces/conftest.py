from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from namespace_lab import Host, why_not_permitted

from playground.workspaces.drivers.ledger import Ledger


@pytest.fixture(scope="session")
def permitted() -> None:
    """Skips where namespaces can't be made, with the reason."""
    if reason := why_not_permitted():
        pytest.skip(reason)


@pytest.fixture
def hosts(permitted: None) -> Iterator[tuple[Host, Host]]:
    """Two hosts of one kernel."""
    pair = Host("a"), Host("b")
    yield pair
    for host in pair:
        host.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder that hosts of one kernel share; no guest outlives the test."""
    shared = tmp_path / "workspaces"
    yield shared
    if shared.exists():
        for entry in Ledger(shared).read_all():
            if (descriptor := entry.open()) is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                os.close(descriptor)
