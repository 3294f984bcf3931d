"""Takes the addresses that clients formed themselves for theirs: those that nobody else has, or may have.

What a client's host says it holds beside its port's own addresses becomes a claim and stands in the port's binding,
which all hosts of the network are shown. `dhcp.forming` bounds what a client can say; no host's word makes two ports
have one address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address, ip_network

import msgspec

from overlay.mac import link_local
from overlay.pools import address_hex, parse_address
from overlay.state import LEG_LINK_LOCAL
from playground.controller.events import EventLog
from playground.controller.world import Grid, World
from playground.records import (
    LEARNED,
    BindingRecord,
    ClaimRecord,
    NetworkRecord,
    ObservedPort,
    PortRecord,
    Record,
    address_claim,
    encode,
    key_of,
    mac_claim,
)
from playground.store.api import Change, Compare, Conflict, Put, Store

log = logging.getLogger("controller")

MOST = 16
"""Addresses of one port, link-local among them, whatever its host says."""


class Learning:
    """Of all ports. A pass costs the ports of which something was said since."""

    def __init__(self, store: Store, world: World, events: EventLog) -> None:
        self._store = store
        self._world = world
        self._events = events
        self._due: set[str] = {*world.observed_ports}
        self._told: set[tuple[str, str]] = set()
        world.listen(self._changed)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for _, before, after in changes:
            match after if after is not None else before:
                case ObservedPort() | BindingRecord() as record:
                    self._due.add(record.port)
                case PortRecord() as record:
                    self._due.add(record.id)
                case ClaimRecord(previous=previous) if previous:
                    self._due.add(previous)
                case _:
                    pass

    async def run(self) -> None:
        """For ever."""
        while True:
            revision = self._world.revision
            await self.once()
            if not self._due:
                await self._world.moved(revision)

    async def once(self) -> None:
        """One pass over the ports of which something was said."""
        due, self._due = self._due, set()
        for port in sorted(due):
            found = self._commit(port)
            if found is None:
                continue
            result = await self._store.commit(*found)
            if isinstance(result, Conflict):
                log.info("learning redone conflict=%s", result.keys[:3])
                self._due.add(port)
                await asyncio.sleep(0.01)
            else:
                await self._world.reached(result)

    def _commit(self, id: str) -> tuple[list[Compare], list[Change]] | None:
        """What makes the record of a port's addresses what they are; None where it is so."""
        home = self._world.homes.get(id)
        grid = self._world.grids[home] if home is not None else None
        binding = grid.bindings.get(id) if grid is not None else None
        if grid is None or binding is None or binding.target is not None:
            return None
        port = grid.ports[id]
        network = grid.networks.get(port.network_id)
        seen = self._world.observed_ports.get(id, {}).get(binding.active)
        if network is None or seen is None or seen.generation != binding.generation:
            return None
        learned: list[str] = []
        compares, changes = [self._world.compare(binding), self._world.compare(port)], list[Change]()
        for text in (text for text in seen.leased if is_formed(text, port, network)):
            key = address_claim(port.network_id, address_hex(*parse_address(text)))
            claim = self._world.claim(key)
            cause = self._refusal(text, port, grid, claim) if len(learned) < MOST else f"it has {MOST} already"
            if cause:
                self._tell(port, text, cause)
                continue
            learned.append(text)
            if claim is None:
                compares.append(Compare(key, 0))
                fresh = ClaimRecord(owner=id, playground=port.playground, change=LEARNED)
                changes.append(Put(key, encode(fresh)))
        if tuple(learned) == binding.learned:
            return None
        after = msgspec.structs.replace(binding, learned=tuple(learned))
        return compares, [*changes, Put(key_of(after), encode(after))]

    def _refusal(self, text: str, port: PortRecord, grid: Grid, claim: ClaimRecord | None) -> str:
        """Why an address can't be the port's; empty where it can."""
        if claim is not None:
            return "" if claim.owner == port.id else "another has it"
        if text == LEG_LINK_LOCAL or not int(IPv6Address(text)) & (1 << 64) - 1:
            return "it is the gateway's"
        mac = _mac_in(text)
        owner = self._world.claim(mac_claim(port.network_id, mac)) if mac else None
        if owner is not None and owner.owner != port.id:
            return "it is made of another's MAC"
        if any(IPv6Address(text) in ip_network(block) for block in _allowed_others(grid, port) if ":" in block):
            return "another is allowed to use it"
        return ""

    def _tell(self, port: PortRecord, text: str, cause: str) -> None:
        """Once for each."""
        if (port.id, text) not in self._told and len(self._told) < 4096:
            self._told.add((port.id, text))
            name = f"workspace {port.playground}/{port.workspace}"
            self._events.add("address-refused", name, f"it formed {text} on {port.network}, but {cause}")


def is_formed(text: str, port: PortRecord, network: NetworkRecord) -> bool:
    """Whether a client may have formed an address, as its network is told of to it, beside the port's own."""
    address = ip_address(text)
    if address.version == 4 or text in (*port.addresses, link_local(port.mac)):
        return False
    if any(address in ip_network(block) for block in port.allowed_addresses):
        return False
    if address.is_link_local:
        return True
    return network.ipv6 != "dhcp" and any(address in ip_network(subnet) for subnet in network.subnets)


def _allowed_others(grid: Grid, port: PortRecord) -> Iterator[str]:
    for other in grid.ports.values():
        if other.network_id == port.network_id and other.id != port.id:
            yield from other.allowed_addresses


def _mac_in(text: str) -> str:
    """The MAC whose modified EUI-64 an address ends in; "" if it ends in none."""
    raw = IPv6Address(text).packed[8:]
    return bytes((raw[0] ^ 2, *raw[1:3], *raw[5:])).hex(":") if raw[3:5] == b"\xff\xfe" else ""
