"""Pure. Replies of other servers, kept as long as they say they hold; bounded in number and in bytes. Asks nobody."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from overlay.dns.message import Heard, Rcode

ENTRIES: Final = 4096
BYTES: Final = 1 << 20
LONGEST_S: Final = 3600
LONGEST_NEGATIVE_S: Final = 300
FAILURE_S: Final = 1.0
"""How long a question that nobody answered is not asked again (RFC 9520 §3.2 wants a second at least)."""
_OVERHEAD: Final = 400
"""Bytes of an entry beside its records, about."""
_TTL: Final = struct.Struct("!I")

Key = tuple[bytes, bool, bool]
"""Question in lower case; whether DNSSEC records are wanted; whether checking is disabled."""

FAILED: Final = Heard(Rcode.SERVFAIL, 0, (0, 0, 0), b"", (), 0)


@dataclass(slots=True)
class _Entry:
    heard: Heard
    from_s: float
    until_s: float

    @property
    def size(self) -> int:
        return _OVERHEAD + len(self.heard.records)


class Cache:
    """What was heard last, by question; what was unused for longest goes first. Times: of any clock, in seconds."""

    def __init__(self, entries: int = ENTRIES, size: int = BYTES) -> None:
        self._entries: Final = entries
        self._size: Final = size
        self._kept: dict[Key, _Entry] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Key, heard: Heard, now_s: float) -> None:
        """Keeps a reply, if it may be kept; `FAILED` for a moment."""
        longest = LONGEST_S if heard.counts[0] else LONGEST_NEGATIVE_S
        lasts = FAILURE_S if heard is FAILED else min(heard.lasts_s, longest)
        self._drop(key)
        if lasts <= 0 or len(heard.records) > self._size >> 4:
            return
        entry = self._kept[key] = _Entry(heard, now_s, now_s + lasts)
        self.size += entry.size
        while len(self._kept) > self._entries or self.size > self._size:
            self._drop(next(iter(self._kept)))

    def get(self, key: Key, now_s: float) -> tuple[Heard, float] | None:
        """What holds still, its TTLs less by its age, and until when it is just that."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        if now_s >= entry.until_s:
            self._drop(key)
            return None
        self._kept[key] = self._kept.pop(key)
        heard, age = entry.heard, int(now_s - entry.from_s)
        until_s = min(entry.until_s, entry.from_s + age + 1)
        if not age or not heard.ttls:
            return heard, until_s
        records = bytearray(heard.records)
        for at in heard.ttls:
            ttl = _TTL.unpack_from(records, at)[0]
            _TTL.pack_into(records, at, max(0, ttl - age))
        return heard._replace(records=bytes(records)), until_s

    def _drop(self, key: Key) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self.size -= entry.size
