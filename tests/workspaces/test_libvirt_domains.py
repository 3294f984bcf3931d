"""A guest as a libvirt domain, and what notes and domains mean together; without any libvirt."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as Tree

import pytest

from playground.machine import Disk, Machine
from playground.workspaces.drivers.api import Copy, CopyState, Guest, GuestState, Nic, Sending
from playground.workspaces.drivers.libvirt import accelerator as accelerator_module
from playground.workspaces.drivers.libvirt.door import Domain, Door
from playground.workspaces.drivers.libvirt.driver import LibvirtDriver, _state, peer_uri
from playground.workspaces.drivers.libvirt.notes import Note, Notes, Part
from playground.workspaces.drivers.libvirt.parts import Setting
from playground.workspaces.drivers.libvirt.states import State, cause_of, state_of
from playground.workspaces.drivers.libvirt.xml import (
    NAMESPACE,
    Mark,
    domain_name,
    domain_uuid,
    domain_xml,
    read_mark,
    write_mark,
)

MACHINE = Machine(
    model="q35",
    cpu="qemu64",
    kernel="/boot/vmlinuz",
    cmdline='console=ttyS0 note="<&>"',
    disks=(Disk(base="/srv/a.qcow2"), Disk(path="/srv/b.raw")),
    extra="<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
)
NICS = tuple(Nic(f"{n:012x}", f"pg{n:012x}", f"02:00:00:00:00:0{n}", 1400 + n, n) for n in range(2))
GUEST = Guest("7a010e8d8fc8", "atlas", "w-0", "w-0", NICS, 2, 512, MACHINE)


def domain() -> Tree.Element:
    return Tree.fromstring(domain_xml(GUEST, Setting("qemu", ("/var/a.qcow2", "/srv/b.raw"), log="/var/log/w")))


def test_nics_are_taps_that_are_there_and_stay_as_they_are() -> None:
    found = domain().findall("devices/interface")
    assert [nic.get("type") for nic in found] == ["ethernet", "ethernet"]
    for nic, want in zip(found, NICS, strict=True):
        target, mac, mtu = nic.find("target"), nic.find("mac"), nic.find("mtu")
        assert target is not None and mac is not None and mtu is not None
        assert (target.get("dev"), target.get("managed")) == (want.device, "no")
        assert (mac.get("address"), mtu.get("size")) == (want.mac, str(want.mtu))


def test_a_domain_is_what_the_file_says() -> None:
    found = domain()
    assert found.get("type") == "qemu" and found.findtext("name") == "w-0.atlas"
    assert (found.findtext("memory"), found.findtext("vcpu")) == ("512", "2")
    assert found.findtext("os/kernel") == "/boot/vmlinuz" and found.findtext("os/cmdline") == MACHINE.cmdline
    assert found.findtext("cpu/model") == "qemu64"
    disks = found.findall("devices/disk")
    sources = [one.find("source") for one in disks]
    drivers = [one.find("driver") for one in disks]
    assert [one.get("file") for one in sources if one is not None] == ["/var/a.qcow2", "/srv/b.raw"]
    assert [one.get("type") for one in drivers if one is not None] == ["qcow2", "raw"]
    assert found.findtext("devices/rng/backend") == "/dev/urandom"


def test_a_domain_is_known_by_its_mark_through_any_spelling_of_it() -> None:
    marked = domain().find(f"metadata/{{{NAMESPACE}}}guest")
    assert marked is not None
    assert read_mark(Tree.tostring(marked, encoding="unicode")) == Mark(GUEST)
    assert read_mark(write_mark(Mark(GUEST, started=True))) == Mark(GUEST, started=True)


@pytest.mark.parametrize("text", ["", "<guest/>", "<guest>{}</guest>", "<guest>[1]</guest>", "no XML"])
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_mark(text)


def test_names_tell_apart_what_hyphens_would_not() -> None:
    some = [Guest("0" * 12, p, w, w, ()) for p, w in (("a-b", "c"), ("a", "b-c"))]
    assert len({domain_name(one) for one in some}) == 2
    assert domain_uuid("7a010e8d8fc8") == domain_uuid("7a010e8d8fc8") != domain_uuid("7a010e8d8fc9")


def test_ipv6_addresses_are_bracketed_in_uris() -> None:
    assert peer_uri("tls", "192.0.2.11") == "qemu+tls://192.0.2.11/system"
    assert peer_uri("tcp", "2001:db8::11") == "qemu+tcp://[2001:db8::11]/system"


def test_notes_outlive_their_writer_and_a_torn_one_is_no_note(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "guests")
    assert notes.read() == {}
    notes.put(Note(GUEST, Part.ARRIVING, 7))
    assert Notes(tmp_path / "guests").read() == {GUEST.id: Note(GUEST, Part.ARRIVING, 7)}
    (tmp_path / "guests" / "0.json").write_text('{"guest": {')
    assert set(notes.read()) == {GUEST.id}
    notes.drop(GUEST.id)
    notes.drop(GUEST.id)
    assert notes.read() == {}


NOTES = (None, *(Note(GUEST, part) for part in Part))
MARKS = tuple(Mark(GUEST, started, halted) for started in (False, True) for halted in (False, True))
DOMAINS = (None, *(Domain("u", state, mark) for state in State for mark in MARKS))


@pytest.mark.parametrize(("note", "found"), list(itertools.product(NOTES, DOMAINS)))
def test_what_a_note_and_a_domain_mean(note: Note | None, found: Domain | None) -> None:
    state, cause = _state(note, found)
    kind = found.state if found is not None else State.OFF
    part = note.part if note is not None else None
    if kind is State.RUNNING:
        want = GuestState.RUNNING
    elif kind is State.LEFT or (kind is State.PAUSED and part is Part.ARRIVING):
        want = GuestState.ELSEWHERE
    elif kind is State.PAUSED:
        want = GuestState.SUSPENDED if found is not None and found.mark.started else GuestState.PREPARED
    elif kind is State.SAVED and part in (None, Part.OWN):
        want = GuestState.SAVED
    elif part is None:
        want = GuestState.ABSENT
    else:
        want = GuestState.FAILED if part is Part.OWN else GuestState.ELSEWHERE
    is_unasked = state is GuestState.SUSPENDED and found is not None and not found.mark.halted
    assert state is want and bool(cause) == (state is GuestState.FAILED or is_unasked)


def test_kvm_is_believed_when_it_has_booted_something_and_asked_once_a_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def works(kind: str, seconds: float, cpu_s: int) -> bool:
        asked.append(kind)
        return False

    monkeypatch.setattr(accelerator_module, "works", works)
    monkeypatch.setattr(accelerator_module, "KVM", str(tmp_path / "none"))
    assert accelerator_module.accelerator(tmp_path / "kept") == "qemu" and asked == []
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator_module, "KVM", str(tmp_path / "kvm"))
    for _ in range(2):
        assert accelerator_module.accelerator(tmp_path / "kept") == "qemu" and asked == ["kvm"]
    (tmp_path / "kept").write_text("another-boot kvm")
    assert accelerator_module.accelerator(tmp_path / "kept") == "qemu" and asked == ["kvm", "kvm"]


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed")
def test_the_trial_ends_by_its_own_word_under_emulation() -> None:
    assert accelerator_module.works("tcg", 30, 5)
    assert not accelerator_module.works("no such accelerator", 30, 5)


def test_a_trial_that_costs_more_processor_time_than_it_may_is_lost_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "qemu-system-x86_64"
    slow.write_text("#!/bin/sh\nwhile :; do :; done\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert not accelerator_module.works("kvm", 60, 1)


class Capable:
    """A connection that says what it has, as libvirt does."""

    def getCapabilities(self) -> str:
        guests = "".join(f"<guest><os_type>hvm</os_type><arch name='{arch}'/></guest>" for arch in ("x86_64", "i686"))
        return f"<capabilities><host><cpu><arch>x86_64</arch></cpu></host>{guests}{guests}</capabilities>"


def test_a_host_says_which_processors_its_machines_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door("test:///default", lambda uuid: None, lambda moved: None, lambda uuid: None)

    async def call(what: Callable[[object], tuple[str, ...]]) -> tuple[str, ...]:
        return what(Capable())

    monkeypatch.setattr(door, "call", call)
    assert asyncio.run(door.architectures()) == ("i686", "x86_64")


REASONS = {
    ("RUNNING", "BOOTED"): (State.RUNNING, ""),
    ("PAUSED", "USER"): (State.PAUSED, "suspended by another tool"),
    ("PAUSED", "IOERROR"): (State.PAUSED, "a disk failed"),
    ("PAUSED", "WATCHDOG"): (State.PAUSED, "its watchdog fired"),
    ("PAUSED", "CRASHED"): (State.PAUSED, "its guest has crashed"),
    ("PAUSED", "POSTCOPY_FAILED"): (State.PAUSED, "its memory did not all arrive in a post-copy migration"),
    ("PAUSED", "STARTING_UP"): (State.PAUSED, ""),
    ("PAUSED", "MIGRATION"): (State.LEFT, ""),
    ("PAUSED", "POSTCOPY"): (State.LEFT, ""),
    ("PAUSED", "SAVE"): (State.RUNNING, ""),
    ("PAUSED", "SNAPSHOT"): (State.RUNNING, ""),
    ("SHUTOFF", "SHUTDOWN"): (State.OFF, "it has shut itself down"),
    ("SHUTOFF", "DESTROYED"): (State.OFF, "another tool has ended it"),
    ("SHUTOFF", "CRASHED"): (State.OFF, "its hypervisor's process has died"),
    ("SHUTOFF", "UNKNOWN"): (State.OFF, ""),
    ("CRASHED", "PANICKED"): (State.CRASHED, "its guest's kernel has panicked"),
}


@pytest.mark.parametrize(("name", "reason"), REASONS)
def test_libvirts_reasons_are_told_in_words_and_what_passes_by_itself_runs(name: str, reason: str) -> None:
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    state = getattr(libvirt, f"VIR_DOMAIN_{name}")
    number = getattr(libvirt, f"VIR_DOMAIN_{name}_{reason}")
    assert (state_of(libvirt, state, number), cause_of(libvirt, state, number)) == REASONS[name, reason]


class FullDisk:
    """A domain that stands still, as a disk of its host is full."""

    def state(self) -> list[int]:
        return [3, 5]  # VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_IOERROR

    def diskErrors(self) -> dict[str, int]:
        return {"vdb": 2, "vda": 1}  # VIR_DOMAIN_DISK_ERROR_NO_SPACE, _UNSPEC


def test_a_disk_that_failed_is_named_with_how() -> None:
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    door = Door("test:///default", lambda uuid: None, lambda moved: None, lambda uuid: None)
    door._libvirt = libvirt
    found = door._shown(FullDisk(), "u", Mark(GUEST, started=True))
    assert (found.state, found.cause) == (State.PAUSED, "a disk failed: vda, I/O error; vdb, no space left")


def test_a_copy_that_is_only_beginning_has_not_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a look at the guest falls between its note and libvirt's first word of the migration."""
    runs = Domain(domain_uuid(GUEST.id), State.RUNNING, Mark(GUEST, started=True))

    async def domains(uuids: object = None) -> dict[str, Domain]:
        return {runs.uuid: runs}

    async def copied(uuid: str) -> float | None:
        return None

    async def work() -> None:
        driver = LibvirtDriver(tmp_path, "test:///none", "", tmp_path, lambda guest: None, lambda device: None)
        noted, may_go_on = asyncio.Event(), threading.Event()
        loop, put = asyncio.get_running_loop(), driver._notes.put

        def put_slowly(note: Note) -> None:
            put(note)
            loop.call_soon_threadsafe(noted.set)
            may_go_on.wait(5)

        monkeypatch.setattr(driver._door, "domains", domains)
        monkeypatch.setattr(driver._door, "copied", copied)
        monkeypatch.setattr(driver, "_release", lambda notes, found: None)
        driver._notes.put(Note(GUEST, Part.OWN, ran=True))
        monkeypatch.setattr(driver._notes, "put", put_slowly)
        sending = asyncio.create_task(driver.send(GUEST, 7, Sending("test:///other")))
        await noted.wait()
        copy = (await driver.observe([GUEST.id]))[GUEST.id].copy
        assert copy == Copy(7, CopyState.RUNNING)
        may_go_on.set()
        await sending
        for task in list(driver._sending.values()):
            task.cancel()

    asyncio.run(work())
