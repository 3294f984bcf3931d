"""What every engine refuses before it does anything, so that all refuse alike. Pure; knows no engine."""

from __future__ import annotations

from collections.abc import Sequence

from playground.store.api import LIMIT_BYTES, LIMIT_OPS, Change, Compare, Put, StoreError, TooLarge


def admit_text(text: str) -> int:
    """The bytes a key or prefix takes in UTF-8. Raises StoreError for text that UTF-8 can't hold (lone surrogates)."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise StoreError(f"{text!r} can't be a key: it has no UTF-8 form; remove its lone surrogates") from error


def admit_commit(compares: Sequence[Compare], changes: Sequence[Change]) -> int:
    """The bytes of a commit that may be tried: keys of compares, keys and values of changes.

    Raises TooLarge beyond `LIMIT_OPS` compares or changes or `LIMIT_BYTES` bytes; StoreError for an empty key or for
    two changes of one key (which of the two should stand?).
    """
    if len(compares) > LIMIT_OPS or len(changes) > LIMIT_OPS:
        raise TooLarge(
            f"a commit has {len(compares)} compares and {len(changes)} changes, of each {LIMIT_OPS} are allowed; "
            "split it: claims first, then one key that makes them count"
        )
    size = sum(admit_text(compare.key) for compare in compares)
    seen: set[str] = set()
    for change in changes:
        if not change.key:
            raise StoreError("a commit changes the empty key; give it a name")
        if change.key in seen:
            raise StoreError(f"a commit changes {change.key!r} twice; say only what it shall be in the end")
        seen.add(change.key)
        size += admit_text(change.key) + (len(change.value) if isinstance(change, Put) else 0)
    if size > LIMIT_BYTES:
        raise TooLarge(f"a commit has {size} bytes of keys and values, {LIMIT_BYTES} are allowed; split it")
    return size


def admit_ttl(ttl_s: float) -> float:
    """The time of a lease, in seconds. Raises StoreError when it is not a finite number above 0."""
    if not 0 < ttl_s < float("inf"):
        raise StoreError(f"a lease of {ttl_s} s can't be given; choose a finite time above 0")
    return ttl_s
