"""FRR's BGP EVPN in two namespaces, as a peer: one VNI, a bridge and a VXLAN device each. Measures nothing.

Starts Debian's zebra and bgpd by hand, with their files in a folder that goes with them; touches no FRR that the
machine may run.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import own

DAEMONS = Path("/usr/lib/frr")
HOSTS = (own("f1"), own("f2"))
TUNNEL, PORT = "vx100", "vm0"

_ZEBRA = "hostname r{number}\n"
_BGP = """\
router bgp 65000
 bgp router-id 172.30.0.{number}
 no bgp default ipv4-unicast
 neighbor 172.30.0.{other} remote-as 65000
 neighbor 172.30.0.{other} timers connect 1
 neighbor 172.30.0.{other} advertisement-interval 0
 address-family l2vpn evpn
  neighbor 172.30.0.{other} activate
  advertise-all-vni
"""


def is_installed() -> bool:
    """Its daemons, and their user: in an ordinary user's namespace there is no other user to become."""
    if not all((DAEMONS / name).exists() for name in ("zebra", "bgpd")):
        return False
    with tempfile.NamedTemporaryFile() as file:
        try:
            shutil.chown(file.name, "frr", "frr")
        except (OSError, LookupError):
            return False
    return True


def _ip(*lines: str) -> None:
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


def _wire() -> None:
    for name in HOSTS:
        _ip(f"netns add {name}", f"-n {name} link set lo up")
    one, two = HOSTS
    _ip(f"-n {one} link add fe0 type veth peer name fe0 netns {two}")
    for number, name in enumerate(HOSTS, 1):
        _ip(
            f"-n {name} address add 172.30.0.{number}/24 dev fe0",
            f"-n {name} link set fe0 up",
            f"-n {name} link add br0 type bridge",
            f"-n {name} link set br0 up",
            f"-n {name} link add {TUNNEL} type vxlan id 100 local 172.30.0.{number} dstport 4789 nolearning",
            f"-n {name} link set {TUNNEL} master br0",
            f"-n {name} link set {TUNNEL} type bridge_slave learning off neigh_suppress on",
            f"-n {name} link set {TUNNEL} up",
            f"-n {name} link add {PORT} type veth peer name vm1",
            f"-n {name} link set {PORT} master br0 up",
            f"-n {name} link set vm1 up",
        )


def _start(folder: Path, number: int, started: list[subprocess.Popen[bytes]]) -> None:
    own = folder / f"r{number}"
    own.mkdir()
    (own / "zebra.conf").write_text(_ZEBRA.format(number=number))
    (own / "bgpd.conf").write_text(_BGP.format(number=number, other=3 - number))
    for path in (own, *own.iterdir()):
        shutil.chown(path, "frr", "frr")
    for daemon in ("zebra", "bgpd"):
        words = ["-f", f"{own}/{daemon}.conf", "-i", f"{own}/{daemon}.pid", "-z", f"{own}/zserv.api"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", HOSTS[number - 1], str(DAEMONS / daemon), *words, "--vty_socket", str(own)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 10
        while not (own / "zserv.api").exists() and time.monotonic() < deadline:
            time.sleep(0.05)


@contextlib.contextmanager
def running() -> Iterator[tuple[str, str]]:
    """Names of two namespaces whose FRRs speak EVPN to each other; nothing of them is left afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="pgbf-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        try:
            _wire()
            for number in (1, 2):
                _start(Path(folder), number, started)
            yield HOSTS
        finally:
            for process in started:
                process.send_signal(signal.SIGKILL)
                process.wait()
            for name in HOSTS:
                subprocess.run(["ip", "netns", "delete", name], capture_output=True)
