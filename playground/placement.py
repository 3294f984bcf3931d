"""Pure. Which host a workspace goes to. Decides only for workspaces without a host; moves nobody.

Order of reasons: the pin or selector, the driver, policies, declared capacity; among the hosts that are left, the one
with the fewest workspaces of the same playground, then with the fewest of all, then the first by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from playground.records import HostRecord, WorkspaceRecord
from policies.selector import Selector, SelectorError, is_selector, parse_selector

_SLACK = 1e-9
"""Sums of cpus are floats; a tenth ten times is 0.9999999999999999."""


@dataclass(frozen=True, slots=True)
class HostView:
    """A host and what is placed on it: placed counts workspaces by playground, used_* is what those declare in all.
    cannot_police: why it enforces no policies, "" when it does."""

    record: HostRecord
    is_up: bool
    used_cpus: float = 0.0
    used_memory_mib: int = 0
    placed: Mapping[str, int] = field(default_factory=dict)
    cannot_police: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No host fits; reason is one sentence that names why, host by host where they differ."""

    reason: str


@dataclass(slots=True)
class _Room:
    """A host's room as the placement of this call fills it."""

    view: HostView
    cpus: float
    memory_mib: int
    total: int
    of_playground: Counter[str]

    def add(self, workspace: WorkspaceRecord) -> None:
        self.cpus += workspace.cpus
        self.memory_mib += workspace.memory_mib
        self.total += 1
        self.of_playground[workspace.playground] += 1


def allows(pin: str | None, host: HostRecord) -> bool:
    """Whether a pin allows a host. A selector that can't be read allows all: admission refused it."""
    if pin is None:
        return True
    if not is_selector(pin):
        return pin == host.name
    try:
        return parse_selector(pin).matches(host.labels)
    except SelectorError:
        return True


def may_be_on(workspace: WorkspaceRecord, host: HostRecord) -> bool:
    """Whether a workspace may stay on a host: its pin allows it, or somebody moved it against that pin."""
    return workspace.pin == workspace.overridden or allows(workspace.pin, host)


def place(
    workspaces: Sequence[WorkspaceRecord], hosts: Sequence[HostView], policed: Container[str] = ()
) -> dict[tuple[str, str], str | Refusal]:
    """A host's name or a Refusal for each workspace, by (playground, name). policed: playgrounds whose policies a host
    has to enforce.

    The result does not depend on the order of either argument. Those who may go to few hosts (pins, selectors) choose
    before those who may go anywhere, large ones before small ones, then by name.
    """
    rooms = {
        view.record.name: _Room(
            view,
            view.used_cpus,
            view.used_memory_mib,
            sum(view.placed.values()),
            Counter(view.placed),
        )
        for view in sorted(hosts, key=lambda view: view.record.name)
    }
    answers: dict[tuple[str, str], str | Refusal] = {}
    for workspace in sorted(workspaces, key=_urgency):
        answers[workspace.playground, workspace.name] = _place_one(workspace, rooms, workspace.playground in policed)
    return answers


def _urgency(workspace: WorkspaceRecord) -> tuple[bool, float, int, str, tuple[str, int, str]]:
    return (
        workspace.pin is None,
        -workspace.cpus,
        -workspace.memory_mib,
        workspace.playground,
        _natural(workspace.name),
    )


def _natural(name: str) -> tuple[str, int, str]:
    """worker-2 before worker-10."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number), name) if stem and number.isdecimal() else (name, -1, name)


def _place_one(workspace: WorkspaceRecord, rooms: Mapping[str, _Room], is_policed: bool) -> str | Refusal:
    if not rooms:
        return Refusal("the site has no hosts; start an agent on one")
    pin: str | Selector | None = workspace.pin
    if workspace.pin is not None and is_selector(workspace.pin):
        try:
            pin = parse_selector(workspace.pin)
        except SelectorError as error:
            return Refusal(str(error))
    if isinstance(pin, str) and pin not in rooms:
        return Refusal(f"it is pinned to {pin}, which is no host of this site; hosts are {', '.join(rooms)}")
    causes: dict[str, list[str]] = {}
    best: _Room | None = None
    for name, room in rooms.items():
        if (isinstance(pin, str) and pin != name) or (
            isinstance(pin, Selector) and not pin.matches(room.view.record.labels)
        ):
            causes.setdefault(f"not selected by {workspace.pin}", []).append(name)
        elif cause := _misfit(workspace, room, is_policed):
            causes.setdefault(cause, []).append(name)
        elif best is None or _load(room, workspace) < _load(best, workspace):
            best = room
    if best is not None:
        best.add(workspace)
        return best.view.record.name
    if isinstance(pin, str):
        cause = next(cause for cause, names in causes.items() if pin in names)
        return Refusal(f"it is pinned to {pin}, and {pin}: {cause}")
    parts = (f"{_names(names)}: {cause}" for cause, names in sorted(causes.items(), key=lambda item: item[1]))
    return Refusal(f"no host fits; {'; '.join(parts)}")


def _load(room: _Room, workspace: WorkspaceRecord) -> tuple[int, int]:
    return room.of_playground[workspace.playground], room.total


def _misfit(workspace: WorkspaceRecord, room: _Room, is_policed: bool) -> str | None:
    """Why a host can't take a workspace now, or None."""
    host = room.view.record
    if not room.view.is_up:
        return "its agent is not connected"
    if all(driver.name != workspace.driver for driver in host.drivers):
        offered = ", ".join(driver.name for driver in host.drivers) or "none"
        return f"has no driver {workspace.driver} (offers {offered})"
    if is_policed and room.view.cannot_police:
        return f"can't enforce policies: {room.view.cannot_police}"
    if workspace.cpus and host.cpus is not None and room.cpus + workspace.cpus > host.cpus + _SLACK:
        return f"{max(0.0, host.cpus - room.cpus):g} of {host.cpus:g} cpus free, {workspace.cpus:g} wanted"
    if (
        workspace.memory_mib
        and host.memory_mib is not None
        and room.memory_mib + workspace.memory_mib > host.memory_mib
    ):
        free = max(0, host.memory_mib - room.memory_mib)
        return f"{free} of {host.memory_mib} MiB memory free, {workspace.memory_mib} MiB wanted"
    return None


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more"
