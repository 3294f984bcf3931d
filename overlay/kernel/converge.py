"""Pure over a kernel's door. Repeats observe, diff, apply until nothing differs, and says how each port stands.

Decides only from what it observes; what it remembers (`drift`) is for counting what others changed. A look is at all,
or at what a focus names: cost follows the change, and the look at all is the safety net.
"""

from __future__ import annotations

import bisect
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from overlay import ops as do
from overlay.diff import arrivals, diff, diff_network, diff_part, has_base, is_port_device, is_tunnel_device
from overlay.kernel.drift import Left
from overlay.ops import Op, describe
from overlay.parts import Focus, close, narrow
from overlay.state import (
    Gate,
    HostState,
    Network,
    PortId,
    bridge_device,
    port_device,
    vxlan_device,
)
from overlay.topology import ObservedState

ADOPTED_AT_ONCE = 25
"""How many devices a converge moves in from the host's namespace. Linux takes some 20 ms for each, and whatever else is
to be done waits meanwhile."""

ROUNDS = 4
"""How often one converge looks again. Two are enough unless somebody else changes the same things meanwhile."""


class Keeper(Protocol):
    """Keeps watch over ports: one that it holds joins no bridge, and leaves the one that it is in."""

    def watch(self, devices: Mapping[str, int | None], bridges: Mapping[str, int | None]) -> None:
        """Hears, before anything is done about them, which devices of ports and tunnels a look has found, and which
        bridges: their interface indexes by name; None for one that was looked for and is not there. Never raises."""

    def forget(self) -> None:
        """Hears that the namespace may be another: what was found there counts no more."""

    def holds(self, port: PortId) -> str:
        """Why a port has to wait outside; empty when it need not."""


class PortState(Enum):
    """How a port stands. WAITING: its device does not exist yet, or a `Keeper` holds it."""

    FORWARDING = "forwarding"
    GATED = "gated"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PortStatus:
    """cause: one sentence when the state is neither what was asked for nor on its way."""

    state: PortState
    cause: str = ""


