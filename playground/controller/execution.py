"""Commands run in guests and on hosts: pairs whoever asked with the agent that dials back, and runs the controller's
own."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from playground import wire
from playground.controller.sessions import Session, Sessions
from playground.controller.status import host_state
from playground.controller.world import World

STDIN, STDOUT, STDERR, EXIT, WINDOW, SIGNAL = range(6)
ANSWER_S = 10.0
RETURN_S = 5.0
"""How long a host's agent that has just gone is waited for."""


class NotPossible(Exception):
    """The command can't be run; the text says why and what would help."""


@dataclass(eq=False)
class Channel:
    """Two queues of frames between whoever asked and the agent; None ends a direction."""

    to_agent: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(64))
    from_agent: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(64))
    dialled: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended. code is 128 + N for a signal."""

    code: int
    stdout: bytes
    stderr: bytes


class Execution:
    """All commands under way."""

    def __init__(self, world: World, sessions: Sessions) -> None:
        self._world = world
        self._sessions = sessions
        self._open: dict[str, Channel] = {}

    def waiting(self, id: str) -> Channel | None:
        """The channel that an agent dials back for."""
        return self._open.get(id)

    async def start(
        self,
        argv: Sequence[str],
        *,
        workspace: tuple[str, str] | None = None,
        host: str | None = None,
        tty: bool = False,
        rows: int = 24,
        cols: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> Channel:
        """Orders a command from the host's agent and waits until it dials back. Raises NotPossible."""
        guest, driver = None, ""
        if workspace is not None:
            record = self._world.workspace(*workspace)
            if record is None:
                raise NotPossible(f"no workspace {workspace[0]}/{workspace[1]}")
            if record.desired in ("stopped", "saved"):
                name = f"{workspace[0]}/{workspace[1]}"
                way = "start" if record.desired == "stopped" else "restore"
                raise NotPossible(f"{name} is {record.desired}; {way} it first: playground {way} {name}")
            if record.host is None:
                raise NotPossible(f"{workspace[0]}/{workspace[1]} is on no host yet: {record.reason or 'it waits'}")
            host, guest, driver = record.host, record.id, record.driver
        session = await self._session(host or "")
        id = secrets.token_hex(16)
        channel = self._open[id] = Channel()
        try:
            order = wire.Execute(id, guest, driver, list(argv), tty, rows, cols, dict(env or {}))
            await session.send(wire.encode(order))
            await asyncio.wait_for(channel.dialled.wait(), ANSWER_S)
        except TimeoutError:
            raise NotPossible(f"host {host} did not answer within {ANSWER_S:.0f} s") from None
        finally:
            self._open.pop(id, None)
        return channel

    async def _session(self, host: str) -> Session:
        """Of an agent that may just be starting anew. Raises NotPossible."""
        tries_until_s = time.monotonic() + RETURN_S
        while (session := self._sessions.connected.get(host)) is None:
            if host not in self._world.alive or time.monotonic() > tries_until_s:
                raise NotPossible(absence(self._world, host))
            await asyncio.sleep(0.05)
        return session

    async def run(
        self,
        argv: Sequence[str],
        *,
        workspace: tuple[str, str] | None = None,
        host: str | None = None,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> Finished:
        """Runs a command to its end. Raises NotPossible."""
        channel = await self.start(argv, workspace=workspace, host=host)
        return await self.finish(channel, stdin, timeout_s)

    async def finish(
        self,
        channel: Channel,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> Finished:
        """Feeds a started command and collects what it says. on_stderr hears each piece of stderr as it comes."""
        out, err = bytearray(), bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                if stdin:
                    await channel.to_agent.put(bytes([STDIN]) + stdin)
                await channel.to_agent.put(bytes([STDIN]))
                while (frame := await channel.from_agent.get()) is not None:
                    if not frame:
                        continue
                    if frame[0] == STDOUT:
                        out += frame[1:]
                    elif frame[0] == STDERR:
                        err += frame[1:]
                        if on_stderr is not None:
                            on_stderr(frame[1:])
                    elif frame[0] == EXIT:
                        ended = msgspec.json.decode(frame[1:], type=dict[str, int | str])
                        if "error" in ended:
                            raise NotPossible(str(ended["error"]))
                        return Finished(int(ended["code"]), bytes(out), bytes(err))
        except (msgspec.DecodeError, KeyError, ValueError):
            raise NotPossible("the agent did not say in words we know how the command ended") from None
        except TimeoutError:
            raise NotPossible(f"the command did not end within {timeout_s:.0f} s") from None
        finally:
            await self.close(channel)
        raise NotPossible("the agent's connection ended before the command did")

    async def signal(self, channel: Channel, name: str) -> None:
        """Sends INT, TERM, HUP or QUIT to a started command."""
        await channel.to_agent.put(bytes([SIGNAL]) + name.encode())

    async def close(self, channel: Channel) -> None:
        """Ends a channel from our side; the agent hangs up on the command."""
        channel.closed.set()
        if not channel.to_agent.full():
            channel.to_agent.put_nowait(None)


def absence(world: World, host: str) -> str:
    """Why nothing can be asked of a host that has no session."""
    if host not in world.hosts:
        return f"no host {host}; hosts are {', '.join(sorted(world.hosts)) or 'none'}"
    match host_state(world, host):
        case "never":
            return f"host {host} has never connected; start its agent there (`playground agent --help`)"
        case "up":
            return f"the agent of host {host} is not connected at the moment; try again in a few seconds"
        case _:
            return f"host {host} is gone: its agent is not connected"
