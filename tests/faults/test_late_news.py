"""What comes late, or not at all: a watch that was left behind, a list that was overtaken, a report of a connection
that its agent has given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from playground import wire
from playground.controller.events import EventLog
from playground.controller.sessions import Sessions
from playground.controller.world import World
from playground.records import HostRecord, ObservedHost, ObservedPort, Record, encode, key_of
from playground.store.api import Delete, Item, Put, Revision, Store
from playground.store.memory import MemoryStore
from playground.store.sqlite import SqliteStore

PORT = "0123456789ab"
MakeStore = Callable[[], Store]


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(whole())


def a_host(name: str) -> HostRecord:
    return HostRecord(name=name, site="lab", underlay="192.0.2.1", token_sha256="one")


async def put(store: Store, *records: Record) -> Revision:
    revision = await store.commit([], [Put(key_of(r), encode(r)) for r in records])
    assert isinstance(revision, int)
    return revision


@pytest.fixture(params=["memory", "sqlite"])
def a_store(request: pytest.FixtureRequest, tmp_path: object) -> MakeStore:
    """A store that forgets its history soon; the SQLite one can be opened again."""
    if request.param == "memory":
        kept = MemoryStore(history=4)
        return lambda: kept
    return lambda: SqliteStore.open(f"{tmp_path}/store.db", history=4)


def test_a_watch_that_missed_a_compaction_lists_again_and_tells_of_what_went(a_store: MakeStore) -> None:
    async def work() -> None:
        store = a_store()
        world = World(store)
        heard: dict[str, bool] = {}
        await put(store, a_host("gone"), a_host("kept"))
        await world.load()
        world.listen(lambda changes, _: heard.update({key: after is not None for key, _, after in changes}))
        await store.commit([], [Delete("host/gone")])
        for number in range(100):  # the engine compacts some time after its history is full
            last = await put(store, a_host(f"new-{number}"))
        following = asyncio.create_task(world.follow())
        await world.reached(last)
        assert set(world.hosts) == {"kept", *(f"new-{n}" for n in range(100))}
        assert heard["host/gone"] is False and heard["host/new-0"] is True
        await world.reached(await put(store, a_host("later")))  # and it follows on
        assert "later" in world.hosts
        following.cancel()
        await store.close()

    run(work())


def test_a_controller_that_starts_on_a_compacted_history_has_the_whole_world(a_store: MakeStore) -> None:
    async def work() -> None:
        store = a_store()
        for number in range(100):
            await put(store, a_host(f"h{number}"))
        if isinstance(store, SqliteStore):
            await store.close()
            store = a_store()
        world = World(store)
        await world.load()
        following = asyncio.create_task(world.follow())
        await world.reached(await put(store, a_host("later")))
        assert len(world.hosts) == 101
        following.cancel()
        await store.close()

    run(work())


class SlowToList(MemoryStore):
    """Reads a list and hands it over only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.go = asyncio.Event(), asyncio.Event()

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        found = await super().list(prefix)
        self.read.set()
        await self.go.wait()
        return found


def test_a_list_that_the_watch_has_overtaken_takes_nothing_back() -> None:
    async def work() -> None:
        store = SlowToList()
        store.go.set()
        await put(store, a_host("old"))
        world = World(store)
        await world.load()
        following = asyncio.create_task(world.follow())
        store.go.clear()
        store.read.clear()
        loading = asyncio.create_task(world.load())
        await store.read.wait()
        await world.reached(await put(store, a_host("new")))
        store.go.set()
        await loading
        assert set(world.hosts) == {"old", "new"}
        following.cancel()

    run(work())


class Connection:
    """An agent's connection to `Sessions`. mute: the agent reads nothing any more, so whoever sends to it waits."""

    def __init__(self, sessions: Sessions) -> None:
        self.welcome, self.mute = asyncio.Event(), False
        self.up: asyncio.Queue[wire.FromAgent] = asyncio.Queue()
        hello = wire.Hello("n1", wire.PROTOCOL, "1", "192.0.2.1", 1500, [], 1.0, 1, "one process")
        self.task = asyncio.create_task(sessions.serve(hello, "one", self._send, self.up.get))

    async def _send(self, text: str) -> None:
        self.welcome.set()
        if self.mute:
            await asyncio.Event().wait()

    def report(self, programmed: str, whole: bool = False) -> None:
        port = ObservedPort(port=PORT, host="n1", generation=1, programmed=programmed)
        self.up.put_nowait(wire.Report(whole, [port, ObservedHost(host="n1", version="1", applied=1)], []))


def test_what_a_lost_connection_delivers_late_is_not_believed() -> None:
    """Neither what was said before the agent dialled anew, nor that it is still there."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, a_host("n1"), a_host("n2"))
        world = World(store)
        await world.load()
        following = asyncio.create_task(world.follow())
        sessions = Sessions(store, world, EventLog(store, world), "internal", [], "lab")
        old = Connection(sessions)
        await old.welcome.wait()
        old.mute = True  # what the controller sends from now on stays in its buffers
        await world.reached(await put(store, a_host("n2b")))
        new = Connection(sessions)
        await new.welcome.wait()
        new.report("forwarding", whole=True)
        while PORT not in world.observed_ports:
            await world.moved(world.revision)
        revision = world.revision
        old.report("waiting")
        await old.task
        assert world.observed_ports[PORT]["n1"].programmed == "forwarding"
        assert world.revision == revision
        for task in (following, new.task):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(following, new.task)

    run(work())


def test_a_report_is_compared_with_what_the_one_before_it_wrote() -> None:
    """Also while the world lags: else a state that comes and goes stays in the store as it was in between."""

    class Lagging(MemoryStore):
        """Tells its watchers late."""

        def watch(self, prefix: str, after: Revision):  # type: ignore[no-untyped-def]
            found = super().watch(prefix, after)

            async def late():  # type: ignore[no-untyped-def]
                async for events in found:
                    await asyncio.sleep(0.02)
                    yield events

            return late()

    async def work() -> None:
        store = Lagging()
        await put(store, a_host("n1"))
        world = World(store)
        await world.load()
        following = asyncio.create_task(world.follow())
        sessions = Sessions(store, world, EventLog(store, world), "internal", [], "lab")
        agent = Connection(sessions)
        await agent.welcome.wait()
        agent.report("forwarding")
        while PORT not in world.observed_ports:
            await world.moved(world.revision)
        agent.report("waiting")
        agent.report("forwarding")
        await asyncio.sleep(0.2)
        item = await store.get(f"observed/port/{PORT}/n1")
        assert item is not None and b"forwarding" in item.value
        for task in (following, agent.task):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(following, agent.task)

    run(work())
