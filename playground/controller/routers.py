"""Says which port a virtual router's MAC is at: where a host heard it speak last, of the ports that may have it.

Several ports may have one such MAC (VRRP, RFC 9568), and one has it at a time. What a host says of a port that may not
have it is left aside; two that both speak all the time take it from each other, as they would at a switch.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from overlay.mac import is_virtual_router
from playground.controller.world import World
from playground.records import ObservedPort, Record, encode, key_of
from playground.store.api import Change, Compare, Conflict, Put, Store

log = logging.getLogger("controller")


class Routers:
    """Of all networks. A pass costs the ports where one has begun to speak."""

    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world
        self._due: dict[tuple[str, str], None] = {}
        """(port, MAC), in the order in which they were heard."""
        world.listen(self._changed)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for _, before, after in changes:
            if isinstance(after, ObservedPort) and after.routers:
                known = before.routers if isinstance(before, ObservedPort) else {}
                for mac, at_s in after.routers.items():
                    if known.get(mac) != at_s:
                        self._due.pop((after.port, mac), None)
                        self._due[after.port, mac] = None

    async def run(self) -> None:
        """For ever."""
        while True:
            revision = self._world.revision
            await self.once()
            if not self._due:
                await self._world.moved(revision)

    async def once(self) -> None:
        """One pass over what was said."""
        due, self._due = self._due, {}
        for port, mac in due:
            found = self._commit(port, mac)
            if found is None:
                continue
            result = await self._store.commit(*found)
            if isinstance(result, Conflict):
                self._due.setdefault((port, mac))
                await asyncio.sleep(0.01)
            else:
                log.info("virtual router taken over mac=%s port=%s", mac, port)
                await self._world.reached(result)

    def _commit(self, id: str, mac: str) -> tuple[list[Compare], list[Change]] | None:
        """What makes a port the one that has a MAC; None where it has it, or may not."""
        home = self._world.homes.get(id)
        grid = self._world.grids[home] if home is not None else None
        binding = grid.bindings.get(id) if grid is not None else None
        if grid is None or binding is None or mac in binding.routers:
            return None
        port = grid.ports[id]
        seen = self._world.observed_ports.get(id, {}).get(binding.active)
        if seen is None or mac not in seen.routers or mac not in port.allowed_macs or not is_virtual_router(mac):
            return None
        compares, changes = [self._world.compare(port)], list[Change]()
        others = [one for one in grid.bindings.values() if mac in one.routers]
        for one in others:
            holder = grid.ports.get(one.port)
            if holder is None or holder.network_id == port.network_id:
                left = tuple(known for known in one.routers if known != mac)
                compares.append(self._world.compare(one))
                changes.append(Put(key_of(one), encode(msgspec.structs.replace(one, routers=left))))
        compares.append(self._world.compare(binding))
        changes.append(Put(key_of(binding), encode(msgspec.structs.replace(binding, routers=(*binding.routers, mac)))))
        return compares, changes
