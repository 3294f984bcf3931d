"""What a migration of libvirt's is told, and what is found out before it: flags, parameters, paths, processors, disks.
Makes no connection, and changes nothing.

https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainMigrateFlags
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Tree

from playground.workspaces.departure import Arrival, Departure, DiskFound
from playground.workspaces.drivers.api import Sending

ALWAYS = ("LIVE", "PEER2PEER", "PERSIST_DEST", "UNDEFINE_SOURCE")

USUAL_PAUSE_MS = 300
"""What QEMU plans at most unless it is told other (migration parameter downtime-limit)."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FILES = ("kernel", "initrd")


def flags(sending: Sending) -> tuple[str, ...]:
    """Names VIR_MIGRATE_… without that."""
    manner = sending.manner
    more = {
        "POSTCOPY": manner.post_copy,
        "AUTO_CONVERGE": manner.auto_converge,
        "NON_SHARED_INC": manner.copy_storage,  # what lies above their base, which is on both hosts
        "UNSAFE": sending.is_one_kernel,
    }
    return (*ALWAYS, *(flag for flag, is_asked in more.items() if is_asked))


def parameters(sending: Sending, live: str, inactive: str, folder: Path) -> dict[str, object]:
    """live, inactive: the domain's XML as it runs, and as it is started next. folder: where this host has what it makes
    for its guests; the target has its own."""
    manner = sending.manner
    found: dict[str, object] = {}
    if manner.bandwidth_mib_s:
        found["bandwidth"] = manner.bandwidth_mib_s
    if manner.copy_storage:
        own = _own_disks(Tree.fromstring(live), folder)
        found["migrate_disks"] = [_text(disk, "target", "dev") for disk in own]
    if sending.folder and sending.folder != str(folder):
        found["destination_xml"] = relocated(live, str(folder), sending.folder)
        found["persistent_xml"] = relocated(inactive, str(folder), sending.folder)
    return found


def relocated(xml: str, old: str, new: str) -> str:
    """A domain's XML with every path below `old` below `new` instead."""
    domain = Tree.fromstring(xml)
    for element in domain.iter():
        for name, value in element.attrib.items():
            if value.startswith(f"{old}/"):
                element.set(name, new + value.removeprefix(old))
    return Tree.tostring(domain, encoding="unicode")


def departure(live: str, folder: Path, unreachable: str) -> Departure:
    """What a domain that runs here needs elsewhere. folder: as for `parameters`."""
    domain = Tree.fromstring(live)
    system, cpu = domain.find("os/type"), domain.find("cpu")
    own = _own_disks(domain, folder)
    return Departure(
        kind=domain.get("type", ""),
        arch=system.get("arch", "") if system is not None else "",
        model=system.get("machine", "") if system is not None else "",
        cpu=Tree.tostring(cpu, encoding="unicode") if cpu is not None else "",
        disks=tuple(
            _found(_text(disk, "source", "file"), disk in own, _text(disk, "backingStore/source", "file"))
            for disk in _disks(domain)
        ),
        files=tuple(filter(None, (domain.findtext(f"os/{name}", "") for name in _FILES))),
        folder=str(folder),
        kernel=_BOOT.read_text().strip(),
        unreachable=unreachable,
    )


def arrival(departure: Departure, copies_storage: bool, processor: str | None, folder: Path) -> Arrival:
    """What of a guest's files is wrong here. processor: why it is not to be had here, "" when it is, None where nobody
    could tell. folder: where this host has what it makes for its guests. Raises OSError."""
    causes = [f"{path} is not on this host" for path in departure.files if not Path(path).exists()]
    is_one_kernel = departure.kernel == _BOOT.read_text().strip()
    are_same = True
    for disk in departure.disks:
        path = str(folder) + disk.path.removeprefix(departure.folder) if disk.is_own else disk.path
        here = _found(path, disk.is_own, disk.base)
        is_same = is_one_kernel and here.file is not None and here.file == disk.file
        if disk.is_own and copies_storage and here.file is not None:  # it may be the very one that it runs from
            remedy = "leave --copy-storage out where both hosts share it; what an earlier stay has left has to go first"
            causes.append(f"its disk {path} is on this host already: {remedy}")
        elif disk.is_own and copies_storage:
            causes += _room(disk, folder)
        elif here.file is None:
            remedy = "--copy-storage has it copied" if disk.is_own else "it has to be at the same path on both hosts"
            causes.append(f"its disk {path} is not on this host: {remedy}")
        else:
            are_same = are_same and is_same
    shared = bool(departure.disks) and is_one_kernel and are_same
    return Arrival(processor or "", tuple(causes), processor is None, shared)


def _room(disk: DiskFound, folder: Path) -> list[str]:
    if disk.base and not Path(disk.base).exists():
        return [f"the image {disk.base} is not on this host"]
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    room = os.statvfs(place)
    free = room.f_bavail * room.f_frsize
    if free < disk.allocated:
        return [f"its disk {disk.path} takes {disk.allocated >> 20} MiB, and {free >> 20} MiB are free here"]
    return []


def _disks(domain: Tree.Element) -> Sequence[Tree.Element]:
    """Those that are files, and can be written."""
    found = domain.findall("devices/disk[@type='file'][@device='disk']")
    return [disk for disk in found if disk.find("readonly") is None]


def _own_disks(domain: Tree.Element, folder: Path) -> Sequence[Tree.Element]:
    return [disk for disk in _disks(domain) if _text(disk, "source", "file").startswith(f"{folder}/")]


def _text(element: Tree.Element, path: str, name: str) -> str:
    found = element.find(path)
    return found.get(name, "") if found is not None else ""


def _found(path: str, is_own: bool, base: str) -> DiskFound:
    try:
        seen = Path(path).stat()
    except OSError:
        return DiskFound(path, is_own, None, base)
    return DiskFound(path, is_own, (seen.st_dev, seen.st_ino), base, seen.st_blocks * 512)
