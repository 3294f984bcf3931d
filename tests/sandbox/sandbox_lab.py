"""What the tests of sandboxes look at from outside: processes, namespaces, folders, and who drives."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_drive import stand_ins

from playground import sandbox
from playground.sandbox.namespaces import started

HERE = Path(__file__).parent
NOBODY = 65534


@dataclass(frozen=True)
class Folders:
    """PLAYGROUND_RUN and PLAYGROUND_STATE of a test."""

    run: Path
    state: Path

    def are_empty(self) -> bool:
        return not any(folder.exists() and any(folder.iterdir()) for folder in (self.run, self.state))


def start(site: str, emulate: int = 1, **words: Any) -> sandbox.SandboxInfo:
    """A sandbox with stand-ins for controller and agents."""
    return sandbox.ensure(site, emulate, **{"commands": stand_ins, **words})


def run(info: sandbox.SandboxInfo, *argv: str, host: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command inside."""
    return subprocess.run(sandbox.command_in(info, argv, host), capture_output=True, text=True)


def program(info: sandbox.SandboxInfo, name: str) -> dict[str, Any]:
    """What the sandbox says of one of its programs."""
    found: dict[str, Any] = next(p for p in sandbox.ask(info, "status")["programs"] if p["name"] == name)
    return found


def drive(*words: str, prefix: tuple[str, ...] = (), python: str = sys.executable) -> subprocess.Popen[str]:
    """A command line of its own, in a session of its own."""
    return subprocess.Popen(
        [*prefix, python, "-B", str(HERE / "sandbox_drive.py"), *words],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
        env=dict(os.environ) | {"PYTHONPATH": str(HERE.parents[1])},
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The line that a driver says at its end, or when it is ready."""
    assert process.stdout is not None
    return dict(json.loads(next(line for line in iter(process.stdout.readline, "") if line.startswith("{"))))


def kill_first(info: sandbox.SandboxInfo) -> None:
    """kill -9 of the sandbox's first process; returns when it is dead and reaped."""
    process = os.pidfd_open(info.pid)
    os.kill(info.pid, signal.SIGKILL)
    assert select.select([process], [], [], 10)[0], "it does not die"
    os.close(process)
    deadline_s = time.monotonic() + 10
    while Path(f"/proc/{info.pid}").exists():
        assert time.monotonic() < deadline_s, "nobody reaps it"
        time.sleep(0.005)


def inside(pid: int) -> set[int]:
    """Processes in the PID namespace of `pid`."""
    own = Path(f"/proc/{pid}/ns/pid").stat().st_ino
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/pid").stat().st_ino == own:
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def namespaces(pids: set[int]) -> set[str]:
    """The namespaces that processes are in, those of this test's own left out."""
    own = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "mnt", "net", "uts", "ipc", "user")}
    found = set()
    for pid in pids:
        for kind in ("pid", "mnt", "net", "uts", "ipc", "user"):
            try:
                found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found - own


@dataclass(frozen=True)
class Held:
    """Who is in a sandbox's namespaces. Numbers are no names: those of namespaces and processes are soon another's."""

    processes: dict[int, tuple[str | None, set[str]]]

    def still(self) -> set[str]:
        """Namespaces of then that a process of then is in, now as then."""
        return {
            namespace
            for pid, (who, then) in self.processes.items()
            if started(pid) == who
            for namespace in then & namespaces({pid})
        }


def held(pids: set[int]) -> Held:
    """The namespaces of these processes, and whoever on this machine is in one of them."""
    theirs = namespaces(pids)
    everybody = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return Held({pid: (started(pid), namespaces({pid}) & theirs) for pid in everybody})
