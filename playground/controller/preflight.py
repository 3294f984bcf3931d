"""What speaks for and against a move, found out before anything changes: by records, and by what both hosts say.

Reads only. Everything that hinders a move is said at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from overlay.mtu import OVERHEAD
from playground.controller.asking import Asking
from playground.controller.execution import NotPossible
from playground.controller.rooms import takes_room_of
from playground.controller.world import World
from playground.manner import Manner
from playground.placement import HostView, lacking, no_room
from playground.questions import Departing, TellArrival, TellDeparture
from playground.records import Driver, Led, WorkspaceRecord
from playground.workspaces.departure import Arrival

ANSWER_S = 5.0
"""How long each host may take to answer."""

Said = Literal["fine", "unknown", "refused"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. said: unknown hinders nothing."""

    about: str
    said: Said
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """to, folder: of the target's hypervisor, "" where none copies. is_one_kernel: as in MigrationRecord."""

    findings: tuple[Finding, ...]
    to: str = ""
    folder: str = ""
    is_one_kernel: bool = False

    @property
    def refusals(self) -> list[str]:
        """What hinders the move, one sentence each."""
        return [finding.text for finding in self.findings if finding.said == "refused"]

    def rows(self) -> list[dict[str, str]]:
        """For people and programs."""
        return [{"about": one.about, "said": one.said, "text": one.text} for one in self.findings]


Measurable = Callable[[WorkspaceRecord, str], Awaitable[str]]
"""Who would measure a workspace's move to a host, "" where nobody may."""


