"""Engines for the store's tests, and async test functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_lab import DEADLINE_S, Clock

from playground.store.memory import MemoryStore
from playground.store.sqlite import SqliteStore

Open = Callable[..., Any]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), DEADLINE_S))
    return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a store of the engine under test, with its options; it is closed after the test."""
    opened: list[Any] = []

    def open_it(**options: Any) -> Any:
        made = (
            MemoryStore(**options)
            if request.param == "memory"
            else SqliteStore.open(tmp_path / f"store{len(opened)}.db", **options)
        )
        opened.append(made)
        return made

    yield open_it
    for store in opened:
        asyncio.run(store.close())


@pytest.fixture
def store(open_store: Open) -> Any:
    return open_store()
