"""A websocket's client end over a plain socket, for a caller that polls. Knows nothing of what messages mean.

The protocol is the `websockets` library's, without its input and output: those of the library want a thread or an event
loop beside the caller's poll.
"""

from __future__ import annotations

import contextlib
import socket
from ssl import SSLWantReadError, SSLWantWriteError

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN
from websockets.uri import parse_uri

from playground.client import Client, Refused, Unreachable, cause_of, dial

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY

_CHUNK = 256 * 1024

_NOT_NOW = (BlockingIOError, InterruptedError, SSLWantReadError, SSLWantWriteError)


class Closed(Exception):
    """The other end has closed the connection, or broke the protocol. code: RFC 6455 §7.4.1; 1006 is no frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason or f"the connection was closed ({code})")
        self.code = code


class WebSocket:
    """An open connection. Never blocks: `send` queues, `flush` and `receive` do what the socket allows now."""

    def __init__(self, sock: socket.socket, protocol: ClientProtocol) -> None:
        self._sock = sock
        self._protocol = protocol
        self._out = bytearray()
        self._parts: list[bytes] = []
        self._part_kind = BINARY
        self._end: Closed | None = None
        sock.setblocking(False)

    @classmethod
    def open(cls, client: Client, path: str) -> WebSocket:
        """Dials `/v1/PATH` of a controller. Raises Unreachable and Refused."""
        protocol = ClientProtocol(parse_uri(f"ws://localhost/v1/{path}"), max_size=None)
        request = protocol.connect()
        for name, value in client.headers.items():
            request.headers[name] = value
        protocol.send_request(request)
        try:
            sock = dial(client.address, client.timeout)
        except OSError as error:
            raise Unreachable(client.address, cause_of(error)) from error
        try:
            sock.sendall(b"".join(protocol.data_to_send()))
            while protocol.state is CONNECTING and protocol.handshake_exc is None:
                _feed(protocol, sock.recv(_CHUNK))
        except OSError as error:
            sock.close()
            raise Unreachable(client.address, cause_of(error)) from error
        if protocol.handshake_exc is not None:
            sock.close()
            raise _explained(client, protocol.handshake_exc) from protocol.handshake_exc
        return cls(sock, protocol)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def queued(self) -> int:
        """Bytes that `flush` has yet to write."""
        return len(self._out)

    def send(self, kind: Opcode, payload: bytes) -> None:
        """Queues one message; nothing once the connection is closing."""
        if self._protocol.state is not OPEN:
            return
        if kind is TEXT:
            self._protocol.send_text(payload)
        else:
            self._protocol.send_binary(payload)
        self._queue()

    def flush(self) -> None:
        """Writes what the socket takes now. Raises Closed."""
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except _NOT_NOW:
                return
            except OSError as error:
                raise Closed(1006, f"the connection broke ({cause_of(error)})") from error
            del self._out[:sent]

    def receive(self) -> list[tuple[Opcode, bytes]]:
        """The messages (kind, payload) that have arrived whole. Answers pings. Raises Closed once there is no more."""
        if self._end is None:
            self._read()
        messages: list[tuple[Opcode, bytes]] = []
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                continue
            self._take(event, messages)
        if self._end is not None:
            if not messages:
                raise self._end
            # What came before the end is handed over first; a poll must still wake for the end itself.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RD)
        return messages

    def _take(self, frame: object, messages: list[tuple[Opcode, bytes]]) -> None:
        if not isinstance(frame, Frame) or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._part_kind = frame.opcode
        self._parts.append(bytes(frame.data))
        if frame.fin:
            messages.append((self._part_kind, b"".join(self._parts)))
            self._parts.clear()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except _NOT_NOW:
            return
        except OSError as error:
            raise Closed(1006, f"the connection broke ({cause_of(error)})") from error
        _feed(self._protocol, data)
        self._queue()
        if not data or self._protocol.close_expected():
            received = self._protocol.close_rcvd
            self._end = Closed(received.code, received.reason) if received else Closed(1006, "it ended without a word")

    def _queue(self) -> None:
        self._out += b"".join(self._protocol.data_to_send())

    def close(self) -> None:
        """Says goodbye as far as the socket allows, and closes."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)
            self._queue()
        try:
            self.flush()
        except Closed:
            self._out.clear()
        self._sock.close()


def _feed(protocol: ClientProtocol, data: bytes) -> None:
    if data:
        protocol.receive_data(data)
    else:
        protocol.receive_eof()


def _explained(client: Client, error: Exception) -> Exception:
    """What a failed handshake means for a person."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return Refused(status, "the controller wants a token: --token-file FILE, or PLAYGROUND_TOKEN")
        return Refused(status, f"the controller opens no channel for commands (HTTP status {status})")
    if isinstance(error, InvalidHandshake):
        return Unreachable(client.address, "what answers there speaks no websocket")
    return Unreachable(client.address, "it hung up on the handshake")
