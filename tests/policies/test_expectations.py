"""Tests of files, judged by kinds of workspaces, fail for exactly the pairs that fail one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import BLOCKS, PORTS, SELECTORS, scenes

from policies.expect import failures, pairs
from policies.explain import explain
from policies.model import EndpointPeer, Expectation, HostPeer, Origin, Peer, Scene, WorldPeer
from policies.ports import Ports
from policies.selector import parse_selector

ENDS: st.SearchStrategy[Peer] = st.one_of(
    st.builds(EndpointPeer, st.sampled_from(SELECTORS).map(parse_selector), st.none()),
    st.builds(EndpointPeer, st.sampled_from(SELECTORS).map(parse_selector), st.just(frozenset({"p"}))),
    st.just(WorldPeer()),
    st.sampled_from(BLOCKS),
    st.just(HostPeer()),
)


@settings(max_examples=60, deadline=None)
@given(scenes(), ENDS, ENDS, st.sampled_from(PORTS), st.booleans())
def test_failures_are_those_of_every_pair(
    scene: Scene, source: Peer, destination: Peer, ports: Ports, is_allowed: bool
) -> None:
    line = Expectation((source,), (destination,), ports, is_allowed, Origin("lab.yaml", 1))
    failing = 0
    for one, other in pairs(scene, line):
        found = explain(scene, one, other, ports)
        failing += not (found.is_allowed if is_allowed else not found.allowed & ports)
    assert sum(1 + one.more for one in failures(scene, [line])) == failing
