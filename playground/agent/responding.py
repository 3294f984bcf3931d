"""Sees to it that this host's responder runs: starts one in a session of its own where none answers, and never ends
it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from playground import __version__

log = logging.getLogger("agent")

LOOK_S = 1.0
START_S = 5.0


async def answers(path: Path) -> bool:
    """Whether something serves the socket."""
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return False
    writer.close()
    return True


async def keep_responder(
    is_connected: Callable[[], bool],
    version: Callable[[], str],
    socket: Path,
    state: Path,
    leases: Path,
    dataplane: str,
    log_file: Path,
) -> None:
    """Looks for ever. is_connected: whether the agent talks to it; version: what it says of itself, or "". The
    responder outlives the agent; one that died is started anew within a second, and one of another version is succeeded
    by one of ours."""
    process: subprocess.Popen[bytes] | None = None
    while True:
        if process is not None and process.poll() is not None:
            log.warning("responder ended code=%d", process.returncode)
            process = None
        is_other = is_connected() and version() not in ("", __version__)
        if is_other or (not is_connected() and not await answers(socket)):
            argv = [sys.executable, "-m", "playground.responder"]
            argv += ["--socket", str(socket), "--state", str(state), "--leases", str(leases)]
            argv += ["--netns", dataplane, "--log", str(log_file)]
            argv += ["--succeed"] if is_other else []
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            log.info("responder started pid=%d", process.pid)
            for _ in range(int(START_S / 0.02)):
                if process.poll() is not None or await answers(socket):
                    break
                await asyncio.sleep(0.02)
        await asyncio.sleep(LOOK_S)
