"""Has the rules of this host in force before frames pass: the keeper of the data plane's ports. Decides no rule.

A port is let into its bridge once the kernel holds the rules of its device, of its network's tunnel and, where somebody
polices it, of its playground. What leaves is shut first and taken away after its port. Rules that can't be put in force
keep out the ports that would be without them; what was in force before stays so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from overlay.state import PortId, port_device
from playground.derive.rules import GUARD, NO_RULES, POLICY, Rules, shut
from policies.compile.tables import Part, Parts, Ruleset
from policies.kernel.enforcement import Outcome


class Door(Protocol):
    """The kernel's rules as the agent uses them (`policies.kernel.enforcement.Enforcement`, or its double)."""

    def fileno(self) -> int: ...

    def converge(self, ruleset: Ruleset, policed: frozenset[str], *, is_whole: bool = False) -> Outcome: ...

    def can_police(self) -> str: ...

    def touched(self) -> bool: ...


class Enforcing:
    """One host's rules. `want` and `settle` bracket a converge of the data plane, which asks `watch` and `holds`."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._rules: Rules = NO_RULES
        self._leaving: dict[str, Parts] = {}
        """Shut, by device."""
        self._devices: dict[str, int] = {}
        """Indexes by name, as they were found last."""
        self._guarded: dict[str, int] = {}
        """Devices whose rules the kernel holds, and the indexes that they had then."""
        self._policed: frozenset[str] = frozenset()
        """Playgrounds whose rules the kernel holds."""
        self.cause = ""
        """Why what is wanted is not all in force; empty when it is."""
        self.cannot_police = ""
        """Why this host can enforce no policy; empty when it can."""
        self.repaired: Counter[str] = Counter()
        """What somebody else had changed, by kind of object, since the agent started."""

    def want(self, rules: Rules, is_whole: bool = False) -> set[str]:
        """Puts rules in force, as far as their devices are known; those of devices that leave are shut, and stay until
        `settle`. is_whole: read back all that the kernel holds. Returns playgrounds whose ports may be held now, or
        held no more."""
        if rules is self._rules and not is_whole and not self.cause:
            return set()
        held = self._held()
        if is_whole:
            self.cannot_police = self._door.can_police()
        for device, parts in self._rules.guards.items():
            if device not in rules.guards and device in self._devices:
                self._leaving[device] = shut(device, parts)
        for device in self._leaving.keys() & rules.guards.keys():
            del self._leaving[device]
        self._rules = rules
        self._load(is_whole)
        return held ^ self._held()

    def settle(self) -> None:
        """The ports that left are in no bridge any more."""
        if self._leaving:
            for device in self._leaving:
                self._devices.pop(device, None)
            self._leaving = {}
            self._load()

    def watch(self, devices: Mapping[str, int | None]) -> None:
        """Hears which devices there are, before their ports are let in; None: it was looked for and is not there."""
        news = {name: index for name, index in devices.items() if self._devices.get(name) != index}
        if not news:
            return
        for name in news:
            self._devices.pop(name, None)  # with a device its chains may have gone: it begins from nothing
        if self._guarded.keys() & news.keys():
            self._load()
        self._devices.update((name, index) for name, index in news.items() if index is not None)
        if self._rules.guards.keys() & self._devices.keys() & news.keys():
            self._load()

    def holds(self, port: PortId) -> str:
        """Why a port must not be in its bridge; empty when it may."""
        needs = self._rules.ports.get(port)
        if needs is None:
            return "no rules are made for it"
        for device in (port_device(port), needs.tunnel):
            if device not in self._guarded or self._guarded[device] != self._devices.get(device):
                return self.cause or f"no rules of {device} are in force"
        if needs.playground in self._held():
            return self.cannot_police or self.cause or "its playground's policies are not in force"
        return ""

    def _held(self) -> set[str]:
        return self._rules.policing.keys() - self._policed

    def _load(self, is_whole: bool = False) -> None:
        ruleset, policed = self._ruleset()
        outcome = self._door.converge(ruleset, policed, is_whole=is_whole)
        self.repaired.update(outcome.repaired)
        self.cause = outcome.cause
        if outcome.is_in_force:
            self._guarded = {name: i for name, i in self._devices.items() if name in self._rules.guards}
            self._policed = frozenset() if self.cannot_police else frozenset(self._rules.policing)
        elif outcome.is_lost:
            self._guarded, self._policed = {}, frozenset()

    def _ruleset(self) -> tuple[Ruleset, frozenset[str]]:
        """What is wanted of devices that there are; and the bridges whose frames netfilter has to see."""
        guard: dict[object, Part] = dict(self._rules.common[GUARD])
        for parts in (self._rules.guards, self._leaving):
            for device, found in parts.items():
                if device in self._devices:
                    guard.update(found)
        policy: dict[object, Part] = {}
        bridges: set[str] = set()
        if not self.cannot_police and self._rules.policing:
            policy.update(self._rules.common[POLICY])
            for policing in self._rules.policing.values():
                policy.update(policing.parts)
                bridges |= policing.bridges
        return {GUARD: guard, POLICY: policy} if policy else {GUARD: guard}, frozenset(bridges)
