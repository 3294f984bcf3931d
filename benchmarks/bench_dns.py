"""Names: queries a second, CPU a query, and what asking others adds, each beside dnsmasq where it is installed.

`python benchmarks/bench_dns.py`. Servers are processes on loopback. dnsperf is the load (where it is missing, a loop of
our own that is slower than the servers): A and AAAA of 5000 hosts, and names that are not there, with EDNS. Not asked
is what dnsmasq searches all its hosts for (names of addresses). Ours is the responder's listener with all that it does,
forwarding included; dnsmasq has the same hosts from a file. A loop of dnslib's parse and reply is there too, as what
people write first.

Forwarding: a third server knows `example.org`. Its names are asked for one after the other, of it and through each
server: once each (forwarded), then again and again (cached). Ratios are ours to theirs, but for dnslib's.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import re
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
from dnslib import QTYPE, RR, A, DNSRecord

from overlay.dns.answer import Answers
from overlay.dns.forward import Forwarder
from overlay.dns.listener import Listener, open_sockets
from overlay.dns.record import Record, Type, port_records
from overlay.dns.zone import Zones

HOSTS = 5000
SECONDS = 3
RUNS = 4
TURNS = 10
QUERIES = 20_000
IN_FLIGHT = 64
ASKED = 400
ORIGIN = "bench.internal"
OTHERS = "example.org"
HERE = "127.0.0.1"
Json = dict[str, Any]


def name(number: int) -> str:
    return f"vm{number}.grid.{ORIGIN}"


def addresses(number: int) -> tuple[str, str]:
    return f"10.20.{number >> 8}.{number & 255}", f"fd00:20::{number:x}"


def a_free_port() -> int:
    """Free for UDP and TCP."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind((HERE, port))
                tcp.bind((HERE, port))
            except OSError:
                continue
            return port


def serve(zones: Zones, port: int, forwarder: Forwarder) -> None:
    async def forever() -> None:
        Listener([open_sockets(HERE, port)], Answers(zones, recursive=True), forwarder)
        await asyncio.Event().wait()

    asyncio.run(forever())


def serve_ours(port: int, others: int) -> None:
    zones = Zones(ORIGIN, ("10.20.0.0/16", "fd00:20::/64"))
    for number in range(HOSTS):
        zones.put(str(number), port_records((name(number),), addresses(number)))
    serve(zones, port, Forwarder((HERE,), port=others))


def serve_others(port: int) -> None:
    zones = Zones(OTHERS, ttl=3600)
    zones.put("all", [Record(f"w{number}.{OTHERS}", Type.A, "192.0.2.7") for number in range(TURNS * ASKED)])
    serve(zones, port, Forwarder(()))


def serve_dnslib(port: int) -> None:
    known = {f"{name(number)}.": addresses(number)[0] for number in range(HOSTS)}
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((HERE, port))
    while True:
        data, client = udp.recvfrom(4096)
        query = DNSRecord.parse(data)
        got = query.reply()
        if (address := known.get(str(query.q.qname))) and query.q.qtype == QTYPE.A:
            got.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=30))
        udp.sendto(bytes(got.pack()), client)


@contextlib.contextmanager
def running(serve: Callable[..., None], *arguments: int) -> Iterator[int]:
    """A server in a process of its own; its pid, once it answers at the port that is its first argument."""
    server = multiprocessing.get_context("fork").Process(target=serve, args=arguments, daemon=True)
    server.start()
    try:
        answers(arguments[0])
        yield server.pid or 0
    finally:
        server.kill()
        server.join()


@contextlib.contextmanager
def dnsmasq(port: int, others: int, folder: Path) -> Iterator[int]:
    """dnsmasq with the same hosts, the same other server, and its own cache."""
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{address} {name(n)}\n" for n in range(HOSTS) for address in addresses(n)))
    argv = ["dnsmasq", "-k", "-C", "/dev/null", f"--port={port}", f"--listen-address={HERE}", "--bind-interfaces"]
    argv += ["--no-hosts", "--no-resolv", f"--addn-hosts={hosts}", f"--local=/{ORIGIN}/", f"--server={HERE}#{others}"]
    argv += ["--user=root", f"--pid-file={folder / 'pid'}", "--cache-size=10000", "--local-ttl=30"]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        answers(port)
        yield server.pid
    finally:
        server.kill()
        server.wait()


def question(text: str, kind: int = 1, ident: int = 1, has_edns: bool = False) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in text.split("."))
    asked = struct.pack("!6H", ident, 0x100, 1, 0, 0, has_edns) + labels + struct.pack("!BHH", 0, kind, 1)
    return asked + struct.pack("!BHHIH", 0, 41, 1232, 0, 0) * has_edns


def answers(port: int, seconds: float = 30.0) -> None:
    """Waits until something answers."""
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.1)
        client.connect((HERE, port))
        while True:
            try:
                client.send(question("nobody." + ORIGIN))
                client.recv(4096)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nothing answers at port {port}") from None
                time.sleep(0.02)


def asked_for() -> list[tuple[str, str]]:
    """What dnsperf asks for: addresses, and one in nine of what is not there."""
    found = []
    for number in range(HOSTS):
        found += [(name(number), "A"), (name(number), "AAAA")]
        if number % 4 == 0:
            found.append((f"nobody{number}.{ORIGIN}", "A"))
    random.Random(1).shuffle(found)
    return found


