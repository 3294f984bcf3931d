"""A command that runs in a workspace or on a host, over the exec channel of `docs/api.md`. Knows no terminals."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playground.cli.failure import Failure
from playground.cli.websocket import BINARY, TEXT, Closed, WebSocket
from playground.client import Client

STDIN, STDOUT, STDERR, EXIT, WINDOW = range(5)


@dataclass(frozen=True, slots=True)
class Order:
    """What to run and where: workspace (NAME or PLAYGROUND/NAME) or host, one of them. rows, cols: of a tty."""

    argv: Sequence[str]
    workspace: str | None = None
    host: str | None = None
    tty: bool = False
    rows: int = 24
    cols: int = 80
    env: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The channel's first message."""
        body: dict[str, Any] = {
            "argv": list(self.argv),
            "tty": self.tty,
            "rows": self.rows,
            "cols": self.cols,
            "env": dict(self.env),
        }
        body |= {"workspace": self.workspace} if self.workspace is not None else {"host": self.host}
        return json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended: its exit code (128 + N for a signal) and all it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


class Command:
    """One command under way. `fileno` may be polled; output and the end come from `read`, as frames."""

    def __init__(self, client: Client, order: Order) -> None:
        """Raises Unreachable and Refused."""
        self.socket = WebSocket.open(client, "exec")
        self.code: int | None = None
        """The exit code, once it has ended."""
        self.socket.send(TEXT, order.encode())
        self.socket.flush()

    def write(self, data: bytes) -> None:
        """Queues input; nothing for no bytes (an empty frame would be the end)."""
        if data:
            self._say(STDIN, data)

    def end_input(self) -> None:
        """The command's input ends here."""
        self._say(STDIN, b"")

    def resize(self, rows: int, cols: int) -> None:
        """The terminal has another size now."""
        self._say(WINDOW, json.dumps({"rows": rows, "cols": cols}).encode())

    def read(self) -> list[tuple[int, bytes]]:
        """What it has written (STDOUT or STDERR, bytes) and can be read now; sets `code` at its end.

        Raises Failure when it could not be started or the connection was lost before its end.
        """
        if self.code is not None:
            return []
        try:
            messages = self.socket.receive()
            self.socket.flush()
        except Closed as error:
            raise Failure(f"the connection to the command was lost before it ended: {error}") from error
        output = []
        for _, message in messages:
            channel, payload = message[0] if message else -1, message[1:]
            if channel in (STDOUT, STDERR):
                output.append((channel, payload))
            elif channel == EXIT:
                ended = json.loads(payload)
                if "error" in ended:
                    raise Failure(str(ended["error"]))
                self.code = int(ended["code"])
        return output

    def finish(self, timeout: float) -> Finished:
        """Waits for its end, at most `timeout` seconds. Raises Failure."""
        collected = {STDOUT: bytearray(), STDERR: bytearray()}
        deadline = time.monotonic() + timeout
        poll = select.poll()
        while True:
            for channel, data in self.read():
                collected[channel] += data
            if self.code is not None:
                return Finished(self.code, bytes(collected[STDOUT]), bytes(collected[STDERR]))
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failure(f"a command did not end within {timeout:.0f} s")
            poll.register(self.socket, select.POLLIN | (select.POLLOUT if self.socket.queued else 0))
            poll.poll(left * 1000)

    def close(self) -> None:
        """Ends the channel; a command that still runs is hung up on."""
        self.socket.close()

    def _say(self, channel: int, payload: bytes) -> None:
        self.socket.send(BINARY, bytes([channel]) + payload)
        try:
            self.socket.flush()
        except Closed:
            # It has ended and closed: why, `read` finds in what it sent before.
            return


def run(client: Client, order: Order, stdin: bytes = b"", timeout: float = 30.0) -> Finished:
    """Runs a command to its end. Raises Unreachable, Refused, Failure."""
    command = Command(client, order)
    try:
        command.write(stdin)
        command.end_input()
        return command.finish(timeout)
    finally:
        command.close()
