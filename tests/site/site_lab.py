"""A whole site as its users have it: the command line, the API, and what the kernel shows from inside hosts and guests.

Nothing here is a double: the controller, agents, responders, workspaces and clients are those of `up --emulate N`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from playground import sandbox
from playground.client import Client, UnixAddress
from playground.records import port_id, workspace_id
from tests.waiting import eventually

T = TypeVar("T")
Json = dict[str, Any]
STREAM = str(Path(sandbox.__file__).parents[1] / "workspaces" / "stream.py")
CLIENT_PYTHON = (sys.executable, "-I", "-S")
CAPTURE = """
import select, socket, sys
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
heard.bind((sys.argv[1], 3))
print("ready", flush=True)
while sys.stdin not in (ready := select.select([heard, sys.stdin], [], [])[0]) or heard in ready:
    if heard in ready: print(heard.recv(65536).hex(), flush=True)
"""
"""Every frame of a device as a line, until its input ends. tcpdump wants a user of its own, which sandboxes lack."""


@dataclass
class Site:
    """One emulated site. run, state: its PLAYGROUND_RUN and PLAYGROUND_STATE."""

    name: str
    info: sandbox.SandboxInfo
    run: Path
    state: Path
    files: Path
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(UnixAddress(self.info.run_dir / "controller.sock"))

    # as a user

    @property
    def own_environment(self) -> dict[str, str]:
        return {"PLAYGROUND_SITE": self.name, "PLAYGROUND_RUN": str(self.run), "PLAYGROUND_STATE": str(self.state)}

    @property
    def environment(self) -> dict[str, str]:
        return dict(os.environ) | self.own_environment

    def cli(self, *words: str, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
        """The command line, as a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "playground", *words],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
        )

    def write(self, text: str, name: str = "lab") -> str:
        """A playground's file; its path."""
        path = self.files / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    def up(self, text: str, timeout: float = 60.0) -> list[Json]:
        """What `up` of this text changed; it has converged. Without the command line, which costs a start of Python."""
        answer = self.client.put("playgrounds", {"file": "lab.yaml", "text": text})
        self.converged(answer["name"], timeout)
        return list(answer["changes"])

    def down(self, name: str) -> None:
        """Removed, and gone from every live host."""
        self.client.delete(f"playgrounds/{name}")
        eventually(lambda: self.client.get(f"playgrounds/{name}/progress")["removed"], what=f"{name} removed")

    def progress(self, name: str) -> Json:
        return dict(self.client.get(f"playgrounds/{name}/progress"))

    def converged(self, name: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not (seen := self.progress(name))["converged"]:
            assert time.monotonic() < deadline, f"{name} not converged in {timeout:g} s: {seen}"
            time.sleep(0.05)

    def probe(self, name: str) -> Json:
        return dict(self.client.post("probe", {"playground": name}, timeout=60))

    def assert_reachable(self, name: str, pairs: int | None = None) -> None:
        """Every pair is as modelled, and was observed: an agent killed before is waited for."""
        answer = self.probe(name)
        assert "unobserved" not in answer, answer
        wrong = [f"{m['from']} → {m['to']} {m['address']}: {m['observed']}" for m in answer["mismatches"]]
        assert not wrong, "; ".join(wrong)
        assert pairs is None or answer["pairs"] == pairs

    def ports(self, name: str | None = None) -> dict[str, Json]:
        """Ports by `workspace.network`."""
        rows = self.client.get("ports", {"playground": name})
        return {f"{row['workspace']}.{row['network']}": row for row in rows}

    def hosts(self) -> dict[str, Json]:
        return {row["name"]: row for row in self.client.get("hosts")}

    def host_of(self, name: str, workspace: str) -> str:
        return next(str(p["host"]) for p in self.ports(name).values() if p["workspace"] == workspace)

    def address(self, name: str, port: str, version: int = 4) -> str:
        return next(a for a in self.ports(name)[port]["addresses"] if (":" in a) == (version == 6))

    def begin(self, workspace: str, host: str, measure: bool = False) -> Json:
        """A move is asked for."""
        return dict(self.client.post("migrate", {"workspace": workspace, "host": host, "measure": measure}))

    def migration(self, workspace: str) -> Json:
        return dict(self.client.get("migrations", {"workspace": workspace}))

    def finish(self, begun: Json, seconds: float = 30.0) -> Json:
        """The result of a move that was asked for."""
        return eventually(
            lambda: (
                (move := self.migration(f"{begun['playground']}/{begun['workspace']}"))["generation"]
                >= begun["generation"]
                and move["finished"]
                and move
            ),
            seconds,
            f"move of {begun['workspace']} to {begun['to']}",
        )

    def move(self, workspace: str, host: str, measure: bool = False) -> Json:
        return self.finish(self.begin(workspace, host, measure))

    # as the kernel has it

    def inside(self, argv: Sequence[str], host: str | None = None) -> list[str]:
        """A command line in the sandbox, or on one of its hosts."""
        return sandbox.command_in(self.info, argv, host)

    def on(self, host: str, *argv: str, dataplane: bool = False, check: bool = True) -> str:
        """Output of a command on a host, or in its data plane namespace."""
        words = ["ip", "netns", "exec", "playground", *argv] if dataplane else list(argv)
        done = subprocess.run(self.inside(words, host), capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{host}: {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def guest(self, playground: str, workspace: str) -> Json:
        """The driver's own entry of a namespace workspace."""
        file = self.info.run_dir / "workspaces" / workspace_id(playground, workspace) / "guest.json"
        return dict(json.loads(file.read_text()))

    def guests(self) -> list[str]:
        """Ids of all guests on this kernel."""
        return sorted(p.parent.name for p in (self.info.run_dir / "workspaces").glob("*/guest.json"))

    def pid(self, playground: str, workspace: str) -> int:
        """The guest's first process, as the sandbox numbers it."""
        return int(self.guest(playground, workspace)["pid"])

    def pids(self, playground: str) -> dict[str, int]:
        names = {port["workspace"] for port in self.ports(playground).values()}
        return {name: self.pid(playground, name) for name in sorted(names)}

    def enter(self, playground: str, workspace: str, *argv: str) -> list[str]:
        """A command line inside a guest; it lives on whatever becomes of agents."""
        pid = self.pid(playground, workspace)
        return self.inside(["nsenter", f"--target={pid}", "--mount", "--uts", "--net", "--pid", "--", *argv])

    def within(self, playground: str, workspace: str, *argv: str, check: bool = True) -> str:
        done = subprocess.run(self.enter(playground, workspace, *argv), capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{workspace}: {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def await_hosts(self, *names: str) -> None:
        """These hosts (or all) are up."""
        eventually(
            lambda: (
                all(row["state"] == "up" for row in self.hosts().values() if not names or row["name"] in names)
                and bool(self.hosts())
            ),
            what="hosts up",
        )

    def program(self, name: str) -> Json:
        return next(p for p in sandbox.ask(self.info, "status")["programs"] if p["name"] == name)

    def kill(self, name: str) -> None:
        """kill -9 of the controller or an agent; returns when another runs in its place."""
        before = self.program(name)
        subprocess.run(self.inside(["kill", "-9", str(before["pid"])]), check=True)
        eventually(lambda: self.program(name)["pid"] not in (None, before["pid"]), what=f"{name} again")

    def kill_responder(self, host: str) -> None:
        """kill -9 of a host's responder."""
        found = self.on(host, "pgrep", "-f", f"playground.responder .*/hosts/{host}/").split()
        assert found, f"no responder on {host}"
        self.on(host, "kill", "-9", *found)

    def revision(self) -> int:
        return int(self.client.get("site")["revision"])

    def device(self, playground: str, workspace: str, network: str) -> str:
        return f"pg{port_id(playground, workspace, network)}"

    # measuring

    @contextmanager
    def capture(self, enter: Callable[..., list[str]], device: str = "eth0") -> Iterator[Callable[[], list[bytes]]]:
        """While the body runs, a device is listened to; what is yielded tells all frames so far, also afterwards.

        enter: turns a command line into one that runs where the device is.
        """
        with tempfile.TemporaryFile("w+") as heard:
            command = enter(*CLIENT_PYTHON, "-c", CAPTURE, device)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=heard)

            def lines() -> list[str]:
                heard.flush()
                return os.pread(heard.fileno(), 1 << 26, 0).decode().splitlines(keepends=True)

            frames: list[bytes] = []

            def told() -> list[bytes]:
                if not heard.closed:
                    frames[:] = [bytes.fromhex(line) for line in lines()[1:] if line.endswith("\n")]
                return frames

            try:
                eventually(lines, what=f"a socket on {device}")
                yield told
            finally:
                process.communicate(timeout=20)
                told()

    @contextmanager
    def stream(self, playground: str, source: str, target: str, network: str, rate: int = 1000) -> Iterator[Json]:
        """A UDP stream between two workspaces while the body runs; the result is in what was yielded afterwards."""
        result: Json = {}
        port = "47900"
        address = self.address(playground, f"{target}.{network}")
        taking = subprocess.Popen(
            self.enter(playground, target, *CLIENT_PYTHON, STREAM, "receive", "--port", port, "--patience", "120"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        sending = None
        try:
            assert taking.stderr is not None and "listening" in taking.stderr.readline()
            sending = subprocess.Popen(
                self.enter(
                    playground,
                    source,
                    *CLIENT_PYTHON,
                    STREAM,
                    *("send", "--to", address, "--port", port, "--rate", str(rate), "--seconds", "120"),
                ),
                stdout=subprocess.PIPE,
                text=True,
            )
            yield result
            self._end_stream(playground, source, sending)
            said, _ = sending.communicate(timeout=20)
            got, _ = taking.communicate(timeout=20)
            result.update(json.loads(got), sender=json.loads(said))
        finally:
            for workspace in (source, target):  # killing nsenter would leave what it started
                self.within(playground, workspace, "pkill", "-KILL", "-f", "stream.py", check=False)
            for process in (sending, taking):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.communicate()

    def _end_stream(self, playground: str, workspace: str, sender: subprocess.Popen[str]) -> None:
        """SIGTERM reaches the command inside only from inside: nsenter forked it into the guest's PID namespace."""
        self.within(playground, workspace, "pkill", "-TERM", "-f", "stream.py send")
        assert sender.poll() is None or sender.returncode == 0


MakeSite = Callable[..., Site]


@contextmanager
def emulated(name: str, emulate: int, **words: Any) -> Iterator[Site]:
    """A site in folders of its own, all hosts up; nothing of it is left. words: of `sandbox.ensure`."""
    top = Path(tempfile.mkdtemp(prefix="pgs-", dir="/tmp"))  # pytest's own folders are too long for a socket's path
    run, state = top / "r", top / "s"
    folders = {"PLAYGROUND_RUN": str(run), "PLAYGROUND_STATE": str(state)}
    try:
        with patch.dict(os.environ, folders):
            info = sandbox.ensure(name, emulate, **words)
        site = Site(name, info, run, state, top)
        site.await_hosts()
        yield site
    finally:
        keep_logs(state, top.name)
        with patch.dict(os.environ, folders):
            sandbox.stop(name)
        shutil.rmtree(top, ignore_errors=True)


def keep_logs(state: Path, name: str) -> None:
    """Kept for the report of a failing test when PLAYGROUND_KEEP_LOGS names a folder."""
    if folder := os.environ.get("PLAYGROUND_KEEP_LOGS"):
        for path in state.glob("*/**/*.log"):
            target = Path(folder) / name / path.relative_to(state)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
