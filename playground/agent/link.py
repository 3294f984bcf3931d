"""The agent's connection: dials a controller, keeps dialling, and hands on what is said. Knows nothing of what it
means."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from playground import wire

log = logging.getLogger("agent")

RETRY_MAX_S = 2.0


class Link:
    """One connection at a time to any of the controllers. `hello` makes the first message of each; `said` gets every
    message, `changed` each connect and loss.

    ca: PEM file of who may have signed their certificates; None is the system's. Raises OSError when it can't be read.
    """

    def __init__(
        self,
        controllers: Sequence[str],
        host: str,
        token: str,
        ca: str | None,
        hello: Callable[[], Awaitable[wire.Hello]],
        said: Callable[[wire.FromController], Awaitable[None]],
        changed: Callable[[bool, str], Awaitable[None]],
    ) -> None:
        self._controllers = list(controllers)
        self._headers = {"Authorization": f"Bearer {token}", "X-Playground-Host": host}
        self._hello = hello
        self._said = said
        self._changed = changed
        self._connection: ClientConnection | None = None
        self._trust = _trust(ca) if any(url.startswith("https:") for url in controllers) else None
        self.controller = self._controllers[0]

    @property
    def _tls(self) -> ssl.SSLContext | None:
        return self._trust if self.controller.startswith("https:") else None

    def _url(self, path: str) -> str:
        scheme, _, rest = self.controller.partition("://")
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest.rstrip('/')}{path}"

    async def run(self) -> None:
        """Keeps a connection for ever; each controller in turn, waiting longer while none answers."""
        wait_s = 0.05
        attempt = 0
        while True:
            self.controller = self._controllers[attempt % len(self._controllers)]
            attempt += 1
            cause = ""
            try:
                async with connect(
                    self._url("/v1/agent"),
                    ssl=self._tls,
                    additional_headers=self._headers,
                    max_size=None,
                    open_timeout=5,
                    ping_interval=2,
                    ping_timeout=6,
                    close_timeout=1,  # of a peer that answers no ping: it will not say goodbye, either
                    compression=None,
                ) as connection:
                    await connection.send(wire.encode(await self._hello()))
                    beating = asyncio.create_task(self._beat(connection))
                    try:
                        async for text in connection:
                            if self._connection is None:  # what was refused after its hello never was connected
                                self._connection, wait_s = connection, 0.05
                                await self._changed(True, "")
                            await self._said(wire.decode_from_controller(text))
                    finally:
                        beating.cancel()
            except (OSError, ConnectionClosed, InvalidHandshake, InvalidURI, TimeoutError) as error:
                cause = f"{self.controller}: {_cause(error)}"
            except msgspec.DecodeError as error:
                cause = f"{self.controller} speaks another version: {error}"
                log.error("message not understood controller=%s error=%s", self.controller, error)
            finally:
                self._connection = None
            await self._changed(False, cause or f"{self.controller} closed the connection")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    async def _beat(self, connection: ClientConnection) -> None:
        while True:
            await asyncio.sleep(wire.BEAT_S)
            await connection.send(wire.encode(wire.Beat()))

    async def say(self, message: wire.FromAgent) -> bool:
        """Sends a message; false when there is no connection (whoever says it says it again after the next)."""
        if self._connection is None:
            return False
        try:
            await self._connection.send(wire.encode(message))
        except ConnectionClosed:
            return False
        return True

    async def again(self) -> None:
        """Says hello anew, by a new connection: what it said is not so any more."""
        if self._connection is not None:
            await self._connection.close()

    def dial(self, path: str) -> connect:
        """A second connection to the same controller (the streams of a command). Without pings: whoever reads the
        streams may take its time."""
        return connect(
            self._url(path),
            ssl=self._tls,
            additional_headers=self._headers,
            max_size=None,
            open_timeout=5,
            compression=None,
            ping_interval=None,
        )


def _trust(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise OSError(f"{ca}: no certificates can be read there: {error.strerror}") from error


def _cause(error: Exception) -> str:
    """What the other end said, where it said something; else the error."""
    if isinstance(error, InvalidStatus):
        try:
            return f"refused: {json.loads(error.response.body or b'')['error']}"
        except (ValueError, KeyError, TypeError):
            return f"what answers there is no controller: {error}"
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code >= 4000:
        return f"refused: {error.rcvd.reason}"
    return str(error) or type(error).__name__
