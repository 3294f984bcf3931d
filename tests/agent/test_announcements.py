"""What announces a machine, and what does not; and that it is heard at its own device alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

import pytest

from playground.agent.announcements import Announcements, announces
from playground.workspaces.drivers import taps

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def rarp(source: str = MAC) -> bytes:
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 3, raw(source), bytes(4), raw(source), bytes(4))
    return (raw(BROADCAST) + raw(source) + b"\x80\x35" + body).ljust(60, b"\0")


def arp(source: str = MAC, sender: str = MAC, asked: int = 2) -> bytes:
    address = bytes((10, 0, 0, 2))
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, raw(sender), address, bytes(6), bytes((10, 0, 0, asked)))
    return (raw(BROADCAST) + raw(source) + b"\x08\x06" + body).ljust(60, b"\0")


def neighbour(kind: int = 136, flags: int = 0x20, source: str = MAC) -> bytes:
    message = struct.pack("!BBHB3x16s", kind, 0, 0, flags, bytes(16)) + b"\x02\x01" + raw(source)
    header = struct.pack("!IHBB16s16s", 6 << 28, len(message), 58, 255, bytes(16), bytes(16))
    return raw("33:33:00:00:00:01") + raw(source) + b"\x86\xdd" + header + message


@pytest.mark.parametrize("frame", [rarp(), arp(), neighbour()], ids=["rarp", "arp", "na"])
def test_a_machine_is_announced_by(frame: bytes) -> None:
    assert announces(frame, MAC)


@pytest.mark.parametrize(
    "frame",
    [
        rarp(OTHER),
        arp(OTHER),
        arp(sender=OTHER),
        arp(asked=3),
        neighbour(source=OTHER),
        neighbour(kind=135),
        neighbour(flags=0x60),
        neighbour()[:60],
        rarp()[:20],
        b"",
        raw(BROADCAST) + raw(MAC) + b"\x08\x00" + bytes(60),
    ],
)
def test_a_machine_is_not_announced_by(frame: bytes) -> None:
    assert not announces(frame, MAC)


@pytest.mark.system
def test_it_is_heard_at_the_machines_own_device_and_only_as_it_comes_out_of_it() -> None:
    names = ("pgannounce0", "pgannounce1")

    async def work() -> None:
        heard: list[str] = []
        announcements = Announcements(Path("/proc/self/ns/net"), heard.append)
        announcements.expect({names[0]: ("w", MAC)})  # not there yet
        for name in names:
            taps.make(name, 1400)
        own, foreign = (taps.opened(name) for name in names)
        header = bytes(10)  # of virtio-net, which taps for hypervisors have
        try:
            announcements.expect({names[0]: ("w", MAC)})
            os.write(foreign, header + rarp())
            os.write(own, header + rarp(OTHER))
            os.write(own, header + neighbour(kind=135))
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as network:
                network.bind((names[0], 0))
                network.send(arp())  # to the machine
            for number, frame in enumerate((rarp(), arp(), neighbour()), 1):
                os.write(own, header + frame)
                async with asyncio.timeout(5):
                    while len(heard) < number:
                        await asyncio.sleep(0.01)
                assert len(heard) == number
            announcements.expect({})
            os.write(own, header + rarp())
            await asyncio.sleep(0)
            assert heard == ["w"] * 3
        finally:
            announcements.close()
            os.close(own)
            os.close(foreign)
            taps.remove(names, Path("/nowhere"))

    asyncio.run(work())
