"""Pure. Which host a workspace goes to. Decides only for workspaces that are to go somewhere; moves nobody.

Order of reasons: the pin or selector; what the host is and offers; policies; its room; who is there already. Among the
hosts that are left: where preferences are met best, then by the workspace's strategy (where fewest of the same
playground are, then fewest of all; or most), then the first by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from playground.hypervisors import why_not_run
from playground.inventory import ANY
from playground.neighbourhood import Around, Kind, Neighbourhood
from playground.records import HostRecord, WorkspaceRecord
from policies.selector import Selector, SelectorError, is_selector, parse_selector

_SLACK = 1e-9
"""Sums of cpus are floats; a tenth ten times is 0.9999999999999999."""


@dataclass(frozen=True, slots=True)
class HostView:
    """A host and what is placed on it: placed counts workspaces by playground, kinds counts them by what neighbours see
    of them, used_* is what those declare in all. cannot_police: why it enforces no policies, "" when it does."""

    record: HostRecord
    is_up: bool
    used_cpus: float = 0.0
    used_memory_mib: int = 0
    placed: Mapping[str, int] = field(default_factory=dict)
    cannot_police: str = ""
    kinds: Mapping[str, Mapping[Kind, int]] = field(default_factory=dict)
    is_draining: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """No host fits; reason is one sentence that names why, host by host where they differ."""

    reason: str


@dataclass(slots=True)
class _Room:
    """A host's room as the placement of this call fills it. gives: processors and memory in all. lacks: what was found
    of workspaces alike."""

    view: HostView
    cpus: float
    memory_mib: int
    total: int
    of_playground: Counter[str]
    gives: tuple[float | None, int | None]
    lacks: dict[tuple[object, ...], str | None] = field(default_factory=dict)

    def lacking(self, workspace: WorkspaceRecord) -> str | None:
        """As the function of that name."""
        machine = workspace.machine
        alike = (workspace.driver, machine and (machine.arch, machine.type), workspace.requires)
        if alike not in self.lacks:
            self.lacks[alike] = lacking(workspace, self.view.record)
        return self.lacks[alike]

    def add(self, workspace: WorkspaceRecord, number: int = 1) -> None:
        self.cpus += number * workspace.cpus
        self.memory_mib += number * workspace.memory_mib
        self.total += number
        self.of_playground[workspace.playground] += number


def given_cpus(host: HostRecord) -> float | None:
    """Processors that a host gives to workspaces in all; None for no limit."""
    has = host.cpus if host.cpus is not None else host.found_cpus
    return None if has is None else max(0.0, has - host.share.reserved_cpus) * host.share.overcommit_cpus


def given_memory_mib(host: HostRecord) -> int | None:
    """Memory that a host gives to workspaces in all, in MiB; None for no limit."""
    has = host.memory_mib if host.memory_mib is not None else host.found_memory_mib
    return None if has is None else int(max(0, has - host.share.reserved_memory_mib) * host.share.overcommit_memory)


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


def lacking(workspace: WorkspaceRecord, host: HostRecord) -> str | None:
    """What a host is not that a workspace can't do without, whatever else is on it; None when it has all."""
    driver = next((one for one in host.drivers if one.name == workspace.driver), None)
    if driver is None:
        offered = ", ".join(one.name for one in host.drivers) or "none"
        return f"has no driver {workspace.driver} (offers {offered})"
    arch = workspace.machine.arch if workspace.machine is not None else ""
    if arch and driver.archs and arch not in driver.archs:
        return f"runs no {arch} (runs {', '.join(driver.archs)})"
    if workspace.machine is not None and (cause := why_not_run(workspace.machine.type, driver.types)) is not None:
        return cause
    for text in workspace.requires:
        if not _has(text, {**host.labels, **host.facts}):
            return f"has no {text}"
    return None


def _has(text: str, facts: Mapping[str, str]) -> bool:
    if not is_selector(text):
        return text in facts
    try:
        return parse_selector(text).matches(facts)
    except SelectorError:
        return True


def may_be_on(workspace: WorkspaceRecord, host: HostRecord) -> bool:
    """Whether a workspace may stay on a host: its pin allows it, or somebody moved it against that pin."""
    return workspace.pin == workspace.overridden or allows(workspace.pin, host)


