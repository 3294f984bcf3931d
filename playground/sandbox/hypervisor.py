"""A libvirtd for one emulated host: its own folders, its own identity, its own address; then it becomes that libvirtd.

Runs in the host's namespaces, whose mounts it changes for good: the host's agent finds libvirt where a physical host
has it. Standard library only. Hosts of a sandbox share PIDs and control groups, so QEMU gets no groups of its own; its
orphans are reaped by the sandbox's first process.
"""

from __future__ import annotations

import argparse
import os
import uuid
from pathlib import Path

from playground.sandbox import namespaces as ns

LIBVIRTD = "/usr/sbin/libvirtd"

_IDS = uuid.UUID("0b0f7f6e-6a0c-4f3c-9d57-5ad9a3a3c7f1")

PLACES = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}


LOCKS = Path("/var/lock")
"""Where libvirtd notes who has a console; on many machines a link into /run, which a sandbox has empty."""


def daemon_settings(name: str, site: str, address: str) -> str:
    """libvirtd.conf. Whoever reaches the underlay may use it: nothing but the site's hosts is there."""
    return "\n".join(
        (
            "listen_tls = 0",
            "listen_tcp = 1",
            f'listen_addr = "{address}"',
            'auth_tcp = "none"',
            'auth_unix_rw = "none"',
            'auth_unix_ro = "none"',
            'unix_sock_rw_perms = "0700"',
            f'host_uuid = "{uuid.uuid5(_IDS, f"{site}/{name}")}"',
            'log_outputs = "2:stderr"',
            "",
        )
    )


def qemu_settings(address: str) -> str:
    """qemu.conf."""
    return "\n".join(
        (
            'security_driver = "none"',
            'user = "+0"',
            'group = "+0"',
            "dynamic_ownership = 0",
            "remember_owner = 0",
            'stdio_handler = "file"',
            "namespaces = [ ]",
            "cgroup_controllers = [ ]",
            f'migration_address = "{address}"',
            f'migration_host = "{address}"',
            "",
        )
    )


def main() -> None:
    """Never returns. Raises OSError."""
    parser = argparse.ArgumentParser(prog="playground.sandbox.hypervisor")
    parser.add_argument("--site", required=True)
    parser.add_argument("--name", required=True, help="the emulated host's")
    parser.add_argument("--address", required=True, help="its underlay address")
    parser.add_argument("--folder", required=True, type=Path, help="where its state lies")
    asked = parser.parse_args()
    for kind, place in PLACES.items():
        own = asked.folder / kind
        own.mkdir(mode=0o711, parents=True, exist_ok=True)
        Path(place).mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(place):
            ns.mount(str(own), place, flags=ns.MS_BIND)
    LOCKS.resolve().mkdir(parents=True, exist_ok=True)
    _know_thyself(asked.folder / "hosts", asked.name, asked.address)
    etc = Path(PLACES["etc"])
    (etc / "libvirtd.conf").write_text(daemon_settings(asked.name, asked.site, asked.address))
    (etc / "qemu.conf").write_text(qemu_settings(asked.address))
    (etc / "virtlogd.conf").touch()
    pid = Path(PLACES["run"]) / "libvirtd.pid"
    pid.unlink(missing_ok=True)
    os.execv(LIBVIRTD, [LIBVIRTD, "--listen", "--pid-file", str(pid)])


def _know_thyself(file: Path, name: str, address: str) -> None:
    """libvirt asks for its own host's name at each migration, and no name server is to be reached from here."""
    if not os.path.ismount("/etc/hosts"):
        file.write_text(f"{Path('/etc/hosts').read_text()}\n{address} {name}\n")
        ns.mount(str(file), "/etc/hosts", flags=ns.MS_BIND)


if __name__ == "__main__":
    main()
