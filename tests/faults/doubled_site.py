"""A site in one event loop: the production controller and agents over doubles of kernel, guests, responders and store,
each of them a process that can be killed before or after any of its effects.

What survives a process is in `HostDouble` (kernel, guests, the responder's file, the cache) and in the store;
everything else is built anew from these.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from doubled_processes import Effects, Killed, Process, task_factory
from doubled_responder import Answering, Responder
from virtual_time import EPOCH_S, VirtualLoop, run

from dhcp.decide import LeaseKind
from overlay.gateways import Gateway
from overlay.kernel.converge import OpError
from overlay.kernel.gateways import GatewayStatus
from overlay.kernel.memory import MemoryDataPlane
from overlay.ops import Op, describe
from overlay.state import port_device
from overlay.topology import ObservedState
from playground import wire
from playground.agent import agent as agent_module
from playground.agent import cache as cache_module
from playground.agent import guests as guests_module
from playground.agent.agent import Agent
from playground.agent.gateways import NAT, Gateways
from playground.controller import changes as changes_module
from playground.controller import events as events_module
from playground.controller import moves as moves_module
from playground.controller import progress
from playground.controller import sessions as sessions_module
from playground.controller.controller import Controller
from playground.controller.hosts import admit_hosts
from playground.derive.rules import GUARD
from playground.records import Driver, Record, decode
from playground.responder.protocol import Leased, port_key
from playground.spec import load_site
from playground.store.api import Change, Compare, Conflict, LeaseId, Revision
from playground.store.memory import MemoryStore
from playground.workspaces.drivers.api import Guest, Observed
from playground.workspaces.drivers.memory import Machine, MemoryDriver, MemoryGuest
from playground.workspaces.migration import ENDED, State
from policies.compile.tables import Ruleset
from policies.kernel.enforcement import Outcome
from policies.kernel.memory import MemoryEnforcement

T = TypeVar("T")

HOSTS = {"n1": "192.0.2.11", "n2": "192.0.2.12", "n3": "192.0.2.13"}
RESTART_S = 0.1
RESPONDER_RESTART_S = 1.0
"""The agent looks once a second whether somebody answers."""

EVENT_S = 0.25
"""How often an agent looks for events of its kernel: they have no descriptor here."""

TOKEN = hashlib.sha256(b"secret").hexdigest()


async def _in_loop(work: Callable[..., T], *words: Any) -> T:
    """Stands in for asyncio.to_thread: all is one thread here, so that every run is the same."""
    if work.__name__ == "wait_event":
        await asyncio.sleep(EVENT_S)
        words = ()
    return work(*words)


# -- doubles ---------------------------------------------------------------------------------------------------------


class Store:
    """One controller's hold on the store that outlives it."""

    def __init__(self, kept: MemoryStore, process: Process, effects: Effects) -> None:
        self._kept = kept
        self._process = process
        self._effects = effects
        self.get, self.list, self.watch = kept.get, kept.list, kept.watch
        self.keepalive, self.elect = kept.keepalive, kept.elect

    async def commit(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Revision | Conflict:
        what = f"commit {', '.join(sorted({c.key.split('/')[0] for c in changes}))}"
        return await self._effects.wait(self._process, what, lambda: self._kept.commit(compares, changes))

    async def lease(self, ttl_s: float) -> LeaseId:
        return await self._effects.wait(self._process, "lease", lambda: self._kept.lease(ttl_s))

    async def revoke(self, lease: LeaseId) -> None:
        await self._effects.wait(self._process, "revoke", lambda: self._kept.revoke(lease))

    async def close(self) -> None:
        """The store outlives its controller."""


class Plane(MemoryDataPlane):
    """One agent's door to the kernel that outlives it: each step is an effect."""

    def __init__(self, kernel: MemoryDataPlane, process: Process, effects: Effects) -> None:
        super().__init__()
        for name in ("links", "host", "services", "foreign", "applied", "_entries", "_legs", "_doomed"):
            setattr(self, name, getattr(kernel, name))
        self._process = process
        self._effects = effects

    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        errors = []
        for op in ops:
            step = self._effects.before(self._process, describe(op))
            errors += super().apply([op])
            self._effects.after(self._process, step)
        return errors


class GuestDriver(MemoryDriver):
    """Each verb is an effect, and so is what it does in between: the guest there, its devices not yet."""

    def __init__(self, host: HostDouble, process: Process, effects: Effects) -> None:
        super().__init__(host.name, host.machine)
        self.name = "netns"
        self.domain = host.domain
        self._double = host
        self._process = process
        self._effects = effects

    async def _taken(self, what: str, work: Callable[[], Awaitable[T]], then: Callable[[], None]) -> T:
        result = await self._effects.wait(self._process, what, work)
        self._effects.take(self._process, f"{what}, its devices", then)
        return result

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        for guest in self._double.cut_off():
            self._machine.lose_ends(guest, self._host)
        return await super().observe(guests)

    async def prepare(self, guest: Guest) -> None:
        verb = super().prepare
        await self._taken("prepare", lambda: verb(guest), lambda: self._double.plug(guest))

    async def prepare_arrival(self, guest: Guest) -> None:
        verb = super().prepare_arrival
        await self._taken("prepare_arrival", lambda: verb(guest), lambda: self._double.plug_as_made(guest.id))

    async def start(self, guest: Guest) -> None:
        verb = super().start
        await self._effects.wait(self._process, "start", lambda: verb(guest))
        self._double.ask(guest)

    async def renew(self, guest_id: str) -> None:
        verb = super().renew
        await self._effects.wait(self._process, "renew", lambda: verb(guest_id))

    async def activate(self, guest: Guest, move: int = 0) -> float:
        verb = super().activate
        return await self._effects.wait(self._process, "activate", lambda: verb(guest, move))

    async def depart(self, guest_id: str) -> None:
        verb, doomed = super().depart, self._double.devices(guest_id)
        await self._taken("depart", lambda: verb(guest_id), lambda: self._double.unplug(doomed))

    async def stop(self, guest_id: str, grace_s: float) -> None:
        verb, doomed = super().stop, self._double.devices(guest_id)
        # the devices first: an entry is forgotten only once nothing of it is left, as the netns driver does it
        self._effects.take(self._process, "stop, its devices", lambda: self._double.unplug(doomed))
        await self._effects.wait(self._process, "stop", lambda: verb(guest_id, grace_s))


class Rules:
    """An agent's hold on the rules in the kernel, which outlive it; nobody else touches them."""

    def __init__(self, host: HostDouble, process: Process, effects: Effects) -> None:
        self._host = host
        self._process = process
        self._effects = effects

    def fileno(self) -> int:
        return self._host.rules.fileno()

    def touched(self) -> bool:
        return self._host.rules.touched()

    def can_police(self) -> str | None:
        return self._host.rules.can_police()

    def converge(self, ruleset: Ruleset, policed: frozenset[str], *, is_doubted: bool = False) -> Outcome:
        rules = self._host.rules
        if (rules.in_force, rules.policed) == (ruleset, policed):
            return Outcome()
        return self._effects.take(self._process, "rules", lambda: rules.converge(ruleset, policed))


class GatewayDoor:
    """An agent's hold on the gateways of its host, which outlive it."""

    def __init__(self, host: HostDouble, process: Process, effects: Effects) -> None:
        self._host = host
        self._process = process
        self._effects = effects

    def converge(self, wanted: Mapping[str, Gateway]) -> dict[str, GatewayStatus]:
        if self._host.gateways != wanted:
            self._effects.take(self._process, "gateways", lambda: self._host.carry(dict(wanted)))
        return dict.fromkeys(wanted, GatewayStatus())


def _rules() -> MemoryEnforcement:
    made = MemoryEnforcement()
    weakref.finalize(made, os.close, made.fileno())
    return made


class _CacheFile(type(Path())):  # type: ignore[misc]
    """The cache: each write, and its taking effect, is an effect of the agent that does it; a write may be torn."""

    process: Process
    effects: Effects

    def write_bytes(self, data: bytes) -> int:
        super().write_bytes(data[: len(data) // 2])
        number = self.effects.before(self.process, "cache written")  # killed here, half of it is there
        size = super().write_bytes(data)
        self.effects.after(self.process, number)
        return size

    def open(self, mode: str = "r", *words: Any, **named: Any) -> Any:
        file = super().open(mode, *words, **named)
        return _Appended(file, self) if mode == "ab" else file

    def replace(self, target: Path) -> Path:
        return self.effects.take(self.process, "cache replaced", lambda: super(_CacheFile, self).replace(target))


class _Appended:
    """The cache, open for what is said next."""

    def __init__(self, file: Any, path: _CacheFile) -> None:
        self._file = file
        self._path = path
        self.close = file.close

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        number = self._path.effects.before(self._path.process, "cache line")  # killed here, the line is torn
        self._file.write(data[half:])
        self._path.effects.after(self._path.process, number)
        return len(data)


class Link:
    """An agent's connection to whichever controller lives: two queues, and no network."""

    def __init__(self, site: Site, host: HostDouble, process: Process) -> None:
        self._site = site
        self._host = host
        self._process = process
        self._up: asyncio.Queue[str | None] | None = None
        self.said: Callable[[Any], Awaitable[None]]
        self.changed: Callable[[bool, str], Awaitable[None]]

    async def run(self) -> None:
        while True:
            if (life := self._site.life) is not None and self._host.name not in self._site.cut_off:
                up: asyncio.Queue[str | None] = asyncio.Queue()
                down: asyncio.Queue[str | None] = asyncio.Queue()
                life.process.spawn(life.serve(self._host, up, down))
                self._site.on_end(self._process, lambda up=up: up.put_nowait(None))
                self._site.connections[self._host.name] = (up, down)
                beating = asyncio.create_task(self._beat(up))
                while (text := await down.get()) is not None:
                    if self._up is None:
                        self._up = up
                        await self.changed(True, "")
                    await self.said(wire.decode_from_controller(text))
                beating.cancel()
                self._up = None
            await self.changed(False, "no controller")
            await asyncio.sleep(0.2)

    @staticmethod
    async def _beat(up: asyncio.Queue[str | None]) -> None:
        while True:
            await asyncio.sleep(wire.BEAT_S)
            up.put_nowait(wire.encode(wire.Beat()))

    async def say(self, message: wire.FromAgent) -> bool:
        up = self._up
        if up is None:
            return False
        text = wire.encode(message)
        self._site.effects.take(self._process, "report", lambda: up.put_nowait(text))
        return True


@dataclass(eq=False)
class HostDouble:
    """What of a host outlives its agent."""

    name: str
    machine: Machine
    site: Site
    domain: str
    kernel: MemoryDataPlane = field(default_factory=MemoryDataPlane)
    rules: MemoryEnforcement = field(default_factory=lambda: _rules())
    gateways: dict[str, Gateway] = field(default_factory=dict)
    process: Process | None = None
    answering: Answering = field(init=False)

    def __post_init__(self) -> None:
        self.answering = Answering(self.site.effects, self.ask_all)

    def plug(self, guest: Guest) -> None:
        for nic in guest.nics:
            if nic.device not in self.kernel.links:
                self.kernel.plug(nic.device)

    def carry(self, gateways: dict[str, Gateway]) -> None:
        """These and no others, each leg with its end in the kernel."""
        before, after = (
            {port_device(leg.port) for gateway in some.values() for leg in gateway.legs}
            for some in (self.gateways, gateways)
        )
        self.unplug(before - after)
        for device in after - self.kernel.links.keys():
            self.kernel.plug(device)
        self.gateways = gateways

    def plug_as_made(self, guest_id: str) -> None:
        """Ends of a guest that another host has made, by the NICs that it was made with."""
        if (entry := self.machine.guests.get(guest_id)) is not None:
            self.plug(entry.guest)

    def devices(self, guest_id: str) -> list[str]:
        entry = self.machine.guests.get(guest_id)
        return [nic.device for nic in entry.guest.nics] if entry is not None else []

    def cut_off(self) -> list[str]:
        """Guests whose ends here are not in the kernel any more."""
        return [
            id
            for id, guest in self.machine.guests.items()
            if self.name in guest.ends and any(nic.device not in self.kernel.links for nic in guest.guest.nics)
        ]

    def unplug(self, devices: Iterable[str]) -> None:
        for device in devices:
            self.kernel.unplug(device)

    def ask(self, guest: Guest) -> None:
        """The guest's clients take their addresses, if somebody answers for their ports."""
        for nic in guest.nics:
            if port_key(nic.port) in self.answering.answers and nic.port not in self.answering.leases:
                formed = [
                    Leased(port=nic.port, address=a, mac=nic.mac, at_utc_s=0.0, kind=LeaseKind.FORMED)
                    for a in self.site.addresses(nic.port)
                ]
                self.answering.lease(nic.port, formed)

    def ask_all(self) -> None:
        for entry in list(self.machine.guests.values()):
            if entry.host == self.name and entry.running and entry.alive:
                self.ask(entry.guest)

    def bare_ports(self) -> set[str]:
        """Devices in a bridge without rules of their own."""
        guarded = self.rules.in_force.get(GUARD, {})
        return {name for name, link in self.kernel.links.items() if name[:2] == "pg" and link.master} - guarded.keys()

    def open_ports(self) -> set[str]:
        """Devices of ports that frames are delivered to."""
        return {
            name
            for name, link in self.kernel.links.items()
            if name.startswith("pg") and link.master and link.flags is not None and link.flags.broadcast_flood
        }


@dataclass(eq=False)
class Life:
    """One life of the controller."""

    process: Process
    controller: Controller
    site: Site

    async def serve(self, host: HostDouble, up: asyncio.Queue[str | None], down: asyncio.Queue[str | None]) -> None:
        async def send(text: str) -> None:
            self.site.effects.take(self.process, f"show {host.name}", lambda: down.put_nowait(text))

        async def receive() -> wire.FromAgent:
            if (text := await up.get()) is None:
                raise ConnectionError("the agent is gone")
            return wire.decode_from_agent(text)

        hello = wire.Hello(
            host=host.name,
            protocol=wire.PROTOCOL,
            version="1",
            underlay=HOSTS[host.name],
            underlay_mtu=1500,
            drivers=[Driver("netns", "same-kernel", host.domain), NAT],
            cpus=4.0,
            memory_mib=4096,
        )
        self.site.on_end(self.process, lambda: down.put_nowait(None))
        try:
            await self.controller.sessions.serve(hello, TOKEN, send, receive)
        except ConnectionError:
            pass
        finally:
            down.put_nowait(None)


class Site:
    """The whole of it. Whoever is killed starts again by itself after RESTART_S."""

    def __init__(self, folder: Path, kernels: int = 1) -> None:
        """kernels: on how many machines the hosts are, in turn."""
        self.effects = Effects()
        self.store = MemoryStore(clock=lambda: asyncio.get_running_loop().time())
        self.machines = [Machine() for _ in range(kernels)]
        self.machine = self.machines[0]
        self.hosts = {
            name: HostDouble(name, self.machines[number % kernels], self, f"kernel {number % kernels}")
            for number, name in enumerate(HOSTS)
        }
        self.life: Life | None = None
        self.lost = 0
        self.broken: list[str] = []
        self.down_s: dict[str, float] = {}
        """How long whoever is killed next stays away, by the name of its process; RESTART_S for who is not here."""
        self.clock_s = EPOCH_S
        self.cut_off: set[str] = set()
        """Hosts that reach no controller."""
        self.errands: list[asyncio.Task[None]] = []
        self.connections: dict[str, tuple[asyncio.Queue[str | None], asyncio.Queue[str | None]]] = {}
        self._decoded: dict[str, tuple[int, Record]] = {}
        self._folder = folder
        self._ends: dict[Process, list[Callable[[], object]]] = {}
        entries = ", ".join(f"{name}: {{underlay: {address}}}" for name, address in HOSTS.items())
        self._spec = load_site(f"name: lab\nhosts: {{{entries}}}\n", "site.yaml")

    # lives

    async def start(self) -> None:
        self._start_controller()
        for host in self.hosts.values():
            self._start_responder(host)
            self._start_agent(host)
        await self.until(lambda c: len(c.world.alive) == len(HOSTS), "hosts up")

    def on_end(self, process: Process, call: Callable[[], object]) -> None:
        self._ends.setdefault(process, []).append(call)

    def _over(self, process: Process, again: Callable[[], None]) -> Callable[[], None]:
        def over() -> None:
            for call in self._ends.pop(process, []):
                call()
            asyncio.get_running_loop().call_later(self.down_s.pop(process.name, RESTART_S), again)

        return over

    def _watched(self, process: Process, work: Coroutine[Any, Any, object]) -> None:
        def ended(task: asyncio.Task[object]) -> None:
            if not process.is_dead:
                if task.cancelled():
                    return
                self.broken.append(f"{process.name} ended by itself: {task.exception()!r}")
                process.kill()

        process.spawn(work).add_done_callback(ended)

    def _start_controller(self) -> None:
        process = self._process("controller")

        def again() -> None:
            self._start_controller()

        def over() -> None:
            self.life = None
            self._over(process, again)()

        process.ended = over

        async def live() -> None:
            store = Store(self.store, process, self.effects)
            controller = Controller(store, self._spec)
            await controller.world.load()
            await admit_hosts(store, controller.world, self._spec, dict.fromkeys(HOSTS, TOKEN))
            await controller.world.load()
            self.life = Life(process, controller, self)
            await controller.run()

        self._watched(process, live())

    def _start_agent(self, host: HostDouble) -> None:
        process = self._process(host.name)
        process.ended = self._over(process, lambda: self._start_agent(host))
        host.process = process
        responder = host.answering.agent = Responder(host.answering, process, self.effects)
        link = Link(self, host, process)
        plane = host.kernel = Plane(host.kernel, process, self.effects)
        cache = type("CacheFile", (_CacheFile,), {"process": process, "effects": self.effects})
        made = Agent(
            host=host.name,
            underlay=HOSTS[host.name],
            dataplane=plane,
            dataplane_name="playground",
            door=Rules(host, process, self.effects),
            gateways=Gateways(GatewayDoor(host, process, self.effects)),
            drivers={"netns": GuestDriver(host, process, self.effects)},
            responder=responder,  # type: ignore[arg-type]
            link=link,  # type: ignore[arg-type]
            cache=cache(self._folder / f"{host.name}.json"),
            max_stale_s=sessions_module.MAX_STALE_S,
        )
        responder.leased, responder.effect = made.leased, made.answering
        link.said, link.changed = made.said, made.connection_changed
        self._watched(process, made.run())

    def _start_responder(self, host: HostDouble) -> None:
        process = self._process(f"{host.name}'s responder")

        def over() -> None:
            host.answering.end()
            asyncio.get_running_loop().call_later(RESPONDER_RESTART_S, self._start_responder, host)

        process.ended = over
        host.answering.begin(process)

    def _process(self, name: str) -> Process:
        made = self.effects.living[name] = Process(name, lambda: None)
        return made

    # what befalls a host

    def kill(self, name: str, down_s: float = RESTART_S) -> None:
        """kill -9 of a process, which is started again so much later; nothing where it is dead."""
        if not self.effects.living[name].is_dead:
            self.down_s[name] = down_s
            self.effects.living[name].kill()

    def cut(self, name: str) -> None:
        """From now on the host reaches no controller, nor is it reached."""
        self.cut_off.add(name)
        for end in self.connections.pop(name, ()):
            end.put_nowait(None)

    def join(self, name: str) -> None:
        self.cut_off.discard(name)

    def set_clock_back(self, seconds: float) -> None:
        """The clock on every wall, as of a machine that forgets it while it is off."""
        self.clock_s -= seconds

    def reboot(self, name: str) -> None:
        """What is in memory is lost: the kernel's state, guests that go by this host, answers. The cache stays."""
        host = self.hosts[name]
        if host.process is not None:
            host.process.kill()
        host.answering.lose_file()
        if host.answering.process is not None:
            host.answering.process.kill()
        host.kernel = MemoryDataPlane()
        host.rules.in_force, host.rules.policed = {}, frozenset()
        host.gateways = {}
        for id, guest in list(host.machine.guests.items()):
            guest.ends.discard(name)
            if guest.host == name:
                del host.machine.guests[id]

    # what people do

    async def ask(self, verb: Callable[[Controller], Coroutine[Any, Any, T]]) -> T | None:
        """A request; None when its controller died before it answered."""
        life = await self._living()
        answered: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self.on_end(life.process, lambda: answered.done() or answered.set_result(None))

        async def do() -> None:
            try:
                result = await verb(life.controller)
            except Exception as error:
                if not answered.done():
                    answered.set_exception(error)
                return
            if not answered.done() and not life.process.is_dead:
                answered.set_result(result)

        life.process.spawn(do())
        result = await answered
        self.lost += result is None
        return result

    async def _living(self) -> Life:
        while self.life is None or self.life.process.is_dead:
            await asyncio.sleep(0.05)
        return self.life

    async def until(self, claim: Callable[[Controller], object], what: str, seconds: float = 120.0) -> None:
        """Waits, in virtual time, until the living controller bears the claim out."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.life is None or self.life.process.is_dead or not claim(self.life.controller):
            if loop.time() > deadline:
                raise AssertionError(f"not so within {seconds:g} s: {what}: {self._said()}")
            await asyncio.sleep(0.05)

    def _said(self) -> object:
        if self.life is None:
            return "no controller"
        world = self.life.controller.world
        return [progress.whole(world, name) for name in [*world.playgrounds(), "lab"]]

    async def converged(self, name: str) -> None:
        """All of the playground is as asked for, every host is up, no move is open."""

        def claim(controller: Controller) -> bool:
            world = controller.world
            moves = [move for grid in world.grids.values() for move in grid.migrations.values()]
            return (
                len(world.alive) == len(HOSTS)
                and bool(progress.whole(world, name)["converged"])
                and not world.changes
                and all(State(m.state) in ENDED and m.finished_utc_s is not None for m in moves)
                and self._is_tidy()
            )

        await self.until(claim, f"{name} converged")

    async def removed(self, name: str) -> None:
        """Nothing of the playground is left in the store or on a host."""
        await self.until(
            lambda c: progress.whole(c.world, name)["removed"] and not self.records(name), f"{name} removed"
        )

    def _is_tidy(self) -> bool:
        """Whether each claim has its record, as after the sweep that follows every change."""
        items = self.items()
        owners = {getattr(r, "id", "") for key, r in items.items() if key.startswith(("port/", "network/"))}
        claims = (r for key, r in items.items() if key.startswith(("claim/addr/", "claim/mac/")))
        return all(getattr(r, "owner", "") in owners for r in claims)

    # what is

    def items(self) -> dict[str, Record]:
        """The store's records, each decoded once."""
        for key, item in self.store._items.items():
            if self._decoded.get(key, (0, None))[0] != item.modified:
                self._decoded[key] = (item.modified, decode(item.value))
        return {key: self._decoded[key][1] for key in self.store._items}

    def records(self, name: str) -> list[str]:
        """Keys in the store that are of this playground."""
        kept = {key: r for key, r in self.items().items() if not key.startswith(("event/", "observed/"))}
        return [key for key, record in kept.items() if getattr(record, "playground", key.partition("/")[2]) == name]

    def wall_s(self) -> float:
        """Seconds since the epoch, in virtual time."""
        return self.clock_s + asyncio.get_running_loop().time()

    def addresses(self, port: str) -> tuple[str, ...]:
        for record in self.items().values():
            if getattr(record, "id", "") == port:
                return tuple(getattr(record, "addresses", ()))
        return ()

    def kernels(self) -> dict[str, ObservedState]:
        """What every host's kernel shows, without how it came to be."""
        return {name: host.kernel.observe() for name, host in self.hosts.items()}

    def guests(self) -> dict[str, tuple[str, bool, frozenset[str]]]:
        """By PLAYGROUND/NAME: who carries it, whether it runs, who has ends of it."""
        return {
            f"{g.guest.playground}/{g.guest.name}": (g.host, g.running and g.alive, frozenset(g.ends))
            for g in self.machine.guests.values()
        }

    def every_guest(self) -> list[tuple[str, str, MemoryGuest]]:
        """(id, host that carries it, guest) of all that there are."""
        found = [(id, guest.host, guest) for machine in self.machines for id, guest in machine.guests.items()]
        return sorted(found, key=lambda one: one[:2])

    def assert_nothing_is_twice(self) -> None:
        """Records against claims against kernels."""
        items = self.items()
        ports = {key: r for key, r in items.items() if key.startswith("port/")}
        held: dict[tuple[str, str], str] = {}
        for port in ports.values():
            for address in port.addresses:  # type: ignore[union-attr]
                place = (port.network_id, address)  # type: ignore[union-attr]
                assert held.setdefault(place, port.id) == port.id, f"{address} is of two ports"  # type: ignore[union-attr]
        bindings = {r.port: r for key, r in items.items() if key.startswith("claim/active/")}  # type: ignore[union-attr]
        for host in self.hosts.values():
            wanted = {port_device(port) for port, b in bindings.items() if b.active == host.name}  # type: ignore[union-attr]
            assert host.open_ports() == wanted, f"{host.name}: open {host.open_ports()}, bound {wanted}"


# -- running ---------------------------------------------------------------------------------------------------------


_plays = itertools.count(1)


def play(
    folder: Path, patch: pytest.MonkeyPatch, scene: Callable[[Site], Coroutine[Any, Any, T]], kernels: int = 1
) -> T:
    """Runs a scene on a site of its own, in virtual time."""
    if next(_plays) % 20 == 0:
        gc.collect()  # sites that are over hold descriptors, in cycles
    loop = VirtualLoop()
    site = Site(folder, kernels)
    clock = SimpleNamespace(time=lambda: site.clock_s + loop.time(), monotonic=loop.time)
    for module in (agent_module, cache_module, guests_module, changes_module, events_module, moves_module):
        patch.setattr(module, "time", clock)
    patch.setattr(asyncio, "to_thread", _in_loop)
    # kept records hold errors, these their frames, and these whole sites: a long run would use up its descriptors
    patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    patch.setattr(agent_module, "DIRECTORY", folder)  # of namespaces: this machine's are none of ours
    loop.set_task_factory(task_factory)
    loop.set_exception_handler(lambda _, said: _note(site, said))

    def note_bare() -> None:
        site.broken += [f"{host.name}: {bare} unguarded" for host in site.hosts.values() if (bare := host.bare_ports())]

    site.effects.on_effect.append(note_bare)

    async def whole() -> T:
        await site.start()
        result = await scene(site)
        assert not site.broken, site.broken
        return result

    return run(loop, whole())


def _note(site: Site, said: Mapping[str, Any]) -> None:
    error = said.get("exception")
    if not _is_kill(error):
        site.broken.append(f"{said.get('message')}: {error!r}")


def _is_kill(error: object) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_kill, error.exceptions))
    return isinstance(error, Killed)
