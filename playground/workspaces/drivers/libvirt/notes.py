"""Owns the notes that the driver keeps of its guests: what outlives their domains. One file each, replaced whole."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from pathlib import Path

import msgspec

from playground.workspaces.drivers.api import Guest


class Part(Enum):
    """This host's part in a guest. ARRIVING: its ends are ready here. GONE: it has left by a migration."""

    OWN = "own"
    ARRIVING = "arriving"
    GONE = "gone"


class Note(msgspec.Struct, frozen=True):
    """move: the one that brought it, will, or took it away; 0 for none. sending: the one by which it was last sent off,
    whatever came of that. stopped: it was asked to end, and its domain alone is left. copies: its disks came along, or
    will. ran: it has run here since it was made. ended: how often it has ended by itself here, and ended_cause: why it
    did last."""

    guest: Guest
    part: Part
    move: int = 0
    sending: int = 0
    stopped: bool = False
    copies: bool = False
    ran: bool = False
    ended: int = 0
    ended_cause: str = ""


class Notes:
    """folder: where they lie; made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, guests: Collection[str] | None = None) -> dict[str, Note]:
        """By guest id, all or these of them. What can't be read is left out: only a write that was torn by a crash of
        the machine is so, and the guest is then made, or found, anew."""
        if guests is None:
            guests = [path.stem for path in self._folder.glob("*.json")] if self._folder.is_dir() else []
        found: dict[str, Note] = {}
        for guest in guests:
            try:
                found[guest] = msgspec.json.decode((self._folder / f"{guest}.json").read_bytes(), type=Note)
            except (FileNotFoundError, msgspec.DecodeError):
                continue
        return found

    def put(self, note: Note) -> None:
        """Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._folder / f"{note.guest.id}.draft"
        draft.write_bytes(msgspec.json.encode(note))
        draft.replace(self._folder / f"{note.guest.id}.json")

    def drop(self, guest_id: str) -> None:
        (self._folder / f"{guest_id}.json").unlink(missing_ok=True)
