"""Pure. What is said of MACs that announced themselves where they do not belong. Decides nothing by it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from playground.controller.world import World
from playground.records import ObservedHost, PortRecord, Record, Stranger

MOST = 16
"""Of one host, whatever it says."""


def news(world: World, before: Record | None, after: ObservedHost) -> Iterator[tuple[str, str, str]]:
    """The events of those that a host had not told of before."""
    known = before.strangers if isinstance(before, ObservedHost) else ()
    for one in after.strangers[:MOST]:
        if one not in known and (port := _port(world, one.port)) is not None:
            text = f"its MAC {one.mac} announced itself {_where(world, after.host, one)}; that is not believed"
            yield "mac-elsewhere", f"workspace {port.playground}/{port.workspace}", text


def sentences(world: World, port: PortRecord) -> list[str]:
    """What is to be said of one port: that its MAC was elsewhere, or another's was there."""
    found = []
    for host, seen in sorted(world.observed_hosts.items()):
        for one in seen.strangers[:MOST]:
            since = time.strftime("%H:%M:%S", time.localtime(one.since_utc_s))
            if one.port == port.id:
                where = _where(world, host, one)
                found.append(f"its MAC {one.mac} announces itself {where} since {since}, which is not believed")
            elif one.at == port.id and (owner := _port(world, one.port)) is not None:
                name = f"{owner.workspace}.{owner.network}"
                found.append(f"the MAC of {name}, {one.mac}, announces itself there since {since}, which is dropped")
    return found


def of_host(world: World, seen: ObservedHost) -> list[str]:
    """What is to be said of a host."""
    return [
        f"the MAC of {port.playground}/{port.workspace}.{port.network} announces itself {_where(world, '', one)} since "
        f"{time.strftime('%H:%M:%S', time.localtime(one.since_utc_s))}, which is not believed"
        for one in seen.strangers[:MOST]
        if (port := _port(world, one.port)) is not None
    ]


def _port(world: World, id: str) -> PortRecord | None:
    home = world.homes.get(id)
    return world.grids[home].ports.get(id) if home is not None else None


def _where(world: World, host: str, one: Stranger) -> str:
    on = f" on {host}" if host else ""
    if not one.at:
        return f"from another host, by the tunnel{f' of {host}' if host else ''}"
    at = _port(world, one.at)
    return f"at {f'{at.workspace}.{at.network}' if at is not None else one.at}{on}"
