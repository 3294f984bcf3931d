"""What hosts show of their policies, put together for people: verdicts as they are logged, counts, and whether kernels
hold what they should. Keeps nothing but the verdicts of those who follow just now."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from playground.controller.asking import Asking
from playground.controller.execution import NotPossible
from playground.controller.sessions import Session, Sessions
from playground.controller.world import Grid, World
from playground.gateways import gateway_name
from playground.questions import (
    Checked,
    CheckPolicies,
    Count,
    Counted,
    CountVerdicts,
    FollowVerdicts,
    Verdict,
    Verdicts,
)
from playground.spec.ports import ICMP_KINDS
from policies.flows import ICMP, ICMPV6
from policies.model import Tier

log = logging.getLogger("controller")

Json = dict[str, Any]

KEPT = 20_000
"""Verdicts that whoever follows has to read in time."""

Marks = dict[str, int]
"""By host, the number up to which somebody has been told its verdicts."""

IDLE_S = 30.0
"""Who has not asked for that long follows no more."""

FIRST_S = 3.0
"""How long the verdicts that hosts have kept are waited for."""

LOOK_S = 0.5
"""How often it is looked for hosts that have come."""

CHECK_S = 120.0
"""How long a host may read its kernel back."""

MARKS = "^([a-z0-9-]{1,63}:[0-9]{1,18}(,[a-z0-9-]{1,63}:[0-9]{1,18})*)?$"
"""What may be asked after: the marks of each host, as the last answer wrote them."""

_DEVICE = re.compile(r"(?:\b|_)(pg|vx|br|lg)([0-9a-f]{12})\b")

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_ICMP6_AS_4 = {1: 3, 2: 3, 3: 11, 4: 12, 128: 8, 129: 0, 133: 10, 134: 9, 137: 5}
_KINDS = {number: kind for kind, number in ICMP_KINDS.items()}


@dataclass(slots=True)
class _Followed:
    """Verdicts of all hosts while somebody follows. heard: the last number of each host; begun: the number from which
    its agent counts; greeted: the sessions of those that have said what they kept, or why they can't."""

    rows: deque[tuple[str, Verdict]] = field(default_factory=lambda: deque(maxlen=KEPT))
    lost: int = 0
    heard: Marks = field(default_factory=lambda: defaultdict(int))
    begun: Marks = field(default_factory=dict)
    tasks: dict[Session, asyncio.Task[None]] = field(default_factory=dict)
    greeted: set[Session] = field(default_factory=set)

    def after(self, marks: Marks) -> list[tuple[str, Verdict]]:
        """What was not told yet, as it came."""
        return [(host, row) for host, row in self.rows if row.number > marks.get(host, 0)]

    def missed(self, marks: Marks, rows: list[tuple[str, Verdict]]) -> list[Json]:
        """What lies between the marks and `rows` and can't be told any more, by host. Of a host without a mark nothing
        was promised."""
        first: Marks = {}
        for host, row in rows:
            first.setdefault(host, row.number)
        found: list[Json] = []
        for host, begun in sorted(self.begun.items()):
            if (mark := marks.get(host)) is None:
                continue
            gone = first[host] - max(mark, begun) - 1 if host in first else 0
            if gone or begun > mark:
                found.append({"host": host, "verdicts": gone, "restarted": begun > mark})
        return found

    def marks(self, before: Marks) -> Marks:
        """What is told once all is, that is here."""
        return before | {host: max(self.heard[host], begun) for host, begun in self.begun.items()}


