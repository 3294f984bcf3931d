"""Runs one command inside a namespace workspace. Standard library only; must not outlive whoever started it.

`python -I -S enter.py STARTER PID STARTED tty|plain COMMAND…`: STARTER is the pid of who started this, PID that of the
workspace's init, STARTED its start time in clock ticks since boot. Ends as the command ends: its exit code, 128 + N
after signal N, 127 not found, 126 not runnable; 125 when the workspace or the starter is gone. TERM, INT, HUP, QUIT and
WINCH are passed on. When the starter dies the command's process group gets SIGHUP and, a second later, the command
SIGKILL; when this process is killed, the command is at once (PDEATHSIG).
"""

# pathlib would take half as long to import as all the rest takes to start.
# ruff: noqa: PTH100, PTH123

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys
import termios

sys.path.append(os.path.abspath(__file__).rsplit("/", 4)[0])  # started by path, without any package's folder

from playground.workspaces.guest.confine import bound_capabilities

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
PR_SET_PDEATHSIG = 1
PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH)
OWN = (*PASSED[:-1], signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that a command begins with as any does, though an agent that nohup(1) started ignores SIGHUP, and Python
SIGPIPE and SIGXFSZ."""
GONE, NOT_RUNNABLE, NOT_FOUND = 125, 126, 127
PATIENCE_MS = 1000

libc = ctypes.CDLL(None, use_errno=True)


def open_init(pid: int, started: int) -> int:
    """A pidfd of exactly that process. Raises ProcessLookupError when the pid is somebody else's by now."""
    descriptor = os.pidfd_open(pid)
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    if fields[0] in "ZX" or int(fields[19]) != started:
        raise ProcessLookupError("the workspace's init has ended")
    return descriptor


def enter(init: int, kinds: int) -> None:
    """setns(2) by pidfd: all of these namespaces or none."""
    if libc.setns(init, kinds) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot enter the workspace: {os.strerror(code)}")


def become(init: int, argv: list[str], tty: bool) -> None:
    """In the child: enters the other namespaces and turns into the command; never returns."""
    code = GONE
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        enter(init, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
        bound_capabilities()
        os.chdir("/")
        os.setsid()
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for signo in OWN:
            signal.signal(signo, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        code = NOT_RUNNABLE
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        code = NOT_FOUND
        print(f"{argv[0]}: not found", file=sys.stderr)
    except OSError as error:
        print(f"{argv[0]}: {error.args[-1]}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def attend(child: int, starter: int) -> int:
    """Waits for the command, passing signals on, until it ends; returns the exit code."""
    ended = os.pidfd_open(child)
    watch = select.poll()
    watch.register(ended, select.POLLIN)
    watch.register(starter, select.POLLIN)

    def pass_on(signo: int, frame: object) -> None:
        try:
            os.kill(child, signo)
        except ProcessLookupError:
            return  # it has just ended; the poll below sees it

    for signo in PASSED:
        signal.signal(signo, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
    ready = dict(watch.poll())
    if ended not in ready:
        try:
            os.killpg(child, signal.SIGHUP)
        except ProcessLookupError:
            pass_on(signal.SIGHUP, None)
        watch.unregister(starter)
        if not watch.poll(PATIENCE_MS):
            pass_on(signal.SIGKILL, None)
    return status_of(os.waitpid(child, 0)[1])


def status_of(status: int) -> int:
    """A wait status as a shell shows it."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def main(argv: list[str]) -> int:
    """See the module's first lines."""
    parent, pid, started = (int(word) for word in argv[:3])
    tty, command = argv[3] == "tty", argv[4:]
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
    os.closerange(3, 1 << 16)  # whatever the starter left inheritable stays outside
    try:
        starter = os.pidfd_open(parent)
        if os.getppid() != parent:
            raise ProcessLookupError("whoever started this has ended already")
        init = open_init(pid, started)
        enter(init, CLONE_NEWPID)  # only children are in it; this process stays outside of everything
    except OSError as error:
        print(error.args[-1], file=sys.stderr)
        return GONE
    child = os.fork()
    if child == 0:
        become(init, command, tty)
    return attend(child, starter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
