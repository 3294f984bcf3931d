"""Finds out what this kernel can do for a data plane by doing it in a scratch namespace. Leaves nothing, fixes nothing.

The attempts run in a process of their own, without root in a user namespace of its own too: a process with threads
cannot enter one, and whatever an attempt makes ends with the process.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from overlay.kernel import messages as m
from overlay.kernel import programs
from overlay.kernel.namespaces import CLONE_NEWNET
from overlay.kernel.netlink import Netlink
from overlay.topology import SUPPRESSING
from overlay.tunnels.vxlan import Tunnel

_CLONE_NEWUSER = 0x10000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_TIMEOUT_S = 30
_PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin:/sbin:/usr/bin:/bin"))


@dataclass(frozen=True, slots=True)
class Capability:
    """name: a word for it. works: whether the attempt did. needed: the data plane cannot do without.

    cause: why it did not, and remedy: one sentence on what to do; both empty when it works.
    """

    name: str
    works: bool
    needed: bool
    cause: str = ""
    remedy: str = ""


def probe() -> list[Capability]:
    """Every capability, tried now (about 0.2 s). Never raises: a failing attempt is a result."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        return [Capability(**one) for one in json.loads(done.stdout)]
    except (subprocess.SubprocessError, ValueError) as error:
        cause = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        return [Capability("probe", False, True, " ".join(cause), "Run `python -m overlay.kernel.capabilities`.")]


def _namespaces() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and libc.unshare(CLONE_NEWNET) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # Root in here, so that a program keeps the capabilities over an exec (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _bridge() -> None:
    link = Netlink()
    link.do(m.create_bridge("br0"))
    link.do(m.set_up(_index("br0"), True))


def _veth() -> None:
    with Path("/proc/self/ns/net").open() as own:
        Netlink().do(m.create_veth("v0", 1450, "v1", 1450, own.fileno()))


def _vxlan() -> None:
    with Path("/proc/self/ns/net").open() as own:
        Netlink().do(m.create_vxlan("vx0", 1450, Tunnel(1, "127.0.0.1"), own.fileno()))


def _vxlan6() -> None:
    Netlink().do(m.set_up(1, True))
    with Path("/proc/self/ns/net").open() as own:
        Netlink().do(m.create_vxlan("vx6", 1450, Tunnel(2, "::1"), own.fileno()))


def _suppression() -> None:
    link = Netlink()
    link.do(m.set_master(_index("vx0"), _index("br0")))
    link.do(m.set_flags(_index("vx0"), SUPPRESSING))
    link.do(m.put_neighbour(_index("br0"), "fe80::2", "02:00:00:00:00:02", router=False))


def _clsact() -> None:
    link = Netlink()
    link.do(m.ensure_clsact(_index("vx0")))
    link.do(m.put_chase(_index("vx0"), "02:00:00:00:00:02"))


def _packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(m.ETH_P_ALL)).close()


def _nft() -> None:
    rules = "table bridge t { chain c { type filter hook prerouting priority 0; ether type ip udp dport 67 drop; }; }"
    _run(["nft", "-f", "-"], rules)


def _conntrack() -> None:
    rules = "table inet t { chain c { type filter hook prerouting priority -450; ct zone set 1; }; }"
    _run(["nft", "-f", "-"], rules)


def _translation() -> None:
    rules = (
        "table inet u { chain a { type nat hook postrouting priority srcnat; ip daddr 192.0.2.1 masquerade; }; "
        "chain b { type filter hook prerouting priority 0; fib daddr type local drop; }; "
        "chain c { type filter hook forward priority 0; reject with icmpx admin-prohibited; }; }"
    )
    _run(["nft", "-f", "-"], rules)


def _br_netfilter() -> None:
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        raise OSError(errno.ENOENT, "net.bridge.bridge-nf-call-iptables does not exist")


def _tun() -> None:
    import fcntl

    with Path("/dev/net/tun").open("r+b", buffering=0) as tun:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _IFF_TAP | _IFF_NO_PI))


_ATTEMPTS: list[tuple[str, Callable[[], None], bool, str]] = [
    (
        "namespaces",
        _namespaces,
        True,
        "Run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu 24.04"
        " an AppArmor profile with `userns,`).",
    ),
    ("bridge", _bridge, True, "Load the module: modprobe bridge."),
    ("veth", _veth, True, "Load the module: modprobe veth."),
    ("vxlan", _vxlan, True, "Load the module: modprobe vxlan."),
    ("vxlan over IPv6", _vxlan6, False, "Enable IPv6 (boot without ipv6.disable=1) to use an IPv6 underlay."),
    ("ARP and ND suppression", _suppression, True, "Use a kernel of 4.15 or later with IPv6 enabled."),
    (
        "clsact",
        _clsact,
        False,
        "Load the modules: modprobe -a sch_ingress cls_u32 act_mirred; moves lose packets without.",
    ),
    (
        "redirects by BPF",
        programs.attempt,
        False,
        "Nothing is lost but half a microsecond a packet; root has them, outside user namespaces, from Linux 6.7 on.",
    ),
    ("packet sockets", _packet_socket, True, "Load the module: modprobe af_packet."),
    ("nftables", _nft, True, "Install the package nftables, and load the module: modprobe nf_tables."),
    ("connection tracking", _conntrack, False, "Load the module: modprobe nf_conntrack; stateful policies need it."),
    (
        "address translation",
        _translation,
        False,
        "Load the modules: modprobe -a nft_masq nft_fib_inet nft_reject_inet; gateways need them.",
    ),
    ("br_netfilter", _br_netfilter, False, "Load the module: modprobe br_netfilter; stateful policies need it."),
    ("tap devices", _tun, False, "Load the module (modprobe tun) and allow access to /dev/net/tun; VMs need it."),
]


def _try_all() -> list[Capability]:
    """In order, in this process: later attempts use what earlier ones made."""
    results: list[Capability] = []
    for name, attempt, needed, remedy in _ATTEMPTS:
        if results and not results[0].works:
            results.append(Capability(name, False, needed, "not tried without namespaces", results[0].remedy))
            continue
        try:
            attempt()
        except OSError as error:
            results.append(Capability(name, False, needed, error.strerror or str(error), remedy))
        else:
            results.append(Capability(name, True, needed))
    return results


def _index(name: str) -> int:
    return socket.if_nametoindex(name)


def _run(command: list[str], stdin: str) -> None:
    program = shutil.which(command[0], path=_PATHS)
    if program is None:
        raise OSError(errno.ENOENT, f"{command[0]} is not installed")
    done = subprocess.run([program, *command[1:]], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EINVAL, done.stderr.strip().splitlines()[0] if done.stderr.strip() else "refused")


if __name__ == "__main__":
    json.dump([asdict(one) for one in _try_all()], sys.stdout)
