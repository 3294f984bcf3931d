"""Answers this host's libvirt, which asks by its hook before a machine of ours is started here or comes here: whether
it may, once all is ready for it. Decides nothing of networks; calls no libvirt, which waits for the answer.

Whoever began it, what counts is what the records say, and for a machine that comes unannounced what the hypervisor of
its host says: the controller asks that before anything is made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Literal

from playground import wire
from playground.agent.guests import Guests
from playground.derive import Role, Want
from playground.workspaces.drivers.api import DriverError, Guest, GuestState, Hypervisor
from playground.workspaces.drivers.libvirt.hook import LARGEST
from playground.workspaces.drivers.libvirt.xml import read_domain, write_console

log = logging.getLogger("agent")

ANSWER_S = 20.0
"""How long all that is to be ready is waited for; the hook waits longer."""

NOTED_S = 10.0
"""How long the controller's answer is waited for."""

STARTED_S = 10.0
"""How long libvirt may take to start a machine after it was let."""

_ORDER_S = 5.0

Tell = Callable[[Literal["arrives", "starts"], Guest], Awaitable[str]]
"""Tells the controller what begins here, `arrives` or `starts`; returns why it may not, or nothing."""


class _Step(Enum):
    PASS = "pass"
    WAIT = "wait"
    TELL = "tell"


