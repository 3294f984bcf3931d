"""Tries, in namespaces that end with it, what an emulated site does to the kernel. Leaves nothing, decides nothing.

`python -m playground.doctor.trial` prints JSON: feature → null, or the cause of its failure. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from playground.sandbox import namespaces as ns

_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x1002


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise OSError(errno.EIO, " ".join(done.stderr.split()) or f"{argv[0]} failed")


def _bridge_netfilter() -> None:
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        raise OSError(errno.ENOENT, "module br_netfilter is not loaded")


def _redirect() -> None:
    _run("tc", "qdisc", "add", "dev", "try1", "clsact")
    match = ["protocol", "all", "u32", "match", "u32", "0", "0"]
    act = ["action", "mirred", "egress", "redirect", "dev", "try2"]
    _run("tc", "filter", "add", "dev", "try1", "ingress", *match, *act)


def _packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def _tap() -> None:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"try4", _IFF_TAP_NO_PI))
    os.close(device)


FEATURES: dict[str, Callable[[], None]] = {
    "bridge": lambda: _run("ip", "link", "add", "try0", "type", "bridge"),
    "veth": lambda: _run("ip", "link", "add", "try1", "type", "veth", "peer", "name", "try2"),
    "vxlan": lambda: _run("ip", "link", "add", "try3", "type", "vxlan", "id", "1", "dstport", "4789", "nolearning"),
    "redirect": _redirect,
    "nftables": lambda: _run("nft", "add table inet try"),
    "packet sockets": _packet_socket,
    "bridge netfilter": _bridge_netfilter,
    "tap": _tap,
}
"""In the order in which they are tried: a later one may use the links of an earlier one."""


def main() -> int:
    """Prints the answer; the exit code is 0 whatever it is."""
    flags = ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC
    try:
        if os.geteuid() == 0:
            ns.unshare(flags)
        else:
            ns.unshare_as_root(flags)
        pid = os.fork()
    except OSError as error:
        print(json.dumps({"namespaces": str(error.strerror)}))
        return 0
    if pid:
        os.waitpid(pid, 0)
        return 0
    found: dict[str, str | None] = {}
    try:
        ns.own_mounts()
        ns.mount("proc", "/proc", "proc")
        found["namespaces"] = None
    except OSError as error:
        print(json.dumps({"namespaces": str(error.strerror)}))
        return 0
    for feature, attempt in FEATURES.items():
        try:
            attempt()
            found[feature] = None
        except OSError as error:
            found[feature] = str(error.strerror)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
