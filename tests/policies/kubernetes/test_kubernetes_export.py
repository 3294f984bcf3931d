"""Exported documents say the connections of the scene, or are refused by name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import kubernetes_clusters as clusters
import kubernetes_verdicts as verdicts
import pytest
from hypothesis import HealthCheck, given, settings

from policies.importers.kubernetes.export import kubernetes_text
from policies.importers.kubernetes.findings import KubernetesError
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.resources import read_cluster
from policies.model import (
    ALL_PORTS,
    Action,
    BlockPeer,
    Endpoint,
    EndpointPeer,
    GatewayPeer,
    HostPeer,
    Mode,
    OnDeny,
    Origin,
    Peer,
    Policy,
    Rule,
    SamePeer,
    Scene,
    ServicesPeer,
    Tier,
    WorldPeer,
)
from policies.ports import Ports, Protocol
from policies.selector import parse_selector

HERE = Origin("atlas.yaml", 7)


def pods(text: str) -> EndpointPeer:
    return EndpointPeer(parse_selector(text), frozenset({"atlas"}))


def a_rule(*peers: Peer, ports: Ports = ALL_PORTS, action: Action = Action.ALLOW) -> Rule:
    return Rule(peers, ports, HERE, action)


def a_policy(*egress: Rule, name: str = "one") -> Policy:
    return Policy(name, (pods("role=worker"),), None, egress, HERE, playground="atlas")


def scene(*policies: Policy) -> Scene:
    worker = Endpoint("atlas", "worker-0", "grid", {"role": "worker", "workspace": "worker-0"})
    return Scene((worker,), policies)


GOLDEN = """\
apiVersion: v1
kind: Namespace
metadata:
  name: atlas
  labels: {}
---
apiVersion: v1
kind: Pod
metadata:
  name: worker-0
  namespace: atlas
  labels:
    role: worker
    workspace: worker-0
spec:
  containers:
    - name: main
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: only-wan
  namespace: atlas
spec:
  podSelector:
    matchLabels:
      role: worker
  policyTypes:
    - Egress
  egress:
    - to:
        - ipBlock:
            cidr: "0.0.0.0/0"
            except:
              - "10.20.0.0/24"
        - ipBlock:
            cidr: "::/0"
    - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: atlas
          podSelector:
            matchExpressions:
              - key: role
                operator: In
                values:
                  - head
                  - mirror
      ports:
        - protocol: TCP
          port: 22
        - protocol: TCP
          port: 80
          endPort: 90
        - protocol: UDP
"""


def test_documents_are_written_as_a_person_would() -> None:
    ports = Ports.of(Protocol.TCP, 22) | Ports.of(Protocol.TCP, 80, 90) | Ports.of(Protocol.UDP)
    policy = a_policy(a_rule(WorldPeer()), a_rule(pods("role in (head,mirror)"), ports=ports), name="only-wan")
    assert kubernetes_text(scene(policy), [ip_network("10.20.0.0/24")], with_pods=True) == GOLDEN


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (replace(a_policy(), mode=Mode.STAGE), "has no staging"),
        (replace(a_policy(), mode=Mode.LOG), "has no logging"),
        (replace(a_policy(), on_deny=OnDeny.REJECT), "has no rejecting"),
        (replace(a_policy(), keeps_established=True), "has no sparing of established connections"),
        (a_policy(a_rule(SamePeer("team"))), "has no same as a peer"),
        (a_policy(a_rule(ServicesPeer())), "has no services as a peer"),
        (a_policy(a_rule(HostPeer())), "has no host as a peer"),
        (a_policy(a_rule(GatewayPeer("wan"))), "has no gateway as a peer"),
        (a_policy(a_rule(pods("*"), ports=Ports.of(Protocol.ICMP))), "has no port list with ICMP"),
        (replace(a_policy(a_rule(WorldPeer())), tier=Tier.ADMIN), "has no world as a peer in a tier"),
        (replace(a_policy(*[a_rule(pods("*"))] * 26), tier=Tier.ADMIN), "26 rules of egress; 25 are allowed"),
        (
            replace(a_policy(), tier=Tier.ADMIN, egress=None, ingress=(a_rule(BlockPeer(ip_network("10.0.0.0/8"))),)),
            "has no address peer in a tier",
        ),
        (replace(a_policy(), subjects=(EndpointPeer(parse_selector("*"), None),)), "NetworkPolicy of all namespaces"),
    ],
)
def test_what_kubernetes_can_not_say_is_refused_by_name(policy: Policy, message: str) -> None:
    with pytest.raises(KubernetesError) as caught:
        kubernetes_text(scene(policy))
    assert str(caught.value).startswith("atlas.yaml:7: policy one: Kubernetes ")
    assert message in str(caught.value)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_exported_documents_say_the_connections_of_the_scene(objects: list[clusters.Object]) -> None:
    scene, _ = lower(read_cluster([("cluster.json", clusters.text(objects))]))
    text = kubernetes_text(scene, with_pods=True)
    back, _ = lower(read_cluster([("exported.yaml", text)]))
    again = {one.workspace: one for one in back.endpoints}
    ends: list[tuple[verdicts.End, verdicts.End]] = [
        *((one, again[one.workspace]) for one in scene.endpoints),
        *((address, address) for address in clusters.ADDRESSES),
    ]
    for source, source_again in ends:
        for target, target_again in ends:
            if source != target:
                for protocol, port in clusters.PROBES:
                    before = verdicts.connects(scene, source, target, Protocol(protocol), port)
                    after = verdicts.connects(back, source_again, target_again, Protocol(protocol), port)
                    assert before == after, f"{source} → {target} {protocol}/{port}\n{text}"
