"""Owns which playgrounds are judged leniently: those that somebody has just begun to police while flows ran there.

A TCP connection older than the policies may be seen first by an answer, and be known the wrong way round. For a few
seconds it is accepted if it may be the other way; then it is turned round in the kernel, and judged as it began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from playground.derive import Derived
from playground.derive.rules import Rules
from policies.compile.ways import REVERSED
from policies.flows import turned
from policies.kernel.conntrack import Conntrack

log = logging.getLogger("agent")

LENIENT_S = 5.0
"""A connection of which no packet comes for so long after the policies is judged as its next packet shows it."""

TRIES = 3
"""How often a flow is turned round that a packet has brought back meanwhile, as it was."""


class Lenience:
    """One host's. Times are monotonic, in seconds."""

    def __init__(self, namespace: Path) -> None:
        """namespace: the data plane's path."""
        self._namespace = namespace
        self._until: dict[str, float] = {}

    def playgrounds(self) -> frozenset[str]:
        """Ids of those that are judged leniently now."""
        return frozenset(self._until)

    def begin(self, before: Derived, derived: Derived) -> bool:
        """Whether any playground begins to be judged leniently by this change: it was here, and nobody policed it."""
        if before.rules is derived.rules:
            return False
        fresh = derived.rules.policing.keys() - before.rules.policing.keys()
        begun = fresh.intersection(needs.playground for needs in before.rules.needs.values()) if fresh else set()
        self._until.update(dict.fromkeys(begun, time.monotonic() + LENIENT_S))
        return bool(begun)

    def over(self) -> list[str]:
        """Ids of those whose time is over; they stay lenient until `end`."""
        return [id for id, until in self._until.items() if time.monotonic() >= until]

    def end(self, ids: Iterable[str]) -> None:
        """From the next derivation on they are judged by the direction in which flows are known."""
        for id in ids:
            self._until.pop(id, None)

    def turn(self, rules: Rules) -> None:
        """Turns round the flows that are known the wrong way. Blocks; a cause that hinders it is said, and ends it."""
        zones = {tracked.zone for policing in rules.policing.values() for tracked in policing.tracked.values()}
        if not zones:
            return
        try:
            door = Conntrack(self._namespace)
            try:
                for zone in sorted(zones):
                    self._turn(door, zone)
            finally:
                door.close()
        except OSError as error:
            log.warning("flows older than their policies are judged as they are known error=%s", error)

    @staticmethod
    def _turn(door: Conntrack, zone: int) -> None:
        for _ in range(TRIES):
            wrong = [flow for flow in door.flows(zone) if flow.mark & REVERSED]
            if not wrong:
                return
            door.delete(wrong)
            door.put(replace(turned(flow), mark=flow.mark & ~REVERSED) for flow in wrong)
