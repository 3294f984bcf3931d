"""A TCP proxy between agents and their controller, in which everything that befalls connections can be made to happen.

Knows nothing of what is carried. In a test's own event loop, or as a process of a sandbox: `python -m
tests.faults.proxy FROM TO CONTROL`, FROM and TO HOST:PORT, CONTROL a Unix socket on which each line `VERB ADDRESS
[NUMBER]` is done and answered with a line. ADDRESS is a peer's, for all that it dials from now on too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Rules:
    """What befalls the connections of one peer. dark: nothing passes and nothing is said of it, neither FIN nor RST.
    delay_s: of every piece. cut_after: bytes to the controller until its connection breaks, once. doubled: the next
    connection reaches the controller twice, byte by byte. refused: connections end at once."""

    dark: bool = False
    refused: bool = False
    delay_s: float = 0.0
    cut_after: int | None = None
    cut_back_after: int | None = None
    doubled: bool = False


@dataclass(eq=False)
class Passage:
    """One connection that is carried. held: what its peer said and the controller will only hear at `release`."""

    peer: asyncio.StreamWriter
    inner: asyncio.StreamWriter
    twin: asyncio.StreamWriter | None = None
    is_held: bool = False
    held: list[bytes] = field(default_factory=list)

    def abort(self) -> None:
        for writer in (self.peer, self.inner, self.twin):
            if writer is not None:
                writer.transport.abort()


class Proxy:
    """Carries what is dialled to `listen` on to `to`."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self.rules: defaultdict[str, Rules] = defaultdict(Rules)
        self.passages: defaultdict[str, list[Passage]] = defaultdict(list)
        self.late: list[Passage] = []
        self.dialled: defaultdict[str, int] = defaultdict(int)
        self._light = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._carry, host, port)

    # what befalls

    async def heal(self, peer: str) -> None:
        """As if nothing had ever been, for what is dialled from now on; what was dark is still there, and goes on."""
        self.rules[peer] = Rules()
        async with self._light:
            self._light.notify_all()

    def darken(self, peer: str) -> None:
        self.rules[peer].dark = True

    def reset(self, peer: str) -> None:
        """Its connections are gone, for both ends."""
        for passage in list(self.passages[peer]):
            passage.abort()

    def refuse(self, peer: str) -> None:
        self.rules[peer].refused = True
        self.reset(peer)

    def hold(self, peer: str) -> None:
        """What it says stays on the way from now on. Its own end breaks at `lose`."""
        for passage in self.passages[peer]:
            passage.is_held = True

    def lose(self, peer: str) -> None:
        """Its end of what is held breaks; the controller's end stands as if nothing had been."""
        for passage in [p for p in self.passages[peer] if p.is_held]:
            self.late.append(passage)
            passage.peer.transport.abort()

    def release(self) -> None:
        """What was held is delivered, late."""
        for passage in self.late:
            for data in passage.held:
                passage.inner.write(data)
            passage.held.clear()

    # carrying

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        rules = self.rules[peer]
        self.dialled[peer] += 1
        if rules.refused:
            writer.transport.abort()
            return
        try:
            back, inner = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        passage = Passage(writer, inner)
        if rules.doubled:
            rules.doubled = False
            unheard, passage.twin = await asyncio.open_connection(*self._to)
            self._spawn(_swallow(unheard))
        self.passages[peer].append(passage)
        try:
            await asyncio.wait(
                [
                    self._spawn(self._forth(peer, passage, reader)),
                    self._spawn(self._back(peer, passage, back)),
                ]
            )
        finally:
            self.passages[peer].remove(passage)
            if passage not in self.late:
                passage.abort()

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pass(self, peer: str) -> None:
        """Returns when the next piece may pass."""
        if (delay_s := self.rules[peer].delay_s) > 0:
            await asyncio.sleep(delay_s)
        async with self._light:
            await self._light.wait_for(lambda: not self.rules[peer].dark)

    async def _forth(self, peer: str, passage: Passage, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._pass(peer)
                rules = self.rules[peer]
                if rules.cut_after is not None:
                    data, rules.cut_after = data[: rules.cut_after], rules.cut_after - len(data)
                if passage.is_held:
                    passage.held.append(data)
                    continue
                for writer in (passage.inner, passage.twin):
                    if writer is not None:
                        writer.write(data)
                await passage.inner.drain()
                if rules.cut_after is not None and rules.cut_after <= 0:
                    rules.cut_after = None
                    break
        await self._pass(peer)
        if not passage.is_held:
            passage.abort()

    async def _back(self, peer: str, passage: Passage, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._pass(peer)
                rules = self.rules[peer]
                if rules.cut_back_after is not None:
                    data, rules.cut_back_after = data[: rules.cut_back_after], rules.cut_back_after - len(data)
                passage.peer.write(data)
                await passage.peer.drain()
                if rules.cut_back_after is not None and rules.cut_back_after <= 0:
                    rules.cut_back_after = None
                    break
        await self._pass(peer)
        passage.abort()

    # from outside

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection of the control socket."""
        while line := await reader.readline():
            verb, peer, *_ = line.decode().split()
            match verb:
                case "darken":
                    self.darken(peer)
                case "reset":
                    self.reset(peer)
                case "refuse":
                    self.refuse(peer)
                case "heal":
                    await self.heal(peer)
                case _:
                    raise ValueError(f"{verb}: the proxy does darken, reset, refuse, heal")
            writer.write(b"done\n")
        writer.close()


async def _swallow(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1 << 16):
            pass


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _main(listen: str, to: str, control: str) -> None:
    proxy = Proxy(_place(to))
    server = await proxy.listen(*_place(listen))
    await asyncio.start_unix_server(proxy.obey, control)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
