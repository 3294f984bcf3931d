"""Pure. Namespaces and workloads of Kubernetes documents: of each, what policies can see of its pods.

A workload's own document is read as leniently as policies allow: only names, labels, host network and owner have to be
right. A named port that is wrong in itself is passed over, with a note.
"""

from __future__ import annotations

from policies.importers.kubernetes.fields import At, MisfitError
from policies.importers.kubernetes.objects import NAMESPACE_NAME, ContainerPort, Namespace, Workload
from policies.importers.kubernetes.ports import PROTOCOLS
from policies.importers.kubernetes.selecting import labels, object_name
from policies.model import Origin
from policies.ports import Protocol

DEFAULT_NAMESPACE = "default"

_POD_OF: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "VirtualMachine": ("spec", "template"),
    "VirtualMachineInstance": (),
}
"""Kind → where the pod's own metadata and spec are."""

WORKLOAD_KINDS = tuple(_POD_OF)
_VIRTUAL = ("VirtualMachine", "VirtualMachineInstance")


def name_of(at: At, *, is_namespace: bool = False) -> str:
    """metadata.name, or what a generated name begins with. Raises MisfitError if there is neither."""
    metadata = at.field("metadata")
    known = metadata.fields()
    if "name" in known:
        return object_name(known["name"], is_namespace=is_namespace)
    if "generateName" in known:
        start = known["generateName"]
        return object_name(At(start.text().rstrip("-."), start.line, start.path))
    raise MisfitError(metadata, "name is missing")


def namespace_of(at: At) -> str:
    """metadata.namespace; `default` when missing, as kubectl has it."""
    known = at.field("metadata").fields()
    if "namespace" not in known or known["namespace"].value == "":
        return DEFAULT_NAMESPACE
    return object_name(known["namespace"], is_namespace=True)


def namespace(at: At, origin: Origin) -> Namespace:
    """A Namespace document. Raises MisfitError."""
    name = name_of(at, is_namespace=True)
    return Namespace(name, {**labels(at.field("metadata").field("labels")), NAMESPACE_NAME: name}, origin)


def workload(at: At, kind: str, origin: Origin, doubts: list[MisfitError]) -> Workload:
    """A workload document of one of WORKLOAD_KINDS. Raises MisfitError; ports that are none are added to doubts.

    Labels that controllers put on their pods by name are added: `job-name` by a Job (batch/v1 JobNameLabel and its
    older spelling), `kubevirt.io` and `vm.kubevirt.io/name` by KubeVirt on the pod that a machine runs in.
    """
    name = name_of(at)
    pod = at
    for step in _POD_OF[kind]:
        pod = pod.field(step)
    own = labels(pod.field("metadata").field("labels"))
    if kind == "Job":
        own = {"job-name": name, "batch.kubernetes.io/job-name": name, **own}
    spec = pod.field("spec")
    if kind in _VIRTUAL:
        own = {**own, "kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": name}
        ports = _machine_ports(spec, doubts)
    else:
        ports = _container_ports(spec, doubts)
    return Workload(
        kind=kind,
        namespace=namespace_of(at),
        name=name,
        labels=own,
        ports=ports,
        is_on_host_network=kind not in _VIRTUAL and spec.field("hostNetwork").truth(),
        owner=_owner(at),
        origin=origin,
    )


def _container_ports(spec: At, doubts: list[MisfitError]) -> frozenset[ContainerPort]:
    """Of containers, and of init containers that go on running (sidecars: restartPolicy Always)."""
    known = spec.fields()
    containers = known["containers"].items() if "containers" in known else []
    for item in known["initContainers"].items() if "initContainers" in known else ():
        if item.field("restartPolicy").value == "Always":
            containers.append(item)
    return frozenset(
        port
        for item in containers
        for each in item.field("ports").items()
        for port in _port(each, "containerPort", doubts)
    )


def _machine_ports(spec: At, doubts: list[MisfitError]) -> frozenset[ContainerPort]:
    """Of a machine's interfaces, which KubeVirt declares at the pod's container."""
    interfaces = spec.field("domain").field("devices").field("interfaces").items()
    return frozenset(
        port for item in interfaces for each in item.field("ports").items() for port in _port(each, "port", doubts)
    )


def _port(at: At, number_key: str, doubts: list[MisfitError]) -> list[ContainerPort]:
    """The port if it has a name; others are no matter, since policies count ports whether declared or not."""
    try:
        known = at.fields()
        if "name" not in known or known["name"].value == "":
            return []
        if number_key not in known:
            raise MisfitError(at, f"{number_key} is missing")
        protocol = known["protocol"].word(PROTOCOLS) if "protocol" in known else "TCP"
        return [ContainerPort(known["name"].text(), Protocol(protocol), known[number_key].whole(1, 65535))]
    except MisfitError as error:
        doubts.append(error)
        return []


def _owner(at: At) -> tuple[str, str] | None:
    """Kind and name of the controlling owner. A node is none: it only mirrors a pod that it runs by itself."""
    for reference in at.field("metadata").field("ownerReferences").items():
        known = reference.fields()
        if "controller" in known and known["controller"].truth() and "kind" in known and "name" in known:
            kind = known["kind"].text()
            return None if kind == "Node" else (kind, object_name(known["name"]))
    return None
