"""Namespace workspaces of an emulated site from inside: where they run, and streams between them. Measures nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import Lab

from playground import sandbox, workspaces
from playground.records import workspace_id

STREAM = str(Path(workspaces.__file__).parent / "stream.py")
PYTHON = (sys.executable, "-I", "-S")
PORT = "47900"


def pid(site: Lab, playground: str, name: str) -> int:
    """A workspace's first process, as the sandbox numbers it."""
    file = site.info.run_dir / "workspaces" / workspace_id(playground, name) / "guest.json"
    return int(json.loads(file.read_text())["pid"])


def enter(site: Lab, playground: str, name: str, *argv: str) -> list[str]:
    """A command line inside a workspace; it lives on whatever becomes of agents."""
    words = ["nsenter", f"--target={pid(site, playground, name)}", "--mount", "--uts", "--net", "--pid", "--", *argv]
    return sandbox.command_in(site.info, words)


def within(site: Lab, playground: str, name: str, *argv: str) -> str:
    """Output of a command inside a workspace. Raises CalledProcessError."""
    return subprocess.run(
        enter(site, playground, name, *argv), capture_output=True, text=True, check=True, timeout=60
    ).stdout


def address(site: Lab, playground: str, name: str) -> str:
    """The IPv4 address of a workspace's first port."""
    rows = site.client.get("ports", {"playground": playground})
    return str(next(a for row in rows if row["workspace"] == name for a in row["addresses"] if "." in a))


@contextlib.contextmanager
def stream(receive: list[str], send: list[str], to: str, end: list[str], rate: int = 1000) -> Iterator[dict[str, Any]]:
    """A UDP stream while the body runs; what was yielded holds the result afterwards.

    receive, send: command lines that enter the two ends; end: one that ends the sender there, by SIGTERM.
    """
    result: dict[str, Any] = {}
    taking = subprocess.Popen(
        [*receive, *PYTHON, STREAM, "receive", "--port", PORT, "--patience", "30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if taking.stderr is None or "listening" not in taking.stderr.readline():
            raise RuntimeError("the stream's receiver does not listen")
        words = ["send", "--to", to, "--port", PORT, "--rate", str(rate), "--seconds", "120"]
        sending = subprocess.Popen([*send, *PYTHON, STREAM, *words], stdout=subprocess.PIPE, text=True)
        try:
            yield result
        finally:
            subprocess.run(end, check=False, capture_output=True)
            said, _ = sending.communicate(timeout=20)
        got, _ = taking.communicate(timeout=40)
        result.update(json.loads(got), sender=json.loads(said))
    finally:
        if taking.poll() is None:
            taking.kill()
            taking.communicate()
