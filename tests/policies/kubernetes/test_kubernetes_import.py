"""Imported files say the same connections as the documents they come from."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import kubernetes_clusters as clusters
import kubernetes_verdicts as verdicts
import pytest
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML
from test_kubernetes_words import PODS, anp, np

from policies.importers.kubernetes.findings import KubernetesError
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.notation import Notation, notation
from policies.importers.kubernetes.resources import read_cluster
from policies.model import (
    ALL_PORTS,
    Action,
    BlockPeer,
    Endpoint,
    EndpointPeer,
    Origin,
    Peer,
    Policy,
    Rule,
    Scene,
    Tier,
    WorldPeer,
)
from policies.ports import Ports, Protocol
from policies.selector import is_label_key, is_label_value, parse_selector

GOLDEN = """\
# Imported from Kubernetes documents.
name: acme
networks:
  cluster: {subnets: ["172.16.0.0/24", "fd00::/64"]}
gateways:
  world: {kind: bridge, networks: [cluster]}
workspaces:
  bank-teller: {labels: {app: web, namespace: bank, namespace/team: back, port/http: TCP/80}, networks: [cluster]}
  shop-bare: {labels: {namespace: shop, namespace/team: front}, networks: [cluster]}
  shop-db: {labels: {app: db, namespace: shop, namespace/team: front, port/http: TCP/9090}, networks: [cluster]}
  shop-node-agent: {labels: {}, networks: [cluster]}
  shop-web: {labels: {app: web, namespace: shop, namespace/team: front, port/http: TCP/8080, tier: front}, \
networks: [cluster]}
policies:
  - name: shop-one # shop/one, cluster.yaml:38
    subject: "namespace=shop,app=db"
    ingress:
      - {from: ["has(namespace),namespace/team=back", {cidr: "10.0.0.0/8", except: ["10.9.0.0/16"]}], \
ports: [tcp/9090, udp/53-54]}
    egress:
      - {to: ["*", "@world"]}
"""

GOLDEN_SITE = """\
# Imported from Kubernetes documents, beside the playground acme.
name: acme
policies:
  - name: one # one, cluster.yaml:44
    tier: admin
    priority: 5
    subject: "playground=acme,has(namespace)"
    egress:
      - {action: pass, to: ["playground=acme,has(namespace),app notin (db,web)"]}
      - {action: deny, to: ["192.0.2.0/24"], ports: [sctp/1-65535]}
"""


def imported(text: str, name: str = "acme") -> Notation:
    scene, findings = lower(read_cluster([("cluster.yaml", text)]))
    return notation(scene, findings, name)


def test_the_files_are_written_as_a_person_would() -> None:
    found = imported(
        PODS
        + np(
            "{podSelector: {matchLabels: {app: db}}, egress: [{}], ingress: [{from: [{namespaceSelector: "
            "{matchLabels: {team: back}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}], "
            "ports: [{port: http}, {port: 53, endPort: 54, protocol: UDP}]}]}"
        )
        + anp(
            "{priority: 5, subject: {namespaces: {}}, egress: [{action: Pass, to: [{pods: {namespaceSelector: {}, "
            "podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web, db]}]}}}]}, {action: Deny, "
            "to: [{networks: [192.0.2.0/24]}], ports: [{portRange: {protocol: SCTP, start: 1, end: 65535}}]}]}"
        )
    )
    assert found.playground == GOLDEN
    assert found.site == GOLDEN_SITE


def test_what_no_file_can_say_is_refused_by_name() -> None:
    with pytest.raises(KubernetesError, match="AdminNetworkPolicy one: a peer of domainNames can't be told"):
        imported(
            PODS
            + anp(
                "{priority: 1, subject: {namespaces: {}}, "
                "egress: [{action: Allow, to: [{domainNames: [example.org]}]}]}"
            )
        )


AWKWARD = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a.b, namespace: c, labels: {workspace: x, namespace: '', e: ''}}}
- {apiVersion: v1, kind: Pod, metadata: {name: a-b, namespace: c, labels: {workspace: y, e: empty}}}
- {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: c-a, labels: {'%s/k': v}}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: c-a}}
""" % ("long." * 20 + "org")


def test_names_and_labels_that_collide_or_fit_nowhere_get_their_own() -> None:
    found = imported(AWKWARD)
    assert found.names == {
        "c-a/b[Deployment]": ("c-a-b-deployment",),
        "c-a/b[Pod]": ("c-a-b-pod",),
        "c/a-b": ("c-a-b",),
        "c/a.b": ("c-a-b-2",),
    }
    workspaces = YAML(typ="safe", pure=True).load(found.playground)["workspaces"]
    assert workspaces["c-a-b"]["labels"] == {"e": "empty-2", "namespace": "c", "workspace-2": "y"}
    assert workspaces["c-a-b-2"]["labels"] == {
        "e": "empty",
        "namespace": "c",
        "namespace-2": "empty",
        "workspace-2": "x",
    }


