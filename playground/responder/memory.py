"""The responder's file: what it was told and what its clients were told, so that a restart needs no agent."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from playground.responder.protocol import Leased

SCHEMA = 1


class Memory(msgspec.Struct, kw_only=True):
    """document: the map of `protocol`, values still encoded. leases: by port id and family."""

    schema: int = SCHEMA
    document: dict[str, msgspec.Raw] = {}
    leases: dict[str, Leased] = {}


class Unreadable(Exception):
    """The file holds something else; the text says what. Starting empty is safe: the agent tells all again."""


def load(file: Path) -> Memory:
    """What the file holds; empty when there is none. Raises Unreadable."""
    try:
        memory = msgspec.json.decode(file.read_bytes(), type=Memory)
    except FileNotFoundError:
        return Memory()
    except (OSError, msgspec.MsgspecError) as error:
        raise Unreadable(f"{file}: {error}") from error
    if memory.schema > SCHEMA:
        raise Unreadable(f"{file}: written by a newer version (schema {memory.schema}, this one reads {SCHEMA})")
    return memory


def save(file: Path, memory: Memory) -> None:
    """Replaces the file whole. Raises OSError. Not synced: what a power cut loses, the agent tells again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.json.encode(memory))
    fresh.replace(file)
