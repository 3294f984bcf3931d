"""The DNS responder as a library: serves a few names at one address, and asks other resolvers for all else.

    python examples/serve_dns.py --listen 127.0.0.1 --port 5300 --origin lab.internal \\
        --subnet 10.0.0.0/24 --resolver 192.0.2.53 head=10.0.0.2 worker=10.0.0.3 worker=10.0.0.4
    dig -p 5300 @127.0.0.1 worker.lab.internal

It needs overlay/dns/ alone: no playground, no agent, no controller.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

from overlay.dns.answer import Answers
from overlay.dns.clients import EVERYBODY, Clients
from overlay.dns.forward import Forwarder
from overlay.dns.listener import PORT, Listener, open_sockets
from overlay.dns.record import Record, Type, port_records
from overlay.dns.zone import Zones


def zones_of(origin: str, subnets: Sequence[str], listen: str, names: Sequence[str]) -> Zones:
    """Names as NAME=ADDRESS, also in reverse; one that stands several times has several addresses."""
    zones = Zones(origin, tuple(subnets), (listen,), ttl=30, now_utc_s=time.time)
    for number, text in enumerate(names):
        name, _, address = text.partition("=")
        zones.put(str(number), port_records((f"{name}.{origin}",), (address,)))
    zones.put("about", [Record(origin, Type.TXT, "served by examples/serve_dns.py")])
    return zones


async def serve(zones: Zones, listen: str, port: int, resolvers: Sequence[str], copiers: Sequence[str]) -> None:
    """Until cancelled. `zones.put` and `zones.drop` may be called at any time: the next query is answered by it."""
    answers = Answers(zones, recursive=bool(resolvers))
    listener = Listener([open_sockets(listen, port)], answers, Forwarder(tuple(resolvers), EVERYBODY), Clients(copiers))
    print(f"serving {listen} port {port}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        listener.close()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--listen", default="127.0.0.1", help="address of the interface to serve (default: %(default)s)")
    asked.add_argument("--port", type=int, default=PORT)
    asked.add_argument("--origin", default="lab.internal")
    asked.add_argument("--subnet", action="append", default=[], help="prefix whose addresses have names in reverse")
    asked.add_argument("--resolver", action="append", default=[], help="address that is asked for all else")
    asked.add_argument("--copier", action="append", default=[], help="address or prefix that may copy the zone (AXFR)")
    asked.add_argument("names", nargs="*", metavar="NAME=ADDRESS")
    given = asked.parse_args()
    zones = zones_of(given.origin, given.subnet, given.listen, given.names)
    try:
        asyncio.run(serve(zones, given.listen, given.port, given.resolver, given.copier))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
