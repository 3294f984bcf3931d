from __future__ import annotations

from collections.abc import Iterator

import pytest
from guarded_lab import Lab


@pytest.fixture(scope="session")
def guarded() -> Iterator[Lab]:
    """Made once; whoever changes its guards puts them back."""
    found = Lab()
    found.guard()
    yield found
    found.close()
