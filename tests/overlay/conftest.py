from __future__ import annotations

from pathlib import Path

import pytest
from overlay_lab import missing_right


@pytest.fixture(scope="session")
def permitted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where namespaces can't be made, with the reason."""
    folder: Path = tmp_path_factory.mktemp("probe")
    if reason := missing_right(folder):
        pytest.skip(reason)
