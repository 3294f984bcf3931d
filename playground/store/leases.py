"""Which leases run, and until when. Pure: time is an argument; knows neither keys nor disk."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from playground.store.api import LeaseId


@dataclass(slots=True)
class _Running:
    ttl_s: float
    deadline_mono_s: float


class Leases:
    """The running leases of one engine."""

    def __init__(self) -> None:
        self._running: dict[LeaseId, _Running] = {}
        self.next_due_mono_s = inf
        """No lease is due before this; renewing only moves deadlines away, so it may be too early, never too late."""

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._running

    def grant(self, lease: LeaseId, ttl_s: float, now_mono_s: float) -> None:
        """Starts a lease, or starts one anew after its end could not be written down."""
        self._running[lease] = _Running(ttl_s, now_mono_s + ttl_s)
        self.next_due_mono_s = min(self.next_due_mono_s, now_mono_s + ttl_s)

    def renew(self, lease: LeaseId, now_mono_s: float) -> bool:
        """Starts the lease's time anew; False when it does not run."""
        running = self._running.get(lease)
        if running is None:
            return False
        running.deadline_mono_s = now_mono_s + running.ttl_s
        return True

    def due(self, now_mono_s: float) -> list[LeaseId]:
        """The leases whose time is over; they run until they are dropped."""
        if now_mono_s < self.next_due_mono_s:
            return []
        self.next_due_mono_s = min((r.deadline_mono_s for r in self._running.values()), default=inf)
        return [lease for lease, running in self._running.items() if running.deadline_mono_s <= now_mono_s]

    def drop(self, lease: LeaseId) -> None:
        """Forgets a lease; it may be gone already."""
        self._running.pop(lease, None)
