"""`exec` against an independent websocket: bytes both ways, exit codes, errors, and frames of every size."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_lab import Play
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, unix_serve

from playground.cli.remote import EXIT, SIGNAL, STDERR, STDIN, STDOUT, WINDOW

ROOT = Path(__file__).resolve().parents[2]

Serve = Callable[[Callable[[ServerConnection, dict[str, Any]], None]], None]


def exits(code: int) -> bytes:
    return bytes([EXIT]) + json.dumps({"code": code}).encode()


@pytest.fixture
def serve(run_dir: Path) -> Iterator[Serve]:
    """Starts a controller's exec end: a function of the connection and the first message."""
    path = run_dir / "local" / "controller.sock"
    path.parent.mkdir(parents=True)
    running: list[tuple[Any, threading.Thread]] = []

    def start(handle: Callable[[ServerConnection, dict[str, Any]], None]) -> None:
        server = unix_serve(lambda connection: handle(connection, json.loads(connection.recv())), str(path))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()


def echo(connection: ServerConnection, order: dict[str, Any]) -> None:
    """Like `cat`: input comes back, its end ends it."""
    while (message := connection.recv()) != bytes([STDIN]):
        assert isinstance(message, bytes)
        connection.send(bytes([STDOUT]) + message[1:])
    connection.send(exits(0))


def playground(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-m", "playground", *words], cwd=ROOT, **pipes)


def test_bytes_pass_unchanged_and_the_exit_code_is_the_commands(serve: Serve) -> None:
    orders = []

    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        orders.append(order)
        connection.send(bytes([STDERR]) + b"warning\n")
        echo(connection, order)

    serve(handle)
    data = os.urandom(1_500_000) + b"\r\n\x04\x03"
    process = playground("exec", "head", "--", "cat", "-")
    out, err = process.communicate(data, timeout=20)
    assert (process.returncode, err) == (0, b"warning\n")
    assert out == data
    assert orders == [
        {"workspace": "head", "argv": ["cat", "-"], "tty": False, "rows": 24, "cols": 80, "env": {}},
    ]


def test_the_exit_code_is_returned_whatever_it_is(serve: Serve, play: Play) -> None:
    serve(lambda connection, order: connection.send(exits(int(order["argv"][0]))))
    assert [play("exec", "--host", "n1", "--", str(code)).code for code in (0, 1, 3, 143)] == [0, 1, 3, 143]


def test_a_command_that_did_not_start_is_a_refusal(serve: Serve, play: Play) -> None:
    said = {"error": "no workspace tail; workspaces are head"}
    serve(lambda connection, order: connection.send(bytes([EXIT]) + json.dumps(said).encode()))
    ran = play("exec", "tail", "--", "ls")
    assert (ran.code, ran.err) == (1, "playground: no workspace tail; workspaces are head\n")


@pytest.mark.parametrize("words", [("some output",), ()])
def test_a_connection_lost_before_the_end_is_not_success(words: tuple[str, ...], serve: Serve, play: Play) -> None:
    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        for word in words:
            connection.send(bytes([STDOUT]) + word.encode())
        connection.close(1011, "the agent went away")

    serve(handle)
    ran = play("exec", "head", "--", "ls")
    assert ran.code == 1
    assert "lost before it ended: the agent went away" in ran.err


def test_without_a_controller_exec_says_so(play: Play) -> None:
    ran = play("exec", "head", "--", "ls")
    assert ran.code == 1
    assert "no controller answers" in ran.err


def test_a_reader_that_leaves_early_ends_it(serve: Serve) -> None:
    gone = threading.Event()

    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        try:
            while True:
                connection.send(bytes([STDOUT]) + b"y\n" * 1000)
        finally:
            gone.set()

    serve(handle)
    process = playground("exec", "head", "--", "yes", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(10) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert gone.wait(10)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, b"INT"), (signal.SIGTERM, b"TERM")])
def test_signals_are_the_commands(number: signal.Signals, name: bytes, serve: Serve) -> None:
    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        connection.send(bytes([STDOUT]) + b"ready")
        while (message := connection.recv())[0] != SIGNAL:
            continue
        connection.send(bytes([STDOUT]) + message[1:])
        connection.send(exits(130))

    serve(handle)
    process = playground("exec", "head", "--", "sleep", "9")
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, name)


def test_a_terminal_is_a_terminal_inside_and_itself_again_after(serve: Serve) -> None:
    sizes = []

    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        assert order["tty"]
        assert order["env"] == {"TERM": "xterm-test"}
        sizes.append((order["rows"], order["cols"]))
        connection.send(bytes([STDOUT]) + b"$ ")
        typed = b""
        while b"\x03" not in typed:
            message = connection.recv()
            assert isinstance(message, bytes)
            if message[0] == WINDOW:
                size = json.loads(message[1:])
                sizes.append((size["rows"], size["cols"]))
            elif message[0] == STDIN:
                typed += message[1:]
        connection.send(bytes([STDOUT]) + b"typed " + typed)
        connection.send(exits(5))

    serve(handle)
    master, slave = pty.openpty()
    resize(master, 33, 99)
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "playground", "exec", "head", "--", "sh"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-test"},
    )
    os.write(master, b"ahead\r")  # before the terminal is made raw
    seen = read_until(master, b"$ ")
    resize(master, 40, 120)
    deadline = time.monotonic() + 10
    while len(sizes) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.write(master, b"a\r\x03")
    assert process.wait(10) == 5
    seen += read_until(master, b"\x03")
    assert b"typed ahead\na\r\x03" in seen
    assert sizes == [(33, 99), (40, 120)]
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def resize(fd: int, rows: int, cols: int) -> None:
    """Gives a pty another size, as a terminal's window does."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def read_until(fd: int, end: bytes) -> bytes:
    """What a pty says up to and with `end`."""
    seen = b""
    deadline = time.monotonic() + 15
    while end not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([fd], [], [], 0.1)[0]:
            seen += os.read(fd, 4096)
    return seen


def test_a_console_carries_keys_until_the_one_that_leaves(serve: Serve) -> None:
    orders = []

    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        orders.append(order["argv"])
        with contextlib.suppress(ConnectionClosed):
            echo(connection, order)

    serve(handle)
    process = playground("console", "web", "--force")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"root\r\x03")
    process.stdin.flush()
    assert process.stdout.read(6) == b"root\r\x03"
    out, err = process.communicate(b"\x1dreboot\r", timeout=20)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert orders == [["@console", "--force"]]


@pytest.mark.parametrize(
    ("words", "argv"), [(["--log"], ["@console-log"]), (["--log", "--follow"], ["@console-log", "--follow"])]
)
def test_what_was_said_on_a_console_is_shown(words: list[str], argv: list[str], serve: Serve) -> None:
    def handle(connection: ServerConnection, order: dict[str, Any]) -> None:
        connection.send(bytes([STDOUT]) + json.dumps(order["argv"]).encode())
        connection.send(exits(0))

    serve(handle)
    process = playground("console", "web", *words, stdin=subprocess.DEVNULL)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, json.loads(out)) == (0, argv)


@pytest.mark.parametrize("words", [["--log", "--force"], ["--follow"]])
def test_what_does_not_go_together_at_a_console_is_a_usage_error(words: list[str], play: Play) -> None:
    assert play("console", "web", *words).code == 2
