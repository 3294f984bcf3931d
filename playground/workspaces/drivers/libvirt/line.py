"""Owns one open console: carries bytes between a stream of libvirt's and a socket. Knows no domains.

libvirt's one thread tells of a stream that can be read and must never wait for a reader: one piece is taken at a time,
and the next only once that has been written to the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

log = logging.getLogger("agent")

_PIECE = 16 * 1024

_AGAIN_S = 0.02
"""Before bytes that the stream had no room for are tried again."""

_WOULD_BLOCK = -2
"""What a stream that is not waited for answers, instead of a number of bytes."""


class Line:
    """libvirt: the module. stream: a console that was opened, with VIR_STREAM_NONBLOCK."""

    def __init__(self, libvirt: Any, stream: Any) -> None:
        self._libvirt = libvirt
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[bytes] = asyncio.Queue()
        self._readable = libvirt.VIR_STREAM_EVENT_READABLE
        self._ends = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        self._carried: asyncio.Task[None] | None = None

    def join(self) -> int:
        """Begins to carry; returns the socket's other end. It all ends when either side does."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._stream.eventAddCallback(self._readable | self._ends, self._on_event, None)
        self._carried = asyncio.create_task(self._carry(ours))
        _lines.add(self._carried)
        self._carried.add_done_callback(_lines.discard)
        return theirs.detach()

    async def _carry(self, ours: socket.socket) -> None:
        ways = [asyncio.create_task(self._out(ours)), asyncio.create_task(self._in(ours))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            ours.close()
            await asyncio.to_thread(self._close)

    async def _out(self, ours: socket.socket) -> None:
        with contextlib.suppress(OSError, self._libvirt.libvirtError):
            while piece := await self._came.get():
                await self._loop.sock_sendall(ours, piece)
                await asyncio.to_thread(self._stream.eventUpdateCallback, self._readable | self._ends)

    async def _in(self, ours: socket.socket) -> None:
        with contextlib.suppress(OSError, self._libvirt.libvirtError):
            while piece := await self._loop.sock_recv(ours, _PIECE):
                while piece:
                    sent = await asyncio.to_thread(self._stream.send, piece)
                    if sent == _WOULD_BLOCK:
                        await asyncio.sleep(_AGAIN_S)
                    else:
                        piece = piece[sent:]

    def _close(self) -> None:
        for step in (self._stream.eventRemoveCallback, self._stream.abort):
            with contextlib.suppress(self._libvirt.libvirtError):
                step()

    # in libvirt's thread

    def _on_event(self, stream: Any, events: int, opaque: Any) -> None:
        piece = b""
        if events & self._readable:
            try:
                received = stream.recv(_PIECE)
            except self._libvirt.libvirtError:
                received = b""
            if received == _WOULD_BLOCK:
                return
            piece = received
        try:
            if piece:
                stream.eventUpdateCallback(self._ends)
            else:
                stream.eventRemoveCallback()
        except self._libvirt.libvirtError:
            log.debug("console's stream was gone")
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._came.put_nowait, piece)


_lines: set[asyncio.Task[None]] = set()
"""Those that carry; a task that nobody holds may be collected while it runs."""
