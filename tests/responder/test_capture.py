"""The script that captures at a port: by tcpdump, and where there is none by itself."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from responder_lab import Guest, Host, needs

import playground.workspaces
from dhcp import frame

SCRIPT = Path(playground.workspaces.__path__[0]) / "capture.py"
pytestmark = pytest.mark.system


def begun(host: Host, *words: str, path: str) -> subprocess.Popen[bytes]:
    env = {"PATH": path, "PLAYGROUND_DATAPLANE": host.plane.path}
    argv = [sys.executable, "-I", "-S", str(SCRIPT), *words]
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def frames(pcap: bytes, order: str) -> list[bytes]:
    at, found = 24, []
    while at + 16 <= len(pcap):
        size = struct.unpack_from(f"{order}I", pcap, at + 8)[0]
        found.append(pcap[at + 16 : at + 16 + size])
        at += 16 + size
    return found


@pytest.mark.parametrize("tool", ["tcpdump", ""])
def test_a_port_is_written_as_pcap(tool: str, host: Host, a_guest: Callable[[], Guest]) -> None:
    if tool:
        needs(tool)
    guest = a_guest()
    guest.up()
    sent = frame.arp_request(frame.BROADCAST_MAC, frame.mac(guest.mac), bytes(4), bytes(4)).ljust(60, b"\0")
    with begun(host, f"pg{guest.port}", path=os.environ["PATH"] if tool else "/nonexistent") as capture:
        assert capture.stdout is not None
        read = os.read(capture.stdout.fileno(), 24)  # its head: it listens
        with guest.socket() as opened:
            opened.send(sent)
            while sent not in frames(read, "=")[:64]:
                read += os.read(capture.stdout.fileno(), 65536)
        capture.send_signal(signal.SIGTERM)
        assert capture.wait(5) == 0
    assert struct.unpack_from("=IHH", read)[1:] == (2, 4)


@pytest.mark.parametrize(("words", "said"), [(("--text",), "text needs tcpdump"), (("arp",), "a filter needs tcpdump")])
def test_what_needs_tcpdump_says_so(words: tuple[str, ...], said: str, host: Host) -> None:
    options = [word for word in words if word.startswith("-")]
    filters = [word for word in words if not word.startswith("-")]
    with begun(host, *options, "br0", *filters, path="/nonexistent") as capture:
        assert capture.stderr is not None
        assert said in capture.stderr.read().decode()
        assert capture.wait(5) == 1


def in_an_ordinary_sandbox(words: str) -> subprocess.Popen[bytes]:
    """At lo, where pings come, in namespaces that map one user and deny setgroups."""
    needs("tcpdump")
    needs("unshare")
    needs("ping")
    pings = "(ping -i 0.2 -w 5 127.0.0.1 &) >/dev/null 2>&1"
    script = f"ip link set lo up && {pings}; exec {sys.executable} -I -S {SCRIPT} {words}"
    argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]
    env = {"PATH": os.environ["PATH"], "PLAYGROUND_DATAPLANE": "/proc/self/ns/net"}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_an_ordinary_user_reads_and_filters_frames() -> None:
    with in_an_ordinary_sandbox("--text lo 'icmp[0] == 8'") as capture:
        assert capture.stdout is not None
        assert b"127.0.0.1 > 127.0.0.1: ICMP echo request" in capture.stdout.readline()
        capture.send_signal(signal.SIGTERM)
        assert capture.wait(5) == 0


def test_an_ordinary_user_hears_of_a_wrong_filter_at_once() -> None:
    with in_an_ordinary_sandbox("lo 'tcp portx'") as capture:
        assert capture.wait(5) == 1
        assert capture.stderr is not None
        assert b"syntax error" in capture.stderr.read()
