"""Which emulated sites a test gets: one of its module's, or any of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from site_lab import MakeSite, Site, emulated

from playground import doctor


@pytest.fixture(scope="session", autouse=True)
def _allowed() -> None:
    if reason := doctor.why_no_sandbox():
        pytest.skip(f"a site needs namespaces: {reason}")


@pytest.fixture
def a_site() -> Iterator[MakeSite]:
    """Makes emulated sites: `a_site("west", 2, **words of sandbox.ensure)`."""
    with ExitStack() as stack:

        def make(name: str, emulate: int, **words: Any) -> Site:
            return stack.enter_context(emulated(name, emulate, **words))

        yield make


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Three hosts that the tests of one module share; each brings the playgrounds there that it needs."""
    with emulated("east", 3) as made:
        yield made
