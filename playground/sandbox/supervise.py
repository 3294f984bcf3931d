"""Owns the processes that a sandbox keeps running: starts, restarts with back-off, logs, reaps. Makes no namespace.

Runs in the sandbox's first process: single-threaded, standard library only. Time is an argument.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from playground.sandbox.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, setns
from playground.sandbox.plan import Program

FIRST_DELAY_S = 0.1
LAST_DELAY_S = 5.0
STEADY_S = 10.0
"""A program that ran this long starts anew without delay."""

LOG_LIMIT = 4 << 20
"""Bytes. A larger log is cut to nothing after its last part was put aside (NAME.log.1)."""

LOG_KEPT = 1 << 20


@dataclass(slots=True)
class HostNamespaces:
    """File descriptors that hold an emulated host: no process has to live for it to exist."""

    mnt: int
    net: int
    uts: int

    def join(self) -> None:
        """The calling process is in this host from now on."""
        setns(self.net, CLONE_NEWNET)
        setns(self.uts, CLONE_NEWUTS)
        setns(self.mnt, CLONE_NEWNS)

    def close(self) -> None:
        """The host ends with its last process."""
        for fd in (self.mnt, self.net, self.uts):
            os.close(fd)


@dataclass(slots=True)
class _Running:
    program: Program
    pid: int | None = None
    since_s: float = 0.0
    restarts: int = 0
    delay_s: float = 0.0
    due_s: float | None = 0.0
    """When to start it; None: it runs, or is not wanted."""


class Supervisor:
    """Keeps programs running. join: puts a forked child into the namespaces of a host's name, or raises OSError."""

    def __init__(
        self, programs: Iterable[Program], logs: Path, environment: Mapping[str, str], join: Callable[[str], None]
    ) -> None:
        self._programs = {program.name: _Running(program) for program in programs}
        self._logs = logs
        self._environment = dict(environment)
        self._join = join

    def add(self, program: Program, now_mono_s: float) -> None:
        """Keeps this one running too; one of its name is kept as it is."""
        self._programs.setdefault(program.name, _Running(program, due_s=now_mono_s))

    def start_due(self, now_mono_s: float) -> float | None:
        """Starts what is due. Returns in how many seconds the next one is, None when nothing waits."""
        waits = []
        for running in self._programs.values():
            if running.due_s is not None and running.due_s <= now_mono_s:
                running.pid, running.since_s, running.due_s = self._start(running.program), now_mono_s, None
            elif running.due_s is not None:
                waits.append(running.due_s - now_mono_s)
        return min(waits, default=None)

    def reap(self, now_mono_s: float) -> None:
        """Takes every dead child, ours and orphans, and schedules the restart of ours."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for running in self._programs.values():
                if running.pid == pid:
                    self._died(running, now_mono_s)

    def withdraw(self, host: str) -> None:
        """The programs of a host are not wanted for now; ends none of them."""
        for running in self._of(host):
            running.pid, running.due_s = None, None

    def resume(self, host: str, now_mono_s: float) -> None:
        """The programs of a host are wanted again."""
        for running in self._of(host):
            if running.pid is None:
                running.due_s, running.delay_s = now_mono_s, 0.0

    def status(self, now_mono_s: float) -> list[dict[str, object]]:
        """`{name, host, pid, restarts, up_s}` of each program; pid in the sandbox, None while it is down."""
        return [
            {
                "name": running.program.name,
                "host": running.program.host,
                "pid": running.pid,
                "restarts": running.restarts,
                "up_s": round(now_mono_s - running.since_s, 3) if running.pid is not None else 0.0,
            }
            for running in self._programs.values()
        ]

    def log_tail(self, name: str, lines: int) -> list[str]:
        """The last lines that a program said; none for an unknown name."""
        if name not in self._programs or not (log := self._log(name)).exists():
            return []
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - (64 << 10)))
            return file.read().decode(errors="replace").splitlines()[-lines:]

    def bound_logs(self) -> None:
        """Cuts logs that passed LOG_LIMIT. Their writers append, so they go on at the new end."""
        for name in self._programs:
            log = self._log(name)
            if log.exists() and log.stat().st_size > LOG_LIMIT:
                with log.open("rb") as file:
                    file.seek(-LOG_KEPT, os.SEEK_END)
                    log.with_name(f"{name}.log.1").write_bytes(file.read())
                os.truncate(log, 0)

    def _of(self, host: str) -> list[_Running]:
        return [running for running in self._programs.values() if running.program.host == host]

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _died(self, running: _Running, now_mono_s: float) -> None:
        steady = now_mono_s - running.since_s >= STEADY_S
        running.delay_s = 0.0 if steady else min(LAST_DELAY_S, max(FIRST_DELAY_S, 2 * running.delay_s))
        running.pid, running.due_s = None, now_mono_s + running.delay_s
        running.restarts += 1

    def _start(self, program: Program) -> int:
        pid = os.fork()
        return pid or self._become(program)

    def _become(self, program: Program) -> NoReturn:
        """In the child: the program, or a line in its log that says why not."""
        environment = dict(self._environment)
        try:
            os.setsid()
            log = os.open(self._log(program.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            if program.host is not None:
                self._join(program.host)
                environment["PLAYGROUND_HOST"] = program.host
            os.execvpe(program.argv[0], program.argv, environment)
        except OSError as error:
            os.write(2, f"{program.name}: can't start {program.argv[0]}: {error}\n".encode())
        finally:
            os._exit(127)
