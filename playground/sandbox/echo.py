r"""Says back what it is told, by TCP and UDP, on a few ports of its addresses. Knows no sandbox.

A plain script, standard library only: `python -I -S echo.py ADDRESS…`. A datagram that begins with `size N\n` is
answered with one of N bytes, so that a path's MTU can be tried from the other end.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

PORTS = (7, 22, 53, 80, 443, 8080)
MAX_DATAGRAM = 65507

_SIZE = re.compile(rb"size (\d{1,5})\n")


def answer(channel: socket.socket) -> None:
    """One datagram. What does not fit is lost, and the kernel knows the path's MTU from then on (RFC 1191)."""
    with suppress(OSError):
        data, sender = channel.recvfrom(MAX_DATAGRAM)
        wanted = _SIZE.match(data)
        channel.sendto(data.ljust(min(int(wanted[1]), MAX_DATAGRAM), b".") if wanted else data, sender)


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
            channel.setblocking(False)
            channel.bind((address, port))
            loop.add_reader(channel, answer, channel)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
