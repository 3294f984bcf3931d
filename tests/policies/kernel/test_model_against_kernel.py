"""What the evaluator says is what packets meet: random playgrounds, tried live, pair by pair and port by port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from filter_lab import Bridged, framed
from first_packets import packet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import Address, End, Special, consents, is_owned
from scenes import ADDRESSES, POINTS, scenes

from policies.compile.places import PolicedEnd, PolicedGateway, PolicedNetwork
from policies.compile.playground import Compiled, PlaygroundCompiler, policy_table
from policies.compile.ways import TABLE
from policies.kernel.enforcement import Enforcement
from policies.model import Direction, Endpoint, Scene
from policies.ports import Protocol
from policies.resolve import Resolver

IDS = {"p": "00000000000a", "q": "00000000000b"}
GUESTS = 8
BRIDGES = {("p", "n0"): "br0", ("p", "n1"): "br1", ("q", "n0"): "br2", ("q", "n1"): "br3"}
ZONES = {bridge: number for number, bridge in enumerate(BRIDGES.values(), 100)}
Local = frozenset[tuple[str, str, str]]
"""(playground, workspace, network) of those who are judged here."""

STRANGER = Special("stranger")

TRIED = [(protocol, number) for protocol, number in POINTS if (protocol, number) != (Protocol.ICMP, 0)]


@dataclass(frozen=True)
class Guest:
    """A port of the lab: who it is for the model, and its addresses by IP version. SERVICES and gateways are guests,
    too; a gateway stands for the world as well."""

    number: int
    end: Endpoint | Special
    addresses: dict[int, str]


class Lab:
    """One bridged namespace, in which scene after scene is put in force."""

    def __init__(self) -> None:
        self.kernel = Bridged(
            {bridge * GUESTS + n: name for bridge, name in enumerate(BRIDGES.values()) for n in range(GUESTS)}
        )
        self.enforcement = Enforcement(self.kernel.inner.path)
        self.resolver = Resolver()
        self.compilers = {name: PlaygroundCompiler(name, id) for name, id in IDS.items()}
        self.compiled: list[Compiled] = []

    def close(self) -> None:
        self.enforcement.close()
        self.kernel.close()

    def put(self, scene: Scene, local: Local) -> dict[str, list[Guest]]:
        """Puts a scene in force; the guests on each bridge. local: endpoints that are judged here."""
        guests = guests_of(scene)
        ir = self.resolver.resolve(scene)
        self.compiled = []
        policed: frozenset[str] = frozenset()
        for playground, compiler in self.compilers.items():
            mine = [(key[1], bridge) for key, bridge in BRIDGES.items() if key[0] == playground]
            networks = tuple(
                PolicedNetwork(name, bridge, ZONES[bridge], services_of(guests[bridge])) for name, bridge in mine
            )
            ends = tuple(
                PolicedEnd(
                    one.end.workspace,
                    name,
                    tuple(one.addresses.values()),
                    (playground, one.end.workspace, name) in local,
                )
                for name, bridge in mine
                for one in guests[bridge]
                if isinstance(one.end, Endpoint)
            )
            gateways = tuple(
                PolicedGateway(one.end.kind.split()[1], name, tuple(one.addresses.values()))
                for name, bridge in mine
                for one in guests[bridge]
                if isinstance(one.end, Special) and one.end.kind.startswith("gateway ")
            )
            if found := compiler.compile(ir, networks, ends, gateways):
                self.compiled.append(found)
                policed |= found.bridges
        table = policy_table(self.compiled)
        outcome = self.enforcement.converge({TABLE: table} if table else {}, policed)
        assert (outcome.cause, outcome.refused, outcome.unpoliced) == ("", {}, frozenset())
        return guests


def services_of(guests: list[Guest]) -> tuple[str, ...]:
    return tuple(text for one in guests if one.end == Special("services") for text in one.addresses.values())


def guests_of(scene: Scene) -> dict[str, list[Guest]]:
    """By bridge: an endpoint each, then the service leg, and a gateway of the network, or a stranger for the world."""
    found: dict[str, list[Guest]] = {}
    for place, ((playground, network), bridge) in enumerate(BRIDGES.items()):
        ends: list[Endpoint | Special] = [
            one for one in scene.endpoints if (one.playground, one.network) == (playground, network)
        ]
        names = sorted(one.name for one in scene.gateways if one.playground == playground and network in one.networks)
        ends += [Special("services"), Special(f"gateway {names[0]}", playground) if names else STRANGER]
        found[bridge] = [
            Guest(place * GUESTS + n, end, {4: f"172.16.{place}.{n + 1}", 6: f"fd99:{place}::{n + 1}"})
            for n, end in enumerate(ends)
        ]
    return found


def is_let_through(
    scene: Scene,
    local: Local,
    source: object,
    destination: object,
    point: tuple[Protocol, int],
) -> bool:
    """What the definitions say of a flow here: each local end's consent."""

    def is_local(end: End) -> bool:
        return isinstance(end, Endpoint) and (end.playground, end.workspace, end.network) in local

    return (not is_local(source) or consents(scene, Direction.EGRESS, source, destination, point)) and (
        not is_local(destination) or consents(scene, Direction.INGRESS, destination, source, point)
    )


