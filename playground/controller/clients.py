"""What is known of workspaces' DHCP clients: the records' side, and what the hosts' responders say when they are asked.

Keeps nothing. A host that does not answer leaves its columns empty, and says why.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterable
from typing import Any

from dhcp.leases import State
from playground.blocks import addresses, spans_of
from playground.controller import status
from playground.controller.asking import Asking
from playground.controller.diagnosis import findings, machines
from playground.controller.execution import NotPossible
from playground.controller.naming import name_findings
from playground.controller.strangers import sentences
from playground.controller.world import Grid, World
from playground.gateways import gateway_name
from playground.questions import Clients, TellClients
from playground.records import PortRecord
from playground.responder.protocol import Exchange, Leased, PoolClient, PortTold

Json = dict[str, Any]

ASK_S = 3.0
"""How long a host may take: its responder answers in milliseconds."""


class ClientsAsked:
    """One controller's."""

    def __init__(self, world: World, asking: Asking) -> None:
        self._world = world
        self._asking = asking

    async def leases(self, playground: str | None) -> list[Json]:
        """Every address that is meant for a port, those that its client formed beside, and every lease of a pool: who,
        what, since, until, client."""
        rows = status.leases(self._world, playground)
        told, _ = await self._told({row["port"]: row["host"] for row in rows if row["host"] is not None})
        last_of = {row["port"]: row["address"] for row in rows}
        meant = {(row["port"], row["address"]) for row in rows}
        found = []
        for row in rows:
            known = told.get(row["port"])
            found.append(row | _columns(known, _lease_of(known, row["address"]), row["address"]))
            if known is None or row["address"] != last_of[row["port"]]:
                continue
            strange = [lease for lease in known.leases6 if (row["port"], lease.address) not in meant]
            for lease in strange:
                more = {"address": lease.address, "mac": lease.mac, "state": lease.kind.value}
                found.append(row | more | _columns(None, lease, lease.address))
            found += [row | _pool_row(client) for client in known.pool if client.lease.until_s > time.time()]
        return found

    async def why(self, ports: Iterable[tuple[Grid, PortRecord]]) -> list[Json]:
        """What is to be said of ports: sentences, counts, the last exchanges."""
        wanted = list(ports)
        seen = {port.id: status.port_state(self._world, grid, port) for grid, port in wanted}
        told, problems = await self._told({id: host for id, (host, _, _) in seen.items() if host is not None})
        now_utc_s = time.time()
        found = []
        for grid, port in wanted:
            host, state, cause = seen[port.id]
            known, hinders = told.get(port.id), problems.get(host or "", {})
            if isinstance(hinders, NotPossible):
                said = [f"its host can't be asked: {hinders}"]
                said += findings(port, state, cause, None, {}, now_utc_s)[: 0 if state == "forwarding" else 1]
            else:
                said = findings(port, state, cause, known, hinders, now_utc_s)
            said += sentences(self._world, port)
            if known is not None and port.dynamic:
                said += machines(port, known, _free(grid, port), now_utc_s)
            if not isinstance(hinders, NotPossible) and known is not None:
                said += name_findings(known, _networks(grid))
            found.append(
                {
                    "playground": port.playground,
                    "workspace": port.workspace,
                    "network": port.network,
                    "host": host,
                    "mac": port.mac,
                    "addresses": list(port.addresses),
                    "state": state,
                    "findings": said,
                    "counts": {} if known is None else known.counts,
                    "counts6": {} if known is None else known.counts6,
                    "exchanges": [] if known is None else [_exchange(one) for one in known.exchanges],
                }
                | _columns(known, None if known is None else known.lease, "")
            )
        return found

    def ports_of(self, text: str) -> list[tuple[Grid, PortRecord]] | None:
        """The ports that have an address, in whichever playground; None for what is no address."""
        try:
            wanted = str(ipaddress.ip_address(text))
        except ValueError:
            return None
        return [
            (grid, port)
            for _, grid in sorted(self._world.grids.items())
            for port in grid.ports.values()
            if (wanted in port.addresses or _is_given(grid, port, wanted)) and gateway_name(port.workspace) is None
        ]

    async def _told(self, hosts: dict[str, str]) -> tuple[dict[str, PortTold], dict[str, dict[str, str] | NotPossible]]:
        """What hosts say, by port; and what hinders answers there, by host. hosts: of each port."""
        by_host: dict[str, list[str]] = {}
        for port, host in hosts.items():
            by_host.setdefault(host, []).append(port)
        told: dict[str, PortTold] = {}
        problems: dict[str, dict[str, str] | NotPossible] = {}

        async def ask(host: str, ports: list[str]) -> None:
            try:
                answer = await self._asking.ask(host, TellClients(ports), Clients, ASK_S)
            except NotPossible as error:
                problems[host] = error
                return
            problems[host] = answer.problems
            told.update((one.port, one) for one in answer.ports)

        await asyncio.gather(*(ask(host, ports) for host, ports in by_host.items()))
        return told, problems


