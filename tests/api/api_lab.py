"""A controller behind its real server, on loopback: requests as any peer may send them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.api.app import make_app
from playground.api.serving import Serving, tcp_socket, unix_socket
from playground.controller.controller import Controller
from playground.controller.hosts import admit_hosts
from playground.spec import load_site
from playground.store.memory import MemoryStore

SITE = load_site("name: here\nhosts: {h1: {underlay: 192.0.2.1}}\n", "site.yaml")
TOKEN = "0" * 64


@dataclass
class Doors:
    """A controller that serves; tcp listens already, but is served only once `open_tcp` was called."""

    controller: Controller
    path: Path
    tcp: socket.socket
    open_tcp: Callable[[], None]

    async def ask(self, method: str, target: str, body: bytes = b"", local: bool = False, **headers: str) -> Any:
        """(status, answer)."""
        opened = asyncio.open_unix_connection(self.path) if local else asyncio.open_connection(*self.tcp.getsockname())
        reader, writer = await opened
        fields = {"host": "x", "connection": "close", "content-length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def doors(folder: Path, admin_token: str | None = "sesame", given: Collection[str] = ()) -> AsyncIterator[Doors]:
    store = MemoryStore()
    controller = Controller(store, SITE, given)
    await controller.world.load()
    await admit_hosts(store, controller.world, SITE, {"h1": TOKEN})
    await controller.world.load()
    app = make_app(controller, admin_token)
    tcp = tcp_socket("127.0.0.1:0")
    unix = unix_socket(folder / "s")
    for sock in (unix, tcp):
        sock.listen()
    servers = [Serving(app, unix), Serving(app, tcp)]
    tasks = [asyncio.create_task(controller.run()), asyncio.create_task(servers[0].run())]
    yield Doors(controller, folder / "s", tcp, lambda: tasks.append(asyncio.create_task(servers[1].run())))
    for server in servers:
        server.end()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tcp.close()
    await store.close()


def within(
    folder: Path,
    claim: Callable[[Doors], Awaitable[None]],
    admin_token: str | None = "sesame",
    given: Collection[str] = (),
) -> None:
    async def hold() -> None:
        async with doors(folder, admin_token, given) as made:
            await claim(made)

    asyncio.run(hold())
