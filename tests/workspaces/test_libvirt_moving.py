"""What libvirt is told of a migration, and what is found out before one; without any libvirt."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as Tree

import pytest

from playground.manner import PLAIN, Manner
from playground.workspaces.departure import Departure, DiskFound
from playground.workspaces.drivers.api import Sending
from playground.workspaces.drivers.libvirt import moving
from playground.workspaces.drivers.libvirt.xml import knows_model, named_model

HERE = Path("/var/here")
LIVE = """
<domain type='qemu'>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><kernel>/boot/vmlinuz</kernel></os>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <disk type='file' device='disk'>
      <source file='/var/here/images/a/disk-0.qcow2'/>
      <backingStore type='file'><source file='/srv/base.qcow2'/></backingStore>
      <target dev='vda'/>
    </disk>
    <disk type='file' device='disk'><source file='/shared/b.raw'/><target dev='vdb'/></disk>
    <disk type='file' device='cdrom'><source file='/var/here/seeds/a.iso'/><target dev='sda'/><readonly/></disk>
    <serial type='pty'><log file='/var/here/consoles/a.log' append='on'/></serial>
  </devices>
</domain>
"""


@pytest.mark.parametrize(
    ("manner", "more"),
    [
        (PLAIN, set()),
        (Manner(post_copy=True), {"POSTCOPY"}),
        (Manner(auto_converge=True), {"AUTO_CONVERGE"}),
        (Manner(copy_storage=True), {"NON_SHARED_INC"}),
    ],
)
def test_flags_are_those_that_were_asked_for(manner: Manner, more: set[str]) -> None:
    assert set(moving.flags(Sending("to", "", manner))) == {*moving.ALWAYS, *more}


def test_libvirts_doubts_are_set_aside_only_where_one_kernel_has_found_the_files_the_same() -> None:
    assert "UNSAFE" in moving.flags(Sending("to", is_one_kernel=True))
    assert "UNSAFE" not in moving.flags(Sending("to"))


def test_own_disks_are_copied_and_no_others() -> None:
    sending = Sending("to", str(HERE), Manner(copy_storage=True, bandwidth_mib_s=8))
    assert moving.parameters(sending, LIVE, LIVE, HERE) == {"bandwidth": 8, "migrate_disks": ["vda"]}


def test_what_a_host_made_lies_where_the_other_host_has_it() -> None:
    told = moving.parameters(Sending("to", "/srv/there"), LIVE, LIVE, HERE)
    assert set(told) == {"destination_xml", "persistent_xml"}
    for xml in told.values():
        paths = [e.get("file") for e in Tree.fromstring(str(xml)).iter() if e.get("file")]
        assert paths == [
            "/srv/there/images/a/disk-0.qcow2",
            "/srv/base.qcow2",
            "/shared/b.raw",
            "/srv/there/seeds/a.iso",
            "/srv/there/consoles/a.log",
        ]


@pytest.mark.parametrize(("max_gap_ms", "pause_ms"), [(0, 0), (1, 1), (200, 100), (0.5, 1)])
def test_half_of_an_allowed_silence_is_the_hypervisors(max_gap_ms: float, pause_ms: int) -> None:
    assert Manner(max_gap_ms=max_gap_ms).longest_pause_ms == pause_ms


def test_a_departure_says_what_the_machine_is_of() -> None:
    found = moving.departure(LIVE, HERE, "no way")
    assert (found.kind, found.arch, found.model) == ("qemu", "x86_64", "pc-i440fx-7.2")
    assert named_model(found.cpu) == "qemu64" and found.unreachable == "no way"
    assert [(disk.path, disk.is_own, disk.base) for disk in found.disks] == [
        ("/var/here/images/a/disk-0.qcow2", True, "/srv/base.qcow2"),
        ("/shared/b.raw", False, ""),
    ]
    assert found.files == ("/boot/vmlinuz",)


def a_departure(folder: Path, *disks: DiskFound, kernel: str = "") -> Departure:
    return Departure("qemu", "x86_64", "pc", "", disks, folder=str(folder), kernel=kernel)


def seen(path: Path, is_own: bool = False, base: str = "") -> DiskFound:
    found = path.stat()
    return DiskFound(str(path), is_own, (found.st_dev, found.st_ino), base, 4096)


def test_a_disk_at_the_same_path_is_there_and_one_kernel_knows_it_for_the_same(tmp_path: Path) -> None:
    disk = tmp_path / "a.qcow2"
    disk.write_bytes(b"x")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    here = moving.arrival(a_departure(tmp_path, seen(disk), kernel=boot), False, "", HERE)
    assert here.disks == () and here.is_one_kernel
    elsewhere = moving.arrival(a_departure(tmp_path, seen(disk), kernel="another"), False, "", HERE)
    assert elsewhere.disks == () and not elsewhere.is_one_kernel
    other = DiskFound(str(disk), False, (1, 2))
    assert not moving.arrival(a_departure(tmp_path, other, kernel=boot), False, "", HERE).is_one_kernel


def test_a_disk_that_is_not_here_is_missed_unless_it_comes_along(tmp_path: Path) -> None:
    own, foreign = DiskFound(f"{tmp_path}/own", True), DiskFound(f"{tmp_path}/foreign", False)
    left = moving.arrival(a_departure(tmp_path, own, foreign), False, "", tmp_path).disks
    assert "--copy-storage" in left[0] and "same path" in left[1]
    assert len(moving.arrival(a_departure(tmp_path, own, foreign), True, "", tmp_path).disks) == 1
    based = DiskFound(f"{tmp_path}/own", True, base=f"{tmp_path}/base")
    assert "the image" in moving.arrival(a_departure(tmp_path, based), True, "", tmp_path).disks[0]
    (tmp_path / "own").touch()
    assert "already" in moving.arrival(a_departure(tmp_path, own), True, "", tmp_path).disks[0]
    (tmp_path / "own").unlink()
    large = DiskFound(f"{tmp_path}/own", True, allocated=1 << 60)
    assert "are free here" in moving.arrival(a_departure(tmp_path, large), True, "", tmp_path).disks[0]


@pytest.mark.parametrize(("said", "expected"), [("", ("", False)), ("no", ("no", False)), (None, ("", True))])
def test_what_is_said_of_the_processor_is_handed_on(said: str | None, expected: tuple[str, bool]) -> None:
    found = moving.arrival(a_departure(Path("/")), False, said, HERE)
    assert (found.processor, found.is_unknown) == expected


def test_a_processor_is_known_where_its_name_can_be_had() -> None:
    capabilities = """<domainCapabilities><cpu><mode name='custom' supported='yes'>
        <model usable='yes'>qemu64</model><model usable='no'>Skylake</model><model usable='unknown'>max</model>
    </mode></cpu></domainCapabilities>"""
    assert [knows_model(capabilities, name) for name in ("qemu64", "Skylake", "max", "none")] == [
        True,
        False,
        True,
        False,
    ]