class Hooked:
    """path: of the socket. consoles: folder of what machines write on their serial lines. passed: returns when a pass
    has ended, or after so many seconds."""

    def __init__(
        self,
        path: Path,
        consoles: Path,
        guests: Guests,
        wants: Callable[[], Mapping[str, Want]],
        ready: Callable[[Want], bool],
        passed: Callable[[float], Awaitable[None]],
        tell: Tell,
    ) -> None:
        self._path = path
        self._consoles = consoles
        self._guests = guests
        self._wants = wants
        self._ready = ready
        self._passed = passed
        self._tell = tell

    async def run(self) -> None:
        """Serves for ever."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        channel = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)  # whoever may write to it may have machines refused
        try:
            channel.bind(str(self._path))
        finally:
            os.umask(mask)
        server = await asyncio.start_unix_server(self._serve, sock=channel)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("3i", credentials)[1] not in (0, os.geteuid()):
                return
            async with asyncio.timeout(_ORDER_S):
                order = json.loads(await reader.read(LARGEST))
            refused, xml = await self._answered(str(order["operation"]), str(order["xml"]))
            writer.write(json.dumps({"refused": refused, "xml": xml}).encode())
            await writer.drain()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("hook not understood error=%s", error)
        finally:
            writer.close()

    async def _answered(self, operation: str, xml: str) -> tuple[str, str]:
        """Why not, and the domain as it is to be here where that is another one."""
        try:
            guest = read_domain(xml)
        except ValueError as error:
            return f"its mark can't be read: {error}", ""
        began = time.monotonic()
        refused = await self.answer(operation, guest)
        log.info(
            "hook answered operation=%s guest=%s s=%.2f refused=%r",
            operation,
            guest.id,
            time.monotonic() - began,
            refused,
        )
        comes = operation == "migrate" and not refused
        return refused, write_console(xml, self._consoles / f"{guest.id}.log") if comes else ""

    async def answer(self, operation: str, guest: Guest) -> str:
        """Why the machine may not begin here, or come here; empty once all is ready for it."""
        want = self._wants().get(guest.id)
        here = want is not None and want.role not in (Role.ARRIVE, Role.TAKE, Role.AWAY, Role.HOLD, Role.WAIT)
        if operation == "prepare" and want is not None and here and not self._guests.is_busy(guest.id):
            return await self._begun(want)
        until = time.monotonic() + ANSWER_S
        is_told = is_expected = False
        while True:
            want = self._wants().get(guest.id)
            if is_expected and (want is None or want.role not in (Role.ARRIVE, Role.TAKE)):
                return f"{guest.playground}/{guest.name} is expected here no more: `playground events` says why"
            is_expected = want is not None and want.role in (Role.ARRIVE, Role.TAKE)
            step = self._step(operation, guest.id, want)
            if step is _Step.PASS:
                return ""
            if isinstance(step, str):
                return step
            if step is _Step.TELL and not is_told:
                is_told = True
                if problem := await self._tell("arrives" if operation == "migrate" else "starts", guest):
                    return problem
                continue
            if (left := until - time.monotonic()) <= 0:
                cause = self._guests.causes.get(guest.id) or "its ports are not programmed"
                return f"{guest.playground}/{guest.name} is not ready on this host: {cause}"
            await self._passed(left)

    async def _begun(self, want: Want) -> str:
        """Why a machine that belongs here must not be started, by somebody else; empty once its ends wait for it. What
        was stopped is not, from then on."""
        driver = self._guests.drivers.get(want.driver)
        if not isinstance(driver, Hypervisor):
            return f"this host has no driver {want.driver}"
        answered = asyncio.Event()
        self._guests.occupy(want.id, self._started(want.id, answered))
        driver.begins(want.id, True)
        try:
            if want.role is not Role.RUN and (problem := await self._tell("starts", want.guest)):
                return problem
            until = time.monotonic() + ANSWER_S
            while (now := self._wants().get(want.id)) is None or now.role is not Role.RUN:
                if (left := until - time.monotonic()) <= 0:
                    return "the records do not have it run"
                await self._passed(left)
            await driver.make_room(now.guest)
            expected = replace(now, role=Role.TAKE)  # as of a machine that comes: its ends are taken once they are open
            while not self._ready(expected):
                if (left := until - time.monotonic()) <= 0:
                    return "its ports are not programmed"
                await self._passed(left)
            return ""
        except DriverError as error:
            return str(error)
        finally:
            driver.begins(want.id, False)
            answered.set()

    async def _started(self, guest: str, answered: asyncio.Event) -> None:
        """Returns once the machine runs, or libvirt has not managed that in time."""
        await answered.wait()
        until = time.monotonic() + STARTED_S
        while time.monotonic() < until:
            await self._guests.observe({guest})
            if self._guests.state(guest) is GuestState.RUNNING:
                return
            await asyncio.sleep(0.1)

    def _step(self, operation: str, id: str, want: Want | None) -> _Step | str:
        """What is to be done now; a text refuses."""
        if want is not None and want.role in (Role.ARRIVE, Role.TAKE):
            _, seen = self._guests.observed.get(id, ("", None))
            is_expected = seen is not None and seen.state is GuestState.ELSEWHERE and seen.move == want.move
            return _Step.PASS if is_expected and self._ready(want) else _Step.WAIT
        if operation == "migrate":
            if want is not None and want.role is Role.RUN:
                return f"{want.playground}/{want.name} belongs here by the records, and is about to be started here"
            return _Step.TELL
        if self._guests.is_busy(id):
            return _Step.PASS  # what we begin ourselves
        if want is None or want.role in (Role.AWAY, Role.HOLD, Role.WAIT):
            return "it belongs to another host by the records; `playground status` says to which"
        return _Step.PASS


class Notices:
    """Tells the controller, and waits for what it says. say: sends; false without a connection."""

    def __init__(self, say: Callable[[wire.Notice], Awaitable[bool]]) -> None:
        self._say = say
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def tell(self, what: Literal["arrives", "starts"], guest: Guest) -> str:
        """Why it must not, or nothing."""
        id = secrets.token_hex(8)
        answer: asyncio.Future[str]
        answer = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(NOTED_S):
                if not await self._say(wire.Notice(id, what, guest.playground, guest.name)):
                    return "this host's agent has no controller to ask"
                return await answer
        except TimeoutError:
            return "the controller did not answer"
        finally:
            del self._waiting[id]

    def noted(self, message: wire.Noted) -> None:
        """Takes an answer."""
        if (answer := self._waiting.get(message.id)) is not None and not answer.done():
            answer.set_result(message.problem)
