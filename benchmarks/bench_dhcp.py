"""CPU of address delivery, beside a plain implementation in the same run.

`python benchmarks/bench_dhcp.py`. The work per frame, a frame in to a frame out, ours against scapy. The ratio is of
CPU a frame, above 1 when ours is better.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import measure
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from dhcp import frame, message
from dhcp.message import BOOTREQUEST, Message
from dhcp.render import SERVER_PORT, Reply
from dhcp.scope import PortScope, Scope4
from dhcp.server import Bound

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


def main() -> None:
    asked = measure.parser(__doc__).parse_args()
    began = measure.machine()
    measure.note("DHCP")
    dhcp = {"ours": measure_dhcp(answer_ours, 5000), "scapy": measure_dhcp(answer_scapy, 200)}
    figures = {"dhcp": {**dhcp, "ratio": measure.ratio(dhcp["scapy"]["cpu_us"], dhcp["ours"]["cpu_us"])}}
    measure.publish("dhcp", figures, began, asked.results)


if __name__ == "__main__":
    main()
