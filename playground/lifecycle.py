"""Pure. What may be asked of a workspace, what its record says then, and why not. Knows no hosts and no drivers' ways.

All but a reboot is a state that is wanted from then on, whoever is away or starts again meanwhile; a reboot is a number
in the record, and is done once for each.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from playground.hypervisors import kind
from playground.records import Desired, ObservedWorkspace, WorkspaceRecord

Verb = Literal["start", "stop", "suspend", "resume", "save", "restore", "reboot"]

WANTED: dict[Verb, Desired] = {
    "start": "running",
    "stop": "stopped",
    "suspend": "suspended",
    "resume": "running",
    "save": "saved",
    "restore": "running",
    "reboot": "running",
}
"""What is wanted once a verb is accepted."""

_FROM: dict[Verb, frozenset[Desired]] = {
    "start": frozenset({"running", "stopped", "saved", "suspended"}),
    "stop": frozenset({"running", "stopped", "saved", "suspended"}),
    "suspend": frozenset({"running", "suspended"}),
    "resume": frozenset({"running", "suspended"}),
    "save": frozenset({"running", "suspended", "saved"}),
    "restore": frozenset({"running", "saved"}),
    "reboot": frozenset({"running"}),
}
"""In which states that were wanted so far a verb makes sense."""

_FIRST: dict[Desired, str] = {
    "stopped": "start it first: playground start {}",
    "saved": "restore it first: playground restore {}",
    "suspended": "resume it first: playground resume {}",
    "running": "",
}

_UNSUSPENDED = {
    "netns": "a namespace has no processors of its own that could stand still",
    "external": "it is run by somebody else",
}


class NotNow(Exception):
    """It can't be asked of this workspace; the text says why, and what would help."""


def asked(
    workspace: WorkspaceRecord, verb: Verb, *, is_moving: bool, is_halted: bool, grace_s: float | None = None
) -> WorkspaceRecord:
    """The record once `verb` is accepted: the same where nothing is to be done. is_halted: it stands still though it is
    wanted running. grace_s: of `stop`, how long it has to end. Raises NotNow."""
    name = f"{workspace.playground}/{workspace.name}"
    if why := _why_never(workspace, verb):
        raise NotNow(f"{name} can't be {_DONE[verb]}: {why}")
    if workspace.desired not in _FROM[verb]:
        raise NotNow(f"{name} is {workspace.desired}; {_FIRST[workspace.desired].format(name)}")
    wanted = WANTED[verb]
    is_let_go = verb in ("start", "resume") and is_halted
    if wanted == workspace.desired and verb != "reboot" and not is_let_go:
        return workspace
    if is_moving and verb not in ("start", "resume"):
        raise NotNow(f"{name} is being moved; wait, or abort the move first")
    return msgspec.structs.replace(
        workspace,
        desired=wanted,
        generation=workspace.generation + 1,
        hurry_s=grace_s if verb == "stop" else None,
        reboots=workspace.reboots + (verb == "reboot"),
        resumes=workspace.resumes + is_let_go,
    )


_DONE: dict[Verb, str] = {
    "start": "started",
    "stop": "stopped",
    "suspend": "suspended",
    "resume": "resumed",
    "save": "saved",
    "restore": "restored",
    "reboot": "rebooted",
}


def _why_never(workspace: WorkspaceRecord, verb: Verb) -> str:
    if verb in ("start", "stop") or (verb == "reboot" and workspace.driver != "external"):
        return ""
    machine = workspace.machine
    if verb in ("save", "restore") and machine is not None and not kind(machine.type).saves:
        return f"libvirt keeps no memory in a file of machines of type {machine.type}"
    return _UNSUSPENDED.get(workspace.driver, "")


def why_not_rebuilt(workspace: WorkspaceRecord) -> str:
    """Why an edit that makes a workspace anew is refused in the state that is wanted of it; empty where it is not."""
    if workspace.desired not in ("suspended", "saved"):
        return ""
    name = f"{workspace.playground}/{workspace.name}"
    way = "resume" if workspace.desired == "suspended" else "restore"
    return (
        f"it is {workspace.desired}, and this makes it anew, without the memory that is kept of it; "
        f"`playground {way} {name}` or `playground stop {name}` first"
    )


def unasked(before: ObservedWorkspace | None, after: ObservedWorkspace) -> list[tuple[str, str, str]]:
    """Events, as (kind, object, text), of what a machine did that nobody asked for between two reports of one host."""
    name, found = f"workspace {after.playground}/{after.workspace}", []
    if after.ended > (before.ended if before is not None else 0):
        text = f"on {after.host}: {after.ended_cause}; it begins again, {after.ended} times so far"
        found.append(("workspace-ended", name, text))
    was_halted = before is not None and before.state == "suspended" and before.cause == after.cause
    if after.state == "suspended" and after.cause and not was_halted:
        found.append(("workspace-halted", name, f"on {after.host}: {after.cause}"))
    return found
