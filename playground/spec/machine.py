"""Pure. What a file says of virtual machines: read, checked as far as no host has to be asked."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from playground.hypervisors import KINDS, NEVER, kind
from playground.machine import Disk, Machine, Seed
from playground.spec.machine_models import CloudInitShape, DiskShape
from playground.spec.models import WorkspaceShape
from playground.spec.problem import Problem
from playground.spec.source import Document

MOST_DISKS = 24

OF_KEYS = {
    "name": "the workspace's name says it",
    "uuid": "the workspace's name says it",
    "metadata": "our mark is there",
    "memory": "write memory",
    "currentMemory": "write memory",
    "maxMemory": "write memory",
    "vcpu": "write cpus",
}
"""Parts of a domain that XML may not say, and what does."""

MEMORY_MIB = 512
"""Of a virtual machine whose file names none."""

OF_MACHINES = ("image", "disks", "machine", "arch", "cloud_init")

MOST_USER_DATA = 16_384
"""Bytes of it in a file: each instance's record has them. What clouds take, too."""

_FIRST_LINES = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "## template:", "MIME-Version:")
"""By which cloud-init tells what its user-data is."""


def machine_of(
    shape: WorkspaceShape, document: Document, path: tuple[str | int, ...], problems: list[Problem]
) -> Machine | None:
    """None for a workspace on no hypervisor; what is wrong is added to `problems`."""
    if shape.driver != "libvirt":
        for key in OF_MACHINES:
            if key in shape.model_fields_set:
                message = f"{key} is for virtual machines; write driver: libvirt, or leave it out"
                problems.append(Problem.at(document.key_place((*path, key)), message))
        return None
    problems.extend(_problems(shape, document, path))
    of = shape.machine
    disks = [Disk(base=shape.image)] if shape.image is not None else []
    disks += [Disk(one.path or "", one.base or "", one.size or 0, one.format or "") for one in shape.disks]
    return Machine(
        type=of.type or "",
        arch=shape.arch or "",
        model=of.model or "",
        cpu=of.cpu or "",
        kernel=of.kernel or "",
        initrd=of.initrd or "",
        cmdline=of.cmdline or "",
        disks=tuple(disks),
        extra=of.xml or "",
        seed=_seed(shape.cloud_init) if shape.cloud_init is not None else None,
    )


def _seed(of: CloudInitShape) -> Seed:
    return Seed(of.user_data or "", of.user_data_file or "", of.network)


def _problems(shape: WorkspaceShape, document: Document, path: tuple[str | int, ...]) -> Iterator[Problem]:
    of = shape.machine
    files: list[tuple[tuple[str | int, ...], str | None]] = [
        (("image",), shape.image),
        (("machine", "kernel"), of.kernel),
        (("machine", "initrd"), of.initrd),
    ]
    for index, disk in enumerate(shape.disks):
        files += [(("disks", index, "path"), disk.path), (("disks", index, "base"), disk.base)]
        if (wrong := _disk_problem(disk, bool(shape.scale))) is not None:
            yield Problem.at(document.place((*path, "disks", index)), wrong)
    if (of_init := shape.cloud_init) is not None:
        files.append((("cloud_init", "user_data_file"), of_init.user_data_file))
        if (wrong := _user_data_problem(of_init)) is not None:
            yield Problem.at(document.place((*path, "cloud_init", "user_data")), wrong)
    for key, file in files:
        if file is not None and not file.startswith("/"):
            message = f"{file!r} is no absolute path; write where it lies on the host, as /srv/images/debian.qcow2"
            yield Problem.at(document.place((*path, *key)), message)
    if of.type is not None and of.type not in KINDS:
        place = document.place((*path, "machine", "type"))
        because = f": {NEVER[of.type]}" if of.type in NEVER else ""
        yield Problem.at(place, f"{of.type!r} is no type of machine{because}; write {_TYPES}, or leave it out")
    for where, wrong in _kind_problems(shape):
        yield Problem.at(document.key_place((*path, *where)), wrong)
    if of.kernel is None and (of.initrd is not None or of.cmdline is not None):
        place = document.key_place((*path, "machine"))
        yield Problem.at(place, "initrd and cmdline go with a kernel; write it too, or leave them out")
    if of.kernel is None and shape.image is None and not shape.disks:
        yield Problem.at(document.key_place(path), "it has nothing to boot from; write image, disks or machine.kernel")
    if len(shape.disks) + (shape.image is not None) > MOST_DISKS:
        yield Problem.at(document.key_place((*path, "disks")), f"{MOST_DISKS} disks are allowed")
    for wrong in _xml_problems(of.xml or ""):
        yield Problem.at(document.place((*path, "machine", "xml")), wrong)


