"""Who is served as a host's agent, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from playground import wire
from playground.controller.events import EventLog
from playground.controller.sessions import TAKEN, VOID, SessionRefused, Sessions
from playground.controller.world import World
from playground.records import (
    Copied,
    HostRecord,
    MigrationRecord,
    ObservedHost,
    ObservedWorkspace,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
    workspace_id,
)
from playground.store.api import Change, Compare, Put
from playground.store.memory import MemoryStore

N1 = HostRecord(name="n1", site="lab", underlay="2001:db8::11", token_sha256="one")


def a_hello(**changes: object) -> wire.Hello:
    made = wire.Hello(
        host="n1",
        protocol=wire.PROTOCOL,
        version="1",
        underlay="2001:db8::11",
        underlay_mtu=9000,
        drivers=[],
        cpus=2,
        memory_mib=1024,
        instance="a",
    )
    return msgspec.structs.replace(made, **changes)


class Served:
    """One agent's session. `welcome` is set once the controller has spoken. says: what the agent says, and how its
    connection ends."""

    def __init__(self, sessions: Sessions, hello: wire.Hello, token_sha256: str = "one") -> None:
        self.welcome = asyncio.Event()
        self.says: asyncio.Queue[wire.FromAgent | Exception] = asyncio.Queue()
        self.task = asyncio.create_task(sessions.serve(hello, token_sha256, self._send, self._receive))

    async def _send(self, text: str) -> None:
        self.welcome.set()

    async def _receive(self) -> wire.FromAgent:
        said = await self.says.get()
        if isinstance(said, Exception):
            raise said
        return said


class Site:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.world = World(self.store)
        events = EventLog(self.store, self.world)
        self.arrived: asyncio.Queue[ObservedWorkspace] = asyncio.Queue()
        self.sessions = Sessions(self.store, self.world, events, "internal", [], "lab", self.arrived.put)

    async def put(self, record: Record) -> None:
        revision = await self.store.commit([], [Put(key_of(record), encode(record))])
        assert isinstance(revision, int)
        await self.world.reached(revision)

    async def connected(self, hello: wire.Hello) -> Served:
        served = Served(self.sessions, hello)
        await served.welcome.wait()
        return served


@asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    site = Site()
    await site.store.commit([], [Put(key_of(N1), encode(N1))])
    await site.world.load()
    following = asyncio.create_task(site.world.follow())
    try:
        yield site
    finally:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in (following, *others):
            task.cancel()
        with suppress(asyncio.CancelledError, SessionRefused):
            await asyncio.gather(following, *others)
        await site.store.close()


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(whole())


def test_a_new_token_ends_the_session_of_the_old_one() -> None:
    async def work() -> None:
        async with a_site() as site:
            served = await site.connected(a_hello())
            await site.put(msgspec.structs.replace(site.world.hosts["n1"], token_sha256="two"))
            with pytest.raises(SessionRefused, match="token was replaced") as refused:
                await served.task
            assert refused.value.code == VOID
            assert "n1" not in site.sessions.connected

    run(work())


def test_a_token_that_was_replaced_while_it_was_checked_lets_nobody_in() -> None:
    async def work() -> None:
        async with a_site() as site:
            with pytest.raises(SessionRefused, match="token was replaced"):
                await Served(site.sessions, a_hello(), "zero").task
            assert site.world.hosts["n1"] == N1

    run(work())


def test_a_second_agent_of_a_host_is_refused_and_the_first_goes_on() -> None:
    async def work() -> None:
        async with a_site() as site:
            first = await site.connected(a_hello())
            with pytest.raises(SessionRefused, match="another agent of this host") as refused:
                await Served(site.sessions, a_hello(instance="b")).task
            assert refused.value.code == TAKEN
            assert not first.task.done()

    run(work())


def test_an_agent_that_dials_again_replaces_its_own_lost_connection() -> None:
    async def work() -> None:
        async with a_site() as site:
            first = await site.connected(a_hello())
            second = await site.connected(a_hello())
            await first.task
            assert not second.task.done()

    run(work())


def test_an_agent_and_a_site_file_that_differ_on_the_underlay_are_told() -> None:
    async def work() -> None:
        async with a_site() as site:
            with pytest.raises(SessionRefused, match="underlay is 2001:db8::11 in the site file"):
                await Served(site.sessions, a_hello(underlay="192.0.2.1")).task
            await site.connected(a_hello(underlay="2001:DB8:0::11"))
            assert site.world.hosts["n1"].underlay == "2001:db8::11"
            assert site.world.hosts["n1"].underlay_mtu == 9000

    run(work())


def test_every_cause_fits_a_close_frame() -> None:
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff"

    async def work() -> None:
        async with a_site() as site:
            await site.put(msgspec.structs.replace(N1, underlay=f"{longest}1"))
            with pytest.raises(SessionRefused) as refused:
                await Served(site.sessions, a_hello(underlay=f"{longest}2")).task
            assert len(str(refused.value).encode()) <= 123

    run(work())


@pytest.mark.parametrize(
    "said",
    [{"state": "running"}, {"state": "announced"}, {"state": "preparing", "copied": Copied(7, "paused")}],
    ids=lambda said: str(said["state"]),
)
def test_an_arrival_is_heard_while_what_was_said_before_is_being_written(
    said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with a_site() as site:
            w = WorkspaceRecord(
                playground="p", name="w", id=workspace_id("p", "w"), driver="netns", ports=(), host="n2"
            )
            move = MigrationRecord(
                playground="p",
                workspace="w",
                source="n2",
                target="n1",
                state="copying",
                generation=7,
                started_utc_s=0.0,
                deadline_utc_s=0.0,
            )
            await site.put(w)
            await site.put(move)
            served = await site.connected(a_hello())
            commit, go_on = site.store.commit, asyncio.Event()

            async def slow(compares: Sequence[Compare], changes: Sequence[Change]) -> object:
                await go_on.wait()
                return await commit(compares, changes)

            monkeypatch.setattr(site.store, "commit", slow)
            running = ObservedWorkspace(playground="p", workspace="w", host="n1", generation=7, **said)
            served.says.put_nowait(wire.Report(False, [ObservedHost(host="n1", version="1")], []))
            served.says.put_nowait(wire.Report(False, [running], []))
            assert await site.arrived.get() == running
            assert not site.world.observed_hosts
            go_on.set()
            while not site.world.observed_workspaces:
                await site.world.moved(site.world.revision)
            assert site.world.observed_hosts.keys() == {"n1"}

    run(work())


def test_what_was_said_before_the_connection_was_lost_counts() -> None:
    async def work() -> None:
        async with a_site() as site:
            served = await site.connected(a_hello())
            for said in (wire.Report(False, [ObservedHost(host="n1", version="1")], []), ConnectionError("lost")):
                served.says.put_nowait(said)
            with pytest.raises(ConnectionError):
                await served.task
            assert site.world.observed_hosts.keys() == {"n1"}

    run(work())
