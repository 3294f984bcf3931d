"""Makes an admitted change real in the store: claims first, then the root pointer, then the records it means.

Every commit of a change is small, so a change is many; what makes it one is the root pointer. A change that its writer
never finished before the pointer flipped is swept with its claims; after the flip it is rolled forward from the
accepted file. A claim outlives its record until no host holds the port any more, so an address is never at two
places.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from overlay.pools import address_hex, parse_address
from playground.admit import Admission, Known, admit, remove
from playground.admit.known import Leased
from playground.blocks import addresses, claims_of
from playground.controller.batches import BATCH, Work, batches
from playground.controller.events import EventLog
from playground.controller.world import Grid, World
from playground.records import (
    BindingRecord,
    ChangeRecord,
    ClaimRecord,
    NetworkRecord,
    PlaygroundRecord,
    PoliciesRecord,
    PolicyRecord,
    PortRecord,
    Record,
    WorkspaceRecord,
    encode,
    key_of,
)
from playground.spec import PlaygroundSpec, SpecErrors, load_playground
from playground.store.api import Compare, Conflict, Delete, Put, Store
from policies.model import Policy

log = logging.getLogger("controller")

ABANDONED_S = 30.0
"""A change record that nobody has finished for so long was left by a controller that died."""

TRIES = 8

READ = 4
"""Playgrounds whose accepted file is kept as it was read: reading one of 1000 policies takes a third of a second, and
the next edit of it is compared with it."""


class Raced(Exception):
    """Somebody else changed the same playground meanwhile; redo from a fresh reading."""


class Changes:
    """Accepting and removing playgrounds, and cleaning up after writers that died."""

    def __init__(self, store: Store, world: World, events: EventLog) -> None:
        self._store = store
        self._world = world
        self._events = events
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._mine: set[str] = set()
        self._settled: dict[str, tuple[str, int]] = {}
        self._read: dict[str, tuple[bytes, PlaygroundSpec]] = {}
        """By playground, the files that were accepted here last, and what they say."""
        self.written: dict[str, Mapping[str, Policy]] = {}
        """By playground, the policies of its accepted files with their places, by the names of their records."""
        self._loose: set[str] = {key for grid in world.grids.values() for key in grid.claims}
        """Claims that no record may need; whoever has looked takes out what one does."""
        world.listen(self._changed)

    def _changed(self, changes: list[tuple[str, Record | None, Record | None]], revision: int) -> None:
        for key, before, after in changes:
            if isinstance(after, ClaimRecord):
                self._loose.add(key)
            elif isinstance(before, PortRecord | NetworkRecord):
                grid = self._world.grids.get(before.playground)
                self._loose.update(grid.claimed.get(before.id, ()) if grid else ())
            elif isinstance(before, BindingRecord) and before.learned:
                grid = self._world.grids.get(before.playground)
                self._loose.update(grid.claimed.get(before.port, ()) if grid else ())

    # what people ask

    def plan(self, spec: PlaygroundSpec) -> Admission:
        """What accepting this file would write. Raises SpecErrors."""
        return admit(spec, self._known(spec.name), "plan")

    async def accept(self, spec: PlaygroundSpec) -> tuple[str, list[dict[str, Any]]]:
        """Commits a file: (the change that the root pointer then carries, steps). Raises SpecErrors with nothing
        changed."""
        async with self._locks[spec.name]:
            for _ in range(TRIES):
                change = secrets.token_hex(6)
                known = self._known(spec.name)
                admission = admit(spec, known, change)
                root = admission.root or known.root
                counts = root.change if root is not None else change  # an edit that means nothing new keeps the old one
                try:
                    if not admission.is_empty:
                        await self._commit(spec.name, change, admission)
                except Raced:
                    continue
                self.written[spec.name] = admission.written
                if admission.root is not None:
                    self._read.pop(spec.name, None)
                    self._read[spec.name] = admission.root.files, spec
                    for name in list(self._read)[:-READ]:
                        del self._read[name]
                if admission.is_empty:
                    return counts, []
                self._settle(spec.name, counts)
                steps = shown_steps(admission)
                if steps:
                    said = f"{len(steps)} change{'s' if len(steps) > 1 else ''}"
                    self._events.add("playground-changed", f"playground {spec.name}", said)
                return counts, steps
        raise Raced(f"{spec.name} keeps changing; try again")

    def read(self, root: PlaygroundRecord) -> PlaygroundSpec | None:
        """What an accepted file says, where it was accepted here and is not to be read again."""
        files, spec = self._read.get(root.name, (b"", None))
        return spec if spec is not None and (files, spec.file) == (root.files, root.file) else None

    async def remove(self, name: str) -> None:
        """Commits the removal of a playground; hosts follow, claims go when nothing of it is left on a host."""
        async with self._locks[name]:
            for _ in range(TRIES):
                change = secrets.token_hex(6)
                try:
                    await self._commit(name, change, remove(self._known(name)))
                except Raced:
                    continue
                await self._drop_root(name)
                self._events.add("playground-removed", f"playground {name}", "asked for")
                return
        raise Raced(f"{name} keeps changing; try again")

    def _known(self, name: str) -> Known:
        """What admission may look at for one playground."""
        grid = self._world.grids.get(name)
        return Known(
            root=grid.root if grid else None,
            networks={n.name: n for n in grid.networks.values()} if grid else {},
            workspaces=dict(grid.workspaces) if grid else {},
            policies=dict(grid.policies) if grid else {},
            ports={(p.workspace, p.network): p for p in grid.ports.values()} if grid else {},
            claims=undemanded(grid) if grid else {},
            leased=leased_of(grid) if grid else {},
            vnis=frozenset(self._world.vnis),
            hosts=dict(self._world.hosts),
            called={record: policy.name for record, policy in self.written.get(name, {}).items()},
        )

    # commits

    async def _commit(self, name: str, change: str, admission: Admission) -> None:
        """Raises Raced when somebody was quicker; claims taken so far are given back then.

        Claims are never in the store without their root pointer or a marker: another controller would free them.
        Records are written only while the pointer stands, so a slow writer never undoes what a later change wrote.
        """
        root_key = f"playground/{name}"
        marker = ChangeRecord(id=change, playground=name, started_utc_s=time.time())
        self._mine.add(change)
        try:
            claims: list[Work] = [(Compare(key, 0), Put(key, encode(claim))) for key, claim in admission.claims]
            first, together, rest = self._record_changes(name, change, admission)
            is_long = len(claims) > BATCH // 2 or len(list(batches(together))) > 1
            taken: list[Work] = [(None, Put(key_of(marker), encode(marker)))] if is_long else []
            flip: list[Work] = []
            if admission.root is not None:
                root = encode(admission.root)
                flip.append((Compare(root_key, self._world.modified(root_key)), Put(root_key, root)))
            if taken:
                await self._in_batches([*taken, *claims], change)
                await self._in_batches(flip, change)
            else:
                await self._in_batches([*claims, *flip], change)
            stands = Compare(root_key, self._world.modified(root_key))
            await self._in_batches(first, None, stands)
            with self._world.withhold(name) if taken else contextlib.nullcontext():
                await self._in_batches(together, None, stands)
            await self._in_batches(rest, None, stands)
            if taken:
                await self._in_batches([(None, Delete(key_of(marker)))], None)
        finally:
            self._mine.discard(change)

    def _record_changes(
        self, name: str, change: str, admission: Admission
    ) -> tuple[list[Work], list[Work], list[Work]]:
        """Writes and removals of records, in three parts. Claims of removed ones stay: `release` frees them when no
        host holds them.

        The second part is shown to hosts together: policies, and the labels of ports that were there. So what was and
        is allowed is never cut between, what is removed never outlives the policies about it, and what is new never
        comes before them.
        """
        work: list[Work] = []
        together: list[Work] = []
        for key in admission.deletes:
            if key.startswith("claim/"):
                continue
            if key.startswith("policy/"):
                together.append((None, Delete(key)))
                continue
            work.append((None, Delete(key)))
            held = self._world.items.get(key)
            match held[0] if held else None:
                case PortRecord() as port:
                    work.append((None, Delete(f"claim/active/{port.id}")))
                case WorkspaceRecord() as workspace:
                    work.append((None, Delete(f"migration/{workspace.playground}/{workspace.name}")))
                case _:
                    pass
        for key, claim in admission.transfers:
            had = self._world.claim(key)
            after = msgspec.structs.replace(claim, previous=had.owner if had else "")
            work.append((Compare(key, self._world.modified(key)), Put(key, encode(after))))
        rest: list[Work] = []
        for record in admission.puts:
            compare = self._world.compare(record) if isinstance(record, WorkspaceRecord) else None
            part = together if isinstance(record, PolicyRecord) or self._is_relabelled(record) else rest
            part.append((compare, Put(key_of(record), encode(record))))
        if any(work.key.startswith("policy/") for _, work in together):
            done = PoliciesRecord(playground=name, change=change)
            together.append((None, Put(key_of(done), encode(done))))
        return work, together, rest

    def _is_relabelled(self, record: Record) -> bool:
        """Whether nothing of a port changes but what policies see of it."""
        held = self._world.items.get(key_of(record)) if isinstance(record, PortRecord) else None
        return (
            held is not None
            and isinstance(held[0], PortRecord)
            and isinstance(record, PortRecord)
            and msgspec.structs.replace(held[0], labels=record.labels, schema=record.schema) == record
        )

    async def _in_batches(self, work: Sequence[Work], undo: str | None, stands: Compare | None = None) -> None:
        """Commits in order, as many at a time as may be. undo: the change whose claims to give back when a batch
        conflicts. stands: holds for every batch.
        """
        for part in batches(work):
            compares = [compare for compare in (stands, *(compare for compare, _ in part)) if compare is not None]
            result = await self._store.commit(compares, [change for _, change in part])
            if isinstance(result, Conflict):
                log.info("change conflicts keys=%s", result.keys[:3])
                await asyncio.sleep(0.01)
                await self._world.load()
                if undo is not None:
                    await self._give_back(undo)
                raise Raced(f"conflict on {', '.join(result.keys[:3])}")
            await self._world.reached(result)

    async def _give_back(self, change: str) -> None:
        """Deletes the claims and the marker of a change that will not happen."""
        keys = [
            key
            for key, (record, _) in self._world.items.items()
            if isinstance(record, ClaimRecord) and record.change == change
        ]
        keys.append(f"change/{change}")
        for start in range(0, len(keys), BATCH):
            result = await self._store.commit([], [Delete(key) for key in keys[start : start + BATCH]])
            if not isinstance(result, Conflict):
                await self._world.reached(result)

    async def _drop_root(self, name: str) -> None:
        """Deletes the root pointer, and what else is said of a playground whose records are gone."""
        keys = (f"playground/{name}", f"probe/{name}", f"policies/{name}")
        result = await self._store.commit([], [Delete(key) for key in keys])
        self.written.pop(name, None)
        self._read.pop(name, None)
        if not isinstance(result, Conflict):
            await self._world.reached(result)

    # cleaning up

    async def run(self) -> None:
        """Finishes what a dead writer left, and frees claims, for ever."""
        while True:
            revision = self._world.revision
            await self.finish()
            await self.release()
            try:
                async with asyncio.timeout(5.0):
                    await self._world.moved(revision)
                await asyncio.sleep(0.2)  # releasing may lag; many removals become one pass
            except TimeoutError:
                continue

    async def recover(self) -> None:
        """Rolls forward what a writer left half written that had begun to write it: before hosts are shown it."""
        for marker in list(self._world.changes.values()):
            grid = self._world.grids.get(marker.playground)
            if grid is not None and grid.root is not None and grid.root.change == marker.id:
                try:
                    async with self._locks[marker.playground]:
                        await self._roll_forward(marker.playground, grid.root)
                except SpecErrors as error:
                    log.error("accepted file not understood playground=%s cause=%s", marker.playground, error)

    async def finish(self) -> None:
        """Rolls forward what was accepted and not written, sweeps what was claimed and not accepted."""
        for marker in list(self._world.changes.values()):
            if marker.id in self._mine or time.time() - marker.started_utc_s < ABANDONED_S:
                continue
            log.warning("unfinished change swept change=%s playground=%s", marker.id, marker.playground)
            async with self._locks[marker.playground]:
                grid = self._world.grids.get(marker.playground)
                if grid is None or grid.root is None or grid.root.change != marker.id:
                    await self._give_back(marker.id)
                else:
                    await self._store.commit([], [Delete(key_of(marker))])
        for name, grid in list(self._world.grids.items()):
            if grid.root is None or self._locks[name].locked() or self._is_settled(name, grid.root):
                continue
            async with self._locks[name]:
                if grid.root is not None and not self._is_settled(name, grid.root):
                    await self._roll_forward(name, grid.root)

    async def _roll_forward(self, name: str, root: PlaygroundRecord) -> None:
        try:
            if root.state == "removing":
                await self._commit(name, root.change, remove(self._known(name)))
                await self._drop_root(name)
                return
            spec = await asyncio.to_thread(accepted, root)
            grid = self._world.grids.get(name)
            if grid is None or grid.root != root:
                return
            admission = admit(spec, self._known(name), root.change)
            self.written[name] = admission.written
            if admission.claims or admission.puts or admission.deletes:
                log.warning("accepted change rolled forward playground=%s change=%s", name, root.change)
                await self._commit(name, root.change, admission)
        except Raced:
            return
        self._settle(name, root.change)

    def is_written(self, name: str) -> bool:
        """Whether this controller has seen every record of what a playground's root accepts."""
        grid = self._world.grids.get(name)
        return grid is None or grid.root is None or self._is_settled(name, grid.root)

    def _settle(self, name: str, change: str) -> None:
        self._settled[name] = (change, self._world.modified(f"playground/{name}"))

    def _is_settled(self, name: str, root: PlaygroundRecord) -> bool:
        """Whether this controller has seen every record of the accepted file written."""
        return self._settled.get(name) == (root.change, self._world.modified(key_of(root)))

    async def release(self) -> None:
        """Frees claims that no record needs, once no host holds them either."""
        free: list[str] = []
        for key in list(self._loose):
            claim = self._world.claim(key)
            if claim is None:
                self._loose.discard(key)
                continue
            grid = self._world.grids[claim.playground]
            if grid.root is not None and not self._is_settled(claim.playground, grid.root):
                continue  # its records may not all be written yet
            if (
                claim.change in self._mine
                or claim.change in self._world.changes
                or self._locks[claim.playground].locked()
            ):
                continue
            if is_needed(grid, key, claim):
                self._loose.discard(key)
            elif not self._world.is_held(claim.owner, key):
                free.append(key)
        for start in range(0, len(free), BATCH):
            keys = free[start : start + BATCH]
            compares = [Compare(key, self._world.modified(key)) for key in keys]
            result = await self._store.commit(compares, [Delete(key) for key in keys])
            if not isinstance(result, Conflict):
                await self._world.reached(result)


