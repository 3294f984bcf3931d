"""The store's verbs, the same in every engine. Knows nothing of what records mean: keys are text, values bytes.

Every engine refuses a `commit` of more than 120 operations or 1 MiB (etcd's limits; see `LIMIT_OPS`, `LIMIT_BYTES`),
so whoever writes against one engine fits all. A revision is one number for the whole store, growing by one with each
commit that changes something; revision 0 is the empty store.

Keys are not empty and can be written as UTF-8; they sort by code point, which is the order of their UTF-8 bytes. A
prefix is just text: `a/` covers `a/b` and not `a0`, and the empty prefix covers all. A store belongs to one event
loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

Revision = NewType("Revision", int)
LeaseId = NewType("LeaseId", str)

LIMIT_OPS = 120
"""Most compares, and most changes, of one commit: etcd counts each kind by itself (its own limit is 128)."""

LIMIT_BYTES = 1 << 20
"""Most bytes of one commit: all its keys, in UTF-8, and all its values (etcd's own limit on a request is 1.5 MiB)."""

HISTORY = 10_000
"""Revisions that a watch can go back, at least, unless an engine is told otherwise."""


@dataclass(frozen=True, slots=True)
class Item:
    """One key as it stands. modified: the revision that wrote it last; created: the one that created it."""

    key: str
    value: bytes
    created: Revision
    modified: Revision
    lease: LeaseId | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds when the key was last written at `modified`; 0 holds when the key does not exist."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True)
class Put:
    """Writes a key; with a lease, the key goes when the lease ends."""

    key: str
    value: bytes
    lease: LeaseId | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a key; removing what is not there is no error."""

    key: str


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class Event:
    """One key's change in one revision; item is None when it was removed (or its lease ended).

    Writing a key with the value it has is a change too. Events of one revision come in key order, a key once.
    """

    key: str
    item: Item | None
    revision: Revision


Events = list[Event]


@dataclass(frozen=True, slots=True)
class Conflict:
    """The commit did nothing, because these keys did not compare. A value, not an error: redo from a fresh read.

    keys: of the compares that failed, in the order in which they were given.
    """

    keys: tuple[str, ...]


class StoreError(Exception):
    """The store can't do it; the text says why and what to do. Nothing was changed."""


class TooLarge(StoreError):
    """More than `LIMIT_OPS` operations or `LIMIT_BYTES` bytes in one commit."""


class Compacted(StoreError):
    """A watch asked for history that is gone, or never was here: list again, then watch from the list's revision."""


class LeaseLost(StoreError):
    """The lease has ended (keepalive came too late), and its keys with it."""


class Store(Protocol):
    """What every engine does. All verbs are async and may be called from many tasks at once.

    Every verb raises StoreError when the engine can't do its work (disk full, store closed, no quorum); what is lost
    then is that one call, and later calls work as soon as the cause is gone.
    """

    async def get(self, key: str) -> Item | None:
        """The key as it stands, or None. Sees every commit that has returned."""
        ...

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        """All keys that start with `prefix`, in key order, as of one revision: watch from it to miss nothing."""
        ...

    async def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        """All changes or none; durable when it returns. A commit without changes only compares.

        Returns the revision it made, or the present one when it changed nothing (no changes, or only deletes of
        absent keys). Refused before anything: TooLarge; StoreError for two changes of one key. Compares come first,
        then the leases of its puts: LeaseLost when one has ended. A caller cancelled in the middle can't know whether
        it happened.
        """
        ...

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Events]:
        """Events of revisions > `after`, in order, in batches; a batch never splits a revision and is never empty.

        Each call is a watch of its own, with its own place in history: no event is lost or doubled, not even when a
        wait for the next batch is cancelled and begun anew. Ends when the store is closed. Raises Compacted, at the
        first batch or at a later one when the reader has fallen too far behind, and for an `after` that this store
        never reached (it was replaced by an older one, so what the watcher knows is not of this history).
        """
        ...

    async def lease(self, ttl_s: float) -> LeaseId:
        """A new lease: it ends `ttl_s` seconds (> 0) after it was made or last kept alive, and its keys with it.

        Time is monotonic and runs only while an engine is there to measure it: a restart gives every lease its full
        time anew, so that an outage of the store ends nobody. Never ends early; may end somewhat late.
        """
        ...

    async def keepalive(self, lease: LeaseId) -> None:
        """Starts the lease's time anew. Raises LeaseLost."""
        ...

    async def revoke(self, lease: LeaseId) -> None:
        """Ends the lease now; its keys go in one revision. Ending one that has ended is no error."""
        ...

    async def elect(self, name: str, candidate: str, ttl_s: float) -> LeaseId:
        """Waits until `candidate` holds `elect/NAME` (as its value) and returns the lease that keeps it.

        Whoever is elected keeps the lease alive, and stops acting when that raises LeaseLost. A candidate of the same
        name as the holder waits like any other. Cancelled, it leaves no lease behind.
        """
        ...

    async def close(self) -> None:
        """Finishes what was asked, ends all watches, gives resources back. Leases stay. May be repeated."""
        ...
