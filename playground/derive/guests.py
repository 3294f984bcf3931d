"""Pure. What each workspace that concerns a host should be doing on it; knows nothing of drivers' ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from overlay.state import PortId, port_device
from playground.gateways import gateway_name
from playground.records import Desired, MigrationRecord, WorkspaceRecord
from playground.view import View, playground_scope
from playground.workspaces.drivers.api import Guest, Nic, Sending
from playground.workspaces.migration import ENDED, State


class Role(Enum):
    """A host's part in a workspace."""

    RUN = "run"
    SUSPEND = "suspend"
    """It is here, and stands still."""
    SAVE = "save"
    """Its memory is kept here in a file."""
    STOP = "stop"
    ARRIVE = "arrive"
    """Prepare for it; it runs elsewhere."""
    TAKE = "take"
    """Prepared: let its traffic come here now."""
    HOLD = "hold"
    """It went elsewhere; keep its ends until peers have followed."""
    WAIT = "wait"
    """Its records are not all here yet: leave it as it is."""
    AWAY = "away"
    """It belongs elsewhere: what is here of it goes once another host carries it; the guest itself is never ended."""


_ROLES: dict[Desired, Role] = {
    "running": Role.RUN,
    "suspended": Role.SUSPEND,
    "saved": Role.SAVE,
    "stopped": Role.STOP,
}

ADOPTED = frozenset({"external", "libvirt"})
"""Drivers whose devices are made in the host's namespace."""

FOREIGN = "external"
"""The driver of guests that others run: where one of them is, records alone say."""


@dataclass(frozen=True, slots=True)
class Want:
    """One workspace's role here. generation: the record's (of the move, while one is under way).

    placed: the number of its placement; a guest that came where it is before that is of an earlier workspace.
    move: the number by which it is where it belongs: of its last move that this host was shown, or of its placement.
    concluded: of the last of these that is over; a guest that a newer move has brought elsewhere is not taken back,
    whatever an older view says. sending: where this host's hypervisor is to copy it now, and how. copies_storage:
    it comes here with its disks. called_off: the copying is to stop. is_followed: somebody else has it copied from
    here. grace_s: how long the guest has to end when it is asked to, None for its driver's own.
    """

    id: str
    playground: str
    name: str
    driver: str
    role: Role
    generation: int
    guest: Guest
    ports: tuple[str, ...]
    adopt: bool
    placed: int = 0
    move: int = 0
    concluded: int = 0
    sending: Sending | None = None
    copies_storage: bool = False
    called_off: bool = False
    grace_s: float | None = None
    is_followed: bool = False


def role_of(workspace: WorkspaceRecord, move: MigrationRecord | None, host: str) -> Role | None:
    """The role of `host` in a workspace that it was shown, None when it has none."""
    if move is not None and State(move.state) not in ENDED:
        activated = move.state == State.ACTIVATED
        carries = Role.SUSPEND if workspace.desired == "suspended" else Role.RUN
        if host == move.target:
            if activated:
                return carries
            return Role.TAKE if move.state in (State.COPYING, State.LANDING) else Role.ARRIVE
        if host == move.source:
            return Role.HOLD if activated else carries
        return Role.AWAY
    if workspace.host != host:
        return Role.AWAY if workspace.host is not None else None
    return _ROLES[workspace.desired]


def _concluded(move: MigrationRecord | None) -> int:
    if move is None:
        return 0
    return move.generation if State(move.state) in ENDED else move.generation - 1


def wants(view: View, host: str) -> dict[str, Want]:
    """Every workspace with a role on `host`, by id."""
    found = (want_of(view, host, record.playground, record.name) for record in view.workspaces(host))
    return {want.id: want for want in found if want is not None}


def want_of(view: View, host: str, playground: str, name: str) -> Want | None:
    """The role of `host` in one workspace, None when it has none."""
    workspace = view.workspace(host, playground, name)
    if workspace is None or gateway_name(name) is not None:
        return None
    move = view.migration(host, playground, name)
    role = role_of(workspace, move, host)
    if role is None:
        return None
    scope = view.scopes.get(playground_scope(playground))
    nics = []
    for index, port_id in enumerate(workspace.ports):
        port = scope.ports.get(port_id) if scope else None
        network = scope.networks.get(port.network_id) if scope and port else None
        if port is None or network is None:
            role = Role.WAIT
            break
        nics.append(Nic(port.id, port_device(PortId(port.id)), port.mac, network.mtu, index))
    is_sent = move is not None and bool(move.to) and move.source == host
    is_theirs = move is not None and move.led == "hypervisor"
    arrives = move is not None and role in (Role.ARRIVE, Role.TAKE)
    return Want(
        id=workspace.id,
        playground=playground,
        name=name,
        driver=workspace.driver,
        role=role,
        generation=move.generation if move is not None and arrives else workspace.generation,
        guest=Guest(
            workspace.id,
            playground,
            name,
            name,
            tuple(nics),
            workspace.cpus,
            workspace.memory_mib,
            workspace.machine,
            workspace.reboots,
            workspace.resumes,
        ),
        ports=workspace.ports,
        adopt=workspace.driver in ADOPTED,
        placed=workspace.placed,
        move=max(workspace.placed, move.generation if move is not None else 0),
        concluded=max(workspace.placed, _concluded(move)),
        sending=Sending(move.to, move.folder, move.manner, move.is_one_kernel)
        if move is not None and is_sent and not is_theirs and move.state == State.COPYING
        else None,
        copies_storage=move is not None and arrives and move.manner.copy_storage,
        called_off=move is not None and is_sent and move.called_off,
        grace_s=workspace.hurry_s if workspace.hurry_s is not None else workspace.grace_s,
        is_followed=move is not None and is_sent and is_theirs and State(move.state) not in ENDED,
    )
