"""The store's verbs, the same in every engine. Knows nothing of what records mean: keys are text, values bytes.

Every engine refuses a `commit` of more than 120 operations or 1 MiB (etcd's limits; see `LIMIT_OPS`, `LIMIT_BYTES`), so
whoever writes against one engine fits all. A revision is one number for the whole store, growing by one with each commit
that changes something; revision 0 is the empty store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

Revision = NewType("Revision", int)
LeaseId = NewType("LeaseId", str)

LIMIT_OPS = 120
LIMIT_BYTES = 1 << 20


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
    """One key's change in one revision; item is None when it was removed (or its lease ended)."""

    key: str
    item: Item | None
    revision: Revision


@dataclass(frozen=True, slots=True)
class Conflict:
    """The commit did nothing, because these keys did not compare. A value, not an error: redo from a fresh read."""

    keys: tuple[str, ...]


class StoreError(Exception):
    """The store can't do it; the text says why and what to do. Nothing was changed."""


class TooLarge(StoreError):
    """More than `LIMIT_OPS` operations or `LIMIT_BYTES` bytes in one commit."""


class Compacted(StoreError):
    """A watch asked for history that is gone: list again, then watch from the list's revision."""


class LeaseLost(StoreError):
    """The lease has ended (keepalive came too late), and its keys with it."""


class Store(Protocol):
    """What every engine does. All verbs are async and may be called from many tasks at once."""

    async def get(self, key: str) -> Item | None: ...

    async def list(self, prefix: str) -> tuple[list[Item], Revision]:
        """All keys that start with `prefix`, in key order, as of one revision."""
        ...

    async def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        """All changes or none; durable when it returns. A commit without changes only compares."""
        ...

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[list[Event]]:
        """Events of revisions > `after`, in order, a batch at a time; a batch never splits a revision. Raises Compacted."""
        ...

    async def lease(self, ttl_s: float) -> LeaseId: ...

    async def keepalive(self, lease: LeaseId) -> None:
        """Starts the lease's time anew. Raises LeaseLost."""
        ...

    async def revoke(self, lease: LeaseId) -> None:
        """Ends the lease now; its keys go in one revision."""
        ...

    async def elect(self, name: str, candidate: str, ttl_s: float) -> LeaseId:
        """Waits until `candidate` holds `elect/NAME` and returns the lease that keeps it."""
        ...

    async def close(self) -> None: ...
