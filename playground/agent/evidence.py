"""What this host can show of its policies: verdicts that were logged, counters, what the kernel holds, and flows.

Answers the controller's questions (`playground.questions`); keeps a bounded number of verdicts for whoever asks later.
Decides nothing, and changes nothing but connection tracking when a guest comes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, assert_never

import msgspec

from overlay.state import PortId, port_device
from playground import wire
from playground.agent.logged import Logged
from playground.derive.policing import Tracked
from playground.questions import (
    MOST_FLOWS,
    Checked,
    CheckPolicies,
    Count,
    Counted,
    CountVerdicts,
    Flows,
    FollowVerdicts,
    Mended,
    PortFlows,
    TakeFlows,
    Taken,
    TellArrival,
    TellClients,
    TellDeparture,
    TellFlows,
    TellLeaving,
    Verdict,
    Verdicts,
)
from policies.compile.judges import counter_name
from policies.compile.playground import Compiled
from policies.compile.tables import Ruleset, Table
from policies.compile.ways import TABLE
from policies.flows import SEEN_REPLY, Among, Flow, concerns, is_sound
from policies.guard import parts as guard
from policies.kernel.conntrack import Conntrack
from policies.kernel.nflog import LogSocket
from policies.kernel.nft import NftError
from policies.prove import Claim
from policies.verdicts import LOG_GROUP, Judgement, Judgements, LoggedPacket

KEPT = 2000
"""Verdicts that are kept for whoever begins to follow."""

AT_ONCE = 500
"""Verdicts in one answer."""

TOLD = 50
"""Differences in one answer."""

TRIES = 3
"""How often the kernel is read back while the agent keeps changing it."""

GATHERED_S = 0.1
"""How long what is followed gathers before it is said."""


_OBJECT = re.compile(r"\b(?:[epir]_[0-9a-f]{12}(?:_[0-9a-f]+)?|j[0-9a-f]{12})\b")
"""A chain's or a counter's name."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What this agent has put into the kernel last, or tried to. policed: bridges whose packets meet the rules.
    tracked: by port, of those that have an end here and that somebody polices. compiled: playgrounds."""

    ruleset: Ruleset = field(default_factory=dict)
    policed: frozenset[str] = frozenset()
    judgements: Judgements = field(default_factory=dict)
    tracked: Mapping[str, Tracked] = field(default_factory=dict)
    compiled: tuple[Compiled, ...] = ()


def named(text: str, compiled: Collection[Compiled]) -> str:
    """The same, with whom the first chain, or what the first counter, is about."""
    for object in _OBJECT.findall(text):
        for one in compiled:
            if object in one.names:
                return text.replace(object, f"{object} ({one.names[object]})", 1)
    return text


class Door(Protocol):
    """The kernel's rules as evidence needs them (`policies.kernel.enforcement.Enforcement`, or its double). Both read
    the kernel, and raise OSError and NftError."""

    def differences(
        self, ruleset: Ruleset, policed: frozenset[str], claims: Sequence[tuple[Table, Claim]]
    ) -> list[str]: ...

    def counters(self) -> Mapping[tuple[str, str], tuple[int, int]]: ...


class Evidence:
    """One host's. Lives in the agent's loop; whatever reads the kernel does so in a thread."""

    def __init__(
        self,
        namespace: Path,
        door: Door,
        in_force: Callable[[], InForce],
        say: Callable[[wire.Answer], Awaitable[bool]],
        mended: Callable[[], Iterable[Mended]] = tuple,
    ) -> None:
        """namespace: the data plane's path. in_force: what is so now, the same object while nothing changes; mended:
        what was put back lately; both are called from any thread. say: sends an answer, false when there is no
        connection."""
        self._namespace = namespace
        self._door = door
        self._in_force = in_force
        self._say = say
        self._mended = mended
        self._logged = Logged(namespace, LOG_GROUP, "verdicts", self._hear)
        self._kept: deque[Verdict] = deque(maxlen=KEPT)
        self._lost = 0
        self._begun = self._number = time.time_ns() // 1000
        self._news = asyncio.Event()
        self._answering: dict[str, asyncio.Task[None]] = {}

    def listen(self) -> None:
        """Hears what rules log in the data plane's namespace. Cheap."""
        self._logged.listen()

    def close(self) -> None:
        """Hears and answers no more."""
        self.forget()
        self._logged.close()

    def asked(self, ask: wire.Ask) -> None:
        """Begins to answer a question about policies."""
        task = asyncio.create_task(self._answer(ask))
        self._answering[ask.id] = task
        task.add_done_callback(lambda _: self._answering.pop(ask.id, None))

    def enough(self, enough: wire.Enough) -> None:
        """Ends an answer."""
        if (task := self._answering.get(enough.id)) is not None:
            task.cancel()

    def forget(self) -> None:
        """Whoever asked is gone."""
        for task in self._answering.values():
            task.cancel()

    def _hear(self, logged: LogSocket) -> None:
        known = self._in_force().judgements
        lost = logged.lost
        for packet in logged.read(time.time()):
            if (judgement := known.get(packet.id)) is not None:
                self._number += 1
                self._kept.append(_verdict(self._number, judgement, packet))
        self._lost += logged.lost - lost
        self._news.set()

    async def _answer(self, ask: wire.Ask) -> None:
        try:
            if isinstance(ask.question, FollowVerdicts):
                await self._follow(ask.id, ask.question)
                return
            if isinstance(ask.question, TellClients | TellDeparture | TellArrival | TellLeaving):
                return  # the responder's, and the drivers'
            body = await asyncio.to_thread(self._found, ask.question)
        except (OSError, NftError) as error:
            await self._say(wire.Answer(ask.id, msgspec.Raw(b"null"), problem=str(error)))
            return
        await self._say(wire.Answer(ask.id, msgspec.Raw(msgspec.json.encode(body))))

    def _found(self, question: CheckPolicies | CountVerdicts | TellFlows | TakeFlows) -> object:
        """Raises OSError, NftError."""
        match question:
            case CheckPolicies():
                return Checked(self._differences(), list(self._mended()))
            case CountVerdicts():
                return Counted(list(self._counted(question.playground)))
            case TellFlows():
                return self.flows(question.ports)
            case TakeFlows():
                return self.take(question.flows)
            case _:
                assert_never(question)

    async def _follow(self, id: str, question: FollowVerdicts) -> None:
        """Until it is cancelled, or nobody hears it. What is lost before it began is not told."""
        after, lost = question.after, self._lost
        is_first = True
        while True:
            self._news.clear()
            rows = [row for row in self._kept if row.number > after]
            while rows or is_first:
                is_first = False
                part, rows = rows[:AT_ONCE], rows[AT_ONCE:]
                after = part[-1].number if part else after
                said = Verdicts(part, self._lost - lost, self._begun)
                lost = self._lost
                if not await self._say(wire.Answer(id, msgspec.Raw(msgspec.json.encode(said)), is_last=False)):
                    return
            await self._news.wait()
            await asyncio.sleep(GATHERED_S)

    def _differences(self) -> list[str]:
        """Between the kernel and one state that was put there; of many, some and how many more."""
        for _ in range(TRIES):
            wanted = self._in_force()
            found = self._door.differences(
                wanted.ruleset, wanted.policed, [(TABLE, one.claim) for one in wanted.compiled]
            )
            if not found or self._in_force() is wanted:
                break
        told, more = [named(text, wanted.compiled) for text in found[:TOLD]], len(found) - TOLD
        return [*told, f"and {more} more"] if more > 0 else told

    async def stopped(self, ports: Iterable[str]) -> dict[str, int]:
        """By port id how many questions for names its guard has stopped, where it has any; nothing where that can't be
        read: whoever asks is told elsewhere that the rules can't."""
        try:
            counters = await asyncio.to_thread(self._door.counters)
        except (OSError, NftError):
            return {}
        names = {port: (guard.TABLE[1], guard.questions_counter(port_device(PortId(port)))) for port in ports}
        return {port: counters[name][0] for port, name in names.items() if counters.get(name, (0, 0))[0]}

    def _counted(self, playground: str) -> Iterable[Count]:
        known = self._in_force().judgements.values()
        counters = self._door.counters()
        for one in sorted((one for one in known if one.playground == playground), key=lambda one: one.id):
            packets, octets = counters.get((TABLE[1], counter_name(one)), (0, 0))
            yield Count(
                one.tier.value,
                one.policies,
                one.direction.value,
                one.rule,
                one.is_allowed,
                one.is_staged,
                packets,
                octets,
            )

    def flows(self, ports: Collection[str]) -> Flows:
        """Flows of ports that have an end here. Raises OSError."""
        tracked_here = self._in_force().tracked
        known = {port: tracked_here[port] for port in ports if port in tracked_here}
        found: list[PortFlows] = []
        left = MOST_FLOWS
        beyond = 0
        if known:
            door = Conntrack(self._namespace)
            try:
                for port, tracked in sorted(known.items()):
                    listed = sorted(door.flows(tracked.zone, tracked.addresses), key=_comes_last)
                    found.append(PortFlows(port, listed[:left]))
                    beyond += max(0, len(listed) - left)
                    left -= len(found[-1].flows)
            finally:
                door.close()
        return Flows(found, beyond)

    def take(self, told: Collection[PortFlows]) -> Taken:
        """Has flows of ports known here; those that are not of their ports are refused. Raises OSError."""
        wanted: list[Flow] = []
        refused, cause = 0, ""
        tracked_here = self._in_force().tracked
        for one in told:
            tracked = tracked_here.get(one.port)
            if tracked is None:
                continue
            theirs = Among(tracked.addresses)
            own = [flow for flow in one.flows if is_sound(flow) and concerns(flow, theirs)]
            if len(own) < len(one.flows):
                refused, cause = refused + len(one.flows) - len(own), "they are none of their port's"
            wanted += (replace(flow, zone=tracked.zone) for flow in own)
        wanted, beyond = wanted[:MOST_FLOWS], wanted[MOST_FLOWS:]
        if beyond:
            refused, cause = refused + len(beyond), "they are too many"
        if wanted:
            door = Conntrack(self._namespace)
            try:
                failed = door.put(wanted)
            finally:
                door.close()
            if failed:
                refused, cause = refused + len(failed), str(failed[0][1])
            return Taken(len(wanted) - len(failed), refused, cause)
        return Taken(0, refused, cause)


def _comes_last(flow: Flow) -> bool:
    """Whether others go first: a flow that was answered is lost more."""
    return not flow.status & SEEN_REPLY


def _verdict(number: int, judgement: Judgement, packet: LoggedPacket) -> Verdict:
    return Verdict(
        number,
        packet.utc_s,
        judgement.playground,
        judgement.tier.value,
        judgement.policies,
        judgement.direction.value,
        judgement.rule,
        judgement.is_allowed,
        judgement.is_staged,
        packet.protocol,
        packet.source,
        packet.destination,
        packet.ports,
        packet.icmp_type,
    )
