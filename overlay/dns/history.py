"""Pure. Questions that clients asked and got no answer to, for people who ask why a name is not found: the last of each
client, and how many for which reason. Bounded, whatever is asked; decides nothing.

A reply that is kept is not counted again: what is here was asked at least so often.
"""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum
from typing import Final, NamedTuple

from overlay.dns.message import Rcode
from overlay.dns.record import Type

REMEMBERED: Final = 8
"""Questions of one client."""
CLIENTS: Final = 1024
"""Whose questions are remembered; who came first goes first."""
_NAME: Final = 253
"""Longest name in letters."""


class Outcome(Enum):
    """Why there was no answer."""

    NO_SUCH_NAME = "nothing in this playground has that name"
    UNKNOWN_ELSEWHERE = "the site's resolvers know no such name"
    NOT_FORWARDED = "it lies outside, and nobody is asked for that"
    NOT_RESOLVED = "no resolver of the site answered, or they refused"
    CROWDED = "its client had too many questions under way"
    REFUSED = "such questions are refused"
    MALFORMED = "it could not be read, or is of a kind that nobody answers"
    SHED = "it came among so many that others had to be answered first"


_OURS: Final = {Rcode.NXDOMAIN: Outcome.NO_SUCH_NAME, Rcode.REFUSED: Outcome.REFUSED}
_OTHERS: Final = {
    Rcode.NXDOMAIN: Outcome.UNKNOWN_ELSEWHERE,
    Rcode.REFUSED: Outcome.NOT_FORWARDED,
    Rcode.SERVFAIL: Outcome.NOT_RESOLVED,
}


def outcome_of(rcode: int, is_outside: bool) -> Outcome | None:
    """Why a reply is no answer; None for one that is. is_outside: the name is in none of our zones."""
    if not rcode:
        return None
    return (_OTHERS if is_outside else _OURS).get(Rcode(rcode), Outcome.MALFORMED)


class Unanswered(NamedTuple):
    """One question. name: as text, its last dot left out; kind: A, AAAA, …, or TYPE and its number (RFC 3597)."""

    at_utc_s: float
    name: str
    kind: str
    outcome: Outcome


class _Client:
    __slots__ = ("counts", "last")

    def __init__(self) -> None:
        self.counts: Final[Counter[Outcome]] = Counter()
        self.last: Final[deque[tuple[float, bytes, Outcome]]] = deque(maxlen=REMEMBERED)


class History:
    """Of one view's clients, by their addresses."""

    def __init__(self) -> None:
        self._clients: Final[dict[str, _Client]] = {}

    def note(self, client: str, query: bytes, outcome: Outcome, now_utc_s: float) -> None:
        """A question that was not answered; query: its message."""
        found = self._of(client)
        found.counts[outcome] += 1
        found.last.append((now_utc_s, query[12:272], outcome))

    def note_shed(self, clients: Counter[str]) -> None:
        """How many questions of each were thrown away unread."""
        for client, number in clients.items():
            self._of(client).counts[Outcome.SHED] += number

    def counts(self, clients: tuple[str, ...]) -> Counter[Outcome]:
        """Of all these addresses together."""
        return sum((self._clients[one].counts for one in clients if one in self._clients), Counter[Outcome]())

    def last(self, clients: tuple[str, ...]) -> list[Unanswered]:
        """Of all these addresses, oldest first."""
        found = sorted(one for client in clients if client in self._clients for one in self._each(client))
        return [Unanswered(at_utc_s, *_text(question), Outcome(why)) for at_utc_s, question, why in found]

    def _each(self, client: str) -> list[tuple[float, bytes, str]]:
        return [(at_utc_s, question, outcome.value) for at_utc_s, question, outcome in self._clients[client].last]

    def _of(self, client: str) -> _Client:
        found = self._clients.get(client)
        if found is None:
            if len(self._clients) >= CLIENTS:
                del self._clients[next(iter(self._clients))]
            found = self._clients[client] = _Client()
        return found


def _text(question: bytes) -> tuple[str, str]:
    """Name and type; empty for what is no question."""
    at, labels = 0, []
    while at < len(question) and 0 < (label := question[at]) < 64:
        labels.append(question[at + 1 : at + 1 + label].decode("ascii", "backslashreplace"))
        at += 1 + label
    if at + 3 > len(question) or question[at]:
        return "", ""
    number = int.from_bytes(question[at + 1 : at + 3], "big")
    kind = Type(number).name if number in Type.__members__.values() else f"TYPE{number}"
    return ".".join(labels)[:_NAME] or ".", kind
