"""examples/serve_dns.py serves: the library alone, as its text says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.xfr
import dns.zone
import pytest
from dns_servers import a_free_port

ROOT = Path(__file__).parents[2]
NAMES = ("head=10.0.0.2", "worker=10.0.0.3", "worker=10.0.0.4")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    free = a_free_port()
    argv = [sys.executable, str(ROOT / "examples" / "serve_dns.py"), "--port", str(free), "--subnet", "10.0.0.0/24"]
    serving = subprocess.Popen(
        [*argv, "--copier", "127.0.0.0/8", *NAMES], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    try:
        assert serving.stdout is not None and serving.stdout.readline() == f"serving 127.0.0.1 port {free}\n"
        yield free
    finally:
        serving.kill()
        serving.communicate()


def asked(port: int, name: str, kind: str) -> set[str]:
    got = dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", timeout=5, port=port)
    return {str(rdata) for rrset in got.answer for rdata in rrset}


def test_names_are_served_both_ways(port: int) -> None:
    assert asked(port, "worker.lab.internal", "A") == {"10.0.0.3", "10.0.0.4"}
    assert asked(port, "2.0.0.10.in-addr.arpa", "PTR") == {"head.lab.internal."}
    assert asked(port, "lab.internal", "TXT") == {'"served by examples/serve_dns.py"'}


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_a_secondary_copies_the_zone(port: int, kind: str) -> None:
    zone = dns.zone.Zone("lab.internal")
    question, serial = dns.xfr.make_query(zone, serial=0 if kind == "AXFR" else 1)
    assert (serial is None) == (kind == "AXFR")
    dns.query.inbound_xfr("127.0.0.1", zone, question, port=port, timeout=5, udp_mode=dns.query.UDPMode.NEVER)
    assert {str(name) for name in zone} == {"@", "head", "worker"}


def test_the_library_imports_nothing_of_playgrounds(port: int) -> None:
    code = (
        "import runpy, sys; sys.argv = ['', '--help']\ntry: runpy.run_path('examples/serve_dns.py', {}, '__main__')\n"
    )
    code += "except SystemExit: print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not [
        name for name in told.split() if name.partition(".")[0] in ("playground", "dhcp", "policies", "msgspec")
    ]
