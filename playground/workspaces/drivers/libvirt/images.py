"""Owns the disk images that a host makes for its guests: copies on write, new ones, cloud-init seeds. Knows no libvirt.

One folder a guest; it outlives a stop, and goes with the guest.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from playground.machine import PLAIN
from playground.workspaces.drivers.api import DriverError, Guest


class Images:
    """folder: where they lie; made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self, guest: Guest) -> tuple[str, ...]:
        """Of the guest's disks, in their order, whether they are there or not."""
        disks = (guest.machine or PLAIN).disks
        return tuple(disk.path or str(self._folder / guest.id / f"disk-{n}.qcow2") for n, disk in enumerate(disks))

    def ensure(self, guest: Guest) -> tuple[str, ...]:
        """All of the guest's disks are there; one that is stays as it is. Raises DriverError."""
        paths = self.paths(guest)
        for disk, path in zip((guest.machine or PLAIN).disks, map(Path, paths), strict=True):
            if disk.base and not Path(disk.base).exists():
                raise DriverError(f"the image {disk.base} is not on this host")
            if path.exists():
                continue
            if disk.path:
                raise DriverError(f"the image {disk.path} is not on this host")
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            base = ["-b", disk.base, "-F", _format(disk.base)] if disk.base else []
            size = [f"{disk.size_mib}M"] if disk.size_mib else []
            draft = path.with_suffix(".draft")
            _run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(draft), *size])
            draft.rename(path)
        return paths

    def remove(self, guest_id: str) -> None:
        """None that was made here is left."""
        shutil.rmtree(self._folder / guest_id, ignore_errors=True)


def _format(path: str) -> str:
    return str(json.loads(_run(["qemu-img", "info", "--output=json", "-U", path]))["format"])


def _run(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except FileNotFoundError:
        raise DriverError(f"{argv[0]} is not installed (Debian package qemu-utils)") from None
    if done.returncode:
        raise DriverError(" ".join(done.stderr.split()) or f"{argv[0]} ended with {done.returncode}")
    return done.stdout
