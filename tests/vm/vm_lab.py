"""Virtual machines of a site, and what they say: on their serial line, to who asks them, and in libvirt's own words."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest_image import CMDLINE
from site_lab import CLIENT_PYTHON, Site

from playground import sandbox
from playground.records import workspace_id
from playground.workspaces.drivers.libvirt.xml import domain_uuid
from tests.waiting import eventually

FLOWS = str(Path(__file__).with_name("flows.py"))
ECHOES = str(Path(sandbox.__file__).parents[1] / "workspaces" / "echoes.py")


@dataclass
class Machines:
    """A site whose hosts have hypervisors, and what its guests boot."""

    site: Site
    kernel: Path
    initrd: Path

    def machine(self, name: str, **more: object) -> dict[str, object]:
        """A workspace for a file: a small emulated machine on the network `grid`."""
        booted = {
            "type": "qemu",
            "model": "pc",
            "cpu": "qemu64",
            "kernel": str(self.kernel),
            "initrd": str(self.initrd),
            "cmdline": f"{CMDLINE} hostname={name}",
        }
        return {"driver": "libvirt", "networks": ["grid"], "memory": "96MiB", "grace": "1s", "machine": booted, **more}

    def up(self, name: str, workspaces: dict[str, object], **more: object) -> None:
        networks = {"grid": {"subnets": ["10.77.0.0/24"]}}
        self.site.up(json.dumps({"name": name, "networks": networks, "workspaces": workspaces, **more}), 120)

    def said(self, playground: str, workspace: str, host: str) -> str:
        """What a machine wrote on its serial line on a host."""
        folder = self.site.state / self.site.name / "hosts" / host / "libvirt" / "consoles"
        log = folder / f"{workspace_id(playground, workspace)}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def booted(self, playground: str, workspace: str, host: str) -> str:
        """The address that it has taken by DHCP, by its own word."""
        found = eventually(
            lambda: re.search(r"BOUND (\S+) ", self.said(playground, workspace, host)), 60, f"{workspace} booted"
        )
        return str(found[1])

    def virsh(self, host: str, *words: str, check: bool = True) -> str:
        return self.site.on(host, "virsh", "-c", "qemu:///system", *words, check=check)

    def virsh_migrate(self, source: str, target: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """Has `web` of `lab` moved as anybody with a right to both libvirtds may."""
        address = self.site.hosts()[target]["underlay"]
        there = (f"qemu+tcp://{address}/system", f"tcp://{address}")
        words = ["virsh", "-q", "migrate", "--live", *flags, "web.lab", *there]
        return subprocess.run(self.site.inside(words, source), capture_output=True, text=True, timeout=90)

    def last_move(self) -> dict[str, Any]:
        """Of `web` of `lab`, once it has been finished."""
        found: dict[str, Any] = eventually(
            lambda: (move := self.site.migration("lab/web"))["finished"] and move, 40, "the move has been finished"
        )
        return found

    def domains(self, playground: str, workspace: str) -> dict[str, str]:
        """Its state on each host that knows it, in libvirt's words."""
        uuid = domain_uuid(workspace_id(playground, workspace))
        found = {}
        for host in ("n1", "n2", "n3"):
            said = self.virsh(host, "domstate", uuid, check=False).strip()
            if said:
                found[host] = said
        return found

    def taps(self, playground: str, workspace: str) -> dict[str, str]:
        """Where its device is: hosts, and `host` or `dataplane`."""
        device = self.site.device(playground, workspace, "grid")
        found = {}
        for host in ("n1", "n2", "n3"):
            for where in ("dataplane", "host"):
                if self.site.on(host, "ip", "-o", "link", "show", device, dataplane=where == "dataplane", check=False):
                    found[host] = where
        return found

    def type(self, workspace: str, *lines: str) -> None:
        """Lines for the shell on a machine's serial line; returns once it has read them."""
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "playground", "console", workspace]
        process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=self.site.environment, start_new_session=True
        )
        os.close(slave)
        heard, written = b"", False
        until = time.monotonic() + 30
        try:
            os.write(master, b"\r")
            while b"=typed=" not in heard and time.monotonic() < until:
                if select.select([master], [], [], 0.5)[0]:
                    heard += os.read(master, 4096)
                if b"# " in heard and not written:
                    written = True
                    os.write(master, "\r".join([*lines, "echo =type''d=\r"]).encode())
            assert b"=typed=" in heard, heard
            os.write(master, b"\x1d")
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            os.close(master)

    @contextmanager
    def flows(self, playground: str, peer: str, machine: str) -> Iterator[dict[str, Any]]:
        """TCP that each end began, and UDP from the machine, while the body runs (`flows.py`); the result is in what
        was yielded afterwards. busybox has nothing that answers UDP, and syslogd sends it."""
        result: dict[str, Any] = {}
        to, back = self.site.address(playground, f"{machine}.grid"), self.site.address(playground, f"{peer}.grid")
        process = subprocess.Popen(
            self.site.enter(playground, peer, *CLIENT_PYTHON, FLOWS, to),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = "i=0; while usleep 20000; do i=$((i+1)); echo $i; done"
        logs = f"syslogd -R {back}:9001; (while usleep 100000; do logger x; done) &"
        try:
            eventually(lambda: ":2328" in self.site.within(playground, peer, "cat", "/proc/net/tcp"), 40, "it listens")
            self.type(f"{playground}/{machine}", f"({lines}) | nc {back} 9000 &", logs)
            assert process.stderr is not None and select.select([process.stderr], [], [], 30)[0], "nothing flows"
            assert "flowing" in process.stderr.readline()
            yield result
            self.site.within(playground, peer, "pkill", "-TERM", "-f", "flows.py")
            said, _ = process.communicate(timeout=20)
            result.update(json.loads(said))
        finally:
            self.site.within(playground, peer, "pkill", "-KILL", "-f", "flows.py", check=False)
            if process.poll() is None:
                process.kill()
                process.communicate()
            self.type(f"{playground}/{machine}", "killall nc usleep syslogd")

    @contextmanager
    def asked(self, playground: str, peer: str, address: str, rate: int = 200) -> Iterator[dict[str, Any]]:
        """Echo requests to a machine while the body runs; the result is in what was yielded afterwards."""
        result: dict[str, Any] = {}
        command = [*CLIENT_PYTHON, ECHOES, address, "--rate", str(rate), "--seconds", "120"]
        process = subprocess.Popen(
            self.site.enter(playground, peer, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None and "asking" in process.stderr.readline()
            yield result
            self.site.within(playground, peer, "pkill", "-TERM", "-f", "echoes.py")
            said, _ = process.communicate(timeout=20)
            result.update(json.loads(said))
        finally:
            self.site.within(playground, peer, "pkill", "-KILL", "-f", "echoes.py", check=False)
            if process.poll() is None:
                process.kill()
                process.communicate()
