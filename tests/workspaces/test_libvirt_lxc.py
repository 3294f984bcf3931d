"""Containers by libvirt's own LXC driver: made, let run, halted and ended by ours, on a libvirtd of the test's own."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from libvirt_lab import Libvirtd, a_libvirtd, why_no_libvirtd

from playground.machine import Disk, Machine
from playground.workspaces.drivers.api import DriverError, Guest, GuestState, Nic
from playground.workspaces.drivers.libvirt.driver import LibvirtDriver

pytestmark = [pytest.mark.system, pytest.mark.vm]

T = TypeVar("T")

NIC = Nic("7a010e8d8fca", "pg7a010e8d8fca", "02:00:00:00:00:0a", 1450, 0)

INIT = """
<domain><os><type>exe</type><init>/bin/sh</init><initarg>-c</initarg><initarg>
while :; do ip link show eth0; sleep 1; done</initarg></os></domain>
"""


@dataclass
class Containers:
    """A host for containers, and one of them."""

    driver: LibvirtDriver
    runner: asyncio.Runner
    guest: Guest

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def state(self) -> GuestState | None:
        found = self.run(self.driver.observe()).get(self.guest.id)
        return found.state if found is not None else None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a container: busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    folder = tmp_path_factory.mktemp("root")
    for name in ("bin", "dev", "proc", "sys"):
        (folder / name).mkdir()
    shutil.copy(busybox, folder / "bin/busybox")
    for name in ("sh", "ip", "sleep"):
        (folder / "bin" / name).symlink_to("busybox")
    return folder


@pytest.fixture(scope="module")
def daemon(root: Path) -> Iterator[Libvirtd]:
    """Skips, with libvirt's words, where it can't start a container that is none of ours."""
    if reason := why_no_libvirtd():
        pytest.skip(reason)
    if importlib.util.find_spec("libvirt") is None:
        pytest.skip("libvirt-python is not installed")
    bare = root / "bare.xml"
    bare.write_text(
        "<domain type='lxc'><name>bare</name><memory unit='MiB'>64</memory><os><type>exe</type><init>/bin/sh</init>"
        "</os><features><privnet/></features><devices>"
        f"<filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem>"
        "<console type='pty'/></devices></domain>"
    )
    with a_libvirtd(for_containers=True) as running:
        before = groups(running)
        for words in (["create", str(bare)], ["destroy", "bare"]):
            virsh = ["virsh", "-q", "-c", running.uri_of("lxc"), *words]
            done = subprocess.run(virsh, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"libvirt starts no container here: {' '.join(done.stderr.split())}")
        yield running
        if made := groups(running) - before:
            subprocess.run(["nsenter", "-t", str(running.init), "-m", "rmdir", *made], check=True)


def groups(daemon: Libvirtd) -> set[str]:
    """libvirt's control groups as it sees them; they stay when its last container has gone."""
    find = ["find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", "machine"]
    argv = ["nsenter", "-t", str(daemon.init), "-m", *find]
    return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture
def lab(daemon: Libvirtd, root: Path, tmp_path: Path) -> Iterator[Containers]:
    machine = Machine(type="lxc", disks=(Disk(path=str(root)),), extra=INIT)
    guest = Guest("7a010e8d8fcb", "atlas", "c", "c", (NIC,), 1, 64, machine)
    driver = LibvirtDriver(tmp_path / "none", daemon.uri_of("lxc"), "", tmp_path, lambda _: None, lambda _: None)
    with asyncio.Runner() as runner:
        made = Containers(driver, runner, guest)
        yield made
        made.run(driver.remove(guest.id, 0))


def link(name: str) -> str:
    return subprocess.run(["ip", "-d", "link", "show", name], capture_output=True, text=True).stdout


def test_a_container_stands_still_until_it_is_let_run_and_goes_with_its_veth(lab: Containers) -> None:
    assert lab.run(lab.driver.types()) == ("lxc",)
    lab.run(lab.driver.prepare(lab.guest))
    assert lab.state() is GuestState.PREPARED
    assert "veth" in link(NIC.device) and "alias" not in link(NIC.device), "the data plane may take it"
    lab.run(lab.driver.start(lab.guest))
    assert lab.state() is GuestState.RUNNING
    lab.run(lab.driver.suspend(lab.guest.id))
    assert lab.state() is GuestState.SUSPENDED
    lab.run(lab.driver.start(lab.guest))
    assert lab.state() is GuestState.RUNNING
    lab.run(lab.driver.stop(lab.guest.id, 0))
    assert lab.state() is GuestState.ABSENT and not link(NIC.device)
    lab.run(lab.driver.prepare(lab.guest))
    assert lab.state() is GuestState.PREPARED
    lab.run(lab.driver.remove(lab.guest.id, 0))
    assert lab.state() is None and not link(NIC.device)


@pytest.mark.long
def test_a_container_has_its_nics_mac_and_says_so_on_its_console(lab: Containers) -> None:
    lab.run(lab.driver.prepare(lab.guest))
    lab.run(lab.driver.start(lab.guest))
    assert NIC.mac.encode() in lab.run(heard(lab, NIC.mac.encode()))


async def heard(lab: Containers, wanted: bytes) -> bytes:
    """What the container says until it has said this."""
    said = b""
    with socket.socket(fileno=await lab.driver.console(lab.guest.id, True)) as console:
        console.setblocking(False)
        async with asyncio.timeout(20):
            while wanted not in said:
                said += await asyncio.get_running_loop().sock_recv(console, 4096)
    return said


@pytest.mark.long
def test_a_container_that_was_asked_to_be_saved_goes_on(lab: Containers) -> None:
    lab.run(lab.driver.prepare(lab.guest))
    lab.run(lab.driver.start(lab.guest))
    with pytest.raises(DriverError, match="not supported"):
        lab.run(lab.driver.save(lab.guest.id))
    assert lab.state() is GuestState.RUNNING


def test_a_root_that_is_no_directory_is_refused_before_anything_is_made(lab: Containers) -> None:
    nowhere = Machine(type="lxc", disks=(Disk(path="/nowhere"),))
    guest = Guest(lab.guest.id, "atlas", "c", "c", (NIC,), 1, 64, nowhere)
    with pytest.raises(DriverError, match="the root /nowhere is no directory on this host"):
        lab.run(lab.driver.prepare(guest))
