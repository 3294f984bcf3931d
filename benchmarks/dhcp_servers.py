"""DHCP servers as the benchmarks run them: ours, Kea and dnsmasq, each in a namespace, with what loads them. Measures
what it is asked to; decides nothing.

A nameless namespace lives as long as its descriptor, so nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dhcp_load
import measure
import msgspec
from dhcp_load import Exchange, Figures

from dhcp import frame, message
from dhcp.message import BOOTREQUEST, Message
from dhcp.scope import Pool4, PortScope, Scope4
from overlay.kernel import namespaces

ROOT = Path(__file__).parents[1]
SERVER, SERVER_MAC = "10.200.0.1", "02:70:67:00:00:01"
CLIENT = "00:0c:01:02:03:04"
"""The first MAC that perfdhcp makes clients of, and its own."""
RETRY_S = 1.0
PORTS = 200
"""Bound ports that exchanges are offered to, by turns."""
SECONDS = 3


class Space:
    """A network namespace without a name."""

    def __init__(self) -> None:
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        try:
            mine, found = Path("/proc/self/ns/net").stat().st_ino, Path(f"/proc/{holder.pid}/ns/net")
            while found.stat().st_ino == mine:
                time.sleep(0.002)
            self.descriptor = os.open(found, os.O_RDONLY)
        finally:
            holder.kill()
            holder.wait()
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def argv(self, *words: str) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--", *words]

    def ip(self, *commands: str) -> None:
        subprocess.run(self.argv("ip", "-batch", "-"), input="\n".join(commands), text=True, check=True)

    def inside(self) -> socket.socket:
        """A packet socket that hears what comes to a client there."""
        opened = namespaces.inside(self.descriptor, open_unfiltered)
        assert isinstance(opened, socket.socket)
        return opened

    def close(self) -> None:
        os.close(self.descriptor)


def open_unfiltered() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(0x0800))
    opened.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    return opened


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads, seconds."""
    return measure.cpu_s(Path(f"/proc/{pid}/stat").read_text())


# what serves


def _kea(folder: Path, is_threaded: bool = False) -> list[str]:
    pool = {"pools": [{"pool": "10.200.1.0-10.200.250.255"}], "subnet": "10.200.0.0/16", "interface": "v0"}
    options = [{"name": "routers", "data": SERVER}, {"name": "domain-name-servers", "data": SERVER}]
    kea = {
        "interfaces-config": {"interfaces": ["v0"], "dhcp-socket-type": "raw"},
        "lease-database": {"type": "memfile", "persist": True, "name": str(folder / "kea.csv"), "lfc-interval": 0},
        "valid-lifetime": 4000,
        "multi-threading": {"enable-multi-threading": is_threaded, "thread-pool-size": 1, "packet-queue-size": 1000},
        "subnet4": [{**pool, "option-data": options}],
        "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": str(folder / "kea.log")}]}],
    }
    (folder / "kea.json").write_text(json.dumps({"Dhcp4": kea}))
    return [
        "env",
        f"KEA_PIDFILE_DIR={folder}",
        f"KEA_LOCKFILE_DIR={folder}",
        "kea-dhcp4",
        "-c",
        str(folder / "kea.json"),
    ]


def _dnsmasq(folder: Path, interface: str = "v0") -> list[str]:
    words = (
        f"dnsmasq -k -C /dev/null --port=0 --interface={interface} --bind-interfaces --no-ping --quiet-dhcp --user=root"
    )
    words += " --dhcp-range=10.200.1.0,10.200.250.255,255.255.0.0,1h --dhcp-lease-max=70000 --dhcp-authoritative"
    return [*words.split(), f"--dhcp-leasefile={folder / 'dnsmasq'}", f"--pid-file={folder / 'dnsmasq.pid'}"]


