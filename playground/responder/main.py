"""The responder's process: `python -m playground.responder`. Arguments, the agent's socket, the file, signals.

It runs in the host's mount namespace, lives apart from the agent and answers without one. One at a time per socket: a
second one waits `TAKEOVER_S` for the first to end, then refuses with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from dhcp.decide import LeaseKind
from dhcp.io.journal import Journal
from dhcp.io.sockets import open_socket
from playground import __version__
from playground.responder import memory, netns
from playground.responder.protocol import LINE_LIMIT, Problem, Report, Update, decode_update, encode_line
from playground.responder.service import Hearing, Service, lease_key

CHECK_S: Final = 0.5
"""How often namespaces are looked at: a lookup each."""
SAVE_AFTER_S: Final = 0.2
TAKEOVER_S: Final = 3.0
UNREAD_S: Final = 0.02
"""How long an agent may take to read what was said to it before the end: answers rest meanwhile."""
_UNREAD_LIMIT: Final = 8 << 20
_HAS_POOL: Final = b'"pool":{'
"""What the encoded scope of a port has that gives addresses to clients that nobody declared."""

_log = logging.getLogger("playground.responder")


class Responder:
    """Ties the service to the agent's socket and to the file."""

    def __init__(self, data_plane: str, file: Path, leases: Path | None = None) -> None:
        """leases: where those from pools are kept; beside the file, where nothing else is said."""
        self._file = file
        self._notes = memory.Notes(file)
        self._agents: set[asyncio.StreamWriter] = set()
        self._conversations: set[asyncio.Task[None]] = set()
        self._save_timer: asyncio.TimerHandle | None = None
        self._service = Service(
            data_plane, self._report, time.time, Journal(leases or file.with_name(file.stem + ".leases"))
        )

    @property
    def document(self) -> Mapping[str, bytes]:
        """The map that is in effect, values encoded."""
        return self._service.document

    def prepare(self) -> None:
        """Renders what the file holds while another one still answers by it: then `start` has only what changed since.
        What has leases from a pool waits for that, as they change meanwhile."""
        ports = {key: raw for key, raw in self._remembered().document.items() if key.startswith("port/")}
        bound = {key: raw for key, raw in ports.items() if _HAS_POOL not in bytes(raw)}
        self._service.apply(Update(seq=0, set=bound))

    def start(self, heard: Hearing | None = None) -> None:
        """Answers by what the file holds. heard: the packet socket that hears already."""
        remembered = self._remembered()
        self._service.begin(heard)
        self._service.remember(remembered.leases.values())
        self._service.packets.fence_utc_s = remembered.fence_utc_s
        self._service.apply(Update(seq=0, set=remembered.document, whole=True))
        _log.info("started keys=%d", len(remembered.document))

    def _remembered(self) -> memory.Memory:
        try:
            return memory.load(self._file)
        except memory.Unreadable as error:
            _log.warning("file ignored cause=%s", error)
            return memory.Memory()

    async def check_forever(self) -> None:
        """Follows namespaces that come and go."""
        while True:
            await asyncio.sleep(CHECK_S)
            self._service.check()

    async def stop(self) -> None:
        """Closes what is open, and keeps what is known."""
        for writer in self._agents:
            writer.close()
        if self._conversations:
            _, unread = await asyncio.wait(self._conversations, timeout=UNREAD_S)
            for conversation in unread:  # an agent that does not read what is left for it; the next one is told all
                conversation.cancel()
        self._service.close()
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save()
        _log.info("stopped answered=%d silent=%s", self._service.packets.answered, self._silences())

    def _silences(self) -> str:
        return ",".join(f"{reason.name.lower()}:{n}" for reason, n in self._service.packets.counters.items()) or "none"

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes an agent's connection."""
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """First all that the agent may have missed, then its updates in order."""
        self._agents.add(writer)
        updates = 0
        try:
            self._tell(writer, Report(version=__version__))
            for leased in self._service.leases.values():
                self._tell(writer, Report(leased=leased))
            for lease in self._service.packets.given():
                self._tell(writer, Report(given=lease))
            for key, cause in self._service.problems.items():
                self._tell(writer, Report(problem=Problem(key=key, cause=cause)))
            while line := await reader.readline():
                update = decode_update(line)
                if update.ask is not None:
                    self._tell(writer, Report(told=self._service.told(update.ask)))
                    continue
                if update.fence_utc_s is not None:
                    self._service.packets.fence_utc_s = update.fence_utc_s
                    self._save_soon()
                    continue
                if not updates:  # whoever only looks whether somebody serves says nothing, and is no event
                    _log.info("agent connected keys=%d", len(update.set))
                updates += 1
                pools = self._pools(self.document if update.whole else (*update.set, *update.delete))
                self._service.apply(update)
                if any(self.document.get(key) != raw for key, raw in pools.items()):
                    self._save()  # what was taken back is not given again, whatever happens now
                self._save_soon()
                self._tell(writer, Report(ack=update.seq))
                await writer.drain()
        except (msgspec.MsgspecError, ValueError) as error:
            _log.warning("agent sent no update cause=%s", error)
        except ConnectionError:
            pass  # it went; the next one is told all
        finally:
            self._agents.discard(writer)
            writer.close()
            if updates:
                _log.info("agent disconnected updates=%d", updates)

    def _report(self, report: Report) -> None:
        for writer in list(self._agents):
            self._tell(writer, report)
        if report.leased is not None and report.leased.kind is not LeaseKind.OFFERED:
            try:
                self._notes.add(lease_key(report.leased), report.leased)
            except OSError as error:
                _log.warning("lease not noted path=%s cause=%s", self._file, error)
            self._save_soon()

    def _tell(self, writer: asyncio.StreamWriter, report: Report) -> None:
        if writer.transport.get_write_buffer_size() > _UNREAD_LIMIT:
            writer.transport.abort()  # an agent that does not read; it is told all when it comes back
            return
        writer.write(encode_line(report))

    def _save_soon(self) -> None:
        if self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(SAVE_AFTER_S, self._save)

    def _pools(self, keys: Iterable[str]) -> dict[str, bytes]:
        found = ((key, self.document.get(key, b"")) for key in keys)
        return {key: raw for key, raw in found if _HAS_POOL in raw}

    def _memory(self, document: dict[str, msgspec.Raw]) -> memory.Memory:
        fence_utc_s = self._service.packets.fence_utc_s
        return memory.Memory(document=document, leases=self._service.leases, fence_utc_s=fence_utc_s)

    def _save(self) -> None:
        self._save_timer = None
        document = {key: msgspec.Raw(raw) for key, raw in self._service.document.items()}
        try:
            self._notes.save(self._memory(document))
        except OSError as error:
            _log.warning("file not written path=%s cause=%s", self._file, error)
            self._save_timer = asyncio.get_running_loop().call_later(10.0, self._save)


