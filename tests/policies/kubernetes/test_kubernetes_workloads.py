"""Which documents count, under which names, and with which labels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policies.importers.kubernetes.findings import Finding, Gravity
from policies.importers.kubernetes.io import read_files
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.resources import read_cluster
from policies.model import Endpoint, Gateway


def endpoints(*texts: str) -> dict[str, list[dict[str, str]]]:
    """Workspace → labels of each of its endpoints, namespace labels left out."""
    scene, _ = lower(read_cluster([(f"{number}.yaml", text) for number, text in enumerate(texts)]))
    found: dict[str, list[dict[str, str]]] = {}
    for one in scene.endpoints:
        own = {key: value for key, value in one.labels.items() if not key.startswith("namespace:")}
        found.setdefault(one.workspace, []).append(own)
    return found


def notes(*texts: str) -> list[str]:
    findings = lower(read_cluster([(f"{number}.yaml", text) for number, text in enumerate(texts)]))[1]
    return [str(one) for one in findings if one.gravity is Gravity.NOTED]


def workload(kind: str, version: str, name: str = "w", at: str = "template", more: str = "") -> str:
    inner = f"{{{at}: {{metadata: {{labels: {{a: {kind}}}}}, spec: {{containers: []}}}}}}"
    if at == "jobTemplate":
        inner = f"{{jobTemplate: {{spec: {{template: {{metadata: {{labels: {{a: {kind}}}}}}}}}}}}}"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}{more}}}\nspec: {inner}\n"


@pytest.mark.parametrize(
    ("kind", "version", "at"),
    [
        ("Deployment", "apps/v1", "template"),
        ("ReplicaSet", "apps/v1", "template"),
        ("StatefulSet", "apps/v1", "template"),
        ("DaemonSet", "apps/v1", "template"),
        ("ReplicationController", "v1", "template"),
        ("CronJob", "batch/v1", "jobTemplate"),
    ],
)
def test_a_workload_has_its_templates_labels(kind: str, version: str, at: str) -> None:
    assert endpoints(workload(kind, version, at=at)) == {"default/w": [{"a": kind}]}


def test_a_job_adds_its_name_to_its_pods() -> None:
    labels = {"a": "Job", "job-name": "w", "batch.kubernetes.io/job-name": "w"}
    assert endpoints(workload("Job", "batch/v1")) == {"default/w": [labels]}


def test_a_machine_is_the_pod_that_it_runs_in() -> None:
    machine = workload("VirtualMachine", "kubevirt.io/v1")
    instance = (
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\n"
        "metadata: {name: w, labels: {a: VirtualMachine}, "
        "ownerReferences: [{controller: true, kind: VirtualMachine, name: w}]}\nspec: {}\n"
    )
    labels = {"a": "VirtualMachine", "kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": "w"}
    assert endpoints(machine) == endpoints(instance) == endpoints(machine, instance) == {"default/w": [labels]}
    pod = (
        instance.replace("VirtualMachineInstance", "Pod")
        .replace("kubevirt.io/v1", "v1")
        .replace("name: w,", "name: x,")
    )
    pod = pod.replace("kind: VirtualMachine,", "kind: VirtualMachineInstance,")
    assert list(endpoints(machine, pod)) == ["default/w"]


def test_a_machines_ports_are_the_pods() -> None:
    text = (
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: w}\n"
        "spec: {domain: {devices: {interfaces: [{ports: [{name: http, port: 80}]}]}}}\n---\n"
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: n}\n"
        "spec: {podSelector: {}, ingress: [{ports: [{port: http}]}]}\n"
    )
    assert endpoints(text)["default/w"][0]["port:http"] == "TCP/80"


def test_ports_of_containers_and_sidecars_count_and_of_other_init_containers_do_not() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nspec:\n"
        "  containers:\n  - {ports: [{name: a, containerPort: 1}]}\n"
        "  - {ports: [{name: a, containerPort: 2, protocol: UDP}]}\n"
        "  initContainers:\n  - {ports: [{name: a, containerPort: 3}], restartPolicy: Always}\n"
        "  - {ports: [{name: a, containerPort: 4}]}\n---\n"
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: n}\n"
        "spec: {podSelector: {}, ingress: [{ports: [{port: a}]}]}\n"
    )
    assert endpoints(text)["default/w"][0] == {"port:a": "TCP/1,TCP/3,UDP/2"}


def pod(name: str, labels: str = "", owner: str = "", controller: str = "true") -> str:
    owners = (
        f", ownerReferences: [{{kind: {owner.partition('/')[0]}, name: {owner.partition('/')[2]}, " if owner else ""
    )
    owners += f"controller: {controller}}}]" if owner else ""
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}{owners}}}\n"


def test_a_pod_counts_as_its_controlling_owner() -> None:
    assert endpoints(pod("w-1", "a: b", "ReplicaSet/w")) == {"default/w": [{"a": "b"}]}


def test_an_owner_that_does_not_control_is_none() -> None:
    assert list(endpoints(pod("w-1", "", "ReplicaSet/w", "false"))) == ["default/w-1"]


def test_a_node_owns_no_workload() -> None:
    assert list(endpoints(pod("kube-proxy-n1", "", "Node/n1"))) == ["default/kube-proxy-n1"]


def test_alike_pods_of_one_owner_are_one_and_different_ones_are_told() -> None:
    one, two, three = (pod(f"w-{n}", f"a: {n // 2}x", "StatefulSet/w") for n in range(3))
    assert endpoints(one, two, three) == {"default/w": [{"a": "0x"}, {"a": "1x"}]}
    assert notes(one, two, three) == ["0.yaml:1: pods of default/w differ (2 kinds); they are listed as one workload"]


def test_owners_count_up_to_the_last_one_that_has_a_document() -> None:
    deployment = workload("Deployment", "apps/v1")
    owned = ", ownerReferences: [{kind: Deployment, name: w, controller: true}]"
    replicas = workload("ReplicaSet", "apps/v1", "w-5d4", more=owned)
    one = pod("w-5d4-x", "a: pod, pod-template-hash: 5d4", "ReplicaSet/w-5d4")
    shown = {"default/w": [{"a": "pod", "pod-template-hash": "5d4"}]}
    assert endpoints(deployment, replicas, one) == shown
    assert endpoints(deployment, one) == shown, "the hash tells whose replica set it is"
    assert list(endpoints(one)) == ["default/w-5d4"]
    assert endpoints(deployment, replicas) == {"default/w": [{"a": "Deployment"}]}


def test_owners_in_a_circle_end() -> None:
    one = pod("a", "", "Pod/b")
    assert list(endpoints(one, pod("b", "", "Pod/a"))) == ["default/a"]


def test_workloads_of_one_name_and_different_kinds_are_told_apart() -> None:
    assert list(endpoints(workload("Deployment", "apps/v1"), workload("Job", "batch/v1"))) == [
        "default/w[Deployment]",
        "default/w[Job]",
    ]


def test_namespaces_have_their_labels_and_their_name_with_or_without_a_document() -> None:
    text = (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: y, kubernetes.io/metadata.name: liar}}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: b}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ''}\n"
    )
    scene, _ = lower(read_cluster([("x.yaml", text)]))
    name = "namespace:kubernetes.io/metadata.name"
    assert [(one.workspace, one.labels) for one in scene.endpoints] == [
        ("a/p", {name: "a", "namespace:x": "y"}),
        ("b/p", {name: "b"}),
        ("default/p", {name: "default"}),
    ]


def test_all_are_on_one_network_that_the_world_reaches() -> None:
    scene, _ = lower(read_cluster([("x.yaml", pod("p"))]))
    assert scene.gateways == (Gateway("kubernetes", "world", frozenset({"cluster"}), is_open_inward=True),)
    assert scene.endpoints == (
        Endpoint("kubernetes", "default/p", "cluster", {"namespace:kubernetes.io/metadata.name": "default"}),
    )


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod, metadata: {name: p}}]\n",
        "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: p}}]\n",
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: PodList, items: [{metadata: {name: p}}]}]\n",
        '{"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "p"}}]}',
        '{"apiVersion": "v1", "kind": "Service"}\n{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}',
        "{apiVersion: v1, kind: Pod, metadata: {name: p}}",
        "x: &m {name: p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\n",
        "apiVersion: v1\nkind: Pod\nbase: &b {name: p}\nmetadata: {<<: *b}\n",
        "\ufeffapiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  name: p\r\n...\r\n",
    ],
)
def test_a_pod_is_read_however_it_is_wrapped(text: str) -> None:
    assert list(endpoints(text)) == ["default/p"]


def test_lists_of_policies_are_read() -> None:
    items = "- metadata: {name: a}\n- metadata: {name: b}\n"
    text = f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n{items}"
    scene, _ = lower(read_cluster([("x.yaml", text)]))
    assert [(one.name, str(one.origin)) for one in scene.policies] == [
        ("default/a", "x.yaml:4"),
        ("default/b", "x.yaml:5"),
    ]


def test_rules_have_their_lines() -> None:
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n  ingress:\n"
        "  - from: []\n  - ports: []\n"
    )
    scene, _ = lower(read_cluster([("x.yaml", text)]))
    assert [rule.origin.line for rule in scene.policies[0].ingress or ()] == [6, 7]


def test_rules_that_the_policys_types_leave_out_are_noted() -> None:
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n"
        "spec: {policyTypes: [Egress], ingress: [{}]}\n"
    )
    assert notes(text) == [
        "0.yaml:4: NetworkPolicy default/a: its ingress rules say nothing, since policyTypes leaves them out"
    ]


def test_a_tree_is_read_by_name_and_other_files_are_said(tmp_path: Path) -> None:
    for name in ("b/two.yml", "b/one.JSON", "a.yaml", "README.md", ".git/x.yaml", "b/c/three.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "b/pipe.yaml")
    files, findings = read_files(tmp_path)
    assert [str(Path(name).relative_to(tmp_path)) for name, _ in files] == [
        "a.yaml",
        "b/c/three.yaml",
        "b/one.JSON",
        "b/two.yml",
    ]
    assert [_said(one, tmp_path) for one in findings] == [
        (".git", "a hidden folder; skipped"),
        ("README.md", "no .yaml, .yml, .json; skipped"),
        ("b/pipe.yaml", "no regular file; skipped"),
    ]


def _said(one: Finding, root: Path) -> tuple[str, str]:
    return str(Path(one.origin.file).relative_to(root)), one.message


def test_a_file_that_is_named_is_read_whatever_its_end(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("a: 1\n")
    assert read_files(tmp_path / "all.txt")[0] == [(str(tmp_path / "all.txt"), b"a: 1\n")]
    with pytest.raises(OSError, match="No such file"):
        read_files(tmp_path / "none")


def test_a_port_that_is_none_is_passed_over_with_a_note() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - ports:\n"
        "    - {name: http, containerport: 80}\n    - {name: dns, containerPort: 53, protocol: udp}\n"
    )
    assert notes(text) == [
        "0.yaml:7: Pod p: spec.containers[0].ports[0]: containerPort is missing; the port is passed over",
        "0.yaml:8: Pod p: spec.containers[0].ports[1].protocol: read 'udp'; allowed: TCP, UDP, SCTP; "
        "the port is passed over",
    ]
