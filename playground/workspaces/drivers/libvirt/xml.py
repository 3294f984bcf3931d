"""Pure. A guest as a libvirt domain's XML, and what of it can be read back. https://libvirt.org/formatdomain.html

Every NIC is `type='ethernet'`: a device of that name, and nothing else. What libvirt would do for a network beside that
(bridges, filters, bandwidth) is not its business here.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Tree

import msgspec

from playground.machine import PLAIN
from playground.workspaces.drivers.api import Guest
from playground.workspaces.drivers.libvirt.parts import BY_TYPE, QEMU, Setting, text

NAMESPACE = "urn:playground:workspace"
"""Of the element that marks a domain as ours."""

_IDS = uuid.UUID("3e2f7f50-5a61-4a0f-9d2b-7c6c5a2b1d10")


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
    parts = BY_TYPE.get(setting.type, QEMU)
    domain = Tree.Element("domain", type=setting.type)
    text(domain, "name", domain_name(guest))
    text(domain, "uuid", domain_uuid(guest.id))
    metadata = Tree.SubElement(domain, "metadata")
    marked = Tree.SubElement(metadata, f"{{{NAMESPACE}}}guest")
    marked.text = msgspec.json.encode(Mark(guest)).decode()
    text(domain, "memory", str(guest.memory_mib), unit="MiB")
    text(domain, "vcpu", str(max(1, round(guest.cpus))))
    parts.system(domain, guest)
    Tree.SubElement(domain, "clock", offset="utc")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        text(domain, f"on_{event}", action)
    devices = Tree.SubElement(domain, "devices")
    parts.devices(devices, guest, setting)
    _merge(domain, devices, (guest.machine or PLAIN).extra)
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
