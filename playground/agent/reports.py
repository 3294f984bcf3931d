"""What a host says of itself: observations, told when they are new. Decides nothing; knows no kernel.

Whoever observes notes what it has looked at; what stands as it was said is not said again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from overlay.kernel.converge import PortStatus
from playground.derive import Role, Want
from playground.records import BindingRecord, Copied, ObservedPort, ObservedWorkspace, key_of
from playground.wire import Observation, Report
from playground.workspaces.drivers.api import GuestState, Observed

_ENDS_FIRST = "it is made anew, and what ran before ends first, within its grace"
_NOTHING_TO_SAVE = "it ended before it was saved, and nothing of its memory is left; start it, and it boots"


class Reports:
    """Everything observed, and what of it the controller has not been told."""

    def __init__(self) -> None:
        self._observed: dict[str, Observation] = {}
        self._unsaid: set[str] = set()
        self._is_whole_due = True

    def note(self, observation: Observation) -> None:
        """This is so now."""
        key = key_of(observation)
        if self._observed.get(key) != observation:
            self._observed[key] = observation
            self._unsaid.add(key)

    def drop(self, key: str) -> None:
        """Nothing is to be said under this key (any more)."""
        if self._observed.pop(key, None) is not None:
            self._unsaid.add(key)

    def keep(self, keys: Iterable[str]) -> None:
        """Drops everything else."""
        for key in self._observed.keys() - set(keys):
            self.drop(key)

    def begin(self) -> None:
        """A new connection: the next report says everything."""
        self._is_whole_due = True

    def due(self) -> Report | None:
        """What has to be said now, if anything."""
        if self._is_whole_due:
            return Report(True, list(self._observed.values()), [])
        fresh = [self._observed[key] for key in sorted(self._unsaid) if key in self._observed]
        gone = sorted(key for key in self._unsaid if key not in self._observed)
        return Report(False, fresh, gone) if fresh or gone else None

    def said(self, report: Report) -> None:
        """That much has been told."""
        self._is_whole_due = self._is_whole_due and not report.whole
        for observation in report.observed:
            if self._observed.get(key := key_of(observation)) == observation:
                self._unsaid.discard(key)
        self._unsaid.difference_update(key for key in report.gone if key not in self._observed)


def observed_port(
    host: str,
    binding: BindingRecord,
    status: PortStatus | None,
    leased: Mapping[str, bool],
    problem: str,
    routers: Mapping[str, float],
) -> ObservedPort:
    """What a host says of a port of its own. leased: addresses that its client took here or formed, or gave back
    (False). problem: why the responder can't answer for it, or empty. routers: as the record has them."""
    held = dict.fromkeys((*binding.leased, *binding.learned), True) | dict(leased)
    return ObservedPort(
        port=binding.port,
        host=host,
        generation=binding.generation,
        programmed=status.state.value if status else "waiting",
        cause=(status.cause if status else "") or problem,
        leased=tuple(sorted(address for address, is_held in held.items() if is_held)),
        routers=dict(routers),
    )


def observed_workspace(
    host: str,
    want: Want,
    state: GuestState,
    *,
    cause: str,
    is_ready: bool,
    has_arrived: bool,
    differs: bool,
    pause_ms: float | None,
    seen: Observed | None = None,
    is_announced: bool = False,
) -> ObservedWorkspace:
    """What a host says of a workspace that it has a role in. state: as found. cause: of the last action that failed.
    is_ready: all its ports are programmed and answered for. has_arrived: by the very move that it is wanted by.
    differs: it runs with other NICs than it is to have. seen: what else its driver says of it. is_announced: it says of
    itself that it runs here, and its hypervisor has not said so yet."""
    copy = seen.copy if seen is not None else None
    waits = ""
    unasked = seen.cause if seen is not None and state is GuestState.SUSPENDED else ""
    match want.role, state:
        case (Role.RUN, GuestState.RUNNING) if differs:
            said, waits = "preparing", _ENDS_FIRST
        case (Role.RUN, GuestState.RUNNING):
            said = "running"
        case (Role.TAKE, GuestState.RUNNING) if has_arrived:
            said = "running"
        case (Role.RUN | Role.TAKE, GuestState.ELSEWHERE) if is_announced:
            said = "announced"
        case (Role.ARRIVE | Role.TAKE, GuestState.ELSEWHERE) if is_ready:
            said = "prepared"
        case (Role.STOP, GuestState.ABSENT):
            said = "stopped"
        case (Role.SUSPEND, (GuestState.SUSPENDED | GuestState.PREPARED)) | (Role.RUN, GuestState.SUSPENDED) if (
            unasked or want.role is Role.SUSPEND
        ):
            said, cause = "suspended", cause or unasked
        case (Role.SAVE, GuestState.SAVED):
            said = "saved"
        case (Role.SAVE, (GuestState.ABSENT | GuestState.FAILED)):
            said, cause = "failed", cause or _NOTHING_TO_SAVE
        case (Role.STOP | Role.HOLD | Role.AWAY, _):
            said = "leaving"
        case _:
            said = "preparing"
    return ObservedWorkspace(
        playground=want.playground,
        workspace=want.name,
        host=host,
        generation=want.generation,
        state="failed" if said == "preparing" and cause else said,
        cause=cause or waits,
        pause_ms=None if pause_ms is None else round(pause_ms, 3),
        copied=None if copy is None else Copied(copy.move, copy.state.value, copy.cause, copy.done, copy.pause_ms),
        reboots=seen.reboots if seen is not None else 0,
        ended=seen.ended if seen is not None else 0,
        ended_cause=seen.ended_cause if seen is not None else "",
    )


def leaving(host: str, seen: Observed | None) -> ObservedWorkspace | None:
    """What a host says of a workspace that nothing is wanted of; None when nothing of it is here."""
    if seen is None or not seen.name:
        return None
    return ObservedWorkspace(playground=seen.playground, workspace=seen.name, host=host, generation=0, state="leaving")
