"""Addresses for machines that no one declared: has each port's host given blocks of them, and takes them back.

What is to be done is `playground.blocks.step`'s; here it is committed, with its claims, step by step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from overlay.mac import is_usable
from overlay.pools import address_hex
from playground.blocks import Around, claims_of, spans_of, step
from playground.controller.world import World, givers
from playground.records import (
    AliveRecord,
    BindingRecord,
    ClaimRecord,
    DynamicRecord,
    NetworkRecord,
    ObservedHost,
    ObservedLeases,
    PortRecord,
    Record,
    address_claim,
    encode,
    key_of,
    mac_claim,
)
from playground.store.api import Compare, Conflict, Delete, Put, Store

log = logging.getLogger("controller")

PERIOD_S = 5.0
"""How often all ports are looked at, for what time alone changes."""

CHANGE = "dynamic"
"""Stands for the change in claims that no file asked for."""

Name = tuple[str, str]
"""(playground, port)."""


class Dynamic:
    """One controller's."""

    def __init__(self, store: Store, world: World, now_utc_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._world = world
        self._now_utc_s = now_utc_s
        self._due: set[Name] = set()
        """Ports of which something may have changed."""
        world.listen(self._changed)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for _, before, after in changes:
            match after if after is not None else before:
                case PortRecord() as port:
                    self._due.add((port.playground, port.id))
                case DynamicRecord() | BindingRecord() as record:
                    self._due.add((record.playground, record.port))
                case ObservedLeases() as seen:
                    self._due.update(
                        (name, seen.port) for name, grid in self._world.grids.items() if seen.port in grid.dynamics
                    )
                case NetworkRecord() as network:
                    grid = self._world.grids.get(network.playground)
                    ports = grid.ports.values() if grid is not None else ()
                    self._due.update((network.playground, one.id) for one in ports if one.network_id == network.id)
                case ObservedHost() | AliveRecord() as record:
                    self._due.update(name for name, known in self._records() if record.host in givers(known))
                case _:
                    pass

    def _records(self) -> list[tuple[Name, DynamicRecord]]:
        """All that there are."""
        grids = self._world.grids.items()
        return [((name, port), record) for name, grid in grids for port, record in grid.dynamics.items()]

    async def run(self) -> None:
        """Has every port have what it should, for ever."""
        self._due.update((name, port) for name, grid in self._world.grids.items() for port in grid.ports)
        self._due.update(name for name, _ in self._records())
        while True:
            revision = self._world.revision
            while self._due:
                await self._settle(*self._due.pop())
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._world.moved(revision)
            except TimeoutError:
                self._due.update(name for name, _ in self._records())

    async def _settle(self, playground: str, port: str) -> None:
        """One step, if one is to be made; what follows from it is due with the news of it."""
        grid = self._world.grids.get(playground)
        known = grid.dynamics.get(port) if grid is not None else None
        declared = grid.ports.get(port) if grid is not None else None
        if known is None and (declared is None or not declared.dynamic):
            return
        network = known.network_id if known is not None else declared.network_id if declared is not None else ""
        before = known or DynamicRecord(playground=playground, network_id=network, port=port)
        after = step(before, self._around(before))
        is_over = not (after.blocks or after.machines) and (declared is None or not declared.dynamic)
        if after == before and not (is_over and known is not None):
            return
        key, had, has = key_of(before), claims_of(before), claims_of(after)
        come, gone = sorted(has - had), sorted(had - has)
        claim = encode(ClaimRecord(owner=port, playground=playground, change=CHANGE))
        compares = [Compare(key, self._world.modified(key)), *(Compare(one, 0) for one in come)]
        itself = Delete(key) if is_over else Put(key, encode(after))
        revision = self._world.revision
        result = await self._store.commit(
            compares, [itself, *(Put(one, claim) for one in come), *(Delete(one) for one in gone)]
        )
        if isinstance(result, Conflict):
            self._due.add((playground, port))
            if revision == self._world.revision:
                await self._world.moved(revision)
            return
        for block in after.blocks:
            if block not in before.blocks:
                what = "closing" if block.closing else "given"
                log.info("block %s port=%s first=%s last=%s host=%s", what, port, block.first, block.last, block.host)
        if gone:
            log.info("freed port=%s claims=%d", port, len(gone))
        await self._world.reached(result)

    def _around(self, record: DynamicRecord) -> Around:
        world, grid = self._world, self._world.grids.get(record.playground)
        port = grid.ports.get(record.port) if grid is not None else None
        network = grid.networks.get(record.network_id) if grid is not None else None
        binding = grid.bindings.get(record.port) if grid is not None else None
        modified = world.modified(key_of(record))

        def is_final(host: str) -> bool:
            seen = world.observed_hosts.get(host)
            return host in world.alive and seen is not None and seen.served >= modified

        return Around(
            port=port,
            ranges=spans_of(network.dynamic) if network is not None else (),
            lease_s=network.lease_s if network is not None else 0,
            active=binding.active if binding is not None else None,
            stay=binding.generation if binding is not None else 0,
            seen=world.observed_leases.get(record.port, {}),
            is_final=is_final,
            is_alive=world.alive.__contains__,
            is_free=lambda address: world.claim(address_claim(record.network_id, address_hex(4, address))) is None,
            may_have=lambda mac: is_usable(mac) and world.claim(mac_claim(record.network_id, mac)) is None,
            now_utc_s=self._now_utc_s(),
        )