_TYPES = " or ".join((", ".join([*KINDS][:-1]), [*KINDS][-1]))


def _kind_problems(shape: WorkspaceShape) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Keys that machines of this type have no use for, and where they are."""
    of, type = shape.machine, shape.machine.type or ""
    for key, why in kind(type).refused.items():
        group, _, one = key.rpartition(".")
        if one in (of if group else shape).model_fields_set:
            yield tuple(key.split(".")), f"not for machine.type {type}: {why}; leave it out"
    if of.model is not None and (models := kind(type).models) and of.model not in models:
        yield ("machine", "model"), f"{of.model!r} is no machine type of {type}; write {' or '.join(models)}"
    if type == "lxc":
        for index, disk in enumerate(shape.disks):
            if index or disk.path is None or disk.format is not None:
                yield (
                    ("disks", index),
                    "not for machine.type lxc: write one disk, with only the path of its root",
                )


def _xml_problems(text: str) -> Iterator[str]:
    """What can't be merged: all NICs are of networks, as these are guarded, and a domain is known by its mark."""
    try:
        elements = list(ElementTree.fromstring(f"<xml>{text}</xml>"))
    except ElementTree.ParseError as error:
        line, column = error.position
        column -= len("<xml>") if line == 1 else 0
        yield f"this is no XML: {str(error).partition(':')[0]}: line {line}, column {column}"
        return
    devices = [element for element in elements if element.tag != "domain"]
    for domain in (element for element in elements if element.tag == "domain"):
        if domain.attrib:
            yield f"<domain {next(iter(domain.attrib))}=…>: leave its attributes out; machine.type says what runs it"
        for part in domain:
            if part.tag in OF_KEYS:
                yield f"<{part.tag}> is not for XML: {OF_KEYS[part.tag]}"
        devices += [device for part in domain.findall("devices") for device in part]
    if any(device.tag == "interface" for device in devices):
        yield "<interface> is not for XML: a NIC is one of networks"


def _user_data_problem(of: CloudInitShape) -> str | None:
    text = of.user_data
    if text is None:
        return None
    if of.user_data_file is not None:
        return "user_data and user_data_file say the same thing: write one of them"
    if not text.startswith(_FIRST_LINES):
        return f"cloud-init tells by the first line what this is; begin with one of {', '.join(_FIRST_LINES)}"
    if (size := len(text.encode())) > MOST_USER_DATA:
        return f"it has {size} bytes, {MOST_USER_DATA} are allowed here; put it on the hosts, and name user_data_file"
    if text.startswith("#cloud-config"):
        try:
            read = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            return f"its cloud-config is no YAML: {' '.join(str(error).split())}"
        if read is not None and not isinstance(read, dict):
            return "its cloud-config has to be keys and values"
    return None


def _disk_problem(disk: DiskShape, is_scaled: bool) -> str | None:
    if disk.path is not None and (disk.base is not None or disk.size is not None):
        return "path is an image that is there; base and size are of one that is made: write either"
    if disk.path is None and disk.base is None and disk.size is None:
        return "it says neither what is there (path) nor what to make (base, size)"
    if disk.base is not None and disk.format == "raw":
        return "a copy on write is qcow2; leave format out"
    if disk.path is not None and is_scaled:
        return f"{disk.path} would be written by all instances; write base, and each has a copy of its own"
    return None
