"""Runs a command as root of namespaces of its own, so that an ordinary user's `make test` tests what root's does.

usage: python .ci/in_namespaces.py COMMAND [ARGUMENT...]. As root, and where user namespaces are forbidden, it just runs
the command: then tests that need them are skipped, with the reason. Python does it, not unshare(1): AppArmor allows
user namespaces to this environment's interpreter (see playground/doctor/kernel.py).
"""

from __future__ import annotations

import os
import signal
import sys

from playground.doctor import why_no_sandbox
from playground.sandbox import namespaces as ns


def first_process(argv: list[str]) -> int:
    """In the new namespaces: /proc, the command, and reaping what it leaves. Returns its exit code."""
    ns.own_mounts()
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    child = os.fork()
    if child == 0:
        os.execvp(argv[0], argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command gets it from the terminal, too, and decides
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def main(argv: list[str]) -> int:
    """The command's exit code."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() == 0 or why_no_sandbox():
        os.execvp(argv[0], argv)
    os.environ["LOGNAME"] = f"uid-{os.geteuid()}"  # pytest names its folder in /tmp after it, and root's is not ours
    ns.unshare_as_root(ns.CLONE_NEWPID | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC)  # network: tests/conftest.py
    child = os.fork()
    if child == 0:
        return first_process(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
