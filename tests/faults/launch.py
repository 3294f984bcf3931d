"""Runs `playground.controller`, `playground.agent` or `playground.responder` as they are, and kills it at the boundary
of an effect: kill -9.

`python -m tests.faults.launch FOLDER NAME MODULE ARGUMENT…`. Every effect is counted in FOLDER/NAME.effects, a line
`KIND` each. A file FOLDER/NAME.armed with `KIND NUMBER SIDE` asks for death before or after that effect of that kind,
counted from 0 since the file was made; it is gone before its process is. A fourth word names a program that dies with
it: FOLDER/NAME.pid has whom to kill. An agent's responder is launched so, too, as `responder-HOST`. What is production
code knows nothing of this.
"""

from __future__ import annotations

import contextlib
import functools
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

KINDS = (
    *("commit", "term", "show"),
    *("batch", "rules", "switch", "flows", "gateway", "space", "cache", "standing", "report", "evidence", "answers"),
    *("guest", "entry"),
    *("map", "save", "lease"),
)
"""Of a controller: a store commit, a host's lease given or revoked, a message to an agent. Of an agent: a batch sent to
the kernel, a transaction of rules, a bridge's switch or a sysctl turned or what answers beside a bridge made,
connections put, marked or forgotten, a table of gateways, a namespace made or removed, a write of the cached view, of
how the host stands, a report, an answer to a question, a line to its responder; a verb of the guests' driver, a write
of its entry of a guest. Of a responder: an update taken, its file replaced, a lease noted in its journal."""


class Effects:
    """The counter of one process. May be asked from any thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._armed = folder / f"{name}.armed"
        self._folder = folder
        (folder / f"{name}.pid").write_text(str(os.getpid()))
        self._log = os.open(folder / f"{name}.effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._since = 0
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def before(self, kind: str) -> int:
        """The number of this effect; dies where that is asked for."""
        with self._lock:
            try:
                since = self._armed.stat().st_ino
            except FileNotFoundError:
                since = 0
            if since != self._since:
                self._since = since
                self._counts.clear()
            number = self._counts[kind]
            self._counts[kind] += 1
            os.write(self._log, f"{kind}\n".encode())
            self._reach(kind, number, "before")
            return number

    def after(self, kind: str, number: int) -> None:
        with self._lock:
            self._reach(kind, number, "after")

    def _reach(self, kind: str, number: int, side: str) -> None:
        if not self._since:
            return
        try:
            asked = self._armed.read_text()
        except FileNotFoundError:
            return
        words = asked.split()
        if words[:3] == [kind, str(number), side]:
            self._armed.unlink()
            for other in words[3:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int((self._folder / f"{other}.pid").read_text()), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

    def sync(self, kind: Callable[..., str | None], work: Callable[..., Any]) -> Callable[..., Any]:
        """`work` with each call an effect of the kind that its arguments make it; None is no effect."""

        @functools.wraps(work)
        def counted(*words: Any, **named: Any) -> Any:
            found = kind(*words, **named)
            if found is None:
                return work(*words, **named)
            number = self.before(found)
            result = work(*words, **named)
            self.after(found, number)
            return result

        return counted

    def wait(self, kind: Callable[..., str | None], work: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        """The same for what is awaited."""

        @functools.wraps(work)
        async def counted(*words: Any, **named: Any) -> Any:
            found = kind(*words, **named)
            if found is None:
                return await work(*words, **named)
            number = self.before(found)
            result = await work(*words, **named)
            self.after(found, number)
            return result

        return counted


def _file(path: Path, *_: object, **__: object) -> str | None:
    return {"view.part": "cache", "guest.json.new": "entry", "agent.draft": "standing"}.get(path.name)


def _said(_: object, message: Any) -> str | None:
    return {"Report": "report", "Answer": "evidence"}.get(type(message).__name__)


def _sysctl(path: Path, *_: object, **__: object) -> str | None:
    return "switch" if path.is_relative_to("/proc/sys/net/bridge") else None


class _Appended:
    """The cached view, open for what is said next: who dies before a line's end leaves it torn."""

    def __init__(self, file: Any, effects: Effects) -> None:
        self._file = file
        self._effects = effects
        self.close = file.close

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        number = self._effects.before("cache")
        self._file.write(data[half:])
        self._effects.after("cache", number)
        return len(data)


