"""Every sentence of `playground.store.api`, claimed of every engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from store_lab import Clock, collecting, events_up_to, put_for_a_moment, until

from playground.store.api import (
    LIMIT_BYTES,
    LIMIT_OPS,
    Compacted,
    Compare,
    Conflict,
    Delete,
    Event,
    Item,
    LeaseId,
    LeaseLost,
    Put,
    Revision,
    Store,
    StoreError,
    TooLarge,
)

R0 = Revision(0)


def keys(items: list[Item]) -> list[str]:
    return [item.key for item in items]


SORTED = ["a", "a/", "a/b", "a/\U0010ffff", "a0", "nul", "nul\0a", "é", "\ud7ff", "\ud7ffx", "\ue000"]
SORTED += ["\U0010ffff", "\U0010ffff\U0010ffff"]


async def put(store: Store, *names: str, value: bytes = b"v", lease: LeaseId | None = None) -> Revision:
    revision = await store.commit([], [Put(name, value, lease) for name in names])
    assert not isinstance(revision, Conflict)
    return revision


# --- get and list


async def test_an_empty_store_is_at_revision_0(store: Store) -> None:
    assert await store.get("a") is None
    assert await store.list("") == ([], 0)


async def test_an_item_says_what_was_written_and_when(store: Store) -> None:
    await put(store, "other")
    await put(store, "a", value=b"1")
    assert await store.get("a") == Item("a", b"1", Revision(2), Revision(2), None)
    await put(store, "a", value=b"2")
    assert await store.get("a") == Item("a", b"2", Revision(2), Revision(3), None)


async def test_a_key_made_anew_is_created_anew(store: Store) -> None:
    await put(store, "a")
    await store.commit([], [Delete("a")])
    await put(store, "a")
    assert await store.get("a") == Item("a", b"v", Revision(3), Revision(3), None)


async def test_an_empty_value_is_a_value(store: Store) -> None:
    await put(store, "a", value=b"")
    item = await store.get("a")
    assert item is not None
    assert item.value == b""


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a/", ["a/", "a/b", "a/\U0010ffff"]),
        ("a", ["a", "a/", "a/b", "a/\U0010ffff", "a0"]),
        ("a/b", ["a/b"]),
        ("a/b/", []),
        ("a0", ["a0"]),
        ("\U0010ffff", ["\U0010ffff", "\U0010ffff\U0010ffff"]),
        ("\U0010ffff\U0010ffff", ["\U0010ffff\U0010ffff"]),
        ("\ud7ff", ["\ud7ff", "\ud7ffx"]),
        ("é", ["é"]),
        ("nul\0", ["nul\0a"]),
        ("A", []),
        ("_", []),
        ("%", []),
        ("", SORTED),
    ],
)
async def test_a_prefix_is_just_text_and_keys_sort_by_code_point(
    store: Store, prefix: str, expected: list[str]
) -> None:
    await put(store, *reversed(SORTED))
    items, revision = await store.list(prefix)
    assert keys(items) == expected
    assert revision == 1
    if expected:
        assert [event.key for event in await events_up_to(store, prefix, R0, 1)] == expected


async def test_a_long_list_is_like_a_short_one(store: Store) -> None:
    names = [f"n/{number:04}" for number in range(700)]
    for start in range(0, len(names), 100):
        await put(store, *names[start : start + 100])
    items, revision = await store.list("n/")
    assert keys(items) == names
    assert revision == 7


async def test_a_list_is_of_one_revision_while_others_write(store: Store) -> None:
    first = [f"p/{number:03}" for number in range(100)]
    rest = [f"p/{number:03}" for number in range(100, 400)]
    for start in range(0, 300, 100):
        await put(store, *rest[start : start + 100])

    async def flip() -> None:
        for turn in range(30):
            await put(store, *first, value=str(turn).encode())

    writer = asyncio.create_task(flip())
    while not writer.done():
        items, _ = await store.list("p/")
        assert len({item.value for item in items if item.key in first}) <= 1
        await asyncio.sleep(0)
    await writer


# --- commit


async def test_a_compare_holds_only_at_the_revision_that_wrote_last(store: Store) -> None:
    first = await put(store, "a")
    second = await put(store, "a")
    assert await store.commit([Compare("a", first)], [Put("a", b"x")]) == Conflict(("a",))
    assert await store.commit([Compare("a", second)], [Put("a", b"x")]) == 3


async def test_compare_0_holds_only_for_an_absent_key(store: Store) -> None:
    assert await store.commit([Compare("a", 0)], [Put("a", b"x")]) == 1
    assert await store.commit([Compare("a", 0)], [Put("a", b"y")]) == Conflict(("a",))
    assert await store.commit([], [Delete("a")]) == 2
    assert await store.commit([Compare("a", 0)], [Put("a", b"z")]) == 3


async def test_a_conflict_names_the_keys_that_failed_and_changes_nothing(store: Store) -> None:
    await put(store, "a", "b", "c")
    compares = [Compare("c", 9), Compare("a", 1), Compare("b", 0), Compare("absent", 1)]
    result = await store.commit(compares, [Put("a", b"x"), Put("new", b"x"), Delete("b")])
    assert result == Conflict(("c", "b", "absent"))
    items, revision = await store.list("")
    assert [(item.key, item.value) for item in items] == [("a", b"v"), ("b", b"v"), ("c", b"v")]
    assert revision == 1


async def test_a_commit_without_changes_only_compares(store: Store) -> None:
    await put(store, "a")
    assert await store.commit([Compare("a", 1)], []) == 1
    assert await store.commit([Compare("a", 2)], []) == Conflict(("a",))
    assert await store.commit([], []) == 1


async def test_removing_what_is_not_there_is_no_change(store: Store) -> None:
    await put(store, "a")
    assert await store.commit([], [Delete("b")]) == 1
    assert await store.commit([], [Delete("b"), Put("c", b"")]) == 2
    assert await events_up_to(store, "", R0, 2) == [
        Event("a", Item("a", b"v", Revision(1), Revision(1)), Revision(1)),
        Event("c", Item("c", b"", Revision(2), Revision(2)), Revision(2)),
    ]


async def test_writing_the_same_value_is_a_change(store: Store) -> None:
    assert await put(store, "a") == 1
    assert await put(store, "a") == 2
    assert [event.revision for event in await events_up_to(store, "a", R0, 2)] == [1, 2]


async def test_a_full_commit_is_accepted(store: Store) -> None:
    names = [f"{number:03}" for number in range(LIMIT_OPS)]
    assert await store.commit([Compare(name, 0) for name in names], [Put(name, b"") for name in names]) == 1
    assert await store.commit([], [Put("key", b"x" * (LIMIT_BYTES - 3))]) == 2


@pytest.mark.parametrize(
    ("compares", "changes"),
    [
        ([Compare(str(number), 0) for number in range(LIMIT_OPS + 1)], [Put("a", b"")]),
        ([], [Put(str(number), b"") for number in range(LIMIT_OPS + 1)]),
        ([], [Delete(str(number)) for number in range(LIMIT_OPS + 1)]),
        ([], [Put("key", b"x" * (LIMIT_BYTES - 2))]),
        ([], [Put("a", b"x" * (LIMIT_BYTES // 2)), Put("b", b"x" * (LIMIT_BYTES // 2))]),
        ([Compare("é" * (LIMIT_BYTES // 2), 0)], [Put("a", b"")]),
    ],
    ids=["compares", "puts", "deletes", "one value", "values together", "a key in UTF-8"],
)
async def test_a_commit_beyond_the_limits_is_refused_whole(store: Store, compares: Any, changes: Any) -> None:
    with pytest.raises(TooLarge):
        await store.commit(compares, changes)
    assert await store.list("") == ([], 0)


@pytest.mark.parametrize(
    "changes",
    [
        [Put("", b"")],
        [Delete("")],
        [Put("a", b""), Delete("a")],
        [Put("a", b"1"), Put("a", b"2")],
        [Put("\ud800", b"")],
    ],
    ids=["put empty key", "delete empty key", "put and delete", "put twice", "lone surrogate"],
)
async def test_a_commit_that_makes_no_sense_is_refused_whole(store: Store, changes: Any) -> None:
    with pytest.raises(StoreError):
        await store.commit([], [Put("good", b""), *changes])
    assert await store.list("") == ([], 0)


async def test_of_many_who_create_one_key_exactly_one_wins(store: Store) -> None:
    async def claim(owner: int) -> Revision | Conflict:
        return await store.commit([Compare("claim/x", 0)], [Put("claim/x", str(owner).encode())])

    results = await asyncio.gather(*(claim(owner) for owner in range(200)))
    winners = [owner for owner, result in enumerate(results) if not isinstance(result, Conflict)]
    assert len(winners) == 1
    item = await store.get("claim/x")
    assert item is not None
    assert item.value == str(winners[0]).encode()
    assert (await store.list(""))[1] == 1


async def test_no_increment_is_lost_between_many_writers(store: Store) -> None:
    async def increment() -> None:
        while True:
            item = await store.get("n")
            number, seen = (int(item.value), item.modified) if item else (0, 0)
            if not isinstance(await store.commit([Compare("n", seen)], [Put("n", b"%d" % (number + 1))]), Conflict):
                return

    await asyncio.gather(*(increment() for _ in range(40)))
    item = await store.get("n")
    assert item is not None
    assert (item.value, item.modified) == (b"40", 40)


async def test_commits_at_once_get_a_revision_each(store: Store) -> None:
    revisions = await asyncio.gather(*(put(store, f"k{number}") for number in range(100)))
    assert sorted(revisions) == list(range(1, 101))
    assert [item.modified for item in (await store.list(""))[0]] == [
        revisions[int(item.key[1:])] for item in (await store.list(""))[0]
    ]


async def test_what_has_returned_is_seen_by_the_next_read(store: Store) -> None:
    for number in range(20):
        revision = await put(store, "a", value=b"%d" % number)
        item = await store.get("a")
        assert item is not None
        assert item.modified == revision == (await store.list("a"))[1]


# --- watch


async def test_a_watch_tells_the_past_and_goes_on_with_the_present(store: Store) -> None:
    await put(store, "a/1")
    await put(store, "b/1")
    await put(store, "a/2")
    async with collecting(store, "a/", Revision(1)) as batches:
        await until(lambda: bool(batches))
        await put(store, "b/2")
        await store.commit([], [Delete("a/1"), Put("a/3", b"")])
        await until(lambda: len(batches) == 2)
    assert [(e.key, e.item is None, e.revision) for batch in batches for e in batch] == [
        ("a/2", False, 3),
        ("a/1", True, 5),
        ("a/3", False, 5),
    ]


async def test_a_batch_never_splits_a_revision_and_is_never_empty(store: Store) -> None:
    async with collecting(store, "k", R0) as batches:
        await asyncio.gather(*(put(store, *(f"k{n}-{i}" for i in range(7)), f"x{n}") for n in range(60)))
        await until(lambda: sum(map(len, batches)) == 420)
    assert all(batches)
    of = [{event.revision for event in batch} for batch in batches]
    assert sum(map(len, of)) == 60
    revisions = [event.revision for batch in batches for event in batch]
    assert revisions == sorted(revisions)


async def test_events_of_a_revision_come_in_key_order(store: Store) -> None:
    await put(store, "c", "a", "b")
    await store.commit([], [Delete("c"), Put("d", b""), Delete("a")])
    assert [event.key for event in await events_up_to(store, "", R0, 2)] == ["a", "b", "c", "a", "c", "d"]


async def test_every_watcher_sees_every_event_once_and_in_order(store: Store) -> None:
    async with contextlib.AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(collecting(store, f"k{n % 3}", R0)) for n in range(9)]
        writers = [put(store, f"k{number % 3}/{number}") for number in range(150)]
        await asyncio.gather(*writers[:75])
        late = await stack.enter_async_context(collecting(store, "k0", R0))
        await asyncio.gather(*writers[75:])
        await until(lambda: all(sum(map(len, batches)) == 50 for batches in [*watches, late]))
    for number, batches in enumerate([*watches, late]):
        revisions = [event.revision for batch in batches for event in batch]
        assert revisions == sorted(set(revisions)), number
    assert [e for b in late for e in b] == [e for b in watches[0] for e in b]


async def test_a_list_and_a_watch_from_its_revision_miss_nothing(store: Store) -> None:
    async def write() -> None:
        for number in range(60):
            await put(store, f"k{number:02}")

    writer = asyncio.create_task(write())
    await until(lambda: True)
    for _ in range(10):
        items, revision = await store.list("k")
        events = [] if revision == 60 else await events_up_to(store, "k", revision, 60)
        assert keys(items) + [event.key for event in events] == [f"k{number:02}" for number in range(60)]
    await writer


async def test_a_cancelled_wait_loses_nothing_and_the_watch_goes_on(store: Store) -> None:
    watch = store.watch("a", R0)
    seen = []
    for number in range(5):
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            seen += await waiting
        await put(store, f"a{number}")
        seen += await anext(watch)
    assert [event.key for event in seen] == [f"a{number}" for number in range(5)]


async def test_tasks_that_share_a_watch_share_its_events_out(store: Store) -> None:
    watch = store.watch("a", R0)
    seen = []

    async def take() -> None:
        async for events in watch:
            seen.extend(event.revision for event in events)

    tasks = [asyncio.create_task(take()) for _ in range(3)]
    for _ in range(20):
        await put(store, "a")
    await until(lambda: len(seen) == 20)
    assert sorted(seen) == list(range(1, 21))
    await store.close()
    await asyncio.gather(*tasks)


async def test_watches_end_when_the_store_is_closed(store: Store) -> None:
    await put(store, "a")
    waiting, fresh = store.watch("a", R0), store.watch("b", R0)
    assert len(await anext(waiting)) == 1

    async def rest(watch: Any) -> list[Event]:
        return [event async for events in watch for event in events]

    tasks = [asyncio.create_task(rest(watch)) for watch in (waiting, fresh)]
    await asyncio.sleep(0)
    last = asyncio.create_task(put(store, "a"))
    await asyncio.sleep(0)
    await store.close()
    assert await last == 2
    seen, nothing = await asyncio.gather(*tasks)
    assert [event.revision for event in seen] == [2]
    assert nothing == []
    assert await rest(waiting) == []


async def test_history_that_is_gone_is_refused(open_store: Callable[..., Any]) -> None:
    store = open_store(history=10)
    early = store.watch("", R0)
    for _ in range(200):
        await put(store, "a")
    for watch in (early, store.watch("", R0), store.watch("nothing", Revision(100))):
        with pytest.raises(Compacted):
            await anext(watch)
    assert len(await events_up_to(store, "a", Revision(190), 200)) == 10


async def test_a_revision_that_never_was_is_refused(store: Store) -> None:
    await put(store, "a")
    with pytest.raises(Compacted):
        await anext(store.watch("", Revision(2)))


async def test_a_quiet_watch_outlives_compaction(open_store: Callable[..., Any]) -> None:
    store = open_store(history=10)
    async with collecting(store, "quiet", R0) as batches:
        await asyncio.sleep(0)
        for _ in range(200):
            await put(store, "loud")
        await put(store, "quiet")
        await until(lambda: bool(batches))
    assert [event.revision for batch in batches for event in batch] == [201]


async def test_a_slow_reader_gets_all_of_a_long_history(store: Store) -> None:
    watch = store.watch("a", R0)
    await put(store, "a")
    seen = await anext(watch)
    await asyncio.gather(*(put(store, "a" if number % 3 else "b") for number in range(900)))
    while seen[-1].revision < 901:
        seen += await anext(watch)
    assert [event.revision for event in seen] == [1] + [2 + n for n in range(900) if n % 3]


# --- leases (the clock stands still; an empty commit makes the engine look at it)


async def test_a_lease_ends_with_its_time_and_its_keys_go_in_one_revision(
    open_store: Callable[..., Any], clock: Clock
) -> None:
    store = open_store(clock=clock)
    lease = await store.lease(10.0)
    await put(store, "a", "b", lease=lease)
    await put(store, "c")
    clock.now_s += 9.9
    assert await store.commit([], []) == 2
    clock.now_s += 0.2
    assert await store.commit([], []) == 3
    assert keys((await store.list(""))[0]) == ["c"]
    assert await events_up_to(store, "", Revision(2), 3) == [
        Event("a", None, Revision(3)),
        Event("b", None, Revision(3)),
    ]
    with pytest.raises(LeaseLost):
        await store.keepalive(lease)


async def test_keepalive_starts_the_time_anew(open_store: Callable[..., Any], clock: Clock) -> None:
    store = open_store(clock=clock)
    lease = await store.lease(10.0)
    await put(store, "a", lease=lease)
    for _ in range(5):
        clock.now_s += 9.0
        await store.keepalive(lease)
    assert await store.commit([], []) == 1
    clock.now_s += 10.0
    with pytest.raises(LeaseLost):
        await store.keepalive(lease)
    assert await store.get("a") is None


async def test_leases_end_by_themselves_and_watchers_are_told(store: Store) -> None:
    revision = await put_for_a_moment(store, "a")
    assert await anext(store.watch("a", revision)) == [Event("a", None, Revision(revision + 1))]


async def test_a_revoked_lease_takes_its_keys_and_only_them(store: Store) -> None:
    mine, other = await store.lease(60.0), await store.lease(60.0)
    await put(store, "a", "b", lease=mine)
    await put(store, "c", lease=other)
    await put(store, "d")
    await store.revoke(mine)
    items, revision = await store.list("")
    assert keys(items) == ["c", "d"]
    assert revision == 4
    await store.keepalive(other)
    with pytest.raises(LeaseLost):
        await store.keepalive(mine)
    await store.revoke(mine)


async def test_a_lease_without_keys_ends_without_a_revision(store: Store) -> None:
    lease = await store.lease(60.0)
    await store.revoke(lease)
    assert (await store.list(""))[1] == 0


async def test_a_key_follows_its_last_put(store: Store) -> None:
    first, second = await store.lease(60.0), await store.lease(60.0)
    await put(store, "moved", "freed", "kept", lease=first)
    await put(store, "moved", lease=second)
    await put(store, "freed")
    await store.revoke(first)
    assert [(item.key, item.lease) for item in (await store.list(""))[0]] == [("freed", None), ("moved", second)]


async def test_a_put_under_an_ended_lease_changes_nothing(store: Store) -> None:
    lease = await store.lease(60.0)
    await store.revoke(lease)
    with pytest.raises(LeaseLost):
        await store.commit([], [Put("a", b""), Put("b", b"", lease)])
    assert await store.commit([Compare("a", 7)], [Put("b", b"", lease)]) == Conflict(("a",))
    assert await store.list("") == ([], 0)


async def test_put_and_revoke_at_once_leave_no_key_without_its_lease(store: Store) -> None:
    lease = await store.lease(60.0)
    results = await asyncio.gather(
        put(store, "a", lease=lease), store.revoke(lease), put(store, "b", lease=lease), return_exceptions=True
    )
    assert isinstance(results[2], LeaseLost)
    assert await store.list("") == ([], 2)


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("inf"), float("nan")])
async def test_a_lease_needs_a_time(store: Store, ttl_s: float) -> None:
    with pytest.raises(StoreError):
        await store.lease(ttl_s)


# --- elect


async def test_the_next_candidate_is_elected_when_the_first_goes(store: Store) -> None:
    first = await store.elect("boss", "one", 60.0)
    second = asyncio.create_task(store.elect("boss", "two", 60.0))
    other = await store.elect("boss2", "three", 60.0)
    await store.revoke(other)
    await put(store, "elect/boss/else")
    item = await store.get("elect/boss")
    assert item is not None
    assert (item.value, item.lease) == (b"one", first)
    assert not second.done()
    await store.revoke(first)
    lease = await second
    item = await store.get("elect/boss")
    assert item is not None
    assert (item.value, item.lease) == (b"two", lease)


async def test_a_dead_leader_is_followed_when_its_lease_ends(store: Store) -> None:
    await store.elect("boss", "one", 0.05)
    lease = await store.elect("boss", "two", 60.0)
    await store.keepalive(lease)


async def test_there_is_one_leader_at_a_time_among_many(store: Store) -> None:
    leading = 0
    led = []

    async def candidate(name: str) -> None:
        nonlocal leading
        lease = await store.elect("boss", name, 60.0)
        leading += 1
        assert leading == 1
        led.append(name)
        await asyncio.sleep(0)
        leading -= 1
        await store.revoke(lease)

    names = [f"c{number}" for number in range(12)]
    await asyncio.gather(*(candidate(name) for name in names))
    assert sorted(led) == sorted(names)


async def test_a_cancelled_candidate_is_never_elected(store: Store) -> None:
    first = await store.elect("boss", "one", 60.0)
    waiting = [asyncio.create_task(store.elect("boss", "two", 60.0)) for _ in range(5)]
    await asyncio.sleep(0.01)
    await store.revoke(first)
    for turn, task in enumerate(waiting):
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
    for task, result in zip(waiting, await asyncio.gather(*waiting, return_exceptions=True), strict=True):
        if not task.cancelled():
            assert isinstance(result, str)
            await store.revoke(LeaseId(result))
    lease = await store.elect("boss", "three", 60.0)
    assert lease


# --- close


async def test_a_closed_store_refuses_and_may_be_closed_again(store: Store) -> None:
    await put(store, "a")
    lease = await store.lease(60.0)
    waiting = asyncio.create_task(store.elect("boss", "one", 60.0))
    await store.revoke(await waiting)
    await store.close()
    await store.close()
    for call in (
        lambda: store.get("a"),
        lambda: store.list(""),
        lambda: store.commit([], []),
        lambda: store.lease(1.0),
        lambda: store.keepalive(lease),
        lambda: store.revoke(lease),
        lambda: store.elect("x", "y", 1.0),
    ):
        with pytest.raises(StoreError):
            await call()


async def test_what_was_asked_before_closing_is_finished(store: Store) -> None:
    tasks = [asyncio.create_task(put(store, f"k{number}")) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*tasks)) == list(range(1, 51))


async def test_a_candidate_waiting_at_closing_is_told(store: Store) -> None:
    await store.elect("boss", "one", 60.0)
    waiting = asyncio.create_task(store.elect("boss", "two", 60.0))
    await asyncio.sleep(0.01)
    await store.close()
    with pytest.raises(StoreError):
        await waiting
