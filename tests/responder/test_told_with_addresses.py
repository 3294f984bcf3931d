"""What the responder remembers of a port's IPv6 addresses: each by itself, the last ones, and only so many."""

from __future__ import annotations

from pathlib import Path

from dhcp.decide import LeaseKind
from dhcp.io.journal import Journal
from dhcp.io.unasked import Heard
from playground.responder.protocol import Leased, Report
from playground.responder.service import MOST_6, Service

PORT, MAC = "000000000001", "02:00:00:00:00:01"


def heard(folder: Path, *said: Heard) -> tuple[dict[str, Leased], list[Report]]:
    """What is known, and what the agent was told, once a second has passed for each."""
    clock, reports = iter(range(1000, 2000)), list[Report]()
    service = Service("no such data plane", reports.append, lambda: float(next(clock)), Journal(folder / "leases"))
    for one in said:
        service._heard(one)
    return service.leases, reports


def six(last: int, kind: LeaseKind = LeaseKind.BOUND, until_s: float | None = 9000.0) -> Heard:
    return Heard(f"pg{PORT}", f"fd00::{last:x}", MAC, kind, until_s)


def test_each_address_is_remembered_by_itself(tmp_path: Path) -> None:
    leases, reports = heard(tmp_path, six(1), six(2), six(1, LeaseKind.RELEASED, None))
    assert {lease.address: lease.kind for lease in leases.values()} == {
        "fd00::1": LeaseKind.RELEASED,
        "fd00::2": LeaseKind.BOUND,
    }
    assert len(reports) == 3


def test_the_first_of_many_addresses_is_forgotten(tmp_path: Path) -> None:
    leases, _ = heard(tmp_path, *(six(last, LeaseKind.FORMED, None) for last in range(1, MOST_6 + 3)))
    assert len(leases) == MOST_6
    assert "fd00::1" not in {lease.address for lease in leases.values()}


def test_a_check_for_duplicates_takes_nothing_from_a_lease(tmp_path: Path) -> None:
    leases, reports = heard(tmp_path, six(1), six(1, LeaseKind.FORMED, None))
    assert [(lease.kind, lease.until_utc_s) for lease in leases.values()] == [(LeaseKind.BOUND, 9000.0)]
    assert len(reports) == 1


def test_what_a_client_never_had_it_does_not_give_back(tmp_path: Path) -> None:
    assert heard(tmp_path, six(1, LeaseKind.RELEASED, None)) == ({}, [])
