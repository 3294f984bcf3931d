"""The SQLite file: its schema and versions, its one holder, its errors in words. Knows no commits and watches."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from playground.store.api import StoreError

APPLICATION_ID = 0x70677374
"""Written into the file's header ("pgst"), so that another program's database is not mistaken for a store."""

BUSY_S = 5.0
"""How long to wait for a foreign program (a backup, a shell) that locks the file."""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        # revision: of the last commit. compacted: the log holds all revisions above it, and none up to it.
        "CREATE TABLE head (only INTEGER PRIMARY KEY CHECK (only = 0), revision INTEGER NOT NULL,"
        " compacted INTEGER NOT NULL) STRICT",
        "INSERT INTO head VALUES (0, 0, 0)",
        "CREATE TABLE item (key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL,"
        " modified INTEGER NOT NULL, lease TEXT) STRICT, WITHOUT ROWID",
        "CREATE INDEX item_lease ON item (lease) WHERE lease IS NOT NULL",
        # One row an event; value and created are NULL when the key was removed.
        "CREATE TABLE log (revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, created INTEGER, lease TEXT,"
        " PRIMARY KEY (revision, key)) STRICT, WITHOUT ROWID",
        "CREATE TABLE lease (id TEXT PRIMARY KEY, ttl_s REAL NOT NULL) STRICT, WITHOUT ROWID",
    ),
)
"""STEPS[n] leads from schema version n to n + 1; version 0 is the empty file. Steps are added, never changed."""


class Head(NamedTuple):
    """Where the store stands. The log holds the revisions in (compacted, revision]."""

    revision: int
    compacted: int


def read_head(connection: sqlite3.Connection) -> Head:
    """The store's head as the connection's transaction sees it."""
    return Head(*connection.execute("SELECT revision, compacted FROM head").fetchone())


def connect(path: Path, *, may_write: bool) -> sqlite3.Connection:
    """A connection in autocommit, durable at each COMMIT; `may_write` false makes every write an error."""
    # Not mode=ro for readers: whoever closes last must be able to fold the WAL into the file. rw never makes a file.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA query_only = {'OFF' if may_write else 'ON'}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(path: Path) -> None:
    """Makes a new store, or brings an older one to this version, in one transaction. The caller holds the `FileLock`.

    Raises StoreError for what is no store, for a newer one, and for what the disk refuses.
    """
    try:
        # Before SQLite does: records are nobody else's to read, and WAL and shared memory take over these rights.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = connect(path, may_write=True)
        try:
            _upgrade(connection, path)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from error


def schema_problem(connection: sqlite3.Connection, path: Path) -> str | None:
    """Why the file can't be used as a store by this version, or None. An empty file can."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        return f"{path} is another program's database, not a store; name another file"
    if version > len(STEPS):
        return f"{path} has schema version {version}, this program reads up to {len(STEPS)}; upgrade the program"
    return None


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    if problem := schema_problem(connection, path):
        raise StoreError(problem)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(
            f"the file system of {path} has no shared memory for SQLite's WAL; put the store on a local disk"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    for step in STEPS[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    connection.execute("COMMIT")


class FileLock:
    """Held by the one process that may open the store. The kernel lets go of it when the process ends, however it ends.

    A lock of its own file (`FILE.lock`, holding the pid), because SQLite's locks are let go of with any descriptor that
    the process closes; that file is never removed, since two processes could then each lock "the" file.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock. Raises StoreError, naming the holder, when another process (or this one) has it."""
        file = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise explain(error, path) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise StoreError(
                f"{path} is open in process {holder}; one controller at a time: stop that one, or use its API"
            ) from error
        except OSError as error:
            self.release()
            raise explain(error, path) from error

    def release(self) -> None:
        """Lets go of the lock; may be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_CAUSES = {
    "SQLITE_FULL": "the disk is full; free some room, the store then goes on by itself",
    "SQLITE_READONLY": "it may not be written; give this user the right to write the file and its folder",
    "SQLITE_PERM": "it may not be opened; give this user the right to read and write it",
    "SQLITE_AUTH": "it may not be opened; give this user the right to read and write it",
    "SQLITE_CANTOPEN": "it can't be opened; check that its folder exists and that this user may write there",
    "SQLITE_BUSY": "another program keeps it locked; end that program",
    "SQLITE_LOCKED": "another program keeps it locked; end that program",
    "SQLITE_CORRUPT": "it is damaged; look with `playground store check`, and put a backup in its place",
    "SQLITE_NOTADB": "it is no SQLite database; name another file, or put a backup in its place",
    "SQLITE_IOERR_SHMSIZE": "the disk is full; free some room, the store then goes on by itself",
    "SQLITE_IOERR": "the disk fails; look at the kernel's log (dmesg) before you trust it further",
    "SQLITE_NOMEM": "memory is short; free some, the store then goes on by itself",
}


def explain(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """What went wrong with the file, and the remedy, in one sentence."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(f"{path}: {_CAUSES['SQLITE_FULL']} ({error.strerror})")
        if error.errno == errno.EISDIR:
            return StoreError(f"{path} is a folder; name a file in it")
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            return StoreError(f"{path} lies in a file, not a folder; name another file")
        return StoreError(f"{path}: {error.strerror}; check that its folder exists and that this user may write there")
    name: str = getattr(error, "sqlite_errorname", None) or ""
    for prefix, cause in _CAUSES.items():
        if name.startswith(prefix):
            return StoreError(f"{path}: {cause} ({name}: {error})")
    return StoreError(
        f"{path}: SQLite refuses ({name or type(error).__name__}: {error}); this is a fault of the program"
    )
