"""Serves DHCPv4 on one interface, from a range of addresses: `dhcp/` by itself, as a library.

    python examples/serve_dhcp.py eth1 10.9.0.1/24 10.9.0.100 10.9.0.199 --leases /var/lib/leases

The interface has the address already. Leases are on disk before a client hears of them, so the process may be killed at
any time. It needs CAP_NET_RAW, and CAP_NET_BIND_SERVICE for port 67.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import socket
from pathlib import Path

from dhcp.io.journal import Journal
from dhcp.io.packet import PacketServer
from dhcp.io.sockets import open_socket
from dhcp.io.unasked import Heard
from dhcp.scope import Pool4, PortScope, Scope4


def told(heard: Heard) -> None:
    print(f"{heard.kind.value} {heard.address} {heard.mac}", flush=True)


async def serve(interface: str, own: ipaddress.IPv4Interface, first: str, last: str, leases: Path) -> None:
    answers = Scope4(str(own.ip), own.network.prefixlen, server=str(own.ip), lease_s=600, router=str(own.ip))
    mac = Path(f"/sys/class/net/{interface}/address").read_text().strip()
    server = PacketServer(told, Journal(leases))
    server.set(interface, PortScope(mac, mac, pool=Pool4("example", answers, ((first, last),), limit=1 << 16)))
    server.attach(open_socket())
    # Never read: without it the kernel would refuse what is sent to our address alone, as a renewal is.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupied:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        occupied.bind(("", 67))
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("interface")
    parser.add_argument("address", type=ipaddress.IPv4Interface, help="the interface's own, as 10.9.0.1/24")
    parser.add_argument("first", help="first address that is given")
    parser.add_argument("last", help="last one")
    parser.add_argument("--leases", type=Path, default=Path("leases"), help="file that they are kept in")
    given = parser.parse_args()
    asyncio.run(serve(given.interface, given.address, given.first, given.last, given.leases))


if __name__ == "__main__":
    main()
