"""Every process of a site killed at every boundary of every effect of a change: what comes back is what was asked for.

Exhaustive, over doubles of kernel, guests, responders and store; `test_crash_site` does it to real ones. Then two at
once: an agent with the controller or its own responder, the controller with an agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from doubled_processes import Boundary
from doubled_site import HOSTS, Site, play

from overlay.topology import ObservedState
from playground.controller.moves import Refused
from playground.records import PlaygroundRecord

SAMPLE, SAMPLE_OF_TWO = 10, 100
"""Of the boundaries, every so manieth is tried each time, and all in `make test-long`."""

DECISIVE = ("controller: commit claim", "controller: commit network", "controller: commit playground")
"""Effects around which all boundaries are tried each time: an intention is accepted there, or written out."""

STILL = """\
name: still
networks:
  calm: {subnets: [10.8.0.0/24, "fd08::/64"]}
workspaces:
  one: {networks: [calm], host: n1}
  two: {networks: [calm], host: n2}
"""

LAB = """\
name: lab
networks:
  grid: {subnets: [10.9.0.0/24, "fd09::/64"]}
workspaces:
  a: {networks: [grid], host: n1}
  b: {networks: [grid], host: n2}
"""

EDITED = """\
name: lab
networks:
  grid: {subnets: [10.9.0.0/24, "fd09::/64"]}
  public: {subnets: [10.7.0.0/24]}
gateways:
  wan: {kind: nat, networks: [grid], host: n2}
workspaces:
  a: {networks: [grid]}
  c: {networks: [grid, public], host: n3}
policies:
  - {name: c-hears-a, subject: c, ingress: [{from: a}]}
"""


async def up(site: Site, text: str) -> None:
    """Asked for; where the answer is lost it has happened, whole, or has not, and only then is it asked again."""
    before = text_of(site)
    while await site.ask(lambda c: c.up("lab.yaml", text)) is None:
        await asyncio.sleep(40.0)  # a change that was begun and not accepted is swept after 30 s
        assert text_of(site) in (before, text)
        if text_of(site) is None:
            assert site.records("lab") == [], "nothing of it is left"
        else:
            await site.converged("lab")
    await site.converged("lab")


def text_of(site: Site) -> str | None:
    """The accepted file."""
    root = site.items().get("playground/lab")
    return root.accepted()[0] if isinstance(root, PlaygroundRecord) else None


async def move(site: Site, target: str) -> None:
    async def request(controller: Any) -> object:
        try:
            return await controller.moves.request(controller.workspace("lab/a"), target, measure=False)
        except Refused as refused:  # it was asked for before, by a request whose answer was lost, or ends just now
            return str(refused)

    while site.machine.guests and not _is_at(site, target):
        await site.ask(request)
        await site.converged("lab")


def _is_at(site: Site, target: str) -> bool:
    workspace = site.items().get("workspace/lab/a")
    return getattr(workspace, "host", None) == target


async def down(site: Site) -> None:
    async def remove(controller: Any) -> object:
        if "lab" in controller.world.playgrounds():
            await controller.down("lab")
        return True

    while await site.ask(remove) is None:
        await asyncio.sleep(40.0)
        if text_of(site) is None:
            assert site.records("lab") == [], "it is removed, whole"
        elif getattr(site.items()["playground/lab"], "state", "") == "present":
            await site.converged("lab")
    await site.removed("lab")


Choice = Callable[[Sequence[str]], list[Boundary]]
"""From the effects that were counted to the boundaries that are tried."""


@dataclass(frozen=True)
class Scene:
    """before: what is there already. change: what is done while somebody dies."""

    before: tuple[Callable[[Site], Awaitable[None]], ...]
    change: Callable[[Site], Awaitable[None]]


SCENES = {
    "up": Scene((), lambda site: up(site, LAB)),
    "edit": Scene((lambda site: up(site, LAB),), lambda site: up(site, EDITED)),
    "move": Scene((lambda site: up(site, LAB),), lambda site: move(site, "n3")),
    "down": Scene((lambda site: up(site, LAB),), down),
}


@dataclass(frozen=True)
class Played:
    """effects: of the change. kernels, guests: as they were once all was quiet. lost: requests that went unanswered."""

    effects: tuple[str, ...]
    kernels: dict[str, ObservedState]
    guests: dict[str, Any]
    lost: int


def played(folder: Path, patch: pytest.MonkeyPatch, scene: Scene, boundary: Boundary | None) -> Played:
    async def whole(site: Site) -> Played:
        while await site.ask(lambda c: c.up("still.yaml", STILL)) is None:
            pass
        await site.converged("still")
        for step in scene.before:
            await step(site)
        await asyncio.sleep(10.0)
        ids = calm_ids(site)
        untouched = calm(site, ids)
        disturbed: list[object] = []

        def look() -> None:
            if (now := calm(site, ids)) != untouched:
                disturbed.append(now)

        site.effects.on_effect.append(look)
        site.effects.begin(boundary)
        await scene.change(site)
        effects = tuple(site.effects.done)
        await asyncio.sleep(10.0)
        assert not disturbed, f"the ports that nothing was asked of: {disturbed[0]} instead of {untouched}"
        site.assert_nothing_is_twice()
        kernels, guests = site.kernels(), site.guests()
        site.effects.begin(None)
        await down(site)
        await asyncio.sleep(10.0)
        assert calm(site, ids) == untouched
        assert left(site, ids) == []
        return Played(effects, kernels, guests, site.lost)

    for file in folder.iterdir():
        file.unlink()
    with patch.context() as patched:
        return play(folder, patched, whole)


def calm_ids(site: Site) -> frozenset[str]:
    """Ids of the network and the ports that nothing is asked of."""
    kinds = ("network/still/", "port/still/")
    return frozenset(getattr(r, "id", "") for key, r in site.items().items() if key.startswith(kinds))


def calm(site: Site, ids: frozenset[str]) -> object:
    """What carries their traffic: devices, entries and addresses, on every host."""
    return {
        name: (
            {device: link for device, link in seen.links.items() if device[2:] in ids},
            {id: table for id, table in seen.tables.items() if id in ids},
            seen.services.get("playground-still"),
        )
        for name, seen in site.kernels().items()
    }


def left(site: Site, ids: frozenset[str]) -> list[str]:
    """What is there that is not the untouched playground's."""
    found = site.records("lab")
    for name, seen in site.kernels().items():
        found += [f"{name}: {device}" for device in seen.links if device[2:] not in ids]
        found += [f"{name}: {space}" for space in seen.services if space != "playground-still"]
        found += [f"{name}: gateway {id}" for id in site.hosts[name].gateways]
        found += [f"{name}: {bridge} is policed" for bridge in site.hosts[name].rules.policed]
    return found + [name for name in site.guests() if not name.startswith("still/")]


