"""Owns the way from a command line into a sandbox: leaves its session and namespaces, and forks the first process.

`python -m playground.sandbox.launch REPORT LEASH`, with a SandboxPlan on stdin; both are pipe ends. On REPORT it says
`{"pid"}`, then `{}` when all is made or `{"error", "errno"}`; it stays open as long as the sandbox lives. When LEASH is
let go before a byte `s` ("stay") came through it, the sandbox ends and removes its directories: so whoever starts one
may be killed at any moment.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import suppress

from playground.sandbox import namespaces as ns
from playground.sandbox.init import Refused, Sandbox
from playground.sandbox.plan import SandboxPlan

_ISOLATED = ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC


def _stay_to_reap(leash: int) -> None:
    """Returns in a child, twice removed from the caller; in between stays a process that reaps the sandbox's first.

    A dead process keeps its PID and user namespace until it is reaped. The machine's first process may take a second
    over that (in a container, for ever), and `down` leaves no trace.
    """
    if os.fork():
        os._exit(0)
    ns.adopt_orphans()
    if os.fork():
        os.close(leash)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        os._exit(0)


def main(report: int, leash: int) -> int:
    """Leaves the caller's session and namespaces, forks the first process, reports its pid."""
    plan = SandboxPlan.decode(sys.stdin.read())
    os.chdir("/")
    os.umask(0o077)
    os.set_inheritable(report, False)
    os.set_inheritable(leash, False)
    _stay_to_reap(leash)

    def say(**words: object) -> None:
        with suppress(BrokenPipeError):
            os.write(report, json.dumps(words).encode() + b"\n")

    try:
        if os.geteuid() == 0:
            ns.unshare(_ISOLATED)
        else:
            ns.unshare_as_root(_ISOLATED)
        pid = os.fork()
    except OSError as error:
        say(error=f"no namespaces: {error}", errno=error.errno)
        return 1
    if pid:
        say(pid=pid)
        return 0
    try:
        sandbox = Sandbox(plan, leash)
        sandbox.catch_signals()
        sandbox.make()
        say()
        sandbox.run()
    except (OSError, Refused) as error:
        say(error=str(error), errno=getattr(error, "errno", None) or errno.EIO)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