def _networks(grid: Grid) -> dict[str, set[str]]:
    """Those that each workspace is on."""
    found: dict[str, set[str]] = {}
    for port in grid.ports.values():
        found.setdefault(port.workspace, set()).add(port.network)
    return found


def _lease_of(told: PortTold | None, address: str) -> Leased | None:
    if told is None:
        return None
    if ":" not in address:
        return told.lease
    return next((lease for lease in told.leases6 if lease.address == address), None)


def _free(grid: Grid, port: PortRecord) -> int:
    """Addresses of a network's dynamic range that no port has."""
    network = grid.networks.get(port.network_id)
    ranges = spans_of(network.dynamic) if network is not None else ()
    given = {one for record in grid.dynamics.values() for one in addresses(record.blocks)}
    return sum(span.size - sum(one in span for one in given) for span in ranges)


def _is_given(grid: Grid, port: PortRecord, address: str) -> bool:
    """Whether machines behind a port may get an address."""
    record = grid.dynamics.get(port.id)
    return record is not None and ":" not in address and int(ipaddress.IPv4Address(address)) in addresses(record.blocks)


def _columns(told: PortTold | None, lease: Leased | None, address: str) -> Json:
    """since and until: of the lease; seen: when the client was heard last. Seconds since the epoch, or None. A client
    is known by its identifier to DHCPv4, and by its DUID to DHCPv6."""
    since = until = None
    if lease is not None and lease.since_utc_s:
        since, until = lease.since_utc_s, lease.until_utc_s
    identifier = "" if told is None else told.client_id
    if told is not None and (":" in address or not identifier):
        identifier = told.duid
    return {
        "since": since,
        "until": until,
        "client_id": identifier,
        "vendor": "" if told is None or ":" in address else told.vendor,
        "hostname": "" if told is None else told.hostname,
        "seen": None if told is None else told.seen_utc_s,
    }


def _pool_row(client: PoolClient) -> Json:
    """The same columns of a client that nobody declared. Its key begins with ff where it is an identifier
    (`dhcp.leases.client_key`)."""
    lease = client.lease
    return {
        "address": str(ipaddress.IPv4Address(lease.address)),
        "mac": lease.mac.hex(":"),
        "state": "bound" if lease.state is State.LEASED else lease.state.value,
        "since": round(lease.since_s, 3),
        "until": round(lease.until_s, 3),
        "client_id": lease.client[1:].hex() if lease.client[:1] == b"\xff" else "",
        "vendor": client.vendor,
        "hostname": client.hostname,
        "seen": client.seen_utc_s,
    }


def _exchange(one: Exchange) -> Json:
    return {
        "at": one.at_utc_s,
        "what": one.what,
        "mac": one.mac,
        "address": one.address,
        "outcome": one.outcome.lower(),
    }
