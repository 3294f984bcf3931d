"""A change costs what it touches, and ends where a look at everything would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from overlay_lab import NET, OTHER_NET, Lab, a_port, a_remote, mac, port_id
from overlay_states import ADOPTED, NUMBERS, host_states

from overlay import ops as do
from overlay.diff import diff
from overlay.kernel.converge import PortState
from overlay.kernel.memory import MemoryDataPlane
from overlay.kernel.netlink import Message, Netlink
from overlay.parts import Part, between, part_of
from overlay.state import Gate, HostState, LocalPort, Network, port_device
from tests.waiting import eventually

_RUN = Phase.generate


def a_state(*ports: LocalPort, **changes: object) -> HostState:
    network = Network(NET, vni=7, mtu=1450, ports={port.id: port for port in ports})
    return HostState("192.0.2.1", {NET: replace(network, **changes)})  # type: ignore[arg-type]


def plug_all(kernel: MemoryDataPlane) -> None:
    for number in (number for numbers in NUMBERS.values() for number in numbers):
        name = port_device(port_id(number))
        if name not in kernel.links and name not in kernel.host:
            kernel.plug(name, in_host=number == ADOPTED)


@settings(max_examples=60, deadline=None)
@given(host_states(), host_states())
def test_a_change_leaves_what_a_look_at_everything_leaves(earlier: HostState, desired: HostState) -> None:
    fast, full = MemoryDataPlane(), MemoryDataPlane()
    for kernel in (fast, full):
        plug_all(kernel)
        kernel.converge(earlier)
        plug_all(kernel)
    changes = between(earlier, desired)
    ended, whole = fast.converge_changes(desired, changes), full.converge(desired)
    assert ended.is_clean
    assert ended.repaired.keys() <= whole.repaired.keys()
    assert ended.ports.items() <= whole.ports.items()
    fast.converge(desired)  # namespaces that nothing wants any more, loose devices
    assert fast.observe() == full.observe()
    assert fast.converge_changes(desired, between(desired, desired)).applied == 0


def test_a_mac_that_goes_to_another_port_stays_there_whichever_is_heard_of_first() -> None:
    """The port that it comes to is known a pass before the one that it leaves."""
    remotes = {number: a_remote(number, "192.0.2.2") for number in (1, 2)}
    both = {number: replace(one, also=(mac(9),)) for number, one in remotes.items()}
    kernel = MemoryDataPlane()
    passes = [
        {1: both[1], 2: remotes[2]},
        {1: both[1], 2: both[2]},
        {1: remotes[1], 2: both[2]},
    ]
    state = a_state()
    kernel.converge(state)
    for found in passes:
        earlier, state = state, a_state(remotes={one.mac: one for one in found.values()})
        kernel.converge_changes(state, between(earlier, state))
    assert kernel.observe().tables[NET].tunnel.keys() == {mac(1), mac(2), mac(9)}


@settings(max_examples=60, deadline=None)
@given(host_states(), host_states())
def test_what_did_not_change_is_not_touched(earlier: HostState, desired: HostState) -> None:
    kernel = MemoryDataPlane()
    plug_all(kernel)
    kernel.converge(earlier)
    plug_all(kernel)
    changes = between(earlier, desired)
    before = kernel.observe()
    kernel.converge_changes(desired, changes)
    after = kernel.observe()
    for network in earlier.networks.keys() - changes.keys():
        assert after.tables[network] == before.tables[network]
    for network, part in changes.items():
        if part is not None:
            named = {port_device(port) for port in part.ports}
            members = {name for name, link in before.links.items() if link.master == f"br{network}"}
            assert {name: after.links.get(name) for name in members - named} == {
                name: before.links[name] for name in members - named
            }


def test_a_port_is_named_by_its_id_alone() -> None:
    kernel = MemoryDataPlane()
    kernel.converge(a_state())
    kernel.plug(port_device(port_id(1)))
    outcome = kernel.converge_changes(a_state(a_port(1)), {NET: Part(ports=frozenset({port_id(1)}))})
    assert {port: status.state for port, status in outcome.ports.items()} == {port_id(1): PortState.FORWARDING}
    assert kernel.converge(a_state(a_port(1))).applied == 0


def test_a_remote_is_named_by_its_mac_alone_and_spares_the_port_that_shares_it() -> None:
    kernel = MemoryDataPlane()
    kernel.plug(port_device(port_id(1)))
    kernel.converge(a_state(a_port(1)))
    moving = a_state(a_port(1), remotes={mac(n): a_remote(n, "192.0.2.2") for n in (1, 20)})
    outcome = kernel.converge_changes(moving, {NET: Part(macs=frozenset({mac(1), mac(20)}))})
    assert outcome.ports[port_id(1)].state is PortState.FORWARDING
    assert kernel.converge(moving).applied == 0


def test_a_record_that_went_is_named_by_all_its_keys() -> None:
    kernel = MemoryDataPlane()
    kernel.plug(port_device(port_id(1)))
    gone = a_port(1), a_remote(20, "192.0.2.2")
    kernel.converge(a_state(gone[0], remotes={gone[1].mac: gone[1]}))
    outcome = kernel.converge_changes(a_state(), {NET: part_of(*gone)})
    assert outcome.is_clean and outcome.ports == {}
    assert kernel.converge(a_state()).applied == 0


def test_a_part_of_a_network_without_its_bridge_is_the_whole_network() -> None:
    kernel = MemoryDataPlane()
    state = a_state(a_port(1), remotes={mac(20): a_remote(20, "192.0.2.2")})
    kernel.plug(port_device(port_id(1)))
    kernel.converge(state)
    kernel.unplug(f"br{NET}")
    outcome = kernel.converge_changes(state, {NET: Part(macs=frozenset({mac(20)}))})
    assert outcome.ports[port_id(1)].state is PortState.FORWARDING
    assert outcome.repaired["bridge"] == 1
    assert kernel.converge(state).applied == 0


def test_drift_inside_a_part_is_counted_and_its_change_is_not() -> None:
    kernel = MemoryDataPlane()
    state = a_state(remotes={mac(20): a_remote(20, "192.0.2.2")}, vteps=frozenset({"192.0.2.2"}))
    kernel.converge(a_state())
    assert kernel.converge_changes(state, between(a_state(), state)).repaired == {}
    assert kernel.converge(state).repaired == {}
    kernel._of(f"vx{NET}").tunnel.clear()
    kernel._of(f"vx{NET}").floods.clear()
    assert kernel.converge_changes(state, {NET: part_of(a_remote(20, "192.0.2.2"))}).repaired == {"fdb": 1}
    assert kernel.converge(state).repaired == {"flood": 1}


@pytest.fixture
def lab(tmp_path: Path, permitted: None) -> Iterator[Lab]:
    made = Lab(tmp_path / "netns")
    yield made
    made.close()


@pytest.mark.system
def test_in_the_kernel_a_change_leaves_nothing_to_do_but_what_no_network_has(lab: Lab) -> None:
    plane = lab.host(1)

    def plug(number: int) -> None:
        device = port_device(port_id(number))
        found = [lab.run(where, f"ip link show {device}", check=False).returncode for where in ("dp1", "h1")]
        if 0 not in found:
            where = "h1" if number == ADOPTED else "dp1"
            lab.run(where, f"ip link add {device} up type veth peer name x{number}")

    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[_RUN])
    @given(host_states(), host_states(), host_states())
    def walk(first: HostState, second: HostState, third: HostState) -> None:
        earlier = HostState("192.0.2.1")
        plane.converge(earlier)
        for state in (first, second, third):
            for number in (1, ADOPTED):
                plug(number)
            outcome = plane.converge_changes(state, between(earlier, state))
            assert outcome.is_clean, outcome.errors
            wanted = {port for network in state.networks.values() for port in network.ports}
            loose = {port_device(id) for number in (1, ADOPTED) if (id := port_id(number)) not in wanted}
            left = diff(state, plane.observe())
            assert [op for op in left if not isinstance(op, do.RemoveNamespace) and op.name not in loose] == []
            earlier = state

    walk()


class Count:
    """What goes to the kernel: requests and changes by message, dumps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages = self.dumps = 0
        ask, send, dump = Netlink.ask, Netlink.send, Netlink.dump

        def counted_ask(link: Netlink, requests: list[tuple[int, bytes]]) -> list[bytes | None]:
            self.messages += len(requests)
            return ask(link, requests)

        def counted_send(link: Netlink, messages: list[Message]) -> object:
            self.messages += len(messages)
            return send(link, messages)

        def counted_dump(link: Netlink, kind: int, body: bytes) -> list[bytes]:
            self.dumps += 1
            return dump(link, kind, body)

        monkeypatch.setattr(Netlink, "ask", counted_ask)
        monkeypatch.setattr(Netlink, "send", counted_send)
        monkeypatch.setattr(Netlink, "dump", counted_dump)

    def taken(self) -> tuple[int, int]:
        found, self.messages, self.dumps = (self.messages, self.dumps), 0, 0
        return found


