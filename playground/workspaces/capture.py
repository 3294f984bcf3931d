"""Writes the frames of one port as a pcap to stdout, or with --text tcpdump's lines. Decides nothing, keeps nothing.

A plain script for a host, standard library only: `python -I -S capture.py DEVICE [--text] [FILTER…]`, in the network
namespace that PLAYGROUND_DATAPLANE names. It is tcpdump where that is installed; without it the frames are written as
they come, and neither filter nor text can be had. In an ordinary user's sandbox tcpdump fails to drop its rights, so
the frames are taken here, and read by a tcpdump that has none. Ends at SIGINT, SIGTERM, or when nobody reads. Format:
pcap 2.4 with times in nanoseconds (draft-ietf-opsawg-pcap), link type Ethernet.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SNAPLEN = 65535
LINKTYPE_ETHERNET = 1
NANOSECONDS = 0xA1B23C4D
NOBODY = 65534
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """This process is in the network namespace of that path from now on. Raises OSError."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    finally:
        os.close(descriptor)


def can_drop_rights() -> bool:
    """Whether root may set its groups here, as tcpdump does whichever user it is told (user_namespaces(7))."""
    return Path("/proc/self/setgroups").read_text("ascii").strip() == "allow"


def become_nobody() -> None:
    """This process is not root from now on, in a user namespace of its own: only root drops rights. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")
    for name, outside in (("uid_map", user), ("gid_map", group)):
        Path(f"/proc/self/{name}").write_text(f"{NOBODY} {outside} 1", "ascii")


def read_by(argv: list[str], device: str) -> int:
    """tcpdump's exit code; it reads every frame of a device from a pipe, until SIGINT or SIGTERM comes here."""

    def ended(*_: object) -> None:
        raise BrokenPipeError

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)  # a terminal's Ctrl-C is for who writes; this one ends with its input
            os.dup2(read, 0)
            os.closerange(3, max(read, write) + 1)
            become_nobody()
            os.execv(argv[0], argv)
        except OSError as error:
            print(f"can't start tcpdump: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os.close(read)
    try:
        signal.signal(signal.SIGCHLD, ended)  # a filter that it refuses is known before the next frame comes
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            write_frames(device, write)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # asked to end, or it has ended
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(write)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_all(data: bytes, to: int) -> None:
    """Raises OSError when nobody reads any more."""
    view = memoryview(data)
    while view:
        view = view[os.write(to, view) :]


def write_frames(device: str, to: int) -> None:
    """Every frame of a device, until SIGINT or SIGTERM."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as opened:
        opened.bind((device, ETH_P_ALL))
        write_all(struct.pack("=IHHiIII", NANOSECONDS, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET), to)
        while True:
            frame = opened.recv(SNAPLEN)
            seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
            write_all(struct.pack("=IIII", seconds, nanoseconds, len(frame), len(frame)) + frame, to)


def main(arguments: Sequence[str]) -> int:
    """The exit code: tcpdump's own, or 0 when asked to end, or 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    parser.add_argument("--text", action="store_true")
    parser.add_argument("filter", nargs="*")
    given = parser.parse_args(arguments)
    try:
        enter(os.environ["PLAYGROUND_DATAPLANE"])
        tool = shutil.which("tcpdump")
        if tool is not None:
            how = ["-n", "-e", "-l"] if given.text else ["-U", "-w", "-"]
            if can_drop_rights():  # its own user may not be mapped here
                os.execv(tool, [tool, "-Z", "root", "-i", given.device, *how, *given.filter])
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            return read_by([tool, *how, "-r", "-", *given.filter], given.device)
        if given.text or given.filter:
            wanted = "a filter" if given.filter else "text"
            print(f"{wanted} needs tcpdump on the host; without it all frames can be written: -w FILE", file=sys.stderr)
            return 1
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        write_frames(given.device, 1)
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    except (KeyError, OSError) as error:
        print(f"can't capture at {given.device}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
