"""A libvirtd for one emulated host: its own folders, its own identity, its own address; then it becomes that libvirtd.

Runs in the host's namespaces, whose mounts it changes for good: the host's agent finds libvirt where a physical host
has it. Standard library only. Hosts of a sandbox share PIDs and control groups, so QEMU gets no groups of its own; its
orphans are reaped by the sandbox's first process.
"""

from __future__ import annotations

import argparse
import os
import pwd
import uuid
from pathlib import Path

from playground.sandbox import namespaces as ns
from playground.workspaces.drivers.libvirt import hooks

LIBVIRTD = "/usr/sbin/libvirtd"

_IDS = uuid.UUID("0b0f7f6e-6a0c-4f3c-9d57-5ad9a3a3c7f1")

PLACES = {  # only /run is the sandbox's own: elsewhere nothing is made, as it would stay on the machine
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}


LOCKS = Path("/var/lock")
"""Where libvirtd notes who has a console; on many machines a link into /run, which a sandbox has empty."""


QEMU_USER = "libvirt-qemu"
QEMU_ID = 64055
"""Whom libvirt of Debian and Ubuntu looks up as it begins, whatever qemu.conf says, and dies without. On some releases
only the package of the machine's own libvirtd makes it; the number is the one that they reserve for it."""


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
    parser.add_argument("--hook", type=Path, help="the socket where its agent answers libvirt's hook, if it has one")
    asked = parser.parse_args()
    for kind, place in PLACES.items():
        own = asked.folder / kind
        own.mkdir(mode=0o711, parents=True, exist_ok=True)
        if kind == "run":
            Path(place).mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(place):
            ns.mount(str(own), place, flags=ns.MS_BIND)
    if LOCKS.resolve().is_relative_to("/run"):
        LOCKS.resolve().mkdir(parents=True, exist_ok=True)
    # libvirt asks for its own host's name at each migration, and no name server is to be reached from here
    _bind_with("/etc/hosts", f"{asked.address} {asked.name}", asked.folder / "hosts")
    if not _is_known_user(QEMU_USER):
        _bind_with(
            "/etc/passwd", f"{QEMU_USER}:x:{QEMU_ID}:{QEMU_ID}::/nonexistent:/usr/sbin/nologin", asked.folder / "passwd"
        )
        _bind_with("/etc/group", f"{QEMU_USER}:x:{QEMU_ID}:", asked.folder / "group")
    etc = Path(PLACES["etc"])
    (etc / "libvirtd.conf").write_text(daemon_settings(asked.name, asked.site, asked.address))
    (etc / "qemu.conf").write_text(qemu_settings(asked.address))
    (etc / "virtlogd.conf").touch()
    if asked.hook is not None:
        hooks.install(etc / "hooks", asked.hook, hooks.SINCE)
    pid = Path(PLACES["run"]) / "libvirtd.pid"
    pid.unlink(missing_ok=True)
    os.execv(LIBVIRTD, [LIBVIRTD, "--listen", "--pid-file", str(pid)])


def _is_known_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _bind_with(path: str, line: str, own: Path) -> None:
    """Has this host read a line more than the machine's file has."""
    if not os.path.ismount(path):
        own.write_text(f"{Path(path).read_text().rstrip()}\n{line}\n")
        ns.mount(str(own), path, flags=ns.MS_BIND)


if __name__ == "__main__":
    main()
