"""Finds out by trial whether KVM works here. That /dev/kvm can be opened says little: nested, it may emulate each
instruction of a guest's kernel, take a minute for it, and fail.

The trial boots nine bytes that end QEMU by its debug exit. Where KVM does its work that takes a tenth of a second of
processor time; where it emulates, the firmware before them alone takes three to ten. The clock on the wall would say
another thing on a busy machine than on a quiet one.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from pathlib import Path

KVM = "/dev/kvm"

TRIAL_S = 20.0
"""By the clock: how long a busy machine may take over it."""

TRIAL_CPU_S = 1
"""Processor time, the guest's included."""

_ENDED = 33
"""What QEMU's isa-debug-exit makes of 16: (16 << 1) | 1."""

# mov al, 16; mov dx, 0xf4; out dx, al; hlt; jmp to the hlt
_SECTOR = bytes.fromhex("b010baf400eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def accelerator(kept: Path) -> str:
    """`kvm` where a trial has ended well since this machine booted, else `qemu`. kept: file that remembers."""
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "qemu"
    boot = _BOOT.read_text().strip()
    try:
        known, _, found = kept.read_text().partition(" ")
        if known == boot and found in ("kvm", "qemu"):
            return found
    except FileNotFoundError:
        pass
    found = "kvm" if works("kvm", TRIAL_S, TRIAL_CPU_S) else "qemu"
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept.write_text(f"{boot} {found}")
    return found


def works(accelerator: str, seconds: float, cpu_s: int) -> bool:
    """Whether QEMU boots the trial in that time, and with that much processor time."""
    with tempfile.NamedTemporaryFile(suffix=".img") as image:
        image.write(_SECTOR)
        image.flush()
        argv = [
            "qemu-system-x86_64",
            "-accel",
            accelerator,
            "-m",
            "16",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
        argv += ["-drive", f"file={image.name},format=raw,if=ide,snapshot=on"]
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except FileNotFoundError:
            return False
        with process:
            try:
                resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
                return process.wait(seconds) == _ENDED
            except (ProcessLookupError, subprocess.TimeoutExpired):
                return False
            finally:
                process.kill()
