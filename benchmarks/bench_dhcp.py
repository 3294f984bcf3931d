"""Address delivery beside Kea, dnsmasq and a plain implementation, in the same run.

`python benchmarks/bench_dhcp.py`; Debian's kea-dhcp4-server, kea-admin (perfdhcp) and dnsmasq-base are left out where
they are not installed.
- frame: a frame in to a frame out, no socket, ours against scapy; CPU.
- storm: the clients of 1000 ports of one host ask at once: seconds until all are bound, ours against dnsmasq on a
  bridge.
- leases: exchanges of four messages with clients that nobody declared, offered at rising rates until 1 % go lost;
  leases on disk, ours synced before the ACK. Kea by one thread, and with one that receives and one that works.
- bound: the same with the clients of 200 bound ports by turns, as a host's responder answers them, beside Kea's leases.
- perfdhcp: both as perfdhcp sees them, at a rate that it can offer. `dhcp_load` says why it is not the measure.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dhcp_load
import dhcp_servers
import measure
from dhcp_load import Figures
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from dhcp import frame, message
from dhcp.message import BOOTREQUEST, Message
from dhcp.render import SERVER_PORT, Reply
from dhcp.scope import PortScope, Scope4
from dhcp.server import Bound

PORTS = 1000
RATES = (300, 1000, 2000, 4000, 6000, 8000, 10000, 12000, 16000, 20000, 24000, 28000, 32000, 40000)
CHECKED_AT = 2000
MAC, SERVER_MAC = "02:00:00:00:00:05", "02:70:67:00:00:01"
BOUND = Bound(
    PortScope(
        MAC,
        SERVER_MAC,
        Scope4("10.20.0.5", 16, "10.20.0.1", mtu=1400, dns=("10.20.0.1",), hostname="w0", domain="grid.bench.internal"),
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
    told += [("name_server", "10.20.0.1"), ("hostname", b"w0"), ("domain", b"grid.bench.internal"), "end"]
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


def measure_storm() -> Figures:
    """Median of 3 by seconds, ours and dnsmasq in turn."""
    runs: dict[str, list[Figures]] = {"ours": [], "dnsmasq": []}
    for _ in range(3):
        for which, found in runs.items():
            with tempfile.TemporaryDirectory(prefix="pgbd-") as folder:
                figures = dhcp_servers.storm(which, PORTS, Path(folder))
            if figures is not None:
                found.append(figures)
    medians = {which: sorted(found, key=lambda one: one["seconds"])[1] for which, found in runs.items() if found}
    peer = medians.get("dnsmasq")
    return {"ports": PORTS, **medians, "ratio": measure.ratio(medians["ours"]["seconds"], peer and peer["seconds"])}


def measure_leases() -> dict[str, Figures]:
    """Of clients that nobody declared, and of bound ports."""
    best = dhcp_load.highest(("ours", *dhcp_servers.RANGED, "bound"), RATES, dhcp_servers.loaded)
    bound = best.pop("bound", None)
    return {"leases": _beside_kea(best.pop("ours", None), best), "bound": _beside_kea(bound, best)}


def _beside_kea(ours: Figures | None, peers: Figures) -> Figures:
    """Beside the Kea that does better."""
    if ours is None:
        return {"ratio": measure.NO_PEER}
    kea = [found for which, found in peers.items() if which.startswith("kea")]
    rate = measure.ratio(ours["per_s"], max((one["per_s"] for one in kea), default=None))
    cpu = measure.ratio(ours["cpu_us"], min((one["cpu_us"] for one in kea), default=None))
    return {"ours": ours, **peers, "ratio": rate, "cpu_ratio": cpu}


def measure_by_perfdhcp() -> Figures:
    """What perfdhcp says of each server."""
    found: Figures = {"offered_per_s": CHECKED_AT}
    for which in ("bound", "ours", "kea"):
        with tempfile.TemporaryDirectory(prefix="pgbd-") as folder:
            found[which] = dhcp_servers.by_perfdhcp(which, CHECKED_AT, Path(folder))
    return found


def main() -> None:
    asked = measure.parser(__doc__).parse_args()
    began = measure.machine()
    measure.note("DHCP")
    dhcp = {"ours": measure_dhcp(answer_ours, 5000), "scapy": measure_dhcp(answer_scapy, 200)}
    figures = {
        "dhcp": {**dhcp, "ratio": measure.ratio(dhcp["scapy"]["cpu_us"], dhcp["ours"]["cpu_us"])},
        "storm": measure_storm(),
        **measure_leases(),
        "perfdhcp": measure_by_perfdhcp(),
    }
    measure.publish("dhcp", figures, began, asked.results)


if __name__ == "__main__":
    main()