class Evidence:
    """One controller's."""

    def __init__(
        self, world: World, sessions: Sessions, asking: Asking, called: Callable[[str, str], str] = lambda _, name: name
    ) -> None:
        """called: what people call a policy by its playground ("" for the site's) and its record's name."""
        self._called = called
        self._world = world
        self._sessions = sessions
        self._asking = asking
        self._followed = _Followed()
        self._following: asyncio.Task[None] | None = None
        self._asked_s = 0.0
        self._readers = 0
        self._grown = asyncio.Condition()

    # verdicts

    async def verdicts(self, playground: str | None, after: str, wait_s: float) -> Json:
        """Verdicts beyond `after`, by time: `{verdicts, last, lost, missed}`. Waits up to `wait_s` for the first.

        last: what to ask after next, of any controller of the site. lost: how many could not be told since the
        following began; missed: `[{host, verdicts, restarted}]`, what hosts no longer have since `after`. The first who
        asks has all hosts followed, and everything that they kept; who does not ask again for `IDLE_S` ends it.
        """
        marks = _read_marks(after)
        if self._following is None or self._following.done():
            self._followed = _Followed()
            self._following = asyncio.create_task(self._follow())
        followed = self._followed
        self._readers += 1
        try:
            await self._until(lambda: followed.greeted.issuperset(self._sessions.connected.values()), FIRST_S)
            if wait_s:
                await self._until(
                    lambda: any(playground in (None, row.playground) for _, row in followed.after(marks)), wait_s
                )
        finally:
            self._readers -= 1
            self._asked_s = asyncio.get_running_loop().time()
        rows = followed.after(marks)
        named = _Names(self._world)
        told = [
            named.verdict(host, row) | self._rule(row.playground, row)
            for host, row in sorted(rows, key=lambda one: one[1].utc_s)
            if playground in (None, row.playground)
        ]
        last = _marks_text(followed.marks(marks))
        return {"verdicts": told, "last": last, "lost": followed.lost, "missed": followed.missed(marks, rows)}

    async def _until(self, is_so: Callable[[], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds), self._grown:
                await self._grown.wait_for(is_so)
        except TimeoutError:
            return

    async def _follow(self) -> None:
        """Follows every host that is connected, until nobody asks any more."""
        followed, loop = self._followed, asyncio.get_running_loop()
        try:
            while self._readers or loop.time() - self._asked_s < IDLE_S:
                for session in self._sessions.connected.values():
                    if session not in followed.tasks:
                        followed.tasks[session] = asyncio.create_task(self._follow_host(followed, session))
                await asyncio.sleep(LOOK_S)
        finally:
            for task in followed.tasks.values():
                task.cancel()
            await asyncio.gather(*followed.tasks.values(), return_exceptions=True)

    async def _follow_host(self, followed: _Followed, session: Session) -> None:
        host = session.host
        try:
            question = FollowVerdicts(followed.heard[host])
            async with aclosing(self._asking.follow(host, question, Verdicts)) as answers:
                async for answer in answers:
                    async with self._grown:
                        followed.begun[host] = answer.begun
                        for row in answer.rows:
                            followed.rows.append((host, row))
                            followed.heard[host] = row.number
                        followed.lost += answer.lost
                        followed.greeted.add(session)
                        self._grown.notify_all()
        except NotPossible as error:
            log.info("verdicts not followed host=%s cause=%s", host, error)
        finally:
            async with self._grown:
                followed.greeted.add(session)
                self._grown.notify_all()

    # counters, and what kernels hold

    async def counters(self, playground: str) -> Json:
        """What each rule decided, summed over the hosts: `{counters, unobserved}`."""
        answers = await self._asking.ask_all(self._hosts(playground), CountVerdicts(playground), Counted)
        sums: dict[tuple[object, ...], tuple[Count, int, int]] = {}
        for answer in answers.values():
            for row in () if isinstance(answer, NotPossible) else answer.rows:
                key = (row.tier, row.policies, row.direction, row.rule, row.is_allowed, row.is_staged)
                _, packets, octets = sums.get(key, (row, 0, 0))
                sums[key] = row, packets + row.packets, octets + row.bytes
        rows = [
            {"playground": playground, **self._rule(playground, row), "packets": packets, "bytes": octets}
            for row, packets, octets in sums.values()
        ]
        rows.sort(key=lambda row: (row["tier"], row["policies"], row["direction"], row["rule"]))
        return {"counters": rows, "unobserved": _unobserved(answers)}

    async def verify(self, playground: str | None) -> Json:
        """Whether the kernels of all hosts, or of a playground's, hold what they should: `{hosts, differences,
        mended, unobserved}`. mended: what agents have put back lately."""
        hosts = self._hosts(playground) if playground is not None else set(self._world.hosts)
        answers = await self._asking.ask_all(hosts, CheckPolicies(), Checked, CHECK_S)
        found = {host: answer for host, answer in answers.items() if not isinstance(answer, NotPossible)}
        differences = [
            {"host": host, "difference": self._placed(text)}
            for host, answer in found.items()
            for text in answer.differences
        ]
        mended = [
            {"host": host, "at": round(one.utc_s, 3), "difference": self._placed(one.text)}
            for host, answer in found.items()
            for one in answer.mended
        ]
        return {
            "hosts": len(found),
            "differences": differences,
            "mended": sorted(mended, key=lambda row: row["at"]),
            "unobserved": _unobserved(answers),
        }

    def _placed(self, text: str) -> str:
        """The same, with the port or network that its first device is of."""
        for device in _DEVICE.finditer(text):
            if (name := self._device(device[1], device[2])) is not None:
                at = device.end() + text.startswith('"', device.end())
                return f"{text[:at]} ({name}){text[at:]}"
        return text

    def _device(self, kind: str, id: str) -> str | None:
        world = self._world
        if kind == "pg":
            port = world.grids[world.homes[id]].ports.get(id) if id in world.homes else None
            return f"{port.workspace} on {port.network}" if port is not None else None
        networks = (grid.networks[id] for grid in world.grids.values() if id in grid.networks)
        return next((f"network {network.playground}/{network.name}" for network in networks), None)

    def _rule(self, playground: str, row: Verdict | Count) -> Json:
        owner = playground if row.tier == Tier.OWNER.value else ""
        return {
            "tier": row.tier,
            "policies": [self._called(owner, name) for name in row.policies],
            "direction": row.direction,
            "rule": row.rule,
            "verdict": "allow" if row.is_allowed else "deny",
            "staged": row.is_staged,
        }

    def _hosts(self, playground: str) -> Collection[str]:
        return self._world.ties.hosts(playground)


def _read_marks(text: str) -> Marks:
    """What `_marks_text` wrote; the API has checked it (`MARKS`)."""
    return {host: int(number) for host, _, number in (one.rpartition(":") for one in text.split(",") if one)}


def _marks_text(marks: Marks) -> str:
    return ",".join(f"{host}:{number}" for host, number in sorted(marks.items()))


def _unobserved(answers: dict[str, Any]) -> list[Json]:
    found = [(host, answer) for host, answer in answers.items() if isinstance(answer, NotPossible)]
    return [{"host": host, "cause": str(cause)} for host, cause in found]


class _Names:
    """Who has which address, as it is now; made once for many verdicts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, dict[str, str]] = {}

    def verdict(self, host: str, row: Verdict) -> Json:
        """A verdict as people read it. from, to: a workspace's name or `@services`, else the address."""
        if (known := self._known.get(row.playground)) is None:
            known = self._known[row.playground] = _addresses(self._world.grids.get(row.playground))
        return {
            "at": round(row.utc_s, 3),
            "playground": row.playground,
            "from": known.get(row.source, row.source),
            "to": known.get(row.destination, row.destination),
            "from_address": row.source,
            "to_address": row.destination,
            "port": _port_text(row),
            "host": host,
        }


def _addresses(grid: Grid | None) -> dict[str, str]:
    if grid is None:
        return {}
    found = {gateway: "@services" for network in grid.networks.values() for gateway in network.gateways}
    for port in grid.ports.values():
        gateway = gateway_name(port.workspace)
        found |= dict.fromkeys(port.addresses, port.workspace if gateway is None else f"@gateway/{gateway}")
    return found


def _port_text(row: Verdict) -> str:
    """`tcp/22`, `icmp/echo`; `ip/47` for another protocol."""
    if row.protocol in (ICMP, ICMPV6):
        if row.icmp_type is None:
            return "icmp"
        type_ = row.icmp_type if row.protocol == ICMP else _ICMP6_AS_4.get(row.icmp_type)
        return f"icmp/{_KINDS.get(type_, type_)}" if type_ is not None else f"icmpv6/{row.icmp_type}"
    word = _PROTOCOLS.get(row.protocol)
    if word is None:
        return f"ip/{row.protocol}"
    return f"{word}/{row.ports[1]}" if row.ports is not None else word