def many(count: int, *ports: LocalPort, **changes: object) -> HostState:
    remotes = {
        f"52:54:00:01:{n >> 8:02x}:{n & 255:02x}": replace(
            a_remote(2, "192.0.2.2"),
            mac=f"52:54:00:01:{n >> 8:02x}:{n & 255:02x}",
            addresses=(f"10.1.{n >> 8}.{n & 255}",),
        )
        for n in range(count)
    }
    return a_state(*ports, **{"remotes": remotes, "vteps": frozenset({"192.0.2.2"}), **changes})


@pytest.mark.system
def test_the_messages_of_a_change_are_as_many_in_a_large_network_as_in_a_small(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = lab.host(1)
    lab.guest(1, 10)
    counted: dict[int, list[tuple[int, int]]] = {}
    for count in (10, 300):
        base = many(count)
        plane.converge(base)
        network = base.networks[NET]
        remote = a_remote(20, "192.0.2.2")
        grown = replace(network, remotes={**network.remotes, remote.mac: remote})
        ported = replace(grown, ports={port_id(10): a_port(10, gate=Gate.CLOSED)})
        opened = replace(grown, ports={port_id(10): a_port(10)})
        with monkeypatch.context() as patch:
            count_of = Count(patch)
            counted[count] = []
            for old, new in ((network, grown), (grown, ported), (ported, opened), (opened, grown)):
                if new is grown and old is opened:
                    new = replace(opened, remotes=network.remotes)
                states = [HostState("192.0.2.1", {NET: one}) for one in (old, new)]
                assert plane.converge_changes(states[1], between(states[0], states[1])).is_clean
                counted[count].append(count_of.taken())
        assert plane.converge(HostState("192.0.2.1", {NET: new})).applied == 0
    assert counted[10] == counted[300]
    assert all(dumps == 0 and messages < 50 for messages, dumps in counted[10])


@pytest.mark.system
def test_what_a_change_does_itself_is_no_event_and_what_others_did_stays_one(lab: Lab) -> None:
    plane = lab.host(1)
    plane.converge(many(5))
    assert eventually(lambda: not plane.wait_event(0.05)), "devices that come up tell so a little later"
    plane.heard()
    remote = a_remote(20, "192.0.2.3")
    grown = many(5, vteps=frozenset({"192.0.2.2", "192.0.2.3"}))
    network = grown.networks[NET]
    grown = HostState("192.0.2.1", {NET: replace(network, remotes={**network.remotes, remote.mac: remote})})
    plane.converge_changes(grown, between(many(5), grown))
    assert not plane.wait_event(0.05)
    lab.run("dp1", f"ip neigh del 10.1.0.1 dev br{NET}")
    plane.converge_changes(many(5), between(grown, many(5)))
    assert plane.wait_event(0.05)
    heard = plane.heard()
    assert (heard.everything, heard.networks, heard.ports) == (False, {NET}, set())
    assert plane.converge_changes(many(5), dict.fromkeys(heard.networks)).repaired == {"neighbour": 1}


@pytest.mark.system
def test_events_name_the_ports_and_networks_to_look_at(lab: Lab) -> None:
    plane = lab.host(1)
    both = HostState("192.0.2.1", {**a_state(a_port(10)).networks, OTHER_NET: Network(OTHER_NET, vni=8, mtu=1450)})
    plane.converge(both)
    assert eventually(lambda: not plane.wait_event(0.05))
    plane.heard()
    lab.guest(1, 10)
    assert plane.wait_event(2)
    assert eventually(lambda: not plane.wait_event(0.05))
    heard = plane.heard()
    assert heard.ports == {port_id(10)} and not heard.networks and not heard.everything
    outcome = plane.converge_changes(both, {NET: Part(ports=heard.ports)})
    assert outcome.ports[port_id(10)].state is PortState.FORWARDING and outcome.repaired == {}
    assert eventually(lambda: not plane.wait_event(0.05))
    plane.heard()
    lab.run("dp1", f"bridge fdb add {mac(99)} dev {port_device(port_id(10))} master static")
    lab.run("dp1", f"ip link set vx{OTHER_NET} down")
    assert plane.wait_event(2)
    assert plane.heard().networks == {NET, OTHER_NET}
    lab.run("dp1", "ip link add stranger type bridge")
    assert plane.wait_event(2)
    assert plane.heard().everything


@pytest.mark.system
def test_ports_that_come_and_go_leave_the_neighbour_entries_of_others(lab: Lab) -> None:
    plane = lab.host(1)
    base = many(5)
    plane.converge(base)
    lab.guest(1, 10)
    lowest = f"ip link set {port_device(port_id(10))} address 00:00:00:00:00:01"
    lab.run("dp1", lowest)  # a bridge without a MAC of its own takes its ports' lowest
    ported = HostState("192.0.2.1", {NET: replace(base.networks[NET], ports={port_id(10): a_port(10)})})
    for old, new in ((base, ported), (ported, base)):
        before = plane.observe().tables[NET].neighbours
        plane.converge_changes(new, between(old, new))
        assert plane.observe().tables[NET].neighbours.items() >= before.items() - {
            (address, entry) for address, entry in before.items() if entry.mac == mac(10)
        }
        assert plane.converge(new).applied == 0
