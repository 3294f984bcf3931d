"""Imported files say the same connections as the documents they come from."""

from __future__ import annotations

import kubernetes_clusters as clusters
import kubernetes_verdicts as verdicts
import pytest
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML
from test_kubernetes_words import PODS, anp, np

from playground.spec import load_playground, load_site
from playground.spec import scene as scene_of
from policies.connections import connections
from policies.importers.kubernetes.findings import KubernetesError
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.notation import Notation, notation
from policies.importers.kubernetes.resources import read_cluster
from policies.model import Scene
from policies.ports import Protocol

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
    """The scene of imported files, as the files' own reader has it."""
    site = load_site(found.site, "acme.site.yaml") if found.site else None
    return scene_of(load_playground(found.playground, "acme.yaml"), site=site)


def names_of(found: Notation) -> dict[str, str]:
    """Workspace → workload, for those that are one workspace."""
    return {workspaces[0]: workload for workload, workspaces in found.names.items() if len(workspaces) == 1}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters.clusters())
def test_imported_files_list_the_connections_of_the_documents(objects: list[clusters.Object]) -> None:
    scene, findings = lower(read_cluster([("cluster.json", clusters.text(objects))]))
    found = notation(scene, findings, "acme")
    names = names_of(found)
    direct = {
        (one.source, one.destination): one.ports
        for one in connections(scene)
        if {one.source, one.destination} <= set(names.values())
    }
    again = {
        (names[one.source], names[one.destination]): one.ports
        for one in connections(read_back(found))
        if {one.source, one.destination} <= names.keys()
    }
    assert again == direct


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
