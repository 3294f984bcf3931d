"""Looks a store's file over without changing it. Knows what must hold between its tables; mends nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from os import PathLike
from pathlib import Path

from playground.store.file import STEPS, connect, explain, schema_problem

SHOWN = 20
"""Problems of one kind that are told one by one."""

_CLAIMS: tuple[tuple[str, str], ...] = (
    ("head: {} rows, 1 should be", "SELECT count(*) FROM head HAVING count(*) != 1"),
    (
        "head: the log is compacted up to revision {}, above the store's own {}",
        "SELECT compacted, revision FROM head WHERE compacted > revision OR compacted < 0",
    ),
    (
        "item {}: created at {}, modified at {}; both must lie in 1…the store's revision, in this order",
        "SELECT key, created, modified FROM item, head"
        " WHERE created < 1 OR created > modified OR modified > revision ORDER BY key",
    ),
    (
        "item {}: belongs to lease {}, which is not there",
        "SELECT key, lease FROM item WHERE lease IS NOT NULL AND lease NOT IN (SELECT id FROM lease) ORDER BY key",
    ),
    (
        "log: revision {} lies outside {}…{}",
        "SELECT DISTINCT log.revision, compacted + 1, head.revision FROM log, head"
        " WHERE log.revision <= compacted OR log.revision > head.revision ORDER BY 1",
    ),
    (
        "log: {} revisions are there, {} should be: revisions are missing",
        "SELECT logged, revision - compacted FROM head, (SELECT count(DISTINCT revision) AS logged FROM log)"
        " WHERE logged < revision - compacted",
    ),
    (
        "log: {} at revision {} says neither written nor removed",
        "SELECT key, revision FROM log WHERE (value IS NULL) != (created IS NULL) ORDER BY revision, key",
    ),
    (
        "item {}: was last modified at {}, and the log has no such event",
        "SELECT key, modified FROM item, head WHERE modified > compacted"
        " AND NOT EXISTS (SELECT 1 FROM log WHERE log.revision = modified AND log.key = item.key) ORDER BY key",
    ),
    (
        "item {}: differs from its last event in the log, at revision {}",
        "SELECT last.key, last.revision FROM (SELECT key, max(revision) AS revision, value, created, lease FROM log"
        " GROUP BY key) AS last LEFT JOIN item USING (key)"
        " WHERE last.value IS NOT item.value OR last.created IS NOT item.created OR last.lease IS NOT item.lease"
        " OR (item.key IS NOT NULL AND last.revision != item.modified) ORDER BY last.key",
    ),
)
"""What must not be found: a sentence, and the query of the rows that it is about."""


def check(path: str | PathLike[str]) -> list[str]:
    """What is wrong with the store in file `path`, a sentence each; [] when nothing. A controller may run meanwhile.

    Looks at SQLite's own structure, at the schema, and that items, history and leases agree. Reads everything: about a
    second for 100 MB.
    """
    file = Path(path).resolve()
    if not file.is_file():
        return [f"{file} is not there"]
    try:
        with contextlib.closing(connect(file, may_write=False)) as connection:
            connection.execute("BEGIN")
            return _look(connection, file)
    except sqlite3.Error as error:
        return [str(explain(error, file))]


def _look(connection: sqlite3.Connection, file: Path) -> list[str]:
    if problem := schema_problem(connection, file):
        return [problem]
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < len(STEPS):
        state = f"has schema version {version} of {len(STEPS)}" if version else "is empty"
        return [f"{file} {state}; start the controller once, which brings it up to date"]
    problems = [f"file: {line}" for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    if problems:
        return problems[:SHOWN]  # on a broken structure the other claims mean nothing
    for sentence, query in _CLAIMS:
        rows = connection.execute(query).fetchall()
        problems += (sentence.format(*row) for row in rows[:SHOWN])
        if len(rows) > SHOWN:
            problems.append(f"… and {len(rows) - SHOWN} more like the last")
    return problems