def boundaries(effects: Sequence[str]) -> Iterator[Boundary]:
    """Every moment that differs from all others in what has had its effect, or in who dies: after an effect is before
    the next one of the same process."""
    for number, effect in enumerate(effects):
        if number == 0 or effects[number - 1].partition(":")[0] != effect.partition(":")[0]:
            yield Boundary(number, "before")
        yield Boundary(number, "after")


def with_another(boundary: Boundary, effect: str) -> Iterator[Boundary]:
    """The same moment, at which somebody else dies, too: of those that talk with who has the effect."""
    who = effect.partition(":")[0]
    if who == "controller":
        others = [tuple(HOSTS)[boundary.number % len(HOSTS)]]
    elif who in HOSTS:
        others = ["controller", f"{who}'s responder"]
    else:
        others = [who.partition("'")[0]]
    for other in others:
        yield replace(boundary, also=other)


def check_each(name: str, folder: Path, patch: pytest.MonkeyPatch, choose: Choice) -> None:
    """A scene comes out as without any death, whichever of the chosen boundaries of its effects is reached."""
    scene = SCENES[name]
    clean = played(folder, patch, scene, None)
    wrong = []
    tried = choose(clean.effects)
    for boundary in tried:
        try:
            struck = played(folder, patch, scene, boundary)
            assert struck.kernels == clean.kernels and struck.guests == clean.guests
        except AssertionError as error:
            wrong.append(f"{boundary}, {clean.effects[boundary.number]}: {str(error)[:600]}")
    assert not wrong, f"{len(wrong)} of {len(tried)}:\n" + "\n".join(wrong[:10])


@pytest.mark.parametrize("every", [SAMPLE, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SCENES)
def test_whoever_is_killed_at_whatever_boundary_the_change_comes_out_the_same(
    name: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(effects: Sequence[str]) -> list[Boundary]:
        return [
            boundary
            for turn, boundary in enumerate(boundaries(effects))
            if turn % every == 0 or effects[boundary.number].startswith(DECISIVE)
        ]

    check_each(name, tmp_path, monkeypatch, choose)


@pytest.mark.parametrize("every", [SAMPLE_OF_TWO, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SCENES)
def test_whichever_two_are_killed_at_once_the_change_comes_out_the_same(
    name: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(effects: Sequence[str]) -> list[Boundary]:
        found = (two for one in boundaries(effects) for two in with_another(one, effects[one.number]))
        return list(found)[every // 2 :: every]

    check_each(name, tmp_path, monkeypatch, choose)
