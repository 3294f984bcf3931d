"""What the tests of this folder stand on: nameless network namespaces as hosts, and short ways to make guests.

A namespace lives as long as its descriptor, so nothing can be left behind, whatever a test does.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from overlay.kernel import namespaces
from playground.workspaces.drivers.api import Guest, Nic

T = TypeVar("T")
SCRIPTS = Path(__file__).parents[2] / "playground" / "workspaces"
CLONE_NEWNET = 0x40000000


def why_not_permitted() -> str:
    """Why this process can't make network namespaces and enter them; empty when it can."""
    if shutil.which("busybox") is None and shutil.which("udhcpc") is None:
        return "busybox (udhcpc) is not installed"
    try:
        os.close(new_namespace())
    except OSError as error:
        return f"network namespaces are not permitted here: {error.strerror}"
    return ""


def new_namespace() -> int:
    """A descriptor of a fresh network namespace, made in a thread that ends with it."""
    made: list[int] = []
    failed: list[int] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) == 0:
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        else:
            failed.append(ctypes.get_errno())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise OSError(failed[0], os.strerror(failed[0]))
    return made[0]


class Host:
    """A data plane namespace that stands for a host."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace = new_namespace()

    @property
    def dataplane(self) -> str:
        """What a driver takes for a data plane."""
        return f"/proc/self/fd/{self.namespace}"

    def run(self, *argv: str) -> str:
        """A command in the namespace; its output."""
        return self.within(lambda: subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    def spawn(self, *argv: str) -> subprocess.Popen[str]:
        """A command in the namespace that goes on."""
        pipe = subprocess.PIPE
        return self.within(lambda: subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True))

    def within(self, work: Callable[[], T]) -> T:
        """Runs work in the namespace."""
        return namespaces.inside(self.namespace, work)

    def devices(self) -> set[str]:
        """Names of its devices, without lo."""
        lines = self.run("ip", "-o", "link").splitlines()
        return {line.split(": ")[1].partition("@")[0] for line in lines} - {"lo"}

    def join(self, other: Host) -> None:
        """A cable between bridges named br0 on both hosts, which are made."""
        for host in (self, other):
            if "br0" not in host.devices():
                host.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
                host.run("ip", "link", "set", "br0", "up")
        far = f"/proc/{os.getpid()}/fd/{other.namespace}"
        near_end, far_end = f"to-{other.name}", f"to-{self.name}"
        self.run("ip", "link", "add", near_end, "type", "veth", "peer", "name", far_end)
        self.run("ip", "link", "set", far_end, "netns", far)
        self.plug(near_end)
        other.plug(far_end)

    def plug(self, device: str) -> None:
        """Puts a device on br0, as the overlay does with a port."""
        self.run("ip", "link", "set", device, "addrgenmode", "none", "master", "br0", "up")

    def close(self) -> None:
        """Lets the namespace go."""
        os.close(self.namespace)


def a_guest(number: int = 1, nics: int = 1) -> Guest:
    """A guest with a number of its own."""
    ports = [f"{number:010x}{index:02x}" for index in range(nics)]
    return Guest(
        id=f"{number:012x}",
        playground="atlas",
        name=f"worker-{number}",
        hostname=f"worker-{number}",
        nics=tuple(
            Nic(port=port, device=f"pg{port}", mac=f"02:00:00:00:{number:02x}:{index:02x}", mtu=1450, index=index)
            for index, port in enumerate(ports)
        ),
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, shorter."""
    return asyncio.run(work)


def capture(driver: Any, guest_id: str, argv: Sequence[str], stdin: str = "") -> tuple[int, str]:
    """Runs a command in a guest; its exit code and all that it wrote."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as written:
        given.write(stdin)
        given.seek(0)
        out = written.fileno()
        process = run(driver.exec(guest_id, argv, given.fileno(), out, out, False))
        status = os.waitpid(process.pid, 0)[1]
        written.seek(0)
        return os.waitstatus_to_exitcode(status), written.read()
