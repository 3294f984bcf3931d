"""Measures the SQLite store beside what it is compared with, in one run, by turns.

`python benchmarks/bench_store.py [--rounds N] [--folder FOLDER]`; the folder decides which disk is measured. All puts
and claims counted are on the disk. Rates are per second, times in milliseconds, medians over the rounds. Where etcd and
Python's gRPC are installed (`make bench-peers`), three members on the same disk tell a watcher of the same puts: put to
one, watched at another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import etcd
import measure as bench
from netaddr import IPAddress, IPNetwork, IPSet

from playground.store.api import LIMIT_OPS, Compare, Conflict, Put
from playground.store.sqlite import SqliteStore

VALUE = b"x" * 256
SINGLE = 500
GROUP_TASKS = 64
GROUP_PUTS = 100
CLAIM_COMMITS = 100
CLAIMS_AT_ONCE = 8
EVENTS = 300
IPSET_ADDRESSES = 300


async def puts_one_by_one(store: SqliteStore) -> float:
    """Puts a second when each waits for the one before: the disk's own pace."""
    start_s = time.perf_counter()
    for number in range(SINGLE):
        await store.commit([], [Put(f"single/{number}", VALUE)])
    return SINGLE / (time.perf_counter() - start_s)


async def puts_by_many(store: SqliteStore) -> float:
    """Puts a second from 64 tasks, each waiting for its own: group commit."""

    async def task(name: int) -> None:
        for number in range(GROUP_PUTS):
            await store.commit([], [Put(f"group/{name}/{number}", VALUE)])

    start_s = time.perf_counter()
    await asyncio.gather(*(task(name) for name in range(GROUP_TASKS)))
    return GROUP_TASKS * GROUP_PUTS / (time.perf_counter() - start_s)


async def claims_in_batches(store: SqliteStore, turn: int) -> float:
    """Addresses claimed a second: keys created once, 120 a commit, 8 commits on their way."""
    limit = asyncio.Semaphore(CLAIMS_AT_ONCE)

    async def claim(batch: int) -> None:
        names = [f"claim/addr/{turn:012x}/{batch * LIMIT_OPS + number:08x}" for number in range(LIMIT_OPS)]
        async with limit:
            result = await store.commit(
                [Compare(name, 0) for name in names], [Put(name, VALUE[:100]) for name in names]
            )
        assert not isinstance(result, Conflict)

    start_s = time.perf_counter()
    await asyncio.gather(*(claim(batch) for batch in range(CLAIM_COMMITS)))
    return CLAIM_COMMITS * LIMIT_OPS / (time.perf_counter() - start_s)


def ipset_allocations() -> float:
    """Addresses a second out of a netaddr IPSet of a /16, in memory only: take the lowest, remove it."""
    free = IPSet(IPNetwork("10.0.0.0/16"))
    for number in range(64):  # a pool in use is not one block
        free.remove(IPAddress(f"10.0.{number * 4}.128"))
    start_s = time.perf_counter()
    for _ in range(IPSET_ADDRESSES):
        free.remove(next(iter(free)))
    return IPSET_ADDRESSES / (time.perf_counter() - start_s)


async def put_to_event_ms(store: SqliteStore, watchers: int = 1) -> float:
    """From the call of commit until a watcher holds the event, median; others watch other prefixes meanwhile."""
    _, revision = await store.list("event/")
    watch = store.watch("event/", revision)
    others = [asyncio.ensure_future(anext(store.watch(f"other/{n}/", revision))) for n in range(watchers - 1)]
    took = []
    for number in range(EVENTS):
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        start_s = time.perf_counter()
        commit = asyncio.ensure_future(store.commit([], [Put(f"event/{number}", VALUE)]))
        await waiting
        took.append(time.perf_counter() - start_s)
        await commit
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return statistics.median(took) * 1000


def fsync_ms(folder: Path) -> float:
    """What one 4 KiB append and fsync costs here, median: the floor of a single put."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(100):
            start_s = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start_s)
    return statistics.median(took) * 1000


async def etcd_put_to_event_ms(members: Sequence[int]) -> float:
    """From the call of put at one member until a watcher at another holds the event, median."""
    one, other = etcd.Member(members[0]), etcd.Member(members[1])
    watch = other.watch("event/")
    await anext(watch)
    took = []
    for number in range(EVENTS):
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        start_s = time.perf_counter()
        put = asyncio.ensure_future(one.put(f"event/{number}", VALUE))
        await waiting
        took.append(time.perf_counter() - start_s)
        await put
    await watch.aclose()
    for member in (one, other):
        await member.close()
    return statistics.median(took) * 1000


async def measure(folder: Path, rounds: int, members: Sequence[int]) -> dict[str, float]:
    """The medians of all measures."""
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(value)

    for turn in range(rounds):
        store = SqliteStore.open(folder / f"{turn}.db")
        note("fsync_ms", fsync_ms(folder))
        note("puts_single_per_s", await puts_one_by_one(store))
        note("puts_group_per_s", await puts_by_many(store))
        note("claims_batch_per_s", await claims_in_batches(store, turn))
        note("ipset_allocations_per_s", ipset_allocations())
        note("put_to_event_ms", await put_to_event_ms(store))
        if members:
            note("etcd_put_to_event_ms", await etcd_put_to_event_ms(members))
        note("put_to_event_1000_watchers_ms", await put_to_event_ms(store, 1000))
        start_s = time.perf_counter()
        items, _ = await store.list("")
        note("list_items_per_s", len(items) / (time.perf_counter() - start_s))
        await store.close()
    median: Callable[[list[float]], float] = statistics.median
    result = {name: median(values) for name, values in seen.items()}
    result["claims_to_ipset_ratio"] = result["claims_batch_per_s"] / result["ipset_allocations_per_s"]
    result["group_to_single_ratio"] = result["puts_group_per_s"] / result["puts_single_per_s"]
    return {name: float(f"{value:.4g}") for name, value in result.items()}


def main() -> None:
    options = bench.parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--folder", type=Path, default=None, help="where the files are made (default: the temporary one)"
    )
    asked = options.parse_args()
    began = bench.machine()
    bench.note("store")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=asked.folder))
        members = stack.enter_context(etcd.running(asked.folder)) if etcd.is_installed() else []
        figures: bench.Json = dict(asyncio.run(measure(Path(folder), asked.rounds, members)))
    figures["put_to_event_ratio_to_etcd"] = bench.ratio(figures["put_to_event_ms"], figures.get("etcd_put_to_event_ms"))
    bench.publish("store", {"rounds": asked.rounds, "sqlite": sqlite3.sqlite_version, **figures}, began, asked.results)


if __name__ == "__main__":
    main()
