r"""Says back what it is told, by TCP and UDP, on a few ports of its addresses. Knows no sandbox.

A plain script, standard library only: `python -I -S echo.py ADDRESS…`. A datagram that begins with `size N\n` is
answered with one of N bytes that may not be fragmented, so that a path's MTU can be tried from the other end.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import Sequence

PORTS = (7, 22, 53, 80, 443, 8080)
MAX_DATAGRAM = 65507

_SIZE = re.compile(rb"size (\d{1,5})\n")
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _DO = 10, 23, 2  # linux/in.h, linux/in6.h


class Echo(asyncio.DatagramProtocol):
    """One UDP socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        wanted = _SIZE.match(data)
        answer = data.ljust(min(int(wanted[1]), MAX_DATAGRAM), b".") if wanted else data
        self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        """One that did not fit; the kernel knows the path's MTU from now on, and whoever asked asks again."""


async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One TCP connection."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


async def serve(addresses: Sequence[str]) -> None:
    """For ever. An answer leaves from the address that was asked: each has a socket of its own."""
    loop = asyncio.get_running_loop()
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in PORTS:
            await asyncio.start_server(stream, address, port, family=family)
            channel = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                channel.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _DO)
            else:
                channel.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO)
            channel.setblocking(False)
            channel.bind((address, port))
            await loop.create_datagram_endpoint(Echo, sock=channel)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