def test_pods_that_differ_become_workspaces_of_their_own() -> None:
    owner = "ownerReferences: [{controller: true, kind: StatefulSet, name: db}]"
    found = imported(
        f"apiVersion: v1\nkind: PodList\nitems:\n- {{metadata: {{name: db-0, labels: {{a: x}}, {owner}}}}}\n"
        f"- {{metadata: {{name: db-1, labels: {{a: z}}, {owner}}}}}\n"
    )
    assert found.names == {"default/db": ("default-db", "default-db-2")}


def test_the_network_keeps_clear_of_all_addresses_that_policies_name() -> None:
    blocks = "[{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 172.16.0.0/16}}, {ipBlock: {cidr: 'fd00::/60'}}]"
    found = imported(PODS + np(f"{{podSelector: {{}}, ingress: [{{from: {blocks}}}]}}"))
    network = YAML(typ="safe", pure=True).load(found.playground)["networks"]["cluster"]
    assert network["subnets"] == ["172.17.0.0/24", "fd00:0:0:10::/64"]


def read_back(found: Notation) -> Scene:
    """The scene of imported files, read by their own words alone."""
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(found.playground)
    name = document["name"]
    endpoints = []
    for workspace, one in (document["workspaces"] or {}).items():
        assert all(is_label_key(key) and is_label_value(value) for key, value in one["labels"].items())
        labels = {**one["labels"], "workspace": workspace, "network": "cluster", "playground": name}
        endpoints.append(Endpoint(name, workspace, "cluster", labels))
    policies = [_policy(one, name) for one in document["policies"]]
    if found.site:
        policies.extend(_policy(one, "") for one in yaml.load(found.site)["policies"])
    assert len({one.name for one in policies if one.playground}) == len([one for one in policies if one.playground])
    return Scene(tuple(endpoints), tuple(policies))


def _policy(one: dict[str, Any], playground: str) -> Policy:
    assert set(one) <= {"name", "subject", "tier", "priority", "ingress", "egress"}
    scope = frozenset({playground}) if playground else None
    return Policy(
        name=one["name"],
        subjects=(EndpointPeer(parse_selector(one["subject"]), scope),),
        ingress=None if "ingress" not in one else tuple(_rule(rule, "from", scope) for rule in one["ingress"]),
        egress=None if "egress" not in one else tuple(_rule(rule, "to", scope) for rule in one["egress"]),
        origin=Origin("imported", 0),
        tier=Tier(one.get("tier", "owner")),
        priority=one.get("priority", 0),
        playground=playground,
    )


def _rule(one: dict[str, Any], key: str, scope: frozenset[str] | None) -> Rule:
    assert set(one) <= {key, "ports", "action"}
    ports = Ports.union(map(_port, one["ports"])) if "ports" in one else ALL_PORTS
    return Rule(
        tuple(_peer(peer, scope) for peer in one[key]), ports, Origin("", 0), Action(one.get("action", "allow"))
    )


def _port(text: str) -> Ports:
    word, _, numbers = text.partition("/")
    first, _, last = numbers.partition("-")
    return Ports.of(Protocol(word.upper()), int(first) if first else None, int(last) if last else None)


def _peer(one: str | dict[str, Any], scope: frozenset[str] | None) -> Peer:
    if isinstance(one, dict):
        return BlockPeer(ip_network(one["cidr"]), tuple(map(ip_network, one["except"])))
    if one == "@world":
        return WorldPeer()
    if one[0].isdigit() or "::" in one:
        return BlockPeer(ip_network(one))
    return EndpointPeer(parse_selector(one), scope)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_imported_files_say_the_connections_of_the_documents(objects: list[clusters.Object]) -> None:
    scene, findings = lower(read_cluster([("cluster.json", clusters.text(objects))]))
    found = notation(scene, findings, "acme")
    back = read_back(found)
    again = {one.workspace: one for one in back.endpoints}
    ends: list[tuple[verdicts.End, verdicts.End]] = [
        *((one, again[found.names[one.workspace][0]]) for one in scene.endpoints),
        *((address, address) for address in clusters.ADDRESSES),
    ]
    for source, source_again in ends:
        for target, target_again in ends:
            if source != target:
                for protocol, port in clusters.PROBES:
                    before = verdicts.connects(scene, source, target, Protocol(protocol), port)
                    after = verdicts.connects(back, source_again, target_again, Protocol(protocol), port)
                    assert before == after, f"{source} → {target} {protocol}/{port}\n{found.playground}\n{found.site}"
