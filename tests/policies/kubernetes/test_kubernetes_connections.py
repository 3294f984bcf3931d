"""What `connections` lists for Kubernetes documents is what the words of Kubernetes let pass."""

from __future__ import annotations

from ipaddress import ip_address

import kubernetes_clusters as clusters
import kubernetes_naive as naive
import pytest
from hypothesis import HealthCheck, given, settings

from policies.connections import connections
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.resources import read_cluster
from policies.ports import NOTHING, Ports, Protocol


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_connections_are_those_of_the_documentation(objects: list[clusters.Object]) -> None:
    assert_listed_alike(objects)


@pytest.mark.long
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_connections_of_many_clusters_are_those_of_the_documentation(objects: list[clusters.Object]) -> None:
    assert_listed_alike(objects)


def assert_listed_alike(objects: list[clusters.Object]) -> None:
    scene, _ = lower(read_cluster([("cluster.json", clusters.text(objects))]))
    listed: dict[tuple[str, str], Ports] = {}
    for one in connections(scene):
        assert (one.source, one.destination) not in listed
        listed[one.source, one.destination] = one.ports
    pods = clusters.ends(objects)
    ends = [*pods, *clusters.ADDRESSES]
    for source in ends:
        for target in ends:
            if source == target or (source not in pods and target not in pods):
                continue
            ports = Ports.union(
                found for pair, found in listed.items() if _holds(pair[0], source) and _holds(pair[1], target)
            )
            for protocol, port in clusters.PROBES:
                theirs = naive.connects(objects, pods.get(source, source), pods.get(target, target), protocol, port)
                ours = ports.holds(Protocol(protocol), port)
                assert ours == theirs, f"{source} → {target} {protocol}/{port}: ours {ours}, Kubernetes {theirs}"
    assert all(found != NOTHING for found in listed.values())


def _holds(listed: str, end: str) -> bool:
    """Whether a listed end, which may be a part of the world, is or holds this one."""
    if "/" in end or listed == end:
        return listed == end
    if listed == "@world":
        return True
    first, _, last = listed.partition("-")
    if not last or "/" in listed:
        return False
    span, address = (ip_address(first), ip_address(last)), ip_address(end)
    return span[0].version == address.version and span[0] <= address <= span[1]  # type: ignore[operator]
