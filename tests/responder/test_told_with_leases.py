"""What a client was told with its address, its default router and its time, is remembered while it keeps that."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dhcp.decide import LeaseKind
from dhcp.io.journal import Journal
from dhcp.io.unasked import Heard
from playground.responder.protocol import Leased, Report
from playground.responder.service import Service


def heard(folder: Path, *what: Heard) -> tuple[dict[str, Leased], list[Report]]:
    """What a service knows after it heard all of this, a minute between each; and what it reported."""
    reports: list[Report] = []
    clock = iter(range(0, 6000, 60))

    async def work() -> dict[str, Leased]:
        service = Service("no such data plane", reports.append, lambda: float(next(clock)), Journal(folder / "leases"))
        for one in what:
            service._heard(one)
        return service.leases

    return asyncio.run(work()), reports


def bound(router: str | None, address: str = "10.0.0.5", kind: LeaseKind = LeaseKind.BOUND) -> Heard:
    return Heard("pg" + "0" * 12, address, "02:00:00:00:00:05", kind, router=router)


def test_an_answer_by_arp_says_nothing_of_routers(tmp_path: Path) -> None:
    [lease] = heard(tmp_path, bound("10.0.0.9"), bound(None))[0].values()
    assert lease.router == "10.0.0.9"


def test_an_ack_without_a_router_says_that_there_is_none(tmp_path: Path) -> None:
    leases, reports = heard(tmp_path, bound("10.0.0.9"), bound(""))
    assert [lease.router for lease in leases.values()] == [""]
    assert [report.leased.router for report in reports if report.leased is not None] == ["10.0.0.9", ""]


def test_of_another_address_nothing_is_known(tmp_path: Path) -> None:
    [lease] = heard(tmp_path, bound("10.0.0.9"), bound(None, "10.0.0.6"))[0].values()
    assert (lease.address, lease.router) == ("10.0.0.6", None)


def test_an_answer_by_arp_does_not_prolong_a_lease(tmp_path: Path) -> None:
    """As after the process was killed: it asks all clients whether they have what it does not remember."""
    given = bound("")._replace(until_utc_s=3600.0)
    [lease] = heard(tmp_path, given, bound(None), bound(None))[0].values()
    assert (lease.kind, lease.until_utc_s, lease.since_utc_s) == (LeaseKind.BOUND, 3600.0, 0.0)
