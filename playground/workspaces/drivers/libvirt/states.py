"""Pure. What libvirt's numbers for a domain's state and its reason mean here, and the words for people.

https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainState
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class State(Enum):
    """Of a domain. LEFT: it stands still for a migration, on either side. SAVED: off, with its memory in a file."""

    OFF = "off"
    SAVED = "saved"
    PAUSED = "paused"
    LEFT = "left"
    RUNNING = "running"
    CRASHED = "crashed"


_PASSING = frozenset({"SAVE", "DUMP", "SNAPSHOT", "SHUTTING_DOWN"})
"""Why libvirt has a domain stand still for as long as it does something itself."""

_LEAVING = frozenset({"MIGRATION", "POSTCOPY"})

_CAUSES = {
    "PAUSED": {
        "USER": "suspended by another tool",
        "IOERROR": "a disk failed",
        "WATCHDOG": "its watchdog fired",
        "FROM_SNAPSHOT": "it was reverted to a snapshot",
        "CRASHED": "its guest has crashed",
        "POSTCOPY_FAILED": "its memory did not all arrive in a post-copy migration",
    },
    "SHUTOFF": {
        "SHUTDOWN": "it has shut itself down",
        "DESTROYED": "another tool has ended it",
        "CRASHED": "its hypervisor's process has died",
        "FAILED": "its hypervisor could not start it",
        "DAEMON": "libvirtd has ended it",
    },
    "CRASHED": {"PANICKED": "its guest's kernel has panicked"},
}
"""By the state's name and the reason's, as libvirt has them: VIR_DOMAIN_PAUSED_IOERROR."""


def _reason(libvirt: Any, state: int, reason: int) -> tuple[str, str]:
    """The names of a state that has causes, and of its reason; empty for others."""
    for name, causes in _CAUSES.items():
        if state == getattr(libvirt, f"VIR_DOMAIN_{name}"):
            known = (*causes, *_PASSING, *_LEAVING) if name == "PAUSED" else causes
            return name, next((r for r in known if getattr(libvirt, f"VIR_DOMAIN_{name}_{r}", None) == reason), "")
    return "", ""


def cause_of(libvirt: Any, state: int, reason: int) -> str:
    """Why a domain stands still or is off, in a few words; empty for what says nothing."""
    name, known = _reason(libvirt, state, reason)
    return _CAUSES[name].get(known, "") if name else ""


def state_of(libvirt: Any, state: int, reason: int) -> State:
    """What virDomainGetState says. libvirt: the module, for its numbers."""
    match state:
        case libvirt.VIR_DOMAIN_RUNNING | libvirt.VIR_DOMAIN_BLOCKED | libvirt.VIR_DOMAIN_SHUTDOWN:
            return State.RUNNING
        case libvirt.VIR_DOMAIN_PAUSED:
            why = _reason(libvirt, state, reason)[1]
            return State.LEFT if why in _LEAVING else State.RUNNING if why in _PASSING else State.PAUSED
        case libvirt.VIR_DOMAIN_CRASHED:
            return State.CRASHED
        case _:
            return State.OFF
