"""What is read from Kubernetes documents lets pass exactly what the words of Kubernetes let pass."""

from __future__ import annotations

import kubernetes_clusters as clusters
import kubernetes_naive as naive
import kubernetes_verdicts as verdicts
import pytest
from hypothesis import HealthCheck, given, settings

from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.resources import read_cluster
from policies.ports import Protocol


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_every_connection_is_judged_as_the_documentation_judges_it(objects: list[clusters.Object]) -> None:
    assert_judged_alike(objects)


@pytest.mark.long
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_every_connection_of_many_clusters_is_judged_so(objects: list[clusters.Object]) -> None:
    assert_judged_alike(objects)


def assert_judged_alike(objects: list[clusters.Object]) -> None:
    scene, _ = lower(read_cluster([("cluster.json", clusters.text(objects))]))
    pods = clusters.ends(objects)
    endpoints = {one.workspace: one for one in scene.endpoints}
    assert endpoints.keys() == pods.keys()
    ends = [*pods, *clusters.ADDRESSES]
    for source in ends:
        for target in ends:
            if source == target or (source not in pods and target not in pods):
                continue
            for protocol, port in clusters.PROBES:
                ours = verdicts.connects(
                    scene, endpoints.get(source, source), endpoints.get(target, target), Protocol(protocol), port
                )
                theirs = naive.connects(objects, pods.get(source, source), pods.get(target, target), protocol, port)
                assert ours == theirs, f"{source} → {target} {protocol}/{port}: ours {ours}, Kubernetes {theirs}"
