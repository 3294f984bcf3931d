"""Passes that cost what changed end where a look at everything would: nothing is left for it to do, or to say."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import pytest

from overlay.diff import diff
from playground import wire
from playground.agent import agent as agent_module
from playground.derive import Setting, derive_whole
from playground.records import ObservedHost, key_of
from playground.view import host_scope, playground_scope
from playground.workspaces.drivers.memory import Machine
from tests.agent.test_agent import Host, run, running
from tests.derive.test_derive import GRID, UNDERLAY, a_binding, a_port, a_workspace, in_move

ATLAS, HERE = playground_scope("atlas"), host_scope("n1")
EDITS = ("bind", "bind", "bind", "unbind", "move", "stop", "address", "mtu")


def an_edit(chance: random.Random, revision: int) -> list[wire.FromController]:
    """What the controller says of one change at a workspace that may be on this host."""
    port, host, kind = a_port(chance.randrange(6), GRID), chance.choice(("n1", "n1", "n2")), chance.choice(EDITS)
    binding, here = a_binding(port, host), a_workspace(port, host)
    workspace = f"workspace/atlas/{port.workspace}"
    match kind:
        case "unbind":
            said: list[wire.FromController] = [
                wire.Changed(ATLAS, revision, [], [f"claim/active/{port.id}", f"port/atlas/{port.workspace}/grid"]),
                wire.Changed(HERE, revision, [], [workspace]),
            ]
        case "move":
            said = [wire.Changed(ATLAS, revision, [port, in_move(port, "n3", host, "copying")], [])]
        case "mtu":
            said = [wire.Changed(ATLAS, revision, [msgspec.structs.replace(GRID, mtu=1400 + revision % 3)], [])]
        case _:
            puts = [here] if host == "n1" else []
            if kind == "stop" and puts:
                puts = [msgspec.structs.replace(here, desired="stopped")]
            if kind == "address":
                port = msgspec.structs.replace(port, addresses=(f"10.0.0.{200 + revision % 50}",))
            said = [
                wire.Changed(ATLAS, revision, [port, binding], []),
                wire.Changed(HERE, revision, list(puts), [] if puts else [workspace]),
            ]
    return [*said, wire.Complete(revision)]


class Heard:
    """The controller's memory of one host, by its reports."""

    def __init__(self) -> None:
        self.observed: dict[str, wire.Observation] = {}

    def take(self, message: wire.FromAgent) -> None:
        if isinstance(message, wire.Report):
            if message.whole:
                self.observed.clear()
            self.observed.update({key_of(observation): observation for observation in message.observed})
            for key in message.gone:
                self.observed.pop(key, None)

    def of_objects(self) -> dict[str, wire.Observation]:
        return {key: one for key, one in self.observed.items() if not isinstance(one, ObservedHost)}


async def quiet(host: Host) -> None:
    """Returns once no guest is being acted on, nor is about to be, and no event waits for a pass: a busy machine lets
    the thread that hears of devices wait, too."""
    async with asyncio.timeout(10):
        while True:
            agent = host.agent
            await agent._pass_done()
            is_between_passes = agent._started == agent._finished and not agent._wake.is_set()
            if is_between_passes and not agent._guests._busy and host.plane.is_quiet():
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(5))
def test_a_history_of_narrow_passes_leaves_nothing_to_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(agent_module, "PERIOD_S", 1000.0)
    chance = random.Random(seed)

    async def work() -> None:
        host, heard, looks = Host("n1", Machine(), tmp_path), Heard(), 0
        say, converge = host.link.say, host.plane.converge

        async def hear(message: wire.FromAgent) -> bool:
            heard.take(message)
            return await say(message)

        def look(*arguments: object) -> object:
            nonlocal looks
            looks += 1
            return converge(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(host.link, "say", hear)
        monkeypatch.setattr(host.plane, "converge", look)
        async with running(host):
            await host.shown([GRID], [])
            await quiet(host)
            looks = 0
            for number in range(40):
                for message in an_edit(chance, number + 2):
                    await host.agent.said(message)
                if number % 3:
                    await host.agent._pass_done()
            await quiet(host)
            assert looks == 0, "a pass looked at everything"
            arrived = host.agent._guests.arrived()
            wanted = derive_whole(host.agent._view, Setting("n1", UNDERLAY["n1"], "internal", arrived=arrived))
            assert diff(wanted.state, host.plane.observe()) == []
            assert host.responder.document == wanted.services
            narrow = heard.of_objects()
            host.agent._look = True
            await quiet(host)
            assert looks > 0 and heard.of_objects() == narrow

    run(work())
