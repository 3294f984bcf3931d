"""Writes the frames of one port as a pcap to stdout, or with --text tcpdump's lines. Decides nothing, keeps nothing.

A plain script for a host, standard library only: `python -I -S capture.py DEVICE [--text] [FILTER…]`, in the network
namespace that PLAYGROUND_DATAPLANE names. It is tcpdump where that is installed; without it the frames are written as
they come, and neither filter nor text can be had. Ends at SIGINT, SIGTERM, or when nobody reads. Format: pcap 2.4 with
times in nanoseconds (draft-ietf-opsawg-pcap), link type Ethernet.
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

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SNAPLEN = 65535
LINKTYPE_ETHERNET = 1
NANOSECONDS = 0xA1B23C4D


def enter(namespace: str) -> None:
    """This process is in the network namespace of that path from now on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    finally:
        os.close(descriptor)


def write_all(data: bytes) -> None:
    """Raises OSError when nobody reads any more."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def write_frames(device: str) -> None:
    """Every frame of a device, until SIGINT or SIGTERM."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as opened:
        opened.bind((device, ETH_P_ALL))
        write_all(struct.pack("=IHHiIII", NANOSECONDS, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET))
        while True:
            frame = opened.recv(SNAPLEN)
            seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
            write_all(struct.pack("=IIII", seconds, nanoseconds, len(frame), len(frame)) + frame)


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
            # its own user may not be mapped here
            os.execv(tool, [tool, "-Z", "root", "-i", given.device, *how, *given.filter])
        if given.text or given.filter:
            wanted = "a filter" if given.filter else "text"
            print(f"{wanted} needs tcpdump on the host; without it all frames can be written: -w FILE", file=sys.stderr)
            return 1
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        write_frames(given.device)
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    except (KeyError, OSError) as error:
        print(f"can't capture at {given.device}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
