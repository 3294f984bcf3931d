"""The agent's end of the responder's socket: it is told what should be answered, and tells what happened there."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from dhcp.leases import Lease
from playground.responder.protocol import (
    DATA_PLANE_KEY,
    LINE_LIMIT,
    Ask,
    Leased,
    PortTold,
    Problem,
    Router,
    Update,
    Value,
    decode_report,
    encode_line,
    encode_value,
)

RETRY_S: Final = 0.2
ASK_S: Final = 5.0
_log = logging.getLogger(__name__)


class Client:
    """Keeps the responder at the map that it was given last.

    `replace`, `set`, `delete` and `forget` return at once and are coalesced: only what differs from what the responder
    was told is sent, in one update; after a reconnect, the whole map. `run` does the talking until cancelled. From its
    task it
    calls on_leased, on_given, on_problem, and on_effect when all that was wanted is acknowledged. A connection begins
    with every lease and problem there is, so some are heard twice.
    """

    def __init__(
        self,
        socket: Path,
        on_leased: Callable[[Leased], None],
        on_problem: Callable[[Problem], None],
        on_effect: Callable[[], None] = lambda: None,
        on_given: Callable[[Lease], None] = lambda lease: None,
        on_router: Callable[[Router], None] = lambda router: None,
    ) -> None:
        """on_given: hears of leases from pools; on_router: where virtual routers speak."""
        self._socket: Final = socket
        self._on_leased = on_leased
        self._on_problem = on_problem
        self._on_effect = on_effect
        self._on_given = on_given
        self._on_router = on_router
        self._fence_utc_s: float | None = None
        self._wanted: dict[str, Value] = {}
        self._told: dict[str, Value] | None = None
        self._seq = 0
        self._in_effect = asyncio.Condition()
        self._acked = 0
        self._effective: dict[str, Value] = {}
        self._forgotten: set[str] = set()
        self._changed = asyncio.Event()
        self._is_given = False
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[tuple[PortTold, ...]]] = {}
        self._questions = itertools.count()
        self.is_connected = False
        self.version = ""
        """The responder's; empty until one has said it."""
        self.problems: Final[dict[str, str]] = {}
        """What is not in effect now, key → cause."""

    def replace(self, document: Mapping[str, Value]) -> None:
        """The whole map from now on."""
        if not self._is_given or self._wanted != document:
            self._wanted = dict(document)
            self._is_given = True
            self._changed.set()

    def set(self, document: Mapping[str, Value]) -> None:
        """These keys from now on, beside the others."""
        self._wanted.update(document)
        self._is_given = True
        self._changed.set()

    def delete(self, keys: Iterable[str]) -> None:
        """Not these keys any more."""
        for key in keys:
            self._wanted.pop(key, None)
        self._changed.set()

    def forget(self, keys: Iterable[str]) -> None:
        """What clients did at these keys is forgotten, for others come in their place; the keys keep their values.

        They do not count as answered until the responder has done so.
        """
        self._forgotten.update(keys)
        self._effective = {key: value for key, value in self._effective.items() if key not in self._forgotten}
        self._changed.set()

    def fence(self, utc_s: float) -> None:
        """When no pool is to be given from any more, as said last."""
        self._fence_utc_s = utc_s
        if self._writer is not None:
            self._writer.write(encode_line(Update(seq=0, fence_utc_s=utc_s)))

    async def ask(self, ports: Iterable[str], timeout_s: float = ASK_S) -> tuple[PortTold, ...]:
        """What happened at ports, by id. Raises OSError where no responder says."""
        if self._writer is None:
            raise ConnectionError("the responder is not connected")
        id = next(self._questions)
        answer: asyncio.Future[tuple[PortTold, ...]] = asyncio.get_running_loop().create_future()
        self._asked[id] = answer
        try:
            self._writer.write(encode_line(Update(seq=0, ask=Ask(id=id, ports=tuple(ports)))))
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            del self._asked[id]

    @property
    def has_told(self) -> bool:
        """Whether a responder has ever said all that it knows of clients, which comes before its first answer."""
        return self._acked > 0

    @property
    def has_caught_up(self) -> bool:
        """Whether the responder answers by all that is wanted now, and has told of all that it did before."""
        return self.is_connected and not self._changed.is_set() and self._acked == self._seq > 0

    def answers(self, key: str) -> bool:
        """Whether the responder answers by the key's present value."""
        value = self._wanted.get(key)
        if not self.is_connected or value is None or self._effective.get(key) != value or key in self.problems:
            return False
        return not (key.startswith("port/") and DATA_PLANE_KEY in self.problems)

    async def settled(self) -> None:
        """Returns once the responder has acknowledged everything wanted so far; waits for ever while there is none.

        A key with a problem is acknowledged too: `on_problem` was called for it before.
        """
        async with self._in_effect:
            await self._in_effect.wait_for(lambda: not self._changed.is_set() and self._acked == self._seq)

    async def run(self) -> None:
        """Connects, and connects again when the responder went; returns only by cancellation."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._socket, limit=LINE_LIMIT)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._begin()
            self._writer = writer
            if self._fence_utc_s is not None:
                self.fence(self._fence_utc_s)
            try:
                async with asyncio.TaskGroup() as group:
                    telling = group.create_task(self._tell(writer))
                    await self._listen(reader)
                    telling.cancel()
            except* (OSError, ValueError, msgspec.MsgspecError) as errors:
                _log.warning("responder connection failed cause=%s", errors.exceptions[0])
            finally:
                self.is_connected = False
                self._writer = None
                writer.close()
                for answer in self._asked.values():
                    if not answer.done():
                        answer.set_exception(ConnectionError("the responder went"))
            _log.warning("responder went, connecting again socket=%s", self._socket)
            await asyncio.sleep(RETRY_S)

    def _begin(self) -> None:
        """A new connection: the responder may know nothing, and tells every problem that there is."""
        self.is_connected = True
        self._told = None
        self._effective = {}
        self._changed.set()
        for key in list(self.problems):
            self._problem(Problem(key=key, cause=""))
        _log.info("responder connected socket=%s", self._socket)

    def _problem(self, problem: Problem) -> None:
        if problem.cause:
            self.problems[problem.key] = problem.cause
        else:
            self.problems.pop(problem.key, None)
        self._on_problem(problem)

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._changed.wait()
            update = self._next_update()
            self._changed.clear()
            if update is None:
                await self._notify()
                continue
            writer.write(encode_line(update))
            try:
                await writer.drain()
            except OSError:  # `_listen` sees the end of the connection too, and `run` begins anew
                return

    def _next_update(self) -> Update | None:
        if not self._is_given:
            return None  # an agent that has just started: what the responder remembers goes on until it knows better
        told = self._told
        wanted = dict(self._wanted)
        gone = sorted(self._forgotten)  # a key that is deleted and set in one update begins from nothing
        if told is None:
            changed = wanted
        else:
            changed = {
                k: v for k, v in wanted.items() if ((was := told.get(k)) is not v and was != v) or k in self._forgotten
            }
            gone += [key for key in told if key not in wanted and key not in self._forgotten]
            if not changed and not gone:
                return None
        self._forgotten.clear()
        self._seq += 1
        self._told = wanted
        encoded = {key: encode_value(value) for key, value in changed.items()}
        return Update(seq=self._seq, set=encoded, delete=tuple(gone), whole=told is None)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            report = decode_report(line)
            if report.leased is not None:
                self._on_leased(report.leased)
            if report.given is not None:
                self._on_given(report.given)
            if report.router is not None:
                self._on_router(report.router)
            if report.problem is not None:
                self._problem(report.problem)
            if report.version is not None:
                self.version = report.version
            if report.told is not None:
                answer = self._asked.get(report.told.id)
                if answer is not None and not answer.done():
                    answer.set_result(report.told.ports)
            if report.ack is not None:
                self._acked = report.ack
                if self._acked == self._seq and self._told is not None:
                    self._effective = self._told
                    self._on_effect()
                await self._notify()

    async def _notify(self) -> None:
        async with self._in_effect:
            self._in_effect.notify_all()
