"""What this host was shown, on its disk: a whole view, then what was said since, a line each. Knows nothing of what it
means.

A change costs its own lines, not the view's. `Kept` closes what belongs together: lines behind the last of them were
being written when the agent died, and count as never said.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from playground.view import View, freeze, thaw
from playground.wire import Changed, Complete, Enter, Leave

VOUCH_S = 30.0
"""How often the cache notes that a controller still vouches for it."""

SMALLEST = 64 * 1024
"""Bytes of lines that are never worth a new whole view; beyond that, as many as the view itself has."""

Said = Enter | Changed | Leave | Complete


class Kept(msgspec.Struct, frozen=True, tag_field="say", tag="kept"):
    """All lines before this one are whole, and a controller vouched for them then."""

    at_utc_s: float


_lines: msgspec.json.Decoder[Said | Kept] = msgspec.json.Decoder(Said | Kept)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a cache holds. at_utc_s: when a controller last vouched for it."""

    view: View
    domain: str
    resolvers: tuple[str, ...]
    at_utc_s: float


class Cache:
    """One file. Whoever writes to it decides what the view is; it only remembers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._whole = 0
        self._lines = 0
        self._noted_utc_s = 0.0

    def read(self) -> Remembered | None:
        """What was remembered; None when there is no file. Raises msgspec.DecodeError for one that is none of ours."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        first, *lines = data.split(b"\n")
        view, cached = thaw(first)
        at_utc_s = cached.at_utc_s
        waiting: list[Said] = []
        for line in lines:
            try:
                said = _lines.decode(line)
            except msgspec.DecodeError:
                break  # torn
            if not isinstance(said, Kept):
                waiting.append(said)
                continue
            for message in waiting:
                view.take(message)
            waiting.clear()
            at_utc_s = said.at_utc_s
        return Remembered(view, cached.domain, tuple(cached.resolvers), at_utc_s)

    def replace(self, view: View, domain: str, resolvers: Sequence[str]) -> None:
        """Remembers this view, and nothing of before. Raises OSError."""
        self.close()
        self._noted_utc_s = time.time()
        data = freeze(view, self._noted_utc_s, domain, list(resolvers)) + b"\n"
        part = self.path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(self.path)
        self._file = self.path.open("ab", buffering=0)
        self._whole, self._lines = len(data), 0

    def add(self, said: Sequence[Said]) -> bool:
        """Remembers what was said, too, in one write; false when it is time for the whole view instead. Raises
        OSError."""
        if self._file is None or self._lines > max(SMALLEST, self._whole):
            return False
        self._noted_utc_s = time.time()
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in (*said, Kept(self._noted_utc_s)))
        self._lines += len(data)
        try:
            if self._file.write(data) == len(data):
                return True
        except OSError:
            self.close()  # what stands behind a torn line is not read
            raise
        self.close()
        return False

    def vouch(self) -> bool:
        """Notes, now and then, that a controller vouches for what is remembered; false as `add`."""
        return time.time() - self._noted_utc_s < VOUCH_S or self.add([])

    def close(self) -> None:
        """Writes nothing more."""
        if self._file is not None:
            self._file.close()
            self._file = None
