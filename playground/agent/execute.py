"""Runs a command in a guest or on the host and carries its streams over a websocket of its own.

Frames are binary, the first byte the channel: see `docs/api.md`. When the websocket goes, the command gets SIGHUP.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from playground import wire
from playground.agent.link import Link
from playground.workspaces.drivers.api import Driver, DriverError, Hypervisor

log = logging.getLogger("agent")

STDIN, STDOUT, STDERR, EXIT, WINDOW, SIGNAL = range(6)
SIGNALS = {name: signal.Signals[f"SIG{name}"] for name in ("INT", "TERM", "HUP", "QUIT")}
CHUNK = 64 * 1024
ABSENT = 127

TOOLS: Mapping[str, str] = {
    "@stream": "stream.py",
    "@prober": "prober.py",
    "@echoes": "echoes.py",
    "@knock": "knock.py",
    "@capture": "capture.py",
}
"""Commands that guests of ours and hosts can run without having them: scripts of this package, by the agent's
interpreter. On a host PLAYGROUND_DATAPLANE is the path of its data plane's network namespace."""


CONSOLE, CONSOLE_LOG = "@console", "@console-log"
"""What a machine has instead of commands: its serial line, and what was said on it."""


def resolve(argv: Sequence[str]) -> list[str]:
    """argv with a leading tool name replaced by the interpreter and the script."""
    script = TOOLS.get(argv[0])
    if script is None:
        return list(argv)
    return [sys.executable, "-I", "-S", str(Path(__file__).parent.parent / "workspaces" / script), *argv[1:]]


async def execute(order: wire.Execute, link: Link, drivers: Mapping[str, Driver]) -> None:
    """Dials back and runs one command to its end."""
    try:
        async with link.dial(f"/v1/agent/exec/{order.id}") as connection:
            try:
                await _run(order, connection, drivers)
            except DriverError as error:
                await connection.send(bytes([EXIT]) + msgspec.json.encode({"error": str(error)}))
            except OSError as error:
                await connection.send(
                    bytes([EXIT]) + msgspec.json.encode({"error": f"{order.argv[0]}: {error.strerror}"})
                )
            except ValueError as error:  # a NUL in a word, which no program can be given
                await connection.send(bytes([EXIT]) + msgspec.json.encode({"error": str(error)}))
    except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as error:
        log.warning("command's connection failed id=%s error=%s", order.id, error)


async def _run(order: wire.Execute, connection: ClientConnection, drivers: Mapping[str, Driver]) -> None:
    if order.argv[0] == CONSOLE:
        driver, guest_id = _machine(order, drivers)
        await _carry_line(connection, await driver.console(guest_id, "--force" in order.argv))
        return
    if order.argv[0] == CONSOLE_LOG:
        driver, guest_id = _machine(order, drivers)
        follow = ["--follow=name", "--retry"] if "--follow" in order.argv else []
        show = ["tail", "--bytes=+1", *follow, "--", str(await driver.said(guest_id))]
        order = msgspec.structs.replace(order, guest=None, argv=show, tty=False)
    argv = resolve(order.argv)
    if order.tty:
        guest = _guest(order, drivers)
        master, slave = await guest[0].terminal(guest[1]) if guest else pty.openpty()
        _resize(master, order.rows, order.cols)
        ours = {"in": master, "out": master}
        theirs = (slave, slave, slave)
    else:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        ours = {"in": in_write, "out": out_read, "err": err_read}
        theirs = (in_read, out_write, err_write)
    try:
        try:
            pid = await _start(order, argv, theirs, drivers)
        finally:
            for fd in set(theirs):
                os.close(fd)
        await _carry(connection, pid, ours)
    finally:
        for fd in set(ours.values()):
            os.close(fd)


def _guest(order: wire.Execute, drivers: Mapping[str, Driver]) -> tuple[Driver, str] | None:
    """The driver and the id of the guest that a command is for, None for the host's own. Raises DriverError."""
    if order.guest is None:
        return None
    driver = drivers.get(order.driver)
    if driver is None:
        raise DriverError(f"this host has no driver {order.driver}")
    return driver, order.guest


def _machine(order: wire.Execute, drivers: Mapping[str, Driver]) -> tuple[Hypervisor, str]:
    found = _guest(order, drivers)
    if found is None or not isinstance(found[0], Hypervisor):
        raise DriverError("it has no serial line: `playground exec` enters it")
    return found[0], found[1]


