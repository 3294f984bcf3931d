"""Owns a sandbox from outside: starts, finds, enters and ends it. What lies inside is its own first process's.

A site's sandbox is known by `sandbox.json` in its run directory, and believed only when the process with that pid is
the one that was started then. The directory itself is the lock of a start or an end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from playground import paths
from playground.sandbox.commands import Commands, hypervisor, programs
from playground.sandbox.folders import STATE_MARK, SandboxError, claim_state, discard, empty, locked, prune
from playground.sandbox.namespaces import started
from playground.sandbox.plan import Family, SandboxPlan, controller_address, hosts_of

START_TIMEOUT_S = 120.0
"""A small machine takes long to load Python; what dies is told at once."""
END_TIMEOUT_S = 10.0
BURIAL_TIMEOUT_S = 1.0
"""For the reaper of a dead first process: till then its PID namespace is there to see. It takes milliseconds."""

GIVE_UP_AFTER_DEATHS = 3
"""A controller that died so often while it was waited for will not come."""

_LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path; unix(7)."""


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A running sandbox. pid: its first process, here. has_user_namespace: it belongs to an ordinary user."""

    site: str
    pid: int
    started: str
    emulate: int
    run_dir: Path
    state_dir: Path
    has_user_namespace: bool


def ensure(
    site: str,
    emulate: int,
    *,
    underlay: Family = "ipv4",
    in_memory_state: bool = False,
    leash: bool = False,
    commands: Commands = programs,
    timeout_s: float = START_TIMEOUT_S,
) -> SandboxInfo:
    """The running sandbox of `site` with hosts n1 … n<emulate>, made if there is none; its controller answers.

    What it starts is no child of the caller and outlives it; with `leash` it ends with the calling process instead, and
    takes run and state directories along. A start that fails or is interrupted leaves nothing new. Raises SandboxError
    (a sandbox with another number of hosts, a site that is not emulated, namespaces forbidden, a program that dies).
    """
    try:
        hosts = hosts_of(emulate, underlay)
    except ValueError as error:
        raise SandboxError(str(error)) from None
    run, state = paths.run_dir(site).absolute(), paths.state_dir(site).absolute()
    longest = run / "hosts" / hosts[-1].name / "responder.sock"
    if len(os.fsencode(longest)) > _LONGEST_SOCKET:
        raise SandboxError(
            f"{longest} is too long for a Unix socket (107 bytes); set PLAYGROUND_RUN to a shorter folder"
        )
    with locked(run):
        if found := find(site):
            if found.emulate != emulate:
                raise SandboxError(
                    f"site {site} runs with {found.emulate} emulated hosts, not {emulate}; "
                    f"leave the number out, or end the site first with `playground --site {site} down --all`"
                )
            _await_controller(found, None, timeout_s)
            return found
        if _accepts(run / "controller.sock"):
            raise SandboxError(f"site {site} has a controller of its own that emulates nothing; choose another --site")
        is_new = claim_state(site, state, emulate)
        plan = SandboxPlan(
            site=site,
            family=underlay,
            run_dir=str(run),
            state_dir=str(state),
            in_memory_state=in_memory_state,
            discard_state=leash or is_new,
            controller_address=controller_address(underlay),
            hosts=hosts,
        )
        empty(run)
        return _start(replace(plan, programs=commands(plan)), leash, timeout_s)


def provide_hypervisors(info: SandboxInfo) -> None:
    """A libvirtd on each emulated host, from now on. Raises SandboxError where there can be none."""
    from playground.doctor.hypervisors import why_no_hypervisors

    if reason := why_no_hypervisors():
        raise SandboxError(reason)
    for host in ask(info, "status")["hosts"]:
        program = hypervisor(info.site, info.run_dir, info.state_dir, host["name"], host["underlay"])
        ask(info, "add", name=program.name, argv=list(program.argv), host=program.host)


def find(site: str) -> SandboxInfo | None:
    """The site's sandbox, if it runs now. A stale or foreign file is no sandbox."""
    run = paths.run_dir(site).absolute()
    try:
        said = json.loads(paths.sandbox_file(site).read_text())
        info = SandboxInfo(
            site=site,
            pid=int(said["pid"]),
            started=str(said["started"]),
            emulate=int(said["emulate"]),
            run_dir=run,
            state_dir=Path(said["state_dir"]),
            has_user_namespace=bool(said["has_user_namespace"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if started(info.pid) == info.started else None


def stop(site: str) -> bool:
    """Ends the site's sandbox and returns when nothing of it runs or lies anywhere. False when there was nothing.

    Raises SandboxError when it does not end, or when the site's state is not an emulated site's.
    """
    run, state = paths.run_dir(site).absolute(), paths.state_dir(site).absolute()
    if not run.exists() and not (state / STATE_MARK).exists():
        return False
    with locked(run):
        found = find(site)
        if found is None and _accepts(run / "controller.sock"):
            raise SandboxError(f"site {site} is not emulated: stop its controller and agents where they run")
        if found is not None:
            state = found.state_dir
            _end(found.pid, found.started)
        had_state = (state / STATE_MARK).exists()
        if had_state:
            shutil.rmtree(state)
            prune(state.parent, "PLAYGROUND_STATE")
        empty(run)
    return found is not None or had_state


def ask(info: SandboxInfo, do: str, **words: object) -> dict[str, Any]:
    """One request to the sandbox's first process: `status`, `log` (name, lines), `kill-host` and `start-host` (host).

    Raises SandboxError with what it refused, or when it does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(END_TIMEOUT_S)
            connection.connect(str(info.run_dir / "sandbox.sock"))
            connection.sendall(json.dumps({"do": do, **words}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
    except (OSError, ValueError) as error:
        raise SandboxError(f"the sandbox of site {info.site} does not answer: {error}") from None
    if "error" in answer:
        raise SandboxError(str(answer["error"]))
    return answer


def command_in(info: SandboxInfo, argv: Sequence[str], host: str | None = None) -> list[str]:
    """`argv` as a command line that runs inside the sandbox, or on one of its hosts; needs util-linux's nsenter."""
    proc = f"/proc/{info.pid}"
    where = {kind: f"{proc}/ns/{kind}" for kind in ("mnt", "net", "uts")}
    if host is not None:
        held = {said["name"]: said["namespaces"] for said in ask(info, "status")["hosts"]}
        if held.get(host) is None:
            raise SandboxError(f"site {info.site} runs no host {host}; it has {', '.join(held)}")
        where = {kind: f"{proc}/fd/{fd}" for kind, fd in held[host].items()}
    enter = ["nsenter", f"--target={info.pid}", "--pid", "--ipc", f"--net={where['net']}", f"--uts={where['uts']}"]
    enter += [f"--mount={where['mnt']}"]
    if info.has_user_namespace:
        enter += ["--user", "--preserve-credentials"]
    return [*enter, "--", *argv]


def enter(info: SandboxInfo, argv: Sequence[str], host: str | None = None) -> int:
    """Runs a command inside the sandbox with the caller's terminal; returns its exit code."""
    return subprocess.run(command_in(info, argv, host)).returncode


# -- starting --------------------------------------------------------------------------------------------------------


def _start(plan: SandboxPlan, leash: bool, timeout_s: float) -> SandboxInfo:
    run, state = Path(plan.run_dir), Path(plan.state_dir)
    deadline_s = time.monotonic() + timeout_s
    log = run / "sandbox.log"
    with contextlib.ExitStack() as undo:
        undo.callback(discard, run, state if plan.discard_state else None)
        report, report_write = os.pipe()
        told = _Report(report)
        undo.callback(told.await_silence)
        leash_read, leash_write = os.pipe()
        undo.callback(os.close, leash_write)
        with contextlib.ExitStack() as child_ends, log.open("ab") as output:
            child_ends.callback(os.close, report_write)
            child_ends.callback(os.close, leash_read)
            launcher = subprocess.Popen(
                [sys.executable, "-m", "playground.sandbox.launch", str(report_write), str(leash_read)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(report_write, leash_read),
                start_new_session=True,
                env=_environment(),
            )
        launcher.communicate(plan.encode().encode())
        pid = told.await_made(deadline_s, plan, log)
        who = started(pid)
        if who is None:
            raise SandboxError(f"the sandbox of site {plan.site} ended as soon as it was made{_tail(log)}")
        info = SandboxInfo(plan.site, pid, who, len(plan.hosts), run, state, os.geteuid() != 0)
        _publish(info)
        _await_controller(info, log, deadline_s - time.monotonic())
        undo.pop_all()
    os.close(report)
    if not leash:  # else it stays open until this process ends, however it does
        os.write(leash_write, b"s")
        os.close(leash_write)
    return info


def _environment() -> dict[str, str]:
    """The caller's, in which this very package is found from any working directory, and the tools in sbin, too.

    Debian gives ordinary users no sbin; `bridge`, `tc` and `nft` lie there and work in namespaces of their own.
    """
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join((environment.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    root = str(Path(__file__).resolve().parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    return environment


class _Report:
    """What the first process says while it makes its sandbox, and its silence: it and its reaper hold the other end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._unread = b""
        self._pid: int | None = None

    def await_made(self, deadline_s: float, plan: SandboxPlan, log: Path) -> int:
        """The pid of the first process, once everything is made. Raises SandboxError with its cause."""
        is_made = False
        while self._pid is None or not is_made:
            said = self._read(deadline_s)
            if said is None:
                raise SandboxError(f"the sandbox of site {plan.site} was not made in time{_tail(log)}")
            if not said:
                raise SandboxError(f"the sandbox of site {plan.site} ended while it was made{_tail(log)}")
            for words in said:
                if "error" in words:
                    raise SandboxError(_why(words["error"], words["errno"]))
                is_made = is_made or not words
        return self._pid

    def await_silence(self) -> None:
        """Returns when the sandbox, whose leash was let go, is dead; kills it when it does not end by itself."""
        deadline_s = time.monotonic() + END_TIMEOUT_S
        while said := self._read(deadline_s):
            pass
        if said is None and self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)  # the pid can't be another's: its holder has this pipe open
            self._read(time.monotonic() + END_TIMEOUT_S)
        os.close(self._fd)

    def _read(self, deadline_s: float) -> list[dict[str, Any]] | None:
        """What was said since; empty when nobody is left to say anything, None when the time is up."""
        lines: list[bytes] = []
        while not lines:
            if not select.select([self._fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                return None
            if not (read := os.read(self._fd, 4096)):
                return []
            *lines, self._unread = (self._unread + read).split(b"\n")
        said: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for words in said:
            self._pid = words.get("pid", self._pid)
        return said


def _why(error: str, number: int) -> str:
    """The cause of a start that the kernel refused, with the doctor's remedy where it is a matter of permission."""
    if number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        from playground.doctor import why_no_sandbox

        return f"this machine does not allow a sandbox: {why_no_sandbox() or error}"
    return f"the sandbox could not be made: {error}"


def _await_controller(info: SandboxInfo, log: Path | None, timeout_s: float) -> None:
    """Returns when the controller's socket accepts. Raises SandboxError with what the controller said last."""
    deadline_s = time.monotonic() + timeout_s
    while not _accepts(info.run_dir / "controller.sock"):
        if started(info.pid) != info.started:
            raise SandboxError(f"the sandbox of site {info.site} ended{_tail(log) if log else ''}")
        controller = next((p for p in ask(info, "status")["programs"] if p["name"] == "controller"), None)
        deaths = controller["restarts"] if controller else 0
        if deaths >= GIVE_UP_AFTER_DEATHS or time.monotonic() > deadline_s:
            why = f"died {deaths} times" if deaths else f"does not answer after {timeout_s:.0f} s"
            said = "".join(f"\n  {line}" for line in ask(info, "log", name="controller", lines=8)["lines"])
            raise SandboxError(f"the controller of site {info.site} {why}; its last words:{said or ' none'}")
        time.sleep(0.02)


def _publish(info: SandboxInfo) -> None:
    said = {
        "pid": info.pid,
        "started": info.started,
        "emulate": info.emulate,
        "state_dir": str(info.state_dir),
        "has_user_namespace": info.has_user_namespace,
    }
    file = paths.sandbox_file(info.site)
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(said) + "\n")
    draft.replace(file)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
    return "; its last words:" + "".join(f"\n  {line}" for line in lines) if lines else ""


# -- ending ----------------------------------------------------------------------------------------------------------


def _end(pid: int, who: str) -> None:
    """Returns when a sandbox's first process is dead and reaped: by then the kernel has ended all others in it."""
    with contextlib.ExitStack() as opened:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        opened.callback(os.close, process)
        if (reaper := _parent(pid)) is not None:
            opened.callback(os.close, reaper)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if started(pid) != who:  # asked after pidfd_open: the pid can't change hands any more
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], END_TIMEOUT_S / 2)[0]:
                if reaper is not None:
                    select.select([reaper], [], [], BURIAL_TIMEOUT_S)
                return
    raise SandboxError(f"process {pid}, the first of a sandbox, does not end; something in it hangs in the kernel")


def _parent(pid: int) -> int | None:
    """A pidfd of the process that reaps `pid`: it ends when it has. None for the machine's first, which never does."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if parent > 1:
            return os.pidfd_open(parent)
    return None
