"""Whole domains as written, by libvirt's own schema; what an expert's XML changes of them; the disks that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Tree

import pytest

from playground.hypervisors import USUAL
from playground.machine import Disk, Machine, Seed
from playground.workspaces.drivers.api import DriverError, Guest, Nic
from playground.workspaces.drivers.libvirt.images import Images
from playground.workspaces.drivers.libvirt.parts import Setting
from playground.workspaces.drivers.libvirt.xml import NAMESPACE, domain_xml

GOLDEN = Path(__file__).parent / "golden" / "domain"

NICS = tuple(Nic(f"{n:012x}", f"pg{n:012x}", f"02:00:00:00:00:0{n}", 1450, n) for n in range(2))
GUEST = Guest("7a010e8d8fc8", "atlas", "web-0", "web-0", NICS, 2, 512, Machine())

EXPERTS = """
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <cpu mode='host-passthrough'/>
  <on_crash>preserve</on_crash>
  <memtune><hard_limit unit='MiB'>2048</hard_limit></memtune>
  <devices><watchdog model='i6300esb' action='pause'/></devices>
  <qemu:commandline><qemu:arg value='-nodefaults'/></qemu:commandline>
</domain>
"""

DOMAINS = {
    "image": (Machine(disks=(Disk(base="/srv/a.qcow2"),)), ("/images/disk-0.qcow2",)),
    "pc-seed": (Machine(type="qemu", model="pc", disks=(Disk(base="/a"),), seed=Seed()), ("/images/disk-0.qcow2",)),
    "q35-seed": (
        Machine(type="kvm", model="q35", cpu="qemu64", disks=(Disk(path="/a.raw"), Disk(size_mib=9)), seed=Seed()),
        ("/a.raw", "/images/disk-1.qcow2"),
    ),
    "kernel": (Machine(arch="x86_64", kernel="/vmlinuz", initrd="/initrd", cmdline='a="<&>"'), ()),
    "container": (Machine(type="lxc", arch="x86_64", disks=(Disk(path="/srv/roots/w"),)), ("/srv/roots/w",)),
    "xen-full": (
        Machine(type="xen", disks=(Disk(base="/a"), Disk(path="/b.raw")), seed=Seed()),
        ("/images/disk-0.qcow2", "/b.raw"),
    ),
    "xen-pv": (Machine(type="xen", model="xenpv", kernel="/vmlinuz", initrd="/initrd", cmdline="quiet"), ()),
    "xen-pvh": (Machine(type="xen", model="xenpvh", kernel="/vmlinuz"), ()),
    "expert": (Machine(cpu="qemu64", kernel="/vmlinuz", extra=EXPERTS), ()),
}


def domain(name: str) -> str:
    machine, disks = DOMAINS[name]
    seed = "/images/seed.iso" if machine.seed is not None else ""
    return domain_xml(replace(GUEST, machine=machine), Setting(machine.type or "qemu", disks, "/consoles/w.log", seed))


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_is_as_written(name: str, golden: Callable[[str, Path], None]) -> None:
    """But for the mark, which is read back by its own test."""
    text = re.sub(r"(<ns0:guest>).*?(</ns0:guest>)", r"\1…\2", domain(name), flags=re.DOTALL)
    golden(text + "\n", GOLDEN / f"{name}.xml")


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.skipif(
    not all(map(shutil.which, ("virt-xml-validate", "xmllint"))),
    reason="virt-xml-validate (libvirt-clients) or xmllint (libxml2-utils) is not installed",
)
def test_a_domain_keeps_to_the_schema_whatever_runs_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "domain.xml"
    file.write_text(domain(name))
    done = subprocess.run(["virt-xml-validate", str(file), "domain"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name, (machine, _) in DOMAINS.items() if machine.type in ("", *USUAL)])
def test_libvirts_own_schema_takes_a_domain(name: str) -> None:
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    text = domain(name)
    type = Tree.fromstring(text).get("type")
    connection = libvirt.open("test:///default")
    try:
        text = text.replace(f'<domain type="{type}"', '<domain type="test"', 1)
        made = connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        assert made.name() == "web-0.atlas"
        made.undefine()
    finally:
        connection.close()


def test_an_experts_xml_adds_devices_and_replaces_parts_but_no_mark_and_no_nic() -> None:
    found = Tree.fromstring(domain("expert"))
    assert [cpu.attrib for cpu in found.findall("cpu")] == [{"mode": "host-passthrough"}]
    assert [one.text for one in found.findall("on_crash")] == ["preserve"]
    assert found.find("devices/rng") is not None and found.find("devices/watchdog") is not None
    assert len(found.findall("devices")) == 1 and found.findtext("os/kernel") == "/vmlinuz"
    assert found.find("{http://libvirt.org/schemas/domain/qemu/1.0}commandline") is not None
    assert found.find(f"metadata/{{{NAMESPACE}}}guest") is not None
    nics = [one.find("target") for one in found.findall("devices/interface")]
    assert [one.get("dev") for one in nics if one is not None] == [nic.device for nic in NICS]


needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


def info(path: str) -> dict[str, object]:
    said = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True, text=True)
    return dict(json.loads(said.stdout))


@needs_qemu_img
def test_disks_are_made_once_as_the_file_says(tmp_path: Path) -> None:
    base = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "8M"], check=True)
    disks = (Disk(base=str(base)), Disk(base=str(base), size_mib=16), Disk(size_mib=4), Disk(size_mib=4, format="raw"))
    images, guest = Images(tmp_path / "images"), replace(GUEST, machine=Machine(disks=disks))
    paths = images.ensure(guest)
    found = [(one["format"], one["virtual-size"], one.get("backing-filename")) for one in map(info, paths)]
    mib = 1 << 20
    assert found == [
        ("qcow2", 8 * mib, str(base)),
        ("qcow2", 16 * mib, str(base)),
        ("qcow2", 4 * mib, None),
        ("raw", 4 * mib, None),
    ]
    before = [Path(path).stat().st_ino for path in paths]
    assert images.ensure(guest) == paths and [Path(path).stat().st_ino for path in paths] == before


@needs_qemu_img
def test_an_image_of_another_format_than_it_is_taken_for_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    images = Images(tmp_path / "images")
    with pytest.raises(DriverError, match="is qcow2, not raw; write format: qcow2"):
        images.ensure(replace(GUEST, machine=Machine(disks=(Disk(path=str(image)),))))
    taken = Disk(path=str(image), format="qcow2")
    assert images.ensure(replace(GUEST, machine=Machine(disks=(taken,)))) == (str(image),)
    with pytest.raises(DriverError, match="is not on this host"):
        images.ensure(replace(GUEST, machine=Machine(disks=(Disk(path=str(tmp_path / "none.raw")),))))
