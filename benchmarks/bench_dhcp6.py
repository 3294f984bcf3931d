"""DHCPv6 at a port beside Kea 6, in the same run.

`python benchmarks/bench_dhcp6.py`; Debian's kea-dhcp6-server is left out where it is not installed: then there is
nothing to tell.
- exchanges: SOLICIT, ADVERTISE, REQUEST, REPLY, offered at rising rates until 1 % go lost (`dhcp_load`). Ours gives the
  declared addresses of 200 ports to their clients by turns; Kea gives each of as many new clients one of a pool, with
  its lease file on, and once more without one.
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
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dhcp_load
import measure
import msgspec
from dhcp_load import Exchange, Figures
from dhcp_servers import PORTS, ROOT, SECONDS, Space, mac, serving
from scapy.layers import dhcp6 as scapy6
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from dhcp import frame, v6
from dhcp.ask import made_of_mac
from dhcp.scope import PortScope, Scope6
from dhcp.server6 import Bound, Reply
from dhcp.v6 import Code, Kind, Message
from overlay.kernel import namespaces

RATES = (300, 1000, 2000, 4000, 6000, 8000, 10000, 12000, 16000, 20000, 24000, 28000, 32000, 40000)
MAC, SERVER_MAC = "02:00:00:00:00:05", "02:70:67:00:00:01"
FIRST = socket.inet_pton(socket.AF_INET6, "fd00:20::1:0")


def address(number: int) -> bytes:
    """The address of a port, and of a client of Kea's."""
    return (int.from_bytes(FIRST, "big") + number).to_bytes(16, "big")


def scope(number: int) -> PortScope:
    given = socket.inet_ntop(socket.AF_INET6, address(number))
    told = Scope6((given,), "fe80::1", dns=("fd00:20::1",), hostname=f"w{number}", domain="grid.bench.internal")
    return PortScope(mac(number), SERVER_MAC, v6=told)


BOUND = Bound(scope(5))


@contextlib.contextmanager
def ours(server: Space, folder: Path) -> Iterator[int]:
    """The responder with all ports."""
    path = folder / "r.sock"
    argv = [sys.executable, "-m", "playground.responder", "--socket", str(path), "--state", str(folder / "r.json")]
    argv += ["--netns", server.path, "--log", str(folder / "r.log")]
    with subprocess.Popen(argv, cwd=ROOT) as process, socket.socket(socket.AF_UNIX) as told:
        try:
            end = time.monotonic() + 20
            while told.connect_ex(str(path)) != 0:
                assert time.monotonic() < end, "the responder does not serve"
                time.sleep(0.02)
            update = {"set": {f"port/{n:012x}": scope(n) for n in range(PORTS)}, "whole": True, "seq": 1}
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
            "interface": "pg000000000000",
        }
        kea = {
            "interfaces-config": {"interfaces": ["pg000000000000"]},
            "lease-database": database,
            "valid-lifetime": 4000,
            "preferred-lifetime": 4000,
            "multi-threading": {"enable-multi-threading": False},
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
    if shutil.which("ip" if which == "ours" else "kea-dhcp6") is None:
        return None
    server, client = Space(), Space()
    count = PORTS if which == "ours" else 1
    try:
        server.ip(
            *(
                f"link add pg{n:012x} type veth peer name c{n} address {mac(n)} netns {client.path}\n"
                f"link set pg{n:012x} up"
                for n in range(count)
            ),
            "link set lo up",
        )
        client.ip(*(f"link set c{n} up" for n in range(count)))
        until = time.monotonic() + 10
        while True:
            told = subprocess.run(server.argv("ip", "-6", "address"), capture_output=True, text=True).stdout
            if told.count("inet6 fe80") == count and "tentative" not in told:
                break
            assert time.monotonic() < until, "no link-local address"
            time.sleep(0.05)
        devices = namespaces.inside(client.descriptor, lambda: [socket.if_nametoindex(f"c{n}") for n in range(count)])
        offered = []
        for n in range(rate * SECONDS):
            who = n % count if which == "ours" else n
            offered.append(Exchange(devices[n % count], *asked(n, who, mac(n % count))))
        judge = Judge(len(offered), count if which == "ours" else len(offered))
        with namespaces.inside(client.descriptor, occupied), SERVERS[which](server, folder) as pid:
            return dhcp_load.offer(client.descriptor, offered, rate, pid, 0x86DD, judge)
    finally:
        server.close()
        client.close()


def occupied() -> socket.socket:
    """Takes what comes to clients and is read from the wire: without it the kernel would tell the server that nobody is
    there."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.bind(("::", v6.CLIENT_PORT))
    return opened


def asked(number: int, client: int, device: str) -> tuple[bytes, bytes]:
    """A client's SOLICIT and REQUEST. number: its transaction; device: the MAC that it is behind, whose address answers
    go to: Kea asks the kernel to find neighbours."""
    from_mac, own = frame.mac(device), frame.mac(mac(client))
    ends = (socket.inet_pton(socket.AF_INET6, made_of_mac(device, "fe80::/64")), v6.SERVERS)
    wished = v6.leased(address(client), 0, 0)
    association = v6.association(v6.Association(Code.IA_NA, b"\0\0\0\1"), 0, 0, [wished])
    said = [(int(Code.CLIENT_ID), v6.duid_ll(own)), (int(Code.OPTION_REQUEST), b"\0\x17\0\x18"), (8, b"\0\0")]
    whole = []
    for kind, more in ((Kind.SOLICIT, []), (Kind.REQUEST, [(int(Code.SERVER_ID), BOUND.server)])):
        payload = v6.encode(Message(kind, number.to_bytes(3, "big"), (*said, *more, association)))
        whole.append(frame.udp6(b"\x33\x33\0\1\0\2", from_mac, *ends, (v6.CLIENT_PORT, v6.SERVER_PORT), payload))
    return whole[0], whole[1]


class Judge:
    """An answer counts once, with the address that was asked for."""

    def __init__(self, exchanges: int, clients: int) -> None:
        self._left = {(number, kind) for number in range(exchanges) for kind in ("first", "second")}
        self._clients = clients

    def __call__(self, data: bytes) -> str:
        datagram = frame.parse_udp6(data)
        if datagram is None or datagram.destination_port != v6.CLIENT_PORT:
            return ""
        read = v6.parse(datagram.payload)
        if not isinstance(read, Message):
            return ""
        found = {Kind.ADVERTISE: "first", Kind.REPLY: "second"}.get(read.kind, "")
        number = int.from_bytes(read.xid, "big")
        given = v6.associations(read)
        if (number, found) not in self._left or given[0].addresses != (address(number % self._clients),):
            return ""
        self._left.remove((number, found))
        return found


def measure_exchanges() -> Figures:
    best = dhcp_load.highest(tuple(SERVERS), RATES, exchanges)
    if "ours" not in best:
        return {"ratio": measure.NO_PEER}
    kea = best.get("kea")
    cpu = measure.ratio(best["ours"]["cpu_us"], kea and kea["cpu_us"])
    return {**best, "ratio": measure.ratio(best["ours"]["per_s"], kea and kea["per_s"]), "cpu_ratio": cpu}


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
