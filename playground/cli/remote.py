"""A command that runs in a workspace or on a host, over the exec channel of `docs/api.md`. Knows no terminals."""

from __future__ import annotations

import contextlib
import json
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playground.cli.failure import Failure
from playground.cli.websocket import BINARY, TEXT, Closed, WebSocket
from playground.client import Client

STDIN, STDOUT, STDERR, EXIT, WINDOW, SIGNAL = range(6)

_LOOK_S = 0.05


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
        self.stdout = bytearray()
        self.stderr = bytearray()
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

    def signal(self, name: str) -> None:
        """Sends it a signal: INT, TERM, HUP or QUIT."""
        self._say(SIGNAL, name.encode())

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

    def collect(self) -> None:
        """Like `read`, into `stdout` and `stderr`."""
        for channel, data in self.read():
            (self.stdout if channel == STDOUT else self.stderr).extend(data)

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


def attend(commands: Sequence[Command], enough: Callable[[], bool], timeout: float) -> bool:
    """Collects from all of them until `enough`, asked after each arrival and every `_LOOK_S`; False after `timeout`.

    All at once, as a connection that is not looked after is given up by its other end. Raises Failure.
    """
    deadline = time.monotonic() + timeout
    while True:
        for command in commands:
            command.collect()
        if enough():
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        poll = select.poll()
        for command in commands:
            if command.code is None:
                poll.register(command.socket, select.POLLIN | (select.POLLOUT if command.socket.queued else 0))
        poll.poll(min(left, _LOOK_S) * 1000)


def run(client: Client, order: Order, stdin: bytes = b"", timeout: float = 30.0) -> Finished:
    """Runs a command to its end. Raises Unreachable, Refused, Failure."""
    with contextlib.closing(Command(client, order)) as command:
        command.write(stdin)
        command.end_input()
        if not attend([command], lambda: command.code is not None, timeout):
            raise Failure(f"{order.argv[0]} did not end within {timeout:g} s")
        return Finished(command.code or 0, bytes(command.stdout), bytes(command.stderr))
