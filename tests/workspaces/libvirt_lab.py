"""A libvirtd of a test's own, in the test's network namespace: with folders, mounts and PIDs that nobody else has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playground.sandbox.hypervisor import LIBVIRTD
from tests.waiting import eventually

ADDRESS = "192.0.2.77"
"""Its own: libvirt takes none of the loopback network for migrations."""

INIT = """
import os, signal, subprocess, sys
def begin():
    global daemon
    daemon = subprocess.Popen(sys.argv[1:])
begin()
signal.signal(signal.SIGUSR1, lambda *_: os.kill(daemon.pid, signal.SIGKILL))
while True:
    pid, _ = os.wait()
    if pid == daemon.pid:
        begin()
"""
"""Reaps what libvirtd leaves behind, and starts it again whenever it ends."""


@dataclass
class Libvirtd:
    """A running one."""

    folder: Path
    init: int

    @property
    def uri(self) -> str:
        return self.uri_of("qemu")

    def uri_of(self, hypervisor: str) -> str:
        return f"{hypervisor}+unix:///system?socket={self.socket}"

    @property
    def socket(self) -> Path:
        return self.folder / "run/libvirt-sock"

    def virsh(self, *words: str) -> str:
        done = subprocess.run(["virsh", "-q", "-c", self.uri, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def kill(self) -> None:
        """It dies, and another one begins; machines are left as they are."""
        was = self.socket.stat().st_ino
        os.kill(self.init, signal.SIGUSR1)
        eventually(lambda: self.socket.exists() and self.socket.stat().st_ino != was, 20, "libvirtd again")


CONTAINERS = """
until [ -e /sys/fs/cgroup/memory ] || [ -e /sys/fs/cgroup/cgroup.controllers ] || ! umount -l /sys; do :; done
while umount -l /sys/fs/cgroup/unified 2>/dev/null; do :; done
exec "$@"
"""
"""Containers need control groups, which the /sys of tests hides; where both versions are mounted, without the second:
libvirt would mount that too, and finds no place for it."""


def why_no_libvirtd() -> str:
    """Why none can be started here; empty when one can."""
    for program, package in ((LIBVIRTD, "libvirt-daemon"), ("qemu-system-x86_64", "qemu-system-x86")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian package {package})"
    return "" if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


@contextmanager
def a_libvirtd(*, for_containers: bool = False) -> Iterator[Libvirtd]:
    """Ended with all of its machines."""
    folder = Path(tempfile.mkdtemp(prefix="pg-libvirt-"))
    log = (folder / "log.txt").open("w")
    module = [sys.executable, "-m", "playground.sandbox.hypervisor", "--site", "test", "--name", "lone"]
    daemon = [*module, "--address", ADDRESS, "--folder", str(folder)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    subprocess.run(["ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo"], check=True)
    init = [*(["sh", "-c", CONTAINERS, "sh"] if for_containers else []), sys.executable, "-c", INIT, *daemon]
    process = subprocess.Popen([*namespaces, *init], stdout=log, stderr=log)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        first = int(eventually(lambda: children.read_text().split(), 10, "its first process")[0])
        found = Libvirtd(folder, first)
        eventually(found.socket.exists, 20, "libvirtd's socket")
        yield found
    finally:
        process.kill()
        process.wait()
        log.close()
        subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=True)
        shutil.rmtree(folder)
