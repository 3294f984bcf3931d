"""Whatever was wanted of a machine before, and whatever befell it: it becomes what is wanted now, also without any
event."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.agent import guests as guests_module
from playground.agent.guests import Guests
from playground.derive import Role, Want
from playground.machine import PLAIN
from playground.workspaces.drivers.api import Guest, GuestState, Nic
from playground.workspaces.drivers.memory_hypervisor import Fabric, MemoryHypervisor, Power

NIC = Nic("0" * 12, "pg" + "0" * 12, "02:00:00:00:00:01", 1450, 0)
GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", (NIC,), 1, 96, PLAIN)

ROLES = (Role.RUN, Role.SUSPEND, Role.SAVE, Role.STOP)
VERBS = ("prepare", "start", "suspend", "save", "stop")

STEPS = st.one_of(
    st.sampled_from(ROLES),
    st.sampled_from(["halt", "end", "agent", "reboot", "resume", "turn", "turn"]),
    st.sampled_from([f"refuse {verb}" for verb in VERBS]),
)


class Host:
    """One host's guests over a fabric that outlives its agent."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.want = Want(
            GUEST.id, "atlas", "w", "libvirt", Role.RUN, generation=1, guest=GUEST, ports=(NIC.port,), adopt=True
        )
        self.restart()

    def restart(self) -> None:
        async def nothing(*_: object) -> None:
            return None

        self.guests = Guests(
            {"libvirt": MemoryHypervisor("n1", self.fabric)},
            ready=lambda want: True,
            stale=lambda want: False,
            anew=lambda want: None,
            passed=nothing,
            again=lambda: None,
            landed=nothing,
        )

    async def turn(self) -> None:
        """A whole pass: it looks at everything, told or not."""
        await self.guests.observe()
        self.guests.step({GUEST.id: self.want}, {GUEST.id}, may_open=True)
        await asyncio.gather(*self.guests._busy.values())

    async def take(self, step: Role | str) -> None:
        room = self.fabric.rooms["n1"].get(GUEST.id)
        if isinstance(step, Role):
            self.want = replace(self.want, role=step)
        elif step == "halt" and room is not None and room.power is Power.RUNNING:
            self.fabric.halt("n1", GUEST.id, "suspended by another tool")
        elif step == "end" and room is not None and room.power in (Power.RUNNING, Power.HALTED, Power.MADE):
            self.fabric.end("n1", GUEST.id, "it has shut itself down")
        elif step == "agent":
            self.restart()
        elif step in ("reboot", "resume"):
            self.ask(f"{step}s")
        elif step.startswith("refuse "):
            self.fabric.refusals = {step.removeprefix("refuse "): "not now"}
        await self.turn()
        self.fabric.refusals = {}

    def ask(self, what: str) -> None:
        guest = replace(self.want.guest, **{what: getattr(self.want.guest, what) + 1})
        self.want = replace(self.want, guest=guest)


ENDS = {
    Role.RUN: {GuestState.RUNNING},
    Role.SUSPEND: {GuestState.SUSPENDED, GuestState.PREPARED},
    Role.SAVE: {GuestState.SAVED, GuestState.ABSENT, GuestState.FAILED},
    Role.STOP: {GuestState.ABSENT},
}


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12), st.sampled_from(ROLES))
def test_a_machine_becomes_what_is_wanted_of_it_after_any_history(steps: list[Role | str], last: Role) -> None:
    async def work() -> None:
        host = Host(Fabric(deaf={"n1"}))
        for step in steps:
            await host.take(step)
        host.want = replace(host.want, role=last)
        host.ask("resumes")  # what another tool suspended goes on only when that is asked for
        for _ in range(6):
            await host.turn()
        await host.guests.observe()
        assert host.guests.state(GUEST.id) in ENDS[last]
        calls = len(host.fabric.calls)
        await host.turn()
        assert len(host.fabric.calls) == calls, "it is done, and something is done still"
        if last is Role.RUN:
            assert host.guests.observed[GUEST.id][1].reboots == host.want.guest.reboots

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guests_module, "RETRY_S", 0)
        asyncio.run(work())


def test_memory_that_was_saved_is_never_given_up_but_by_a_stop() -> None:
    async def work() -> None:
        host = Host(Fabric())
        for role in (Role.RUN, Role.SAVE):
            await host.take(role)
            for _ in range(3):
                await host.turn()
        host.fabric.refusals = {"prepare": "the memory can't be read back"}
        host.want = replace(host.want, role=Role.RUN)
        for _ in range(3):
            await host.turn()
        assert host.guests.state(GUEST.id) is GuestState.SAVED
        assert host.guests.causes[GUEST.id] == "the memory can't be read back"
        host.fabric.refusals = {}
        for _ in range(3):
            await host.turn()
        assert host.guests.state(GUEST.id) is GuestState.RUNNING

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guests_module, "RETRY_S", 0)
        asyncio.run(work())
