"""Pure. Cuts what is to be committed into commits that every engine takes. Knows nothing of what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from playground.store.api import LIMIT_BYTES, Change, Compare, Put

BATCH = 50
"""Operations in a commit; with as many compares it stays below every engine's limit."""

_ROOM = LIMIT_BYTES - 64 * 1024
"""Bytes of keys and values; the rest is for keys that are only compared."""

Work = tuple[Compare | None, Change]


def batches(work: Sequence[Work]) -> Iterator[Sequence[Work]]:
    """In order; each as large as it may be. One change alone may be as large as a record."""
    start = size = 0
    for at, (_, change) in enumerate(work):
        costs = 4 * len(change.key) + (len(change.value) if isinstance(change, Put) else 0)
        if at > start and (at - start == BATCH or size + costs > _ROOM):
            yield work[start:at]
            start, size = at, 0
        size += costs
    if start < len(work):
        yield work[start:]
