"""Pure over a kernel's door. Repeats observe, diff, apply until nothing differs, and says how each port stands.

Decides only from what it observes. It remembers what it last left behind for one purpose: to count what changed since
without being asked for (drift).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from overlay.diff import arrivals, diff, diff_network, is_port_device
from overlay.ops import Op, describe
from overlay.state import (
    Gate,
    HostState,
    Network,
    NetworkId,
    PortId,
    bridge_device,
    leg_device,
    port_device,
    vxlan_device,
)
from overlay.topology import ObservedState

ROUNDS = 4
"""How often one converge looks again. Two are enough unless somebody else changes the same things meanwhile."""


class PortState(Enum):
    """How a port stands. WAITING: its device does not exist yet."""

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
    """What a converge left. repaired: steps taken against drift, counted by subject. applied: all steps taken."""

    ports: Mapping[PortId, PortStatus] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[OpError, ...] = ()
    applied: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to do but to wait for devices."""
        return not self.errors and all(status.state is not PortState.FAILED for status in self.ports.values())


class Convergence(ABC):
    """A kernel's door, and how to bring what is behind it to a desired state."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._left = ObservedState()
        """What the last converge saw when it was done."""

    @abstractmethod
    def ensure(self) -> int:
        """Makes the data plane namespace ready; returns how many things about it had to be repaired."""

    @abstractmethod
    def observe(self, networks: Collection[NetworkId] | None = None, devices: Iterable[str] = ()) -> ObservedState:
        """What the kernel shows: all of it, or these networks and devices."""

    @abstractmethod
    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        """Takes the steps in order. One that fails stops no other."""

    @abstractmethod
    def forget_events(self, devices: Collection[str] | None = None) -> None:
        """Drops the events that are waiting (of these devices, or all) before an observation sees what they told of."""

    def converge(self, desired: HostState) -> Outcome:
        """Everything. Raises OSError when the data plane namespace cannot be made ready."""
        return self._converge(desired, None)

    def converge_networks(self, desired: HostState, ids: Collection[NetworkId]) -> Outcome:
        """Only these networks (in `desired` or to be removed); costs what they cost. Other devices are left alone."""
        return self._converge(desired, sorted(set(ids)))

    def _converge(self, desired: HostState, ids: Sequence[NetworkId] | None) -> Outcome:
        with self._lock:
            return self._converge_locked(desired, ids)

    def _converge_locked(self, desired: HostState, ids: Sequence[NetworkId] | None) -> Outcome:
        repaired: Counter[str] = Counter()
        if renewed := self.ensure():
            repaired["namespace"] += renewed
        applied = 0
        errors: list[OpError] = []
        for turn in range(ROUNDS):
            self.forget_events(None if ids is None else _devices(desired, ids))
            observed = self._look(desired, ids)
            ops = _difference(desired, ids, observed)
            if turn == 0:
                repaired.update(_drift(desired, ids, self._left, observed, ops))
            if not ops or (errors and {error.op for error in errors} >= set(ops)):
                break
            errors = self.apply(ops)
            applied += len(ops) - len(errors)
        self._left = observed if ids is None else _merge(self._left, observed, ids)
        return Outcome(
            ports=_port_states(desired, ids, observed, ops, errors),
            repaired=dict(repaired),
            errors=tuple(errors) if ops else (),
            applied=applied,
        )

    def _look(self, desired: HostState, ids: Sequence[NetworkId] | None) -> ObservedState:
        if ids is None:
            return self.observe()
        return self.observe(ids, [port_device(port) for network in _chosen(desired, ids) for port in network.ports])


def _difference(desired: HostState, ids: Sequence[NetworkId] | None, observed: ObservedState) -> list[Op]:
    if ids is None:
        return diff(desired, observed)
    return list(dict.fromkeys(op for network in ids for op in diff_network(desired, network, observed)))


def _devices(desired: HostState, ids: Sequence[NetworkId]) -> list[str]:
    names = [name(network) for network in ids for name in (bridge_device, vxlan_device, leg_device)]
    return names + [port_device(port) for network in _chosen(desired, ids) for port in network.ports]


def _chosen(desired: HostState, ids: Sequence[NetworkId] | None) -> list[Network]:
    if ids is None:
        return list(desired.networks.values())
    return [desired.networks[network] for network in ids if network in desired.networks]


def _drift(
    desired: HostState, ids: Sequence[NetworkId] | None, left: ObservedState, observed: ObservedState, ops: list[Op]
) -> Counter[str]:
    """Steps that would not be needed had nobody but us and the makers of port devices touched anything since."""
    if not ops or left == ObservedState():
        return Counter()
    arrived = {name: link for name, link in observed.links.items() if is_port_device(name) and name not in left.links}
    untouched = replace(left, links={**left.links, **arrived}, host_ports=left.host_ports | observed.host_ports)
    wanted = set(_difference(desired, ids, untouched))
    return Counter(op.subject for op in ops if op not in wanted)


def _merge(left: ObservedState, observed: ObservedState, ids: Sequence[NetworkId]) -> ObservedState:
    """`left`, with what a look at some networks showed in place of what it had of them."""
    bridges = {bridge_device(network) for network in ids} | {vxlan_device(network) for network in ids}
    links = {name: link for name, link in left.links.items() if name not in bridges and link.master not in bridges}
    return ObservedState(
        links={**links, **observed.links},
        tables={**{k: v for k, v in left.tables.items() if k not in ids}, **observed.tables},
        host_ports=left.host_ports | observed.host_ports,
        services=observed.services,
    )


def _port_states(
    desired: HostState,
    ids: Sequence[NetworkId] | None,
    observed: ObservedState,
    remaining: Sequence[Op],
    errors: Sequence[OpError],
) -> dict[PortId, PortStatus]:
    causes = {error.op: error.cause for error in errors}
    states: dict[PortId, PortStatus] = {}
    for network in _chosen(desired, ids):
        base = {bridge_device(network.id), vxlan_device(network.id)}
        shared = [op for op in remaining if _is_of_base(op, base)]
        present = arrivals(network, observed)
        for port_id, port in network.ports.items():
            name = port_device(port_id)
            own = [op for op in remaining if getattr(op, "name", "") == name]
            if name not in present:
                states[port_id] = PortStatus(PortState.WAITING, f"no device {name} yet")
            elif left := own or shared:
                cause = next((f"{describe(op)}: {causes[op]}" for op in left if op in causes), describe(left[0]))
                states[port_id] = PortStatus(PortState.FAILED, cause)
            else:
                states[port_id] = PortStatus(PortState.FORWARDING if port.gate is Gate.OPEN else PortState.GATED)
    return states


def _is_of_base(op: Op, base: Collection[str]) -> bool:
    """Whether a step makes the bridge or the VXLAN device what it should be; without that no port of theirs works."""
    return getattr(op, "name", "") in base and op.subject in ("bridge", "vxlan", "link", "port")
