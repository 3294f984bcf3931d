"""Waits for a playground, and shows how far it is: one line on a terminal, nothing in a pipe. Changes nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from playground.cli import render
from playground.client import Client, Refused, Unreachable, segment

QUICK_S = 0.05
"""How often progress is asked for at first."""

GENTLE_S = 0.25
"""And after `QUICK_FOR_S`: who waits that long doesn't mind."""

QUICK_FOR_S = 3.0

Progress = dict[str, Any]


class Line:
    """A line that is rewritten in place, on a terminal. `clear` before anything else is printed."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._enabled = self._stream.isatty()
        self._shown = ""

    def show(self, text: str) -> None:
        """Replaces the line; does nothing where there is no terminal."""
        if not self._enabled or text == self._shown:
            return
        import shutil

        fitting = render.printable(text)[: max(shutil.get_terminal_size().columns - 1, 20)]
        self._stream.write(f"\r\x1b[K{fitting}")
        self._stream.flush()
        self._shown = text

    def clear(self) -> None:
        """Leaves the line empty, the cursor at its start."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = ""


class TimedOut(Exception):
    """The end did not come in time. progress: the last answer, None when the controller never gave one."""

    def __init__(self, progress: Progress | None) -> None:
        super().__init__("not converged in time")
        self.progress = progress


def follow(
    client: Client, name: str, ended: Callable[[Progress], bool], timeout: float, line: Line | None = None
) -> Progress:
    """Asks for a playground's progress until `ended` of it, at most `timeout` seconds. Raises TimedOut.

    A controller that is away for a moment (restarted, upgraded) is waited for; a playground that it no longer knows is
    one that is removed.
    """
    line = line or Line()
    started = time.monotonic()
    progress: Progress | None = None
    try:
        while True:
            try:
                progress = client.get(f"playgrounds/{segment(name)}/progress")
                text = summary(name, progress)
            except Unreachable as error:
                text = f"{name}: waiting, {error}"
            except Refused as error:
                if error.status != 404:
                    raise
                progress = {"name": name, "converged": False, "removed": True}
                text = f"{name}: removed"
            elapsed = time.monotonic() - started
            if progress is not None and ended(progress):
                return progress
            if elapsed >= timeout:
                raise TimedOut(progress)
            line.show(f"{text} · {elapsed:.1f} s")
            time.sleep(QUICK_S if elapsed < QUICK_FOR_S else GENTLE_S)
    finally:
        line.clear()


def is_converged(progress: Progress) -> bool:
    return bool(progress.get("converged"))


def is_removed(progress: Progress) -> bool:
    return bool(progress.get("removed"))


def summary(name: str, progress: Progress) -> str:
    """`atlas: workspaces 3/6 · ports 5/7, leased 4/7 · waiting for workspace worker-1`."""
    parts = []
    if workspaces := progress.get("workspaces"):
        parts.append(f"workspaces {workspaces['running']}/{workspaces['total']}")
    if ports := progress.get("ports"):
        parts.append(f"ports {ports['forwarding']}/{ports['total']}, leased {ports['leased']}/{ports['total']}")
    for key, verb in (("failed", "failed"), ("waiting", "waiting for")):
        if entries := progress.get(key):
            parts.append(f"{verb} {entries[0]['object']}: {entries[0]['cause']}")
            break
    return f"{name}: " + (" · ".join(parts) or "waiting")


def causes(progress: Progress | None) -> list[str]:
    """Why it has not ended: a sentence each, what failed first."""
    if progress is None:
        return ["the controller did not answer"]
    return [
        f"{entry['object']}: {entry['cause']}" for key in ("failed", "waiting") for entry in progress.get(key) or ()
    ]