def take_lock(path: Path, until_mono_s: float) -> int | None:
    """A descriptor that holds the lock as long as it is open; None when another process has it until then."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removed the file when it ended: a lock on that one locks nobody out.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BlockingIOError:
            if time.monotonic() >= until_mono_s:
                os.close(descriptor)
                return None
            time.sleep(0.002)
        os.close(descriptor)


def succeed(lock_path: Path, data_plane: str) -> Hearing | None:
    """Asks whoever holds the lock to end, and hears in its place meanwhile: what clients say is read a little later,
    but not lost. None where nothing is to be heard yet."""
    heard = None
    with contextlib.suppress(OSError):
        heard = netns.inside(data_plane, open_socket)
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(lock_path.read_text()), signal.SIGTERM)
    return heard


async def run(
    socket_path: Path, file: Path, data_plane: str, lock_path: Path, succeeds: bool, leases: Path | None = None
) -> int:
    """Serves until SIGTERM or SIGINT, once it has the lock; the exit code. succeeds: whoever has it is to end."""
    responder, heard = Responder(data_plane, file, leases), None
    if succeeds:
        responder.prepare()
        heard = succeed(lock_path, data_plane)
    lock = take_lock(lock_path, time.monotonic() + TAKEOVER_S)
    if lock is None:
        print(f"another responder (pid {lock_path.read_text().strip()}) serves {socket_path}", file=sys.stderr)
        return 1
    try:
        await _serve(responder, socket_path, heard)
    finally:
        lock_path.unlink(missing_ok=True)
        os.close(lock)
    return 0


async def _serve(responder: Responder, socket_path: Path, heard: Hearing | None) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    responder.start(heard)
    socket_path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(responder.serve, socket_path, limit=LINE_LIMIT)
    finally:
        os.umask(before)
    checks = asyncio.create_task(responder.check_forever())
    waiting = asyncio.create_task(ended.wait())
    # A bug in the checks ends the process, and the agent starts it anew.
    await asyncio.wait({checks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    server.close()
    await responder.stop()
    socket_path.unlink(missing_ok=True)
    if checks.done():
        checks.result()
    checks.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 after SIGTERM, 1 when another responder serves the socket."""
    parser = argparse.ArgumentParser(
        prog="playground.responder",
        description="Answers DHCP, router solicitations and DNS for this host's ports, as the agent tells it.",
    )
    parser.add_argument("--socket", type=Path, required=True, help="where the agent connects")
    parser.add_argument("--state", type=Path, required=True, help="file that remembers what the agent told")
    parser.add_argument("--leases", type=Path, help="file that leases from pools are kept in (default: beside --state)")
    parser.add_argument("--netns", default="playground", help="data plane namespace: a name in /run/netns, or a path")
    parser.add_argument("--log", type=Path, help="log file (default: standard error)")
    parser.add_argument("--succeed", action="store_true", help="take the place of the one that serves the socket now")
    given = parser.parse_args(arguments)
    given.socket.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=given.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # A view has two sockets an address, and each question that is forwarded has one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lock_path = given.socket.with_name(given.socket.name + ".lock")
    return asyncio.run(run(given.socket, given.state, given.netns, lock_path, given.succeed, given.leases))
