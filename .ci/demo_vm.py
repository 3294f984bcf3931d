"""`make demo-vm`: examples/machines.yaml for real, on three emulated hosts with a libvirtd each: up, seen, a machine
moved live, down. Leaves nothing.

The image that the file names is nobody's to ship: its machines boot the kernel and RAM disk of the tests instead, in as
little memory as those need. All else is as in the file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "machines.yaml"
PLAYGROUND = Path(sys.executable).with_name("playground")
MEMORY = "96MiB"
HOSTS = ("n1", "n2", "n3")


def bootable(folder: Path) -> Path:
    """The example with machines that boot here; a file below `folder`. Raises CalledProcessError, FileNotFoundError."""
    spec = importlib.util.spec_from_file_location("guest_image", ROOT / "tests" / "vm" / "guest_image.py")
    assert spec is not None and spec.loader is not None
    image = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(image)
    if reason := image.why_not():
        sys.exit(f"no machine boots here: {reason}")
    kernel, initrd = image.build(image.FOLDER)
    yaml = YAML()
    text = yaml.load(EXAMPLE)
    for name, workspace in text["workspaces"].items():
        if workspace.get("driver") == "libvirt":
            del workspace["image"]
            workspace["memory"] = MEMORY
            cmdline = f"{image.CMDLINE} hostname={name}"
            workspace["machine"] |= {"kernel": str(kernel), "initrd": str(initrd), "cmdline": cmdline}
    file = folder / EXAMPLE.name
    with file.open("w") as written:
        yaml.dump(text, written)
    return file


def run(*words: str, check: bool = True) -> int:
    """One command, shown as a person would type it, with what it says."""
    print(f"\n$ playground {' '.join(words)}", flush=True)
    done = subprocess.run([PLAYGROUND, *words], check=False)
    if check and done.returncode:
        raise SystemExit(done.returncode)
    return done.returncode


def main() -> None:
    """Exits with the code of the first command that fails."""
    if importlib.util.find_spec("libvirt") is None:
        sys.exit("libvirt-python is not installed: pip install 'playground[libvirt]'")
    with tempfile.TemporaryDirectory(prefix="pgd-", dir="/tmp") as folder:  # short: a Unix socket's path has 107 bytes
        os.environ |= {
            "PLAYGROUND_SITE": "machines",
            "PLAYGROUND_RUN": f"{folder}/r",
            "PLAYGROUND_STATE": f"{folder}/s",
        }
        file = bootable(Path(folder))
        try:
            run("up", str(file), "--emulate", "3", "--timeout", "180")
            run("status", "machines")
            run("exec", "head", "--", "ping", "-c", "3", "-w", "60", "node-0")
            told = subprocess.run([PLAYGROUND, "ports", "--json"], capture_output=True, text=True, check=True).stdout
            source = next(port["host"] for port in json.loads(told) if port["workspace"] == "node-0")
            target = next(host for host in HOSTS if host != source)
            run("migrate", "node-0", target, "--dry-run")
            run("migrate", "node-0", target)
            run("exec", "head", "--", "ping", "-c", "3", "-w", "60", "node-0")
        finally:
            run("down", "--all", check=False)


if __name__ == "__main__":
    main()
