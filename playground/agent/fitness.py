"""Answers whether a guest might go to another host, or come to this one: asks drivers, tries the underlay. Changes
nothing."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeGuard

import msgspec

from playground import wire
from playground.questions import Departing, TellArrival, TellDeparture
from playground.workspaces import echoes
from playground.workspaces.departure import Arrival
from playground.workspaces.drivers.api import Driver, DriverError, Hypervisor

WAIT_S = 0.5
"""How long an answer to an echo request is waited for."""

TRIES = 2
_PMTUDISC_PROBE = 3
"""linux/in.h, and the same of in6.h: no fragments, and what is known of the path does not count."""

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
"""Of IP and ICMP, in bytes."""


class Fitness:
    """underlay: this host's address. say: sends an answer."""

    def __init__(
        self, drivers: Mapping[str, Driver], underlay: str, say: Callable[[wire.Answer], Awaitable[bool]]
    ) -> None:
        self._drivers = drivers
        self._underlay = underlay
        self._say = say

    async def answer(self, id: str, question: TellDeparture | TellArrival) -> None:
        """Says what was asked for, or what hinders that."""
        try:
            found = await self._found(question)
        except (DriverError, OSError) as error:
            await self._say(wire.Answer(id, msgspec.Raw(b"null"), problem=str(error)))
            return
        await self._say(wire.Answer(id, msgspec.Raw(msgspec.json.encode(found))))

    async def _found(self, question: TellDeparture | TellArrival) -> Departing | Arrival:
        driver = self._drivers.get(question.driver)
        if not _copies(driver):
            raise DriverError(f"it has no driver {question.driver} that copies machines")
        if isinstance(question, TellArrival):
            return await driver.arriving(question.departure, question.copies_storage)
        departure, passes = await asyncio.gather(
            driver.departing(question.guest, question.to),
            asyncio.to_thread(path, self._underlay, question.underlay, question.size),
        )
        return Departing(departure, passes)


def _copies(driver: Driver | None) -> TypeGuard[Hypervisor]:
    return isinstance(driver, Hypervisor)


def path(source: str, target: str, size: int) -> bool | None:
    """Whether IP packets of `size` bytes pass between two addresses unfragmented; None where not even small ones are
    answered. Blocks for up to `2 * TRIES * WAIT_S`. Raises OSError."""
    is_large = _answered(source, target, size)
    return True if is_large else False if _answered(source, target, 0) else None


def _answered(source: str, target: str, size: int) -> bool:
    """Whether an echo request came back; size 0 for a small one."""
    family = socket.AF_INET6 if ipaddress.ip_address(target).version == 6 else socket.AF_INET
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    level, option = (
        (socket.IPPROTO_IP, _IP_MTU_DISCOVER) if family == socket.AF_INET else (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)
    )
    identifier = int.from_bytes(os.urandom(2), "big")
    with socket.socket(family, socket.SOCK_RAW, protocol) as channel:
        channel.bind((source, 0))
        channel.setsockopt(level, option, _PMTUDISC_PROBE)
        for number in range(TRIES):
            packet = echoes.request(family, identifier, number, max(0, size - _HEADERS[family]))
            try:
                channel.sendto(packet, (target, 0))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return False
                raise
            until = time.monotonic() + WAIT_S
            while (left := until - time.monotonic()) > 0 and select.select([channel], [], [], left)[0]:
                if echoes.answered(family, channel.recv(1 << 16), identifier) == number:
                    return True
    return False
