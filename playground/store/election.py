"""Electing one of many on top of any engine's verbs. Knows no engine; holds nothing between calls."""

from __future__ import annotations

import asyncio
import contextlib

from playground.store.api import Compacted, Compare, Conflict, LeaseId, LeaseLost, Put, Revision, Store, StoreError


async def elect(store: Store, name: str, candidate: str, ttl_s: float) -> LeaseId:
    """Waits until `candidate` holds `elect/NAME`, a key created once, and returns the lease that keeps it."""
    key = f"elect/{name}"
    while True:
        items, revision = await store.list(key)
        if not any(item.key == key for item in items):
            lease = await _take(store, key, candidate, ttl_s)
            if lease is not None:
                return lease
        else:
            await _until_gone(store, key, revision)


async def _take(store: Store, key: str, candidate: str, ttl_s: float) -> LeaseId | None:
    """A lease with `key` on it, or None when somebody else was first."""
    lease = await store.lease(ttl_s)
    taken = False
    try:
        result = await store.commit([Compare(key, 0)], [Put(key, candidate.encode(), lease)])
        taken = not isinstance(result, Conflict)
    except LeaseLost:
        pass  # the way from lease to commit took longer than the lease: start over
    finally:
        if not taken:
            # Also when cancelled: the commit may still happen, and nobody would keep the lease.
            with contextlib.suppress(StoreError):
                await asyncio.shield(store.revoke(lease))
    return lease if taken else None


async def _until_gone(store: Store, key: str, after: Revision) -> None:
    """Returns once `key` was removed after `after`, or may have been. Raises StoreError when the store closes."""
    try:
        async for events in store.watch(key, after):
            if any(event.key == key and event.item is None for event in events):
                return
    except Compacted:
        return
    raise StoreError(f"the store was closed while waiting for {key}")
