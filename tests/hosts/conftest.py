"""Machines for tests of real hosts: as root only, because a real host's agent is in no sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hosts_lab import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if os.geteuid() != 0:
        pytest.skip("real hosts need root: their agents are in no sandbox")
    return Machine(tmp_path)
