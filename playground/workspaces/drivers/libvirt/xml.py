"""Pure. A guest as a libvirt domain's XML, and what of it can be read back. https://libvirt.org/formatdomain.html

Every NIC is `type='ethernet' managed='no'`: libvirt opens a tap that is there and leaves it as it is. What libvirt
would do for a network beside that (bridges, filters, bandwidth) is not its business here.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Tree

import msgspec

from playground.machine import PLAIN, Disk, Machine
from playground.workspaces.drivers.api import Guest

NAMESPACE = "urn:playground:workspace"
"""Of the element that marks a domain as ours."""

_IDS = uuid.UUID("3e2f7f50-5a61-4a0f-9d2b-7c6c5a2b1d10")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host adds. type: kvm or qemu. disks: paths of a guest's disks, in their order. log: file
    that its serial line is written to. seed: path of a volume for cloud-init, or ""."""

    type: str
    disks: tuple[str, ...] = ()
    log: str = ""
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a domain of ours says of itself. started: it has been let run since it was made. halted: we were asked to
    have it stand still, or saved."""

    guest: Guest
    started: bool = False
    halted: bool = False


def domain_uuid(guest_id: str) -> str:
    """The domain of a guest, the same on every host."""
    return str(uuid.uuid5(_IDS, guest_id))


def domain_name(guest: Guest) -> str:
    """For people and other tools. Names are DNS labels, so a dot parts them."""
    return f"{guest.name}.{guest.playground}"


def write_mark(mark: Mark) -> str:
    """The element that marks a domain."""
    element = Tree.Element("guest")
    element.text = msgspec.json.encode(mark).decode()
    return Tree.tostring(element, encoding="unicode")


def read_mark(text: str) -> Mark:
    """What `write_mark` wrote. Raises ValueError for what it never wrote."""
    try:
        element = Tree.fromstring(text)
    except Tree.ParseError as error:
        raise ValueError(f"no mark of ours: {error}") from None
    return msgspec.json.decode(element.text or "", type=Mark)


def read_domain(xml: str) -> Guest:
    """The guest of a domain of ours, by its mark. Raises ValueError."""
    try:
        marked = Tree.fromstring(xml).find(f"metadata/{{{NAMESPACE}}}guest")
    except Tree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if marked is None:
        raise ValueError("no mark of ours")
    return msgspec.json.decode(marked.text or "", type=Mark).guest


def write_console(xml: str, log: Path) -> str:
    """The domain with its serial line written to another file; unchanged text where it is written to none."""
    return re.sub(rf"(<log file=)(['\"])[^'\"]*/{re.escape(log.name)}\2", rf"\1\2{log}\2", xml)


def domain_xml(guest: Guest, setting: Setting) -> str:
    """The domain of a guest that has not been started yet."""
    machine = guest.machine or PLAIN
    domain = Tree.Element("domain", type=setting.type)
    _text(domain, "name", domain_name(guest))
    _text(domain, "uuid", domain_uuid(guest.id))
    metadata = Tree.SubElement(domain, "metadata")
    marked = Tree.SubElement(metadata, f"{{{NAMESPACE}}}guest")
    marked.text = msgspec.json.encode(Mark(guest)).decode()
    _text(domain, "memory", str(guest.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(max(1, round(guest.cpus))))
    _boot(domain, guest)
    features = Tree.SubElement(domain, "features")
    Tree.SubElement(features, "acpi")
    Tree.SubElement(features, "apic")
    if machine.cpu:
        cpu = Tree.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", machine.cpu, fallback="forbid")
    Tree.SubElement(domain, "clock", offset="utc")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(domain, f"on_{event}", action)
    devices = Tree.SubElement(domain, "devices")
    for index, (disk, path) in enumerate(zip(machine.disks, setting.disks, strict=True)):
        _disk(devices, disk, path, f"vd{chr(ord('a') + index)}")
    if setting.seed:
        _cdrom(devices, machine, setting.seed)
    for nic in guest.nics:
        _nic(devices, nic.device, nic.mac, nic.mtu)
    _console(devices, setting.log)
    Tree.SubElement(devices, "memballoon", model="none")
    _merge(domain, devices, machine.extra)
    Tree.indent(domain)
    return Tree.tostring(domain, encoding="unicode")


def _merge(domain: Tree.Element, devices: Tree.Element, extra: str) -> None:
    """Devices are added, also those of a whole domain; each other part of one stands instead of ours of that name."""
    for element in Tree.fromstring(f"<xml>{extra}</xml>"):
        if element.tag != "domain":
            devices.append(element)
            continue
        for part in element:
            if part.tag == "devices":
                devices.extend(part)
                continue
            ours = next((at for at, one in enumerate(domain) if one.tag == part.tag), None)
            if ours is None:
                domain.append(part)
            else:  # where ours was: libvirt's schema takes some parts only beside each other
                domain[ours] = part


def named_model(cpu: str) -> str:
    """The name of the model that a cpu element asks for, "" for none."""
    return Tree.fromstring(cpu).findtext("model", "") if cpu else ""


def knows_model(capabilities: str, name: str) -> bool:
    """Whether a hypervisor's domain capabilities offer a processor of that name."""
    models = Tree.fromstring(capabilities).iterfind("cpu/mode[@name='custom']/model")
    return any(model.text == name and model.get("usable") != "no" for model in models)


