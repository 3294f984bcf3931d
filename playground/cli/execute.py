"""`exec`: joins this terminal, or these pipes, to a command in a workspace or on a host. Changes no byte."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

from playground.cli import site
from playground.cli.failure import UsageFailure
from playground.cli.remote import STDERR, STDOUT, Command, Order

_CHUNK = 64 * 1024
_PIPE = select.PIPE_BUF
"""What a descriptor that polls writable takes without blocking (pipe(7))."""

_MUCH_INPUT = 256 * 1024
"""Input waiting for the network: more is not read."""

_MUCH_OUTPUT = 64 << 20
"""Output waiting for a slow reader. Large, as while no more is read the connection's pings go unanswered."""


_PASSED = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP", signal.SIGQUIT: "QUIT"}


def execute(args: argparse.Namespace) -> int:
    """The exit code of the command itself."""
    if (args.workspace is None) == (args.host is None):
        raise UsageFailure("name a workspace or --host HOST, one of them: playground exec WORKSPACE -- CMD…")
    if not args.rest:
        raise UsageFailure("no command was given; it comes after `--`: playground exec WORKSPACE -- CMD…")
    # A terminal on both sides: with a pipe on either, a tty would change bytes (line ends, echo, stderr among stdout).
    tty = os.isatty(0) and os.isatty(1)
    rows, cols = _size() if tty else (24, 80)
    env = {"TERM": os.environ["TERM"]} if tty and "TERM" in os.environ else {}
    order = Order(args.rest, args.workspace, args.host, tty, rows, cols, env)
    command = Command(site.client_of(args), order)
    sys.stdout.flush()
    try:
        with raw_terminal() if tty else contextlib.nullcontext(), signals_for(tty) as signals:
            return join(command, 0, 1, 2, signals)
    finally:
        command.close()


def join(command: Command, stdin: int, stdout: int, stderr: int, signals: int | None = None) -> int:
    """Carries bytes until the command has ended and its output is written; returns its exit code.

    signals: a descriptor that gives the numbers of signals that came (`signal.set_wakeup_fd`): they are the command's,
    but for a second interrupt (KeyboardInterrupt). A reader of ours that has gone ends it all (BrokenPipeError).
    """
    pending = {stdout: bytearray(), stderr: bytearray()}
    targets = {STDOUT: stdout, STDERR: stderr}
    interrupts = 0
    reads_input = _is_open(stdin)
    if not reads_input:
        command.end_input()
    while True:
        for channel, data in command.read():
            pending[targets[channel]] += data
        waiting = sum(map(len, pending.values()))
        if command.code is not None and not waiting:
            return command.code
        poll = select.poll()
        if command.code is None:
            wanted = select.POLLIN if waiting < _MUCH_OUTPUT else 0
            poll.register(command.socket, wanted | (select.POLLOUT if command.socket.queued else 0))
            if reads_input and command.socket.queued < _MUCH_INPUT:
                poll.register(stdin, select.POLLIN)
            if signals is not None:
                poll.register(signals, select.POLLIN)
        for target, unwritten in pending.items():
            if unwritten:
                poll.register(target, select.POLLOUT)
        for fd, events in poll.poll():
            if fd in pending and pending[fd] and fd != stdin:
                _write(fd, pending[fd], events)
            elif fd == stdin:
                reads_input = _carry_input(command, stdin)
            elif fd == signals:
                for number in os.read(fd, 512):
                    interrupts += number == signal.SIGINT
                    _pass_on(command, number)
                if interrupts > 1:
                    raise KeyboardInterrupt


def _pass_on(command: Command, number: int) -> None:
    if number == signal.SIGWINCH:
        command.resize(*_size())
    else:
        command.signal(_PASSED[signal.Signals(number)])


def _carry_input(command: Command, stdin: int) -> bool:
    """One read of our input; whether there may be more."""
    try:
        data = os.read(stdin, _CHUNK)
    except OSError:  # the terminal has gone
        data = b""
    if data:
        command.write(data)
    else:
        command.end_input()
    return bool(data)


def _write(fd: int, data: bytearray, events: int) -> None:
    if events & (select.POLLERR | select.POLLNVAL) and not events & select.POLLOUT:
        raise BrokenPipeError
    del data[: os.write(fd, data[:_PIPE])]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _size() -> tuple[int, int]:
    """Rows and columns of this terminal."""
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return 24, 80
    return size.lines, size.columns


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Keys go through as they are (Ctrl-C too: it is the command's); the terminal is itself again at the end."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is the command's
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def signals_for(tty: bool) -> Iterator[int]:
    """A descriptor that gives the numbers of the signals that are the command's, as they come."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = [*_PASSED, *([signal.SIGWINCH] if tty else [])]
    handlers = {number: signal.signal(number, lambda number, frame: None) for number in numbers}
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
