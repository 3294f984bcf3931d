"""A store that fell ill, as its users meet it: in commits, at a controller's start, in `playground store check`.

Nothing that was acknowledged is ever lost, what can't be done is refused in one line that says what to do, and the
store goes on as soon as the cause is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from playground.store.api import Put
from playground.store.check import check
from playground.store.sqlite import SqliteStore


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def committed(path: Path, names: list[str]) -> None:
    """Each name is a commit of two keys; the store is closed afterwards."""

    async def work() -> None:
        store = SqliteStore.open(path)
        for name in names:
            await store.commit([], [Put(f"left/{name}", name.encode() * 40), Put(f"right/{name}", name.encode() * 40)])
        await store.close()

    asyncio.run(work())


def names_in(path: Path) -> list[str]:
    """The commits that a store opened anew has, whole ones; AssertionError for a half one."""

    async def work() -> list[str]:
        store = SqliteStore.open(path)
        try:
            halves = [[i.key.partition("/")[2] for i in (await store.list(h))[0]] for h in ("left/", "right/")]
            assert halves[0] == halves[1]
            revision = await store.commit([], [Put("after", b"")])
            assert revision == len(halves[0]) + 1
        finally:
            await store.close()
        return halves[0]

    return asyncio.run(work())


# --- torn


@pytest.fixture
def torn(tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """A store as a power cut leaves it, its write-ahead log whole: (file, where the log's last transaction starts, its
    end). Three commits are in it."""
    path = tmp_path / "live" / "store.db"
    code = """
        import asyncio, os, sys
        from playground.store.api import Put
        from playground.store.sqlite import SqliteStore

        async def main():
            store = SqliteStore.open(sys.argv[1])
            for name in ("a", "b", "c"):
                print(os.stat(sys.argv[1] + "-wal").st_size, flush=True)
                value = name.encode() * 40
                await store.commit([], [Put(f"left/{name}", value), Put(f"right/{name}", value)])
            print(os.stat(sys.argv[1] + "-wal").st_size, flush=True)
            os.kill(os.getpid(), 9)

        asyncio.run(main())
    """
    done = subprocess.run(python(code, path), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *_, start, end = map(int, done.stdout.split())
    assert end > start
    yield path, start, end


def copied(path: Path, folder: Path) -> Path:
    """The store's files in another folder; shared memory is lost with the machine."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), folder / name)
    return folder / path.name


def test_a_log_torn_anywhere_in_its_last_transaction_loses_that_one_whole(
    torn: tuple[Path, int, int], tmp_path: Path
) -> None:
    path, start, end = torn
    # every byte around the headers, and some between: a page is 4 KiB that one checksum covers
    cuts = sorted({*range(start, start + 25), *range(start + 25, end, 311), *range(end - 5, end)})
    for cut in cuts:
        file = copied(path, tmp_path / "torn")
        os.truncate(f"{file}-wal", cut)
        assert names_in(file) == ["a", "b"], f"torn at byte {cut - start} of {end - start}"
    assert check(file) == []
    assert names_in(copied(path, tmp_path / "whole")) == ["a", "b", "c"]


def test_a_log_whose_last_transaction_is_garbled_anywhere_loses_that_one_whole(
    torn: tuple[Path, int, int], tmp_path: Path
) -> None:
    path, start, end = torn
    dice = random.Random(1)
    for at in sorted({*range(start, start + 24), *(dice.randrange(start, end) for _ in range(25))}):
        file = copied(path, tmp_path / "garbled")
        with Path(f"{file}-wal").open("r+b") as log:
            log.seek(at)
            byte = log.read(1)[0]
            log.seek(at)
            log.write(bytes([byte ^ dice.randrange(1, 256)]))
        found = names_in(file)
        assert found in (["a", "b"], ["a", "b", "c"]), f"byte {at - start} of {end - start}: {found}"
    assert check(file) == []


# --- killed in commit

COMMITTER = """
    import asyncio, os, sys
    from playground.store.api import Put
    from playground.store.sqlite import SqliteStore

    async def main():
        store = SqliteStore.open(sys.argv[1])
        start = (await store.list("left/"))[1]
        for turn in range(start, start + 1_000_000):
            name = f"{turn:07}"
            value = name.encode() * 200
            await store.commit([], [Put(f"left/{name}", value), Put(f"right/{name}", value)])
            os.write(1, name.encode() + b"\\n")

    asyncio.run(main())
"""


def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, dice = tmp_path / "store.db", random.Random(7)
    acknowledged: set[str] = set()
    for _ in range(8):
        process = subprocess.Popen(python(COMMITTER, path), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(dice.randrange(1, 60))]
        try:
            process.wait(dice.uniform(0, 0.004))  # anywhere in a commit, which takes about as long
        except subprocess.TimeoutExpired:
            process.kill()
        lines += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
        assert check(path) == []
    lefts, rights = asyncio.run(_halves(path))
    assert lefts == rights and acknowledged <= lefts
    assert len(lefts - acknowledged) <= 8, "at most the one commit of each that nobody was told of"