def world_of(scene: Scene, playground: str) -> list[Address]:
    return [one for one in map(ip_address, ADDRESSES) if not is_owned(scene, playground, one) and is_possible(one)]


def is_possible(address: Address) -> bool:
    """Whether a packet may bear it: no broadcast, not the unspecified one."""
    return not (address.is_unspecified or address.is_multicast or str(address) in ("255.255.255.255",))


def differences(lab: Lab, scene: Scene, local: Local) -> list[str]:
    """Flows that the kernel lets through and the model does not, and the other way."""
    guests = lab.put(scene, local)
    lab.kernel.inner.run("conntrack -F")
    sent: list[tuple[int, bytes]] = []
    expected: dict[tuple[int, bytes], tuple[bool, str]] = {}
    for bridge, here in guests.items():
        playground = next(key[0] for key, name in BRIDGES.items() if name == bridge)
        pairs = [
            (one, other, version, one.addresses[version], other.addresses[version], one.end, other.end)
            for one in here
            for other in here
            if one is not other and STRANGER not in (one.end, other.end)
            for version in (4, 6)
        ]
        for address in world_of(scene, playground):
            gateway, version = here[-1], address.version
            for one in here[:-2]:
                pairs.append((one, gateway, version, one.addresses[version], str(address), one.end, address))
                pairs.append((gateway, one, version, str(address), one.addresses[version], address, one.end))
        for one, other, version, source, destination, left, right in pairs:
            for point in TRIED:
                if point[0] is Protocol.OTHER and one.number > other.number:
                    continue  # without ports, the way back would be the same flow
                content = packet(version, source, destination, point, len(sent) % 60000)
                sent.append((one.number, framed(one.number, other.number, version, content)))
                allowed = is_let_through(scene, local, left, right, point)
                expected[other.number, sent[-1][1]] = (
                    allowed,
                    f"{source} → {destination} {point} from {left} to {right}",
                )
    heard = lab.kernel.exchange(sent)
    arrived = {(number, frame) for number, frames in heard.items() for frame in frames}
    return [text for key, (allowed, text) in expected.items() if (key in arrived) != allowed]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Scene, Local]:
    scene = draw(scenes())
    unique = {(one.playground, one.workspace, one.network): one for one in scene.endpoints}
    scene = Scene(tuple(unique.values()), scene.policies, scene.gateways, subnets=scene.subnets)
    return scene, frozenset(key for key in unique if draw(st.integers(0, 3)))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


Case = tuple[Scene, Local]


@pytest.mark.system
@given(st.lists(cases(), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_the_model_says_is_what_packets_meet_also_after_changes(lab: Lab, history: list[Case]) -> None:
    for scene, local in history:
        assert differences(lab, scene, local) == []


@pytest.mark.long
@pytest.mark.system
@given(st.lists(cases(), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_the_model_says_is_what_packets_meet_in_many_histories(lab: Lab, history: list[Case]) -> None:
    for scene, local in history:
        assert differences(lab, scene, local) == []
