"""Pure. What a pass has to look at: where two derivations differ, what a message speaks of, what the kernel told of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from overlay.kernel.monitor import Heard
from overlay.parts import Part
from overlay.state import HostState, NetworkId
from playground.records import MigrationRecord, WorkspaceRecord, workspace_id
from playground.wire import Changed, Enter, Leave

K = TypeVar("K")


def guests_in(message: Enter | Changed | Leave) -> set[str]:
    """Ids of the guests that a message of the host's own scope speaks of."""
    found = set()
    records = message.records if isinstance(message, Enter) else ()
    for record in message.puts if isinstance(message, Changed) else records:
        if isinstance(record, WorkspaceRecord):
            found.add(record.id)
        elif isinstance(record, MigrationRecord):
            found.add(workspace_id(record.playground, record.workspace))
    if isinstance(message, Changed):
        found.update(workspace_id(*key.split("/")[1:3]) for key in message.deletes)
    return found


def widen(focus: dict[NetworkId, Part | None], heard: Heard, state: HostState) -> None:
    """Adds to a focus what the kernel has told of. Devices that no network has are left to the look at everything."""
    focus.update(dict.fromkeys(heard.networks))
    for port in heard.ports:
        for id, network in state.networks.items():
            if port in network.ports and (part := focus.get(id, Part())) is not None:
                focus[id] = part | Part(ports=frozenset({port}))


def differing(before: Mapping[K, object], after: Mapping[K, object]) -> Iterator[tuple[K, object]]:
    """Keys and values of what came, went or is another object; what is kept is the same one."""
    if before is after:
        return
    for key, value in after.items():
        if before.get(key) is not value:
            yield key, value
    for key, value in before.items():
        if key not in after:
            yield key, value
