"""Several hosts, a port that moves between them, many machines behind it, clocks that differ, messages that come late
or never, processes that die between any two steps: no address is ever at two machines."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from dhcp.decide import Act
from dhcp.leases import Lease, State
from dhcp.message import BOOTREQUEST, Message
from dhcp.pool import Pool
from dhcp.render import Reply
from overlay.pools import address_hex
from playground.agent.given import Given
from playground.blocks import FENCE_S, Around, addresses, claims_of, spans_of, step
from playground.derive.services import Beside, Giving, port_scope
from playground.records import BindingRecord, DynamicRecord, NetworkRecord, ObservedLeases, PortRecord, address_claim
from playground.view import View
from playground.wire import Complete, Enter

NETWORK = NetworkRecord(
    playground="lab",
    name="grid",
    id="0" * 12,
    vni=4096,
    mtu=1450,
    subnets=("10.0.0.0/24",),
    gateways=("10.0.0.1",),
    lease_s=600,
    dynamic=("10.0.0.200-10.0.0.215",),
)
PORT = PortRecord(
    playground="lab",
    workspace="nest",
    network="grid",
    network_id=NETWORK.id,
    id="1" * 12,
    mac="02:00:00:00:00:01",
    addresses=("10.0.0.2",),
    dynamic=12,
)
SERVER = bytes((10, 0, 0, 1))
DEVICE = f"pg{PORT.id}"


def message(client: int, kind: int, address: bytes = bytes(4), *, is_selecting: bool = False) -> Message:
    options = {53: bytes((kind,))}
    if kind == 3 and is_selecting:
        options |= {50: address, 54: SERVER}
    ciaddr = bytes(4) if is_selecting else address
    return Message(BOOTREQUEST, bytes(4), bytes((2, 0, 0, 0, 9, client)), options, ciaddr=ciaddr)


@dataclass
class Host:
    """One host: its view, its responder with a journal, its agent, and what both have said that has not arrived."""

    name: str
    skew_s: float
    view: View = field(default_factory=View)
    pools: dict[str, Pool] = field(default_factory=dict)
    journal: list[tuple[str, Lease]] = field(default_factory=list)
    fence_s: float = 0.0
    given: Given = field(init=False)
    said: list[tuple[int, tuple[ObservedLeases, ...]]] = field(default_factory=list)
    is_up: bool = True

    def __post_init__(self) -> None:
        self.start_agent()

    def _fence(self, utc_s: float) -> None:
        self.fence_s = utc_s

    def start_agent(self) -> None:
        """It knows what its responder tells it: whatever any pool gave."""
        self.given = Given(self.name, self._fence)
        pools = {(name, lease.address): lease for name, lease in self.journal if name not in self.pools}
        known = [*pools.values(), *(lease for pool in self.pools.values() for lease in pool.leases)]
        for lease in sorted(known, key=lambda lease: lease.age):
            if lease.state is not State.OFFERED:
                self.given.take(lease)

    def restart_responder(self) -> None:
        self.pools = {}
        self.follow()

    def follow(self) -> Pool | None:
        """The pool that the view wants, if any."""
        for scope in self.view.playgrounds().values():
            port, binding = scope.ports.get(PORT.id), scope.bindings.get(PORT.id)
            if port is None or binding is None or binding.active != self.name:
                return None
            giving = Giving(scope.dynamics.get(PORT.id), binding.generation, self.name)
            wanted = port_scope(port, scope.networks[NETWORK.id], "lab.internal", Beside(giving=giving)).pool
            assert wanted is not None
            if wanted.name not in self.pools:
                self.pools[wanted.name] = made = Pool(wanted)
                made.leases.load(lease for name, lease in self.journal if name == wanted.name)
                made.leases.take_over(wanted.known)
            self.pools[wanted.name].set(wanted)
            return self.pools[wanted.name]
        return None


class Hosts(RuleBasedStateMachine):
    """The world, and the controller as it works on it."""

    @initialize(skews=st.tuples(*[st.sampled_from([-10.0, 0.0, 10.0])] * 3), last=st.sampled_from([200, 201, 203, 215]))
    def begin(self, skews: tuple[float, float, float], last: int) -> None:
        self.network = replace(NETWORK, dynamic=(f"10.0.0.200-10.0.0.{last}",))
        self.now = 1_000_000.0
        self.revision, self.modified = 1, 1
        self.binding = BindingRecord(port=PORT.id, playground="lab", workspace="nest", active="n0", source="n0")
        self.record = DynamicRecord(playground="lab", network_id=NETWORK.id, port=PORT.id)
        self.claims: set[str] = set()
        self.hosts = [Host(f"n{number}", skew) for number, skew in enumerate(skews)]
        self.seen: dict[str, ObservedLeases] = {}
        self.served: dict[str, int] = {}
        self.told: dict[int, tuple[int, float]] = {}
        """By address, which machine was told last that it has it, and until when: the whole truth, kept simply."""
        for _ in range(3):
            self.controller_steps()
            self.host_is_shown(0)

    which, clients = st.integers(0, 2), st.integers(0, 4)

    @rule(which=which)
    def host_is_shown(self, which: int) -> None:
        host = self.hosts[which]
        if host.is_up:
            records = [self.network, PORT, self.binding, self.record]
            host.view.begin()
            host.view.take(Enter("playground/lab", self.revision, records))  # type: ignore[arg-type]
            host.view.take(Complete(self.revision))
            host.given.vouched(self.now + host.skew_s)
            host.follow()

    @rule(which=which)
    def host_says(self, which: int) -> None:
        host = self.hosts[which]
        if host.view.complete:
            seen = host.given.observed(host.view, self.now + host.skew_s, is_whole=True)
            host.said.append((host.view.revision, tuple(seen)))

    @rule(which=which)
    def what_a_host_said_arrives(self, which: int) -> None:
        host = self.hosts[which]
        if host.is_up and host.said:
            revision, seen = host.said.pop(0)
            self.seen.pop(host.name, None)
            self.seen |= {one.host: one for one in seen}
            self.served[host.name] = revision

    @rule(which=which, is_up=st.booleans())
    def a_host_is_cut_off_or_comes_back(self, which: int, is_up: bool) -> None:
        self.hosts[which].is_up = is_up
        self.hosts[which].said.clear()  # the next connection says everything anew
        self.served.pop(self.hosts[which].name, None)

    @rule()
    def controller_steps(self) -> None:
        own = addresses(self.record.blocks)
        after = step(
            self.record,
            Around(
                port=PORT,
                ranges=spans_of(self.network.dynamic),
                lease_s=NETWORK.lease_s,
                active=self.binding.active,
                stay=self.binding.generation,
                seen=self.seen,
                is_final=lambda name: self.host(name).is_up and self.served.get(name, 0) >= self.modified,
                is_alive=lambda name: self.host(name).is_up,
                is_free=lambda one: (
                    one not in own and address_claim(NETWORK.id, address_hex(4, one)) not in self.claims
                ),
                may_have=lambda mac: True,
                now_utc_s=self.now,
            ),
        )
        if after != self.record:
            come, gone = claims_of(after) - claims_of(self.record), claims_of(self.record) - claims_of(after)
            assert not come & self.claims, "what is claimed is claimed again"
            assert 1 + len(come) + len(gone) <= 120, "a commit of every engine takes it"
            self.claims = (self.claims | come) - gone
            self.revision += 1
            self.record, self.modified = after, self.revision

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    @rule(which=which)
    def the_port_moves(self, which: int) -> None:
        name = f"n{which}"
        if name != self.binding.active:
            generation = self.binding.generation + 1
            self.binding = replace(self.binding, active=name, source=name, generation=generation)
            self.revision += 1

    crashes = st.sampled_from(["", "", "", "before it is written", "before it is sent"])

    @rule(which=which, client=clients, crash=crashes)
    def a_machine_boots(self, which: int, client: int, crash: str) -> None:
        host = self.hosts[which]
        offer = self._ask(host, message(client, 1), "")
        if offer is not None and offer.act is Act.OFFER:
            self._ask(host, message(client, 3, offer.address, is_selecting=True), crash)

    @rule(which=which, client=clients, crash=crashes)
    def a_machine_renews(self, which: int, client: int, crash: str) -> None:
        for address, (holder, until_s) in sorted(self.told.items()):
            if holder == client and until_s > self.now:
                self._ask(self.hosts[which], message(client, 3, address.to_bytes(4, "big")), crash)

    @rule(which=which, client=clients, declines=st.booleans())
    def a_machine_gives_back(self, which: int, client: int, declines: bool) -> None:
        for address, (holder, until_s) in sorted(self.told.items()):
            if holder == client and until_s > self.now:
                packed = address.to_bytes(4, "big")
                request = message(client, 7, packed)
                if declines:
                    request = message(client, 4)
                    request.options[50] = packed
                self._ask(self.hosts[which], request, "")
                del self.told[address]  # whoever hears it or not: the machine has stopped using it

    def _ask(self, host: Host, request: Message, crash: str) -> Reply | None:
        pool = host.follow()
        now_s = self.now + host.skew_s
        if pool is None or now_s >= host.fence_s:
            return None
        answered = pool.answer(DEVICE, request, request.chaddr, now_s, False)
        if answered.keep is not None:
            if crash == "before it is written":
                host.restart_responder()
                return None
            host.journal.append((pool.scope.name, answered.keep))
            if crash:
                host.restart_responder()
                host.start_agent()
                return None
            host.given.take(answered.keep)
        reply = answered.reply
        if isinstance(reply, Reply) and reply.act in (Act.ACK, Act.ACK_RAPID):
            address, client = int.from_bytes(reply.address, "big"), request.chaddr[-1]
            holder = self.told.get(address)
            assert holder is None or holder[0] == client or holder[1] <= self.now, "two have one address"
            self.told[address] = (client, self.now + NETWORK.lease_s)
        return reply if isinstance(reply, Reply) else None

    @rule(which=which)
    def a_responder_is_killed(self, which: int) -> None:
        self.hosts[which].restart_responder()
        self.hosts[which].start_agent()

    @rule(which=which)
    def an_agent_is_killed(self, which: int) -> None:
        self.hosts[which].start_agent()
        self.hosts[which].said.clear()

    @rule(seconds=st.sampled_from([1.0, 20.0, 400.0, 650.0, FENCE_S / 2, 2 * FENCE_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for host in self.hosts:
            if host.is_up and host.view.complete:
                host.given.vouched(self.now + host.skew_s)

    @rule(rounds=st.integers(1, 4), heard=st.sets(st.integers(0, 2)))
    def time_is_given(self, rounds: int, heard: set[int]) -> None:
        """All hosts are shown everything, and some are heard."""
        for _ in range(rounds):
            for number in range(3):
                self.host_is_shown(number)
            for number in heard:
                self.host_says(number)
                self.what_a_host_said_arrives(number)
            self.controller_steps()

    @invariant()
    def what_may_be_given_is_claimed(self) -> None:
        if hasattr(self, "record"):
            assert self.claims == claims_of(self.record)


Hosts.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHosts = Hosts.TestCase


def test_a_block_goes_on_only_once_its_host_has_said_what_it_gave() -> None:
    world = Hosts()
    world.begin((0.0, 0.0, 0.0), 201)
    world.a_machine_boots(0, 1, "")
    world.the_port_moves(1)
    for _ in range(3):
        world.controller_steps()
        world.host_is_shown(1)
        world.a_machine_boots(1, 2, "")
    assert [holder for holder, _ in world.told.values()] == [1]
    world.time_is_given(2, {0, 1, 2})
    world.a_machine_boots(1, 1, "")
    world.a_machine_boots(1, 2, "")
    assert sorted(world.told) == [0x0A0000C8, 0x0A0000C9]
    assert world.told[0x0A0000C8][0] == 1