async def _halves(path: Path) -> tuple[set[str], set[str]]:
    store = SqliteStore.open(path)
    found = [{i.key.partition("/")[2] for i in (await store.list(half))[0]} for half in ("left/", "right/")]
    await store.close()
    return found[0], found[1]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace kills at a chosen system call, and is not here")
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_kill_at_any_system_call_of_a_commit_halves_nothing(tmp_path: Path, call: str) -> None:
    for number in (1, 2, 3, 6):
        path = tmp_path / f"{number}.db"
        committed(path, ["0000001"])
        kill = f"inject={call}:signal=KILL:when={number}"
        inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", kill, "-P", f"{path}-wal"]
        done = subprocess.run([*inject, *python(COMMITTER, path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        acknowledged = {"0000001", *done.stdout.split()}
        assert check(path) == []
        lefts, rights = asyncio.run(_halves(path))
        assert lefts == rights and acknowledged <= lefts


# --- what people are told

SICK = {
    "damaged": ("damaged", "store check"),
    "another's": ("another program's database", "name another file"),
    "text": ("no SQLite database", "name another file"),
    "newer": ("version 99", "upgrade the program"),
    "open": ("is open in process", "stop that one"),
    "a folder": ("is a folder", "name a file"),
    "no folder": ("lies in a file", "name another file"),
}


def _made_sick(path: Path, how: str) -> int | None:
    """Makes the store at `path` ill; a descriptor to be closed afterwards."""
    if how not in ("a folder", "no folder", "another's"):
        committed(path, [f"{number:03}" for number in range(40)])
    match how:
        case "damaged":
            whole = path.read_bytes()
            path.write_bytes(whole[:4096] + bytes(byte ^ 0x5A for byte in whole[4096:]))
        case "another's":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE theirs (x)")
            connection.close()
        case "text":
            path.write_bytes(b"dear diary, today I was mistaken for a database. " * 200)
        case "newer":
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA user_version = 99")
            connection.close()
        case "open":
            held = os.open(f"{path}.lock", os.O_RDWR)
            fcntl.flock(held, fcntl.LOCK_EX)
            return held
        case "a folder":
            path.mkdir()
        case _:
            path.parent.rmdir()
            path.parent.write_text("")
    return None


def started(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A controller on this store, as people start it; it is to refuse."""
    words = ["--site", "sick", "--store", str(path), "--socket", str(folder / "sock")]
    return subprocess.run(
        [sys.executable, "-m", "playground", "controller", *words], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("how", SICK)
def test_a_controller_on_a_sick_store_says_in_one_line_what_it_is_and_what_to_do(tmp_path: Path, how: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "store.db"
    held = _made_sick(path, how)
    before = path.read_bytes() if path.is_file() else b""
    done = started(path, tmp_path)
    said = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert done.returncode == 1 and len(said) == 1, done.stderr
    assert all(word in said[0] for word in ("playground controller: ", *SICK[how])), said
    assert (path.read_bytes() if path.is_file() else b"") == before, "a store that is refused is left as it is"
    if held is not None:
        os.close(held)


SICK_MOUNT = """
    import pathlib, subprocess, sys
    from playground.store.check import check
    folder, how, size = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    path = folder / "store.db"
    command = [sys.executable, "-m", "playground"]
    start = [*command, "controller", "--site", "sick", "--store", str(path), "--socket", sys.argv[4]]
    if how != "full":
        import asyncio
        from playground.store.api import Put
        from playground.store.sqlite import SqliteStore

        async def fill():
            store = SqliteStore.open(path)
            await store.commit([], [Put("left/a", b"1"), Put("right/a", b"1")])
            await store.close()

        asyncio.run(fill())
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    done = subprocess.run(start, capture_output=True, text=True, timeout=60)
    print(done.returncode, done.stderr.strip())
    looked = subprocess.run([*command, "store", "check", str(path)], capture_output=True, text=True)
    print(looked.returncode, looked.stdout.strip(), looked.stderr.strip())
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("how", "size", "told"),
    [("full", "16k", ("full", "free some room")), ("read-only", "1m", ("Read-only file system", "check that"))],
)
def test_a_disk_that_takes_nothing_is_told_at_the_start(
    tmp_path: Path, how: str, size: str, told: tuple[str, str]
) -> None:
    (tmp_path / "disk").mkdir()
    words = python(SICK_MOUNT, tmp_path / "disk", how, size, tmp_path / "sock")
    done = subprocess.run(["unshare", "--mount", "--user", "--map-root-user", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, *looked = done.stdout.splitlines()
    assert said.startswith("1 playground controller: ") and all(word in said for word in told), done.stdout
    assert len(looked) == 1 and "Traceback" not in looked[0], done.stdout
