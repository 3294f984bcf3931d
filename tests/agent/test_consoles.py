"""A machine's serial line over the stream of commands, and what was said on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from websockets.asyncio.client import ClientConnection

from playground import wire
from playground.agent.execute import EXIT, SIGNAL, STDIN, STDOUT, _run
from playground.machine import PLAIN
from playground.workspaces.drivers.api import Driver, DriverError, Guest
from playground.workspaces.drivers.memory import Machine, MemoryDriver
from playground.workspaces.drivers.memory_hypervisor import Fabric, MemoryHypervisor

GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", (), 1, 96, PLAIN)


class Stream:
    """The agent's end of a connection; `typed` is what comes by it."""

    def __init__(self) -> None:
        self.typed: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent: list[bytes] = []
        self.is_closed = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (frame := await self.typed.get()) is not None:
            yield frame

    async def wait_closed(self) -> None:
        await self.is_closed.wait()

    @property
    def said(self) -> bytes:
        return b"".join(frame[1:] for frame in self.sent if frame[0] == STDOUT)

    @property
    def code(self) -> int | None:
        ends = [json.loads(frame[1:])["code"] for frame in self.sent if frame[0] == EXIT]
        return ends[-1] if ends else None


class Telling(MemoryHypervisor):
    """A hypervisor that keeps what its machines say."""

    file = Path()

    async def said(self, guest_id: str) -> Path:
        return self.file


def begun(
    stream: Stream, drivers: dict[str, Driver], argv: Sequence[str], driver: str = "libvirt"
) -> asyncio.Task[None]:
    order = wire.Execute("1", GUEST.id, driver, list(argv), False, 24, 80, {})
    return asyncio.create_task(_run(order, cast(ClientConnection, stream), drivers))


async def until(look: object) -> None:
    assert callable(look)
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.005)


def test_a_line_carries_both_ways_until_either_side_ends() -> None:
    async def work() -> None:
        fabric = Fabric()
        hypervisor = MemoryHypervisor("n1", fabric)
        await hypervisor.prepare(GUEST)
        for end in ("machine", "signal"):
            stream = Stream()
            task = begun(stream, {"libvirt": hypervisor}, ["@console"])
            await until(lambda: GUEST.id in fabric.lines and fabric.lines[GUEST.id].fileno() >= 0)
            far = fabric.lines[GUEST.id]
            far.setblocking(False)
            far.send(b"login: ")
            await until(lambda stream=stream: stream.said == b"login: ")
            await stream.typed.put(bytes([STDIN]))
            await stream.typed.put(bytes([STDIN]) + b"root\r")
            assert await asyncio.get_running_loop().sock_recv(far, 99) == b"root\r"
            if end == "machine":
                far.close()
            else:
                await stream.typed.put(bytes([SIGNAL]) + b"INT")
            await asyncio.wait_for(task, 10)
            assert stream.code == 0
            fabric.lines.pop(GUEST.id).close()

    asyncio.run(work())


def test_one_has_a_line_at_a_time_until_another_takes_it_by_force() -> None:
    async def work() -> None:
        fabric = Fabric()
        hypervisor = MemoryHypervisor("n1", fabric)
        await hypervisor.prepare(GUEST)
        first, second = Stream(), Stream()
        one = begun(first, {"libvirt": hypervisor}, ["@console"])
        await until(lambda: GUEST.id in fabric.lines)
        with pytest.raises(DriverError, match="somebody else"):
            await begun(second, {"libvirt": hypervisor}, ["@console"])
        other = begun(second, {"libvirt": hypervisor}, ["@console", "--force"])
        await asyncio.wait_for(one, 10)
        assert first.code == 0 and not other.done()
        await second.typed.put(None)
        await asyncio.wait_for(other, 10)
        fabric.lines.pop(GUEST.id).close()

    asyncio.run(work())


def test_what_was_said_is_shown_and_followed(tmp_path: Path) -> None:
    async def work() -> None:
        hypervisor = Telling("n1", Fabric())
        hypervisor.file = tmp_path / "said.log"
        hypervisor.file.write_bytes(b"booting\r\n")
        stream = Stream()
        await asyncio.wait_for(begun(stream, {"libvirt": hypervisor}, ["@console-log"]), 10)
        assert (stream.said, stream.code) == (b"booting\r\n", 0)
        stream = Stream()
        task = begun(stream, {"libvirt": hypervisor}, ["@console-log", "--follow"])
        await until(lambda: stream.said == b"booting\r\n")
        with hypervisor.file.open("ab") as file:
            file.write(b"up\r\n")
        await until(lambda: stream.said == b"booting\r\nup\r\n")
        stream.is_closed.set()
        await asyncio.wait_for(task, 10)

    asyncio.run(work())


@pytest.mark.parametrize("word", ["@console", "@console-log"])
def test_a_namespace_has_no_serial_line(word: str) -> None:
    async def work() -> None:
        with pytest.raises(DriverError, match="`playground exec` enters it"):
            await begun(Stream(), {"netns": MemoryDriver("n1", Machine())}, [word], "netns")

    asyncio.run(work())
