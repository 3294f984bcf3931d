"""The pure parts: who runs until when, what a feed remembers, where a prefix ends."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground.store import feed as feed_module
from playground.store.api import Event, Item, LeaseId, Revision
from playground.store.feed import Feed, Place
from playground.store.leases import Leases
from playground.store.sqlite import key_after

TEXT = st.text(st.sampled_from("a/0\0é\ud7ff\ue000\U0010ffff"), max_size=4)


@given(TEXT, TEXT)
def test_keys_between_a_prefix_and_its_end_are_those_that_start_with_it(prefix: str, key: str) -> None:
    end = key_after(prefix)
    assert (prefix <= key and (isinstance(end, bytes) or key < end)) == key.startswith(prefix)


@given(st.lists(st.tuples(st.sampled_from(["grant", "renew", "drop", "due"]), st.integers(0, 3), st.integers(0, 5))))
def test_leases_are_due_exactly_when_their_time_is_over(steps: list[tuple[str, int, int]]) -> None:
    leases, deadlines, ttls, now = Leases(), dict[LeaseId, int](), dict[LeaseId, int](), 0
    for verb, number, seconds in steps:
        lease = LeaseId(str(number))
        now += seconds % 3
        if verb == "grant":
            leases.grant(lease, seconds, now)
            deadlines[lease], ttls[lease] = now + seconds, seconds
        elif verb == "renew":
            assert leases.renew(lease, now) == (lease in deadlines)
            if lease in deadlines:
                deadlines[lease] = now + ttls[lease]
        elif verb == "drop":
            leases.drop(lease)
            deadlines.pop(lease, None)
        assert leases.next_due_mono_s <= min(deadlines.values(), default=float("inf"))
        assert sorted(leases.due(now)) == sorted(lease for lease, due in deadlines.items() if due <= now)


def an_event(revision: int, key: str = "a", size: int = 1) -> Event:
    item = Item(key, b"x" * size, Revision(revision), Revision(revision))
    return Event(key, item, Revision(revision))


def test_a_feed_forgets_the_oldest_beyond_its_size_but_never_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 100)
    feed = Feed(0)
    feed.publish([an_event(1, size=60)])
    feed.publish([an_event(2, size=60)])
    assert (feed.start, feed.end) == (1, 2)
    feed.publish([an_event(3, size=500)])
    assert (feed.start, feed.end) == (2, 3)
    assert feed.read(Place("a", 2)) == [an_event(3, size=500)]


@pytest.mark.parametrize("together", [1, 10])
@pytest.mark.parametrize("value_bytes", [20, 200, 2000])
def test_a_feed_takes_the_memory_that_it_may_and_no_more(
    value_bytes: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 1 << 20)
    feed = Feed(1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for revision in range(1001, 1001 + (3 << 20) // (300 + value_bytes) // together):
            feed.publish([an_event(revision, f"observed/{revision:08}/{n}", value_bytes) for n in range(together)])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 < taken / (1 << 20) < 1.1
    assert feed.start > 1000


def test_a_place_in_the_middle_of_a_batch_is_told_only_the_rest() -> None:
    feed = Feed(0)
    feed.publish([an_event(1), an_event(2), an_event(3), an_event(3, "b")])
    assert feed.read(Place("a", 2)) == [an_event(3)]


def test_after_a_gap_a_feed_starts_anew_and_wakes_everybody() -> None:
    async def scenario() -> None:
        feed = Feed(0)
        place = Place("z", 0)
        waiting = asyncio.create_task(feed.wait(place))
        await asyncio.sleep(0)
        feed.publish([an_event(1)])
        await asyncio.sleep(0)
        assert not waiting.done()
        assert place.after == 1
        feed.publish([an_event(5)])
        await waiting
        assert place.after == 1
        assert (feed.start, feed.end) == (4, 5)

    asyncio.run(scenario())
