"""What is in force when: before a port is let in, and after it has gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

from overlay.state import PortId, port_device, vxlan_device
from playground.agent.enforcing import Enforcing
from playground.derive.guarding import Needs, shut, shut_device
from playground.derive.policing import Policing
from playground.derive.rules import GUARD, Rules
from policies.compile.places import PolicedNetwork
from policies.compile.playground import Compiled
from policies.compile.tables import Chain, KeptParts, Part
from policies.compile.ways import TABLE
from policies.guard.parts import judged, of_port, of_tunnel
from policies.guard.station import GuardedPort, Station
from policies.kernel.memory import MemoryEnforcement

PORT = PortId("0000000000aa")
DEVICE, TUNNEL, BRIDGE = port_device(PORT), vxlan_device("0000000000bb"), "br0000000000bb"  # type: ignore[arg-type]
OPEN = of_port(GuardedPort(DEVICE, Station("02:00:00:00:00:01", ("10.0.0.1",)), ("10.0.0.0/24",)))
HERE = {DEVICE: 5, TUNNEL: 6}
ZONE = 7


def rules(port: Part | None = OPEN, policing: Mapping[str, Policing] | None = None) -> Rules:
    guards = {TUNNEL: {TUNNEL: of_tunnel(TUNNEL, ())}}
    if port is not None:
        guards[DEVICE] = {DEVICE: port}
    return Rules(guards=guards, policing=policing or {}, needs={PORT: Needs(TUNNEL, BRIDGE, "lab")})


def a_policing(number: int = 1) -> dict[str, Policing]:
    parts = KeptParts({("lab", "playground"): Part({"p_lab": Chain((f"ct mark {number} accept",))})})
    read = SimpleNamespace(networks=(PolicedNetwork("grid", BRIDGE, ZONE),))
    return {"lab": Policing(Compiled(parts, frozenset({BRIDGE}), number, (), read), {})}


def made() -> tuple[Enforcing, MemoryEnforcement]:
    door = MemoryEnforcement()
    return Enforcing(door), door


def test_a_port_is_held_until_its_device_and_its_tunnels_have_their_rules() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    assert enforcing.holds(PORT)
    enforcing.watch({DEVICE: 5}, {})
    assert enforcing.holds(PORT)
    enforcing.watch({TUNNEL: 6}, {})
    assert enforcing.holds(PORT) == ""
    assert door.in_force[GUARD][DEVICE] == OPEN


def test_an_agent_that_begins_takes_no_rule_away_before_it_has_looked() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    again = Enforcing(door)
    again.want(rules())
    assert DEVICE in door.in_force[GUARD]
    again.watch(HERE, {})
    assert again.holds(PORT) == "" and DEVICE in door.in_force[GUARD]


def test_a_device_that_nobody_wants_is_shut_until_it_has_left() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    enforcing.want(rules(port=None))
    assert door.in_force[GUARD][DEVICE] == shut_device(DEVICE)
    enforcing.settle()
    assert DEVICE not in door.in_force[GUARD]


def test_a_port_that_closes_passes_what_is_on_its_way_until_the_data_plane_sends_it_on() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    enforcing.want(rules(shut(OPEN)))
    assert door.in_force[GUARD][DEVICE] == OPEN
    enforcing.settle()
    assert door.in_force[GUARD][DEVICE] == shut(OPEN)


def test_a_port_that_closes_and_opens_again_is_open() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    enforcing.want(rules(shut(OPEN)))
    enforcing.want(rules())
    enforcing.settle()
    assert door.in_force[GUARD][DEVICE] == OPEN


def test_a_device_that_came_again_is_held_until_its_rules_were_made_anew() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    enforcing.watch({DEVICE: None}, {})
    assert enforcing.holds(PORT) and DEVICE not in door.in_force[GUARD]
    enforcing.watch({DEVICE: 9}, {})
    assert enforcing.holds(PORT) == ""


def test_a_port_whose_rules_are_refused_waits_and_says_why() -> None:
    enforcing, door = made()
    door.refuses[GUARD, DEVICE] = "no"
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    assert "no" in enforcing.holds(PORT)
    door.refuses.clear()
    enforcing.want(rules(), is_due=True)
    assert enforcing.holds(PORT) == ""


def test_what_was_in_force_of_a_refused_part_stays() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    other = of_port(GuardedPort(DEVICE, Station("02:00:00:00:00:01", ("10.0.0.2",)), ("10.0.0.0/24",)))
    door.refuses[GUARD, DEVICE] = "no"
    enforcing.want(rules(other))
    assert enforcing.holds(PORT) == "" and enforcing.cause
    assert door.in_force[GUARD][DEVICE] == OPEN


def test_where_nothing_is_sure_to_be_in_force_every_port_is_held() -> None:
    enforcing, door = made()
    enforcing.want(rules())
    enforcing.watch(HERE, {})
    door.cause = "nft is gone"
    enforcing.want(rules(), is_due=True)
    assert enforcing.holds(PORT) == "nft is gone"
    door.cause = ""
    enforcing.want(rules(), is_due=True)
    enforcing.watch(HERE, {})
    assert enforcing.holds(PORT) == ""


def test_a_policed_port_is_held_while_its_bridge_does_not_send_its_packets_through() -> None:
    enforcing, door = made()
    door.bridges = frozenset()
    enforcing.want(rules(policing=a_policing()))
    enforcing.watch(HERE, {})
    assert enforcing.holds(PORT) == "its playground's policies are not in force"
    door.bridges = None
    assert enforcing.want(rules(policing=a_policing(2))) == {PORT}
    assert enforcing.holds(PORT) == ""
    assert TABLE in door.in_force


def test_a_policed_port_is_held_while_its_bridge_is_gone_and_the_one_that_takes_its_place_is_told_first() -> None:
    enforcing, door = made()
    enforcing.want(rules(policing=a_policing()))
    enforcing.watch(HERE, {BRIDGE: 7})
    assert enforcing.holds(PORT) == ""
    enforcing.watch(HERE, {BRIDGE: None})
    assert enforcing.holds(PORT)
    door.bridges = frozenset()
    enforcing.watch(HERE, {BRIDGE: 8})
    assert enforcing.holds(PORT)
    door.bridges = None
    enforcing.watch(HERE, {BRIDGE: 8})
    assert enforcing.holds(PORT) == ""


def test_on_a_host_that_cannot_police_policed_ports_wait_and_others_do_not() -> None:
    enforcing, door = made()
    door.lacks = "no br_netfilter"
    enforcing.want(rules(policing=a_policing()), is_doubted=True)
    enforcing.watch(HERE, {})
    assert enforcing.holds(PORT) == enforcing.cannot_police == "no br_netfilter"
    assert enforcing.want(rules()) == {PORT}
    assert enforcing.holds(PORT) == ""


def test_what_no_policy_has_judged_is_stopped_once_packets_meet_the_rules_and_not_before() -> None:
    enforcing, door = made()
    owned = replace(rules(policing=a_policing()), owners={DEVICE: ("lab", BRIDGE), TUNNEL: ("lab", BRIDGE)})
    door.bridges = frozenset()
    enforcing.want(owned)
    enforcing.watch(HERE, {})
    assert door.in_force[GUARD][DEVICE] == OPEN
    door.bridges = None
    enforcing.want(owned, is_due=True)
    assert door.in_force[GUARD][DEVICE] == judged(OPEN, zone=ZONE)
    enforcing.want(replace(owned, policing={}))
    assert door.in_force[GUARD][DEVICE] == OPEN and TABLE not in door.in_force