@dataclass(frozen=True, slots=True)
class OpError:
    """A step that the kernel refused. errno: its number, 0 when the step was not tried."""

    op: Op
    errno: int
    cause: str

    def __str__(self) -> str:
        return f"{describe(self.op)}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a converge left. repaired: steps taken against drift, counted by subject. applied: all steps taken.
    postponed: ports whose devices wait in the host's namespace for a later converge to move them in."""

    ports: Mapping[PortId, PortStatus] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[OpError, ...] = ()
    applied: int = 0
    postponed: tuple[PortId, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to do but to wait for devices."""
        return (
            not self.errors
            and not self.postponed
            and all(status.state is not PortState.FAILED for status in self.ports.values())
        )


class Convergence(ABC):
    """A kernel's door, and how to bring what is behind it to a desired state."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._left = Left()
        self._tried = PortId("")
        """The last port that was moved in: the next ones come first, whatever became of it."""
        self.keeper: Keeper | None = None

    @abstractmethod
    def ensure(self) -> int:
        """Makes the data plane namespace ready; returns how many things about it had to be repaired."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether `ensure` has been done: a namespace that we hold stays ours whatever becomes of its name."""

    @abstractmethod
    def observe(self, focus: Focus | None = None, devices: Iterable[str] = ()) -> ObservedState:
        """What the kernel shows: all of it, or what a focus names and these devices."""

    @abstractmethod
    def indexes(self) -> Mapping[str, int]:
        """Interface indexes, by name, of devices that looks have found. One that is gone may be in it yet."""

    @abstractmethod
    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        """Takes the steps in order. One that fails stops no other."""

    @abstractmethod
    def forget_events(self, focus: Focus | None = None, devices: Collection[str] = ()) -> None:
        """Drops the events that are waiting (of a focus and these devices, or all) before a look sees what they say."""

    def converge(self, desired: HostState) -> Outcome:
        """Everything, but for what the outcome says is postponed. Raises OSError when the data plane namespace cannot
        be made ready."""
        return self._converge(desired, None)

    def converge_changes(self, desired: HostState, changes: Focus) -> Outcome:
        """Only these networks and parts of networks (`overlay.parts.between` names them); costs what they cost.

        A part whose network lacks its bridge or VXLAN device, or has them otherwise, is widened to the whole network.
        The outcome speaks of the ports that were looked at. The name, sysctls and service namespaces are left to
        `converge`, services also to a change of a whole network.
        """
        return self._converge(desired, dict(sorted(changes.items())))

    def _converge(self, desired: HostState, focus: Focus | None) -> Outcome:
        with self._lock:
            return self._converge_locked(desired, focus)

    def _converge_locked(self, desired: HostState, focus: Focus | None) -> Outcome:
        repaired: Counter[str] = Counter()
        if (focus is None or None in focus.values() or not self.is_open()) and (renewed := self.ensure()):
            repaired["namespace"] += renewed
            if self.keeper is not None:
                self.keeper.forget()
        focus = _closed(desired, focus)
        applied = took = 0
        errors: list[OpError] = []
        drift: set[Op] = set()
        """Steps that would not be needed had nobody but us and the makers of port devices touched anything."""
        postponed: tuple[PortId, ...] = ()
        flooded: set[do.PutFlood | do.DropFlood] = set()
        """Flood entries that the kernel has acknowledged, which no look at a part shows."""
        for turn in range(ROUNDS):
            focus, observed = self._look(desired, focus)
            if turn == 0:
                postponed = self._postpone(desired, focus, observed)
            observed = replace(observed, host_ports=observed.host_ports - set(map(port_device, postponed)))
            wanted, held = self._hold(desired, focus, observed)
            ops = [op for op in _difference(wanted, focus, observed) if op not in flooded]
            if turn == 0 and ops and self._left:
                drift = set(ops) - set(_difference(wanted, focus, self._left.before(observed, focus)))
            if not ops or (errors and not took and {error.op for error in errors} >= set(ops)):
                break
            errors = self.apply(ops)
            # A device that went while we looked is seen without its entries; putting those back fails: no repair.
            repaired.update(op.subject for op in drift & set(ops) - {error.op for error in errors})
            took = len(ops) - len(errors)  # what was taken may have been in the way of what was refused: a VNI's device
            applied += took
            if focus is not None:
                flooded |= _flooded(focus, ops) - {error.op for error in errors}
        self._left.note(observed, focus)
        self._left.flooded(flooded)
        return Outcome(
            ports=_port_states(wanted, held, focus, observed, ops, errors)
            | dict.fromkeys(postponed, PortStatus(PortState.WAITING, "its device is moved in after others")),
            repaired=dict(repaired),
            errors=tuple(errors) if ops else (),
            applied=applied,
            postponed=postponed,
        )

    def _postpone(self, desired: HostState, focus: Focus | None, observed: ObservedState) -> tuple[PortId, ...]:
        """The ports of a focus whose devices could be moved in now, but for those that this converge moves."""
        if len(observed.host_ports) <= ADOPTED_AT_ONCE:
            return ()
        outside = observed.host_ports - observed.links.keys()
        chosen = (id for network in _chosen(desired, focus) for id, port in network.ports.items() if port.adopt)
        ports = sorted(id for id in chosen if port_device(id) in outside)
        start = bisect.bisect(ports, self._tried)
        ports = ports[start:] + ports[:start]
        now, later = ports[:ADOPTED_AT_ONCE], ports[ADOPTED_AT_ONCE:]
        self._tried = now[-1] if now else self._tried
        return tuple(later)

    def _hold(
        self, desired: HostState, focus: Focus | None, observed: ObservedState
    ) -> tuple[HostState, dict[PortId, str]]:
        """`desired` with the ports of a focus that have to wait outside, and why each has to."""
        if self.keeper is None:
            return desired, {}
        indexes = self.indexes()
        chosen = _chosen(desired, focus)
        devices: dict[str, int | None] = dict.fromkeys(port_device(id) for network in chosen for id in network.ports)
        found = (name for name in observed.links if is_port_device(name) or is_tunnel_device(name))
        bridges = (bridge_device(network.id) for network in chosen)
        self.keeper.watch(
            devices | {name: indexes[name] for name in found if name in indexes},
            {name: indexes.get(name) if name in observed.links else None for name in bridges},
        )
        causes: dict[PortId, str] = {}
        networks = dict(desired.networks)
        for network in chosen:
            held = {id: cause for id in network.ports if (cause := self.keeper.holds(id))}
            if held:
                waiting = {id: replace(network.ports[id], gate=Gate.HELD) for id in held}
                whole = networks[network.id]
                networks[network.id] = replace(whole, ports={**whole.ports, **waiting})
                causes.update(held)
        return (replace(desired, networks=networks) if causes else desired), causes

    def _look(self, desired: HostState, focus: Focus | None) -> tuple[Focus | None, ObservedState]:
        """What a focus shows, and the focus: parts of networks without a sound base are widened."""
        while True:
            devices = _devices(desired, focus)
            self.forget_events(focus, devices)
            observed = self.observe(focus, devices)
            parts = [id for id, part in focus.items() if part is not None] if focus is not None else []
            unsound = [id for id in parts if not has_base(desired, id, observed)]
            if focus is None or not unsound:
                return focus, observed
            focus = {**focus, **dict.fromkeys(unsound)}


def _closed(desired: HostState, focus: Focus | None) -> Focus | None:
    if focus is None:
        return None
    networks = desired.networks
    return {id: close(networks[id], part) if part and id in networks else None for id, part in focus.items()}


def _difference(desired: HostState, focus: Focus | None, observed: ObservedState) -> list[Op]:
    if focus is None:
        return diff(desired, observed)
    ops: list[Op] = []
    for id, part in focus.items():
        ops += diff_network(desired, id, observed) if part is None else diff_part(desired, id, part, observed)
    return list(dict.fromkeys(ops))


def _flooded(focus: Focus, ops: Iterable[Op]) -> set[do.PutFlood | do.DropFlood]:
    """The flood entries among the steps for parts."""
    tunnels = {vxlan_device(id) for id, part in focus.items() if part is not None}
    return {op for op in ops if isinstance(op, do.PutFlood | do.DropFlood) and op.name in tunnels}


def _devices(desired: HostState, focus: Focus | None) -> list[str]:
    """Port devices that whole networks of a focus want: they may be elsewhere yet."""
    if focus is None:
        return []
    whole = [desired.networks[id] for id, part in focus.items() if part is None and id in desired.networks]
    return [port_device(port) for network in whole for port in network.ports]


def _chosen(desired: HostState, focus: Focus | None) -> list[Network]:
    """What is wanted of a focus."""
    if focus is None:
        return list(desired.networks.values())
    found = [(desired.networks[id], part) for id, part in focus.items() if id in desired.networks]
    return [network if part is None else narrow(network, part) for network, part in found]


def _port_states(
    desired: HostState,
    held: Mapping[PortId, str],
    focus: Focus | None,
    observed: ObservedState,
    remaining: Sequence[Op],
    errors: Sequence[OpError],
) -> dict[PortId, PortStatus]:
    causes = {error.op: error.cause for error in errors}
    own: dict[str | tuple[str, str], list[Op]] = {}
    for op in remaining:
        own.setdefault(op.name, []).append(op)
        if isinstance(op, do.PutForwarding):  # while it does not lead elsewhere, a MAC leads to its port, gate or no
            own.setdefault((op.name, op.mac), []).append(op)
    states: dict[PortId, PortStatus] = {}
    for network in _chosen(desired, focus):
        base = {bridge_device(network.id), vxlan_device(network.id)}
        shared = [op for op in remaining if _is_of_base(op, base)]
        present = arrivals(network, observed)
        for port_id, port in network.ports.items():
            name = port_device(port_id)
            if name not in present:
                states[port_id] = PortStatus(PortState.WAITING, f"no device {name} yet")
            elif left := own.get(name) or own.get((vxlan_device(network.id), port.mac)) or shared:
                cause = next((f"{describe(op)}: {causes[op]}" for op in left if op in causes), describe(left[0]))
                states[port_id] = PortStatus(PortState.FAILED, cause)
            elif port_id in held:
                states[port_id] = PortStatus(PortState.WAITING, held[port_id])
            else:
                states[port_id] = PortStatus(PortState.FORWARDING if port.gate is Gate.OPEN else PortState.GATED)
    return states


def _is_of_base(op: Op, base: Collection[str]) -> bool:
    """Whether a step makes the bridge or the VXLAN device what it should be; without that no port of theirs works."""
    return op.name in base and op.subject in ("bridge", "vxlan", "link", "port")
