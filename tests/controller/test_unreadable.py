"""What a controller does with records that it can't read: nothing, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from playground.controller.controller import Controller
from playground.controller.world import Unreadable
from playground.records import SCHEMA, EventRecord, encode
from playground.spec import load_site
from playground.store.api import Put
from playground.store.memory import MemoryStore

SITE = load_site("name: here\nhosts: {}\n", "site.yaml")
EVENT = encode(EventRecord(id=1, at_utc_s=0.0, what="k", object="o", text="t"))
TOO_NEW = f'{{"kind":"playground","schema":{SCHEMA + 1}}}'.encode()


def held(
    key: str, value: bytes, claim: Callable[[Controller, Callable[[], Awaitable[object]]], Awaitable[None]]
) -> None:
    """claim gets a controller and what puts the value in its store."""

    async def hold() -> None:
        store = MemoryStore()
        await claim(Controller(store, SITE), lambda: store.commit([], [Put(key, value)]))
        await store.close()

    asyncio.run(hold())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("playground/future", TOO_NEW),
        ("playground/torn", b'{"kind":"playgr'),
        ("playground/odd", b"\xff"),
        ("event/000000000002", EVENT),
        ("claim/vni/many", b'{"kind":"claim","schema":1,"owner":"x","playground":"p","change":"c"}'),
        ("claim/vni/7", EVENT),
    ],
)
def test_a_store_with_what_we_cant_read_is_refused_by_name(key: str, value: bytes) -> None:
    async def claim(controller: Controller, put: Callable[[], Awaitable[object]]) -> None:
        await put()
        with pytest.raises(Unreadable, match=key):
            await controller.world.load()

    held(key, value, claim)


def test_a_controller_ends_when_a_newer_one_writes_what_it_cant_read() -> None:
    async def claim(controller: Controller, put: Callable[[], Awaitable[object]]) -> None:
        await controller.world.load()
        running = asyncio.create_task(controller.run())
        await put()
        with pytest.raises(Unreadable, match=r"playground/future.*upgrade"):
            await asyncio.wait_for(running, 5)

    held("playground/future", TOO_NEW, claim)
