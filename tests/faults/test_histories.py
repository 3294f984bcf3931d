"""Whatever is asked for while whoever is away: in the end all is as was asked for last, at one place, and nothing of
what was before is left."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from doubled_site import HOSTS, Site, play
from hypothesis import given, settings
from hypothesis import strategies as st
from test_crash_doubled import down

from playground.controller import moves
from playground.controller.controller import Unknown
from playground.controller.moves import Refused
from playground.spec.problem import SpecErrors

Step = tuple[str, str, float]
"""What is done, with what, and for how long: until the next step, or till who was killed is back."""

FILES = {
    "without": "",
    "anywhere": "  a: {networks: [grid]}\n",
    "n1": "  a: {networks: [grid], host: n1}\n",
    "n3": "  a: {networks: [grid], host: n3}\n",
    "other nic": "  a: {networks: [public]}\n",
    "two nics": "  a: {networks: [grid, public], host: n1}\n",
}
"""What a file says of the workspace that everything happens to."""


def a_file(name: str) -> str:
    return f"""\
name: lab
networks:
  grid: {{subnets: [10.9.0.0/24, "fd09::/64"]}}
  public: {{subnets: [10.7.0.0/24]}}
workspaces:
  b: {{networks: [grid], host: n2}}
{FILES[name]}"""


async def do(site: Site, step: Step) -> None:
    verb, what, seconds = step
    match verb:
        case "up":
            ask(site, lambda c: c.up("lab.yaml", a_file(what)))
        case "down":
            ask(site, lambda c: c.down("lab"))
        case "move":
            ask(site, lambda c: c.moves.request(c.workspace("lab/a"), what, measure=False))
        case "abort":
            ask(site, lambda c: c.moves.abort(c.workspace("lab/a")))
        case "stopped" | "running":
            ask(site, lambda c: c.ask("lab/a", "stop" if verb == "stopped" else "start"))
        case "kill":
            site.kill(what, seconds)
            return
        case "reboot":
            site.reboot(what)
        case "cut":
            site.cut(what)
        case "join":
            site.join(what)
        case "drain":
            ask(site, lambda c: c.drain(what, 1))
        case "resume":
            ask(site, lambda c: c.resume(what))
    await asyncio.sleep(seconds)


def ask(site: Site, verb: Any) -> None:
    """Somebody asks, and nobody waits for the answer."""

    async def whole() -> None:
        with suppress(Refused, Unknown, SpecErrors):
            await site.ask(verb)

    site.errands.append(asyncio.get_running_loop().create_task(whole()))


async def settle(site: Site, wanted: str) -> None:
    for host in HOSTS:
        site.join(host)
    await asyncio.sleep(20.0)  # whoever was killed is back
    await asyncio.gather(*site.errands)
    for host in HOSTS:
        while await site.ask(lambda c, host=host: c.resume(host)) is None:
            await asyncio.sleep(1.0)
    text = a_file(wanted)
    while await site.ask(lambda c: c.up("lab.yaml", text)) is None:
        await asyncio.sleep(1.0)
    if wanted != "without":
        while await site.ask(lambda c: c.ask("lab/a", "start")) is None:
            await asyncio.sleep(1.0)
    await site.converged("lab")
    await asyncio.sleep(10.0)
    await site.converged("lab")
    site.assert_nothing_is_twice()
    assert_guests_are_at_their_hosts(site)


def assert_guests_are_at_their_hosts(site: Site) -> None:
    items = site.items()
    hosts = {getattr(r, "id", ""): getattr(r, "host", "") for key, r in items.items() if key.startswith("workspace/")}
    found = [(id, host, guest) for id, host, guest in site.every_guest()]
    assert sorted((id, host) for id, host, _ in found) == sorted(hosts.items())
    for _, host, guest in found:
        assert guest.running and guest.alive and guest.host == host and guest.ends == {host}, guest


def check(history: list[Step], wanted: str, folder: Path, kernels: int = 1) -> None:
    async def scene(site: Site) -> None:
        await site.ask(lambda c: c.up("lab.yaml", a_file("n1")))
        await site.converged("lab")
        for step in history:
            await do(site, step)
        await settle(site, wanted)
        await down(site)
        await asyncio.sleep(10.0)
        assert site.every_guest() == []

    for file in folder.iterdir():
        file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moves, "DEADLINE_S", 1e9)  # it ends what hangs; nothing hangs
        play(folder, patch, scene, kernels)


hosts = st.sampled_from(sorted(HOSTS))
processes = st.sampled_from(["controller", *HOSTS, *HOSTS, *(f"{host}'s responder" for host in HOSTS)])
pauses = st.sampled_from([0.0, 0.0, 0.02, 0.1, 0.5, 3.0, 12.0])
steps = st.one_of(
    st.tuples(st.just("up"), st.sampled_from(sorted(FILES)), pauses),
    st.tuples(st.just("move"), hosts, pauses),
    st.tuples(st.just("kill"), processes, st.sampled_from([0.1, 1.0, 4.0, 12.0])),
    st.tuples(st.sampled_from(["wait", "wait", "down", "abort", "stopped", "running"]), st.just(""), pauses),
    st.tuples(st.sampled_from(["cut", "join", "reboot", "drain", "resume"]), hosts, pauses),
)
histories = st.lists(steps, min_size=2, max_size=9)


def tried(history: list[Step], wanted: str, kernels: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(history, wanted, Path(folder), kernels)


@settings(max_examples=int(os.environ.get("PLAYGROUND_HISTORIES", "6")), deadline=None, database=None)
@given(history=histories, wanted=st.sampled_from(sorted(FILES)))
def test_on_one_kernel_whatever_happened_the_end_is_as_asked(history: list[Step], wanted: str) -> None:
    tried(history, wanted, 1)


@settings(max_examples=int(os.environ.get("PLAYGROUND_HISTORIES", "4")), deadline=None, database=None)
@given(history=histories, wanted=st.sampled_from(["without", "anywhere", "other nic"]))
def test_on_a_kernel_each_whatever_happened_the_end_is_as_asked(history: list[Step], wanted: str) -> None:
    tried(history, wanted, 3)


@pytest.mark.long
@settings(max_examples=1500, deadline=None, database=None)
@given(history=histories, wanted=st.sampled_from(["without", "anywhere", "other nic"]), kernels=st.sampled_from([1, 3]))
def test_of_many_histories_each_ends_as_asked(history: list[Step], wanted: str, kernels: int) -> None:
    tried(history, wanted, kernels)


def test_a_start_that_somebody_overtakes_waits_for_what_the_store_has() -> None:
    """Instead of trying again what it has just been refused, for ever where nothing else gets its turn."""
    tried(
        [("up", "other nic", 0.5), ("up", "two nics", 0.0), ("stopped", "", 0.02), ("running", "", 3.0)], "anywhere", 3
    )


@pytest.mark.parametrize("gone_s", [0.02, 0.05, 0.1])
def test_a_workspace_that_was_removed_and_given_anew_while_both_ends_of_its_move_were_away(gone_s: float) -> None:
    """Its guest runs on at the one, prepared for at the other, where it is to be now."""
    move = [("move", "n3", gone_s), ("kill", "n3", 4.0), ("kill", "n1", 4.0)]
    tried([*move, ("up", "without", 1.0), ("up", "n3", 0.0)], "n3", 1)


def test_a_workspace_that_was_given_anew_elsewhere_leaves_nothing_on_a_host_that_was_away() -> None:
    """No other kernel can take its guest, which nobody has told to end."""
    tried([("cut", "n1", 1.0), ("up", "without", 1.0), ("up", "n3", 5.0)], "n3", 3)
