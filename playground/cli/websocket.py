"""A websocket's client end over a plain socket (RFC 6455), for a caller that polls. Knows not what messages mean.

Written out because a command's start-up counts: the library that the daemons use takes longer to import than
`playground exec` takes to run, and needs threads or an event loop beside the caller's poll.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import socket
import struct

from playground.client import Client, Refused, Unreachable, dial

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

_CONTINUATION = 0x0
_FINAL, _MASKED = 0x80, 0x80
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LARGEST_HEAD = 64 * 1024
_CHUNK = 256 * 1024


class Closed(Exception):
    """The other end has closed the connection, or broke the protocol. code: RFC 6455 §7.4.1; 1006 is no frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason or f"the connection was closed ({code})")
        self.code = code


class WebSocket:
    """An open connection. Never blocks: `send` queues, `flush` and `receive` do what the socket allows now."""

    def __init__(self, sock: socket.socket, early: bytes = b"") -> None:
        self._sock = sock
        self._in = bytearray(early)
        self._out = bytearray()
        self._parts: list[bytes] = []
        self._part_kind = BINARY
        self._end: Closed | None = None
        sock.setblocking(False)

    @classmethod
    def open(cls, client: Client, path: str) -> WebSocket:
        """Dials `/v1/PATH` of a controller. Raises Unreachable and Refused."""
        key = base64.b64encode(secrets.token_bytes(16))
        headers = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Version": "13",
            **client.headers,
        }
        head = f"GET /v1/{path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            sock = dial(client.address, client.timeout)
        except OSError as error:
            raise Unreachable(client.address, (error.strerror or str(error)).lower()) from error
        try:
            sock.sendall(head.encode() + b"\r\n")
            answer, early = _read_head(sock)
            _check_upgrade(client, answer, key)
        except OSError as error:
            sock.close()
            raise Unreachable(client.address, (error.strerror or str(error)).lower()) from error
        except BaseException:
            sock.close()
            raise
        return cls(sock, early)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def queued(self) -> int:
        """Bytes that `flush` has yet to write."""
        return len(self._out)

    def send(self, kind: int, payload: bytes) -> None:
        """Queues one message."""
        self._out += frame(kind, payload)

    def flush(self) -> None:
        """Writes what the socket takes now. Raises Closed."""
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise Closed(1006, f"the connection broke ({(error.strerror or str(error)).lower()})") from error
            del self._out[:sent]

    def receive(self) -> list[tuple[int, bytes]]:
        """The messages (kind, payload) that have arrived whole. Answers pings. Raises Closed once there is no more."""
        if self._end is None:
            self._read()
        messages: list[tuple[int, bytes]] = []
        while (parsed := parse(self._in)) is not None:
            final, kind, payload = parsed
            if kind == PING:
                self.send(PONG, payload)
            elif kind == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                self._end = Closed(code, payload[2:].decode(errors="replace"))
                self._in.clear()
            elif kind in (TEXT, BINARY, _CONTINUATION):
                if kind != _CONTINUATION:
                    self._part_kind = kind
                self._parts.append(payload)
                if final:
                    messages.append((self._part_kind, b"".join(self._parts)))
                    self._parts.clear()
        if self._end is not None:
            if not messages:
                raise self._end
            # What came before the end is handed over first; a poll must still wake for the end itself.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RD)
        return messages

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise Closed(1006, f"the connection broke ({(error.strerror or str(error)).lower()})") from error
        self._in += data
        if not data:
            self._end = Closed(1006, "it ended without a word")

    def close(self) -> None:
        """Says goodbye as far as the socket allows, and closes."""
        self.send(CLOSE, struct.pack("!H", 1000))
        try:
            self.flush()
        except Closed:
            self._out.clear()
        self._sock.close()


def frame(kind: int, payload: bytes) -> bytes:
    """One whole message as a masked frame (RFC 6455 §5.2, §5.3: a client always masks, with a fresh key)."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FINAL | kind, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FINAL | kind, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _FINAL | kind, _MASKED | 127, size)
    mask = os.urandom(4)
    return head + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """payload XOR the repeated mask; its own inverse."""
    size = len(payload)
    stream = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def parse(buffer: bytearray) -> tuple[bool, int, bytes] | None:
    """Takes the first whole frame (final, kind, payload) off the buffer; None while there is none."""
    if len(buffer) < 2:
        return None
    final, kind = bool(buffer[0] & _FINAL), buffer[0] & 0x0F
    is_masked, size, at = bool(buffer[1] & _MASKED), buffer[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        at += width
        if len(buffer) < at:
            return None
        size = int.from_bytes(buffer[2:at], "big")
    mask = b""
    if is_masked:
        mask = bytes(buffer[at : at + 4])
        at += 4
    if len(buffer) < at + size:
        return None
    payload = bytes(buffer[at : at + size])
    del buffer[: at + size]
    return final, kind, masked(payload, mask) if is_masked else payload


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The answer's head, and what came after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(4096)
        if not more or len(data) > _LARGEST_HEAD:
            raise ConnectionError("it hung up on the handshake")
        data += more
    head, _, early = data.partition(b"\r\n\r\n")
    return head, early


def _check_upgrade(client: Client, head: bytes, key: bytes) -> None:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = status_line.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise Unreachable(client.address, "what answers there speaks no HTTP")
    status = int(words[1])
    if status in (401, 403):
        raise Refused(status, "the controller wants a token: --token-file FILE, or PLAYGROUND_TOKEN")
    if status != 101:
        raise Refused(status, f"the controller opens no channel for commands (HTTP status {status})")
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    if headers.get("sec-websocket-accept") != accept:
        raise Unreachable(client.address, "what answers there speaks no websocket")
