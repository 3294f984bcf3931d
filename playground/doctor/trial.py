"""Tries to make the namespaces and mounts of a sandbox, which end with it. Leaves nothing, decides nothing.

`python -m playground.doctor.trial` prints nothing when it works, else the cause. Standard library only. What the data
plane needs inside is tried by `overlay.kernel.capabilities`.
"""

from __future__ import annotations

import os
import sys

from playground.sandbox import namespaces as ns


def main() -> int:
    """The exit code is 0 whatever the answer."""
    flags = ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC
    try:
        if os.geteuid() == 0:
            ns.unshare(flags)
        else:
            ns.unshare_as_root(flags)
        if pid := os.fork():
            os.waitpid(pid, 0)
            return 0
        ns.own_mounts()
        ns.mount("proc", "/proc", "proc")
        ns.mount("tmpfs", "/run", "tmpfs")
    except OSError as error:
        print(error.strerror)
    return 0


if __name__ == "__main__":
    sys.exit(main())
