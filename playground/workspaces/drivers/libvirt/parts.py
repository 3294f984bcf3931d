"""Pure. What of a domain differs by the type of its machine: how it boots, its disks, NICs and console.

QEMU opens taps that are there. Containers and Xen's guests get a device that their hypervisor makes, under the name
that the domain asks for; the data plane takes that in as it takes taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as Tree

from playground.machine import PLAIN, Disk, Machine
from playground.workspaces.drivers.api import Guest, Nic


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host adds. type: of the machine, as kvm. disks: paths of a guest's disks, in their order. log: file
    that its serial line is written to. seed: path of a volume for cloud-init, or ""."""

    type: str
    disks: tuple[str, ...] = ()
    log: str = ""
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """system: adds what a domain boots and on what. devices: adds to its devices, all of them."""

    system: Callable[[Tree.Element, Guest], None]
    devices: Callable[[Tree.Element, Guest, Setting], None]


def text(parent: Tree.Element, tag: str, content: str, **attributes: str) -> None:
    """A child with this text."""
    Tree.SubElement(parent, tag, attributes).text = content


# QEMU


def _qemu_system(domain: Tree.Element, guest: Guest) -> None:
    machine = guest.machine or PLAIN
    _boot(domain, machine, "hvm")
    _features(domain, "acpi", "apic")
    if machine.cpu:
        cpu = Tree.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        text(cpu, "model", machine.cpu, fallback="forbid")


def _qemu_devices(devices: Tree.Element, guest: Guest, setting: Setting) -> None:
    machine = guest.machine or PLAIN
    for index, (disk, path) in enumerate(zip(machine.disks, setting.disks, strict=True)):
        _disk(devices, disk, path, f"vd{chr(ord('a') + index)}", "virtio", cache="none")
    if setting.seed:
        _cdrom(devices, machine, setting.seed)
    for one in guest.nics:
        nic = _nic(devices, one, managed="no")
        Tree.SubElement(nic, "model", type="virtio")
        Tree.SubElement(nic, "mtu", size=str(one.mtu))
        Tree.SubElement(nic, "rom", enabled="no")
    _serial(devices, setting.log)
    Tree.SubElement(devices, "memballoon", model="none")


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


# containers


def _lxc_system(domain: Tree.Element, guest: Guest) -> None:
    """A network namespace of its own is said: with no NIC, libvirt would have it in the host's."""
    _boot(domain, guest.machine or PLAIN, "exe")
    _features(domain, "privnet")


def _lxc_devices(devices: Tree.Element, guest: Guest, setting: Setting) -> None:
    for path in setting.disks:
        root = Tree.SubElement(devices, "filesystem", type="mount")
        Tree.SubElement(root, "source", dir=path)
        Tree.SubElement(root, "target", dir="/")
    for one in guest.nics:
        Tree.SubElement(_nic(devices, one), "guest", dev=f"eth{one.index}")
    Tree.SubElement(devices, "console", type="pty")


# Xen

VIF_SCRIPT = "/etc/xen/scripts/vif-playground"
"""Names a guest's vif and sets it up; Xen's own scripts put it into a bridge besides, and fail where there is none."""

_XEN_SYSTEMS = {"": "hvm", "xenfv": "hvm", "xenpv": "linux", "xenpvh": "xenpvh"}
"""libvirt's word for what is booted, by machine type."""

_SEED = "xvdz"


def _xen_system(domain: Tree.Element, guest: Guest) -> None:
    machine = guest.machine or PLAIN
    _boot(domain, machine, _XEN_SYSTEMS[machine.model])
    if machine.model != "xenpv":
        _features(domain, "acpi", "apic")


def _xen_devices(devices: Tree.Element, guest: Guest, setting: Setting) -> None:
    machine = guest.machine or PLAIN
    for index, (disk, path) in enumerate(zip(machine.disks, setting.disks, strict=True)):
        _disk(devices, disk, path, f"xvd{chr(ord('a') + index)}", "xen")
    if setting.seed:
        seed = Disk(path=setting.seed, format="raw")
        Tree.SubElement(_disk(devices, seed, setting.seed, _SEED, "xen"), "readonly")
    for one in guest.nics:
        nic = _nic(devices, one)
        Tree.SubElement(nic, "script", path=VIF_SCRIPT)
        Tree.SubElement(nic, "model", type="netfront")
    if _XEN_SYSTEMS[machine.model] == "hvm":
        _serial(devices, "")
    else:
        console = Tree.SubElement(devices, "console", type="pty")
        Tree.SubElement(console, "target", type="xen", port="0")


# what several have


def _boot(domain: Tree.Element, machine: Machine, system: str) -> None:
    found = Tree.SubElement(domain, "os")
    attributes = {"arch": machine.arch} if machine.arch else {}
    if machine.model:
        attributes["machine"] = machine.model
    text(found, "type", system, **attributes)
    for tag, content in (("kernel", machine.kernel), ("initrd", machine.initrd), ("cmdline", machine.cmdline)):
        if content:
            text(found, tag, content)


def _features(domain: Tree.Element, *names: str) -> None:
    features = Tree.SubElement(domain, "features")
    for name in names:
        Tree.SubElement(features, name)


def _disk(devices: Tree.Element, disk: Disk, path: str, target: str, bus: str, **driver: str) -> Tree.Element:
    found = Tree.SubElement(devices, "disk", type="file", device="disk")
    Tree.SubElement(found, "driver", {"name": "qemu", "type": disk.kind, **driver})
    Tree.SubElement(found, "source", file=path)
    Tree.SubElement(found, "target", dev=target, bus=bus)
    return found


def _nic(devices: Tree.Element, one: Nic, **target: str) -> Tree.Element:
    nic = Tree.SubElement(devices, "interface", type="ethernet")
    Tree.SubElement(nic, "mac", address=one.mac)
    Tree.SubElement(nic, "target", {"dev": one.device, **target})
    return nic


def _serial(devices: Tree.Element, log: str) -> None:
    serial = Tree.SubElement(devices, "serial", type="pty")
    if log:
        Tree.SubElement(serial, "log", file=log, append="on")
    Tree.SubElement(serial, "target", port="0")
    console = Tree.SubElement(devices, "console", type="pty")
    Tree.SubElement(console, "target", type="serial", port="0")


QEMU = Parts(_qemu_system, _qemu_devices)

BY_TYPE = {"lxc": Parts(_lxc_system, _lxc_devices), "xen": Parts(_xen_system, _xen_devices)}
"""Of machines that are not QEMU's."""
