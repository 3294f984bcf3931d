"""examples/serve_dhcp.py: the library alone, one interface, a real client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from responder_lab import Namespace, needs, until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system


@pytest.fixture
def ends(permitted: None) -> Iterator[tuple[Namespace, Namespace]]:
    """A server's namespace and a client's, joined."""
    with Namespace() as server, Namespace() as client:
        server.ip(
            f"link add s0 type veth peer name eth0 netns {client.path}",
            "address add 10.9.0.1/24 dev s0",
            "link set s0 up",
            "link set lo up",
        )
        client.ip("link set eth0 up")
        yield server, client


def serving(server: Namespace, leases: Path) -> subprocess.Popen[bytes]:
    # its own /sys: that of another network namespace shows other interfaces
    words = [sys.executable, str(ROOT / "examples" / "serve_dhcp.py"), "s0", "10.9.0.1/24", "10.9.0.50", "10.9.0.59"]
    script = 'mount -t sysfs none /sys && exec "$@"'
    argv = server.argv("unshare", "--mount", "sh", "-c", script, "sh", *words, "--leases", str(leases))
    with (leases.parent / "said").open("ab") as out:
        return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=out)


def test_a_client_gets_an_address_and_the_same_after_the_server_was_killed(
    ends: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    needs("busybox")
    server, client = ends
    said = tmp_path / "said"
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = serving(server, tmp_path / "leases")
        try:
            until(lambda: ":0043 " in server.run("cat", "/proc/net/udp"), what="it does not serve")
            client.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", "/bin/true")
        finally:
            process.send_signal(number)
            process.wait(5)
    assert [line.split()[:2] for line in said.read_text().splitlines()] == [["bound", "10.9.0.50"]] * 2