def load(port: int, pid: int, questions: Path) -> Json:
    """Queries a second, µs of the server's CPU a query, and µs until a reply, under full load."""
    cpu = cpu_s(pid)
    if shutil.which("dnsperf"):
        argv = ["dnsperf", "-s", HERE, "-p", str(port), "-d", str(questions), "-l", str(SECONDS)]
        told = subprocess.run([*argv, "-c", "4", "-T", "1", "-q", "100", "-e"], capture_output=True, text=True).stdout
        rate = float(re.search(r"Queries per second:\s+([\d.]+)", told)[1])  # type: ignore[index]
        done = int(re.search(r"Queries completed:\s+(\d+)", told)[1])  # type: ignore[index]
        lost = int(re.search(r"Queries lost:\s+(\d+)", told)[1])  # type: ignore[index]
    else:
        rate, done, lost = _load(port, questions)
    return {"queries_per_s": round(rate), "cpu_us": round((cpu_s(pid) - cpu) / done * 1e6, 2), "lost": lost}


def _load(port: int, questions: Path) -> tuple[float, int, int]:
    kinds = {"A": 1, "AAAA": 28}
    wires = [question(text, kinds[kind]) for text, kind in map(str.split, questions.read_text().splitlines())]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect((HERE, port))
        start = time.perf_counter()
        for sent in range(QUERIES):
            client.send(wires[sent % len(wires)])
            if sent >= IN_FLIGHT:
                client.recv(4096)
        for _ in range(IN_FLIGHT):
            client.recv(4096)
        return QUERIES / (time.perf_counter() - start), QUERIES, 0


def latency_us(port: int, texts: list[str], has_edns: bool = False) -> float:
    """Median time of one question after the other, µs."""
    took = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((HERE, port))
        for number, text in enumerate(texts):
            wire = question(text, ident=number & 0xFFFF, has_edns=has_edns)
            start = time.perf_counter()
            client.send(wire)
            got = client.recv(4096)
            took.append(time.perf_counter() - start)
            assert got[3] & 15 == 0 and got[7] >= 1, got
    return round(statistics.median(took) * 1e6, 1)


def cpu_s(pid: int) -> float:
    return measure.cpu_s(Path(f"/proc/{pid}/stat").read_text())


def forwarded(port: int, others: int, turn: int) -> Json:
    """How long the third server takes, µs: asked directly, and through one that asks it, then has kept the reply.

    It has been asked before, in both forms in which forwarders ask, so that all that it does costs it the same.
    """
    texts = [f"w{turn * ASKED + number}.{OTHERS}" for number in range(ASKED)]
    for has_edns in (False, True):
        latency_us(others, texts, has_edns)
    direct = latency_us(others, texts)
    first, again = latency_us(port, texts), latency_us(port, texts * 3)
    return {"direct_us": direct, "forwarded_us": first, "cached_us": again}


def best(runs: list[Json]) -> Json:
    """The run with the highest rate: others' work on the machine only takes away."""
    return max(runs, key=lambda run: run["queries_per_s"])


def least(runs: list[Json]) -> Json:
    """The shortest of each time, for the same reason, and what the way through the server adds."""
    found = {what: min(run[what] for run in runs) for what in runs[0]}
    return {**found, "added_us": round(found["forwarded_us"] - found["direct_us"], 1)}


def main() -> None:
    asked = measure.parser(__doc__).parse_args()
    began = measure.machine()
    measure.note("DNS")
    figures: Json = {}
    has_dnsmasq = shutil.which("dnsmasq") is not None
    with tempfile.TemporaryDirectory(prefix="pgbd-", dir="/tmp") as top, contextlib.ExitStack() as stack:
        folder = Path(top)
        questions = folder / "questions"
        questions.write_text("".join(f"{text} {kind}\n" for text, kind in asked_for()))
        others, port, theirs, plain = (a_free_port() for _ in range(4))
        stack.enter_context(running(serve_others, others))
        servers = {"ours": (port, stack.enter_context(running(serve_ours, port, others)))}
        if has_dnsmasq:
            servers["dnsmasq"] = (theirs, stack.enter_context(dnsmasq(theirs, others, folder)))
        servers["dnslib"] = (plain, stack.enter_context(running(serve_dnslib, plain)))
        runs: dict[str, list[Json]] = {who: [] for who in servers}
        for _ in range(RUNS):
            for who, (where, pid) in servers.items():
                runs[who].append(load(where, pid, questions))
        figures["dns"] = {who: best(found) for who, found in runs.items()}
        turns: dict[str, list[Json]] = {who: [] for who in servers if who != "dnslib"}
        for turn in range(TURNS):
            for who, taken in turns.items():
                taken.append(forwarded(servers[who][0], others, turn))
        added = {who: least(taken) for who, taken in turns.items()}
        figures["forwarding"] = dict(added)
    ours, peer = figures["dns"]["ours"], figures["dns"].get("dnsmasq", {})
    figures["dns"]["ratio"] = measure.ratio(figures["dns"]["dnslib"]["cpu_us"], ours["cpu_us"])
    figures["dns"]["ratio_to_dnsmasq"] = measure.ratio(ours["queries_per_s"], peer.get("queries_per_s"))
    for what in ("added_us", "cached_us"):
        ratio = measure.ratio(added["ours"][what], added.get("dnsmasq", {}).get(what))
        figures["forwarding"][f"{what}_ratio_to_dnsmasq"] = ratio
    measure.publish("dns", figures, began, asked.results)


if __name__ == "__main__":
    main()
