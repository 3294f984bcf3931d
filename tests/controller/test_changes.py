"""Changes of a playground: all of it or nothing, whoever dies in the middle, and no address twice, whoever races."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from ipaddress import ip_address

import pytest

from playground.controller import changes as changes_module
from playground.controller.changes import Changes, Raced, accepted
from playground.controller.events import EventLog
from playground.controller.world import World
from playground.records import ClaimRecord, HostRecord, ObservedPort, encode, key_of
from playground.spec import PlaygroundSpec, load_playground
from playground.store.api import Change, Compare, Conflict, Delete, Put, Revision
from playground.store.memory import MemoryStore


def a_file(scale: int = 3, subnet: str = "10.20.0.0/24", name: str = "lab") -> PlaygroundSpec:
    return load_playground(
        f"name: {name}\nnetworks: {{grid: {{subnets: [{subnet}]}}}}\n"
        f"workspaces: {{w: {{scale: {scale}, networks: [grid]}}}}\n",
        "lab.yaml",
    )


class Died(Exception):
    """A controller's end in the middle of what it did."""


class Dying(MemoryStore):
    """Dies at the commit number `at` (0: the first); done: only after that commit was made."""

    at = -1
    done = False
    count = 0

    async def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        number, self.count = self.count, self.count + 1
        if number != self.at:
            return await super().commit(compares, changes)
        if self.done:
            await super().commit(compares, changes)
        raise Died


