"""The folder that agents of one kernel share: one `guest.json` a guest, and one lock byte a guest. Starts no process.

`guest.json` is replaced atomically. The lock is an open-file-description lock on one byte of one file, chosen by the
guest's id: it ends with its last holder, needs no cleaning, and a child process may share it (fcntl(2), OFD locks).
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from playground.workspaces.drivers.api import DriverError, Guest, Nic
from playground.workspaces.drivers.processes import boot_id, open_process

log = logging.getLogger("agent")

SCHEMA = 1
GUEST_FILE = "guest.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One guest as it was made. host: who carries its traffic. pid 0: its init is being made, or was and never came up.
    wired: false while its ends on its host are being made, also when that was interrupted. move: the generation of the
    move that brought it to its host, or that its host took it back from; 0 when none did. reboots: asked for by then.

    pid and started (clock ticks since boot) are in the agents' pid namespace, boot the kernel's boot id.
    """

    id: str
    playground: str
    name: str
    hostname: str
    host: str
    nics: tuple[Nic, ...]
    boot: str
    running: bool = False
    wired: bool = True
    pid: int = 0
    started: int = 0
    move: int = 0
    reboots: int = 0
    schema: int = SCHEMA

    def open(self) -> int | None:
        """A pidfd of the guest's init (the caller closes it), or None when it is gone."""
        return open_process(self.pid, self.started) if self.boot == boot_id() else None

    def is_alive(self) -> bool:
        """Whether the guest's init runs."""
        descriptor = self.open()
        if descriptor is None:
            return False
        os.close(descriptor)
        return True


def new_entry(guest: Guest, host: str) -> Entry:
    """The entry of a guest whose init is about to be made by `host`."""
    return Entry(
        id=guest.id,
        playground=guest.playground,
        name=guest.name,
        hostname=guest.hostname,
        host=host,
        nics=guest.nics,
        boot=boot_id(),
        wired=False,
        reboots=guest.reboots,
    )


class Ledger:
    """Reads and writes the shared folder. Every change of a guest happens under its lock; reading needs none."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder

    def room(self, guest_id: str) -> Path:
        """The guest's own folder."""
        return self.folder / guest_id

    def read(self, guest_id: str) -> Entry | None:
        """The guest's entry, or None where there is none. Raises DriverError for one that this version can't read:
        what it can't read it must not take for absent, as a guest may run there."""
        path = self.room(guest_id) / GUEST_FILE
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError as error:
            raise DriverError(
                f"{path} can't be read: {error}; end the processes of this guest, then remove its folder"
            ) from error
        if entry.schema > SCHEMA:
            raise DriverError(
                f"{path} has schema {entry.schema}, this version reads up to {SCHEMA}: upgrade this agent"
            )
        return entry

    def read_all(self, guests: Collection[str] | None = None) -> list[Entry]:
        """Every entry, or those of these guests, in order of id. Folders without one hold nothing that runs.

        One that can't be read is warned of and left out, so that it costs no other guest; who wants that very guest is
        refused by `read`.
        """
        entries = []
        rooms = self.folder.iterdir() if guests is None else map(self.room, guests)
        for room in sorted(rooms):
            if not room.is_dir():
                continue
            try:
                entry = self.read(room.name)
            except DriverError as error:
                log.warning("guest left alone cause=%s", error)
                continue
            if entry is not None:
                entries.append(entry)
        return entries

    def write(self, entry: Entry) -> None:
        """Replaces the guest's entry; readers see the old one or the new one."""
        room = self.room(entry.id)
        room.mkdir(mode=0o700, exist_ok=True)
        new = room / f"{GUEST_FILE}.new"
        new.write_bytes(msgspec.json.format(msgspec.json.encode(entry)))
        new.replace(room / GUEST_FILE)

    def remove(self, guest_id: str) -> None:
        """Forgets the guest: its folder goes, the entry last, so that an interrupted removal is found again."""
        room = self.room(guest_id)
        for path in room.glob("*"):
            if path.name != GUEST_FILE:
                path.unlink(missing_ok=True)
        (room / GUEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(room, ignore_errors=True)

    @contextmanager
    def locked(self, guest_id: str) -> Iterator[int]:
        """Waits for the guest's lock and holds it; yields its descriptor, by which a child may hold it on."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            byte = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, int(guest_id, 16), 1, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, byte)
            yield descriptor
        finally:
            os.close(descriptor)
