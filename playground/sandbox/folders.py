"""Owns the run and state directories of an emulated site: locks, marks, empties and removes them. Starts no process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

STATE_MARK = "emulated.json"
"""In the state directory: made by a sandbox, so a sandbox may remove it."""


class SandboxError(Exception):
    """It could not be done; one sentence of cause and remedy, the last log lines below it."""


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """The run directory, made if missing, is ours alone to start or end a sandbox in. Waits for another holder.

    Goes again when it is empty in the end. Raises SandboxError when it can't be made, or somebody else could tamper
    with it.
    """
    while True:
        try:
            run.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SandboxError(
                f"{run} can't be made ({error.strerror}); set PLAYGROUND_RUN to a folder of yours"
            ) from None
        for folder in (run, run.parent):
            if os.geteuid() != 0 and folder.stat().st_uid not in (0, os.geteuid()):
                raise SandboxError(f"{folder} belongs to somebody else; set PLAYGROUND_RUN to a folder of yours")
        folder_fd = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX)
            if run.exists() and os.path.samestat(os.fstat(folder_fd), run.stat()):  # else an end removed it meanwhile
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        run.rmdir()
                        prune(run.parent, "PLAYGROUND_RUN")
                return
        finally:
            os.close(folder_fd)


def claim_state(site: str, state: Path, emulate: int) -> bool:
    """Marks the state directory as an emulated site's. Whether it was made just now."""
    mark = state / STATE_MARK
    if not mark.exists() and state.exists() and any(state.iterdir()):
        raise SandboxError(f"{state} holds the state of a site that is not emulated; choose another --site")
    is_new = not mark.exists()
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.write_text(json.dumps({"site": site, "emulate": emulate}) + "\n")
    except OSError as error:
        raise SandboxError(f"{state}: {error.strerror}; set PLAYGROUND_STATE to a folder of yours") from None
    return is_new


def empty(folder: Path) -> None:
    """What a dead sandbox left in its run directory; the directory itself is the lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def discard(run: Path, state: Path | None) -> None:
    """After a start that failed: as if it had not been tried. The sandbox itself may be at it, too."""
    shutil.rmtree(run, ignore_errors=True)
    prune(run.parent, "PLAYGROUND_RUN")
    if state is not None:
        shutil.rmtree(state, ignore_errors=True)
        prune(state.parent, "PLAYGROUND_STATE")


def prune(folder: Path, named_by: str) -> None:
    """Removes our own top directory when its last site is gone; one that the user named stays."""
    if named_by not in os.environ:
        with contextlib.suppress(OSError):
            folder.rmdir()
