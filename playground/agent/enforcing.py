"""Has the rules of this host in force before frames pass: the keeper of the data plane's ports. Decides no rule.

A port is let into its bridge once the kernel holds the rules of its device, of its network's tunnel and, where somebody
polices it, of its playground. What leaves is shut first and taken away after its port. Rules that can't be put in force
keep out the ports that would be without them; what was in force before stays so.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from overlay.state import PortId, port_device
from playground.agent.evidence import InForce, named
from playground.agent.tables import GuardTable, JudgementsOf, PolicyTable
from playground.derive.guarding import shut_device
from playground.derive.policing import Tracked
from playground.derive.rules import GUARD, NO_RULES, POLICY, Rules
from playground.questions import Mended
from policies.compile.tables import Part, Parts, Ruleset, Table
from policies.guard import answers
from policies.kernel.enforcement import Outcome
from policies.prove import Claim

KEPT = 50
"""Of what somebody else had changed."""


class Door(Protocol):
    """The kernel's rules as the agent uses them (`policies.kernel.enforcement.Enforcement`, or its double)."""

    def fileno(self) -> int: ...

    def converge(self, ruleset: Ruleset, policed: frozenset[str], *, is_doubted: bool = False) -> Outcome: ...

    def can_police(self) -> str | None: ...

    def touched(self) -> bool: ...

    def differences(
        self, ruleset: Ruleset, policed: frozenset[str], claims: Sequence[tuple[Table, Claim]]
    ) -> list[str]: ...

    def counters(self) -> Mapping[tuple[str, str], tuple[int, int]]: ...