def place(
    workspaces: Sequence[WorkspaceRecord],
    hosts: Sequence[HostView],
    policed: Container[str] = (),
    barred: Mapping[str, str] = MappingProxyType({}),
) -> dict[tuple[str, str], str | Refusal]:
    """A host's name or a Refusal for each workspace, by (playground, name). policed: playgrounds whose policies a host
    has to enforce. barred: hosts that will not do for another reason, which is said. A workspace that has a host is to
    leave it, and counts there no more.

    The result does not depend on the order of either argument. Those who may go to few hosts (pins, requirements)
    choose before those who may go anywhere, large ones before small ones, then by name; those who go where others are
    choose after these.
    """
    rooms = {
        view.record.name: _Room(
            view,
            view.used_cpus,
            view.used_memory_mib,
            sum(view.placed.values()),
            Counter(view.placed),
            _given(view.record),
        )
        for view in sorted(hosts, key=lambda view: view.record.name)
    }
    leaving = frozenset(view.record.name for view in hosts if view.is_draining)
    others = Neighbourhood({view.record.name: view.kinds for view in hosts}, leaving)
    for workspace in workspaces:
        if workspace.host in rooms:
            rooms[workspace.host].add(workspace, -1)
            others.add(workspace, workspace.host, -1)
    answers: dict[tuple[str, str], str | Refusal] = {}
    waiting = sorted(workspaces, key=_urgency)
    while waiting:
        again: list[WorkspaceRecord] = []
        for workspace in waiting:
            answer = _place_one(workspace, rooms, others, workspace.playground in policed, barred)
            answers[workspace.playground, workspace.name] = answer
            if not isinstance(answer, Refusal):
                rooms[answer].add(workspace)
                others.add(workspace, answer)
            elif workspace.neighbours is not None and workspace.neighbours.affinity:
                again.append(workspace)  # whom it follows may be placed by now
        waiting = again if len(again) < len(waiting) else []
    return answers


def _urgency(workspace: WorkspaceRecord) -> tuple[bool, bool, float, int, str, tuple[str, int, str]]:
    wants = workspace.neighbours or ANY
    return (
        bool(wants.affinity),
        workspace.pin is None and not workspace.requires,
        -workspace.cpus,
        -workspace.memory_mib,
        workspace.playground,
        _natural(workspace.name),
    )


def _natural(name: str) -> tuple[str, int, str]:
    """worker-2 before worker-10."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number), name) if stem and number.isdecimal() else (name, -1, name)


def _place_one(
    workspace: WorkspaceRecord,
    rooms: Mapping[str, _Room],
    others: Neighbourhood,
    is_policed: bool,
    barred: Mapping[str, str],
) -> str | Refusal:
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
    around = others.around(workspace)
    causes: dict[str, list[str]] = {}
    best: str | None = None
    least: tuple[int, int, int] | None = None
    for name, room in rooms.items():
        if (isinstance(pin, str) and pin != name) or (
            isinstance(pin, Selector) and not pin.matches(room.view.record.labels)
        ):
            causes.setdefault(f"not selected by {workspace.pin}", []).append(name)
        elif cause := _misfit(workspace, room, around, is_policed) or barred.get(name):
            causes.setdefault(cause, []).append(name)
        else:
            burden = _burden(workspace, room, around)
            if least is None or burden < least:
                best, least = name, burden
    if best is not None:
        return best
    if isinstance(pin, str):
        cause = next(cause for cause, names in causes.items() if pin in names)
        return Refusal(f"it is pinned to {pin}, and {pin}: {cause}")
    parts = (f"{_names(names)}: {cause}" for cause, names in sorted(causes.items(), key=lambda item: item[1]))
    return Refusal(f"no host fits; {'; '.join(parts)}")


def _burden(workspace: WorkspaceRecord, room: _Room, around: Around) -> tuple[int, int, int]:
    """The host with the least of it is chosen."""
    wants = workspace.neighbours or ANY
    sign = -1 if wants.strategy == "pack" else 1
    discord = around.discord(room.view.record.name)
    return discord, sign * room.of_playground[workspace.playground], sign * room.total


def _misfit(workspace: WorkspaceRecord, room: _Room, around: Around, is_policed: bool) -> str | None:
    """Why a host can't take a workspace now, or None."""
    if room.view.is_draining:
        return "draining"
    if not room.view.is_up:
        return "its agent is not connected"
    if (cause := room.lacking(workspace)) is not None:
        return cause
    if is_policed and room.view.cannot_police:
        return f"can't enforce policies: {room.view.cannot_police}"
    if (cause := _shortage(workspace, room.gives, room.cpus, room.memory_mib)) is not None:
        return cause
    return around.misfit(room.view.record.name)


def no_room(workspace: WorkspaceRecord, view: HostView) -> str:
    """Why a host has not as much free as a workspace declares, "" when it has. used_* of the view count."""
    return _shortage(workspace, _given(view.record), view.used_cpus, view.used_memory_mib) or ""


def no_room_beside(workspace: WorkspaceRecord, view: HostView) -> str:
    """As `no_room`, of one that the view counts already."""
    others = view.used_cpus - workspace.cpus, view.used_memory_mib - workspace.memory_mib
    return _shortage(workspace, _given(view.record), *others) or ""


def _given(host: HostRecord) -> tuple[float | None, int | None]:
    return given_cpus(host), given_memory_mib(host)


def _shortage(
    workspace: WorkspaceRecord, given: tuple[float | None, int | None], used_cpus: float, used_mib: int
) -> str | None:
    cpus, memory_mib = given
    if workspace.cpus and cpus is not None and used_cpus + workspace.cpus > cpus + _SLACK:
        return f"{max(0.0, cpus - used_cpus):g} of {cpus:g} cpus free, {workspace.cpus:g} wanted"
    if workspace.memory_mib and memory_mib is not None and used_mib + workspace.memory_mib > memory_mib:
        free = max(0, memory_mib - used_mib)
        return f"{free} of {memory_mib} MiB memory free, {workspace.memory_mib} MiB wanted"
    return None


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more"