class Writer:
    """One controller's changes over a store; `clean` is a turn of its loop."""

    def __init__(self, store: MemoryStore) -> None:
        self.world = World(store)
        self.changes = Changes(store, self.world, EventLog(store, self.world))
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Writer:
        await self.world.load()
        self._following = asyncio.create_task(self.world.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._following is not None
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following

    async def clean(self) -> None:
        await self.world.load()
        await self.changes.finish()
        await self.changes.release()
        await self.world.load()

    def claims(self) -> dict[str, str]:
        """Claimed key → owner."""
        return {
            key: record.owner
            for key, (record, _) in self.world.items.items()
            if isinstance(record, ClaimRecord) and not key.startswith("claim/active/")
        }

    def needed(self) -> dict[str, str]:
        """What claims the records of all playgrounds call for."""
        found = {}
        for grid in self.world.grids.values():
            for port in grid.ports.values():
                found |= {f"claim/addr/{port.network_id}/{address_hex(a)}": port.id for a in port.addresses}
                found[f"claim/mac/{port.network_id}/{port.mac.replace(':', '')}"] = port.id
            for network in grid.networks.values():
                found |= {f"claim/addr/{network.id}/{address_hex(a)}": network.id for a in network.gateways}
                found[f"claim/vni/{network.vni}"] = network.id
        return found


def address_hex(address: str) -> str:
    """As in claims' keys."""
    return ip_address(address).packed.hex()


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead writer left counts as abandoned at once."""
    monkeypatch.setattr(changes_module, "ABANDONED_S", 0.0)


def _whole(writer: Writer, scale: int, name: str = "lab") -> bool:
    grid = writer.world.grids.get(name)
    return grid is not None and len(grid.workspaces) == len(grid.ports) == scale and len(grid.networks) == 1


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 40), (40, 2), (30, 0)])
def test_a_writer_that_dies_at_any_commit_leaves_all_or_nothing(before: int, after: int, done: bool) -> None:
    async def once(at: int) -> bool:
        """Whether the writer died at commit number `at` of the change."""
        store = Dying()
        async with Writer(store) as writer:
            if before:
                await writer.changes.accept(a_file(before))
            store.at, store.done, store.count = at, done, 0
            died = False
            try:
                if after:
                    await writer.changes.accept(a_file(after))
                else:
                    await writer.changes.remove("lab")
            except Died:
                died = True
        store.at = -1
        async with Writer(store) as heir:
            await heir.clean()
            is_nothing = 0 in (before, after) and "lab" not in heir.world.grids
            assert is_nothing or _whole(heir, before) or _whole(heir, after)
            assert heir.claims() == heir.needed()
            assert not heir.world.changes
            if after:
                await heir.changes.accept(a_file(after))
                await heir.clean()
                assert _whole(heir, after) and heir.claims() == heir.needed()
        return died

    async def work() -> None:
        at = 0
        while await once(at):
            at += 1
        assert at >= 2, "the change was not made of several commits"

    run(work())


def test_two_writers_of_one_playground_end_as_one_of_them_says_with_no_address_twice() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as one, Writer(store) as two:
            cleaning = [asyncio.create_task(_keep_clean(w)) for w in (one, two)]
            for scale in (3, 30, 5):
                made = await asyncio.gather(
                    one.changes.accept(a_file(scale)),
                    two.changes.accept(a_file(scale + 1, "10.21.0.0/24")),
                    return_exceptions=True,
                )
                assert all(isinstance(answer, Raced) or not isinstance(answer, BaseException) for answer in made), made
            for task in cleaning:
                task.cancel()
            await asyncio.gather(*cleaning, return_exceptions=True)
            for _ in range(3):
                await one.clean()
                await two.clean()
            assert _whole(one, 5) or _whole(one, 6)
            assert one.claims() == one.needed()
            addresses = [a for port in one.world.grids["lab"].ports.values() for a in port.addresses]
            assert len(addresses) == len(set(addresses))

    run(work())


def test_two_writers_of_two_playgrounds_never_share_a_vni() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as one, Writer(store) as two:
            cleaning = [asyncio.create_task(_keep_clean(w)) for w in (one, two)]
            await asyncio.gather(
                *(
                    w.changes.accept(a_file(3, name=f"{who}{n}"))
                    for n in range(4)
                    for who, w in (("a", one), ("b", two))
                )
            )
            for task in cleaning:
                task.cancel()
            await asyncio.gather(*cleaning, return_exceptions=True)
            await one.clean()
            vnis = [network.vni for grid in one.world.grids.values() for network in grid.networks.values()]
            assert len(vnis) == len(set(vnis)) == 8
            assert one.claims() == one.needed()

    run(work())


async def _keep_clean(writer: Writer) -> None:
    while True:
        await writer.changes.finish()
        await writer.changes.release()
        await asyncio.sleep(0)


def test_an_address_stays_claimed_while_a_host_still_holds_its_port() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as writer:
            await store.commit([], [_put(HostRecord(name="n1", site="lab", underlay="192.0.2.1"))])
            await writer.changes.accept(a_file(2))
            port = next(p for p in writer.world.grids["lab"].ports.values() if p.workspace == "w-1")
            seen = ObservedPort(port=port.id, host="n1", generation=1, programmed="forwarding", leased=port.addresses)
            await store.commit([], [_put(seen)])
            await writer.changes.accept(a_file(1))
            await writer.clean()
            assert port.id in writer.claims().values()
            await store.commit([], [Delete(key_of(seen))])
            await writer.clean()
            assert port.id not in writer.claims().values()
            assert writer.claims() == writer.needed()

    run(work())


def _put(record: HostRecord | ObservedPort) -> Put:
    return Put(key_of(record), encode(record))


def test_what_was_accepted_here_is_known_without_reading_it_again_and_what_another_accepted_is_not() -> None:
    async def work() -> None:
        store = MemoryStore()
        async with Writer(store) as one, Writer(store) as other:
            await one.changes.accept(spec := a_file())
            await other.world.load()
            first = other.world.grids["lab"].root
            assert first is not None
            assert one.changes.read(first) is spec and other.changes.read(first) is None
            await other.changes.accept(again := a_file(scale=4))
            await one.world.load()
            second = one.world.grids["lab"].root
            assert second is not None
            assert other.changes.read(second) is again and one.changes.read(second) is None
            assert accepted(second) == again

    run(work())