def accepted(root: PlaygroundRecord) -> PlaygroundSpec:
    """What an accepted file says. Raises SpecErrors only for one that another version accepted."""
    text, included = root.accepted()
    return load_playground(text, root.file, included)


def given(grid: Grid, port: str) -> frozenset[int]:
    """What may be given to machines behind a port, and is claimed for that."""
    record = grid.dynamics.get(port)
    return addresses(record.blocks) if record is not None else frozenset()


def leased_of(grid: Grid) -> dict[str, Leased]:
    """The same of all ports, with the machines' MACs, by network."""
    found: dict[str, Leased] = {}
    for record in grid.dynamics.values():
        known = found.get(record.network_id, Leased())
        macs = known.macs | {*record.machines}
        found[record.network_id] = Leased(known.addresses | addresses(record.blocks), macs)
    return found


def undemanded(grid: Grid) -> dict[str, ClaimRecord]:
    """The claims that admission decides on: all but what machines have, which no file names."""
    of_machines: set[str] = set()
    for record in grid.dynamics.values():
        of_machines.update(claims_of(record))
    return {key: claim for key, claim in grid.claims.items() if key not in of_machines}


def is_needed(grid: Grid, key: str, claim: ClaimRecord) -> bool:
    """Whether a record of the playground has what is claimed."""
    _, kind, *_rest, value = key.split("/")
    port, network = grid.ports.get(claim.owner), grid.networks.get(claim.owner)
    match kind:
        case "addr" if int(value, 16) in given(grid, claim.owner):
            return True
        case "addr":
            binding = grid.bindings.get(claim.owner)
            learned = binding.learned if binding is not None else ()
            own = (*port.addresses, *learned) if port else network.gateways if network else ()
            return any(value == address_hex(*parse_address(text)) for text in own)
        case "mac":
            dynamic = grid.dynamics.get(claim.owner)
            macs = (*((port.mac,) if port else ()), *(dynamic.machines if dynamic else ()))
            return any(mac.replace(":", "") == value for mac in macs)
        case "vni":
            return network is not None and str(network.vni) == value
        case _:
            return True


def shown_steps(admission: Admission) -> list[dict[str, Any]]:
    """As docs/api.md says them."""
    return [{"action": s.action, "object": s.object, "detail": s.detail} for s in admission.steps]
