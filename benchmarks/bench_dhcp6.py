"""DHCPv6 at a port beside Kea 6, in the same run, with perfdhcp as load.

`python benchmarks/bench_dhcp6.py`; Debian's kea-dhcp6-server and kea-admin (perfdhcp) are left out where they are not
installed: then there is nothing to tell.
- exchanges: SOLICIT, ADVERTISE, REQUEST, REPLY with a new client each time, offered at rising rates until 1 % go lost.
  Ours gives the port's declared address, whoever asks there, and notes each lease in its journal; Kea gives one of a
  pool, with its lease file on, and once more without one.
- frame: a SOLICIT's frame in to its ADVERTISE's out, no socket, ours against scapy; CPU.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import measure
import msgspec
from dhcp_servers import ROOT, Figures, Space, offered, serving
from scapy.layers import dhcp6 as scapy6
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from dhcp import frame, v6
from dhcp.scope import PortScope, Scope6
from dhcp.server6 import Bound, Reply
from dhcp.v6 import Code, Kind, Message

RATES = (300, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 10000, 12000)
SECONDS = 3
MAC, SERVER_MAC, PORT = "02:00:00:00:00:05", "02:70:67:00:00:01", "000000000005"
SCOPE = PortScope(
    MAC,
    SERVER_MAC,
    v6=Scope6(("fd00:20::5",), "fe80::1", dns=("fd00:20::1",), hostname="w0", domain="grid.bench.internal"),
)
BOUND = Bound(SCOPE)


@contextlib.contextmanager
def ours(server: Space, folder: Path) -> Iterator[int]:
    """The responder with one port."""
    path = folder / "r.sock"
    argv = [sys.executable, "-m", "playground.responder", "--socket", str(path), "--state", str(folder / "r.json")]
    argv += ["--netns", server.path, "--log", str(folder / "r.log")]
    with subprocess.Popen(argv, cwd=ROOT) as process, socket.socket(socket.AF_UNIX) as told:
        try:
            end = time.monotonic() + 20
            while told.connect_ex(str(path)) != 0:
                assert time.monotonic() < end, "the responder does not serve"
                time.sleep(0.02)
            update = {"set": {f"port/{PORT}": SCOPE}, "whole": True, "seq": 1}
            told.sendall(msgspec.json.encode(update) + b"\n")
            with told.makefile("rb") as lines:
                while b'"ack"' not in lines.readline():
                    pass
            told.shutdown(socket.SHUT_RDWR)
            yield process.pid
        finally:
            process.terminate()


def _kea(is_kept: bool) -> Callable[[Space, Path], contextlib.AbstractContextManager[int]]:
    def run(server: Space, folder: Path) -> contextlib.AbstractContextManager[int]:
        database = {"type": "memfile", "persist": is_kept, "name": str(folder / "kea.csv"), "lfc-interval": 0}
        subnet = {
            "pools": [{"pool": "fd00:20::1:0-fd00:20::ff:ffff"}],
            "subnet": "fd00:20::/64",
            "interface": f"pg{PORT}",
        }
        kea = {
            "interfaces-config": {"interfaces": [f"pg{PORT}"]},
            "lease-database": database,
            "valid-lifetime": 4000,
            "preferred-lifetime": 4000,
            "multi-threading": {"enable-multi-threading": True, "thread-pool-size": 1, "packet-queue-size": 64},
            "subnet6": [{**subnet, "option-data": [{"name": "dns-servers", "data": "fd00:20::1"}]}],
            "server-id": {"type": "LL", "htype": 1, "identifier": "027067000001", "persist": False},
            "loggers": [
                {"name": "kea-dhcp6", "severity": "WARN", "output_options": [{"output": str(folder / "kea.log")}]}
            ],
        }
        (folder / "kea.json").write_text(json.dumps({"Dhcp6": kea}))
        places = [f"KEA_PIDFILE_DIR={folder}", f"KEA_LOCKFILE_DIR={folder}"]
        return serving(server, ["env", *places, "kea-dhcp6", "-c", str(folder / "kea.json")], ":0223 ", "udp6")

    return run


SERVERS = {"ours": ours, "kea": _kea(True), "kea_without_file": _kea(False)}


def exchanges(which: str, rate: int, folder: Path) -> Figures | None:
    """Of four messages, offered at a rate; None where a tool is not there."""
    if any(shutil.which(tool) is None for tool in ("perfdhcp", "ip" if which == "ours" else "kea-dhcp6")):
        return None
    server, client = Space(), Space()
    try:
        server.ip(
            f"link add pg{PORT} type veth peer name v1 address {MAC} netns {client.path}",
            "link set lo up",
            f"link set pg{PORT} up",
        )
        client.ip("link set lo up", "link set v1 up")
        for space in (server, client):
            until = time.monotonic() + 10
            while (
                "tentative" in subprocess.run(space.argv("ip", "-6", "address"), capture_output=True, text=True).stdout
            ):
                assert time.monotonic() < until, "no link-local address"
                time.sleep(0.05)
        with SERVERS[which](server, folder) as pid:
            return offered(client, ["-6", "-R", "50000", "-b", "mac=00:0c:01:02:03:04", "all"], rate, SECONDS, pid)
    finally:
        server.close()
        client.close()


def measure_exchanges() -> Figures:
    """For each server the highest rate of which less than 1 % went lost; all servers at one rate, then at the next. Two
    rates in a row are too much for a server, or nothing at all is known of it."""
    best: Figures = {}
    failed = dict.fromkeys(SERVERS, 0)
    for rate in RATES:
        for which in [which for which, times in failed.items() if times < 2]:
            with tempfile.TemporaryDirectory(prefix="pgbx-") as folder:
                figures = exchanges(which, rate, Path(folder))
            if figures is None or figures["dropped"] >= 0.01:
                failed[which] += 1
            else:
                best[which], failed[which] = figures, 0
    if "ours" not in best:
        return {"ratio": measure.NO_PEER}
    kea = best.get("kea")
    return {**best, "ratio": measure.ratio(best["ours"]["per_s"], kea and kea["per_s"])}


def answer_ours(data: bytes) -> bytes:
    datagram = frame.parse_udp6(data)
    assert datagram is not None
    request = v6.parse(datagram.payload)
    assert isinstance(request, Message)
    reply = BOUND.answer(request)
    assert isinstance(reply, Reply)
    ports = (v6.SERVER_PORT, v6.CLIENT_PORT)
    return frame.udp6(BOUND.mac, BOUND.server_mac, BOUND.source, datagram.source, ports, reply.payload)


def answer_scapy(data: bytes) -> bytes:
    request = Ether(data)
    asked = request[scapy6.DHCP6_Solicit]
    given = scapy6.DHCP6OptIAAddress(addr="fd00:20::5", preflft=3600, validlft=3600)
    return bytes(
        Ether(dst=MAC, src=SERVER_MAC)
        / IPv6(src="fe80::1", dst=request[IPv6].src)
        / UDP(sport=547, dport=546)
        / scapy6.DHCP6_Advertise(trid=asked.trid)
        / scapy6.DHCP6OptClientId(duid=asked[scapy6.DHCP6OptClientId].duid)
        / scapy6.DHCP6OptServerId(duid=scapy6.DUID_LL(lladdr=SERVER_MAC))
        / scapy6.DHCP6OptIA_NA(iaid=asked[scapy6.DHCP6OptIA_NA].iaid, T1=1800, T2=2880, ianaopts=[given])
        / scapy6.DHCP6OptDNSServers(dnsservers=["fd00:20::1"])
    )


def measure_frame(answer: Callable[[bytes], bytes], count: int) -> Figures:
    """CPU in µs from a SOLICIT's frame to its ADVERTISE's, no socket; median of 5."""
    asked = v6.association(v6.Association(Code.IA_NA, b"\0\0\0\1"), 0, 0, [])
    options = ((int(Code.CLIENT_ID), b"\0\4" + bytes(16)), (int(Code.OPTION_REQUEST), b"\0\x17\0\x18"), asked)
    payload = v6.encode(Message(Kind.SOLICIT, b"\1\2\3", options))
    ends = (b"\xfe\x80" + bytes(13) + b"\5", v6.SERVERS)
    wire = frame.udp6(b"\x33\x33\0\1\0\2", BOUND.mac, *ends, (v6.CLIENT_PORT, v6.SERVER_PORT), payload)
    runs = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(count):
            answer(wire)
        runs.append((time.process_time() - start) / count * 1e6)
    return {"cpu_us": round(statistics.median(runs), 1)}


def main() -> None:
    asked = measure.parser(__doc__).parse_args()
    began = measure.machine()
    measure.note("DHCPv6")
    mine, theirs = measure_frame(answer_ours, 5000), measure_frame(answer_scapy, 200)
    figures = {
        "dhcp6": {"ours": mine, "scapy": theirs, "ratio": measure.ratio(theirs["cpu_us"], mine["cpu_us"])},
        "exchanges": measure_exchanges(),
    }
    measure.publish("dhcp6", figures, began, asked.results)


if __name__ == "__main__":
    main()
