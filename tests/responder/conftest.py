from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from responder_lab import Agent, Guest, Host, Responder, why_not_permitted

_numbers = itertools.count(16)


@pytest.fixture(scope="session")
def permitted() -> None:
    """Skips where namespaces can't be made, with the reason."""
    if reason := why_not_permitted():
        pytest.skip(reason)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="rsp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def host(permitted: None) -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture
def responder(host: Host, short: Path) -> Iterator[Responder]:
    made = Responder(short, host.plane.path)
    yield made
    made.close()


@pytest.fixture
def agent(responder: Responder) -> Iterator[Agent]:
    made = Agent(responder)
    yield made
    made.close()


@pytest.fixture
def a_guest(host: Host) -> Iterator[Callable[[], Guest]]:
    """Makes guests of this host, each with an address and MAC of its own."""
    made: list[Guest] = []

    def make() -> Guest:
        made.append(Guest(host, next(_numbers)))
        return made[-1]

    yield make
    for guest in made:
        guest.__exit__()
