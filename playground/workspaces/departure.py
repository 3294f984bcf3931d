"""Pure. What a guest needs where it is to go, as its host finds it, and what the other host says of that: the words of
a move's pre-flight check. Knows no driver.
"""

from __future__ import annotations

import msgspec


class DiskFound(msgspec.Struct, frozen=True):
    """One disk of a guest. is_own: its host made it, of base if that is not empty. file: device and inode number, where
    it is a file. allocated: bytes that it takes."""

    path: str
    is_own: bool
    file: tuple[int, int] | None = None
    base: str = ""
    allocated: int = 0


class Departure(msgspec.Struct, frozen=True):
    """kind: kvm or qemu. arch, model: of its machine. cpu: its processor, an element of domain XML. folder: where its
    host has what it made for its guests; kernel: boot id of that host's. unreachable: why the target's hypervisor can't
    be reached from this one's host, "" when it can."""

    kind: str
    arch: str
    model: str
    cpu: str
    disks: tuple[DiskFound, ...] = ()
    files: tuple[str, ...] = ()
    folder: str = ""
    kernel: str = ""
    unreachable: str = ""


class Arrival(msgspec.Struct, frozen=True):
    """Why a guest can't come: its processor is not to be had here; disks and files (its kernel, say) that are not here.
    is_unknown: nobody could tell of the processor. is_one_kernel: its disks were found to be the very same files."""

    processor: str = ""
    disks: tuple[str, ...] = ()
    is_unknown: bool = False
    is_one_kernel: bool = False