async def _carry_line(connection: ClientConnection, line: int) -> None:
    """Until either side ends; line: a socket, closed then."""
    said = asyncio.create_task(_output(connection, STDOUT, line))
    typed = asyncio.create_task(_type(connection, line))
    try:
        await asyncio.wait({said, typed}, return_when=asyncio.FIRST_COMPLETED)
        await connection.send(bytes([EXIT]) + msgspec.json.encode({"code": 0}))
    finally:
        for task in (said, typed):
            task.cancel()
        await asyncio.gather(said, typed, return_exceptions=True)
        os.close(line)


async def _type(connection: ClientConnection, line: int) -> None:
    """What comes for a line, until a signal comes, or the connection goes. The end of input ends nothing: more may be
    said."""
    async for frame in connection:
        if not isinstance(frame, bytes) or not frame:
            continue
        if frame[0] == SIGNAL:
            return
        if frame[0] == STDIN and len(frame) > 1:
            await asyncio.to_thread(_write_all, line, frame[1:])


async def _start(order: wire.Execute, argv: list[str], fds: tuple[int, int, int], drivers: Mapping[str, Driver]) -> int:
    if guest := _guest(order, drivers):
        if order.env:
            argv = ["env", *(f"{k}={v}" for k, v in order.env.items()), *argv]
        driver, id = guest
        return (await driver.exec(id, argv, *fds, order.tty)).pid

    def become() -> None:
        os.setsid()
        if order.tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = await asyncio.to_thread(_spawn, argv, fds, order.env, become)
    return process


def _spawn(argv: list[str], fds: tuple[int, int, int], env: Mapping[str, str], become: Callable[[], None]) -> int:
    import subprocess

    process = subprocess.Popen(
        argv, stdin=fds[0], stdout=fds[1], stderr=fds[2], env={**os.environ, **env}, preexec_fn=become, close_fds=True
    )
    process.returncode = 0  # reaped by pidfd below, not by Popen's destructor
    return process.pid


def _resize(fd: int, rows: int, cols: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows or 24, cols or 80, 0, 0))


async def _carry(connection: ClientConnection, pid: int, ours: dict[str, int]) -> None:
    loop = asyncio.get_running_loop()
    outputs = [asyncio.create_task(_output(connection, STDOUT, ours["out"]))]
    if "err" in ours:
        outputs.append(asyncio.create_task(_output(connection, STDERR, ours["err"])))
    is_tty = ours["in"] == ours["out"]
    stdin = asyncio.create_task(_input(connection, pid, ours, is_tty))
    pidfd = os.pidfd_open(pid)
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    try:
        lost = asyncio.create_task(connection.wait_closed())
        await asyncio.wait([ended, lost], return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        if not ended.done():
            for number in (signal.SIGHUP, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    break
                await asyncio.wait([ended], timeout=2)
                if ended.done():
                    break
            os.waitpid(pid, os.WNOHANG)
            return
        _, status = os.waitpid(pid, 0)
        # what it wrote before it ended is still in the pipes; a child that keeps them open is not waited for
        await asyncio.wait(outputs, timeout=1)
        await connection.send(bytes([EXIT]) + msgspec.json.encode({"code": _code(status)}))
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        for task in (*outputs, stdin):
            task.cancel()
        await asyncio.gather(*outputs, stdin, return_exceptions=True)


def _code(status: int) -> int:
    """A shell's exit code: 128 + N for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _output(connection: ClientConnection, channel: int, fd: int) -> None:
    while True:
        await _readable(fd)
        try:
            data = os.read(fd, CHUNK)
        except OSError:  # a pty's master reads EIO once the last slave is closed
            return
        if not data:
            return
        await connection.send(bytes([channel]) + data)


async def _input(connection: ClientConnection, pid: int, ours: dict[str, int], is_tty: bool) -> None:
    """Until the peer ends its input (an empty frame) or the connection goes."""
    async for frame in connection:
        if not isinstance(frame, bytes) or not frame:
            continue
        if frame[0] == WINDOW and is_tty:
            # a peer's nonsense must not end the command's input
            with contextlib.suppress(msgspec.DecodeError, struct.error):
                size = msgspec.json.decode(frame[1:], type=dict[str, int])
                _resize(ours["in"], size.get("rows", 24), size.get("cols", 80))
        elif frame[0] == SIGNAL:
            number = SIGNALS.get(frame[1:].decode("ascii", "replace"))
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        elif frame[0] == STDIN:
            if len(frame) == 1:
                if is_tty:
                    os.write(ours["in"], b"\x04")
                else:
                    # the end of input is a closed pipe; the number stays ours, so that the last close is no stranger's
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, ours["in"])
                    os.close(null)
                continue
            try:
                await asyncio.to_thread(_write_all, ours["in"], frame[1:])
            except BrokenPipeError:
                continue


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