def patch(owner: Any, name: str, how: Callable[..., Any], kind: Callable[..., str | None]) -> None:
    setattr(owner, name, how(kind, getattr(owner, name)))


def hook_responder(effects: Effects) -> None:
    """Wraps the responder's classes."""
    import asyncio

    from playground.responder import memory
    from playground.responder.service import Service

    patch(asyncio.StreamWriter, "write", effects.sync, lambda *_, **__: "answers")
    patch(Service, "apply", effects.sync, lambda *_, **__: "map")
    patch(memory.Notes, "save", effects.sync, lambda *_, **__: "save")
    patch(memory.Notes, "add", effects.sync, lambda *_, **__: "lease")


def launch_responder(folder: str, name: str) -> None:
    """Has this agent start its responder by this module."""
    from playground.agent import responding

    start = subprocess.Popen

    def started(argv: list[str], **words: Any) -> Any:
        program = f"responder-{name.partition('-')[2]}"
        assert argv[1:3] == ["-m", "playground.responder"]
        return start([argv[0], "-m", "tests.faults.launch", folder, program, *argv[2:]], **words)

    responding.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": started})  # type: ignore[assignment]


def hook(effects: Effects) -> None:
    """Wraps the classes of controller and agent."""
    import asyncio

    from starlette.websockets import WebSocket

    from overlay.kernel import namespaces, uplinks
    from overlay.kernel.netlink import Netlink
    from playground.agent.link import Link
    from playground.store.sqlite import SqliteStore
    from playground.workspaces.drivers.netns import NetnsDriver
    from policies.kernel import answering
    from policies.kernel.bridges import Switches
    from policies.kernel.conntrack import Conntrack
    from policies.kernel.libnftables import LibNft
    from policies.kernel.nft import NftCommand

    patch(SqliteStore, "commit", effects.wait, lambda *_, **__: "commit")
    for verb in ("lease", "revoke"):
        patch(SqliteStore, verb, effects.wait, lambda *_, **__: "term")
    patch(WebSocket, "send_text", effects.wait, lambda *_, **__: "show")
    patch(Netlink, "send", effects.sync, lambda *_, **__: "batch")
    for nft in (NftCommand, LibNft):
        patch(nft, "load", effects.sync, lambda *_, is_trial=False: None if is_trial else "rules")
    patch(Switches, "_police", effects.sync, lambda *_, **__: "switch")
    for verb in ("_make", "_remove"):
        patch(answering, verb, effects.sync, lambda *_, **__: "switch")
    patch(Path, "write_text", effects.sync, _sysctl)
    for verb in ("put", "mark", "delete"):
        patch(Conntrack, verb, effects.sync, lambda *_, **__: "flows")
    patch(uplinks, "run", effects.sync, lambda _, word, *__, **___: "gateway" if word in ("-f", "delete") else None)
    for verb in ("create", "publish", "remove"):
        patch(namespaces, verb, effects.sync, lambda *_, **__: "space")
    patch(Path, "write_bytes", effects.sync, _file)
    patch(Path, "replace", effects.sync, _file)
    opening = Path.open

    def opened(path: Path, mode: str = "r", *words: Any, **named: Any) -> Any:
        file = opening(path, mode, *words, **named)
        return _Appended(file, effects) if path.name == "view.json" and mode == "ab" else file

    Path.open = opened  # type: ignore[method-assign]
    patch(Link, "say", effects.wait, _said)
    patch(asyncio.StreamWriter, "write", effects.sync, lambda *_, **__: "answers")
    patch(
        NetnsDriver, "_run", effects.wait, lambda _, work, *__, **___: None if work.__name__ == "_observe" else "guest"
    )


if __name__ == "__main__":
    folder, name, module, *arguments = sys.argv[1:]
    effects = Effects(Path(folder), name)
    if module == "playground.responder":
        hook_responder(effects)
    else:
        hook(effects)
    if name.startswith("agent-"):
        launch_responder(folder, name)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
