"""Asks agents, over the sessions that they have, and hands on what they answer. Knows no question's meaning."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import TypeVar

import msgspec

from playground import wire
from playground.controller.execution import ANSWER_S, NotPossible, absence
from playground.controller.sessions import Session, Sessions
from playground.controller.world import World
from playground.questions import Question

T = TypeVar("T")

WAITING = 64
"""Answers to one question that wait to be read."""


class Asking:
    """All questions under way."""

    def __init__(self, world: World, sessions: Sessions) -> None:
        self._world = world
        self._sessions = sessions

    async def ask(self, host: str, question: Question, kind: type[T], timeout_s: float = ANSWER_S) -> T:
        """A host's answer, of the kind that belongs to the question. Raises NotPossible."""
        try:
            async with asyncio.timeout(timeout_s):
                async with aclosing(self.follow(host, question, kind)) as answers:
                    async for answer in answers:
                        return answer
        except TimeoutError:
            raise NotPossible(f"host {host} did not answer within {timeout_s:g} s") from None
        raise NotPossible(f"host {host} had no answer")

    async def ask_all(
        self, hosts: Collection[str], question: Question, kind: type[T], timeout_s: float = ANSWER_S
    ) -> dict[str, T | NotPossible]:
        """Each host's answer, or why there is none; in order of names."""

        async def one(host: str) -> T | NotPossible:
            try:
                return await self.ask(host, question, kind, timeout_s)
            except NotPossible as error:
                return error

        names = sorted(hosts)
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    async def follow(self, host: str, question: Question, kind: type[T]) -> AsyncGenerator[T, None]:
        """Each answer of a host as it comes; that no more are wanted is said when the iterator is closed.

        Raises NotPossible when the host has no session or the session ends, or with what the agent says hinders it.
        """
        session = self._sessions.connected.get(host)
        if session is None:
            raise NotPossible(absence(self._world, host))
        id = secrets.token_hex(8)
        answers: asyncio.Queue[wire.Answer | None] = asyncio.Queue(WAITING)
        session.asked[id] = answers
        is_last = False
        try:
            await session.send(wire.encode(wire.Ask(id, question)))
            while not is_last:
                answer = await answers.get()
                if answer is None:
                    raise NotPossible(f"the connection of host {host} ended before it answered")
                is_last = answer.is_last
                if answer.problem:
                    raise NotPossible(f"host {host}: {answer.problem}")
                yield _decoded(host, answer, kind)
        finally:
            del session.asked[id]
            if not is_last:
                await _say_enough(session, id)


def _decoded(host: str, answer: wire.Answer, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotPossible(f"host {host} answered in words that we don't know: {error}") from None


async def _say_enough(session: Session, id: str) -> None:
    try:
        await session.send(wire.encode(wire.Enough(id)))
    except Exception:  # whatever a lost connection raises: then there is nobody left to tell
        return