def _text(parent: Tree.Element, tag: str, text: str, **attributes: str) -> None:
    Tree.SubElement(parent, tag, attributes).text = text


def _boot(domain: Tree.Element, guest: Guest) -> None:
    machine = guest.machine or PLAIN
    system = Tree.SubElement(domain, "os")
    attributes = {"arch": machine.arch} if machine.arch else {}
    if machine.model:
        attributes["machine"] = machine.model
    _text(system, "type", "hvm", **attributes)
    for tag, text in (("kernel", machine.kernel), ("initrd", machine.initrd), ("cmdline", machine.cmdline)):
        if text:
            _text(system, tag, text)


def _disk(devices: Tree.Element, disk: Disk, path: str, target: str) -> None:
    found = Tree.SubElement(devices, "disk", type="file", device="disk")
    Tree.SubElement(found, "driver", name="qemu", type=disk.kind, cache="none")
    Tree.SubElement(found, "source", file=path)
    Tree.SubElement(found, "target", dev=target, bus="virtio")


def _cdrom(devices: Tree.Element, machine: Machine, path: str) -> None:
    """By IDE on the machine type that has it. Elsewhere by virtio: kernels made for clouds know that, and no AHCI."""
    is_pc = machine.arch in ("", "x86_64", "i686") and (not machine.model or machine.model.startswith("pc-i440fx"))
    bus = "ide" if is_pc or machine.model == "pc" else "scsi"
    if bus == "scsi":
        Tree.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    found = Tree.SubElement(devices, "disk", type="file", device="cdrom")
    Tree.SubElement(found, "driver", name="qemu", type="raw")
    Tree.SubElement(found, "source", file=path)
    Tree.SubElement(found, "target", dev="hdd" if bus == "ide" else "sdd", bus=bus)
    Tree.SubElement(found, "readonly")


def _nic(devices: Tree.Element, device: str, mac: str, mtu: int) -> None:
    nic = Tree.SubElement(devices, "interface", type="ethernet")
    Tree.SubElement(nic, "mac", address=mac)
    Tree.SubElement(nic, "target", dev=device, managed="no")
    Tree.SubElement(nic, "model", type="virtio")
    Tree.SubElement(nic, "mtu", size=str(mtu))
    Tree.SubElement(nic, "rom", enabled="no")


def _console(devices: Tree.Element, log: str) -> None:
    serial = Tree.SubElement(devices, "serial", type="pty")
    if log:
        Tree.SubElement(serial, "log", file=log, append="on")
    Tree.SubElement(serial, "target", port="0")
    console = Tree.SubElement(devices, "console", type="pty")
    Tree.SubElement(console, "target", type="serial", port="0")
