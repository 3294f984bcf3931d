"""Network namespaces of a test's own, with a bridge and guests on it, and what is done inside them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from policies.kernel.inside import Inside

_T = TypeVar("_T")


class Namespace:
    """One network namespace, held by a process that sleeps. `path` names it, `call` does something inside."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "600"], stderr=subprocess.DEVNULL)
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        own = Path("/proc/self/ns/net").readlink()
        end = time.monotonic() + 5
        while self.path.readlink() == own:
            assert self._holder.poll() is None and time.monotonic() < end, "network namespaces cannot be made"
            time.sleep(0.001)
        self._inside = Inside(self.path)

    @property
    def pid(self) -> int:
        """Of the process that holds it, as `ip link … netns PID` takes it."""
        return self._holder.pid

    def call(self, work: Callable[..., _T], *args: object) -> _T:
        """Does it in a thread that is inside; one at a time."""
        return self._inside.call(work, *args)

    def run(self, command: str, text: str = "") -> str:
        """Runs a command inside, and says what it said. Asserts that it succeeds."""
        argv = ["nsenter", f"--net={self.path}", *command.split()]
        done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{text}"
        return done.stdout

    def close(self) -> None:
        """Ends it, with all that is inside."""
        self._inside.close()
        self._holder.kill()
        self._holder.wait()
