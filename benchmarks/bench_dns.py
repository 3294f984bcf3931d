"""Rates and CPU of names, beside a plain implementation in the same run.

`python benchmarks/bench_dns.py`. A server process on loopback, asked in a loop of 64 queries in flight, ours against a
loop of dnslib's parse and reply. The ratio is of CPU a query, above 1 when ours is better; the rate is often the
client's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import measure
from dnslib import QTYPE, RR, A, DNSRecord

from overlay.dns.answer import Answers
from overlay.dns.forward import Forwarder
from overlay.dns.listener import Listener, Sockets
from overlay.dns.record import port_records
from overlay.dns.zone import Zones

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
        zones.put(str(number), port_records((name(number),), (address(number),)))

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


def main() -> None:
    asked = measure.parser(__doc__).parse_args()
    began = measure.machine()
    measure.note("DNS")
    dns = {"ours": measure_dns(serve_ours, QUERIES), "dnslib": measure_dns(serve_dnslib, QUERIES // 5)}
    figures = {"dns": {**dns, "ratio": measure.ratio(dns["dnslib"]["cpu_us"], dns["ours"]["cpu_us"])}}
    measure.publish("dns", figures, began, asked.results)


if __name__ == "__main__":
    main()
