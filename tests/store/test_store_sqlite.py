"""What only the file can go through: crashes, restarts, a second process, a sick disk, foreign and damaged files."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_lab import Clock, events_up_to, put_for_a_moment, until

from playground.store import check as check_module
from playground.store import feed as feed_module
from playground.store import file as file_module
from playground.store import sqlite as sqlite_module
from playground.store import writer as writer_module
from playground.store.api import Compare, Conflict, LeaseLost, Put, Revision, StoreError
from playground.store.sqlite import SqliteStore, check

R0 = Revision(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Any]:
    """Opens the file; every store is closed after the test."""
    stores: list[SqliteStore] = []

    def open_it(**options: Any) -> SqliteStore:
        stores.append(SqliteStore.open(path, **options))
        return stores[-1]

    yield open_it
    for store in stores:
        asyncio.run(store.close())


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


# --- crash and restart

COMMITTER = """
    import asyncio, sys
    from playground.store.api import Put
    from playground.store.sqlite import SqliteStore

    async def main():
        store = SqliteStore.open(sys.argv[1], history=50)
        async def commit(task):
            for turn in range(1_000_000):
                name = f"{task}-{turn}"
                lease = await store.lease(60) if turn % 10 == 0 else None
                changes = [Put(f"{half}/{name}", name.encode() * 20, lease) for half in ("left", "right")]
                revision = await store.commit([], [*changes, Put(f"last/{task}", name.encode())])
                sys.stdout.write(f"{name} {revision}\\n")
                sys.stdout.flush()
        await asyncio.gather(*(commit(task) for task in range(16)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 150, 700])
