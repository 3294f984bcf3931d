"""Serves the application on one socket, Unix or TCP; leaves signals to whoever composed it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from playground.api.app import LOCAL

HEAD_S = 10.0
"""How long a TCP peer may take to send the head of its first request. Whoever holds connections open without one would
else use up the descriptors, and with them everybody's way in."""

SILENT = 256
"""TCP connections without a first request at a time; beyond, the oldest goes."""

LOOK_S = 0.5


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Serving:
    """One listening socket. What comes in by a Unix one is marked as local."""

    def __init__(self, app: FastAPI, sock: socket.socket, cert: Path | None = None, key: Path | None = None) -> None:
        self._sock = sock
        is_local = sock.family == socket.AF_UNIX

        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, LOCAL: is_local}, receive, send)

        self._server = _Server(
            uvicorn.Config(
                marked,
                proxy_headers=False,  # who a peer is must not be for the peer to say
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="websockets-sansio",
                ws_ping_interval=None,  # agents beat; who reads a command's streams may take its time
                ws_max_size=1 << 30,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
                ssl_certfile=cert,
                ssl_keyfile=key,
            )
        )

    async def run(self) -> None:
        """Serves until `end`."""
        looking = asyncio.create_task(self._hang_up_on_the_silent()) if self._sock.family != socket.AF_UNIX else None
        try:
            await self._server.serve(sockets=[self._sock])
        finally:
            if looking is not None:
                looking.cancel()

    async def _hang_up_on_the_silent(self) -> None:
        since_s: dict[Any, float] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = asyncio.get_running_loop().time()
            # a connection's `cycle` is its current or last request; what has become a websocket has none
            silent = [c for c in self._server.server_state.connections if getattr(c, "cycle", self) is None]
            since_s = {connection: since_s.get(connection, now_s) for connection in silent}
            oldest_first = sorted(since_s, key=since_s.__getitem__)
            for number, connection in enumerate(oldest_first):
                if now_s - since_s[connection] >= HEAD_S or len(oldest_first) - number > SILENT:
                    connection.transport.abort()

    def end(self) -> None:
        """Stops serving; open connections get a second."""
        self._server.should_exit = True
        self._server.force_exit = True


def unix_socket(path: Path) -> socket.socket:
    """A socket that only its owner may open. A file that an earlier controller left is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(mask)
    return sock


def tcp_socket(listen: str) -> socket.socket:
    """A socket on HOST:PORT or [HOST]:PORT. Raises OSError, ValueError."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # What accept(2) returns inherits it. asyncio sets it only where the socket was made with the protocol's number, and
    # without it the second of two small messages waits 40 ms for the delayed acknowledgement of the first.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((host, int(port)))
    return sock