RANGED = {"kea": _kea, "kea_threaded": lambda folder: _kea(folder, True), "dnsmasq": _dnsmasq}
"""Servers of a range, leases on disk."""
POOL = Scope4(SERVER, 16, SERVER, lease_s=4000, router=SERVER, dns=(SERVER,))
LENDING = PortScope(CLIENT, SERVER_MAC, pool=Pool4("bench", POOL, (("10.200.1.0", "10.200.250.255"),), limit=1 << 16))
"""A port of ours whose clients nobody declared: their leases are synced before the ACK."""
PROGRAM = {"kea": "kea-dhcp4", "kea_threaded": "kea-dhcp4", "dnsmasq": "dnsmasq"}


@contextlib.contextmanager
def serving(space: Space, argv: Sequence[str], port: str = ":0043 ", table: str = "udp") -> Iterator[int]:
    """The process that serves, once it hears at a port: as /proc/net has it, in that table."""
    with subprocess.Popen(
        space.argv(*argv),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            end = time.monotonic() + 20
            while (
                port
                not in subprocess.run(space.argv("cat", f"/proc/net/{table}"), capture_output=True, text=True).stdout
            ):
                assert process.poll() is None and time.monotonic() < end, f"{argv[0]} does not serve"
                time.sleep(0.05)
            time.sleep(0.5)
            yield process.pid
        finally:
            process.kill()


def offered(client: Space, words: Sequence[str], rate: int, seconds: int, pid: int) -> Figures:
    """What came of exchanges of four messages that perfdhcp offers on v1 at a rate, and what a server took for each.
    words: of perfdhcp's, beside these."""
    before = cpu_s(pid)
    argv = ["perfdhcp", "-l", "v1", "-r", str(rate), "-p", str(seconds), "-d", "0.5", *words]
    said = subprocess.run(client.argv(*argv), capture_output=True, text=True, timeout=60).stdout
    used = cpu_s(pid) - before
    done = int(re.findall(r"received packets: (\d+)", said)[1])
    sent = int(re.findall(r"sent packets: (\d+)", said)[0])
    return {
        "offered_per_s": rate,
        "per_s": round(done / seconds),
        "dropped": round(1 - done / max(sent, 1), 4),
        "cpu_us": round(used / max(done, 1) * 1e6, 1),
    }


def loaded(which: str, rate: int, folder: Path) -> Figures | None:
    """Exchanges of four messages: with a new client each time, or, to bound ports, with those of `PORTS` ports by
    turns. None where a tool is not there."""
    if shutil.which(PROGRAM.get(which, "ip")) is None:
        return None
    server, client = Space(), Space()
    is_bound, is_ours, count = which == "bound", which in ("ours", "bound"), PORTS if which == "bound" else 1
    try:
        server.ip(
            *(
                f"link add {f'pg{n:012x}' if is_ours else 'v0'} type veth peer name c{n} address {mac(n)}"
                f" netns {client.path}\nlink set {f'pg{n:012x}' if is_ours else 'v0'} up"
                for n in range(count)
            ),
            *([] if is_ours else [f"address add {SERVER}/16 dev v0"]),
            "link set lo up",
        )
        client.ip(*(f"link set c{n} up" for n in range(count)))
        devices = namespaces.inside(client.descriptor, lambda: [socket.if_nametoindex(f"c{n}") for n in range(count)])
        exchanges = [
            _exchange(n, devices[n % count], frame.mac(mac(n % count if is_bound else n)), n % count if is_bound else n)
            for n in range(rate * SECONDS)
        ]
        with _serving(which, server, folder, [_scope(mac(n), n) for n in range(count)]) as pid:
            return dhcp_load.offer(
                client.descriptor, exchanges, rate, pid, 0x0800, _Judge(len(exchanges), count, is_bound)
            )
    finally:
        server.close()
        client.close()


def _serving(
    which: str, server: Space, folder: Path, scopes: Sequence[PortScope]
) -> contextlib.AbstractContextManager[int]:
    """scopes: of bound ports, where it is those that are asked."""
    if which in ("ours", "bound"):
        return _responding(server, folder, scopes if which == "bound" else [LENDING])
    return serving(server, RANGED[which](folder))


def _own(number: int) -> bytes:
    """The address that a client asks for: of a bound port, its own."""
    return (int.from_bytes(socket.inet_aton("10.200.1.0"), "big") + number).to_bytes(4, "big")


def _exchange(number: int, device: int, chaddr: bytes, client: int) -> Exchange:
    """What udhcpc says, twice. number: its transaction."""
    wishes = {50: _own(client), 55: bytes((1, 3, 6, 12, 15, 26, 28, 42, 121)), 57: b"\x02\x40", 60: b"udhcp 1.35.0"}
    who = {61: b"\1" + chaddr, 12: b"host-%x" % client}
    ends = (b"\xff" * 6, chaddr, bytes(4), b"\xff" * 4, (68, 67))
    frames = []
    for told in ({53: b"\1"}, {53: b"\3", 54: socket.inet_aton(SERVER)}):
        request = Message(BOOTREQUEST, number.to_bytes(4, "big"), chaddr, told | who | wishes)
        frames.append(frame.udp4(*ends, message.encode(request)))
    return Exchange(device, frames[0], frames[1])


class _Judge:
    """An answer counts once, with the address that was asked for."""

    def __init__(self, exchanges: int, ports: int, is_bound: bool) -> None:
        self._left = {(number, kind) for number in range(exchanges) for kind in ("first", "second")}
        self._ports = ports if is_bound else exchanges

    def __call__(self, data: bytes) -> str:
        if (read := _reply(data)) is None or read.yiaddr != _own(int.from_bytes(read.xid, "big") % self._ports):
            return ""
        found = {b"\2": "first", b"\5": "second"}.get(read.options.get(53, b""), "")
        asked = int.from_bytes(read.xid, "big"), found
        if asked not in self._left:
            return ""
        self._left.remove(asked)
        return found


def by_perfdhcp(which: str, rate: int, folder: Path) -> Figures | None:
    """The same as perfdhcp sees it: a relay with a new client each time, and to one bound port with the port's own."""
    if any(shutil.which(tool) is None for tool in ("perfdhcp", PROGRAM.get(which, "ip"))):
        return None
    server, client = Space(), Space()
    device, clients = "pg000000000000" if which in ("ours", "bound") else "v0", 1 if which == "bound" else 50000
    try:
        server.ip(
            f"link add {device} type veth peer name v1 address {CLIENT} netns {client.path}",
            f"address add {SERVER}/16 dev {device}",
            f"link set {device} up",
            "link set lo up",
        )
        client.ip("address add 10.200.255.254/16 dev v1", "link set v1 up", "link set lo up")
        for space, end in ((server, device), (client, "v1")):
            quiet = {"check": True, "capture_output": True}
            subprocess.run(space.argv("ethtool", "-K", end, "tx", "off", "rx", "off"), **quiet)  # type: ignore[call-overload]
        with _serving(which, server, folder, [_scope(CLIENT, 0)]) as pid:
            return offered(client, ["-4", "-R", str(clients), "-b", f"mac={CLIENT}"], rate, SECONDS, pid)
    finally:
        server.close()
        client.close()


# a host's ports


def storm(which: str, count: int, folder: Path) -> Figures | None:
    """All clients of `count` ports ask at once: seconds until all are bound, and CPU an exchange; None where a tool is
    not there. A message that is not answered within `RETRY_S` goes again, as clients do."""
    if which != "ours" and shutil.which(PROGRAM[which]) is None:
        return None
    host, clients = Space(), Space()
    try:
        host.ip(
            "link add br0 type bridge mcast_snooping 0",
            f"address add {SERVER}/16 dev br0",
            "link set br0 up",
            "link set lo up",
            *(
                f"link add pg{n:012x} type veth peer name c{n} address {mac(n)} netns {clients.path}\n"
                f"link set pg{n:012x} {'' if which == 'ours' else 'master br0'} up"
                # a client's broadcast goes to the server alone, with either
                + ("" if which == "ours" else f"\nlink set pg{n:012x} type bridge_slave isolated on")
                for n in range(count)
            ),
        )
        clients.ip(*(f"link set c{n} up" for n in range(count)))
        with _host_serving(which, host, count, folder) as pid:
            return _ask_all(clients, count, pid)
    finally:
        host.close()
        clients.close()


def mac(number: int) -> str:
    return f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _host_serving(which: str, host: Space, count: int, folder: Path) -> contextlib.AbstractContextManager[int]:
    if which != "ours":
        return serving(host, _dnsmasq(folder, "br0"))
    return _responding(host, folder, [_scope(mac(n), n) for n in range(count)])


def _scope(mac: str, number: int) -> PortScope:
    address = f"10.200.{1 + (number >> 8)}.{number & 255}"
    told = Scope4(address, 16, SERVER, mtu=1400, dns=(SERVER,), hostname=f"w{number}", domain="g.x")
    return PortScope(mac, SERVER_MAC, told)


@contextlib.contextmanager
def _responding(host: Space, folder: Path, scopes: Sequence[PortScope]) -> Iterator[int]:
    """The responder of a host's ports pg000000000000, …."""
    path = folder / "r.sock"
    argv = [sys.executable, "-m", "playground.responder", "--socket", str(path), "--state", str(folder / "r.json")]
    argv += ["--netns", host.path, "--log", str(folder / "r.log")]
    with subprocess.Popen(argv, cwd=ROOT) as process, socket.socket(socket.AF_UNIX) as told:
        try:
            end = time.monotonic() + 20
            while told.connect_ex(str(path)) != 0:
                assert time.monotonic() < end, "the responder does not serve"
                time.sleep(0.02)
            document = {f"port/{n:012x}": scope for n, scope in enumerate(scopes)}
            told.sendall(msgspec.json.encode({"set": document, "whole": True, "seq": 1}) + b"\n")
            with told.makefile("rb") as lines:
                while b'"ack"' not in lines.readline():
                    pass
            told.shutdown(socket.SHUT_RDWR)
            yield process.pid
        finally:
            process.terminate()


def _ask_all(clients: Space, count: int, pid: int) -> Figures:
    opened = clients.inside()
    names = [f"c{n}" for n in range(count)]
    macs = [frame.mac(mac(n)) for n in range(count)]
    state = ["discover"] * count
    offered = [b""] * count
    sent_s = [0.0] * count
    retries = 0

    def send(n: int) -> None:
        found = {53: b"\1", 55: bytes((1, 3, 6, 12, 15, 26, 119))}
        if state[n] == "request":
            found = {53: b"\3", 50: offered[n], 54: socket.inet_aton(SERVER), 55: found[55]}
        request = message.encode(Message(BOOTREQUEST, n.to_bytes(4, "big"), macs[n], found))
        whole = frame.udp4(b"\xff" * 6, macs[n], bytes(4), b"\xff" * 4, (68, 67), request)
        sent_s[n] = time.monotonic()
        with contextlib.suppress(OSError):  # its queue is full: the client goes on as if it had been lost
            opened.sendto(whole, (names[n], 0))

    before, began = cpu_s(pid), time.monotonic()
    for n in range(count):
        send(n)
    left = count
    with opened:
        while left and time.monotonic() - began < 60:
            if select.select([opened], [], [], 0.05)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        data, (device, _, kind, *_) = opened.recvfrom(2048)
                        read = _reply(data) if kind != socket.PACKET_OUTGOING else None
                        n = int.from_bytes(read.xid, "big") if read is not None else count
                        if read is None or n >= count or device != names[n]:
                            continue
                        if read.options[53] == b"\2" and state[n] == "discover":
                            state[n], offered[n] = "request", read.yiaddr
                            send(n)
                        elif read.options[53] == b"\5" and state[n] == "request":
                            state[n] = "bound"
                            left -= 1
            now = time.monotonic()
            for n in range(count):
                if state[n] != "bound" and now - sent_s[n] > RETRY_S:
                    retries += 1
                    send(n)
    took = time.monotonic() - began
    return {
        "bound": count - left,
        "seconds": round(took, 3),
        "retries": retries,
        "cpu_us": round((cpu_s(pid) - before) / max(count - left, 1) * 1e6, 1),
    }


def _reply(data: bytes) -> Message | None:
    datagram = frame.parse_udp4(data)
    if datagram is None or datagram.destination_port != 68:
        return None
    read = message.parse(datagram.payload)
    return read if isinstance(read, Message) else None