async def test_a_kill_in_heavy_committing_loses_nothing_acknowledged_and_halves_nothing(
    path: Path, opened: Any, acknowledged: int
) -> None:
    process = subprocess.Popen(python(COMMITTER, path), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(acknowledged)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL

    store = opened()
    for line in lines:
        if line.endswith("\n"):
            name, revision = line.split()
            left, right = await store.get(f"left/{name}"), await store.get(f"right/{name}")
            assert left is not None, line
            assert right is not None, line
            assert left.modified == right.modified == int(revision)
    halves = [{i.key.partition("/")[2] for i in (await store.list(half))[0]} for half in ("left/", "right/")]
    assert halves[0] == halves[1]
    assert await store.commit([], [Put("after", b"")]) == (await store.list(""))[1]
    assert check(path) == []


async def test_a_restart_keeps_items_revision_and_history(opened: Any) -> None:
    first = opened()
    for number in range(5):
        await first.commit([], [Put(f"k{number}", b"v")])
    items, events = await first.list(""), await events_up_to(first, "", R0, 5)
    await first.close()
    second = opened()
    assert await second.list("") == items
    assert await events_up_to(second, "", R0, 5) == events
    assert await second.commit([Compare("k4", 5)], [Put("k4", b"w")]) == 6
    assert [event.key for event in await events_up_to(second, "", Revision(4), 6)] == ["k4", "k4"]


async def test_a_restart_gives_every_lease_its_full_time_anew(opened: Any, clock: Clock) -> None:
    first = opened(clock=clock)
    lease, ended = await first.lease(10.0), await first.lease(10.0)
    await first.commit([], [Put("a", b"", lease)])
    await first.revoke(ended)
    clock.now_s += 9.0
    await first.close()
    clock.now_s += 1000.0
    second = opened(clock=clock)
    clock.now_s += 9.0
    await second.keepalive(lease)
    with pytest.raises(LeaseLost):
        await second.keepalive(ended)
    clock.now_s += 10.0
    assert await second.commit([], []) == 2
    assert await second.get("a") is None


async def test_closing_leaves_one_file_that_only_its_owner_reads(path: Path, opened: Any) -> None:
    store = opened()
    await store.commit([], [Put("a", b"")])
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    await store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", "store.db.lock"]


def test_a_later_event_loop_goes_on_with_the_same_store(opened: Any) -> None:
    store = opened()
    assert asyncio.run(store.commit([], [Put("a", b"")])) == 1

    async def later() -> None:
        assert await store.commit([], [Put("b", b"")]) == 2
        assert [event.key for event in await events_up_to(store, "", R0, 2)] == ["a", "b"]

    asyncio.run(later())


async def test_leases_that_end_before_anybody_watches_are_told_later(opened: Any, path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sqlite_module, "WATCH_WINDOW", 2)
    first = opened()
    for number in range(5):
        await first.commit([], [Put(f"a{number}", b"", await first.lease(60.0))])
    await first.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lease SET ttl_s = 0.01")
    connection.close()
    second = opened()
    await until(lambda: second._writer._leases.next_due_mono_s == float("inf"))
    events = await events_up_to(second, "a", R0, 10)
    assert [event.item is None for event in events] == [False] * 5 + [True] * 5


async def test_a_watcher_beyond_memory_reads_the_disk_and_comes_back(opened: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 50)
    store = opened()
    watch = store.watch("a", R0)
    seen: list[int] = []
    for number in range(1, 40):
        await store.commit([], [Put("a", b"x" * 20)])
        if number % 7 == 0:
            seen += [event.revision for event in await anext(watch)]
    while seen[-1] < 39:
        seen += [event.revision for event in await anext(watch)]
    assert seen == list(range(1, 40))


async def test_a_keepalive_that_waits_behind_a_slow_disk_still_came_in_time(
    opened: Any, path: Path, monkeypatch: Any, clock: Clock
) -> None:
    monkeypatch.setattr(writer_module, "BATCH_REQUESTS", 1)
    store = opened(clock=clock)
    lease = await store.lease(10.0)
    await store.commit([], [Put("a", b"", lease)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = [asyncio.create_task(store.commit([], [Put("b", b"")])) for _ in range(2)]
    clock.now_s += 9.0
    waiting.append(asyncio.create_task(store.keepalive(lease)))
    await asyncio.sleep(0)
    clock.now_s += 5.0
    other.execute("ROLLBACK")
    other.close()
    await asyncio.gather(*waiting)
    assert await store.get("a") is not None


# --- one transaction for many


async def test_commits_that_wait_together_share_a_transaction(opened: Any, path: Path) -> None:
    store = opened()
    transactions = []
    store._writer._connection.set_trace_callback(lambda sql: transactions.append(sql) if sql == "COMMIT" else None)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    tasks = [asyncio.create_task(store.commit([Compare("k", n)], [Put("k", b"%d" % n)])) for n in range(100)]
    await asyncio.sleep(0)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await asyncio.gather(*tasks) == list(range(1, 101))
    assert len(transactions) <= 2
    assert [e.item.value for e in await events_up_to(store, "k", R0, 100)] == [b"%d" % n for n in range(100)]


async def test_watchers_see_nothing_that_is_not_durable(opened: Any, path: Path, monkeypatch: Any) -> None:
    store = opened()
    watch = store.watch("", R0)
    real = writer_module.Batch.finish

    def finish_never(batch: Any, history: int) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(writer_module.Batch, "finish", finish_never)
    with pytest.raises(StoreError):
        await store.commit([], [Put("lost", b"")])
    monkeypatch.setattr(writer_module.Batch, "finish", real)
    assert await store.commit([], [Put("kept", b"")]) == 1
    assert [event.key for event in await anext(watch)] == ["kept"]
    assert await store.get("lost") is None


# --- one process


async def test_a_second_process_is_refused_and_told_who_holds_the_file(opened: Any, path: Path) -> None:
    opened()
    code = """
        import sys
        from playground.store.api import StoreError
        from playground.store.sqlite import SqliteStore
        try:
            SqliteStore.open(sys.argv[1])
        except StoreError as error:
            print(error)
    """
    told = subprocess.run(python(code, path), capture_output=True, text=True, check=True).stdout
    assert f"process {os.getpid()};" in told
    with pytest.raises(StoreError, match=f"process {os.getpid()};"):
        SqliteStore.open(path)


async def test_the_file_is_free_again_after_closing(opened: Any) -> None:
    await opened().close()
    opened()


def test_a_refused_file_is_not_kept_locked(path: Path) -> None:
    path.write_bytes(b"this is not a database, only text that is long enough to look like one" * 20)
    with pytest.raises(StoreError):
        SqliteStore.open(path)
    with path.with_name("store.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- versions and foreign files


def test_a_newer_store_is_refused_and_left_alone(path: Path, opened: Any) -> None:
    asyncio.run(opened().close())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"version 99.*upgrade the program"):
        SqliteStore.open(path)
    assert path.read_bytes() == before
    assert "version 99" in check(path)[0]


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        SqliteStore.open(path)
    assert path.read_bytes() == before


async def test_an_older_store_is_upgraded_with_all_it_holds(path: Path, opened: Any, monkeypatch: Any) -> None:
    first = opened()
    await first.commit([], [Put("a", b"v")])
    await first.close()
    step = ("ALTER TABLE item ADD COLUMN note TEXT", "UPDATE item SET note = 'upgraded'")
    monkeypatch.setattr(file_module, "STEPS", (*file_module.STEPS, step))
    second = opened()
    assert (await second.get("a")).value == b"v"
    assert check(path) == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT note FROM item").fetchall() == [("upgraded",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_an_upgrade_that_fails_leaves_the_old_store_usable(opened: Any, path: Path, monkeypatch: Any) -> None:
    asyncio.run(opened().close())
    with monkeypatch.context() as patch:
        step = ("ALTER TABLE item ADD COLUMN note TEXT", "UPDATE nowhere SET note = 1")
        patch.setattr(file_module, "STEPS", (*file_module.STEPS, step))
        with pytest.raises(StoreError):
            SqliteStore.open(path)
    assert asyncio.run(opened().commit([Compare("a", 0)], [Put("a", b"")])) == 1


# --- a sick disk


async def test_a_full_file_refuses_whole_commits_and_goes_on_when_there_is_room(
    opened: Any, path: Path, monkeypatch: Any, clock: Clock
) -> None:
    pages = 60
    real = file_module.connect

    def connect_small(path: Path, *, may_write: bool) -> sqlite3.Connection:
        connection = real(path, may_write=may_write)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(writer_module, "connect", connect_small)
    store = opened(clock=clock)
    lease = await store.lease(10.0)
    kept = await store.commit([], [Put("small", b"1", lease)])
    big = [Put(f"big/{number}", b"x" * 5000) for number in range(100)]
    with pytest.raises(StoreError, match="full; free some room"):
        await store.commit([], big)
    assert await store.list("") == ([await store.get("small")], kept)
    clock.now_s += 9.0
    await store.keepalive(lease)
    assert await store.commit([], [Put("small", b"2", lease)]) == kept + 1
    with pytest.raises(StoreError, match="full"):
        await store.commit([], big)
    pages = 1000
    assert await store.commit([], big) == kept + 2
    assert [event.revision for event in await events_up_to(store, "big", R0, kept + 2)] == [kept + 2] * 100
    assert check(path) == []


FULL_DISK = """
    import asyncio, pathlib, subprocess, sys
    from playground.store.api import Put, StoreError
    from playground.store.sqlite import SqliteStore, check

    folder = pathlib.Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * (1 << 20))

    async def main():
        store = SqliteStore.open(folder / "store.db")
        acknowledged = 0
        try:
            while acknowledged < 1000:
                await store.commit([], [Put(f"k/{acknowledged}", b"v" * 20_000)])
                acknowledged += 1
        except StoreError as error:
            print(error)
        assert len((await store.list("k/"))[0]) == acknowledged
        ballast.unlink()
        revision = await store.commit([], [Put("after", b"x" * 20_000)])
        assert revision == acknowledged + 1, (revision, acknowledged)
        await store.close()
        print(check(folder / "store.db"))

    asyncio.run(main())
"""


@pytest.mark.system
def test_a_really_full_disk_refuses_and_the_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount", "--user", "--map-root-user"]
    trial = subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"no mount namespace here: {trial.stderr.strip()}")
    done = subprocess.run([*unshare, *python(FULL_DISK, tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, problems = done.stdout.splitlines()
    assert "the disk is full; free some room" in told
    assert problems == "[]"


async def test_a_file_locked_by_another_program_is_told_and_tried_again(
    opened: Any, path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(file_module, "BUSY_S", 0.01)
    store = opened()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program keeps it locked"):
        await store.commit([], [Put("a", b"")])
    other.execute("ROLLBACK")
    other.close()
    assert await store.commit([], [Put("a", b"")]) == 1


async def test_a_lease_whose_end_cant_be_written_runs_on_and_ends_later(opened: Any, monkeypatch: Any) -> None:
    failures = 0
    real = writer_module.Batch.finish

    def finish_badly(batch: Any, history: int) -> None:
        nonlocal failures
        if batch.ended and failures < 3:
            failures += 1
            raise sqlite3.OperationalError("disk I/O error")
        real(batch, history)

    monkeypatch.setattr(writer_module, "RETRY_S", 0.01)
    monkeypatch.setattr(writer_module.Batch, "finish", finish_badly)
    store = opened()
    revision = await put_for_a_moment(store, "a")
    assert [event.item is None for event in await anext(store.watch("a", revision))] == [True]
    assert failures == 3


async def test_keepalives_hold_while_the_disk_takes_nothing(opened: Any, monkeypatch: Any, clock: Clock) -> None:
    store = opened(clock=clock)
    lease = await store.lease(10.0)
    await store.commit([], [Put("a", b"", lease)])
    with monkeypatch.context() as patch:

        def refuse(batch: Any, history: int) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        patch.setattr(writer_module.Batch, "finish", refuse)
        clock.now_s += 9.0
        written, kept = await asyncio.gather(
            store.commit([], [Put("b", b"")]), store.keepalive(lease), return_exceptions=True
        )
        assert isinstance(written, StoreError)
        assert kept is None
    clock.now_s += 9.0
    assert await store.commit([], []) == 1
    assert await store.get("a") is not None


async def test_a_bug_in_one_batch_reaches_its_callers_and_the_writer_lives(opened: Any, monkeypatch: Any) -> None:
    store = opened()
    with monkeypatch.context() as patch:
        patch.setattr(writer_module.Batch, "commit", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await store.commit([], [Put("a", b"")])
    assert await store.commit([], [Put("a", b"")]) == 1


@pytest.mark.parametrize("name", ["folder", "file/store.db"])
def test_a_path_that_cant_be_opened_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=name):
        SqliteStore.open(tmp_path / name)


# --- check


async def test_check_finds_nothing_in_a_store_at_work(opened: Any, path: Path) -> None:
    store = opened(history=20)
    lease = await store.lease(60.0)
    for number in range(120):
        assert not isinstance(await store.commit([], [Put(f"k{number % 7}", b"v", lease)]), Conflict)
        if number % 40 == 0:
            assert check(path) == []
    await store.revoke(lease)
    assert check(path) == []
    assert await store.commit([], [Put("a", b"")]) == 122


def test_check_tells_that_there_is_no_file_and_makes_none(path: Path) -> None:
    assert check(path) == [f"{path} is not there"]
    assert not path.exists()


def test_check_tells_what_is_not_up_to_date(path: Path, opened: Any, monkeypatch: Any) -> None:
    path.write_bytes(b"")
    assert check(path) == [f"{path} is empty; start the controller once, which brings it up to date"]
    opened()
    assert check(path) == []
    monkeypatch.setattr(check_module, "STEPS", (*file_module.STEPS, ("SELECT 1",)))
    assert "schema version 1 of 2" in check(path)[0]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE item SET value = 'other' WHERE key = 'b'", "item b: differs from its last event"),
        ("DELETE FROM item WHERE key = 'b'", "item b: differs from its last event"),
        ("INSERT INTO item VALUES ('c', x'', 1, 1, NULL)", "item c: was last modified at 1"),
        ("UPDATE item SET modified = 99 WHERE key = 'a'", "item a: created at 1, modified at 99"),
        ("UPDATE item SET lease = 'nobody' WHERE key = 'a'", "item a: belongs to lease nobody"),
        ("DELETE FROM log WHERE revision = 2", "log: 2 revisions are there, 3 should be"),
        ("INSERT INTO log VALUES (9, 'z', x'', 9, NULL)", "log: revision 9 lies outside 1…3"),
        ("INSERT INTO log VALUES (3, 'z', x'', NULL, NULL)", "log: z at revision 3 says neither"),
        ("UPDATE head SET compacted = 7", "head: the log is compacted up to revision 7"),
        ("DELETE FROM head", "head: 0 rows"),
    ],
)
async def test_check_names_what_does_not_fit(opened: Any, path: Path, damage: str, told: str) -> None:
    store = opened()
    await store.commit([], [Put("a", b"v")])
    await store.commit([], [Put("b", b"v")])
    await store.commit([], [Put("b", b"w")])
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute(damage.replace("'other'", "x'00'"))
    connection.commit()
    connection.close()
    assert any(problem.startswith(told) for problem in check(path)), check(path)


async def test_a_damaged_file_is_told_by_check_and_by_reading(opened: Any, path: Path) -> None:
    store = opened()
    for number in range(40):
        await store.commit([], [Put(f"k{number:02}", b"v" * 3000)])
    await store.close()
    damaged = bytearray(path.read_bytes())
    damaged[8192:] = bytes(byte ^ 0x5A for byte in damaged[8192:])
    path.write_bytes(damaged)
    assert check(path) != []
    with pytest.raises(StoreError, match=r"damaged|no SQLite database"):
        await opened().list("")
