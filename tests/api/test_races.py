"""Two people who ask for what can't both be: one wins, the other can tell, and nothing of either is half."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from api_lab import Doors, within

from playground.records import AliveRecord, ClaimRecord, Driver, HostRecord, ObservedWorkspace, Record, encode, key_of
from playground.store.api import Put

HOSTS = ("n1", "n2", "n3")


def a_file(scale: int, subnet: str = "10.20.0.0/24") -> str:
    return (
        f"name: lab\nnetworks: {{grid: {{subnets: [{subnet}]}}}}\n"
        f"workspaces: {{w: {{scale: {scale}, networks: [grid]}}}}\n"
    )


async def put(made: Doors, file: str, text: str) -> tuple[int, Any]:
    return await call(made, "PUT", "playgrounds", {"file": file, "text": text})


async def call(made: Doors, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    status, answer = await made.ask(method, f"/v1/{path}", payload, local=True, content_type="application/json")
    return status, json.loads(answer)


async def say(made: Doors, *what: Record) -> None:
    revision = await made.controller.store.commit([], [Put(key_of(r), encode(r)) for r in what])
    assert isinstance(revision, int)
    await made.controller.world.reached(revision)


async def until(made: Doors, so: Any) -> None:
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0.01)


async def running(made: Doors, scale: int) -> None:
    """A playground of `scale` workspaces, as if three hosts ran it."""
    drivers = (Driver("netns", "same-kernel", "kernel"),)
    hosts = [HostRecord(name=n, site="here", underlay=f"192.0.2.1{n[1]}", drivers=drivers, cpus=8) for n in HOSTS]
    await say(made, *hosts, *(AliveRecord(host=n, session="s") for n in HOSTS))
    assert (await put(made, "lab.yaml", a_file(scale)))[0] == 200
    grid = made.controller.world.grids["lab"]
    await until(made, lambda: grid.workspaces and all(w.host for w in grid.workspaces.values()))
    for w in grid.workspaces.values():
        seen = ObservedWorkspace(
            playground="lab", workspace=w.name, host=str(w.host), generation=w.generation, state="running"
        )
        await say(made, seen)


def size(made: Doors) -> tuple[int, int, int]:
    """Workspaces, ports and address claims of ports that there are."""
    grid = made.controller.world.grids.get("lab")
    if grid is None:
        return 0, 0, 0
    return len(grid.workspaces), len(grid.ports), sum(claim.owner in grid.ports for claim in grid.claims.values())


async def progress(made: Doors) -> Any:
    return (await call(made, "GET", "playgrounds/lab/progress"))[1]


def test_of_two_ups_at_once_one_counts_and_the_other_can_tell(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        for scale in (3, 40, 5):
            asked = {"mine.yaml": a_file(scale), "yours.yaml": a_file(scale + 1, "10.21.0.0/24")}
            said = await asyncio.gather(*(put(made, file, text) for file, text in asked.items()))
            assert [status for status, _ in said] == [200, 200]
            ids = {answer["change"]: file for file, (_, answer) in zip(asked, said, strict=True)}
            assert len(ids) == 2
            counts = await progress(made)
            assert ids[counts["change"]] == counts["file"]
            won = scale + (counts["file"] == "yours.yaml")
            assert size(made)[:2] == (won, won)

    within(tmp_path, claim)


def test_who_says_the_same_again_replaces_nobody(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        first = (await put(made, "lab.yaml", a_file(3)))[1]
        again = (await put(made, "copy.yaml", "# mine\n" + a_file(3)))[1]
        assert (again["changes"], again["change"]) == ([], first["change"])
        assert (await progress(made))["change"] == first["change"]

    within(tmp_path, claim)


@pytest.mark.parametrize("first", ["up", "down"])
def test_an_up_against_a_down_ends_as_one_of_them_says(tmp_path: Path, first: str) -> None:
    async def claim(made: Doors) -> None:
        await put(made, "lab.yaml", a_file(40))
        up, down = put(made, "other.yaml", a_file(30)), call(made, "DELETE", "playgrounds/lab")
        both = [asyncio.create_task(work) for work in ((up, down) if first == "up" else (down, up))]
        assert [(await task)[0] for task in both] == [200, 200]
        answer = (both[0 if first == "up" else 1].result())[1]
        counts = await progress(made)
        if counts["change"] is None:
            items = made.controller.world.items
            await until(made, lambda: not any(isinstance(record, ClaimRecord) for record, _ in items.values()))
            assert size(made) == (0, 0, 0)
        else:
            assert (counts["change"], counts["file"]) == (answer["change"], "other.yaml")
            assert size(made)[:2] == (30, 30)

    within(tmp_path, claim)


@pytest.mark.parametrize("hosts", [("n2", "n2"), ("n2", "n3")])
def test_of_two_moves_at_once_one_is_begun_and_the_other_refused_by_name(
    tmp_path: Path, hosts: tuple[str, str]
) -> None:
    async def claim(made: Doors) -> None:
        await running(made, 1)
        here = made.controller.world.grids["lab"].workspaces["w-0"].host
        asked = [to if to != here else "n1" for to in hosts]
        said = await asyncio.gather(*(call(made, "POST", "migrate", {"workspace": "w-0", "host": to}) for to in asked))
        assert sorted(status for status, _ in said) == [202, 409]
        won = next(answer["to"] for status, answer in said if status == 202)
        told = next(answer["error"] for status, answer in said if status == 409)
        assert f"is being moved to {won}" in told
        bindings = made.controller.world.grids["lab"].bindings.values()
        assert [(b.active, b.target, b.phase) for b in bindings] == [(here, won, "requested")]

    within(tmp_path, claim)


@pytest.mark.parametrize("first", ["migrate", "up"])
def test_a_move_against_an_up_that_removes_its_workspace_leaves_nothing_of_it(tmp_path: Path, first: str) -> None:
    async def claim(made: Doors) -> None:
        await running(made, 2)
        world = made.controller.world
        to = next(h for h in HOSTS if h != world.grids["lab"].workspaces["w-1"].host)
        move = call(made, "POST", "migrate", {"workspace": "lab/w-1", "host": to, "measure": False})
        up = put(made, "lab.yaml", a_file(1))
        asked = {"migrate": move, "up": up} if first == "migrate" else {"up": up, "migrate": move}
        both = {name: asyncio.create_task(work) for name, work in asked.items()}
        said = {name: await task for name, task in both.items()}
        assert said["up"][0] == 200
        assert said["migrate"][0] in (202, 404, 409), said
        status, told = await call(made, "GET", "migrations?workspace=lab/w-1&generation=1&wait_s=5")
        assert status == 404 and "w-1" in told["error"]
        assert not [key for key in world.items if key.startswith("migration/lab/w-1")]
        await until(made, lambda: size(made) == (1, 1, 2))  # an address and a MAC
        assert len(world.grids["lab"].bindings) == 1

    within(tmp_path, claim)
