"""Owns a sandbox from inside: its first process makes mounts, underlay and hosts, keeps the programs running, answers.

Knows nothing of playgrounds. Standard library and `ip` only; `playground.sandbox.launch` starts it.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from playground.sandbox import namespaces as ns
from playground.sandbox.plan import (
    WORLD,
    HostPlan,
    Program,
    SandboxPlan,
    bridge_batch,
    host_batch,
    leg_batch,
    site_file,
    site_path,
    token_path,
    tokens_file,
    tokens_path,
    world_batch,
    world_leg_batch,
)
from playground.sandbox.supervise import HostNamespaces, Supervisor

LOG_CHECK_S = 5.0


class Refused(Exception):
    """The kernel or a tool did not do it; the text is the cause."""


def _ip(batch: str) -> None:
    """Runs `ip -batch`. Raises Refused with what it said."""
    try:
        done = subprocess.run(["ip", "-batch", "-"], input=batch, text=True, capture_output=True)
    except FileNotFoundError:
        raise Refused("the command `ip` is missing (Debian package iproute2)") from None
    if done.returncode:
        raise Refused("ip: " + " ".join(done.stderr.split()))


def _mount_sys() -> None:
    """/sys of this network namespace. Some containers forbid it; then /sys/class/net shows the outside, that is all."""
    with suppress(PermissionError):
        ns.mount("sysfs", "/sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)


def _write(path: Path, text: str) -> None:
    """A file for our eyes only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text)