class Enforcing:
    """One host's rules. `want` and `settle` bracket a converge of the data plane, which asks `watch` and `holds`.

    cause: why what is wanted is not all in force; cannot_police: why this host can enforce no policy; both empty when
    all is well. repaired: what somebody else had changed since the agent started, by kind of object. in_force: what was
    put, or tried to be put, into the kernel last.
    """

    def __init__(self, door: Door) -> None:
        self.cause = ""
        self.cannot_police = ""
        self.repaired: Counter[str] = Counter()
        self.mended: deque[Mended] = deque(maxlen=KEPT)
        """What that was, the last of it."""
        self.in_force = InForce()
        self._door = door
        self._rules = NO_RULES
        self._guards, self._policies = GuardTable(), PolicyTable()
        self._guard_read: object = None
        self._guard_table: Parts = {}
        self._devices: dict[str, int] = {}
        """Indexes by name, as they were found last."""
        self._bridges: dict[str, int] = {}
        """Those that send their packets through the rules, and the indexes that they had then."""
        self._answering: dict[str, int] = {}
        """Those of them whose refused packets there is somebody to answer: not before they were put in force once."""
        self._is_blind = True
        """No device has been looked for yet in this namespace: what its ports have now must not be taken away."""
        self._guarded: dict[str, int] = {}
        """Devices whose rules the kernel holds, and the indexes that they had then."""
        self._policed: frozenset[str] = frozenset()
        """Playgrounds (by id) whose rules the kernel holds."""
        self._closing: dict[str, Mapping[Hashable, Part]] = {}
        """By device what stays until `settle`: a port that closes still passes what was on its way, until that is sent
        after its workspace."""
        self._unpoliced: frozenset[str] = frozenset()
        """Bridges whose packets don't meet the rules that they should."""

    def want(self, rules: Rules, is_due: bool = False, is_doubted: bool = False) -> set[PortId]:
        """Puts rules in force, as far as their devices are known; devices that nobody wants are shut until `settle`.
        is_due: look whether somebody else has changed anything; is_doubted: read all back. Returns ports on
        which the hold may have changed."""
        if rules is self._rules and not is_due and not is_doubted:
            return set()
        before = self._closed()
        if is_doubted:
            self.cannot_police = self._door.can_police() or ""
        for device, parts in rules.guards.items() if rules.guards is not self._rules.guards else ():
            known = self._rules.guards.get(device)
            if known is not None and known is not parts and _is_shut(parts) and not _is_shut(known):
                self._closing[device] = self._closing.get(device, known)
        self._closing = {name: old for name, old in self._closing.items() if _is_shut(rules.guards.get(name, {}))}
        self._rules = rules
        if not self._is_blind:
            self._load(is_doubted)
        if before == (after := self._closed()):
            return set()
        return {port for port, needs in rules.needs.items() if {needs.playground, needs.bridge} & (before ^ after)}

    def settle(self) -> None:
        """What nobody wants is in no bridge any more, and where a port has closed its frames go another way."""
        unwanted = self._devices.keys() - self._rules.guards.keys()
        if unwanted or self._closing:
            for device in unwanted:
                del self._devices[device]
            self._closing = {}
            self._load()

    def watch(self, devices: Mapping[str, int | None], bridges: Mapping[str, int | None]) -> None:
        """Hears which devices and bridges there are, before ports are let in; None: it was looked for and is not
        there. A bridge made anew sends no packet through the rules until it is told to."""
        news = {name: index for name, index in devices.items() if self._devices.get(name) != index}
        policed = {name: index for name, index in bridges.items() if name in self.in_force.policed}
        is_renewed = any(index is not None and self._bridges.get(name) != index for name, index in policed.items())
        self._bridges.update((name, index) for name, index in policed.items() if index is not None)
        was_blind, self._is_blind = self._is_blind, False
        for name in news:
            self._devices.pop(name, None)  # with a device its chains may have gone: it begins from nothing
        if self._guarded.keys() & news.keys():
            self._load()
        self._devices.update((name, index) for name, index in news.items() if index is not None)
        if was_blind or is_renewed or self._devices.keys() & news.keys():
            self._load()
        self._unpoliced |= {name for name, index in policed.items() if index is None}

    def forget(self) -> None:
        """What was found before counts no more; it is looked for, and put in force, again."""
        self._guarded, self._policed, self._bridges, self._answering = {}, frozenset(), {}, {}
        self._is_blind = True

    def holds(self, port: PortId) -> str:
        """Why a port must not be in its bridge; empty when it may."""
        needs = self._rules.needs.get(port)
        if needs is None:
            return "no rules are made for it"
        for device in (port_device(port), needs.tunnel):
            if device not in self._guarded or self._guarded[device] != self._devices.get(device):
                return self.cause or f"the rules of {device} are not in force"
        if needs.playground in self._rules.policing and {needs.playground, needs.bridge} & self._closed():
            return self.cannot_police or self.cause or "its playground's policies are not in force"
        return ""

    def _judging(self) -> set[str]:
        """Playgrounds whose packets all meet their rules, so that one which does not is stopped."""
        found = self._policed & self._rules.policing.keys()
        return {id for id in found if not self._rules.policing[id].compiled.bridges & self._unpoliced}

    def _closed(self) -> set[str]:
        """Playgrounds and bridges whose ports stay out, though their own rules may be in force."""
        return {*(self._rules.policing.keys() - self._policed), *self._unpoliced}

    def _load(self, is_doubted: bool = False) -> None:
        """Twice where a playground begins to be policed: only once its packets meet its rules are they asked for."""
        before = self._policed, self._unpoliced, self._answering
        self._put(is_doubted)
        if (self._policed, self._unpoliced, self._answering) != before:
            self._put()

    def _put(self, is_doubted: bool = False) -> None:
        ruleset, bridges = self._ruleset()
        self.in_force = self._shown(ruleset, bridges)
        outcome = self._door.converge(ruleset, bridges, is_doubted=is_doubted)
        self.repaired.update(outcome.repaired)
        self.mended += (Mended(time.time(), named(text, self.in_force.compiled)) for text in outcome.mended)
        self._unpoliced = outcome.unpoliced
        self._bridges = {name: i for name, i in self._bridges.items() if name in bridges - outcome.unpoliced}
        self._answering = self._bridges.copy()
        self.cause = outcome.cause or next((f"rules refused: {said}" for said in outcome.refused.values()), "")
        if outcome.cause:
            self._guarded, self._policed = {}, frozenset()
            return
        # what was in force of a refused part before still is
        refused = {str(key[0] if isinstance(key, tuple) else key) for _, key in outcome.refused}
        fresh = {name: i for name, i in self._devices.items() if name in self._rules.guards and name not in refused}
        kept = {name: i for name, i in self._guarded.items() if name in refused and self._devices.get(name) == i}
        self._guarded = fresh | kept
        wanted = frozenset() if self.cannot_police else frozenset(self._rules.policing)
        self._policed = (wanted - refused) | (self._policed & wanted & refused)

    def _ruleset(self) -> tuple[Ruleset, frozenset[str]]:
        """What is wanted of devices that there are; and the bridges whose frames the rules of playgrounds have to
        meet."""
        guard = self._guard()
        if self.cannot_police or not self._rules.policing:
            return {GUARD: guard}, frozenset()
        compiled = {id: policing.compiled for id, policing in self._rules.policing.items()}
        bridges = frozenset(bridge for one in compiled.values() for bridge in one.bridges)
        return {GUARD: guard, POLICY: self._policies.of(compiled)}, bridges

    def _guard(self) -> Parts:
        """The guard's table; not gone through while all that it is made of is as it was."""
        rules, judging = self._rules, self._judging()
        zones = {id: rules.policing[id].compiled.zones for id in judging}
        read = (
            rules.shared,
            rules.guards,
            rules.owners,
            zones,
            self._devices.copy(),
            self._closing.copy(),
            self._answering.copy(),
        )
        if self._guard_read == read:
            return self._guard_table
        groups: dict[Hashable, Parts] = {"": rules.shared}
        for device in self._devices:
            parts = self._closing.get(device) or rules.guards.get(device) or _shut(device)
            playground, bridge = rules.owners.get(device, ("", ""))
            if playground in zones:
                index = self._answering.get(bridge)
                parts = self._guards.judged(device, parts, index, zones[playground].get(bridge, 0))
                if index is not None and ("answers", index) not in groups:
                    groups["answers", index] = _answers(index)
            groups[device] = parts
        self._guard_read, self._guard_table = read, self._guards.of(groups)
        return self._guard_table

    def _shown(self, ruleset: Ruleset, bridges: frozenset[str]) -> InForce:
        tracked: dict[str, Tracked] = {}
        for policing in self._rules.policing.values():
            tracked.update(policing.tracked)
        judging = tuple(policing.compiled for policing in self._rules.policing.values())
        return InForce(ruleset, bridges, JudgementsOf(judging), tracked, judging if POLICY in ruleset else ())


@lru_cache(maxsize=4096)
def _shut(device: str) -> Parts:
    return {device: shut_device(device)}


@lru_cache(maxsize=4096)
def _answers(bridge: int) -> Parts:
    return {("answers", bridge): answers.part_of(bridge)}


def _is_shut(parts: Mapping[Hashable, Part]) -> bool:
    """Whether a device's chains pass nothing."""
    return not any(chain.rules for part in parts.values() for chain in part.chains.values())
