"""Rates and CPU of names and address delivery, each beside a plain implementation in the same run.

`python benchmarks/bench_dhcp_dns.py`. DNS: a server process on loopback, asked in a loop of 64
queries in flight, ours against a loop of dnslib's parse and reply. DHCP: the work per frame, a frame in to a frame out,
ours against scapy. The ratios are of CPU a query or frame, above 1 when ours is better; the rate is often the client's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import measure
from dnslib import QTYPE, RR, A, DNSRecord
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from dhcp import frame, message
from dhcp.message import BOOTREQUEST, Message
from dhcp.scope import PortScope, Scope4
from dhcp.server import SERVER_PORT, Bound, Reply
from overlay.dns.answer import Answers
from overlay.dns.forward import Forwarder
from overlay.dns.listener import Listener, Sockets
from overlay.dns.zone import Host, Zones

NAMES = 2000
QUERIES = 20_000
IN_FLIGHT = 64
ORIGIN = "bench.internal"
Serve = Callable[[socket.socket], None]


def name(number: int) -> str:
    return f"vm{number}.grid.{ORIGIN}"


def address(number: int) -> str:
    return f"10.20.{number >> 8}.{number & 255}"


def serve_ours(udp: socket.socket) -> None:
    zones = Zones(ORIGIN, ("10.20.0.0/16",))
    for number in range(NAMES):
        zones.put(str(number), Host((name(number),), (address(number),)))

    async def forever() -> None:
        tcp = socket.socket()
        tcp.setblocking(False)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.setblocking(False)
        Listener([Sockets(udp, tcp)], Answers(zones), Forwarder(()))
        await asyncio.Event().wait()

    asyncio.run(forever())


def serve_dnslib(udp: socket.socket) -> None:
    known = {f"{name(number)}.": address(number) for number in range(NAMES)}
    while True:
        data, client = udp.recvfrom(4096)
        query = DNSRecord.parse(data)
        got = query.reply()
        got.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(known[str(query.q.qname)]), ttl=30))
        udp.sendto(bytes(got.pack()), client)


def measure_dns(serve: Serve, count: int) -> dict[str, float]:
    """Queries a second and the server's CPU in µs a query."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    server = multiprocessing.get_context("fork").Process(target=serve, args=(udp,), daemon=True)
    server.start()
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(10)
    client.connect(udp.getsockname())
    queries = [bytes(DNSRecord.question(name(number)).pack()) for number in range(NAMES)]
    random.Random(1).shuffle(queries)
    client.send(queries[0])
    client.recv(4096)
    cpu, start = cpu_s(server.pid), time.perf_counter()
    for sent in range(count):
        client.send(queries[sent % NAMES])
        if sent >= IN_FLIGHT:
            client.recv(4096)
    for _ in range(IN_FLIGHT):
        client.recv(4096)
    seconds, used = time.perf_counter() - start, cpu_s(server.pid) - cpu
    server.terminate()
    server.join()
    udp.close()
    client.close()
    return {"queries_per_s": round(count / seconds), "cpu_us": round(used / count * 1e6, 1)}


def cpu_s(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


MAC, SERVER_MAC = "02:00:00:00:00:05", "02:70:67:00:00:01"
BOUND = Bound(
    PortScope(
        MAC,
        SERVER_MAC,
        Scope4("10.20.0.5", 16, "10.20.0.1", mtu=1400, dns=("10.20.0.1",), hostname="w0", domain=f"grid.{ORIGIN}"),
    )
)


def answer_ours(data: bytes) -> bytes:
    datagram = frame.parse_udp4(data)
    assert datagram is not None
    request = message.parse(datagram.payload)
    assert isinstance(request, Message)
    reply = BOUND.answer(request)
    assert isinstance(reply, Reply)
    ports = (SERVER_PORT, reply.port)
    return frame.udp4(reply.to_mac, BOUND.server_mac, BOUND.server, reply.destination, ports, reply.payload)


def answer_scapy(data: bytes) -> bytes:
    request = Ether(data)
    told = [("message-type", 2), ("server_id", "10.20.0.1"), ("lease_time", 3600), ("subnet_mask", "255.255.0.0")]
    told += [("name_server", "10.20.0.1"), ("hostname", b"w0"), ("domain", f"grid.{ORIGIN}".encode()), "end"]
    return bytes(
        Ether(dst=MAC, src=SERVER_MAC)
        / IP(src="10.20.0.1", dst="10.20.0.5")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, xid=request[BOOTP].xid, chaddr=request[BOOTP].chaddr, yiaddr="10.20.0.5")
        / DHCP(options=told)
    )


def measure_dhcp(answer: Callable[[bytes], bytes], count: int) -> dict[str, float]:
    """CPU in µs from a DISCOVER's frame to its OFFER's, no socket; median of 5."""
    request = Message(BOOTREQUEST, b"\1\2\3\4", frame.mac(MAC), {53: b"\1", 55: bytes((1, 3, 6, 12, 15, 26, 119))})
    payload = message.encode(request)
    wire = frame.udp4(frame.BROADCAST_MAC, frame.mac(MAC), bytes(4), b"\xff" * 4, (68, 67), payload)
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
    measure.note("DHCP and DNS")
    dns = {"ours": measure_dns(serve_ours, QUERIES), "dnslib": measure_dns(serve_dnslib, QUERIES // 5)}
    dhcp = {"ours": measure_dhcp(answer_ours, 5000), "scapy": measure_dhcp(answer_scapy, 200)}
    figures = {
        "dns": {**dns, "ratio": measure.ratio(dns["dnslib"]["cpu_us"], dns["ours"]["cpu_us"])},
        "dhcp": {**dhcp, "ratio": measure.ratio(dhcp["scapy"]["cpu_us"], dhcp["ours"]["cpu_us"])},
    }
    measure.publish("dhcp_dns", figures, began, asked.results)


if __name__ == "__main__":
    main()
