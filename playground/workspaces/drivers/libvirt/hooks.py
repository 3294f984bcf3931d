"""Owns the file by which this host's libvirt calls us, in its folder of hooks: puts it there, takes it away. Nobody
else's file is touched. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from playground.workspaces.drivers.libvirt import hook

FOLDER = Path("/etc/libvirt/hooks")

SOCKET = "hook.sock"
"""Of this host's agent, which answers: in its run folder."""

NAME = "50-playground"
"""In `qemu.d`, where libvirt calls all files in the order of their names."""

SINCE = (6, 5)
"""libvirt's first version that reads `qemu.d`. https://libvirt.org/hooks.html"""

_OURS = "libvirt's hook for machines of ours"


class HookRefused(Exception):
    """It can't be installed; the text says why and what would help."""


def text(socket: Path) -> str:
    """The script, to ask the agent that listens there."""
    source = Path(hook.__file__).read_text()
    asked = source.replace(f'SOCKET = "{hook.SOCKET}"', f"SOCKET = {str(socket)!r}")
    return f"#!{sys.executable} -IS\n{asked}"


def version() -> tuple[int, int] | None:
    """This host's libvirt's, None where there is none."""
    for program in ("libvirtd", "virtqemud"):
        for folder in ("/usr/sbin", "/usr/libexec", "/usr/bin"):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                said = subprocess.run([f"{folder}/{program}", "--version"], capture_output=True, text=True, timeout=10)
                if found := re.search(r"(\d+)\.(\d+)\.\d+", said.stdout):
                    return int(found[1]), int(found[2])
    return None


def place(folder: Path, known: tuple[int, int]) -> Path:
    """Where it belongs under libvirt of that version."""
    return folder / "qemu.d" / NAME if known >= SINCE else folder / "qemu"


def install(folder: Path, socket: Path, known: tuple[int, int]) -> bool:
    """The hook is there; False if it was before. It may be written while libvirtd runs; the first in a folder that
    libvirtd found empty counts from its next start. Raises HookRefused, OSError."""
    path, wanted = place(folder, known), text(socket)
    if path.exists():
        there = path.read_text(errors="replace")
        if there == wanted and os.access(path, os.X_OK):
            return False
        if _OURS not in there:
            raise HookRefused(
                f"{path} is somebody else's hook, and libvirt {known[0]}.{known[1]} calls one only: install ours in "
                "another folder by --dir, and have that hook run it with its own arguments and standard input, and end "
                f"as it ends; or get libvirt {SINCE[0]}.{SINCE[1]}, which calls all that are in qemu.d"
            )
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(wanted)
    draft.chmod(0o755)
    draft.rename(path)
    return True


def remove(folder: Path, socket: Path | None = None) -> list[Path]:
    """None of ours is there, or none that asks that socket; returns those that were."""
    gone = []
    for path in (folder / "qemu.d" / NAME, folder / "qemu"):
        there = path.read_text(errors="replace") if path.is_file() else ""
        if _OURS in there and (socket is None or repr(str(socket)) in there):
            path.unlink()
            gone.append(path)
    return gone
