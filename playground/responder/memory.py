"""The responder's file: what it was told and what its clients were told, so that a restart needs no agent.

The file is written a little later, whole; what a client is told meanwhile is noted at once in a journal beside it. A
client asks again only when half its lease is over: what nobody remembers of it, nobody hears for so long.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from playground.responder.protocol import Leased

SCHEMA = 1


class Memory(msgspec.Struct, kw_only=True):
    """document: the map of `protocol`, values still encoded. leases: by port id, and `v4` or an IPv6 address.
    fence_utc_s: as in `protocol.Update`."""

    schema: int = SCHEMA
    document: dict[str, msgspec.Raw] = {}
    leases: dict[str, Leased] = {}
    fence_utc_s: float | None = None


class _Note(msgspec.Struct):
    """One line of the journal."""

    key: str
    leased: Leased


class Unreadable(Exception):
    """The file holds something else; the text says what. Starting empty is safe: the agent tells all again."""


def load(file: Path) -> Memory:
    """What the file and its journal hold; empty when there is neither. Raises Unreadable."""
    try:
        memory = msgspec.json.decode(file.read_bytes(), type=Memory)
    except FileNotFoundError:
        memory = Memory()
    except (OSError, msgspec.MsgspecError) as error:
        raise Unreadable(f"{file}: {error}") from error
    if memory.schema > SCHEMA:
        raise Unreadable(f"{file}: written by a newer version (schema {memory.schema}, this one reads {SCHEMA})")
    with contextlib.suppress(OSError, msgspec.MsgspecError):  # its last line may be torn
        for line in _journal(file).read_bytes().splitlines():
            note = msgspec.json.decode(line, type=_Note)
            memory.leases[note.key] = note.leased
    return memory


class Notes:
    """The journal, as one process writes it. It is open from its first note on until it ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor = -1

    def add(self, key: str, leased: Leased) -> None:
        """Adds one lease to what the next `load` tells. One small write, not synced. Raises OSError."""
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(_journal(self._file), flags, 0o600)
        os.write(self._descriptor, _encoder.encode(_Note(key, leased)) + b"\n")

    def save(self, memory: Memory) -> None:
        """Replaces the file whole, and ends the journal. Raises OSError.

        Not synced: what a power cut loses, the agent tells again.
        """
        save(self._file, memory)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_encoder = msgspec.json.Encoder()


def _journal(file: Path) -> Path:
    return file.with_name(file.name + ".journal")


def save(file: Path, memory: Memory) -> None:
    """The same for a file whose journal nobody writes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.json.encode(memory))
    fresh.replace(file)
    _journal(file).unlink(missing_ok=True)
