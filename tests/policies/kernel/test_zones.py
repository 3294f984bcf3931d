"""Two playgrounds with equal addresses at one time: what connection tracking knows of one is nothing to the other."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest
from filter_lab import Bridged, framed
from first_packets import fragment, packet

from policies.compile.marks import unjudged
from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import compile_playground, policy_table
from policies.compile.tables import Chain, Part, Parts, Table
from policies.compile.ways import MOST_NEW_PER_SECOND, TABLE
from policies.guard.parts import TABLE as GUARD
from policies.kernel.enforcement import Enforcement
from policies.model import Endpoint, EndpointPeer, Origin, Policy, Rule, Scene
from policies.ports import EVERYTHING, Protocol
from policies.resolve import resolve
from policies.selector import parse_selector

pytestmark = pytest.mark.system

OPEN, CLOSED = {1: "br0", 2: "br0"}, {3: "br1", 4: "br1"}
UNPOLICED = {5: "br2", 6: "br2", 7: "br3", 8: "br3"}
SOURCE, DESTINATION = ("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")


@pytest.fixture(scope="module", params=["marked by the guard", "unmarked"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    """In playground `open`, b takes what a sends; in `closed`, with the same addresses, it takes nothing."""
    made = Bridged(OPEN | CLOSED | UNPOLICED)
    enforcement = Enforcement(made.inner.path)
    compiled = []
    for number, (name, bridge) in enumerate((("open", "br0"), ("closed", "br1")), 1):
        here = Origin("f", 1)
        everyone = EndpointPeer(parse_selector("*"), frozenset({name}))
        rules = (Rule((everyone,), EVERYTHING, here),) if name == "open" else ()
        endpoints = tuple(Endpoint(name, one, "n", {"workspace": one}, ends) for one, ends in ENDS)
        scene = Scene(endpoints, (Policy("p", (everyone,), rules, None, here, playground=name),))
        ends = tuple(PolicedEnd(one, "n", ends, True) for one, ends in ENDS)
        network = PolicedNetwork("n", bridge, number)
        compiled.append(compile_playground(resolve(scene), name, f"{number:012x}", (network,), ends))
    ruleset: dict[Table, Parts] = {TABLE: policy_table(one for one in compiled if one)}
    if request.param != "unmarked":
        hook = 'type filter hook ingress device "p{}" priority -300; policy accept;'
        ports = [(port, zone) for zone, ports in enumerate((OPEN, CLOSED), 1) for port in ports]
        ruleset[GUARD] = {
            port: Part({f"from_p{port}": Chain((f"meta mark set {unjudged(zone)}",), hook.format(port))})
            for port, zone in ports
        }
    outcome = enforcement.converge(ruleset, frozenset({"br0", "br1"}))
    assert not outcome.cause and not outcome.refused and not outcome.unpoliced
    yield made
    enforcement.close()
    made.close()


ENDS = (("a", SOURCE), ("b", DESTINATION))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.OTHER])
def test_a_flow_of_one_opens_nothing_to_its_twin_in_the_other(
    kernel: Bridged, protocol: Protocol, version: int
) -> None:
    content = packet(version, SOURCE[version == 6], DESTINATION[version == 6], (protocol, 8), 77)
    for _ in range(2):
        heard = kernel.exchange([(1, framed(1, 2, version, content)), (3, framed(3, 4, version, content))])
        assert framed(1, 2, version, content) in heard[2]
        assert not heard[4]


def test_fragments_of_one_are_never_joined_with_those_of_the_other(kernel: Bridged) -> None:
    whole = packet(4, SOURCE[0], DESTINATION[0], (Protocol.UDP, 9), 4242)
    body = struct.pack("!HHHH", 5000, 9, 40, 0) + bytes(32)  # without a checksum (RFC 768)
    head, tail = fragment(whole, body[:24], 0, True), fragment(whole, body[24:], 24, False)
    heard = kernel.exchange([(3, framed(3, 4, 4, head)), (1, framed(1, 2, 4, tail))])
    assert not heard[2] and not heard[4]
    heard = kernel.exchange([(1, framed(1, 2, 4, head))])  # now it is whole, in its own playground
    assert heard[2] and not heard[4]


def test_nor_are_those_of_bridges_that_nobody_polices_whoever_turns_their_switches(kernel: Bridged) -> None:
    whole = packet(4, SOURCE[0], DESTINATION[0], (Protocol.UDP, 9), 4243)
    body = struct.pack("!HHHH", 5000, 9, 40, 0) + bytes(32)
    head, tail = fragment(whole, body[:24], 0, True), fragment(whole, body[24:], 24, False)
    for bridge in ("br2", "br3"):
        kernel.inner.run(f"ip link set {bridge} type bridge nf_call_iptables 1")
    heard = kernel.exchange([(5, framed(5, 6, 4, tail)), (7, framed(7, 8, 4, head))])
    assert heard[6] == [framed(5, 6, 4, tail)] and heard[8] == [framed(7, 8, 4, head)]


def test_a_source_begins_so_many_flows_and_no_more_and_others_begin_theirs(kernel: Bridged) -> None:
    flood = [packet(4, SOURCE[0], DESTINATION[0], (Protocol.UDP, 10), serial) for serial in range(6000)]
    other = framed(2, 1, 4, packet(4, DESTINATION[0], SOURCE[0], (Protocol.UDP, 10), 1))
    began = time.monotonic()
    heard = kernel.exchange([*((1, framed(1, 2, 4, content)) for content in flood), (2, other)])
    allowed = MOST_NEW_PER_SECOND * (2 + time.monotonic() - began)
    assert MOST_NEW_PER_SECOND < len(heard[2]) <= allowed
    if allowed < len(flood):  # else the machine was so busy that all of them were in bounds
        assert len(heard[2]) < len(flood)
    assert other in heard[1]
