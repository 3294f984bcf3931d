"""Random histories on SQLite equal those of the dumb store in memory: answers, items, revisions, events."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from store_lab import DEADLINE_S, Clock, events_up_to

from playground.store.api import Compare, Delete, Event, Item, LeaseId, LeaseLost, Put, Revision, Store
from playground.store.memory import MemoryStore
from playground.store.sqlite import SqliteStore, check

KEYS = st.sampled_from(["a", "a/", "a/b", "a0", "b", "é/\U0010ffff"])


@dataclass(frozen=True)
class Guess:
    """A compare whose revision is counted back from the newest, so that it often holds."""

    key: str
    back: int | None


@dataclass(frozen=True)
class Commit:
    guesses: tuple[Guess, ...]
    puts: dict[str, tuple[bytes, int | None]]
    deletes: frozenset[str]


@dataclass(frozen=True)
class Grant:
    ttl_s: float


@dataclass(frozen=True)
class OnLease:
    verb: str
    lease: int


@dataclass(frozen=True)
class Pass:
    seconds: float


@dataclass(frozen=True)
class Reopen:
    pass


Step = Commit | Grant | OnLease | Pass | Reopen
LEASE = st.integers(0, 2)
COMMIT = st.builds(
    Commit,
    st.lists(st.builds(Guess, KEYS, st.none() | st.integers(0, 3)), max_size=1).map(tuple),
    st.dictionaries(KEYS, st.tuples(st.sampled_from([b"", b"x", b"yy"]), st.none() | LEASE), max_size=3),
    st.frozensets(KEYS, max_size=2),
)
STEPS = st.lists(
    st.lists(COMMIT, min_size=1, max_size=6)  # a list is commits at once, which SQLite takes in one transaction
    | st.builds(Grant, st.sampled_from([5.0, 10.0]))
    | st.builds(OnLease, st.sampled_from(["keepalive", "revoke"]), LEASE)
    | st.builds(Pass, st.sampled_from([1.0, 4.0, 11.0]))
    | st.just(Reopen()),
    max_size=12,
)


class Player:
    """Plays steps on one engine; leases have random ids, so they are told by their number."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.leases: list[LeaseId] = []

    def lease(self, number: int | None) -> LeaseId | None:
        return None if number is None else LeaseId("none") if number >= len(self.leases) else self.leases[number]

    def plain(self, item: Item) -> Item:
        return item if item.lease is None else replace(item, lease=LeaseId(str(self.leases.index(item.lease))))

    async def commits(self, commits: list[Commit], newest: int) -> list[object]:
        async def one(commit: Commit) -> object:
            compares = [Compare(g.key, 0 if g.back is None else max(newest - g.back, 0)) for g in commit.guesses]
            changes = [Put(key, value, self.lease(lease)) for key, (value, lease) in commit.puts.items()]
            gone = [Delete(key) for key in commit.deletes - commit.puts.keys()]
            return await answer(self.store.commit(compares, [*gone, *changes]))

        return list(await asyncio.gather(*(one(commit) for commit in commits)))

    async def events(self, prefix: str, after: int, revision: int) -> list[Event]:
        # Another key marks the end, since none of the prefix may be there.
        events = await events_up_to(self.store, "", Revision(after), revision)
        told: list[Event] = []
        if mine := [event for event in events if event.key.startswith(prefix)]:
            told = await events_up_to(self.store, prefix, Revision(after), mine[-1].revision)
        assert told == mine
        return [replace(event, item=event.item and self.plain(event.item)) for event in told]


async def answer(call: Awaitable[object]) -> object:
    try:
        return await call
    except LeaseLost:
        return LeaseLost


async def play(steps: list[list[Commit] | Step], path: Path) -> None:
    clock = Clock()
    oracle = Player(MemoryStore(clock=clock))
    subject = Player(SqliteStore.open(path, clock=clock))
    both = (oracle, subject)
    for step in steps:
        _, newest = await oracle.store.list("")
        match step:
            case list():
                first, second = [await player.commits(step, newest) for player in both]
                assert first == second
            case Grant(ttl_s):
                for player in both:
                    player.leases.append(await player.store.lease(ttl_s))
            case OnLease(verb, number):
                call: Callable[[Player], Any] = lambda p, v=verb, n=number: getattr(p.store, v)(p.lease(n))  # noqa: E731
                first, second = [await answer(call(player)) for player in both]
                assert first == second
            case Pass(seconds):
                clock.now_s += seconds
                assert await oracle.store.commit([], []) == await subject.store.commit([], [])
            case Reopen():
                await subject.store.close()
                subject.store = SqliteStore.open(path, clock=clock)
                for lease in oracle.leases:  # a restart gives every lease its full time anew
                    await answer(oracle.store.keepalive(lease))
    (items, revision), (found, reached) = [await player.store.list("") for player in both]
    assert ([subject.plain(item) for item in found], reached) == ([oracle.plain(item) for item in items], revision)
    for prefix in ("", "a", "a/"):
        for after in range(0, revision, 3):
            assert await subject.events(prefix, after, revision) == await oracle.events(prefix, after, revision)
    await subject.store.close()
    assert check(path) == []


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_random_histories_equal_the_oracle(steps: list[list[Commit] | Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(play(steps, Path(folder) / "store.db"), DEADLINE_S))
