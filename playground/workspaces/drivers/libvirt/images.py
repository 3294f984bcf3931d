"""Owns the disk images that a host makes for its guests: copies on write, new ones, cloud-init seeds. Knows no libvirt.

One folder a guest; it outlives a stop, and goes with the guest.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from dhcp.scope import PortScope
from playground.machine import PLAIN
from playground.workspaces.drivers.api import DriverError, Guest
from playground.workspaces.drivers.libvirt.seed import LABEL, seed_files


class Images:
    """folder: where they lie; made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self, guest: Guest) -> tuple[str, ...]:
        """Of the guest's disks, in their order, whether they are there or not."""
        disks = (guest.machine or PLAIN).disks
        return tuple(
            disk.path or str(self._folder / guest.id / f"disk-{n}.{disk.kind}") for n, disk in enumerate(disks)
        )

    def ensure(self, guest: Guest) -> tuple[str, ...]:
        """All of the guest's disks are there; one that is stays as it is. Raises DriverError."""
        paths = self.paths(guest)
        if (guest.machine or PLAIN).type == "lxc":
            if missing := [path for path in paths if not Path(path).is_dir()]:
                raise DriverError(f"the root {missing[0]} is no directory on this host")
            return paths
        for disk, path in zip((guest.machine or PLAIN).disks, map(Path, paths), strict=True):
            if disk.base and not Path(disk.base).exists():
                raise DriverError(f"the image {disk.base} is not on this host")
            if disk.path and not path.exists():
                raise DriverError(f"the image {disk.path} is not on this host")
            if disk.path and (found := _format(disk.path)) != disk.kind:
                raise DriverError(f"the image {disk.path} is {found}, not {disk.kind}; write format: {found}")
            if path.exists():
                continue
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            base = ["-b", disk.base, "-F", _format(disk.base)] if disk.base else []
            size = [f"{disk.size_mib}M"] if disk.size_mib else []
            draft = path.with_suffix(".draft")
            _run(["qemu-img", "create", "-q", "-f", disk.kind, *base, str(draft), *size])
            draft.rename(path)
        return paths

    def seed(self, guest: Guest, told: Mapping[str, PortScope]) -> str:
        """The path of what cloud-init in the guest is told, written anew; "" for one that is told nothing. Raises
        DriverError."""
        seed = (guest.machine or PLAIN).seed
        if seed is None:
            return ""
        user_data = seed.user_data.encode()
        if seed.user_data_file:
            try:
                user_data = Path(seed.user_data_file).read_bytes()
            except OSError as error:
                raise DriverError(f"the user-data {seed.user_data_file}: {error.strerror}") from None
        path = self._folder / guest.id / "seed.iso"
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        _write_volume(draft, LABEL, seed_files(guest, seed, user_data, told))
        draft.rename(path)
        return str(path)

    def remove(self, guest_id: str) -> None:
        """None that was made here is left."""
        shutil.rmtree(self._folder / guest_id, ignore_errors=True)


def _write_volume(path: Path, label: str, files: Mapping[str, bytes]) -> None:
    """An ISO 9660 volume of these files in its root, with their names for Linux (Rock Ridge) and Windows (Joliet)."""
    try:
        from pycdlib import PyCdlib
    except ImportError as error:
        raise DriverError(f"pycdlib is not installed ({error}); pip install 'playground[libvirt]'") from None
    volume = PyCdlib()
    volume.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    for name, content in files.items():
        plain = f"/{name.upper().replace('-', '_')}.;1"
        volume.add_fp(BytesIO(content), len(content), plain, rr_name=name, joliet_path=f"/{name}")
    volume.write(str(path))
    volume.close()


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