class Sandbox:
    """The state of the first process: the plan, the hosts that exist, the supervisor, the sockets."""

    def __init__(self, plan: SandboxPlan, leash: int) -> None:
        self.plan = plan
        self.hosts: dict[str, HostNamespaces] = {}
        self._leash = leash
        self._run, self._state = Path(plan.run_dir), Path(plan.state_dir)
        self._parents = [os.open(path.parent, os.O_PATH | os.O_DIRECTORY) for path in (self._run, self._state)]
        self._selector = selectors.DefaultSelector()
        self._is_ending = False
        environment = dict(os.environ) | {
            "PLAYGROUND_SITE": plan.site,
            "PLAYGROUND_RUN": str(self._run.parent),
            "PLAYGROUND_STATE": str(self._state.parent),
            "PYTHONUNBUFFERED": "1",
        }
        self._world: HostNamespaces | None = None
        self._supervisor = Supervisor(plan.programs, self._state / "logs", environment, self._join)

    # -- making ------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Mounts, files, underlay, hosts, the sandbox's socket. Raises OSError or Refused."""
        self._mount()
        self._write_files()
        socket.sethostname(self.plan.site)
        for knob in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            knob.write_text("0")  # no rule of anybody's applies to the underlay: spare its frames the walk
        pids = {host.name: self._fork_host() for host in self.plan.hosts}
        legs = [leg_batch(host, pids[host.name][0]) for host in self.plan.hosts]
        world, go = self._fork_host()
        _ip("\n".join([bridge_batch(self.plan), world_leg_batch(world), *legs]))
        self._world = self._finish(WORLD, world_batch(), world, go)
        for host in self.plan.hosts:
            self._finish_host(host, *pids[host.name])
        self._listen()

    def _mount(self) -> None:
        """Own /proc and /sys, and an empty /run: what daemons of the machine offer there is not this site's.

        The site's run directory stays visible at its path, and a tmpfs lies over the state directory if so planned.
        """
        ns.own_mounts()
        ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
        _mount_sys()
        kept = [path for path in (self._run, self._state) if path.resolve().is_relative_to(Path("/run").resolve())]
        outside = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in kept]
        ns.mount("tmpfs", "/run", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
        for path, fd in zip(kept, outside, strict=True):
            path.mkdir(mode=0o700, parents=True)
            ns.mount(f"/proc/self/fd/{fd}", path, flags=ns.MS_BIND)
            os.close(fd)
        if self.plan.in_memory_state:
            ns.mount("tmpfs", self._state, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=700")
        Path("/run/netns").mkdir(mode=0o755)

    def _write_files(self) -> None:
        tokens = {host.name: token_hex(32) for host in self.plan.hosts}
        for host, token in tokens.items():
            _write(token_path(self.plan, host), token + "\n")
            (self._run / "hosts" / host).mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(tokens_path(self.plan), tokens_file(tokens))
        _write(site_path(self.plan), site_file(self.plan))
        (self._run / "workspaces").mkdir(mode=0o700, exist_ok=True)
        (self._state / "logs").mkdir(mode=0o700, exist_ok=True)

    def _fork_host(self) -> tuple[int, int]:
        """A child in its own mount, network and UTS namespace, and the pipe end on which it waits for eth0."""
        ready, said = os.pipe()
        wait, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(go)
                os.close(ready)
                ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWUTS)
                ns.own_mounts()
                ns.mount("tmpfs", "/run/netns", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
                _mount_sys()
                os.write(said, b"{}")
                os.read(wait, 1)
            except OSError as error:
                os.write(said, str(error).encode())
            finally:
                os._exit(0)
        os.close(said)
        os.close(wait)
        answer = os.read(ready, 4096)
        os.close(ready)
        if answer != b"{}":
            raise Refused(f"an emulated host: {answer.decode()}")
        return pid, go

    def _join(self, host: str) -> None:
        """The calling process is on that host from now on, or in the world."""
        held = self._world if host == WORLD else self.hosts[host]
        assert held is not None
        held.join()

    def _finish_host(self, host: HostPlan, pid: int, go: int) -> None:
        self.hosts[host.name] = self._finish(host.name, host_batch(self.plan, host), pid, go)

    def _finish(self, name: str, batch: str, pid: int, go: int) -> HostNamespaces:
        """Takes hold of the child's namespaces, sets its devices up in them, lets the child go."""
        fds = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net", "uts")]
        held = HostNamespaces(*fds)
        os.write(go, b"g")  # closing is not enough: children forked later hold this end, too
        os.close(go)
        os.waitpid(pid, 0)
        worker = os.fork()
        if worker == 0:
            try:
                held.join()
                socket.sethostname(name)
                _ip(batch)
                os._exit(0)
            except (OSError, Refused) as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        if os.waitpid(worker, 0)[1] != 0:
            raise Refused(f"{name}'s network devices could not be set up; the sandbox's log says why")
        return held

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Supervises and answers until told to end. Returns when everything else in the sandbox is to be killed."""
        os.set_blocking(self._leash, False)
        self._selector.register(self._leash, selectors.EVENT_READ, self._read_leash)
        next_log_check_s = time.monotonic() + LOG_CHECK_S
        while not self._is_ending:
            now_s = time.monotonic()
            wait_s = self._supervisor.start_due(now_s)
            if now_s >= next_log_check_s:
                self._supervisor.bound_logs()
                next_log_check_s = now_s + LOG_CHECK_S
            timeout_s = min(LOG_CHECK_S, wait_s if wait_s is not None else LOG_CHECK_S)
            for key, _ in self._selector.select(timeout_s):
                key.data()
            self._supervisor.reap(time.monotonic())

    def catch_signals(self) -> None:
        """SIGTERM ends the sandbox (its state stays: the machine may be shutting down); SIGCHLD wakes `run`."""
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        self._woken = woken
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        self._selector.register(wake, selectors.EVENT_READ, lambda: wake.recv(4096))

    def _end(self, *_: object) -> None:
        self._is_ending = True

    def _read_leash(self) -> None:
        told = os.read(self._leash, 1)
        self._selector.unregister(self._leash)
        os.close(self._leash)
        if told != b"s":
            self._is_ending = True
            self.discard()

    def discard(self) -> None:
        """Kills everything else in the sandbox, then removes the run directory, and the state if so planned."""
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        if self.plan.in_memory_state and os.path.ismount(self._state):
            ns.unmount(self._state)
        doomed = [self._run, self._state] if self.plan.discard_state else [self._run]
        for path, parent in zip(doomed, self._parents, strict=False):
            with suppress(FileNotFoundError):  # by its parent: /run is not what it was outside
                shutil.rmtree(path.name, dir_fd=parent)

    # -- answering ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        path = self._run / "sandbox.sock"
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(path))
        server.listen()
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ, lambda: self._accept(server))

    def _accept(self, server: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = server.accept()
            connection.setblocking(False)
            buffer = bytearray()
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(connection, buffer))

    def _serve(self, connection: socket.socket, buffer: bytearray) -> None:
        """One readable moment of a connection: each whole line is answered with a line."""
        try:
            read = connection.recv(65536)
            buffer += read
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer[:] = rest
                connection.sendall(json.dumps(self._answer(line)).encode() + b"\n")
        except OSError:  # the peer is gone, or does not read: its loss
            read = b""
        if not read or len(buffer) > 65536:
            self._selector.unregister(connection)
            connection.close()

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            asked = json.loads(line)
            verb: Callable[[dict[str, object]], dict[str, object]] = self._verbs()[asked["do"]]
        except (ValueError, TypeError, KeyError, RecursionError):  # the last: of JSON that is nested too deeply
            return {"error": f"not understood: {line[:80]!r}; it does {', '.join(self._verbs())}"}
        try:
            return verb(asked)
        except (Refused, OSError, ValueError, TypeError) as error:
            return {"error": str(error)}

    def _verbs(self) -> dict[str, Callable[[dict[str, object]], dict[str, object]]]:
        return {
            "status": self._say_status,
            "log": self._say_log,
            "kill-host": self._kill_host,
            "start-host": self._start_host,
            "add": self._add,
            "shutdown": self._shut_down,
        }

    def _say_status(self, _: dict[str, object]) -> dict[str, object]:
        hosts: list[dict[str, object]] = []
        for host in self.plan.hosts:
            held = self.hosts.get(host.name)
            fds = {"mnt": held.mnt, "net": held.net, "uts": held.uts} if held else None
            hosts.append({"name": host.name, "underlay": host.address, "namespaces": fds})
        programs = self._supervisor.status(time.monotonic())
        return {"site": self.plan.site, "hosts": hosts, "programs": programs}

    def _say_log(self, asked: dict[str, object]) -> dict[str, object]:
        return {"lines": self._supervisor.log_tail(str(asked.get("name")), int(str(asked.get("lines", 20))))}

    def _shut_down(self, _: dict[str, object]) -> dict[str, object]:
        self._end()
        return {}

    def _add(self, asked: dict[str, object]) -> dict[str, object]:
        """A program more, on a host that runs."""
        host, argv = str(asked["host"]), asked["argv"]
        if host not in self.hosts or not isinstance(argv, list):
            raise Refused(f"no host {host} runs")
        self._supervisor.add(Program(str(asked["name"]), tuple(map(str, argv)), host), time.monotonic())
        return {}

    def _kill_host(self, asked: dict[str, object]) -> dict[str, object]:
        """A power failure: ends all in the host's network or mount namespace, its guests, then the host itself."""
        host = self._planned(asked)
        held = self.hosts.pop(host.name, None)
        if held is None:
            raise Refused(f"{host.name} is dead already")
        self._supervisor.withdraw(host.name)
        own = {os.fstat(held.net).st_ino, os.fstat(held.mnt).st_ino}
        doomed = self._guests_of(host)
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if own & {(entry / "ns/net").stat().st_ino, (entry / "ns/mnt").stat().st_ino}:
                    doomed.add(int(entry.name))
        for pid in doomed - {os.getpid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        held.close()
        for device in (host.leg, host.uplink):
            with suppress(Refused):  # it may have gone with the host's namespace
                _ip(f"link delete {device}")
        return {"killed": len(doomed)}

    def _guests_of(self, host: HostPlan) -> set[int]:
        """First processes of the namespace workspaces that this host carries (docs/architecture.md: `guest.json`)."""
        pids = set()
        for file in (self._run / "workspaces").glob("*/guest.json"):
            with suppress(FileNotFoundError):
                guest = json.loads(file.read_bytes())
                if guest.get("host") == host.name and guest.get("pid"):
                    pids.add(int(guest["pid"]))
        return pids

    def _start_host(self, asked: dict[str, object]) -> dict[str, object]:
        host = self._planned(asked)
        if host.name in self.hosts:
            raise Refused(f"{host.name} is running")
        pid, go = self._fork_host()
        _ip(leg_batch(host, pid))
        self._finish_host(host, pid, go)
        self._supervisor.resume(host.name, time.monotonic())
        return {}

    def _planned(self, asked: dict[str, object]) -> HostPlan:
        for host in self.plan.hosts:
            if host.name == asked.get("host"):
                return host
        raise Refused(f"no host {asked.get('host')!r}; there are {', '.join(host.name for host in self.plan.hosts)}")