class Preflight:
    """Of all moves."""

    def __init__(self, world: World, asking: Asking, measurable: Measurable) -> None:
        self._world = world
        self._asking = asking
        self._measurable = measurable

    async def look(
        self, workspace: WorkspaceRecord, target: str, measure: bool, manner: Manner, led: Led = ""
    ) -> Verdict:
        """Everything. Asks the hosts only where records do not speak against it, and where their hypervisors are not at
        it already. led: as in MigrationRecord."""
        verdict = self.by_records(workspace, target, measure, manner, led)
        findings = list(verdict.findings)
        if not verdict.refusals and manner.max_gap_ms:
            findings.append(await self._gap(workspace, target, manner))
        if verdict.refusals or not verdict.to or led == "hypervisor":
            return replace(verdict, findings=tuple(findings))
        is_one_kernel = False
        try:
            departing = await self._departing(workspace, target, verdict.to)
            departure = departing.departure
            findings.append(_reached(workspace, target, verdict.to, departure.unreachable))
            findings.append(self._path(workspace, target, departing.passes))
            arrival = await self._asking.ask(
                target, TellArrival(workspace.driver, departure, manner.copy_storage), Arrival, ANSWER_S
            )
            is_one_kernel = arrival.is_one_kernel
            findings += _arriving(target, arrival, len(departure.disks), manner)
        except NotPossible as error:
            findings.append(Finding("hypervisors", "refused", str(error)))
        return replace(verdict, findings=tuple(findings), is_one_kernel=is_one_kernel)

    def by_records(
        self, workspace: WorkspaceRecord, target: str, measure: bool, manner: Manner, led: Led = ""
    ) -> Verdict:
        """What the records alone say. What is missing at all hides what else might be."""
        hindered = list(self._states(workspace, target, led))
        if hindered:
            return Verdict(tuple(Finding("state", "refused", text) for text in hindered))
        assert workspace.host is not None
        name = f"{workspace.playground}/{workspace.name}"
        findings = [Finding("state", "fine", f"{name} runs on {workspace.host}, and {target} is up")]
        source_driver, target_driver = self._driver(workspace.host, workspace), self._driver(target, workspace)
        to = target_driver.peer if target_driver is not None and led != "tool" else ""
        if target_driver is None or source_driver is None:
            lacks = target if target_driver is None else workspace.host
            findings.append(_no("driver", f"host {lacks} does not offer the driver {workspace.driver}"))
        elif source_driver.move == "same-kernel" and source_driver.domain != target_driver.domain:
            text = (
                f"{name} is a {workspace.driver} workspace, and one can't move between kernels: "
                f"{workspace.host} and {target} are different machines"
            )
            findings.append(_no("driver", text))
        elif cause := lacking(workspace, self._world.hosts[target]):
            findings.append(_no("requirements", f"host {target} {cause}, which {name} requires"))
        else:
            findings.append(Finding("driver", "fine", f"{target} offers {workspace.driver}"))
        if not to and (words := manner.of_copying()):
            text = f"{', '.join(words)}: only where a hypervisor copies, and {name} is a {workspace.driver} workspace"
            findings.append(_no("manner", text))
        if manner.max_gap_ms and workspace.driver == "external":
            findings.append(_no("gap", f"--max-gap: it is not known when somebody else moves {name}"))
        elif manner.max_gap_ms and not measure:
            findings.append(_no("gap", "--max-gap needs the measurement that --no-measure leaves out"))
        elif manner.max_gap_ms and manner.post_copy:
            findings.append(
                _no("gap", "--max-gap: how long a machine waits for memory after --post-copy, nobody knows")
            )
        there = self._world.observed_hosts.get(target)
        if self._world.is_policed(workspace.playground):
            if there is not None and there.cannot_police:
                text = f"host {target} can't enforce the policies about {name}: {there.cannot_police}"
                findings.append(_no("policies", text))
            else:
                findings.append(Finding("policies", "fine", f"{target} enforces them"))
        cause = no_room(workspace, self._view(workspace, target))
        text = f"host {target} has no room for {name}: {cause}" if cause else f"{target} has room for it"
        findings.append(Finding("capacity", "refused" if cause else "fine", text))
        folder = target_driver.folder if target_driver is not None else ""
        return Verdict(tuple(findings), to, folder)

    def _states(self, workspace: WorkspaceRecord, target: str, led: Led) -> list[str]:
        """Why nothing can be said of a move yet."""
        name = f"{workspace.playground}/{workspace.name}"
        found = []
        if target not in self._world.hosts:
            found.append(f"no host {target}; hosts are {', '.join(sorted(self._world.hosts)) or 'none'}")
        if workspace.host is None:
            found.append(f"{name} is on no host yet: {workspace.reason or 'it waits to be placed'}")
        if workspace.host == target:
            found.append(f"{name} is on {target} already")
        if workspace.desired != "running":
            way = {"stopped": "start", "suspended": "resume", "saved": "restore"}[workspace.desired]
            found.append(f"{name} is {workspace.desired}; {way} it, then move it")
        # a tool may bring it up again after its host died
        for host in filter(None, dict.fromkeys((None if led == "tool" else workspace.host, target))):
            if host in self._world.hosts and host not in self._world.alive:
                found.append(f"host {host} is not up" + ("" if led == "tool" else "; a move needs both ends"))
        if target in self._world.drains and led != "tool":
            found.append(f"host {target} is drained; `playground host resume {target}` has it take workspaces again")
        if found or led == "tool" or workspace.host is None:
            return found
        seen = self._world.observed_workspaces.get((workspace.playground, workspace.name), {}).get(workspace.host)
        if seen is None or seen.state != "running":
            return [f"{name} is not running on {workspace.host} yet ({seen.state if seen else 'not reported'})"]
        last = self._world.grids[workspace.playground].migrations.get(workspace.name)
        arrived = last.generation if last is not None and last.target == workspace.host else workspace.generation
        if seen.generation not in (workspace.generation, arrived):
            return [f"{name} is about to be restarted on {workspace.host} by an edit; try again in a moment"]
        return []

    def _driver(self, host: str, workspace: WorkspaceRecord) -> Driver | None:
        return next((d for d in self._world.hosts[host].drivers if d.name == workspace.driver), None)

    def _view(self, workspace: WorkspaceRecord, host: str) -> HostView:
        """With all that is there, or comes there, beside the workspace itself."""
        there = [
            other
            for grid in self._world.grids.values()
            for other in grid.workspaces.values()
            if other != workspace and host in takes_room_of(grid, other)
        ]
        cpus, memory_mib = sum(w.cpus for w in there), sum(w.memory_mib for w in there)
        return HostView(self._world.hosts[host], host in self._world.alive, cpus, memory_mib)

    async def _gap(self, workspace: WorkspaceRecord, target: str, manner: Manner) -> Finding:
        peer = await self._measurable(workspace, target)
        if not peer:
            name = f"{workspace.playground}/{workspace.name}"
            return _no("gap", f"--max-gap: no peer may send {name} what would measure it")
        return Finding("gap", "fine", f"measured from {peer}")

    async def _departing(self, workspace: WorkspaceRecord, target: str, to: str) -> Departing:
        question = TellDeparture(
            workspace.driver, workspace.id, to, self._world.hosts[target].underlay, self._size(workspace)
        )
        return await self._asking.ask(str(workspace.host), question, Departing, ANSWER_S)

    def _size(self, workspace: WorkspaceRecord) -> int:
        """Of the largest underlay packet of the workspace's networks, in bytes."""
        grid = self._world.grids[workspace.playground]
        version = 6 if ":" in self._world.hosts[str(workspace.host)].underlay else 4
        networks = {grid.ports[port].network_id for port in workspace.ports if port in grid.ports}
        return max((grid.networks[id].mtu for id in networks & grid.networks.keys()), default=0) + OVERHEAD[version]

    def _path(self, workspace: WorkspaceRecord, target: str, passes: bool | None) -> Finding:
        size = self._size(workspace)
        ends = f"from {workspace.host} to {target}"
        match passes:
            case True:
                return Finding("underlay", "fine", f"packets of {size} bytes pass {ends}")
            case False:
                return _no("underlay", f"no packets of {size} bytes pass {ends}: a smaller MTU is on the way")
            case None:
                return Finding("underlay", "unknown", f"no echo request is answered {ends}, so its MTU is not known")


def _no(about: str, text: str) -> Finding:
    return Finding(about, "refused", text)


def _reached(workspace: WorkspaceRecord, target: str, to: str, cause: str) -> Finding:
    if cause:
        return _no("hypervisors", f"the hypervisor of {workspace.host} does not reach that of {target} ({to}): {cause}")
    return Finding("hypervisors", "fine", f"that of {workspace.host} reaches {to}")


def _arriving(target: str, arrival: Arrival, disks: int, manner: Manner) -> list[Finding]:
    if arrival.processor:
        found = [_no("processor", f"host {target}: {arrival.processor}")]
    elif arrival.is_unknown:
        found = [Finding("processor", "unknown", f"{target} can't tell whether it has what the machine's needs")]
    else:
        found = [Finding("processor", "fine", f"{target} has what the machine's needs")]
    if arrival.disks:
        found += (_no("disks", f"host {target}: {text}") for text in arrival.disks)
    else:
        how = "what its host has made is copied" if manner.copy_storage else "all are there"
        found.append(Finding("disks", "fine", how if disks else "it has none"))
    return found
